"""Each value of the knob ``quantization``: bits of weights and activations, scales, and how such a checkpoint is made.

WxAy means x bits per weight and y bits per activation; A16 leaves activations in the knob ``dtype``.  The KV cache has
its own knob (``kv_cache_dtype``).  The matrices of attention, experts and feed-forward blocks are quantized; routers,
the gate of shared experts, embeddings, norms and the vision tower stay in ``dtype``.  Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moebench.formats import Json
from moebench.formats.model import ArchitectureDict

TOOL = "llmcompressor 0.14.0.1"
"""What makes the checkpoints, as envs/quantize-*.in pin it: part of their identity."""

GROUPS = (128, 64, 32)
"""Columns that share a scale, for 4-bit weights (vLLM's kernels take these)."""

SPLITS = (4, 2, 1)
"""Tensor parallel sizes that one checkpoint shall serve: the first for which there is a group."""

BLOCK = 128
"""Edge of the square blocks that share a scale, for ``fp8_block``."""

DTYPE_BITS = {"bfloat16": 16, "float16": 16, "float32": 32}

WHILE_LOADING = ("fp8",)
"""Schemes that the engine makes of any checkpoint while it loads."""

EXPERTS_ONLY = ("mxfp4",)
"""Schemes of published checkpoints that quantize routed experts alone; the project makes none of them."""


@dataclass(frozen=True)
class Scheme:
    """One quantization scheme."""

    name: str
    method: Literal["rtn", "gptq", "awq"]
    """How a rounded weight is chosen: to the nearest (no calibration), GPTQ (arXiv 2210.17323), AWQ (2306.00978)."""
    numbers: Literal["int", "float"]
    weight_bits: int
    activation_bits: int | None
    """None: activations stay in ``dtype``."""
    scales: Literal["row", "group", "block", "mx"]
    """What shares a scale: a row of the matrix, ``GROUPS`` columns of a row, a square of ``BLOCK``, or (OCP
    Microscaling) 32 columns of a row with a scale of one byte."""
    preset: str
    """Its name in compressed-tensors."""
    zero_points: bool = False

    @property
    def title(self) -> str:
        """A readable name, e.g.  ``W4A16 int, zero points``."""
        return f"W{self.weight_bits}A{self.activation_bits or 16} {self.numbers}" + ", zero points" * self.zero_points

    def bytes_per_weight(self, group: int = GROUPS[0]) -> float:
        """Bytes per weight, including scales and zero points; scales per row or tensor are neglected.

        A scale takes 2 bytes (float32 in blocks: 4 bytes), a zero point as many bits as a weight.
        """
        shared = {
            "row": 0.0,
            "group": (2 + self.zero_points * self.weight_bits / 8) / group,
            "block": 4 / BLOCK**2,
            "mx": 1 / 32,
        }
        return self.weight_bits / 8 + shared[self.scales]


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("fp8", "rtn", "float", 8, 8, "row", "FP8_DYNAMIC"),
        Scheme("fp8_block", "rtn", "float", 8, 8, "block", "FP8_BLOCK"),
        Scheme("int8", "gptq", "int", 8, 8, "row", "W8A8"),
        Scheme("awq", "awq", "int", 4, None, "group", "W4A16_ASYM", zero_points=True),
        Scheme("gptq", "gptq", "int", 4, None, "group", "W4A16"),
        Scheme("mxfp4", "rtn", "float", 4, None, "mx", "MXFP4A16"),
    )
}
"""Activations are quantized per token while the engine runs (``fp8_block``: per 128 channels of a token).  ``fp8`` made
while loading shares one scale per matrix instead of per row.  ``mxfp4`` is as gpt-oss is published."""


def widths(architecture: ArchitectureDict) -> dict[str, int]:
    """Input widths of the quantized matrices, by the block that they belong to."""
    attention, experts = architecture["attention"], architecture["experts"]
    recurrent = architecture.get("recurrent")
    found = {
        "hidden_size": architecture["hidden_size"],
        "attention heads x head_dim": attention["heads"] * attention["head_dim"],
        "attention.kv_lora_rank": attention["kv_lora_rank"],
        "attention.q_lora_rank": attention["q_lora_rank"],
        "experts.ffn_size": experts["ffn_size"] if experts else 0,
        "experts.shared_ffn_size": experts["shared_ffn_size"] if experts else 0,
        "dense_ffn_size": architecture["dense_ffn_size"],
        "recurrent value_heads x value_head_dim": recurrent["value_heads"] * recurrent["value_head_dim"]
        if recurrent
        else 0,
    }
    return {name: width for name, width in found.items() if width}


SPLIT = ("attention heads x head_dim", "experts.ffn_size", "experts.shared_ffn_size", "dense_ffn_size")
"""The widths that tensor parallelism splits."""


def group_size(architecture: ArchitectureDict) -> int:
    """Number of columns that share a scale in a model: the first of ``GROUPS`` that divides all its widths when they
    are split across 4 GPUs; failing that, across 2; failing that, unsplit.

    Raises ValueError, naming the width, if there is none.
    """
    for tp in SPLITS:
        for group in GROUPS:
            if all(w % (group * (tp if name in SPLIT else 1)) == 0 for name, w in widths(architecture).items()):
                return group
    name, width = next((n, w) for n, w in widths(architecture).items() if w % GROUPS[-1])
    raise ValueError(f"{name} {width} is not a multiple of {GROUPS[-1]}, the smallest group of weights with one scale")


def bytes_per_weight(name: str, architecture: ArchitectureDict) -> float:
    """Bytes per quantized weight of a model, scales included."""
    scheme = SCHEMES[name]
    if scheme.scales != "group":
        return scheme.bytes_per_weight()
    try:
        return scheme.bytes_per_weight(group_size(architecture))
    except ValueError:  # such a model is not quantized here; a published one has its own groups
        return scheme.bytes_per_weight()


def bits(quantization: str, dtype: str, kv_cache_dtype: str) -> dict[str, int]:
    """Bits of weights, activations and KV cache for three knobs, which interact only through ``dtype``."""
    scheme, plain = SCHEMES.get(quantization), DTYPE_BITS[dtype]
    return {
        "weight_bits": scheme.weight_bits if scheme else plain,
        "activation_bits": (scheme.activation_bits if scheme else None) or plain,
        "kv_bits": 8 if kv_cache_dtype == "fp8" else plain,
    }


# ------------------------------------------------------------------------------ what a checkpoint says


def made_while_loading(name: str, config_json: Json) -> bool:
    """Whether the engine quantizes a checkpoint while loading it, i.e. the checkpoint is not already quantized."""
    return name in WHILE_LOADING and "quantization_config" not in config_json


def claim_problem(name: str, config_json: Json) -> str | None:
    """Why a checkpoint's ``config.json`` contradicts the knob ``quantization``; None if it does not.

    Compares number types, bits of weights and activations, and blocks. compressed-tensors does not record the method of
    rounding, so its 4-bit integers pass as ``awq`` and as ``gptq``.
    """
    given = config_json.get("quantization_config")
    if name == "none" or (name in WHILE_LOADING and given is None):
        return f"it is quantized ({_said(given)}); name the scheme, or another checkpoint" if given else None
    if given is None:
        return f"quantization {name} needs a checkpoint quantized that way; this one has no quantization_config"
    found = _schemes_of(given)
    return None if name in found else f"it is not quantized as {name}: {_said(given)}"


def _schemes_of(given: Json) -> set[str]:
    """The schemes that match a ``quantization_config``."""
    method = given.get("quant_method")
    if method == "fp8":
        return {"fp8_block" if given.get("weight_block_size") else "fp8"}
    if method == "mxfp4":
        return {method}
    if method in ("awq", "gptq"):
        return {method} if given.get("bits") == SCHEMES[method].weight_bits else set()
    groups = list((given.get("config_groups") or {}).values())
    kinds = [_schemes_of_group(group) for group in groups]
    return set.intersection(*kinds) if kinds else set()


def _schemes_of_group(group: Json) -> set[str]:
    weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
    return {
        name
        for name, scheme in SCHEMES.items()
        if name not in EXPERTS_ONLY
        and (weights.get("type"), weights.get("num_bits")) == (scheme.numbers, scheme.weight_bits)
        and inputs.get("num_bits") == scheme.activation_bits
        and (not inputs or inputs.get("type") == scheme.numbers)
        and (weights.get("strategy") == "block") == (scheme.scales == "block")
    }


def _said(given: Json) -> str:
    """A short description of a ``quantization_config``."""
    groups = list((given.get("config_groups") or {}).values())
    if not groups:
        bits = given.get("bits") or given.get("weight_block_size")
        return str(given.get("quant_method")) + (f", {bits}" if bits else "")
    words = []
    for group in groups:
        weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
        words.append(f"W{weights.get('num_bits')}A{inputs.get('num_bits') or 16} {weights.get('type')}")
    return f"{given.get('quant_method')}, {' and '.join(dict.fromkeys(words))}"
