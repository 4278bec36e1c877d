"""Requests over time that the client does not draw itself: lognormal lengths, conversations, traces.

Random token ids from a seed.  Standard library only.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import NamedTuple

from moebench.formats.plan import Workload
from moebench.storage import user_files


class Asked(NamedTuple):
    """A request: its prompt as token ids, tokens to generate, and when to send it, s (None: the client decides)."""

    prompt: list[int]
    output_tokens: int
    at_s: float | None


class Line(NamedTuple):
    """A line of a trace; ``at_s``: s since the first line, None if times are not requested."""

    input_tokens: int
    output_tokens: int
    at_s: float | None


def sha256(path: Path) -> str:
    """SHA-256 of a trace.  Raises ValueError naming it if it cannot be read."""
    try:
        return user_files.sha256(path)
    except OSError as error:
        raise ValueError(f"trace {path}: cannot be read ({error.strerror}); put it there") from None


def read_trace(path: Path, count: int, timed: bool) -> list[Line]:
    """The first ``count`` requests of a trace: JSON lines with input_length, output_length and, ``timed``, timestamp
    (ms), as in Mooncake's traces.

    Raises ValueError naming file, line and value of what is missing, empty or out of order.
    """
    sha256(path)  # readable
    texts = [text for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if text.strip()]
    if len(texts) < count:
        raise ValueError(f"{path}: {len(texts)} requests, but requests is {count}; lower it")
    found: list[Line] = []
    for number, text in enumerate(texts[:count], 1):
        try:
            given = json.loads(text)
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise ValueError(f"{path}, line {number}: no JSON object: {text[:60]}")
        for key in ("input_length", "output_length"):
            value = given.get(key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{path}, line {number}: {key} {value!r} is not a number of tokens above 0")
        at_s = None
        if timed:
            when, last = given.get("timestamp"), (found[-1].at_s if found else None) or 0.0
            if not isinstance(when, (int, float)) or isinstance(when, bool) or not last <= when / 1000 < math.inf:
                raise ValueError(
                    f"{path}, line {number}: timestamp {when!r} is not a time in ms after the previous line's"
                )
            at_s = when / 1000
        found.append(Line(given["input_length"], given["output_length"], at_s))
    return found


def drawn_by_client(work: Workload) -> bool:
    """Whether the client draws the requests of a workload itself."""
    return not (work.get("trace") or work.get("turns", 1) > 1 or work.get("length_shape", "uniform") != "uniform")


def make(work: Workload, vocab_size: int, longest: int, seed: int) -> list[Asked]:
    """The requests of a workload.  ``longest``: tokens of a request that the engine accepts.

    Raises ValueError if its trace has changed since planning.
    """
    rng = random.Random(seed)
    prefix = _ids(rng, vocab_size, work["prefix_tokens"])
    if path := work.get("trace"):
        if sha256(Path(path)) != work["trace_sha256"]:
            raise ValueError(f"trace {path}: it changed after the plan was built; rebuild the plan")
        timed = not (work["request_rate"] or work["concurrency"])
        lines = read_trace(Path(path), work["requests"], timed)
        return [Asked(prefix + _ids(rng, vocab_size, n), made, at) for n, made, at in lines]
    turns = work.get("turns", 1)
    histories = [list(prefix) for _ in range(work["requests"] // turns)]
    asked: list[Asked] = []
    for _ in range(turns):  # the first turn of all conversations, then the second
        for history in histories:
            new, made = _lengths(work, (longest - len(prefix)) // turns, rng)
            history += _ids(rng, vocab_size, new)
            asked.append(Asked(list(history), made, None))
            history += _ids(rng, vocab_size, made)  # stands for the answer, which is not known yet
    return asked


def _ids(rng: random.Random, vocab_size: int, count: int) -> list[int]:
    return [rng.randrange(vocab_size) for _ in range(count)]


def _lengths(work: Workload, longest: int, rng: random.Random) -> tuple[int, int]:
    """Numbers of new prompt tokens and of tokens to generate; redrawn if longer than the engine accepts."""
    means, spread = (work["input_tokens"], work["output_tokens"]), work["length_spread"]
    while True:
        if work.get("length_shape") == "lognormal":
            variance = math.log1p(spread**2)
            drawn = [round(rng.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))) for mean in means]
        else:
            drawn = [rng.randint(math.floor(m * (1 - spread)), math.ceil(m * (1 + spread))) for m in means]
        new, output = (max(1, n) for n in drawn)
        if new + output <= longest:
            return new, output
