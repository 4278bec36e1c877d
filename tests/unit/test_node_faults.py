"""Faults of a node where no cell is measured: a checkpoint that is derived, a task, a record of an older version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import studies
from moebench import accuracy
from moebench.commands import cli, slurm_commands
from moebench.engines import failures
from moebench.measure import records
from moebench.models import derive

ECC = "CUDA error: uncorrectable ECC error encountered"
REASON = "the device failed"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan with a checkpoint to derive, in its results folder, on node n7."""
    path = tmp_path / "results" / "plan" / "s.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(studies.planned("tiny")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    monkeypatch.setenv("MOEBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MOEBENCH_STARTED", "2020")
    return path


def made(plan: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> int:
    """Exit code of the verb, where making a checkpoint ends so."""

    def make(*_: object) -> bool:
        raise error

    monkeypatch.setattr(derive, "derive", make)
    with pytest.raises(SystemExit) as ended:
        cli.main(["derive", "--plan", str(plan), "--model", "some-pruned"])
    return int(str(ended.value.code))


def test_a_checkpoint_that_a_node_cannot_make_is_made_on_another(
    plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(plan, monkeypatch, RuntimeError(f"{ECC}\nmore")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"some-pruned: not made: {REASON} on n7 ({ECC} more); fix the node" in said
    assert slurm_commands.faulty_nodes() == ["n7"]


def test_what_is_not_the_nodes_fault_is_not_laid_at_its_door(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no such layer"):
        made(plan, monkeypatch, ValueError("no such layer"))
    assert slurm_commands.faulty_nodes() == []


def test_a_node_that_failed_a_task_is_left_out_too(plan: Path, tmp_path: Path) -> None:
    """Accuracy jobs have a results folder of their own, where their driver notes it."""
    from moebench.measure import faults

    faults.note(accuracy.folder(tmp_path / "results", "lm-eval"), REASON)
    assert slurm_commands.faulty_nodes() == ["n7"]


@pytest.mark.parametrize(("reason", "final"), [(REASON, False), (failures.KERNEL, True), (failures.ANOTHER_NODE, True)])
def test_a_node_fault_that_was_final_in_an_older_version_is_pending(reason: str, final: bool) -> None:
    """Records from before ``checks.host`` have the reason alone."""
    old: Any = {"status": "node_fault", "reason": f"{reason}; the engine process ended", "attempt": 3, "checks": {}}
    assert records.is_final(old) is final
