"""Requests over time that no client can send, and searches that cannot succeed: refused in the plan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from moebench.config import LOAD, SEARCH, Engine, EngineKnobs, Protocol, WorkloadKnobs
from moebench.errors import ConfigError
from moebench.prompts import over_time


def check(
    knobs: EngineKnobs, work: WorkloadKnobs, engine: Engine, protocol: Protocol, goals: Mapping[str, float], path: str
) -> None:
    """Refuse invalid settings for requests over time, and such settings in other cells. Raises ConfigError."""
    if protocol.kind != "load":
        problems = _of_others(LOAD, work, f"only protocol load, not {protocol.kind},")
    else:
        search = _of_search(work, protocol, goals) if work.find else _of_others(SEARCH, work, "only a search (find)")
        problems = itertools.chain(_of_load(knobs, work, engine), search)
    for text in problems:
        raise ConfigError(f"{path}: {text}")


def _of_others(knobs: tuple[str, ...], work: WorkloadKnobs, whose: str) -> Iterator[str]:
    """Knobs that do not apply to this cell."""
    for knob in knobs:
        value = getattr(work, knob)
        if value != WorkloadKnobs.model_fields[knob].default:
            yield f"{knob} {value if isinstance(value, str) else format(value, 'g')}: {whose} takes it"


def longest(work: WorkloadKnobs) -> int:
    """Tokens of the longest request that may be sent; for lognormal lengths, that of twice the mean."""
    spread = 1.0 if work.length_shape == "lognormal" else 0.0 if work.trace else work.length_spread
    whole = sum(math.ceil(tokens * (1 + spread)) for tokens in (work.input_tokens, work.output_tokens))
    return work.turns * whole + work.prefix_tokens


def _of_load(knobs: EngineKnobs, work: WorkloadKnobs, engine: Engine) -> Iterator[str]:
    """Problems with requests over time."""
    given = work.request_rate is not None or work.concurrency is not None
    if engine.name != "endpoint":
        yield f"protocol load: engine {engine.name!r} is not a service; choose an engine with an endpoint"
    if not (given or work.trace or work.find):
        yield "protocol load: give request_rate, concurrency or both"
    if work.requests < 2 * (work.concurrency or 1):
        yield (
            f"protocol load: requests {work.requests} are too few for a steady state;"
            f" give {4 * (work.concurrency or 25)} or more"
        )
    if work.batch != 1 or work.images or work.prompts != "random":
        yield "protocol load sends random token ids, one request at a time: leave batch and images, set prompts: random"
    if work.length_spread >= 1 and work.length_shape == "uniform":
        yield f"length_spread {work.length_spread:g}: uniform lengths need less than 1; or set length_shape: lognormal"
    if (whole := longest(work)) > knobs.max_model_len:
        what = "twice the mean request" if work.length_shape == "lognormal" else "the longest request"
        yield f"{what} has {whole} tokens, max_model_len is {knobs.max_model_len}; raise that"
    if work.requests % work.turns:
        yield f"requests {work.requests} is not a multiple of turns {work.turns}: only whole conversations are sent"
    yield from _of_ramp(work)
    if work.trace:
        yield from _of_trace(work, timed=not given)


def _of_ramp(work: WorkloadKnobs) -> Iterator[str]:
    rates = (work.request_rate, work.ramp_to)
    if work.ramp_to is None:
        return
    if not all(rate and rate == int(rate) for rate in rates) or work.ramp_to <= (work.request_rate or 0.0):
        yield (
            f"ramp_to {work.ramp_to:g} with request_rate {work.request_rate}: a ramp goes from a whole number of"
            " requests/s to a higher one"
        )


def _of_trace(work: WorkloadKnobs, timed: bool) -> Iterator[str]:
    if work.turns > 1 or work.length_spread or work.length_shape != "uniform":
        yield f"trace {work.trace}: it has its own lengths; leave out turns, length_spread and length_shape"
        return
    if work.find and timed:
        timed = False  # the search sets the rate
    try:
        lines = over_time.read_trace(Path(work.trace or ""), work.requests, timed)
    except ValueError as error:
        yield str(error)
        return
    for number, line in enumerate(lines, 1):
        for key, value, most in (
            ("input_length", line.input_tokens, work.input_tokens),
            ("output_length", line.output_tokens, work.output_tokens),
        ):
            if value > most:
                knob = key.replace("length", "tokens")
                yield f"{work.trace}, line {number}: {key} {value} is more than {knob}, {most}; raise that"


def _of_search(work: WorkloadKnobs, protocol: Protocol, goals: Mapping[str, float]) -> Iterator[str]:
    """Problems with a search for the highest rate."""
    if not goals:
        yield "find: max_rate: the study has no goals; set some, e.g. goals: {ttft_s: 0.5, tpot_s: 0.05}"
    for knob in ("request_rate", "ramp_to", "concurrency"):
        if getattr(work, knob) is not None:
            yield f"{knob} {getattr(work, knob):g}: find: max_rate sets the rate itself; leave it out"
    if work.highest_rate <= work.lowest_rate:
        yield f"highest_rate {work.highest_rate:g} is not above lowest_rate {work.lowest_rate:g}; raise it"
    if (most := work.requests * protocol.repeats * (1 - work.goals_share)) < 1 and work.goals_share < 1:
        need = math.ceil(1 / (1 - work.goals_share) - 1e-9)
        yield (
            f"goals_share {work.goals_share:g} of {work.requests} requests x {protocol.repeats} repeats: {most:.2g} may"
            f" miss the goals; give {need} requests or more, or a lower share"
        )
    slowest = goals.get("e2e_s", 0.0)
    if work.try_s <= slowest:
        yield f"try_s {work.try_s:g} is not above the goal e2e_s {slowest:g}: no request would need an answer; raise it"
