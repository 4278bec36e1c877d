"""Metrics of requests over time, on runs whose numbers are known."""

import math

import pytest

from moebench.measure import load_metrics


def run(starts, ttft=0.5, gaps=(0.1, 0.1), errors=None):
    n = len(starts)
    return {"start_s": starts, "ttft_s": [ttft] * n, "gaps_s": [list(gaps)] * n, "input_tokens": [4] * n,
            "output_tokens": [1 + len(gaps)] * n, "errors": errors or [""] * n}  # fmt: skip


def test_start_and_end_are_cut():
    load = run([0.0, 0.0, 0.7, 0.7, 1.4, 1.4, 2.1, 2.1])  # two users, 0.7 s each
    part = load_metrics.steady(load, 2)
    assert (part.begin_s, part.end_s) == pytest.approx((0.7, 2.1))
    assert part.requests == [2, 3, 4, 5, 6, 7]
    found = load_metrics.metrics(load, part, 2)
    assert found["samples_per_s"] == pytest.approx(4 / 1.4)
    assert found["throughput_output_tokens_per_s"] == pytest.approx(12 / 1.4)
    assert found["output_tokens_per_s_per_device"] == pytest.approx(6 / 1.4)
    assert (found["ttft_s"], found["tpot_s"], found["e2e_s"]) == pytest.approx((0.5, 0.1, 0.7))
    assert found["output_tokens_per_s_per_user"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("count", "claimed"), [(1, ()), (2, (50,)), (10, (50, 90)), (99, (50, 90)), (100, (50, 90, 99))]
)
def test_a_percentile_needs_a_request_above_it(count, claimed):
    load = run([float(n) for n in range(count)], gaps=())
    found = load_metrics.metrics(load, load_metrics.Steady(-1.0, 1e9, list(range(count))), 1)
    assert tuple(p for p in load_metrics.PERCENTILES if f"ttft_p{p}_s" in found) == claimed
    assert "tpot_s" not in found, "of one token there is none"


def test_a_percentile_lies_between_values():
    assert load_metrics.percentile([4.0, 1.0, 2.0, 3.0], 50) == 2.5
    assert load_metrics.percentile([4.0, 1.0], 90) == pytest.approx(3.7)


def test_goodput_counts_requests_that_keep_all_goals():
    load = run([0.0, 1.0, 2.0, 3.0])
    load["ttft_s"][2] = 2.0
    load["gaps_s"][3] = [0.1, 0.9]
    part = load_metrics.Steady(-1.0, 10.0, [0, 1, 2, 3])
    assert load_metrics.goodput(load, part, 8.0, {"ttft_s": 1.0}) == {
        "goals_met_share": 0.75,
        "goodput_requests_per_s": 6,
    }
    both = load_metrics.goodput(load, part, 8.0, {"ttft_s": 1.0, "tpot_s": 0.2})
    assert both["goals_met_share"] == 0.5


def test_a_run_that_says_nothing_of_a_load_is_no_result():
    short = run([0.0, 0.1])
    assert "no steady state in 2 requests" in load_metrics.problem(short, load_metrics.steady(short, 8))
    failed = run([0.0, 0.7, 1.4], errors=["", "ConnectionResetError", ""])
    assert "1 of 3 requests failed: ConnectionResetError" in load_metrics.problem(
        failed, load_metrics.steady(failed, 1)
    )
    assert math.isinf(load_metrics.ends(failed)[1])
