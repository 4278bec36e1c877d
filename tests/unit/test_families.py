"""Models of today: parameters and KV bytes against what is published, config.json read and compared, and what the
registry cannot hold refused by name."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from moebench.architectures.hf_config import disagreements
from moebench.architectures.reading import family_of, from_hf_config
from moebench.config import Architecture, Config, EngineKnobs
from moebench.cost import memory, params, roofline
from moebench.cost.inputs import Formats, Layout, Machine, Sizes
from published import CONFIGS

CONFIG = Config(Path(__file__).parents[2] / "config")


def architecture(name: str) -> Architecture:
    return CONFIG.model(name).architecture


def sequence(name: str, tokens: int, **knobs) -> float:
    return memory.sequence_bytes(architecture(name), EngineKnobs(model=name, **knobs), tokens)


# ------------------------------------------------------------------------------------ published numbers

# Total parameters, as published; KV cache of a token in bfloat16, bytes: layers with attention x 2 x KV heads x width,
# or x (latent + rope); DeepSeek-V3.2's indexer caches 132 bytes more per layer.
PUBLISHED = {
    "mixtral-8x7b": (46.7e9, 32 * 2 * 8 * 128 * 2),
    "qwen1.5-moe-a2.7b": (14.3e9, 24 * 2 * 16 * 128 * 2),
    "qwen3-30b-a3b": (30.5e9, 48 * 2 * 4 * 128 * 2),
    "qwen3-235b-a22b": (235e9, 94 * 2 * 4 * 128 * 2),
    "qwen3-4b": (4.0e9, 36 * 2 * 8 * 128 * 2),
    "qwen3-8b": (8.2e9, 36 * 2 * 8 * 128 * 2),
    "deepseek-v2-lite": (15.7e9, 27 * 576 * 2),
    "deepseek-v3": (671e9, 61 * 576 * 2),
    "deepseek-v3.2": (671e9, 61 * (576 * 2 + 132)),
    "deepseek-vl2": (27.5e9, 30 * 576 * 2),
    "deepseek-vl2-small": (16.1e9, 27 * 576 * 2),
    "phi-3.5-moe": (41.9e9, 32 * 2 * 8 * 128 * 2),
    "olmoe-1b-7b": (6.9e9, 16 * 2 * 16 * 128 * 2),
    "molmoe-1b": (7.2e9, 16 * 2 * 16 * 128 * 2),
    "grok-1": (314e9, 64 * 2 * 8 * 128 * 2),
    "gpt-oss-20b": (20.9e9, 24 * 2 * 8 * 64 * 2),
    "gpt-oss-120b": (116.8e9, 36 * 2 * 8 * 64 * 2),
    "glm-4.5-air": (106e9, 46 * 2 * 8 * 128 * 2),
    "qwen3-next-80b-a3b": (80e9, 12 * 2 * 2 * 256 * 2),
    "qwen3.5-35b-a3b": (35e9, 10 * 2 * 2 * 256 * 2),
    "granite-4.0-h-small": (32e9, 4 * 2 * 8 * 128 * 2),
    "granite-4.0-h-tiny": (7e9, 4 * 2 * 4 * 128 * 2),
    "minimax-m2": (230e9, 62 * 2 * 8 * 128 * 2),
    "ernie-4.5-21b-a3b": (21.83e9, 28 * 2 * 4 * 128 * 2),
    "ernie-4.5-300b-a47b": (300e9, 54 * 2 * 8 * 128 * 2),
    "hunyuan-a13b": (80e9, 32 * 2 * 8 * 128 * 2),
    "kimi-k2": (1.03e12, 61 * 576 * 2),
    "llama-4-scout-17b-16e": (109e9, 48 * 2 * 8 * 128 * 2),
    "llama-4-maverick-17b-128e": (400e9, 48 * 2 * 8 * 128 * 2),
}

# To the last parameter: what the classes of transformers 5.19 have, built of these sizes (text model alone; ERNIE's
# correction biases, one per expert, are neglected).  Hunyuan's class lacks the key of the experts' width.
TRANSFORMERS = {
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "glm-4.5-air": 106_852_245_504,
    "qwen3-next-80b-a3b": 79_674_391_296,
    "qwen3.5-35b-a3b": 34_660_610_688,
    "granite-4.0-h-small": 32_207_337_984,
    "granite-4.0-h-tiny": 6_939_037_248,
    "minimax-m2": 228_689_748_992,
    "ernie-4.5-21b-a3b": 21_825_437_888 - 27 * 64,
    "ernie-4.5-300b-a47b": 299_484_163_264 - 51 * 64,
    "kimi-k2": 1_026_408_209_408,
    "deepseek-v3.2": 671_877_929_216,
    "llama-4-maverick-17b-128e": 400_711_848_960,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_are_within_a_percent_and_kv_bytes_exact(name):
    total, kv_bytes = PUBLISHED[name]
    assert params.total_parameters(architecture(name)).total == pytest.approx(total, rel=0.01)
    assert memory.memory_per_gpu(architecture(name), EngineKnobs(model=name)).kv_bytes_per_token == kv_bytes


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_totals_are_those_of_transformers(name):
    counted = params.total_parameters(architecture(name))
    assert counted.total - counted.vision == TRANSFORMERS[name]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_layers_add_up(name):
    layers = params.by_layer(architecture(name))
    assert sum(each.count * each.total.total for each in layers) == params.total_parameters(architecture(name)).total
    assert sum(each.count for each in layers if each.kind != "outside") == architecture(name).layers


def test_weights_of_gpt_oss_in_mxfp4_are_its_published_checkpoints():
    """60.8 and 12.8 GiB (gpt-oss model card, arXiv 2508.10925)."""
    for name, gibibytes in (("gpt-oss-120b", 60.8), ("gpt-oss-20b", 12.8)):
        knobs = EngineKnobs(model=name, quantization="mxfp4")
        assert memory.weight_bytes(architecture(name), knobs) == pytest.approx(gibibytes * 2**30, rel=0.005)
        assert memory.memory_per_gpu(architecture(name), knobs).weight_bytes == pytest.approx(
            gibibytes * 2**30, rel=0.005
        )


# ----------------------------------------------------------------------------------- windows and states


def test_windowed_layers_keep_the_window():
    per_layer = 2 * 8 * 64 * 2
    assert sequence("gpt-oss-120b", 100) == 100 * 36 * per_layer
    assert sequence("gpt-oss-120b", 10_000) == (18 * 10_000 + 18 * 128) * per_layer
    assert sequence("gpt-oss-120b", 10_000, tp=4) == (18 * 10_000 + 18 * 128) * per_layer / 4
    assert sequence("llama-4-scout-17b-16e", 8192) == 8192 * 48 * 4096
    assert sequence("llama-4-scout-17b-16e", 100_000) == (12 * 100_000 + 36 * 8192) * 4096


def test_sparse_attention_keeps_all_tokens():
    assert sequence("deepseek-v3.2", 100_000) == 100_000 * 61 * (576 * 2 + 132)
    assert sequence("deepseek-v3.2", 1000, kv_cache_dtype="fp8") == 1000 * 61 * (576 + 132)


def test_states_do_not_grow():
    convolution, matrix = 3 * (2 * 2048 + 4096), 32 * 128 * 128
    states = 36 * 2 * (convolution + matrix)
    assert sequence("qwen3-next-80b-a3b", 1) == 12 * 2048 + states
    assert sequence("qwen3-next-80b-a3b", 1000) == 1000 * 12 * 2048 + states
    assert sequence("qwen3-next-80b-a3b", 1, tp=2) == 12 * 1024 + states / 2
    # Qwen3.5 asks for a state in float32.
    assert sequence("qwen3.5-35b-a3b", 1) == 10 * 2048 + 30 * (2 * convolution + 4 * matrix)
    assert sequence("granite-4.0-h-small", 1) == 4 * 4096 + 36 * 2 * (3 * (2 * 128 + 8192) + 128 * 64 * 128)


def test_what_fits_counts_windows_and_states():
    h100 = CONFIG.hardware("h100-sxm5-80gb")
    for name, knobs in (("gpt-oss-20b", {"quantization": "mxfp4"}), ("granite-4.0-h-tiny", {})):
        engine = EngineKnobs(model=name, max_model_len=65536, **knobs)
        fit = memory.fits(architecture(name), h100, engine)
        assert fit.sequence_bytes == memory.sequence_bytes(architecture(name), engine, 65536)
        assert fit.kv_capacity_tokens == int(fit.left_bytes // (fit.sequence_bytes / 65536))


# ------------------------------------------------------------------------------------------------- times


def step(name: str, sequences: int = 1, prefill: bool = False, **knobs) -> roofline.Step:
    engine, h100 = EngineKnobs(model=name, **knobs), CONFIG.hardware("h100-sxm5-80gb")
    return roofline.step(
        Sizes.of(architecture(name)), Formats.of(architecture(name), engine), Layout.of(engine),
        Machine.of(h100, engine), sequences, prefill=prefill,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["gpt-oss-20b", "deepseek-v3.2", "llama-4-scout-17b-16e", "granite-4.0-h-tiny"])
@pytest.mark.parametrize(("first", "count"), [(1, 50), (100, 100), (1900, 300), (8000, 1000), (9000, 5)])
def test_the_mean_of_a_windowed_step_is_that_of_its_steps(name, first, count):
    made = step(name, 8)
    steps = [float(made.at(first + n)) for n in range(count)]
    assert made.mean(first, count) == pytest.approx(sum(steps) / count, rel=1e-9)


def test_bytes_of_a_step_are_those_of_window_cache_and_states():
    bandwidth = CONFIG.hardware("h100-sxm5-80gb").bandwidth_bytes_per_s

    def read(name: str, context: int) -> float:
        made = step(name)
        return float(made.memory_at(context) - made.memory_at(0)) * bandwidth

    assert read("gpt-oss-20b", 1000) == pytest.approx(12 * (1000 + 128) * 2048)
    # Sparse attention reads the chosen tokens and the keys of all.
    assert read("deepseek-v3.2", 10_000) == pytest.approx(61 * (2048 * 576 * 2 + 10_000 * 132))
    assert read("granite-4.0-h-tiny", 1000) == pytest.approx(1000 * 8192)
    granite = "granite-4.0-h-tiny"
    more = float(step(granite, 9).memory_s - step(granite, 8).memory_s) * bandwidth
    states = memory.sequence_bytes(architecture(granite), EngineKnobs(model=granite), 1) - 8192
    sizes = Sizes.of(architecture(granite))
    touched = roofline.distinct_experts(sizes.experts, sizes.top_k, [8, 9])
    experts = float((touched[1] - touched[0]) * sizes.sparse * sizes.expert) * 2
    assert more == pytest.approx(2 * states + experts, rel=1e-6), "a state is read and written"


def test_a_prompts_tokens_attend_to_the_window():
    sizes = Sizes.of(architecture("gpt-oss-20b"))
    for length in (50, 128, 1000):
        exact = sum(min(n + 0.5, 128) for n in range(length)) / length
        assert roofline.near_tokens(sizes, length) == pytest.approx(exact, rel=0.01)


# --------------------------------------------------------------------------------- config.json, both ways


@pytest.mark.parametrize("name", CONFIGS)
def test_published_files_agree(name):
    assert disagreements(architecture(name).as_dict(), CONFIGS[name]) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_published_files_are_read_as_the_registry_has_them(name):
    families = CONFIG.families()
    family = family_of(CONFIGS[name], families)
    made = Architecture.model_validate(from_hf_config(CONFIGS[name], family, families[family])).as_dict()
    expected = architecture(name).as_dict()
    expected.pop("spelling", None)
    if name in ("qwen3-30b-a3b", "qwen1.5-moe-a2.7b"):
        made["max_positions"] = expected["max_positions"]
    # Parameters of the vision part are not in config.json.
    assert made | {"vision_parameters": expected["vision_parameters"]} == expected


CROSSED = [
    ("mixtral-8x7b", "gpt-oss-20b", "model_type: registry mixtral, config.json gpt_oss"),
    ("mixtral-8x7b", "gpt-oss-20b", "layers with a window (layer_types): registry 0, config.json 12"),
    ("mixtral-8x7b", "gpt-oss-20b", "sliding_window: registry none, config.json 128"),
    ("qwen3-30b-a3b", "qwen3-next-80b-a3b", "model_type: registry qwen3_moe, config.json qwen3_next"),
    ("qwen3-30b-a3b", "qwen3-next-80b-a3b", "linear_num_value_heads: 32 cannot be expressed for family qwen3_moe"),
    (
        "qwen3-30b-a3b",
        "qwen3-next-80b-a3b",
        "layers with a state (full_attention_interval): registry 0, config.json 36",
    ),
    ("mixtral-8x7b", "granite-4.0-h-small", "mamba_d_state: 128 cannot be expressed for family mixtral"),
    ("mixtral-8x7b", "granite-4.0-h-small", "layers with a state (layer_types): registry 0, config.json 36"),
    ("deepseek-v3", "deepseek-v3.2", "model_type: registry deepseek_v3, config.json deepseek_v32"),
    ("deepseek-v3", "deepseek-v3.2", "index_topk: 2048 cannot be expressed for family deepseek_v3"),
    ("deepseek-v3.2", "deepseek-v3", "index_topk: registry 2048, config.json 0"),
    ("kimi-k2", "deepseek-v3.2", "index_n_heads: 64 cannot be expressed for family kimi_k2"),
]


@pytest.mark.parametrize(("name", "other", "words"), CROSSED)
def test_another_familys_file_is_refused_by_name(name, other, words):
    assert words in disagreements(architecture(name).as_dict(), CONFIGS[other])


CHANGED = [
    ("mixtral-8x7b", {"sliding_window": 4096}, "layers with a window (sliding_window): registry 0, config.json 32"),
    ("qwen3-30b-a3b", {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 40},
     "layers with a window (sliding_window): registry 0, config.json 8"),
    ("qwen3-30b-a3b", {"attention_bias": True}, "attention_bias: registry False, config.json True"),
    ("mixtral-8x7b", {"attention_bias": True}, "attention_bias: True cannot be expressed for family mixtral"),
    ("mixtral-8x7b", {"layer_types": ["full_attention"] * 16 + ["linear_attention"] * 16},
     "layers with a state (layer_types): registry 0, config.json 16"),
    ("mixtral-8x7b", {"layer_types": ["full_attention"] * 31 + ["conv"]},
     "layer_types: 'conv' is unknown to the registry"),
    ("mixtral-8x7b", {"layer_types": ["full_attention"] * 30},
     "layer_types: names 30 of 32 layers is unknown to the registry"),
    ("mixtral-8x7b", {"n_shared_experts": 2}, "n_shared_experts: 2 cannot be expressed for family mixtral"),
    ("mixtral-8x7b", {"mlp_only_layers": [3]}, "mlp_only_layers: [3] cannot be expressed for family mixtral"),
    ("mixtral-8x7b", {"kv_lora_rank": 512}, "kv_lora_rank: 512 cannot be expressed for family mixtral"),
    ("mixtral-8x7b", {"vision_config": {"depth": 1}},
     "vision_config: give vision or vision_parameters; the registry has neither"),
    ("mixtral-8x7b", {"sliding_window_pattern": 4, "sliding_window": 512},
     "layers with a window (sliding_window_pattern): registry 0, config.json 24"),
    ("gpt-oss-20b", {"sliding_window": 256}, "sliding_window: registry 128, config.json 256"),
    ("gpt-oss-20b", {"layer_types": ["sliding_attention"] * 24},
     "layers with a window (layer_types): registry 12, config.json 24"),
    ("qwen3-next-80b-a3b", {"linear_num_value_heads": 16}, "linear_num_value_heads: registry 32, config.json 16"),
    ("granite-4.0-h-small", {"mamba_d_state": 64}, "mamba_d_state: registry 128, config.json 64"),
    ("granite-4.0-h-small", {"mamba_proj_bias": True}, "mamba_proj_bias: True cannot be expressed"),
    ("hunyuan-a13b", {"moe_topk": [8] * 31 + [4]}, "moe_topk: registry 8, config.json [8, 8"),
    ("minimax-m2", {"attn_type_list": [0] * 31 + [1] * 31},
     "layers with a state (attn_type_list): registry 0, config.json 31"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "words"), CHANGED)
def test_what_the_registry_cannot_hold_is_refused_by_name(name, change, words):
    config = copy.deepcopy(CONFIGS[name]) | change
    assert any(found.startswith(words) for found in disagreements(architecture(name).as_dict(), config))


def test_a_window_that_no_sequence_exceeds_and_one_that_is_off_are_none():
    for change in ({"sliding_window": 32768}, {"sliding_window": 4096, "use_sliding_window": False}):
        assert disagreements(architecture("mixtral-8x7b").as_dict(), CONFIGS["mixtral-8x7b"] | change) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_scalars_that_an_engine_resolved_agree(name):
    """Records and the driver see no lists: the family's pattern stands for them."""
    text = CONFIGS[name].get("text_config", CONFIGS[name])
    scalars = {key: value for key, value in text.items() if not isinstance(value, (list, dict))}
    assert disagreements(architecture(name).as_dict(), scalars) == []
