"""Records survive crashes, full disks and edits: nothing measured is lost, nothing damaged is believed."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from moebench.errors import StorageError
from moebench.measure import records
from moebench.storage import atomic

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems or becomes another user")


def record(status="ok", attempt=1, ended_at="2026-01-02T03:04:05.000006Z", **more):
    return {
        "schema": 1, "engine": "e-1", "cell": "c-1", "status": status, "attempt": attempt, "ended_at": ended_at,
        "repeats": [{"metrics": {"e2e_s": 0.1 + 0.2, "n": 10**20}, "words": 'naïve "数"\n'}], **more,
    }  # fmt: skip


def path_of(results):
    return records.cell_path(results, "e-1", "c-1")


def files(results):
    return sorted(str(p.relative_to(results)) for p in results.rglob("*") if p.is_file())


# ------------------------------------------------------------------------------------------- soundness


def test_what_is_stored_is_what_is_loaded(tmp_path):
    stored = record()
    data = records.store(tmp_path, stored)
    assert path_of(tmp_path).read_bytes() == data
    loaded = records.load(path_of(tmp_path))
    assert {k: v for k, v in loaded.items() if k != "sha256"} == stored
    assert records.current(tmp_path, "e-1", "c-1") == (loaded, None)


def test_the_seal_does_not_depend_on_the_order_of_keys_and_can_be_renewed():
    one = records.seal(record())
    assert records.seal(dict(reversed(record().items())))["sha256"] == one["sha256"]
    assert records.seal(one) == one


def test_every_truncation_is_noticed():
    data = atomic.canonical_bytes(records.seal(record()))
    assert records.parse(data)
    for length in range(len(data)):
        with pytest.raises(records.RecordDamaged):
            records.parse(data[:length])


def test_every_changed_byte_is_noticed():
    sealed = records.seal(record())
    data = atomic.canonical_bytes(sealed)
    unnoticed = 0
    for place in range(len(data)):
        edited = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            assert records.parse(edited) == sealed  # the last digit of 0.30000000000000004 changes no value
            unnoticed += 1
        except (records.RecordDamaged, StorageError):
            continue
    assert unnoticed <= 1


def test_a_hand_edit_is_noticed_and_says_so():
    edited = json.loads(atomic.canonical_bytes(records.seal(record())))
    edited["repeats"][0]["metrics"]["e2e_s"] = 0.1
    with pytest.raises(records.RecordDamaged, match=r"checksum \(edited by hand"):
        records.parse(json.dumps(edited).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"7", b'"x"', b"{}", b'{"schema": 1}', b'{"schema": "1", "status": "ok"}', b"\xff\xfe"],
)
def test_what_is_no_record_is_damaged(data):
    with pytest.raises(records.RecordDamaged):
        records.parse(data)


def test_white_space_is_no_damage():
    sealed = records.seal(record())
    assert records.parse(json.dumps(sealed, indent=2).encode()) == sealed


def test_a_newer_schema_stops_with_a_remedy_and_is_left_alone(tmp_path):
    data = records.store(tmp_path, record(schema=records.SCHEMA + 1))
    for read in (lambda: records.load(path_of(tmp_path)), lambda: records.current(tmp_path, "e-1", "c-1")):
        with pytest.raises(StorageError, match=r"c-1\.json: record of schema 2.*update moebench"):
            read()
    assert path_of(tmp_path).read_bytes() == data


def test_a_damaged_schema_number_is_damage(tmp_path):
    """A flipped digit would otherwise stop every run with the advice to update."""
    data = records.store(tmp_path, record())
    path_of(tmp_path).write_bytes(data.replace(b'"schema":1', b'"schema":2'))
    assert records.current(tmp_path, "e-1", "c-1") == (None, "its contents do not match its checksum (edited by hand?)")


# -------------------------------------------------------------------------------------------- set aside


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b.replace(b'"ok"', b'"OK"')])
def test_a_damaged_record_is_set_aside_with_the_reason_and_nothing_is_deleted(tmp_path, damage):
    damaged = damage(records.store(tmp_path, record()))
    path_of(tmp_path).write_bytes(damaged)
    found, reason = records.current(tmp_path, "e-1", "c-1")
    assert found is None and reason
    aside = [p for p in (tmp_path / "set-aside" / "e-1").iterdir() if p.suffix != ".why"]
    assert [p.read_bytes() for p in aside] == [damaged]
    assert aside[0].with_name(aside[0].name + ".why").read_text().strip() == reason
    assert records.current(tmp_path, "e-1", "c-1") == (None, None)


def test_a_record_under_another_cells_name_is_set_aside(tmp_path):
    records.store(tmp_path, record())
    other = records.cell_path(tmp_path, "e-1", "c-2")
    shutil.copy(path_of(tmp_path), other)
    assert records.current(tmp_path, "e-1", "c-2") == (None, "record of e-1/c-1 under another cell's name")
    assert not other.exists() and records.current(tmp_path, "e-1", "c-1")[0]


def test_two_damaged_records_of_a_cell_are_both_kept(tmp_path):
    for _ in range(2):
        path_of(tmp_path).parent.mkdir(parents=True, exist_ok=True)
        path_of(tmp_path).write_bytes(b"{")
        records.current(tmp_path, "e-1", "c-1")
    assert len([p for p in (tmp_path / "set-aside" / "e-1").iterdir() if p.suffix != ".why"]) == 2


# ------------------------------------------------------------------------------------ history, attempts


def test_every_record_ever_written_is_kept(tmp_path):
    kept = [records.store(tmp_path, record(ended_at=f"2026-01-02T03:04:0{i}.000000Z", attempt=i)) for i in range(3)]
    assert [p.read_bytes() for p in sorted((tmp_path / "history" / "e-1").iterdir())] == kept
    assert path_of(tmp_path).read_bytes() == kept[-1]


def test_history_is_not_reached_by_what_writes_into_a_record(tmp_path):
    """An editor, or Snakemake when it restores an output: both write into the file instead of replacing it."""
    data = records.store(tmp_path, record())
    path_of(tmp_path).write_bytes(b"edited")
    assert [p.read_bytes() for p in (tmp_path / "history" / "e-1").iterdir()] == [data]


@pytest.mark.parametrize(
    ("statuses", "attempts"),
    [([], 0), (["crashed"], 1), (["crashed", "timeout", "node_fault"], 3), (["crashed", "ok"], 0),
     (["crashed", "crashed", "oom_kv", "crashed"], 1), (["invalid", "crashed", "crashed"], 2)],
)  # fmt: skip
def test_attempts_are_counted_since_the_last_result(tmp_path, statuses, attempts):
    for i, status in enumerate(statuses):
        records.store(tmp_path, record(status, ended_at=f"2026-01-02T03:04:0{i}.000000Z"))
    path_of(tmp_path).unlink(missing_ok=True)  # as Snakemake does with the output of a job that failed
    (tmp_path / "history" / "e-1" / "c-1.2026-01-02T03:04:09.json").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "history" / "e-1" / "c-1.2026-01-02T03:04:09.json").write_text("{")  # a damaged one does not count
    assert records.attempts_in_a_row(tmp_path, "e-1", "c-1") == attempts


@pytest.mark.parametrize("status", records.FINAL + records.INFRASTRUCTURE)
def test_results_are_final_and_failures_of_the_machinery_after_three_attempts(status):
    final = [records.is_final(record(status, attempt)) for attempt in (1, 2, 3, 4)]
    assert final == ([True] * 4 if status in records.FINAL else [False, False, True, True])
    if status not in records.FINAL:  # what somebody mends is tried as often as it is asked for
        assert not records.is_final(record(status, 9, checks={"storage": 0}))
        assert not records.is_final(record(status, 9, checks={"data": 0}))
        assert not records.is_final(record(status, 9, checks={"host": 0}))
        assert records.is_final(record(status, 9, checks={"preemptions": 0}))


def test_attempts_on_a_full_disk_do_not_count(tmp_path):
    for i, checks in enumerate([{}, {"storage": 0}, {"storage": 0}, {"data": 0}]):
        records.store(tmp_path, record("crashed", ended_at=f"2026-01-02T03:04:0{i}.000000Z", checks=checks))
    assert records.attempts_in_a_row(tmp_path, "e-1", "c-1") == 1


def test_a_cell_that_is_asked_for_again_begins_anew(tmp_path):
    for i in range(3):
        records.store(tmp_path, record("crashed", ended_at=f"2026-01-02T03:04:0{i}.000000Z"))
    records.measure_again(tmp_path, "e-1", "c-1")
    assert records.current(tmp_path, "e-1", "c-1") == (None, None)
    assert records.attempts_in_a_row(tmp_path, "e-1", "c-1") == 0
    assert len(list((tmp_path / "history" / "e-1").glob("*.json"))) == 3, "all that was recorded stays"
    records.store(tmp_path, record("crashed", ended_at="2099-01-02T03:04:05.000000Z"))
    assert records.attempts_in_a_row(tmp_path, "e-1", "c-1") == 1


# ----------------------------------------------------------------------------------------- interruptions


@contextlib.contextmanager
def tmpfs(folder, size):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@ROOT_ONLY
def test_a_full_disk_is_one_error_and_leaves_everything_whole(tmp_path):
    with tmpfs(tmp_path / "small", "512k") as small:
        stored = {}
        with pytest.raises(StorageError) as full:
            for i in range(1000):
                one = record(cell=f"c-{i}", filling=os.urandom(10_000).hex())
                stored[f"c-{i}"] = records.store(small, one)
        assert "No space left on device" in str(full.value) and "free space" in str(full.value)
        assert "\n" not in str(full.value) and 10 < len(stored) < 100
        for cell, data in stored.items():
            assert records.cell_path(small, "e-1", cell).read_bytes() == data
        assert sorted(os.listdir(small / "cells" / "e-1")) == sorted(f"{c}.json" for c in stored)
        assert len(os.listdir(small / "history" / "e-1")) == len(stored)
        # A record that is there already keeps its old content.
        old = record(cell="c-0", ended_at="2027-01-01T00:00:00Z", filling=os.urandom(400_000).hex())
        with pytest.raises(StorageError):
            records.store(small, old)
        assert records.cell_path(small, "e-1", "c-0").read_bytes() == stored["c-0"]


@ROOT_ONLY
def test_a_read_only_file_system(tmp_path):
    with tmpfs(tmp_path / "results", "1m") as results:
        data = records.store(results, record())
        subprocess.run(["mount", "-o", "remount,ro", results], check=True)
        with pytest.raises(StorageError, match=r"e-1/c-1\..*json: .*Read-only file system"):
            records.store(results, record("crashed"))
        assert records.current(results, "e-1", "c-1")[0]["status"] == "ok"
        subprocess.run(["mount", "-o", "remount,rw", results], check=True)
        path_of(results).write_bytes(data[:50])
        subprocess.run(["mount", "-o", "remount,ro", results], check=True)
        with pytest.raises(StorageError, match=r"c-1\.json: .*damaged.*Read-only"):
            records.current(results, "e-1", "c-1")


def as_nobody(*calls):
    """What each call raises, as text, in a child process that is a user without rights here."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        said = []
        for call in calls:
            try:
                said.append(str(call()))
            except StorageError as error:
                said.append(str(error))
            except BaseException as error:  # a traceback of pytest's would be no answer
                said.append(repr(error))
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return json.load(pipe)


@ROOT_ONLY
def test_a_folder_that_is_not_ours():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        results = Path(name)
        os.chmod(results, 0o755)
        records.store(results, record())
        os.chmod(path_of(results), 0o600)
        before = files(results)
        written, read = as_nobody(
            lambda: records.store(results, record(cell="c-2")), lambda: records.load(path_of(results))
        )
        assert "cannot be written (Permission denied)" in written and "c-2." in written and "permissions" in written
        assert "c-1.json: cannot be read (Permission denied)" in read
        assert files(results) == before
