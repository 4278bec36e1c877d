"""The highest request rate that keeps latency goals: which rate to try next.  Doubling, then bisection.

Pure: what was tried is given, what became of it is ``measure.max_rate``'s to say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from moebench.formats.plan import Workload
from moebench.formats.record import Try

KEPT, MISSED, NOT_SENT = "kept", "missed", "not_sent"
"""Verdicts on a rate."""


def bracket(tries: Sequence[Try]) -> tuple[float | None, float | None]:
    """The highest rate kept, and the lowest above it that was not; None where there is none."""
    kept = max((t["request_rate"] for t in tries if t["verdict"] == KEPT), default=None)
    others = [t["request_rate"] for t in tries if t["verdict"] != KEPT and (kept is None or t["request_rate"] > kept)]
    return kept, min(others, default=None)


def next_rate(work: Workload, tries: Sequence[Try]) -> float | None:
    """The rate to try next, requests/s; None: the search is over.

    From the lowest rate twice as much each time, so that no server is drowned, until one misses the goals or the
    highest is kept; then the geometric middle between the two, until they differ by the tolerance.
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
    """Requests of each repeat at a rate: whole conversations; of a trace all that are asked for."""
    if work.get("trace"):
        return work["requests"]
    wanted, turns = max(work["requests"], math.ceil(rate * work["try_s"])), work.get("turns", 1)
    return math.ceil(wanted / turns) * turns


def seconds(work: Workload) -> float:
    """Time to send the requests of all repeats of a whole search once, s, if the highest rate but one is kept."""
    rates, last = [work["lowest_rate"]], math.log1p(work["rate_tolerance"])
    while rates[-1] < work["highest_rate"]:
        rates.append(min(2 * rates[-1], work["highest_rate"]))
    rates += rates[-1:] * math.ceil(math.log2(max(1.0, math.log(2) / last)))
    return sum(requests(work, rate) / rate for rate in rates)
