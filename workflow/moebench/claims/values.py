"""The tests of claims: from the draws of cells to a value, its interval, and whether it agrees with the paper.

Every array has shape (draws, n): the first draw is the value itself, the others are resamples.  A test that speaks of
each of many comparisons ("every", the best, the worst, any yes or no) takes the interval of each comparison by itself,
at 1 - 0.05 / n (Bonferroni, the first step of Holm), because the extreme of many is extreme by chance as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moebench import columns
from moebench.claims.select import Pair
from moebench.claims.spec import Claim, Expect

Floats = NDArray[np.float64]

TAIL = 0.025
AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"
SHORTEST = {"steepest": 3, "bend": 3}
"""Minimum number of points in a series for the test; 2 for the others."""


@dataclass(frozen=True)
class Series:
    """Values along an axis: ``x`` of length n, ``y`` of shape (draws, n), ``rows`` that they are made of."""

    x: tuple[Any, ...]
    y: Floats
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Tested:
    """Value of a test, ends of its interval (the middle 95% of resamples), share of the resamples in which a yes-or-no
    test holds; the outcome (None if nothing is claimed)."""

    value: float
    low: float | None = None
    high: float | None = None
    support: float | None = None
    outcome: str | None = None


def place(low: float, high: float, expect: Expect) -> str:
    """``agrees`` if the interval lies in the expected range, ``disagrees`` if outside, else ``undecided``."""
    floor, ceiling = ends(expect)
    if floor <= low and high <= ceiling:
        return AGREES
    return DISAGREES if high < floor or low > ceiling else UNDECIDED


def lower_is_better(metric: str) -> bool:
    """Whether small values are better; for a metric that is not a column, large ones are."""
    return metric in columns.COLUMNS and columns.COLUMNS[metric].better == "low"


def compared(claim: Claim, values: dict[int, Floats], pairs: Sequence[Pair]) -> Floats:
    """Ratio, gain, drop or difference of every pair, shape (draws, pairs)."""
    lower = lower_is_better(claim.metric)
    of = np.stack([values[p.of] for p in pairs], axis=1)
    others = [np.stack([values[i] for i in p.to]) for p in pairs]
    to = np.stack([other.min(axis=0) if lower else other.max(axis=0) for other in others], axis=1)
    if claim.as_ == "difference":
        return np.asarray(of - to)
    ratio = of / to
    return np.asarray({"ratio": ratio, "gain": ratio - 1, "drop": 1 - ratio}[claim.as_ or "ratio"])


def tested(claim: Claim, series: Sequence[Series]) -> Tested | None:
    """The test on all series; None if none of them has enough points."""
    everything = np.concatenate([s.y for s in series], axis=1)
    if claim.test == "mean":
        return _central(claim, everything.mean(axis=1))
    if claim.test in ("max", "min"):
        return _extreme(claim, everything)
    if claim.test == "every":
        return _worst(claim, _intervals(everything))
    if claim.test == "spread":
        return _worst(claim, [_spread(claim, s.y, len(series)) for s in series])
    if claim.test in ("trend", "exponent", "bend"):
        slopes = [one for s in series if (one := _slope(claim, s)) is not None]
        return _central(claim, np.mean(slopes, axis=0)) if slopes else None
    parts = [part for s in series if (part := _statements(claim, s)) is not None]
    return _yes_or_no(claim, np.concatenate(parts, axis=1)) if parts else None


# ------------------------------------------------------------------------------------------- numbers


def ends(expect: Expect) -> tuple[float, float]:
    """Smallest and largest expected value; infinite without a limit."""
    return (-np.inf if expect.min is None else expect.min), (np.inf if expect.max is None else expect.max)


def _judged(claim: Claim, value: float, low: float, high: float) -> Tested:
    return Tested(value, low, high, outcome=place(low, high, claim.expect) if claim.expect else None)


def _central(claim: Claim, draws: Floats) -> Tested:
    """A mean or a slope: the percentile interval of its draws."""
    low, high = np.quantile(draws, [TAIL, 1 - TAIL])
    return _judged(claim, float(draws[0]), float(low), float(high))


def _intervals(columns: Floats, among: int = 1) -> list[tuple[float, float, float]]:
    """Value and interval of every column; the intervals hold simultaneously."""
    tail = TAIL / (columns.shape[1] * among)
    ends = np.quantile(columns, [tail, 1 - tail], axis=0)
    return list(zip(columns[0].tolist(), ends[0].tolist(), ends[1].tolist(), strict=True))


def _extreme(claim: Claim, columns: Floats) -> Tested:
    """The best or the worst: one comparison by itself must lie in the expected range."""
    pick = max if claim.test == "max" else min
    values, lows, highs = zip(*_intervals(columns), strict=True)
    return _judged(claim, pick(values), pick(lows), pick(highs))


def _spread(claim: Claim, y: Floats, among: int) -> tuple[float, float, float]:
    """Largest over smallest minus 1 (of comparisons: largest minus smallest), as the largest over all pairs of values.

    The range of equal values that are noisy is above zero in every draw; the difference of two given ones is not.
    """
    i, j = np.nonzero(~np.eye(y.shape[1], dtype=bool))
    values, lows, highs = zip(
        *_intervals(y[:, i] - y[:, j] if claim.of is not None else y[:, i] / y[:, j] - 1, among), strict=True
    )
    return max(values), max(*lows, 0.0), max(highs)


def _worst(claim: Claim, intervals: Iterable[tuple[float, float, float]]) -> Tested:
    """The one that speaks most against the claim; it holds if all lie in the range and fails if one lies outside."""
    floor, ceiling = ends(claim.expect or Expect())
    every = list(intervals)
    value, low, high = max(every, key=lambda one: (max(floor - one[2], one[1] - ceiling),
                                                   max(floor - one[0], one[0] - ceiling)))  # fmt: skip
    made = _judged(claim, value, low, high)
    if made.outcome == AGREES and any(place(lo, hi, claim.expect or Expect()) != AGREES for _, lo, hi in every):
        return Tested(value, low, high, outcome=UNDECIDED)
    return made


def _slope(claim: Claim, series: Series) -> Floats | None:
    """Least-squares slope per doubling (``trend``), of the logarithm (``exponent``), or the ratio of two (``bend``)."""
    at, y = _sorted(series)
    if claim.test == "bend":
        knee = float(claim.expect.first) if claim.expect else 0.0
        before, after = np.flatnonzero(at <= knee), np.flatnonzero(at > knee)
        if len(before) < 2 or not len(after):
            return None
        last, end = before[-1], after[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = [(y[:, b] - y[:, a]) / (at[b] - at[a]) for a, b in ((0, last), (last, end))]
            return np.asarray(slopes[1] / slopes[0])
    if claim.test == "exponent":
        y = np.log2(y)
    steps = np.log2(at) - np.log2(at).mean()
    return np.asarray(((y - y.mean(axis=1, keepdims=True)) * steps).sum(axis=1) / (steps**2).sum())


def _sorted(series: Series) -> tuple[Floats, Floats]:
    at = np.array([float(v) for v in series.x])
    order = np.argsort(at)
    return at[order], series.y[:, order]


# ----------------------------------------------------------------------------------------- yes or no


def _statements(claim: Claim, series: Series) -> NDArray[np.bool_] | None:
    """The single comparisons that a yes-or-no test is made of, shape (draws, comparisons); all must hold."""
    expect = claim.expect or Expect()
    if claim.test == "rank":
        return _rank(claim, expect, list(series.x), series.y)
    at, y = _sorted(series)
    if claim.test == "monotone":
        change = np.diff(y, axis=1)
        return np.asarray(change <= 0 if expect.direction == "falling" else change >= 0)
    drops = 1 - y[:, 1:] / y[:, :-1]  # steepest
    first = at[:-1] == float(expect.first)
    return np.asarray(drops[:, first] > drops[:, ~first]) if first.any() else None


def _rank(claim: Claim, expect: Expect, x: list[Any], y: Floats) -> NDArray[np.bool_] | None:
    """Whether the candidates are in the expected order, best first.  Equal ones satisfy any order between them."""
    wanted = [w for w in (expect.first, expect.last, *expect.order, *expect.top) if w is not None]
    if any(w not in x for w in wanted):
        return None
    good = -y if claim.of is None and lower_is_better(claim.metric) else y
    mine = good[:, [x.index(w) for w in wanted]]
    if expect.order:
        return np.asarray(np.diff(mine, axis=1) <= 0)
    others = good[:, [i for i, w in enumerate(x) if w not in wanted]]
    above, below = (others, mine) if expect.last is not None else (mine, others)
    return np.asarray((above[:, :, None] >= below[:, None, :]).reshape(len(y), -1))


def _yes_or_no(claim: Claim, holds: NDArray[np.bool_]) -> Tested:
    """It agrees if all comparisons hold together in 97.5% of the resamples; it disagrees if one of them, by itself,
    holds in no more than 2.5% over their number."""
    together = np.asarray(holds.all(axis=1))
    drawn = slice(1, None) if len(holds) > 1 else slice(None)
    support, weakest = float(together[drawn].mean()), float(holds[drawn].mean(axis=0).min())
    outcome = AGREES if support >= 1 - TAIL else DISAGREES if weakest <= TAIL / holds.shape[1] else UNDECIDED
    return Tested(float(together[0]), support=support, outcome=outcome if claim.expect else None)
