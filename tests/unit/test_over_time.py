"""Requests that the client does not draw itself: lognormal lengths, conversations, traces."""

import json
from statistics import fmean, median, pstdev

import pytest

from moebench.prompts import over_time

WORK = {"requests": 3000, "input_tokens": 100, "output_tokens": 20, "prefix_tokens": 0, "length_spread": 0.6,
        "length_shape": "lognormal", "request_rate": None, "concurrency": 8}  # fmt: skip


def test_lognormal_lengths_have_the_mean_and_spread_that_are_asked():
    made = over_time.make(WORK, 500, 4096, 1)
    inputs = [len(asked.prompt) for asked in made]
    assert fmean(inputs) == pytest.approx(100, rel=0.05) and pstdev(inputs) == pytest.approx(60, rel=0.1)
    assert median(inputs) == pytest.approx(100 / (1 + 0.6**2) ** 0.5, rel=0.05), "skewed, unlike a normal distribution"
    assert fmean(asked.output_tokens for asked in made) == pytest.approx(20, rel=0.05)
    assert {asked.at_s for asked in made} == {None} and max(max(asked.prompt) for asked in made) < 500


def test_no_request_is_longer_than_the_engine_accepts_or_empty():
    made = over_time.make(WORK | {"length_spread": 3.0, "prefix_tokens": 10}, 500, 250, 1)
    assert max(len(a.prompt) + a.output_tokens for a in made) <= 250
    assert min(len(a.prompt) for a in made) >= 11 and min(a.output_tokens for a in made) == 1


def test_the_same_seed_makes_the_same_requests_and_another_one_others():
    first, again, other = (over_time.make(WORK | {"requests": 20}, 500, 4096, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_turns_of_a_conversation_begin_with_what_was_said_and_alternate_with_others():
    work = WORK | {"requests": 6, "turns": 3, "length_shape": "uniform", "length_spread": 0.0, "prefix_tokens": 5}
    made = over_time.make(work, 500, 4096, 1)
    for talk in (made[0::2], made[1::2]):
        assert [len(asked.prompt) for asked in talk] == [105, 225, 345]
        assert talk[1].prompt[:105] == talk[0].prompt and talk[2].prompt[:225] == talk[1].prompt
    assert made[0].prompt[:5] == made[1].prompt[:5] and made[0].prompt[5:] != made[1].prompt[5:]


@pytest.mark.parametrize(("rate", "times"), [(None, [0.0, 0.5]), (4.0, [None, None])])
def test_a_trace_has_its_own_times_unless_a_rate_is_asked(tmp_path, rate, times):
    path = tmp_path / "a.jsonl"
    lines = [{"timestamp": 0, "input_length": 3, "output_length": 2, "hash_ids": [1]},
             {"timestamp": 500, "input_length": 5, "output_length": 4}]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    work = WORK | {"requests": 2, "trace": str(path), "trace_sha256": over_time.sha256(path), "request_rate": rate,
                   "concurrency": None}  # fmt: skip
    made = over_time.make(work, 500, 4096, 1)
    assert [(len(a.prompt), a.output_tokens, a.at_s) for a in made] == [(3, 2, times[0]), (5, 4, times[1])]
    path.write_text(json.dumps(lines[0]))
    with pytest.raises(ValueError, match="it changed after the plan was built"):
        over_time.make(work, 500, 4096, 1)
