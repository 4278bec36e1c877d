"""How each architecture family spells its sizes in Hugging Face's ``config.json``: data for ``hf_config``.

Standard library only.  A family needs no code: a file of config/families has the same keys as :class:`Family`, and a
plan's architectures carry it.  The families below ship with the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moebench.formats.model import ArchitectureDict, SpellingDict

UNSAID: Any = object()
"""A value that nothing states."""


@dataclass(frozen=True)
class Size:
    """A size: its keys in ``config.json`` (the first is written, any is read) and its path in an architecture."""

    keys: tuple[str, ...]
    path: tuple[str, ...]
    divisor: int = 1

    def value(self, architecture: ArchitectureDict) -> Any:
        """The size of an architecture."""
        found: Any = architecture
        for step in self.path:
            found = (found or {}).get(step, 0)  # a null value counts as missing
        return found if self.divisor == 1 else found // self.divisor


@dataclass(frozen=True)
class Family:
    """How one family spells its sizes."""

    model_type: str
    engine_class: str
    sizes: tuple[Size, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What the family's own configuration class assumes for a key that ``config.json`` leaves out."""
    shared: Literal["width", "count", "routed"] = "width"
    """Shared experts are given by their total width, by their count (each as wide as a routed one), or are one as wide
    as a routed one."""
    shared_key: str = "n_shared_experts"
    """Key of that count."""
    also: tuple[str, ...] = ()
    """Other model types that mean the same: of other tools, or of a text model alone."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What every model of the family is though no key says so: {place: value}, e.g. {"attention.sinks": True}."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Words of ``layer_types`` for the kinds full, windowed and recurrent, where it is written."""
    full_every: int = 0
    """Where no key says which layers attend to everything: the last of so many; 0: nothing is known then."""
    full_every_other: Literal["windowed", "recurrent"] = "windowed"
    """What the layers between are."""
    ignored: tuple[str, ...] = ()
    """Keys that look as if they changed sizes but do not, or follow from others."""
    section: str = ""
    """Key of ``config.json`` that holds the text model of a vision-language model."""
    override_section: str = ""
    """The same in the configuration object, where overrides go."""
    language: str = ""
    """Family of the language model inside a vision-language model that this project writes."""
    constants: Mapping[str, Any] | None = None
    """Keys that are no sizes but that a written ``config.json`` needs; None: this project writes none."""


def spelled(name: str, spelling: SpellingDict) -> Family:
    """The family that a file of config/families defines, as an architecture carries it."""
    given: dict[str, Any] = {"model_type": name, **spelling}
    sizes = tuple(Size(tuple(keys.split()), tuple(place.split("."))) for keys, place in given.pop("sizes").items())
    given["defaults"] = given.pop("omitted", {})
    given |= {key: tuple(given[key]) for key in ("also", "ignored") if key in given}
    return Family(sizes=sizes, **given)


def _size(keys: str, *path: str, divisor: int = 1) -> Size:
    return Size(tuple(keys.split()), path, divisor)


_COMMON = (
    _size("hidden_size d_model", "hidden_size"),
    _size("num_hidden_layers n_layers", "layers"),
    _size("num_attention_heads n_heads", "attention", "heads"),
    _size("vocab_size embedding_size", "vocab_size"),
    _size("tie_word_embeddings weight_tying", "tied_embeddings"),
)
_HEADS = (
    _size("num_key_value_heads n_kv_heads", "attention", "kv_heads"),
    _size("head_dim", "attention", "head_dim"),
)
_TOP_K = _size("num_experts_per_tok moe_top_k", "experts", "top_k")
# Configuration classes of transformers 5 map one of these names to the other, and save either one.
_LOCAL = (_size("num_local_experts num_experts", "experts", "count"), _TOP_K)
_EXPERTS = (_size("num_experts num_local_experts moe_num_experts", "experts", "count"), _TOP_K)
_WIDE = _size("intermediate_size", "experts", "ffn_size")
_NARROW = _size("moe_intermediate_size", "experts", "ffn_size")
_STEP = _size("decoder_sparse_step", "experts", "every")
_BIAS = _size("attention_bias", "attention", "bias")

_DEEPSEEK = (
    *_COMMON,
    _size("n_routed_experts num_local_experts num_experts", "experts", "count"),
    _TOP_K,
    _NARROW,
    _size("first_k_dense_replace", "dense_layers"),
    _size("intermediate_size", "dense_ffn_size"),
    _size("moe_layer_freq", "experts", "every"),
    _size("kv_lora_rank", "attention", "kv_lora_rank"),
    _size("q_lora_rank", "attention", "q_lora_rank"),
    _size("qk_nope_head_dim", "attention", "qk_nope_head_dim"),
    _size("qk_rope_head_dim", "attention", "qk_rope_head_dim"),
    _size("v_head_dim", "attention", "head_dim"),
)
# Of DeepSeek's own configuration class (DeepSeek-VL2, configuration_deepseek.py), for which its published files leave
# keys out; transformers' class of the same model type assumes 32 layers instead of 30.
_DEEPSEEK_DEFAULTS = {
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "moe_intermediate_size": 1407,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 0,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "tie_word_embeddings": False,
}
_UNTIED = {"tie_word_embeddings": False}

_QWEN2_MOE = (
    *_COMMON,
    *_HEADS,
    *_EXPERTS,
    _NARROW,
    _STEP,
    _size("qkv_bias", "attention", "bias"),
    _size("shared_expert_intermediate_size", "experts", "shared_ffn_size"),
)
_QWEN2_MOE_DEFAULTS = {"decoder_sparse_step": 1, "qkv_bias": True, **_UNTIED}

# Defaults are those of transformers' configuration classes (5.19) unless said otherwise.
FAMILIES: dict[str, Family] = {
    "mixtral": Family(
        "mixtral",
        "MixtralForCausalLM",
        (*_COMMON, *_HEADS, *_LOCAL, _WIDE),
        {"num_key_value_heads": 8, **_UNTIED},
        constants={"rope_theta": 1e6, "rms_norm_eps": 1e-5, "sliding_window": None},
    ),
    "qwen2_moe": Family(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        _QWEN2_MOE,
        _QWEN2_MOE_DEFAULTS,
        facts={"experts.shared_gate": True},
        constants={"rope_theta": 1e6, "rms_norm_eps": 1e-6, "norm_topk_prob": False, "use_sliding_window": False},
    ),
    # No published model is a LLaVA-NeXT over Qwen2-MoE, but transformers and vLLM can combine the two.
    "llava_next_qwen2_moe": Family(
        "llava_next",
        "LlavaNextForConditionalGeneration",
        _QWEN2_MOE,
        _QWEN2_MOE_DEFAULTS,
        facts={"experts.shared_gate": True},
        section="text_config",
        override_section="text_config",
        language="qwen2_moe",
        also=("qwen2_moe",),
        constants={
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
    ),
    "qwen3_moe": Family(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        (*_COMMON, *_HEADS, *_EXPERTS, _NARROW, _STEP, _BIAS),
        {"decoder_sparse_step": 1, "attention_bias": False, **_UNTIED},
        facts={"attention.qk_norm": "head"},
        constants={"rope_theta": 1e6, "rms_norm_eps": 1e-6, "norm_topk_prob": True, "use_sliding_window": False},
    ),
    "qwen3": Family(
        "qwen3",
        "Qwen3ForCausalLM",
        (*_COMMON, *_HEADS, _BIAS, _size("intermediate_size", "dense_ffn_size")),
        {"head_dim": 128, "attention_bias": False, **_UNTIED},
        facts={"attention.qk_norm": "head"},
        constants={"rope_theta": 1e6, "rms_norm_eps": 1e-6, "use_sliding_window": False},
    ),
    "deepseek_v2": Family(
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        _DEEPSEEK,
        _DEEPSEEK_DEFAULTS,
        shared="count",
        constants={
            "rope_theta": 1e4,
            "rms_norm_eps": 1e-6,
            "norm_topk_prob": False,
            "topk_method": "greedy",
            "scoring_func": "softmax",
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 1.0,
        },
    ),
    "deepseek_v3": Family(
        "deepseek_v3", "DeepseekV3ForCausalLM", _DEEPSEEK, {"moe_layer_freq": 1, **_UNTIED}, shared="count"
    ),
    "deepseek_vl_v2": Family(
        "deepseek_vl_v2",
        "DeepseekVLV2ForCausalLM",
        _DEEPSEEK,
        _DEEPSEEK_DEFAULTS,
        shared="count",
        also=("deepseek_v2",),
        section="language_config",
        override_section="text_config",
    ),
    "phimoe": Family(
        "phimoe",
        # vLLM registers the class under this name only; transformers 5 would write PhimoeForCausalLM.
        "PhiMoEForCausalLM",
        (*_COMMON, *_HEADS, *_LOCAL, _WIDE, _BIAS),
        {"num_key_value_heads": 8, "attention_bias": False, **_UNTIED},
        constants={"rope_theta": 1e4, "rms_norm_eps": 1e-5, "lm_head_bias": True, "sliding_window": None},
    ),
    "olmoe": Family(
        "olmoe",
        "OlmoeForCausalLM",
        (*_COMMON, *_HEADS, *_EXPERTS, _WIDE),
        _UNTIED,
        facts={"attention.qk_norm": "full"},
        constants={"rope_theta": 1e4, "rms_norm_eps": 1e-5, "norm_topk_prob": False},
    ),
    # Its expert width is mlp_ratio x hidden_size with SwiGLU's two halves in one matrix: not compared.
    "molmoe": Family("molmo", "MolmoForCausalLM", (*_COMMON, *_HEADS, *_EXPERTS)),
    "llama4": Family(
        "llama4",
        "Llama4ForConditionalGeneration",
        (
            *_COMMON,
            *_HEADS,
            *_LOCAL,
            _WIDE,
            _size("interleave_moe_layer_step", "experts", "every"),
            _size("intermediate_size_mlp", "dense_ffn_size"),
        ),
        {"interleave_moe_layer_step": 1, "head_dim": 128, **_UNTIED},
        shared="routed",
        also=("llama4_text",),
        facts={"attention.qk_norm": "none"},  # without weights, even if use_qk_norm is true
        full_every=4,
        section="text_config",
        override_section="text_config",
    ),
    "grok1": Family("grok-1", "Grok1ModelForCausalLM", (*_COMMON, *_HEADS, *_EXPERTS, _WIDE)),
    "switch_transformers": Family(
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        (
            _size("d_model", "hidden_size"),
            _size("num_layers", "layers", divisor=2),
            _size("num_decoder_layers", "layers", divisor=2),
            _size("num_heads", "attention", "heads"),
            _size("d_kv", "attention", "head_dim"),
            _size("vocab_size", "vocab_size"),
            _size("num_experts", "experts", "count"),
            _size("d_ff", "experts", "ffn_size"),
        ),
    ),
}
