"""A round of ``soak.py``: the same faults every time, as far as a machine with other work allows."""

from pathlib import Path

import pytest

from slurm.soak import play, prepared


@pytest.mark.nightly  # some rounds still end with a job that failed three times, which is under search
def test_random_faults_lose_double_and_falsify_nothing(tmp_path: Path) -> None:
    with prepared(tmp_path) as (run, checker):
        done, wrong = play(run, checker, seed=1, faults=8)
    assert done.total() == 8
    assert wrong == []
    assert checker.known
