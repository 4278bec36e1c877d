"""Expected times in a plan: of loading an engine configuration, and of a cell.  Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from moebench.formats.plan import Cell, Plan

ENDS = ("", "_low", "_high")
"""Of the name of a time: expected, and the ends of its interval."""


def at_end(predicted: Mapping[str, Any], name: str, end: str) -> float | None:
    """A time of a prediction, or an end of its interval: where there is none, the time itself."""
    value: float | None = predicted.get(f"{name}{end}", predicted.get(name))
    return value


def cell_seconds(cell: Cell, overhead_s: float, end: str = "") -> float:
    """Expected wall time of a cell's runs, or an ``end`` of its interval; those of unknown length count nothing."""
    work, protocol = cell["workload"], cell["protocol"]
    runs = protocol["warmup"] + protocol["repeats"]
    if protocol["kind"] == "activation" and work.get("requests"):
        runs = math.ceil(work["requests"] / work["batch"])
    if protocol["kind"] == "load":
        runs = protocol["repeats"]
    return float(overhead_s + runs * (at_end(cell["predicted"], "run_s", end) or 0.0))


def load_seconds(plan: Plan, engine: str) -> float:
    """Expected time to load an engine configuration, s; dummy weights are made, not read."""
    spec, jobs = plan["engines"][engine], plan["jobs_settings"]
    read = 0.0 if spec["model"]["weights"] == "dummy" else spec["predicted"]["weight_bytes"] or 0.0
    return float(jobs["load_s"] + read / jobs["weights_bytes_per_s"])
