"""The value of a claim, its bootstrap interval, and what follows from them.

A test is a function of the medians of the cells it compares.  Its 95% interval is the percentile bootstrap (Efron and
Tibshirani 1993, chapter 13): the repeats of every cell are drawn anew, independently, ``RESAMPLES`` times, and the
whole test is done on each draw.  For a yes-or-no test the share of draws in which it holds takes the interval's place.
Draws are seeded by the cell, so the same records always give the same interval.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moebench.claims import select
from moebench.claims.spec import NUMERIC, Claim, Expect, Settings
from moebench.cost import qs_printed

Floats = NDArray[np.float64]

RESAMPLES = 2000
TAIL = 0.025

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"
NOT_MEASURED, NO_EXPECTATION = "not measured", "nothing claimed"


@dataclass(frozen=True)
class Outcome:
    """What a claim's comparison gives on like rows."""

    outcome: str
    reason: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    support: float | None = None
    """Yes-or-no tests: share of the resamples in which the test holds."""
    comparisons: int = 0
    """Pairs or groups that were evaluated."""
    planned: int = 0
    rows: tuple[int, ...] = ()
    context: tuple[tuple[str, Any], ...] = ()


def draws(key: str, repeats: Sequence[float] | Floats) -> Floats:
    """Median of a cell's repeats, and of ``RESAMPLES`` resamples of them; shape (1 + RESAMPLES,)."""
    values = np.asarray(repeats, dtype=float)
    chosen = np.random.default_rng(zlib.crc32(key.encode())).integers(0, len(values), (RESAMPLES, len(values)))
    return np.concatenate([[np.median(values)], np.median(values[chosen], axis=1)])


def evaluate(
    claim: Claim, rows: Sequence[select.Row], values: dict[int, Floats], repeats: dict[int, int] | None = None
) -> list[Outcome]:
    """Evaluate a claim on rows, once for each context that its cells have.

    Args:
        claim: the claim, at the scale of the rows.
        rows: planned cells, with their statuses.
        values: per row with a value, its draws, shape (draws,): the value itself first, then resamples.
        repeats: per such row the number of repeats; None for values without spread (predictions).
    """
    chosen = select.select(claim, rows)
    if not chosen.rows:
        return [Outcome(NOT_MEASURED, "no cells of this study are compared so")]
    if claim.test == "infeasible":
        return [_infeasible(claim, rows, chosen, measured=repeats is not None)]
    comparisons: list[tuple[int, ...]] = [p.members for p in chosen.pairs] or list(chosen.groups)
    by_context: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for n, members in enumerate(comparisons):
        by_context.setdefault(select.context(rows, members, claim), []).append(n)
    return [_one(claim, rows, values, repeats, chosen, numbers, known) for known, numbers in by_context.items()]


def _one(
    claim: Claim,
    rows: Sequence[select.Row],
    values: dict[int, Floats],
    repeats: dict[int, int] | None,
    chosen: select.Selection,
    numbers: list[int],
    known: tuple[tuple[str, Any], ...],
) -> Outcome:
    """The outcome in one context."""
    pairs, groups, odd = [], [], set[str]()
    whole = _needs_all(claim)
    for n in numbers:
        pair = chosen.pairs[n] if chosen.pairs else None
        present = [i for i in (pair.members if pair else chosen.groups[n]) if i in values]
        # "The best of the others", or of all models, counts only if there are all of them.
        enough = len(present) == len(pair.members) if pair else len(present) == len(chosen.groups[n]) if whole else (
            len(present) > 1)  # fmt: skip
        unlike = select.unlike(rows, present)
        odd |= set(unlike) if enough else set()
        if enough and not unlike:
            if pair:
                pairs.append(pair)
            else:
                groups.append(tuple(present))
    if pairs and whole:
        planned = [chosen.pairs[n] for n in numbers]
        series = [[planned[m] for m in numbers] for numbers in select.along(claim, rows, planned)]
        pairs = [p for one in series if all(p in pairs for p in one) for p in one]
    members = [chosen.pairs[n].members if chosen.pairs else chosen.groups[n] for n in numbers]
    everything = list(dict.fromkeys(i for m in members for i in m))
    waiting = sum(rows[i].get("status") in (None, NOT_MEASURED, "damaged") and i not in values for i in everything)
    failed = sum(i not in values for i in everything) - waiting
    notes = [f"{waiting} of {len(everything)} cells not measured"] * bool(waiting)
    notes += [f"{failed} of {len(everything)} cells have no value"] * bool(failed)
    notes += [f"never compared: cells that are unlike in {', '.join(sorted(odd))}"] * bool(odd)
    computed = _test(claim, rows, values, pairs, groups) if pairs or groups else None
    if computed is None:
        return Outcome(NOT_MEASURED, "; ".join(notes) or "too few cells along the axis", planned=len(numbers),
                       context=known)  # fmt: skip
    used = tuple(dict.fromkeys(i for m in [*(p.members for p in pairs), *groups] for i in m))
    count = len(pairs) or len(groups)
    shared: dict[str, Any] = {"comparisons": count, "planned": len(numbers), "rows": used, "context": known}
    shared["value"] = float(computed[0])
    if repeats is not None and min(repeats[i] for i in used) < 2:
        return Outcome(UNDECIDED, "; ".join([*notes, "one run per cell, or no standard error: no interval"]), **shared)
    if claim.test in NUMERIC:
        shared["low"], shared["high"] = _interval(claim, values, pairs, computed) if repeats else (None, None)
    else:
        shared["support"] = float(computed[1:].mean()) if repeats else None
    if claim.expect is None:
        return Outcome(NO_EXPECTATION, "; ".join(notes), **shared)
    outcome = _within(claim, claim.expect, shared)
    if waiting and repeats is not None:
        outcome = UNDECIDED
    elif outcome == UNDECIDED:
        notes.append("the interval holds values on both sides" if claim.test in NUMERIC else "resamples disagree")
    return Outcome(outcome, "; ".join(notes), **shared)


def _interval(
    claim: Claim, values: dict[int, Floats], pairs: list[select.Pair], computed: Floats
) -> tuple[float, float]:
    """The 95% interval of a test's value.

    The best of many is best by chance as well, so that the draws of a ``max`` or ``min`` lie beyond the truth.  Its
    ends are those of the pairs' own intervals, each at 1 - 0.05 / pairs (Bonferroni, the first step of Holm), which
    hold all at once: one setting by itself must lie where the claim wants it.
    """
    if claim.test not in ("max", "min"):
        low, high = np.quantile(computed, [TAIL, 1 - TAIL])
    else:
        tail = TAIL / len(pairs)
        ends = np.quantile(compared(claim, values, pairs), [tail, 1 - tail], axis=0)
        low, high = ends.max(axis=1) if claim.test == "max" else ends.min(axis=1)
    return float(low), float(high)


def _needs_all(claim: Claim) -> bool:
    """Whether a test on some of the values of ``over`` is none: who is best, or how far models are apart."""
    return claim.test == "rank" or (claim.test == "spread" and bool({"model", "draft_model"} & set(claim.over)))


def _within(claim: Claim, expect: Expect, shared: dict[str, Any]) -> str:
    """Whether a value and its interval lie in, outside or across what is expected."""
    if claim.test not in NUMERIC:
        share = shared["support"] if shared["support"] is not None else shared["value"]
        return AGREES if share >= 1 - TAIL else DISAGREES if share <= TAIL else UNDECIDED
    low = shared["low"] if shared["low"] is not None else shared["value"]
    high = shared["high"] if shared["high"] is not None else shared["value"]
    return place(low, high, expect)


def place(low: float, high: float, expect: Expect) -> str:
    """``agrees`` if the interval lies in the expected range, ``disagrees`` if outside, else ``undecided``."""
    floor = -np.inf if expect.min is None else expect.min
    ceiling = np.inf if expect.max is None else expect.max
    if floor <= low and high <= ceiling:
        return AGREES
    return DISAGREES if high < floor or low > ceiling else UNDECIDED


# --------------------------------------------------------------------------------------------- tests


def _lower_is_better(metric: str) -> bool:
    return metric.endswith("_s") and not metric.endswith("_per_s")


def compared(claim: Claim, values: dict[int, Floats], pairs: list[select.Pair]) -> Floats:
    """Ratio, gain, drop or difference of every pair, shape (draws, pairs)."""
    lower = _lower_is_better(claim.metric)
    of = np.stack([values[p.of] for p in pairs], axis=1)
    others = [np.stack([values[i] for i in p.to]) for p in pairs]
    to = np.stack([other.min(axis=0) if lower else other.max(axis=0) for other in others], axis=1)
    if claim.as_ == "difference":
        return np.asarray(of - to)
    ratio = of / to
    return np.asarray({"ratio": ratio, "gain": ratio - 1, "drop": 1 - ratio}[claim.as_ or "ratio"])


def _test(
    claim: Claim,
    rows: Sequence[select.Row],
    values: dict[int, Floats],
    pairs: list[select.Pair],
    groups: list[tuple[int, ...]],
) -> Floats | None:
    """The test's value in every draw (yes-or-no tests: 1 or 0); None if no group is long enough for it."""
    if pairs:
        differences = compared(claim, values, pairs)
        if claim.test in ("mean", "max", "min"):
            tests = {"mean": differences.mean(axis=1), "max": differences.max(axis=1), "min": differences.min(axis=1)}
            return np.asarray(tests[claim.test])
        series = [
            ([rows[pairs[n].of].get(claim.over[0]) for n in numbers], differences[:, numbers])
            for numbers in select.along(claim, rows, pairs)
        ]
    else:
        series = [([rows[i].get(claim.over[0]) for i in group], np.stack([values[i] for i in group], axis=1))
                  for group in groups]  # fmt: skip
    made = [one for x, y in series if (one := _along(claim, x, y)) is not None]
    if not made:
        return None
    stacked = np.stack(made, axis=1)
    return np.asarray(stacked.mean(axis=1) if claim.test in NUMERIC else stacked.all(axis=1).astype(float))


def _along(claim: Claim, x: list[Any], y: Floats) -> Floats | None:
    """A test along one axis; ``y`` (draws, len(x)).  None if the axis is too short for it."""
    if len(x) < 2:
        return None
    expect = claim.expect or Expect()
    if claim.test == "spread":
        # Of a metric: how far the largest is above the smallest; of comparisons: the range they span.
        high, low = y.max(axis=1), y.min(axis=1)
        return np.asarray(high - low if claim.of is not None else high / low - 1)
    if claim.test == "rank":
        return _rank(claim, expect, x, y)
    order = np.argsort(np.array([float(v) for v in x]))
    at, y = np.array([float(x[i]) for i in order]), y[:, order]
    if claim.test == "trend":
        steps = np.log2(at) - np.log2(at).mean()
        return np.asarray(((y - y.mean(axis=1, keepdims=True)) * steps).sum(axis=1) / (steps**2).sum())
    if claim.test == "monotone":
        change = np.diff(y, axis=1)
        return np.asarray(((change <= 0) if expect.direction == "falling" else (change >= 0)).all(axis=1))
    if claim.test == "steepest":
        return np.asarray(at[np.argmax(1 - y[:, 1:] / y[:, :-1], axis=1)] == float(expect.first))
    before, after = at[at <= float(expect.first)], at[at > float(expect.first)]  # bend
    if len(before) < 2 or len(after) < 1:
        return None
    knee = len(before) - 1
    slope_before = (y[:, knee] - y[:, 0]) / (at[knee] - at[0])
    slope_after = (y[:, -1] - y[:, knee]) / (at[-1] - at[knee])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(slope_after / slope_before)


def _rank(claim: Claim, expect: Expect, x: list[Any], y: Floats) -> Floats | None:
    """Whether the candidates stand in the expected order, best first.  Equal ones satisfy any order between them."""
    wanted = [w for w in (expect.first, expect.last, *expect.order, *expect.top) if w is not None]
    if any(w not in x for w in wanted):
        return None
    good = -y if claim.of is None and _lower_is_better(claim.metric) else y
    mine = good[:, [x.index(w) for w in wanted]]
    others = good[:, [i for i, w in enumerate(x) if w not in wanted]]
    if expect.order:
        return np.asarray((np.diff(mine, axis=1) <= 0).all(axis=1))
    if expect.last is not None:
        return np.asarray((mine <= others).all(axis=1))
    return np.asarray((mine.min(axis=1, keepdims=True) >= others).all(axis=1))


_KNOWS_MEMORY = ("ok", "invalid", "oom_weights", "oom_kv", "oom_activation")
"""Statuses of cells that were tried and fitted, or did not."""


def _infeasible(claim: Claim, rows: Sequence[select.Row], chosen: select.Selection, measured: bool) -> Outcome:
    """Whether exactly the expected cells, and all of them, run out of memory.

    ``status`` of a prediction is ok or infeasible.  A measured cell that is ``infeasible`` was not tried: only a
    prediction says so.  It decides nothing, and one that crashed, timed out or was refused neither.
    """
    assert claim.expect is not None
    known = _KNOWS_MEMORY if measured else (*_KNOWS_MEMORY, "infeasible")
    tried = [i for i in chosen.rows if rows[i].get("status") in known]
    waiting, planned = len(chosen.rows) - len(tried), len(chosen.rows)
    shared: dict[str, Any] = {"comparisons": len(tried), "planned": planned, "rows": chosen.rows,
                              "context": select.context(rows, chosen.rows, claim)}  # fmt: skip
    lacking = f"{waiting} of {planned} cells not measured, not tried, refused or lost"
    if not tried:
        return Outcome(NOT_MEASURED, lacking, **shared | {"rows": ()})
    bad = [i for i in tried if str(rows[i]["status"]).startswith(("oom", "infeasible"))]
    expected = {tuple(c) for c in claim.expect.cells}
    at = {i: tuple(rows[i].get(c) for c in claim.over) for i in tried}
    odd = sorted({at[i] for i in tried if (i in bad) != (at[i] in expected)})
    text = [f"{len(bad)} cells do not fit", *([f"different: {', '.join(map(str, odd))}"] * bool(odd))]
    text += [lacking] * bool(waiting)
    outcome = UNDECIDED if waiting else AGREES if not odd else DISAGREES
    return Outcome(outcome, "; ".join(text), value=float(len(bad)), support=float(not odd), **shared)


def computed(claim: Claim, points: Sequence[select.Row]) -> Outcome | None:
    """A claim about points of the cost model (rows of the table ``computed``): it must hold at every one of them.

    The value is that of the point which speaks most against the claim.  None without such points.
    """
    assert claim.expect is not None
    rows = [row for row in points if select.matches(row, claim.where)]
    if isinstance(claim.to, dict):
        values = _computed_ratios(claim, rows, claim.to)
    else:
        values = [float(row[claim.metric]) for row in rows if row.get(claim.metric) is not None]
    if not values:
        return None
    fit = [place(v, v, claim.expect) == AGREES for v in values]
    low, high = claim.expect.min, claim.expect.max
    middle = (low + high) / 2 if low is not None and high is not None else np.inf if high is None else -np.inf
    worst = max(values, key=lambda v: abs(v - middle) if np.isfinite(middle) else -v * np.sign(middle))
    reason = f"{sum(fit)} of {len(fit)} computed points are as claimed"
    return Outcome(AGREES if all(fit) else DISAGREES, reason, value=worst, comparisons=len(fit), planned=len(fit))


def _computed_ratios(claim: Claim, rows: list[select.Row], to: Settings) -> list[float]:
    """``of`` over ``to`` at every point that both have."""
    of = claim.of if isinstance(claim.of, dict) else {}

    def by_point(settings: Settings) -> dict[tuple[Any, ...], float]:
        return {tuple(row.get(k) for k in _POINT): float(row[claim.metric])
                for row in rows if select.matches(row, settings) and row.get(claim.metric) is not None}  # fmt: skip

    ours, theirs = by_point(of), by_point(to)
    return [value / theirs[point] for point, value in ours.items() if point in theirs]


_POINT = ("model", "gpus", "quality", "context_tokens")
"""What a computed point and a printed number have in common."""


def printed(claim: Claim) -> Outcome:
    """A claim about numbers that the paper itself prints."""
    assert claim.printed is not None and claim.expect is not None
    given, reason = claim.printed, "from the paper's own printed numbers"
    if given.contexts:
        count = sum(qs_printed.of_one_capacity(given.contexts, batches) for batches in given.batches)
        value = count / (planned := len(given.contexts) * len(given.batches))
        reason = f"{count} of {planned} of the paper's own printed numbers are"
    else:
        value = sum(given.divide) / sum(given.by)
    return Outcome(place(value, value, claim.expect), reason, value=value)
