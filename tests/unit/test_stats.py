"""Median, bootstrap interval, coefficient of variation: compared with enumeration by hand."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest

from moebench.tables import stats


def enumerated(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the median over all n^n resamples, one by one."""
    n = len(values)
    medians = np.sort(np.median(np.array(list(itertools.product(values, repeat=n))), axis=1))
    tail = (1 - level) / 2
    place = [max(0, math.ceil(share * len(medians) - 1e-9) - 1) for share in (tail, 1 - tail)]
    return float(medians[place[0]]), float(medians[place[1]])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_interval_is_that_of_all_resamples(n, level):
    values = np.random.default_rng(n).lognormal(size=n)
    low, high = stats.median_interval(values, level)
    assert (low[0], high[0]) == pytest.approx(enumerated(values, level))


@pytest.mark.parametrize("n", [3, 8, 25, 40])
def test_probabilities_add_up(n):
    assert stats._pairs(n)[2].sum() == pytest.approx(1)
    assert (stats._pairs(n)[2] > -1e-12).all()


def test_many_values_agree_with_random_resampling():
    rng = np.random.default_rng(1)
    values = rng.normal(10, 1, 30)
    drawn = np.median(rng.choice(values, (50_000, 30)), axis=1)
    low, high = stats.median_interval(values)
    assert (low[0], high[0]) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.05)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_few_repeats_give_their_range(n):
    values = np.arange(n, dtype=float)
    assert [float(v[0]) for v in stats.median_interval(values)] == [0, n - 1]


def test_order_of_repeats_does_not_matter_and_rows_are_apart():
    values = np.array([[3.0, 1, 2], [2, 3, 1], [5, 5, 5]])
    low, high = stats.median_interval(values)
    assert low.tolist() == [1, 1, 5] and high.tolist() == [3, 3, 5]
    assert stats.median(values).tolist() == [2, 2, 5]


def test_no_interval_from_one_value_or_missing_ones():
    assert np.isnan(stats.median_interval(np.array([[1.0], [2.0]]))).all()
    low, high = stats.median_interval(np.array([[1.0, np.nan, 3], [1, 2, 3]]))
    assert np.isnan([low[0], high[0]]).all() and (low[1], high[1]) == (1, 3)


def test_cv():
    assert stats.cv(np.array([[9.0, 10, 11]]))[0] == pytest.approx(0.1)
    assert np.isnan(stats.cv(np.array([[3.0]]))).all()


def test_coverage_of_the_range():
    assert [stats.coverage_of_range(n) for n in (3, 5)] == [0.75, 0.9375]


def test_a_hundred_thousand_cells_take_seconds():
    values = np.random.default_rng(0).random((100_000, 5))  # of one metric
    start = time.process_time()
    stats.median_interval(values)
    assert time.process_time() - start < 5
