"""Statistics of few repeats: median, its bootstrap interval, coefficient of variation.

The interval is the percentile bootstrap of the median (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13) with *all* n^n resamples instead of a random choice of them: the distribution of a resampled order
statistic is known in closed form (Maritz and Jarrett, JASA 73 (1978) 194; Efron, Biometrika 68 (1981) 589), so no
random numbers are drawn and the same data always give the same interval.

What it can and cannot do: with five repeats or fewer this interval is the range of the repeats, and
as an interval for the true median the range covers 1 - 2 (1/2)^n: 75% with three repeats, 94% with five.
"""

from __future__ import annotations

import functools
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNSTABLE_CV = 0.1
"""Above this coefficient of variation (the threshold of pyperf's warning) or canary gap a cell is called unstable."""

_CHUNK = 4_000_000  # values sorted at once, to bound the memory of large tables


def median(values: Floats) -> Floats:
    """Median of each row; NaN if a row holds a NaN."""
    return np.asarray(np.median(np.asarray(values, dtype=float), axis=-1))


def cv(values: Floats) -> Floats:
    """Coefficient of variation of each row: sample standard deviation (n - 1) / mean; NaN for one value."""
    values = np.asarray(values, dtype=float)
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(values.std(axis=-1, ddof=1) / values.mean(axis=-1))


@functools.cache
def _pairs(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Ranks (i, j) of the two middle values of a resample of n ordered values, and the probability of each pair.

    A rank below i+1 is drawn with probability (i+1)/n.  Odd n has one middle value, i = j, at position m = (n+1)/2:
    P(rank <= i) = P(Bin(n, (i+1)/n) >= m).  Even n has two, at m = n/2 and m + 1; for i < j both fall on different
    ranks when exactly m draws are <= i, one at least equal to it, and the other m are >= j, one at least equal:
    C(n, m) [((i+1)/n)^m - (i/n)^m] [((n-j)/n)^m - ((n-j-1)/n)^m]; i = j takes the rest of the marginal of i.
    """
    m = (n + 1) // 2
    at_most = [sum(comb(n, t) * (r / n) ** t * (1 - r / n) ** (n - t) for t in range(m, n + 1)) for r in range(n + 1)]
    single = np.diff(np.array(at_most))
    if n % 2:
        ranks = np.arange(n)
        return ranks, ranks, single
    below = np.array([((r + 1) / n) ** m - (r / n) ** m for r in range(n)])
    above = np.array([((n - r) / n) ** m - ((n - r - 1) / n) ** m for r in range(n)])
    joint = np.triu(comb(n, m) * np.outer(below, above), k=1)
    joint[np.diag_indices(n)] = single - joint.sum(axis=1)
    i, j = np.triu_indices(n)
    return i, j, joint[i, j]


def median_interval(values: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Bootstrap percentile interval of the median of each row of ``values`` (rows, n).

    The ends are the smallest medians whose cumulative probability over all resamples reaches (1 - level) / 2 and
    1 - (1 - level) / 2.  NaN if n < 2 (one value says nothing about its spread) or a row holds a NaN.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    rows, n = values.shape
    low, high = np.full(rows, np.nan), np.full(rows, np.nan)
    if n < 2:
        return low, high
    i, j, weight = _pairs(n)
    tail = (1 - level) / 2
    step = max(1, _CHUNK // len(weight))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        ordered = np.sort(values[part], axis=1)
        medians = (ordered[:, i] + ordered[:, j]) / 2
        order = np.argsort(medians, axis=1, kind="stable")
        total = np.cumsum(weight[order], axis=1)
        # A tiny slack keeps a sum that is mathematically at the bound from missing it by rounding.
        first = np.argmax(total >= tail - 1e-12, axis=1)
        last = np.argmax(total >= 1 - tail - 1e-12, axis=1)
        row = np.arange(len(ordered))
        low[part] = medians[row, order[row, first]]
        high[part] = medians[row, order[row, last]]
    missing = np.isnan(values).any(axis=1)
    low[missing] = high[missing] = np.nan
    return low, high


def coverage_of_range(n: int) -> float:
    """Probability that the range of n independent repeats holds the true median: 1 - 2 (1/2)^n."""
    return 1 - 2 * 0.5**n
