"""Claims about accuracy: rows of the table ``accuracy`` as cells that a claim compares, joined with the speed cells.

Values are compared only between the same questions asked in the same way of the same kind of weights.  Their spread is
the harness's standard error: every value is drawn anew from a normal distribution.  Where the sample logs are at hand,
all values of the same questions are drawn together (:func:`noise`), so that a difference is paired question by
question; otherwise independently, so that its standard error comes out as sqrt(s1^2 + s2^2), which is mostly too large.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moebench.claims import evaluate as ev
from moebench.claims import select
from moebench.claims.spec import Claim
from moebench.columns import Row
from moebench.tables.accuracy import MEAN
from moebench.tables.cell_rows import NOT_MEASURED

Speed = tuple[Sequence[Row], Mapping[int, ev.Floats]]
"""Speed cells, and the draws of those with a value."""
Logged = Callable[[Row], dict[str, float] | None]
"""Score of every question of a row that represents a task; None without its sample log."""

_PLANNED = (
    "task", "metric", "filter", "harness", "harness_version", "limit", "data_source", "data_revision", "weights",
)  # fmt: skip
_MEASURED = ("task", "n_shot", "task_version")
_NEVER = -10.0
"""Stands for an accuracy that does not count; below every difference of shares."""


def rows(answers: Iterable[Row], logged: Logged | None = None) -> list[Row]:
    """The rows that stand for a task, and the mean of each block, as a claim selects them.

    ``questions`` says what was asked of which kind of weights, ``asked`` how, which is known after measuring;
    ``noise``: standard normal draws that rows of the same questions share, None if a row shares none.  A mean
    that lacks values is a row without one.
    """
    made, blocks = [], dict[tuple[Any, ...], list[Row]]()
    means = {}
    for row in answers:
        key = tuple(row[k] for k in ("experiment", "block", "harness", "engine", "top_k"))
        if row["task"] == MEAN:
            means[key] = row
        elif row["main"]:
            blocks.setdefault(key, []).append(row)
    for key, tasks in blocks.items():
        tasks = [task | {"noise": noise(logged(task) if logged and task["status"] == "ok" else None)} for task in tasks]
        made += [task | _how([task]) for task in tasks]
        how = _how(tasks) | {"noise": _of_the_mean(means[key], tasks) if key in means else None}
        open_ = [task for task in tasks if task["status"] != "ok"]
        if key in means or (open_ and len(tasks) > 1):
            waiting = any(task["status"] == NOT_MEASURED for task in open_)
            lacking = tasks[0] | {"task": MEAN, "value": None, "stderr": None}
            lacking |= {"status": NOT_MEASURED if waiting or not open_ else open_[0]["status"]}
            made.append(means.get(key, lacking) | how | {"cell": f"{key[-1]} {how['questions']}"})
    return made


def _how(tasks: Sequence[Row]) -> Row:
    def words(names: Iterable[str]) -> str:
        return json.dumps(sorted([task[k] for k in names] for task in tasks))

    return {
        "questions": words(_PLANNED),
        "asked": words(_MEASURED) if all(task["status"] == "ok" for task in tasks) else None,
        "from_fixtures": any(task["data_source"] == "fixtures" for task in tasks),
    }


def evaluate(claim: Claim, cells: Sequence[Row], speed: Speed) -> list[ev.Outcome]:
    """The outcomes of a claim about accuracy at the cells' scale."""
    values: dict[int, ev.Floats] = {}
    repeats: dict[int, int] = {}
    for i, row in enumerate(cells):
        if row["status"] == "ok" and row["value"] is not None:
            values[i] = draws(f"{row['engine']}/{row['cell']}", row["value"], row["stderr"], row["noise"])
            repeats[i] = 1 if row["stderr"] is None else 2
    if claim.provided is None:
        return ev.evaluate(claim, cells, values, repeats)
    _provide(claim, cells, values, *speed)
    wanted = f"{claim.provided.metric} reaches a {claim.provided.as_} of {claim.provided.min:g}"
    return [_said(o, wanted) for o in ev.evaluate(claim, cells, values, repeats)]


def draws(key: str, value: float, stderr: float | None, shared: ev.Floats | None = None) -> ev.Floats:
    """A value and ``RESAMPLES`` draws from its normal distribution; shape (1 + RESAMPLES,)."""
    if shared is None:
        shared = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(ev.RESAMPLES)
    return np.concatenate([[value], value + (stderr or 0.0) * shared])


def noise(scores: Mapping[str, float] | None) -> ev.Floats | None:
    """Standard normal draws whose correlation between rows is that of their scores; shape (RESAMPLES,).

    z_d = sum_i xi_di (x_i - mean) / |x - mean| over the questions i, with standard normal xi that depend on nothing but
    the questions: the multiplier bootstrap (van der Vaart and Wellner, Weak Convergence, 1996, chapter 2.9).  None
    without scores, or if all are equal.
    """
    if not scores:
        return None
    names = sorted(scores)
    x = np.array([scores[name] for name in names])
    x -= x.mean()
    if not x.any():
        return None
    random = np.random.default_rng(zlib.crc32("\n".join(names).encode()))
    unit, made = (x / np.linalg.norm(x)).astype(np.float32), []
    for start in range(0, ev.RESAMPLES, _AT_ONCE):
        xi = random.standard_normal((min(_AT_ONCE, ev.RESAMPLES - start), len(x)), dtype=np.float32)
        made.append(xi @ unit)
    return np.concatenate(made).astype(float)


_AT_ONCE = 100  # draws, to bound the memory of long data sets


def _of_the_mean(mean: Row, tasks: Sequence[Row]) -> ev.Floats | None:
    """Draws of a mean of tasks: those of its tasks, weighted by standard error.  None if a task has none."""
    counted = str(mean.get("made_of")).partition(": ")[2].split(", ")
    parts = [(task["stderr"], task["noise"]) for task in tasks if f"{task['task']} {task['metric']}" in counted]
    if len(parts) != mean.get("n") or any(error is None or z is None for error, z in parts):
        return None
    total = sum(error**2 for error, _ in parts) ** 0.5
    return np.asarray(sum(error * z for error, z in parts) / total) if total else None


def _provide(
    claim: Claim,
    cells: Sequence[Row],
    values: dict[int, ev.Floats],
    speed: Sequence[Row],
    speeds: Mapping[int, ev.Floats],
) -> None:
    """Take away values of cells whose engine configuration and top-k have no speed to go with; in the draws in which
    the speed is not what is asked for, the accuracy does not count."""
    assert claim.provided is not None
    asked = of_speed(claim)
    found: dict[tuple[Any, ...], list[ev.Floats]] = {}
    for pair in select.select(asked, speed).pairs:
        if all(i in speeds for i in pair.members) and not select.unlike(speed, pair.members):
            joined = tuple(loaded(speed[i]) for i in pair.members)
            found.setdefault(joined, []).append(ev.compared(asked, dict(speeds), [pair])[:, 0])
    for pair in select.select(claim, cells).pairs:
        reached = found.get(tuple(loaded(cells[i]) for i in pair.members))
        if reached is None:
            values.pop(pair.of, None)
        elif pair.of in values:
            values[pair.of] = np.where(np.min(reached, axis=0) >= claim.provided.min, values[pair.of], _NEVER)


def of_speed(claim: Claim) -> Claim:
    """The speed comparison that a claim about accuracy requires."""
    assert claim.provided is not None
    where = {k: v for k, v in claim.where.items() if k != "task"}
    return claim.model_copy(update={"metric": claim.provided.metric, "as_": claim.provided.as_, "where": where})


def loaded(row: Row) -> tuple[Any, Any]:
    """Key that joins a speed row and an accuracy row."""
    return row["engine"], row["top_k"]


def _said(outcome: ev.Outcome, wanted: str) -> ev.Outcome:
    """The outcome with a reason in place of numbers that stand for "does not count"."""
    if outcome.value is None:
        reason = f"{outcome.reason}, or no speed of the same engine configurations"
        return dataclasses.replace(outcome, outcome=ev.NOT_MEASURED, reason=reason)
    if outcome.value > _NEVER / 2:
        low = outcome.low if outcome.low is not None and outcome.low > _NEVER / 2 else None
        return dataclasses.replace(outcome, low=low, high=outcome.high if low is not None else None)
    return dataclasses.replace(outcome, value=None, low=None, high=None, reason=f"at no setting {wanted}")
