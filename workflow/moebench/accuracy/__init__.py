"""Accuracy: tasks of real harnesses, run by the engine configurations whose speed is measured.

Each harness has its own part of the study's plan (``planning``), its own folder of records, manifests and locks
(``results/accuracy/HARNESS``, laid out like ``results``) and its own jobs. The machinery is shared with the speed
cells; ``view`` returns the plan in the form that it reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from moebench.formats.plan import EngineConfig, Plan

MOST_PARALLEL = 32
"""Questions that VLMEvalKit has under way at once, at most; never more than the engine's max_num_seqs."""


def harnesses(plan: Plan) -> list[str]:
    """The harnesses that a plan uses."""
    return sorted(plan.get("accuracy") or {})


def view(plan: Plan, harness: str) -> Plan:
    """The plan with a harness's engines, cells and jobs instead of the speed cells'."""
    part = cast(Plan, plan["accuracy"][harness])  # its cells have tasks where those of speed have workloads
    return {**plan, **part}


def folder(results: Path, harness: str) -> Path:
    """The folder with a harness's records, manifests, locks and sample logs."""
    return results / "accuracy" / harness


def views(plan: Plan, results: Path) -> list[tuple[str, Plan, Path]]:
    """Every harness of a plan with its view and its folder."""
    return [(harness, view(plan, harness), folder(results, harness)) for harness in harnesses(plan)]


def engines(plan: Plan) -> list[EngineConfig]:
    """All engine configurations of a plan, for speed and accuracy cells; one that both use appears twice."""
    parts = [plan, *plan.get("accuracy", {}).values()]
    return [engine for part in parts for engine in part["engines"].values()]
