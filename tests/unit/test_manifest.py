"""A manifest vouches for the records of a finished job; what changed since makes the job pending again."""

import json
import os

import pytest

from moebench.errors import StorageError
from moebench.measure import manifest, records
from moebench.storage import atomic, lock

PLAN = {
    "jobs": {"job": {"engines": ["e-1", "e-2"], "digest": "d1"}, "other": {"engines": ["e-3"], "digest": "d2"}},
    "engines": {"e-1": {"cells": ["a", "b"]}, "e-2": {"cells": ["a"]}, "e-3": {"cells": ["a"]}},
}
KEYS = ["e-1/a", "e-1/b", "e-2/a"]
CANARY = [{"engine": "e-1", "cell": "a", "position": "start", "metrics": {"e2e_s": 0.5}}]


def store(results, key, **more):
    engine, cell = key.split("/")
    record = {"schema": 1, "engine": engine, "cell": cell, "status": "ok", "attempt": 1, "ended_at": atomic.stamp()}
    records.store(results, record | more)
    return records.cell_path(results, engine, cell)


@pytest.fixture
def results(tmp_path):
    for key in [*KEYS, "e-3/a"]:
        store(tmp_path, key)
    for job in ("job", "other"):
        manifest.write(tmp_path, job, PLAN["jobs"][job], PLAN, CANARY)
    return tmp_path


def stale(results):
    return manifest.stale(results, "job", PLAN)


def test_written_and_read(results):
    found = manifest.read(results, "job")
    assert list(found["records"]) == KEYS and found["digest"] == "d1" and found["canary"] == CANARY
    assert found["records"]["e-1/a"]["bytes"] == records.cell_path(results, "e-1", "a").stat().st_size
    assert manifest.read(results, "never") is None and manifest.stale(results, "never", PLAN) == []
    assert stale(results) == []


def test_a_record_that_changed_or_went_missing_is_stale(results):
    with open(records.cell_path(results, "e-1", "a"), "a") as file:
        file.write(" ")
    records.cell_path(results, "e-2", "a").unlink()
    assert stale(results) == ["e-1/a", "e-2/a"]


def test_an_edit_of_the_same_length_is_stale_and_a_touch_is_not(results):
    path = records.cell_path(results, "e-1", "b")
    os.utime(path, (1, 1))
    assert stale(results) == []
    path.write_bytes(path.read_bytes().replace(b'"ok"', b'"OK"'))
    assert stale(results) == ["e-1/b"]


def test_unchanged_records_are_not_read(results, monkeypatch):
    def read(path):
        raise AssertionError(f"read {path}")

    monkeypatch.setattr(manifest, "entry", read)
    assert stale(results) == []


def test_only_the_manifests_of_changed_jobs_are_dropped(results):
    records.cell_path(results, "e-2", "a").unlink()
    assert manifest.drop_stale(results, PLAN) == {"job": ["e-2/a"]}
    assert not manifest.path_of(results, "job").exists() and manifest.path_of(results, "other").exists()
    assert manifest.drop_stale(results, PLAN) == {}


def test_a_job_that_runs_now_is_left_alone(results):
    records.cell_path(results, "e-2", "a").unlink()
    with lock.held(results, "e-1", print):
        assert manifest.drop_stale(results, PLAN) == {}
    assert "job" in manifest.drop_stale(results, PLAN)


@pytest.mark.parametrize(
    "damage",
    [lambda d: b"", lambda d: d[: len(d) // 2], lambda d: b"[]", lambda d: b"{}", lambda d: b'{"schema": 1}',
     lambda d: d.replace(b'"bytes"', b'"byte"'), lambda d: d.replace(b'"schema":1', b'"schema":"1"')],
)  # fmt: skip
def test_a_damaged_manifest_vouches_for_nothing(results, damage):
    path = manifest.path_of(results, "job")
    path.write_bytes(damage(path.read_bytes()))
    assert manifest.read(results, "job") is None
    assert manifest.drop_stale(results, PLAN) == {"job": KEYS} and not path.exists()


def test_a_newer_manifest_is_left_alone(results):
    path = manifest.path_of(results, "job")
    newer = json.dumps(json.loads(path.read_bytes()) | {"schema": manifest.SCHEMA + 1})
    path.write_text(newer)
    assert manifest.read(results, "job") is None
    assert manifest.drop_stale(results, PLAN) == {} and path.read_text() == newer


def test_a_manifest_needs_all_its_records(results):
    records.cell_path(results, "e-2", "a").unlink()
    before = manifest.path_of(results, "job").read_bytes()
    with pytest.raises(FileNotFoundError):
        manifest.write(results, "job", PLAN["jobs"]["job"], PLAN, [])
    assert manifest.path_of(results, "job").read_bytes() == before


def test_a_newer_record_is_refused_before_anything_is_removed(results):
    path = records.cell_path(results, "e-2", "a")
    body = {"schema": records.SCHEMA + 1, "engine": "e-2", "cell": "a", "status": "ok"}
    path.write_bytes(atomic.canonical_bytes(records.seal(body)))
    records.cell_path(results, "e-3", "a").unlink()
    with pytest.raises(StorageError, match=f"{path}: .*schema {records.SCHEMA + 1}"):
        manifest.drop_stale(results, PLAN)
    assert manifest.path_of(results, "job").exists() and manifest.path_of(results, "other").exists()
