"""Two users in one folder: what one wrote the other goes on with, or is told why not before anything is measured."""

from __future__ import annotations

import json
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from snakemake.exceptions import WorkflowError

from moebench.commands import doctor, snakefile
from moebench.errors import UserError
from moebench.measure import faults, job_log, manifest, records
from moebench.storage import lock, sharing

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes two other users")

ANNA, BEN, GROUP = 20001, 20002, 20000
RECORD: Any = {"schema": 1, "engine": "e-1", "cell": "c-1", "status": "ok", "attempt": 1}
PLAN: Any = {
    "engines": {"e-1": {"cells": ["c-1"], "runtime": {"endpoint": {}}}},
    "jobs": {"j": {"digest": "d", "engines": ["e-1"]}},
}


@pytest.fixture
def project() -> Iterator[Path]:
    """A folder that a group shares as docs/slurm.md says; pytest's own are closed to others."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chown(folder, ANNA, GROUP)
        folder.chmod(0o2775)
        os.chdir(folder)
        yield folder
        os.chdir(before)


def as_user(user: int, call: Callable[[], object], umask: int = 0o002) -> Any:
    """What a call returns in a process of that user, or the words of what it raises."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said: object = None
        try:
            os.setgroups([GROUP])
            os.setgid(user)
            os.setuid(user)
            os.umask(umask)
            said = call()
        except (UserError, WorkflowError) as error:
            said = str(error)
        except BaseException:
            said = traceback.format_exc()
        os.write(write, json.dumps(said, default=str).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return json.load(pipe)


def run(stamp: str) -> None:
    """What a run writes, in the order it does."""
    results = Path("results")
    snakefile.refuse_others_files({"results": "results", "reports": "reports"})
    job_log.note(Path("logs/s/j.progress.log"), stamp)
    with lock.held(results, "e-1", print, wait_s=0):
        records.sweep(results, "e-1")
        records.store(results, RECORD | {"ended_at": stamp})
        faults.note(results, "no compiler")
    manifest.write(results, "j", PLAN["jobs"]["j"], PLAN, [])
    records.measure_again(results, "e-1", "c-1")


def test_a_group_goes_on_with_each_others_results(project: Path) -> None:
    assert as_user(ANNA, lambda: run("2026-01-01T00:00:00.0Z")) is None
    (project / "results/cells/e-1/c-1.json").write_text("torn")
    assert as_user(BEN, lambda: records.current(Path("results"), "e-1", "c-1")[0]) is None  # set aside
    assert as_user(BEN, lambda: run("2026-01-02T00:00:00.0Z")) is None
    assert as_user(ANNA, lambda: run("2026-01-03T00:00:00.0Z")) is None
    assert len(list((project / "results/history/e-1").glob("c-1.2026*.json"))) == 3
    assert len((project / "logs/s/j.progress.log").read_text().splitlines()) == 3
    assert not list((project / "results/locks").glob("*.lock"))


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_another_users_files_are_refused_before_anything_is_written(project: Path, umask: int) -> None:
    (project / "results").mkdir()
    os.chown(project / "results", ANNA, GROUP)
    (project / "results").chmod(0o2775)
    assert as_user(ANNA, lambda: run("2026-01-01T00:00:00.0Z"), umask) is None
    before = sorted(map(str, project.rglob("*")))
    said = as_user(BEN, lambda: run("2026-01-02T00:00:00.0Z"))
    assert isinstance(said, str) and "\n" not in said
    assert said.startswith("results/") and "belongs to user 20001, and user 20002 cannot write it" in said
    assert "chmod -R g+rwX results" in said and "umask 002" in said
    assert sorted(map(str, project.rglob("*"))) == before
    assert as_user(ANNA, lambda: run("2026-01-03T00:00:00.0Z"), umask) is None, "its owner goes on"


def test_doctor_says_it_too(project: Path) -> None:
    assert as_user(ANNA, lambda: run("2026-01-01T00:00:00.0Z"), 0o022) is None
    plan: Any = {"cells": {}}

    def results() -> list[object]:
        found = doctor.disk(plan, Path("results"))[-1]
        return [found.good, found.seen, found.todo]

    good, seen, todo = as_user(BEN, results)
    assert good is False and "belongs to user 20001" in seen
    assert todo.startswith("`chmod -R g+rwX results` by user 20001")
    assert as_user(ANNA, results)[0] is True


def test_a_log_that_is_written_on_and_a_sticky_folder(project: Path) -> None:
    (project / "logs").mkdir()
    (project / "logs" / "job.log").touch()
    assert as_user(BEN, lambda: sharing.refusal([], [Path("logs")])).startswith("logs: belongs to root")
    (project / "logs").chmod(0o777)
    assert as_user(BEN, lambda: sharing.refusal([Path("logs")])) is None, "files that are replaced may be anybody's"
    assert as_user(BEN, lambda: sharing.refusal([], [Path("logs")])).startswith("logs/job.log: belongs to root")
    (project / "logs").chmod(0o1777)
    assert as_user(BEN, lambda: sharing.refusal([Path("logs")])).startswith("logs/job.log: belongs to root")


def test_nothing_is_in_the_way_of_the_only_user(project: Path) -> None:
    assert as_user(ANNA, lambda: sharing.refusal([Path("results")], [Path("logs")])) is None
