"""Metrics of requests over time, from the times of each request.  Definitions: docs/metrics.md.  Standard library
only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from moebench.formats.record import LoadTrace, Metrics

PERCENTILES = (50, 90, 99)
OF_REQUESTS = ("ttft", "tpot", "e2e")


@dataclass(frozen=True)
class Steady:
    """The steady part of a run: begin and end, s since its first request, and the requests sent in it."""

    begin_s: float
    end_s: float
    requests: list[int]


def ends(load: LoadTrace) -> list[float]:
    """When each request had its last token, s since the first request was sent; infinity for one that failed."""
    return [
        math.inf if error else start + ttft + sum(gaps)
        for start, ttft, gaps, error in zip(
            load["start_s"], load["ttft_s"], load["gaps_s"], load["errors"], strict=True
        )
    ]


def steady(load: LoadTrace, concurrency: int | None) -> Steady:
    """The part between ramp-up and drain: from when as many requests are done as may be in flight until the last is
    sent.

    At the start all slots are filled at once, and at the end they empty.  Without a limit it begins when one is done.
    """
    done = sorted(ends(load))
    first = min(concurrency or 1, len(done)) - 1
    begin, end = done[first], load["start_s"][-1]
    inside = [i for i, start in enumerate(load["start_s"]) if begin <= start <= end and not load["errors"][i]]
    return Steady(begin, end, inside)


def arrival_rate(load: LoadTrace) -> float:
    """The rate at which requests were sent, requests/s."""
    return (len(load["start_s"]) - 1) / (load["start_s"][-1] or math.inf)


def problem(load: LoadTrace, part: Steady) -> str | None:
    """Why a run under load is not valid; None if it is."""
    count, failed = len(load["errors"]), [error for error in load["errors"] if error]
    if failed:
        return f"{len(failed)} of {count} requests failed: {failed[0][:300]}"
    if len(part.requests) < 2 or part.end_s <= part.begin_s:
        return f"no steady state in {count} requests: all are sent before the first are done; increase requests"
    return None


def percentile(values: list[float], percent: float) -> float:
    """Percentile with linear interpolation, as in numpy and the client."""
    ordered, place = sorted(values), (len(values) - 1) * percent / 100
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def enough(count: int, percent: float) -> bool:
    """Whether this number of values supports a percentile: at least one value is expected above it."""
    return count * (100 - percent) >= 100


def of_requests(load: LoadTrace, requests: list[int]) -> dict[str, list[float]]:
    """TTFT, TPOT and end-to-end latency, s, of each of the given requests with more than one output token."""
    found: dict[str, list[float]] = {name: [] for name in OF_REQUESTS}
    for i in requests:
        rest = sum(load["gaps_s"][i])
        found["ttft"].append(load["ttft_s"][i])
        found["e2e"].append(load["ttft_s"][i] + rest)
        if load["output_tokens"][i] > 1:
            found["tpot"].append(rest / (load["output_tokens"][i] - 1))
    return found


def tokens_within(load: LoadTrace, part: Steady) -> float:
    """Number of generated tokens that arrived in a part of a run.  The tokens of a chunk are spread evenly."""
    total = 0.0
    for i, gaps in enumerate(load["gaps_s"]):
        if load["errors"][i]:
            continue
        when, chunks, inside = load["start_s"][i] + load["ttft_s"][i], 1 + len(gaps), 0
        for gap in [0.0, *gaps]:
            when += gap
            inside += part.begin_s < when <= part.end_s
        total += load["output_tokens"][i] * inside / chunks
    return total


def metrics(load: LoadTrace, part: Steady, devices: int) -> Metrics:
    """Metrics of the requests of a part, and rates over its time. ``devices``: 0 if unknown."""
    values, length = of_requests(load, part.requests), part.end_s - part.begin_s
    gaps = [gap for i in part.requests for gap in load["gaps_s"][i]]
    found: Metrics = {
        "ttft_s": fmean(values["ttft"]),
        "e2e_s": fmean(values["e2e"]),
        "samples_per_s": sum(part.begin_s < end <= part.end_s for end in ends(load)) / length,
        "throughput_output_tokens_per_s": tokens_within(load, part) / length,
    }
    if values["tpot"]:
        found["tpot_s"] = fmean(values["tpot"])
        found["output_tokens_per_s_per_user"] = 1 / found["tpot_s"]
    if gaps:
        found["itl_s"] = fmean(gaps)
    if devices:
        found["output_tokens_per_s_per_device"] = found["throughput_output_tokens_per_s"] / devices
    for percent in PERCENTILES:
        for name, of_each in (*values.items(), ("itl", gaps)):
            if enough(len(of_each), percent):
                found[f"{name}_p{percent}_s"] = percentile(of_each, percent)
    return found


def cut(load: LoadTrace, part: Steady) -> Metrics:
    """What was excluded, and a check that the rest is steady: growth of the requests in flight, requests/s."""
    length = part.end_s - part.begin_s
    sent = sum(part.begin_s < start <= part.end_s for start in load["start_s"])
    answered = sum(part.begin_s < end <= part.end_s for end in ends(load))
    growth = (sent - answered) / length
    return {"steady_from_s": part.begin_s, "steady_s": length, "backlog_requests_per_s": growth}


def goodput(load: LoadTrace, part: Steady, completed_per_s: float, goals: dict[str, float]) -> Metrics:
    """Share of requests within all goals (``ttft_s``, ``tpot_s``, ``e2e_s``), and their rate, requests/s."""
    met = 0
    for i in part.requests:
        of_one = {f"{name}_s": values[0] for name, values in of_requests(load, [i]).items() if values}
        met += all(of_one.get(goal, 0.0) <= limit for goal, limit in goals.items())
    share = met / len(part.requests)
    return {"goals_met_share": share, "goodput_requests_per_s": share * completed_per_s}
