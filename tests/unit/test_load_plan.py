"""Cells of protocol load in the plan: which are cells, which are refused, and that no other cell changes."""

import pandas as pd
import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import LOAD, Config
from moebench.errors import ConfigError
from moebench.figures import caption

SERVED = {"served": {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}}}
FIX = {"engine_name": "served", "model": "tiny-mixtral", "prompts": "random", "input_tokens": 32, "output_tokens": 16,
       "requests": 64}  # fmt: skip
LOADED = {"kind": "load", "warmup": 1, "repeats": 2, "seed": 1}


def plan(tmp_path, protocol=LOADED, **knobs):
    blocks = [{"fix": {k: v for k, v in {**FIX, **knobs}.items() if v is not None}}]
    experiments = {"load": {"blocks": blocks, "protocol": protocol}}
    config = studies.folder(tmp_path, experiments, engines=SERVED, goals={"ttft_s": 0.5})
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


def test_no_figure_of_predictions_is_planned_of_a_load():
    """The cost model does not predict how requests queue."""
    experiments = studies.planned("tiny")["experiments"]
    assert experiments["serving-users"]["predicted_figures"] == []
    assert experiments["fig05-topk-batch"]["predicted_figures"]


def test_a_caption_names_no_batch_of_a_load():
    rows = pd.DataFrame({"protocol_kind": ["load"] * 2, "batch": 1, "input_tokens": [32, 64], "output_tokens": 16})
    assert caption.workload(rows) == "Requests over time, of about 32 to 64 input and 16 output tokens."
