"""Quantization: schemes, groups, what plans make of it, what checkpoints claim, and whether experts were calibrated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import studies
from moebench.architectures import quantization_schemes
from moebench.commands.planning import make_plan
from moebench.config import Config, EngineKnobs
from moebench.cost import memory
from moebench.engines.failures import NO_KERNEL, classify
from moebench.errors import ConfigError, UserError
from moebench.models.quantize import awq
from moebench.models.quantize.coverage import Layer, checked
from moebench.plan.derived import parents

ROOT = Path(__file__).parents[2]
CELL = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8}
CONFIG = Config(ROOT / "config")
GPU = {"hardware": "h100-sxm5-80gb"}


def planned(tmp_path: Path, *cells: dict, readymade: dict | None = None, **study) -> dict:
    folder = studies.folder(tmp_path, {"x": [{"fix": CELL | cell} for cell in cells]}, models="models", **study)
    if readymade:
        file = folder / "models" / "mixtral-8x7b.yaml"
        file.write_text(yaml.safe_dump(studies.read(file) | {"quantized": readymade}))
    return make_plan(Config(folder), "test")


def model(plan: dict) -> dict:
    (engine,) = plan["engines"].values()
    return engine["model"]


def architecture(name: str) -> dict:
    return CONFIG.model(name).architecture.model_dump()


# --------------------------------------------------------------------------------------------- schemes


def test_every_value_of_the_knob_is_a_scheme():
    assert {"none", *quantization_schemes.SCHEMES} == set(schemes_of_the_knob())
    titles = {name: scheme.title for name, scheme in quantization_schemes.SCHEMES.items()}
    assert titles == {
        "fp8": "W8A8 float", "fp8_block": "W8A8 float", "int8": "W8A8 int",
        "awq": "W4A16 int, zero points", "gptq": "W4A16 int", "mxfp4": "W4A16 float",
    }  # fmt: skip


def schemes_of_the_knob() -> list[str]:
    text = (ROOT / "workflow/moebench/config/base.py").read_text()
    (line,) = re.findall(r"^Quantization = Literal\[(.*)\]", text, re.M)
    return [word.strip('"') for word in line.split(", ")]


@pytest.mark.parametrize(
    ("quantization", "dtype", "kv", "bits"),
    [
        ("none", "float32", "auto", (32, 32, 32)),
        ("none", "bfloat16", "fp8", (16, 16, 8)),
        ("int8", "float16", "auto", (8, 8, 16)),
        ("awq", "float16", "fp8", (4, 16, 8)),
        ("fp8_block", "bfloat16", "auto", (8, 8, 16)),
    ],
)
def test_weights_activations_and_cache_have_bits_of_their_own(quantization, dtype, kv, bits):
    assert tuple(quantization_schemes.bits(quantization, dtype, kv).values()) == bits


@pytest.mark.parametrize(
    ("name", "group"), [("mixtral-8x7b", 128), ("tiny-mixtral", 64), ("tiny-olmoe", 32), ("tiny-qwen3-moe", 32)]
)
def test_groups_divide_every_width(name, group):
    assert quantization_schemes.group_size(architecture(name)) == group
    assert all(width % group == 0 for width in quantization_schemes.widths(architecture(name)).values())


def test_one_checkpoint_serves_four_gpus_or_as_many_as_its_widths_allow():
    """On each of 4 GPUs, experts of 1408 are 352 = 11 x 32 wide, those of 768 192 = 3 x 64, those of 6400 25 x 64.
    DeepSeek-V2-Lite's dense layer of 10944 is 2736 there, no multiple of 32; on each of 2, 5472 = 171 x 32."""
    sizes = {
        "mixtral-8x7b": 128, "qwen1.5-moe-a2.7b": 32, "qwen3-30b-a3b": 64, "deepseek-v2-lite": 32, "phi-3.5-moe": 64,
        "olmoe-1b-7b": 128,
    }  # fmt: skip
    assert {name: quantization_schemes.group_size(architecture(name)) for name in sizes} == sizes


def test_bytes_of_a_weight_count_scales_and_zero_points():
    """Group of 128: a scale of 2 bytes, and for AWQ a zero point of half a byte; groups of 32: four times as much."""
    wide, narrow = architecture("mixtral-8x7b"), architecture("tiny-qwen3-moe")
    assert quantization_schemes.bytes_per_weight("int8", wide) == 1.0
    assert quantization_schemes.bytes_per_weight("fp8_block", wide) == 1 + 4 / 128**2
    assert quantization_schemes.bytes_per_weight("gptq", wide) == 0.5 + 2 / 128
    assert quantization_schemes.bytes_per_weight("awq", wide) == 0.5 + 2.5 / 128
    assert quantization_schemes.bytes_per_weight("awq", narrow) == 0.5 + 2.5 / 32


def test_the_environments_have_the_tool_that_plans_name():
    name, version = quantization_schemes.TOOL.split()
    for lock in ("cpu", "cuda"):
        assert f"\n{name}=={version} " in (ROOT / "envs" / f"quantize-{lock}.lock").read_text()


# ---------------------------------------------------------------------------------------------- plans


def test_a_quantized_model_is_made_from_the_staged_one(tmp_path):
    plan = planned(tmp_path, {"quantization": "gptq"}, calibration={"sequences": 4, "tokens": 32})
    found = model(plan)
    assert (
        found["path"] == f"models/tiny-mixtral.gptq-{found['revision'][:8]}" and found["source"] == "derived:quantize"
    )
    assert found["derived"]["settings"] == {
        "scheme": "gptq", "method": "gptq", "tool": quantization_schemes.TOOL, "group": 64,
        "calibration": {"data": "text", "sequences": 4, "tokens": 32, "seed": 0},
    }  # fmt: skip
    assert found["architecture"] == found["derived"]["parent"]["architecture"]
    (made,) = plan["derive_jobs"].values()
    assert (made["environment"], made["gpus"]) == ("quantize-cpu", 0)


def test_on_gpus_it_is_made_on_one_in_the_environment_for_it(tmp_path):
    plan = planned(tmp_path, {"model": "mixtral-8x7b", "tp": 4, "quantization": "awq"}, **GPU)
    (made,) = plan["derive_jobs"].values()
    assert (made["environment"], made["gpus"]) == ("quantize-cuda", 1)
    assert made["mem_mb"] > 1.4 * 93_000 and made["runtime_min"] > 60, "held in memory; AWQ takes hours"


@pytest.mark.parametrize("scheme", ["none", "fp8"])
def test_nothing_is_made_for_what_the_engine_quantizes_while_loading(tmp_path, scheme):
    plan = planned(tmp_path, {"quantization": scheme})
    assert plan["derived"] == {} and model(plan)["derived"] is None


def test_dtype_and_cache_type_share_one_quantized_checkpoint(tmp_path):
    cells = [{"quantization": "int8"}, {"quantization": "int8", "dtype": "float16", "kv_cache_dtype": "fp8"}]
    plan = planned(tmp_path, *cells)
    assert (len(plan["engines"]), len(plan["derived"])) == (2, 1)


def test_a_pruned_model_is_quantized_after_pruning(tmp_path):
    plan = planned(tmp_path, {"quantization": "int8", "pruning": "inter", "prune_ratio": 0.5})
    assert [m["source"] for m in parents(model(plan))] == ["derived:prune", "random_init"]
    environments = [job["environment"] for job in plan["derive_jobs"].values()]
    assert environments == ["vllm-cpu", "quantize-cpu"], "the parent first"
    assert model(plan)["architecture"]["experts"]["count"] == 4


def test_rounding_to_the_nearest_needs_no_calibration(tmp_path):
    def revision(name, scheme, tokens):
        cell, calibration = {"quantization": scheme}, {"sequences": 4, "tokens": tokens}
        return model(planned(tmp_path / name, cell, calibration=calibration))["revision"]

    assert revision("a", "fp8_block", 8) == revision("b", "fp8_block", 16)
    assert revision("c", "int8", 8) != revision("d", "int8", 16)


def test_weights_that_are_not_there_are_not_quantized(tmp_path):
    plan = planned(tmp_path, {"quantization": "int8", "weights": "dummy"})
    (row,) = plan["experiments"]["x"]["unsupported"]
    assert row["reason"].startswith("quantization 'int8' of tiny-mixtral with weights: dummy: there are no weights")


def test_a_width_that_no_group_divides_is_refused_by_name(tmp_path):
    folder = studies.folder(tmp_path, {"x": [{"fix": CELL | {"model": "odd", "quantization": "awq"}}]})
    studies.random_model(folder, "odd", experts={"ffn_size": 80})
    (row,) = make_plan(Config(folder), "test")["experiments"]["x"]["unsupported"]
    assert re.search(r"'awq' of odd: experts.ffn_size 80 .*32", row["reason"])


def test_an_unknown_scheme_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"quantization is 'int4'.*'awq'"):
        planned(tmp_path, {"quantization": "int4"})


# ------------------------------------------------------------------------------------------ ready-made

READY = {"awq": {"hub": "org/mixtral-awq", "revision": "a" * 40}}
FULL = {"model": "mixtral-8x7b", "tp": 4}


def test_a_ready_made_checkpoint_is_taken_for_its_scheme_only(tmp_path):
    plan = planned(tmp_path, *(FULL | {"quantization": q} for q in ("none", "awq", "gptq")), readymade=READY, **GPU)
    sources = {e["config"]["quantization"]: e["model"]["source"] for e in plan["engines"].values()}
    assert sources == {
        "none": "hub:mistralai/Mixtral-8x7B-Instruct-v0.1",
        "awq": "hub:org/mixtral-awq",
        "gptq": "derived:quantize",
    }
    (ready,) = [e["model"] for e in plan["engines"].values() if e["config"]["quantization"] == "awq"]
    assert ready["path"] == f"models/org--mixtral-awq/{'a' * 12}" and ready["revision"] == "a" * 40


def test_a_pruned_model_does_not_take_it(tmp_path):
    cell = FULL | {"quantization": "awq", "pruning": "inter", "prune_ratio": 0.5}
    assert model(planned(tmp_path, cell, readymade=READY, **GPU))["source"] == "derived:quantize"


@pytest.mark.parametrize(
    ("readymade", "words"),
    [
        ({"int4": {"hub": "org/x"}}, r"mixtral-8x7b.yaml: .*int4"),
        ({"none": {"hub": "org/x"}}, r"mixtral-8x7b.yaml: .*'none' is the source itself"),
        ({"awq": {"hub": "x"}}, r"mixtral-8x7b.yaml: quantized.awq.hub is 'x'"),
    ],
)
def test_a_wrong_entry_is_refused_in_a_line(tmp_path, readymade, words):
    with pytest.raises(ConfigError, match=words) as caught:
        planned(tmp_path, FULL, readymade=readymade, **GPU)
    assert "\n" not in str(caught.value)


def test_only_hub_models_have_ready_made_ones(tmp_path):
    folder = studies.folder(tmp_path, {"x": [{"fix": CELL}]})
    file = folder / "models" / "tiny-mixtral.yaml"
    file.write_text(yaml.safe_dump(studies.read(file) | {"quantized": READY}))
    with pytest.raises(ConfigError, match=r"tiny-mixtral\.yaml: .*hub"):
        make_plan(Config(folder), "test")


def group(numbers, bits, inputs=None, strategy="channel"):
    activations = {"type": numbers, "num_bits": inputs} if inputs else None
    return {"weights": {"type": numbers, "num_bits": bits, "strategy": strategy}, "input_activations": activations}


def compressed(*groups):
    return {"quant_method": "compressed-tensors", "config_groups": {str(i): g for i, g in enumerate(groups)}}


CLAIMS = {
    "compressed-tensors W8A8 int": (compressed(group("int", 8, 8)), {"int8"}),
    "compressed-tensors W8A8 float": (compressed(group("float", 8, 8)), {"fp8"}),
    "compressed-tensors W8A8 float in blocks": (compressed(group("float", 8, 8, "block")), {"fp8_block"}),
    "compressed-tensors W4A16": (compressed(group("int", 4, None, "group")), {"awq", "gptq"}),
    "compressed-tensors W8A16, which no scheme is": (compressed(group("int", 8)), set()),
    "compressed-tensors W4A4 float, which no scheme is": (compressed(group("float", 4, 4)), set()),
    "compressed-tensors of two kinds": (compressed(group("int", 4, None, "group"), group("int", 8, 8)), set()),
    "AutoAWQ": ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, {"awq"}),
    "GPTQModel": ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, {"gptq"}),
    "GPTQModel with 8 bits": ({"quant_method": "gptq", "bits": 8}, set()),
    "DeepSeek-V3": ({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}, {"fp8_block"}),
    "fp8 per tensor": ({"quant_method": "fp8", "activation_scheme": "static"}, {"fp8"}),
    "gpt-oss": ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, {"mxfp4"}),
    "another tool's": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, set()),
    "not quantized": (None, {"none", "fp8"}),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_checkpoint_is_what_its_config_says(case):
    given, right = CLAIMS[case]
    config = {"hidden_size": 8} | ({"quantization_config": given} if given else {})
    assert {
        name
        for name in ("none", *quantization_schemes.SCHEMES)
        if quantization_schemes.claim_problem(name, config) is None
    } == right


def test_another_scheme_is_named_in_words():
    config = {"quantization_config": compressed(group("int", 4, None, "group"))}
    assert "int8: compressed-tensors, W4A16 int" in quantization_schemes.claim_problem("int8", config)
    assert "(compressed-tensors, W4A16 int); name the scheme" in quantization_schemes.claim_problem("none", config)
    assert "this one has no quantization_config" in quantization_schemes.claim_problem("int8", {})


def test_the_engine_quantizes_while_loading_only_what_is_not_quantized():
    assert quantization_schemes.made_while_loading("fp8", {})
    assert not quantization_schemes.made_while_loading("fp8", {"quantization_config": {"quant_method": "fp8"}})
    assert not quantization_schemes.made_while_loading("int8", {}) and not quantization_schemes.made_while_loading(
        "none", {}
    )


# ----------------------------------------------------------------------------------------- calibration


def layer(seen, routed, tokens):
    made = Layer(len(seen))
    made.seen, made.routed, made.tokens = list(seen), list(routed), tokens
    return made


def test_coverage_is_counted_per_expert():
    """Two passes over 100 tokens: every count is twice as high, the shares are the same."""
    layers = {"a": layer([200, 200], [200, 0], 200), "b": layer([200, 100], [150, 50], 200)}
    assert checked(layers, 100) == {
        "moe_layers": 2, "experts": 4, "tokens": 100, "tokens_per_expert_min": 50, "experts_without_routed_token": 1,
    }  # fmt: skip


def test_an_expert_without_tokens_is_named():
    with pytest.raises(UserError, match=r"expert 1 of model\.layers\.3\.mlp .*100 .*calibration\.") as error:
        checked({"model.layers.3.mlp": layer([200, 0], [200, 0], 200)}, 100)
    assert "\n" not in str(error.value)


def test_a_dense_model_has_no_experts_to_count():
    assert checked({}, 100)["tokens_per_expert_min"] is None


def matched(name: str, pairs: list[tuple[str, list[str]]], names: list[str]) -> set[str]:
    """Modules that are rescaled when ``name`` is divided."""
    (patterns,) = [many for one, many in pairs if re.match(one.removeprefix("re:"), name)]
    return {n for n in names if any(re.match(p.removeprefix("re:"), n) for p in patterns)}


def test_everything_that_reads_a_norm_is_rescaled_the_router_too():
    """Names as in DeepSeek-V2 (a dense layer first, latent attention) and in Qwen2-MoE (a gated shared expert)."""
    readers = ("gate", "shared_expert_gate", "shared_expert.gate_proj", "shared_expert.up_proj")
    block = [
        f"model.layers.1.mlp.{n}" for n in (*readers, "experts.0.gate_proj", "experts.0.up_proj", "experts.11.up_proj")
    ]
    dense = [f"model.layers.0.mlp.{n}" for n in ("gate_proj", "up_proj")]
    latent = [f"model.layers.0.self_attn.{n}" for n in ("q_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj")]
    plain = [f"model.layers.1.self_attn.{n}" for n in ("q_proj", "k_proj", "v_proj", "o_proj")]
    others = ["model.layers.1.mlp.experts.0.down_proj", "model.layers.11.mlp.gate", "lm_head"]
    names = [*block, *dense, *latent, *plain, *others]
    pairs = awq.mappings(names)
    assert matched("model.layers.1.post_attention_layernorm", pairs, names) == set(block)
    assert matched("model.layers.0.post_attention_layernorm", pairs, names) == set(dense)
    assert matched("model.layers.0.input_layernorm", pairs, names) == set(latent[:2])
    assert matched("model.layers.0.self_attn.kv_a_layernorm", pairs, names) == {latent[3]}
    assert matched("model.layers.1.input_layernorm", pairs, names) == set(plain[:3])


# ----------------------------------------------------------------------------------------- the engine

REFUSALS = {
    "NotImplementedError: No WNA16 MoE backend supports the deployment configuration.": NO_KERNEL,
    "ValueError: Weight output_partition_size = 64 is not divisible by weight quantization block_n = 128.":
        "the engine does not support this shape",
    "ValueError: WNA16 MoE backend 'CPU' does not support the deployment configuration since VLLM_CPU_INT4_W4A8=0.":
        "the engine does not support this",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSALS)
def test_the_engines_words_about_quantization_are_understood(words):
    status, reason, evidence = classify(words, "load")
    assert (status, reason, evidence) == ("unsupported", REFUSALS[words], [words])


def test_quantized_weights_take_less_memory_in_the_order_of_their_bits():
    spec = CONFIG.model("mixtral-8x7b").architecture
    sizes = [memory.weight_bytes(spec, EngineKnobs(model="mixtral-8x7b", quantization=q))
             for q in ("gptq", "awq", "int8", "fp8_block", "none")]  # fmt: skip
    assert sizes == sorted(sizes) and sizes[0] == pytest.approx(24.6e9, rel=0.02) and sizes[-1] > 93e9
