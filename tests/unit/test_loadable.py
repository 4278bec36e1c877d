"""Shapes and layouts that vLLM does not load are known from the plan, with the reason; others are left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import studies
from moebench.claims import budget
from moebench.commands.planning import make_plan
from moebench.config import Config, EngineKnobs
from moebench.plan import loadable
from moebench.plan.models import resolve_model

CONFIG = Config(Path(__file__).parents[2] / "config")
ENGINE = CONFIG.study("paper").engine


def problem(model: str, **knobs) -> str | None:
    asked = EngineKnobs(model=model, **knobs)
    loaded = resolve_model(CONFIG.model(model), asked, "models", lambda hub, revision: None)
    return loadable.problem(asked, loaded, None, ENGINE)


@pytest.mark.parametrize(
    ("model", "knobs", "reason"),
    [
        ("mixtral-8x7b", {"tp": 3}, "tp 3 does not divide the 32 attention heads of Mixtral-8x7B; use a divisor of 32"),
        ("mixtral-8x7b", {"tp": 6}, "tp 6 does not divide the 32 attention heads"),
        ("mixtral-8x7b", {"tp": 16, "ep": True}, "expert parallelism over 16 GPUs: Mixtral-8x7B has only 8 experts"),
        ("mixtral-8x7b", {"tp": 2, "dp": 8, "ep": True}, "expert parallelism over 16 GPUs"),
        ("mixtral-8x7b", {"pp": 33}, "pp 33 is more than the 32 layers"),
        ("qwen3-30b-a3b", {"tp": 8, "dp": 128}, "experts.ffn_size 768 of Qwen3-30B-A3B cannot be split evenly"),
        ("molmoe-1b", {}, "vLLM 0.32.0 does not run MolmoE-1B: its MolmoForCausalLM reads no experts"),
        ("deepseek-v2-lite", {"tp": 4, "quantization": "gptq"},
         "quantization gptq: 32 columns share a scale, and dense_ffn_size 10944 of DeepSeek-V2-Lite over 4 GPUs leaves"
         " 2736 on each; use fewer GPUs"),
        ("qwen1.5-moe-a2.7b", {"tp": 8, "quantization": "awq"}, "leaves 176 on each; use fewer GPUs or ep: true"),
        ("qwen1.5-moe-a2.7b", {"tp": 2, "quantization": "fp8_block"},
         "quantization fp8_block: 128 columns share a scale, and experts.ffn_size 1408"),
    ],
)  # fmt: skip
def test_what_vllm_does_not_load_is_known_with_the_reason(model, knobs, reason):
    assert (problem(model, **knobs) or "").startswith(reason) or reason in (problem(model, **knobs) or "")


@pytest.mark.parametrize("quantization", ["awq", "gptq"])
@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize(
    "model", ["mixtral-8x7b", "qwen1.5-moe-a2.7b", "qwen3-30b-a3b", "phi-3.5-moe", "olmoe-1b-7b", "deepseek-v2-lite"]
)
def test_four_bit_weights_load_on_one_two_and_four_gpus(model, tp, quantization):
    refused = problem(model, tp=tp, quantization=quantization)
    assert (refused is None) == ((model, tp) != ("deepseek-v2-lite", 4)), refused


def test_what_has_one_scale_per_row_is_split_like_bfloat16():
    for quantization in ("int8", "fp8"):
        assert problem("qwen1.5-moe-a2.7b", tp=4, quantization=quantization) is None


def test_expert_parallelism_splits_no_expert():
    assert problem("qwen3-30b-a3b", tp=8, ep=True, quantization="fp8_block") is None
    assert problem("qwen3-30b-a3b", tp=4, quantization="fp8_block") is not None


def planned(tmp_path, accuracy=False) -> dict:
    """A plan of Mixtral-8x7B on 2 and 3 GPUs."""
    fix = {"model": "mixtral-8x7b", "weights": "dummy", "batch": 1, "input_tokens": 8, "output_tokens": 8}
    experiment = {"blocks": [{"fix": fix, "cross": {"tp": [2, 3]}}], "claims": ["MIB-F13-01"]}
    if accuracy:
        fix = {"model": "mixtral-8x7b", "weights": "dummy"}
        block = {"tasks": ["boolq"], "data": "fixtures", "fix": fix, "cross": {"tp": [2, 3]}}
        experiment["accuracy"] = {"test": [block]}
    config = studies.folder(tmp_path, {"x": experiment}, hardware="h100-sxm5-80gb")
    shutil.copytree(CONFIG.folder / "claims", config / "claims")
    return make_plan(Config(config), "test")


def test_a_layout_that_does_not_load_is_a_row_with_the_reason_and_no_cell(tmp_path):
    plan = planned(tmp_path, accuracy=True)
    assert [cell["engine"] for cell in plan["cells"].values()] == [next(iter(plan["engines"]))]
    rows = [*plan["experiments"]["x"]["unsupported"], *plan["experiments"]["x"]["unsupported_accuracy"]]
    assert [row["config"]["tp"] for row in rows] == [3, 3]
    assert all(row["reason"].startswith("tp 3 does not divide the 32 attention heads") for row in rows)


def test_what_claims_need_is_found_beside_points_that_cannot_be(tmp_path):
    plan = planned(tmp_path, accuracy=True)
    assert {row["tp"] for row in budget.rows_of(plan)} == {2} == {row["tp"] for row in budget.answers_of(plan)}


@pytest.mark.parametrize("study", ["tiny", "tiny-full", "h100-dummy", "h200-dummy", "paper"])
def test_every_layout_of_the_shipped_figures_loads_but_molmoe(study):
    figures = {n: e for n, e in studies.drafted(study)["experiments"].items() if n != "matrix"}
    rows = [row for e in figures.values() for row in (*e.get("unsupported", ()), *e.get("unsupported_accuracy", ()))]
    assert [row["model"]["name"] for row in rows] == ["molmoe-1b"] * (study == "paper")
