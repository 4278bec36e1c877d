"""Latencies and throughputs against examples worked out by hand."""

import itertools
import random

import pytest

from moebench.engines import trace
from moebench.measure import metrics

# Two requests of 3 input and 4 output tokens.  Steps end at 1.0, 1.5, 2.0, 3.0, 3.5 s.
#   a: tokens in steps 0 1 2 3   at 1.0, 1.5, 2.0, 3.0
#   b: tokens in steps 1 2 3 4   at 1.5, 2.0, 3.0, 3.5
STAGGERED = {"step_end_s": [1.0, 1.5, 2.0, 3.0, 3.5], "requests": [[[0, 4, 1]], [[1, 4, 1]]]}
# Speculation: one request gets 1, 3, 3 and 1 tokens in steps 0, 1, 3 and 4.
SPECULATIVE = {"step_end_s": [1.0, 2.0, 2.5, 3.0, 4.0], "requests": [[[0, 1, 1], [1, 1, 3], [3, 1, 3], [4, 1, 1]]]}


def test_a_staggered_batch():
    assert metrics.trace_metrics(STAGGERED, 3, 4) == pytest.approx({
        "ttft_s": (1.0 + 1.5) / 2,
        "ttft_max_s": 1.5,
        "e2e_s": 3.5,
        "throughput_total_tokens_per_s": 2 * (3 + 4) / 3.5,  # eq. 2 of the paper counts the prompts
        "throughput_output_tokens_per_s": 2 * 4 / 3.5,
        "samples_per_s": 2 / 3.5,
        "itl_s": (0.5 + 0.5 + 1.0 + 0.5 + 1.0 + 0.5) / 6,
        "itl_p99_s": 1.0,
        "tpot_s": ((3.0 - 1.0) / 3 + (3.5 - 1.5) / 3) / 2,
        "itl_paper_s": (3.5 - 1.5) / (2 * 4 - 1),  # eq. 1: about batch times too small
    })  # fmt: skip


def test_several_tokens_in_a_step_come_at_the_same_time():
    assert metrics.token_times(SPECULATIVE["step_end_s"], SPECULATIVE["requests"][0]) == [1, 2, 2, 2, 3, 3, 3, 4]
    found = metrics.trace_metrics(SPECULATIVE, 5, 8)
    assert found["itl_s"] == found["tpot_s"] == pytest.approx(3.0 / 7)
    assert found["itl_p99_s"] == 1.0 and found["throughput_output_tokens_per_s"] == 2.0


def test_tokens_that_a_client_got_all_at_once_show_no_time_between_them():
    run = {"step_end_s": [0.5, 0.75], "requests": [[[0, 1, 1], [1, 1, 3]], [[1, 1, 4]]], "seen": {"counted_by": "ids"}}
    found = metrics.trace_metrics(run, 6, 4)
    assert found["e2e_s"] == 0.75 and "throughput_output_tokens_per_s" in found
    assert not {"ttft_s", "ttft_max_s", "itl_s", "itl_p99_s", "tpot_s", "itl_paper_s"} & set(found)
    one = {"step_end_s": [0.5], "requests": [[[0, 1, 1]]], "seen": {"counted_by": "ids"}}
    assert metrics.trace_metrics(one, 6, 1)["ttft_s"] == 0.5
    del run["seen"]  # in the engine's own steps, drafts that are accepted do come together
    assert metrics.trace_metrics(run, 6, 4)["itl_s"] == pytest.approx(0.25 / 6)


def test_one_output_token_has_no_time_between_tokens():
    run = {"step_end_s": [0.5, 0.75], "requests": [[[0, 1, 1]], [[1, 1, 1]]]}
    assert metrics.trace_metrics(run, 6, 1) == pytest.approx({
        "ttft_s": 0.625, "ttft_max_s": 0.75, "e2e_s": 0.75,
        "throughput_total_tokens_per_s": 14 / 0.75, "throughput_output_tokens_per_s": 2 / 0.75,
        "samples_per_s": 2 / 0.75,
    })  # fmt: skip


def test_the_papers_protocol_gives_the_papers_quantities_under_their_own_names():
    assert metrics.paper_metrics(0.5, 8.0, batch=4, input_tokens=100, output_tokens=25) == pytest.approx({
        "ttft_max_s": 0.5,  # a run with one output token ends when the last request has its first
        "e2e_s": 8.0,
        "throughput_total_tokens_per_s": 4 * 125 / 8,
        "throughput_output_tokens_per_s": 4 * 25 / 8,
        "samples_per_s": 4 / 8,
        "itl_paper_s": 7.5 / 99,
    })  # fmt: skip
    assert "itl_paper_s" not in metrics.paper_metrics(0.5, 0.5, 1, 100, 1)
    assert metrics.paper_metrics(0.5, 0.6, 2, 100, 1)["itl_paper_s"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("share", "count", "rank"), [(0.99, 1, 1), (0.99, 100, 99), (0.99, 101, 100), (0.5, 4, 2), (1.0, 7, 7), (0.0, 7, 1)]
)
def test_percentiles_are_by_nearest_rank(share, count, rank):
    assert metrics.percentile([float(i) for i in range(1, count + 1)], share) == rank


# ------------------------------------------------------------------------------------- run-length coding


@pytest.mark.parametrize(
    ("steps", "tokens", "runs"),
    [([], [], []), ([0, 1, 2], [1, 1, 1], [[0, 3, 1]]), ([0, 2, 3], [1, 1, 1], [[0, 1, 1], [2, 2, 1]]),
     ([0, 1, 2], [1, 2, 2], [[0, 1, 1], [1, 2, 2]]), ([5], [4], [[5, 1, 4]])],
)  # fmt: skip
def test_coding(steps, tokens, runs):
    assert trace.encode(steps, tokens) == runs


def some_requests(rng, tokens):
    """A request of so many tokens, in steps with gaps and several tokens."""
    steps, counts, step = [], [], rng.randrange(3)
    while sum(counts) < tokens:
        steps.append(step)
        counts.append(min(rng.choice((1, 1, 1, 2, 3)), tokens - sum(counts)))
        step += rng.choice((1, 1, 1, 2))
    return trace.encode(steps, counts)


@pytest.mark.parametrize("seed", range(20))
def test_a_truncated_run_has_the_first_tokens_at_their_own_times(seed):
    rng = random.Random(seed)
    requests = [some_requests(rng, 12) for _ in range(4)]
    steps = max(first + count for runs in requests for first, count, _ in runs)
    ends = list(itertools.accumulate(rng.choice((0.5, 1.0, 2.0)) for _ in range(steps)))
    run = {"step_end_s": ends, "requests": requests, "seed": 7}
    for kept in range(1, 13):
        short = metrics.truncate(run, kept)
        times = [metrics.token_times(short["step_end_s"], runs) for runs in short["requests"]]
        assert times == [metrics.token_times(ends, runs)[:kept] for runs in requests]
        assert short["step_end_s"][-1] == max(t[-1] for t in times) and short["seed"] == 7
        assert metrics.trace_metrics(short, 3, kept)["e2e_s"] == short["step_end_s"][-1]
    assert metrics.truncate(run, 12) == run


def test_truncation_inside_a_step():
    short = metrics.truncate(SPECULATIVE, 6)
    assert short["requests"] == [[[0, 1, 1], [1, 1, 3], [3, 1, 2]]] and short["step_end_s"] == [1.0, 2.0, 2.5, 3.0]


@pytest.mark.parametrize(
    ("requests", "together"),
    [([[[0, 4, 1]], [[0, 4, 1]]], True), ([[[0, 4, 1]], [[3, 4, 1]]], True), ([[[0, 4, 1]], [[4, 4, 1]]], False),
     ([[[0, 1, 1]], [[0, 1, 1]]], True), ([[[0, 1, 1]], [[1, 1, 1]]], False), ([[[0, 4, 1]]], True),
     ([[[0, 1, 4]], [[0, 2, 2]], [[1, 1, 4]]], False)],
)  # fmt: skip
def test_whether_all_requests_were_in_flight_together(requests, together):
    assert metrics.overlap({"requests": requests}) == together
