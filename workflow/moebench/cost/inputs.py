"""Inputs of the formulas from architectures, data types, layouts and machines: numbers, one per cell.

Every field is a numpy array of float64; all fields of all inputs of a call broadcast together, so one call computes one
cell or a million.  ``of`` makes them from the configuration, :func:`stack` one of many.  Unknown constants are NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moebench.architectures import quantization_schemes
from moebench.config import Architecture, EngineKnobs, Hardware, Recurrent
from moebench.cost import params, vision

Floats = NDArray[np.float64]

INDEX_SCALE_BYTES = 4
"""Of a key of the indexer, which vLLM keeps in FP8 with one scale."""

DTYPE_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0, "fp8": 1.0}


class Arrays:
    """Makes every field an array of float64."""

    def __post_init__(self) -> None:
        own = vars(self)
        for name, value in own.items():
            own[name] = np.asarray(value, dtype=np.float64)


@dataclass(frozen=True)
class Sizes(Arrays):
    """Parameters and widths of architectures."""

    layers: Any
    leading_dense: Any
    """Layers before the first that may have experts."""
    every: Any
    """An MoE block in every n-th of the others."""
    sparse: Any
    """Layers with experts."""
    hidden: Any
    vocab: Any
    tied: Any
    """1: input and output embeddings are one matrix."""
    vision: Any
    tower: Any
    """Weights of the vision part that every tile of an image passes."""
    tile_ops: Any
    """Operations of a tile in the vision part."""
    attention: Any
    """Parameters of a layer's attention that tensor parallelism splits evenly: Q and O; MLA: Q, up-projections, O."""
    attention_kv: Any
    """Those split by KV heads, whole heads only: K and V."""
    attention_latent: Any
    """Those on every rank: MLA's down-projections."""
    norms: Any
    """Per layer."""
    dense_ffn: Any
    """Per layer without experts."""
    expert: Any
    """One routed expert."""
    shared: Any
    """Per MoE layer."""
    experts: Any
    """Routed experts per MoE layer; 1 if there are none (and then ``sparse`` and ``expert`` are 0)."""
    top_k: Any
    heads: Any
    """Query heads."""
    kv_heads: Any
    kv_width: Any
    """Values a layer caches per token and KV head; 0 with a latent cache."""
    kv_latent: Any
    """Values of the latent, which every rank caches; 0 without."""
    head_values: Any
    """Heads x width of the attention's output."""
    decode_ops: Any
    """Operations of a layer's attention per token and token of context, in decoding."""
    prefill_ops: Any
    router: Any
    """Parameters of the router of an MoE layer; 0 if there are none."""
    attends: Any = 1.0
    """Share of the layers that have attention, and so a cache; the others keep a state."""
    recurrent: Any = 0.0
    """Parameters of what a layer with a state has instead of attention."""
    state: Any = 0.0
    """Values of the states of one sequence, in all layers: those that have the cache's data type."""
    state_float32: Any = 0.0
    """Those that have float32."""
    windowed: Any = 0.0
    """Layers in which a token attends to ``window`` tokens at most."""
    window: Any = np.inf
    kept: Any = 0.0
    """Of those layers, how many cache all tokens all the same (sparse attention)."""
    index_bytes: Any = 0.0
    """Bytes a layer caches per token for the indexer of sparse attention, whatever the cache's data type."""

    @classmethod
    @functools.cache  # many engine configurations load one architecture
    def of(cls, architecture: Architecture, latent_cache: bool = True) -> Sizes:
        """Sizes of an architecture.  ``latent_cache=False``: MLA's cache expanded to full heads."""
        a, hidden, block = architecture.attention, architecture.hidden_size, architecture.experts
        mla = a.kind == "mla"
        latent = latent_cache and mla
        down = hidden * (a.kv_lora_rank + a.qk_rope_head_dim + a.q_lora_rank) if mla else 0
        down += params.indexer(a, hidden)  # vLLM has the indexer on every rank
        kv = 0 if mla else (2 * hidden + 2 * a.bias) * a.kv_heads * a.head_dim
        shared = (
            params.ffn(hidden, block.shared_ffn_size) + hidden * block.shared_gate
            if block and block.shared_ffn_size
            else 0
        )
        key_width = a.qk_nope_head_dim + a.qk_rope_head_dim if mla else a.head_dim
        sparse = a.index_top_k > 0
        state = architecture.recurrent
        return cls(
            layers=architecture.layers,
            leading_dense=architecture.dense_layers,
            every=block.every if block else 1,
            sparse=params.moe_layers(architecture),
            hidden=hidden,
            vocab=architecture.vocab_size,
            tied=architecture.tied_embeddings,
            vision=vision.parameters(architecture),
            tower=vision.tower_weights(architecture),
            tile_ops=vision.tile_ops(architecture),
            attention=params.attention_layer(a, hidden) - kv - down,
            attention_kv=kv,
            attention_latent=down,
            norms=2 * hidden + params.attention_norms(a),
            dense_ffn=params.ffn(hidden, architecture.dense_ffn_size),
            expert=params.expert(architecture),
            shared=shared,
            experts=block.count if block else 1,
            top_k=block.top_k if block else 1,
            heads=a.heads,
            kv_heads=a.kv_heads,
            kv_width=0 if latent else 2 * key_width,
            kv_latent=a.kv_lora_rank + a.qk_rope_head_dim if latent else 0,
            head_values=a.heads * a.head_dim,
            decode_ops=attention_ops(architecture, absorbed=latent),
            prefill_ops=attention_ops(architecture, absorbed=False),
            router=params.router(architecture),
            attends=(architecture.layers - state.layers) / architecture.layers if state else 1.0,
            recurrent=params.recurrent_layer(state, hidden),
            state=state.layers * _state(state, wide=False) if state else 0,
            state_float32=state.layers * _state(state, wide=True) if state else 0,
            windowed=architecture.layers if sparse else a.windowed_layers,
            window=a.index_top_k if sparse else a.window or np.inf,
            kept=architecture.layers if sparse else 0,
            index_bytes=a.index_head_dim + INDEX_SCALE_BYTES if sparse else 0,
        )


def _state(recurrent: Recurrent, wide: bool) -> int:
    """Values of a layer's state for one sequence, of the model's data type or (``wide``) of float32: the last tokens of
    the convolution, and a matrix of key x value widths per value head."""
    keys = recurrent.key_heads * recurrent.key_head_dim
    values = recurrent.value_heads * recurrent.value_head_dim
    matrix = values * recurrent.key_head_dim
    if wide:
        return matrix if recurrent.state_dtype == "float32" else 0
    return (recurrent.conv_width - 1) * (2 * keys + values) + (matrix if recurrent.state_dtype == "auto" else 0)


def attention_ops(architecture: Architecture, absorbed: bool) -> float:
    """Operations per token and token of context of one layer: scores and weighted sum, all heads.

    MHA, GQA: 4 x heads x head_dim.  MLA *absorbed*, on the latent as in decoding: 2 x heads x (2 kv_lora + rope);
    otherwise on expanded heads, as in prefill: 2 x heads x (nope + rope + v).
    """
    attention = architecture.attention
    if attention.kind != "mla":
        return 4.0 * attention.heads * attention.head_dim
    if absorbed:
        return 2.0 * attention.heads * (2 * attention.kv_lora_rank + attention.qk_rope_head_dim)
    return 2.0 * attention.heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim + attention.head_dim)


@dataclass(frozen=True)
class Formats(Arrays):
    """Bytes per value."""

    packed: Any
    """Weights that quantization covers: attention, experts, feed-forward blocks."""
    plain: Any
    """Embeddings, routers, norms, vision; activations."""
    cache: Any
    expert_ratio: Any = 1.0
    """Bytes of an expert's weight over ``packed``: not 1 where only experts are quantized."""

    @classmethod
    def of(cls, architecture: Architecture, engine: EngineKnobs) -> Formats:
        """Formats of an engine configuration; scales and zero points included (``quantization_schemes``)."""
        plain = packed = DTYPE_BYTES[engine.dtype]
        ratio = 1.0
        if engine.quantization != "none":
            packed = quantization_schemes.bytes_per_weight(engine.quantization, architecture.as_dict())
        if engine.quantization in quantization_schemes.EXPERTS_ONLY:
            packed, ratio = plain, packed / plain
        return cls(
            packed=packed,
            plain=plain,
            cache=plain if engine.kv_cache_dtype == "auto" else DTYPE_BYTES[engine.kv_cache_dtype],
            expert_ratio=ratio,
        )


@dataclass(frozen=True)
class Layout(Arrays):
    """How a model is spread over GPUs: TP x KVP x DP ranks in each of PP stages.

    Tensor parallelism splits attention by heads.  KV parallelism (Helix, arXiv 2507.07120; vLLM's decode context
    parallelism) splits the KV cache of a sequence by tokens; its ranks repeat the attention weights and share the
    feed-forward blocks.  Data parallelism repeats all but the experts.
    """

    tp: Any = 1
    pp: Any = 1
    dp: Any = 1
    ep: Any = 1
    """Groups that whole experts are dealt to; within a group, experts are split by width.  1: all by width."""
    kvp: Any = 1

    @classmethod
    def of(cls, engine: EngineKnobs) -> Layout:
        """Layout of an engine configuration: vLLM deals experts to all TP x DP ranks, or to none."""
        return cls(tp=engine.tp, pp=engine.pp, dp=engine.dp, ep=engine.tp * engine.dp if engine.ep else 1)

    @property
    def ranks(self) -> Floats:
        """GPUs of a stage."""
        return np.asarray(self.tp * self.kvp * self.dp)

    @property
    def gpus(self) -> Floats:
        """All GPUs."""
        return np.asarray(self.ranks * self.pp)


@dataclass(frozen=True)
class Machine(Arrays):
    """Constants of a machine; NaN: unknown.  Overheads are zero and shares one unless calibrated."""

    bandwidth: Any
    """Bytes/s of a GPU's memory."""
    packed_peak: Any
    """Operations/s of the quantized matrices."""
    plain_peak: Any
    link: Any
    """Bytes/s one way between GPUs of a node."""
    node: Any
    """GPUs that are linked so."""
    far_link: Any
    """Bytes/s one way between nodes, per GPU."""
    hop_s: Any = 0.0
    """Start of one ring step."""
    moe_layer_s: Any = 0.0
    """Time an MoE layer takes beside its bytes and operations."""
    step_s: Any = 0.0
    """Time a step takes beside its layers."""
    processors: Any = 132
    """Streaming multiprocessors of a GPU; an H100's where they are not known."""

    @classmethod
    def of(cls, hardware: Hardware, engine: EngineKnobs, calibrated: bool = False) -> Machine:
        """Constants of a machine type for an engine configuration.

        ``calibrated``: with the hardware file's sustained shares and overheads; missing ones stay ideal.
        """
        known = hardware.calibration.values() if calibrated and hardware.calibration else {}
        compute = known.get("compute_share", 1.0)
        return cls(
            bandwidth=_or_nan(hardware.bandwidth_bytes_per_s) * known.get("bandwidth_share", 1.0),
            packed_peak=_peak(hardware, _arithmetic(engine)) * compute,
            plain_peak=_peak(hardware, engine.dtype) * compute,
            link=_or_nan(hardware.link_bytes_per_s),
            node=hardware.devices_per_node,
            far_link=_or_nan(hardware.inter_node_bytes_per_s),
            hop_s=known.get("collective_step_s", 0.0),
            moe_layer_s=known.get("moe_layer_s", 0.0),
            step_s=known.get("step_s", 0.0),
        )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _peak(hardware: Hardware, name: str) -> float:
    peak = hardware.peak.get(name)
    return peak.flops_per_s if peak else float("nan")


def _arithmetic(engine: EngineKnobs) -> str:
    """Data type whose peak the quantized matrices run at; 4-bit weights are widened first."""
    scheme = quantization_schemes.SCHEMES.get(engine.quantization)
    if scheme is None or scheme.activation_bits is None:
        return engine.dtype
    return "fp8" if scheme.numbers == "float" else f"int{scheme.activation_bits}"


S = TypeVar("S", bound=Arrays)


def stack(parts: Sequence[S]) -> S:
    """One input whose arrays hold those of all ``parts``, along a new first axis."""
    kind = type(parts[0])
    return kind(**{f.name: np.stack([getattr(p, f.name) for p in parts]) for f in fields(kind)})  # type: ignore[arg-type]  # every subclass is a dataclass
