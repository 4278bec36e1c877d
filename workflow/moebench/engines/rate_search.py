"""Search for the highest request rate that meets latency goals: chooses the next rate.  Doubling, then bisection.

Pure functions of the tries so far; ``measure.max_rate`` judges each try.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from moebench.formats.plan import Workload
from moebench.formats.record import Try

KEPT, MISSED, NOT_SENT = "kept", "missed", "not_sent"
"""Verdicts on a rate."""


def bracket(tries: Sequence[Try]) -> tuple[float | None, float | None]:
    """The highest rate that met the goals, and the lowest rate above it that did not; None if there is none."""
    kept = max((t["request_rate"] for t in tries if t["verdict"] == KEPT), default=None)
    others = [t["request_rate"] for t in tries if t["verdict"] != KEPT and (kept is None or t["request_rate"] > kept)]
    return kept, min(others, default=None)


def next_rate(work: Workload, tries: Sequence[Try]) -> float | None:
    """The rate to try next, requests/s; None: the search is over.

    Doubles the rate from the lowest, so that no server is overloaded, until one misses the goals or the highest meets
    them; then takes the geometric mean of the bracket until its ends are within the tolerance.
    """
    kept, other = bracket(tries)
    if kept is None:
        return work["lowest_rate"] if other is None else None
    if other is None:
        return min(2 * kept, work["highest_rate"]) if kept < work["highest_rate"] else None
    if other <= kept * (1 + work["rate_tolerance"]):
        return None
    middle = float(f"{math.sqrt(kept * other):.4g}")
    return middle if kept < middle < other else None


def requests(work: Workload, rate: float) -> int:
    """Requests of each repeat at a rate: whole conversations; for a trace, all that are requested."""
    if work.get("trace"):
        return work["requests"]
    wanted, turns = max(work["requests"], math.ceil(rate * work["try_s"])), work.get("turns", 1)
    return math.ceil(wanted / turns) * turns


def seconds(work: Workload) -> float:
    """Time to send the requests of all repeats of a whole search, s, if every rate but the highest meets the goals."""
    rates, last = [work["lowest_rate"]], math.log1p(work["rate_tolerance"])
    while rates[-1] < work["highest_rate"]:
        rates.append(min(2 * rates[-1], work["highest_rate"]))
    rates += rates[-1:] * math.ceil(math.log2(max(1.0, math.log(2) / last)))
    return sum(requests(work, rate) / rate for rate in rates)
