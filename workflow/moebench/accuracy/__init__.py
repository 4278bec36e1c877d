"""Accuracy: tasks of real harnesses, run by the engine configurations whose speed is measured.

A harness has a plan of its own inside the study's (``planning``), a folder of records, manifests and locks of its own
(``results/accuracy/HARNESS``, laid out like ``results``) and jobs of its own; the machinery is that of the speed cells.
``view`` gives what that machinery reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from moebench.formats.plan import EngineConfig, Plan

MOST_PARALLEL = 32
"""Questions that VLMEvalKit has under way at once, at most; never more than the engine's max_num_seqs."""


def harnesses(plan: Plan) -> list[str]:
    """Harnesses that a plan asks for."""
    return sorted(plan.get("accuracy") or {})


def view(plan: Plan, harness: str) -> Plan:
    """The plan with a harness's engines, cells and jobs in the place of the speed cells'."""
    part = cast(Plan, plan["accuracy"][harness])  # its cells have tasks where those of speed have workloads
    return {**plan, **part}


def folder(results: Path, harness: str) -> Path:
    """Where a harness's records, manifests, locks and sample logs lie."""
    return results / "accuracy" / harness


def views(plan: Plan, results: Path) -> list[tuple[str, Plan, Path]]:
    """Every harness of a plan with its view and its folder."""
    return [(harness, view(plan, harness), folder(results, harness)) for harness in harnesses(plan)]


def engines(plan: Plan) -> list[EngineConfig]:
    """All engine configurations of a plan, of speed and accuracy cells; the same one twice where both ask for it."""
    parts = [plan, *plan.get("accuracy", {}).values()]
    return [engine for part in parts for engine in part["engines"].values()]
