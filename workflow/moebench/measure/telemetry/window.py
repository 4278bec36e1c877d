"""Reduces samples to a few numbers per run.

An energy counter is constant between two updates, and it is read every 100 ms.  Its values at the ends of a run are
interpolated between the samples on both sides, which may be off by an update and part of a sampling interval at each
end (docs/metrics.md quantifies this).  So short runs, slow counters and late samples give no energy rather than a wrong
one.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from moebench.formats.record import Telemetry

Reading = dict[str, Any]
"""What one device says at one time; None for what it does not say.  Keys: ``energy_j`` (a counter), ``power_w``,
``sm_clock_mhz``, ``memory_clock_mhz``, ``temperature_c``, ``memory_bytes``, ``utilization`` (0 to 1) and
``throttle_reasons`` (names)."""
Sample = tuple[float, list[Reading]]
"""Time, s of the monotonic clock, and a reading per device."""

SHORTEST_S = 2.0
"""A shorter run has no energy: it has 20 samples; NVIDIA's devices update their counters every 20 to 100 ms."""
LEAST_UPDATES = 10
"""Updates of a counter that a run must see: its resolution is then a tenth of the run or better."""
EDGE_SHARE = 0.1
"""The samples on both sides of an end of a run are no further apart than this share of the run."""


def reduce(samples: list[Sample], begin: float, end: float) -> Telemetry:
    """The numbers of a run from ``begin`` to ``end``, s of the monotonic clock.

    ``window_s``, ``samples`` and ``devices`` (numbers of them), ``energy_j`` of all devices together, else None and
    ``no_energy`` with the reason.  Of the samples within the run: ``power_max_w`` of a device, means of
    ``sm_clock_mhz``, ``memory_clock_mhz`` and ``utilization`` over samples and devices, ``sm_clock_min_mhz``, the
    largest ``temperature_c`` and ``memory_peak_bytes`` of a device, and all ``throttle_reasons``; None if no device
    reports it.
    """
    times = [time for time, _ in samples]
    samples = samples[max(0, bisect_right(times, begin) - 1) : bisect_left(times, end) + 1]  # with both neighbours
    inside = [reading for time, readings in samples if begin <= time <= end for reading in readings]
    devices = len(samples[0][1]) if samples else 0

    def all_of(name: str) -> list[Any]:
        return [reading[name] for reading in inside if reading.get(name) is not None]

    def mean(name: str) -> float | None:
        values = all_of(name)
        return sum(values) / len(values) if values else None

    reasons = all_of("throttle_reasons")
    counters = [[(time, readings[d].get("energy_j")) for time, readings in samples] for d in range(devices)]
    energies = [energy(counter, begin, end) for counter in counters]
    why = next((found for found in energies if isinstance(found, str)), None if energies else "no samples")
    made: Telemetry = {
        "window_s": end - begin,
        "samples": len(inside) // devices if devices else 0,
        "devices": devices,
        "energy_j": None if why else sum(found for found in energies if not isinstance(found, str)),
        "power_max_w": max(all_of("power_w"), default=None),
        "sm_clock_mhz": mean("sm_clock_mhz"),
        "sm_clock_min_mhz": min(all_of("sm_clock_mhz"), default=None),
        "memory_clock_mhz": mean("memory_clock_mhz"),
        "temperature_c": max(all_of("temperature_c"), default=None),
        "memory_peak_bytes": max(all_of("memory_bytes"), default=None),
        "utilization": mean("utilization"),
        "throttle_reasons": sorted(set(itertools.chain.from_iterable(reasons))) if reasons else None,
    }
    return made | {"no_energy": why} if why else made


def energy(counter: Sequence[tuple[float, float | None]], begin: float, end: float) -> float | str:
    """Energy between two times, J, by the samples (s, J) of a counter from the last before to the first after; or the
    reason, as text, why it is unknown.
    """
    if end - begin < SHORTEST_S:
        return f"the run of {end - begin:.2f} s is shorter than {SHORTEST_S:g} s"
    known = [(time, joules) for time, joules in counter if joules is not None]
    if not known:
        return "no counter of energy"
    if len(known) < len(counter) or any(b < a for (_, a), (_, b) in itertools.pairwise(known)):
        return "the counter of energy failed or was reset"
    if not known[0][0] <= begin < end <= known[-1][0]:
        return "no samples around the run"
    edges = ((begin, known[0], known[1]), (end, known[-2], known[-1]))
    if any(after[0] - before[0] > EDGE_SHARE * (end - begin) for _, before, after in edges):
        return "no sample close to an end of the run"
    updates = sum(b > a for (_, a), (_, b) in itertools.pairwise(known[1:-1]))
    if updates < LEAST_UPDATES:
        return f"the energy counter changed only {updates} times"
    first, last = (e0 + (e1 - e0) * (at - t0) / (t1 - t0) for at, (t0, e0), (t1, e1) in edges)
    return last - first


def of_part(seen: Telemetry) -> Telemetry:
    """The telemetry of a run truncated from a longer one: only reasons for throttling, as the rest applies to the
    longer run."""
    return {"throttle_reasons": seen.get("throttle_reasons")}
