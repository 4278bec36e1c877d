"""Between architectures and config.json: written files agree, a changed size is named, overrides reach every family."""

import subprocess
import sys
from pathlib import Path

import pytest

from moebench.architectures.hf_config import disagreements, family, hf_overrides, reshaped, to_hf_config
from moebench.config import Architecture, Config

ROOT = Path(__file__).parents[2]
CONFIG = Config(ROOT / "config")
MODELS = sorted(p.stem for p in (ROOT / "config" / "models").glob("*.yaml"))
ARCHITECTURES = {name: CONFIG.model(name).architecture.model_dump() for name in MODELS}
WRITTEN = [n for n in MODELS if family(ARCHITECTURES[n]).constants is not None]
WRITTEN_MOE = [n for n in WRITTEN if ARCHITECTURES[n]["experts"]]

MIXTRAL = {
    "architectures": ["MixtralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "model_type": "mixtral",
    "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "num_local_experts": 8, "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
QWEN15 = {
    "hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 1408, "num_attention_heads": 16,
    "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
    "shared_expert_intermediate_size": 5632, "tie_word_embeddings": False, "vocab_size": 151936,
    "decoder_sparse_step": 1,
}  # fmt: skip
DSV2_LITE = {
    "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512,
    "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16,
    "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 102400,
}  # fmt: skip
VL2_TINY = {
    "model_type": "deepseek_vl_v2",
    "vision_config": {"hidden_size": 7, "num_hidden_layers": 27},
    "language_config": {
        "first_k_dense_replace": 1, "hidden_size": 1280, "intermediate_size": 6848, "kv_lora_rank": None,
        "moe_intermediate_size": 896, "n_routed_experts": 64, "n_shared_experts": 2, "num_attention_heads": 10,
        "num_experts_per_tok": 6, "num_hidden_layers": 12, "num_key_value_heads": 10, "q_lora_rank": None,
        "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "use_mla": False, "v_head_dim": 0, "vocab_size": 129280,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "config"),
    [("mixtral-8x7b", MIXTRAL), ("qwen1.5-moe-a2.7b", QWEN15), ("deepseek-v2-lite", DSV2_LITE),
     ("deepseek-vl2-tiny", VL2_TINY)],
)  # fmt: skip
def test_published_files_agree(name, config):
    assert disagreements(ARCHITECTURES[name], config) == []


@pytest.mark.parametrize("name", WRITTEN)
def test_written_files_agree(name):
    assert disagreements(ARCHITECTURES[name], to_hf_config(ARCHITECTURES[name])) == []


@pytest.mark.parametrize("name", WRITTEN)
def test_every_changed_size_is_named(name):
    """Whatever size differs, that size is reported, with both values."""
    architecture = ARCHITECTURES[name]
    table = family(architecture)
    config = to_hf_config(architecture)
    config = config[table.section] if table.section else config
    for size in table.sizes:
        key = size.keys[0]
        value = not config[key] if isinstance(config[key], bool) else (config[key] or 0) + 2
        found = disagreements(architecture, {**config, key: value})
        assert f"{key}: registry {size.value(architecture)}, config.json {value}" in found


def test_message_and_several_disagreements():
    found = disagreements(ARCHITECTURES["mixtral-8x7b"], {**MIXTRAL, "hidden_size": 2048, "vocab_size": 32064})
    assert found == [
        "hidden_size: registry 4096, config.json 2048",
        "vocab_size: registry 32000, config.json 32064",
        "head_dim: registry 128, config.json 64",
    ]


def test_left_out_keys_count_as_the_familys_default():
    without = {k: v for k, v in MIXTRAL.items() if k != "num_key_value_heads"}
    assert disagreements(ARCHITECTURES["mixtral-8x7b"], without) == []  # MixtralConfig's own default is 8
    architecture = reshaped(ARCHITECTURES["mixtral-8x7b"])
    architecture["attention"] = {**architecture["attention"], "kv_heads": 4}
    assert disagreements(architecture, without) == ["num_key_value_heads: registry 4, config.json 8"]


def test_left_out_keys_of_deepseek_vl2_count_as_deepseeks_own_defaults():
    """30 layers, where transformers' class of the same model type assumes 32."""
    vl2 = ARCHITECTURES["deepseek-vl2"]
    text = {"hidden_size": 2560, "vocab_size": 129280, "n_routed_experts": 72, "n_shared_experts": 2,
            "num_experts_per_tok": 6, "moe_intermediate_size": 1536, "first_k_dense_replace": 1,
            "intermediate_size": 12288, "q_lora_rank": None}  # fmt: skip
    assert disagreements(vl2, {"language_config": text}) == []
    assert disagreements(vl2, {"text_config": {**text, "num_hidden_layers": 32}}) == [
        "num_hidden_layers: registry 30, config.json 32"
    ]
    assert disagreements(vl2, {**text, "num_hidden_layers": 32}) == ["num_hidden_layers: registry 30, config.json 32"]


def test_overrides_of_a_nested_model_are_seen():
    architecture = ARCHITECTURES["deepseek-vl2-tiny"]
    overridden = VL2_TINY | hf_overrides(architecture, 32, None, None)
    assert disagreements(reshaped(architecture, 32), overridden) == []
    assert disagreements(architecture, overridden) == ["n_routed_experts: registry 64, config.json 32"]


def test_keys_left_out_without_a_known_default_are_not_compared():
    without = {k: v for k, v in DSV2_LITE.items() if k not in ("q_lora_rank", "n_shared_experts")}
    assert disagreements(ARCHITECTURES["deepseek-v2-lite"], without) == []


def test_mla_is_told_from_plain_attention():
    text = {**VL2_TINY["language_config"], "kv_lora_rank": 512, "use_mla": True}
    assert disagreements(ARCHITECTURES["deepseek-vl2-tiny"], {"language_config": text}) == [
        "kv_lora_rank: registry 0, config.json 512"
    ]
    unused = {"language_config": {**text, "use_mla": False}}
    assert disagreements(ARCHITECTURES["deepseek-vl2-tiny"], unused) == []
    assert to_hf_config(ARCHITECTURES["deepseek-v2-lite"])["q_lora_rank"] is None


@pytest.mark.parametrize("name", WRITTEN_MOE)
def test_overrides_give_the_reshaped_model(name):
    architecture = ARCHITECTURES[name]
    width = architecture["experts"]["shared_ffn_size"] or 64  # for DeepSeek: one shared expert instead of two
    shape = reshaped(architecture, 16, width, 2)
    overridden = {**to_hf_config(architecture), **hf_overrides(architecture, 16, width, 2)}
    assert disagreements(shape, overridden) == []
    assert disagreements(architecture, overridden) != []


def test_overrides_name_only_what_was_asked():
    mixtral = ARCHITECTURES["mixtral-8x7b"]
    assert hf_overrides(mixtral, None, None, 4) == {"num_experts_per_tok": 4}
    assert hf_overrides(mixtral, 8, 14336, None) == {"num_local_experts": 8, "intermediate_size": 14336}
    assert hf_overrides(mixtral) == {}
    assert hf_overrides(ARCHITECTURES["deepseek-v2-lite"], None, None, 1) == {"num_experts_per_tok": 1}
    assert hf_overrides(ARCHITECTURES["deepseek-vl2"], 36, None, None) == {"text_config": {"n_routed_experts": 36}}
    assert hf_overrides(ARCHITECTURES["qwen3-0.6b"], None, None, None) == {}


def test_shapes_that_cannot_be_spelled_are_refused():
    with pytest.raises(ValueError, match="2816 beside experts of 1000"):
        hf_overrides(ARCHITECTURES["deepseek-v2-lite"], None, 1000, None)
    with pytest.raises(ValueError, match="8192 beside experts of 4096"):
        hf_overrides(ARCHITECTURES["llama-4-scout-17b-16e"], None, 4096, None)
    with pytest.raises(ValueError, match=r"no config\.json is written for grok1"):
        to_hf_config(ARCHITECTURES["grok-1"])
    with pytest.raises(ValueError, match="unknown architecture family 'mixtrall'"):
        to_hf_config({**ARCHITECTURES["mixtral-8x7b"], "family": "mixtrall"})


def test_reshaped_changes_a_copy_and_lowers_top_k_with_the_experts():
    olmoe = ARCHITECTURES["olmoe-1b-7b"]
    shape = reshaped(olmoe, experts=4)
    assert (shape["experts"]["count"], shape["experts"]["top_k"]) == (4, 4)
    assert olmoe["experts"]["count"] == 64
    Architecture.model_validate(shape)
    with pytest.raises(ValueError, match="top_k 5 is more than the 4"):
        reshaped(olmoe, experts=4, top_k=5)
    with pytest.raises(ValueError, match="dense"):
        reshaped(ARCHITECTURES["qwen3-0.6b"], experts=4)


def test_needs_only_the_standard_library():
    """The measurement side imports these in environments without pydantic."""
    modules = "architectures.hf_config", "storage.staged", "prompts.prose", "models.random_init"
    names = ", ".join(f"moebench.{m}" for m in modules)
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'workflow')!r}); import {names}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
