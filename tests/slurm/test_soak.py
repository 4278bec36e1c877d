"""A round of ``soak.py``: the same faults every time, as far as a machine with other work allows."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm import soak
from slurm.soak import play, prepared

EIGHT = 28989
"""A seed whose first faults differ: to engine, Snakemake, driver, slurmctld, a record, the disk, a record, sacct."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket of SLURM's nodes has room for 108 characters.  Kept if the round has gone wrong."""
    own = Path(tempfile.mkdtemp(prefix="moebench-soak-"))
    yield own
    if not list(own.glob("violation-*")):
        shutil.rmtree(own, ignore_errors=True)


@pytest.mark.parametrize(
    ("seed", "faults", "models"), [(EIGHT, 8, 2), pytest.param(1, 40, 3, marks=pytest.mark.nightly)]
)
def test_random_faults_lose_double_and_falsify_nothing(folder: Path, seed: int, faults: int, models: int) -> None:
    with prepared(folder, models) as (run, checker):
        done, wrong = play(run, checker, seed, faults, measured=faults > 8)
    assert wrong == []
    assert done.total() == faults
    assert checker.known


def test_of_a_round_that_went_wrong_everything_is_kept(tmp_path: Path) -> None:
    kept = (
        "project/results/cells/e/c.json",
        "project/logs/s/j.log",
        "project/.snakemake/log/x",
        "slurm/log/node01.log",
    )
    for name in (*kept, "project.snakemake-1.txt", "faults-7.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    cluster: Any = SimpleNamespace(folder=tmp_path / "slurm", run=lambda *command, check: "JobId=1")
    where = soak.evidence(soak.Project(tmp_path / "project", cluster), 7)
    found = {str(path.relative_to(where)) for path in where.rglob("*") if path.is_file()}
    assert found == {"results/cells/e/c.json", "logs/s/j.log", ".snakemake/log/x", "slurm/node01.log", "jobs.txt",
                     "project.snakemake-1.txt", "faults-7.txt"}  # fmt: skip
