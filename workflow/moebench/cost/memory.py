"""Memory of an engine configuration: weights and KV cache, whole and per GPU, and whether they fit.

Formats and layout are the engine knobs (``EngineKnobs``).  Bytes are decimal (80 GB is 80e9), as datasheets count.

Layout, as vLLM 0.32 does it: tensor parallelism splits attention by heads (KV heads are replicated once there are more
GPUs than heads), feed-forward blocks by width and embeddings by rows; experts are split over all TP x DP ranks, by
width, or by count with expert parallelism; MLA's latent projections and its cache, routers, norms and the vision tower
are on every rank; data parallelism repeats everything but the experts.  Pipeline stages hold consecutive layers.

Neglected: the allocator's fragmentation and block rounding, kernels' packed copies, the draft model of speculation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moebench.config import Architecture, EngineKnobs, Hardware
from moebench.cost import params, vision
from moebench.quantize import schemes

DTYPE_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0, "fp8": 1.0}

RESERVE_BYTES = 3e9
"""Assumed per GPU for everything else: CUDA context, NCCL buffers, activations of a step, CUDA graphs."""


@dataclass(frozen=True)
class GpuMemory:
    """What the fullest GPU of an engine configuration holds."""

    weight_bytes: float
    kv_bytes_per_token: float
    """Per token of every sequence of the GPU's data-parallel replica."""


@dataclass(frozen=True)
class Fit:
    """Whether an engine configuration fits, and why."""

    fits: bool | None
    """Weights, one sequence of ``max_model_len`` and the reserve fit; None: the hardware's memory is unknown."""
    weight_bytes: float
    sequence_bytes: float
    reserve_bytes: float
    usable_bytes: float | None
    kv_capacity_tokens: int | None
    """Tokens the KV cache of a replica holds in what weights and reserve leave."""


def weight_bytes_per_parameter(architecture: Architecture, engine: EngineKnobs) -> float:
    """Bytes per weight of the matrices that quantization covers: attention, experts, feed-forward blocks.

    Scales and zero points included, but for scales per row or tensor (``quantize.schemes``).
    """
    if engine.quantization == "none":
        return DTYPE_BYTES[engine.dtype]
    return schemes.bytes_per_weight(engine.quantization, architecture.model_dump())


def weight_bytes(architecture: Architecture, engine: EngineKnobs) -> float:
    """Bytes of one whole copy of the weights.

    Quantization covers attention, experts and feed-forward blocks; embeddings, routers, norms and vision stay in
    ``dtype``.
    """
    count = params.total_parameters(architecture)
    plain = count.embeddings + count.router + count.norms + count.vision
    return plain * DTYPE_BYTES[engine.dtype] + (count.total - plain) * weight_bytes_per_parameter(architecture, engine)


def kv_values_per_token(architecture: Architecture, mla: bool = True, tp: int = 1) -> int:
    """Numbers one layer caches per token on one of ``tp`` GPUs.

    MHA, GQA: 2 x KV heads x head_dim, at least one head per GPU.  MLA: the latent, kv_lora_rank + qk_rope_head_dim, on
    every GPU.  ``mla=False``: MLA expanded to full heads; vLLM pads values to the width of keys (nope + rope), so
    2 x heads x (nope + rope).
    """
    attention = architecture.attention
    if attention.kind == "mla" and mla:
        return attention.kv_lora_rank + attention.qk_rope_head_dim
    heads = max(1, math.ceil(attention.kv_heads / tp))
    width = attention.head_dim
    if attention.kind == "mla":
        width = attention.qk_nope_head_dim + attention.qk_rope_head_dim
    return 2 * heads * width


def kv_bytes_per_token(architecture: Architecture, engine: EngineKnobs) -> float:
    """Bytes one token of one sequence takes in one whole copy of the KV cache, all layers."""
    return architecture.layers * kv_values_per_token(architecture, engine.mla) * _kv_bytes(engine)


def _kv_bytes(engine: EngineKnobs) -> float:
    return DTYPE_BYTES[engine.dtype if engine.kv_cache_dtype == "auto" else engine.kv_cache_dtype]


def attention_layer_per_gpu(architecture: Architecture, tp: int) -> float:
    """Parameters of one layer's attention on one of ``tp`` GPUs."""
    attention, hidden = architecture.attention, architecture.hidden_size
    whole = params.attention_layer(attention, hidden)
    if attention.kind == "mla":
        latent = hidden * (attention.kv_lora_rank + attention.qk_rope_head_dim + attention.q_lora_rank)
        return latent + (whole - latent) / tp
    kv = 2 * hidden * attention.kv_heads * attention.head_dim
    own_kv = kv * max(1, math.ceil(attention.kv_heads / tp)) / attention.kv_heads
    return (whole - kv) / tp + own_kv


def _stage_bytes(architecture: Architecture, engine: EngineKnobs, first: int, layers: int) -> float:
    """Weight bytes on one GPU of a pipeline stage of ``layers`` layers from ``first``."""
    hidden, block = architecture.hidden_size, architecture.experts
    plain, packed = DTYPE_BYTES[engine.dtype], weight_bytes_per_parameter(architecture, engine)
    ranks = engine.tp * engine.dp
    dense = max(0, min(architecture.dense_layers - first, layers)) if block else layers
    sparse = (layers - dense) // block.every if block else 0
    dense = layers - sparse
    total = layers * attention_layer_per_gpu(architecture, engine.tp) * packed
    total += dense * params.ffn(hidden, architecture.dense_ffn_size) / engine.tp * packed
    if block:
        own = math.ceil(block.count / ranks) if engine.ep else block.count / ranks
        total += sparse * own * params.expert(architecture) * packed
        total += sparse * params.ffn(hidden, block.shared_ffn_size) / engine.tp * packed
        total += sparse * hidden * block.count * plain
    total += 2 * layers * hidden * plain
    embedding = architecture.vocab_size * hidden / engine.tp * plain
    last = first + layers == architecture.layers
    total += embedding * ((first == 0) + (last and not (architecture.tied_embeddings and first == 0)))
    return total + vision.parameters(architecture) * plain * (first == 0)


def memory_per_gpu(architecture: Architecture, engine: EngineKnobs) -> GpuMemory:
    """Weights and KV cache of the fullest GPU: the maximum over pipeline stages.

    Layers are dealt evenly; what is left over goes to the stages before the last, as in vLLM's ``get_pp_indices``.
    """
    base, extra = divmod(architecture.layers, engine.pp)
    sizes = [base] * engine.pp
    for i in range(extra):
        sizes[-2 - i] += 1
    firsts = [sum(sizes[:i]) for i in range(engine.pp)]
    kv = kv_values_per_token(architecture, engine.mla, engine.tp) * _kv_bytes(engine)
    return GpuMemory(
        weight_bytes=max(_stage_bytes(architecture, engine, f, n) for f, n in zip(firsts, sizes, strict=True)),
        kv_bytes_per_token=max(sizes) * kv,
    )


def fits(
    architecture: Architecture,
    hardware: Hardware,
    engine: EngineKnobs,
    sequence_tokens: int | None = None,
    reserve_bytes: float = RESERVE_BYTES,
) -> Fit:
    """Whether the engine can start: weights + KV of one sequence + reserve <= usable memory of a GPU.

    ``sequence_tokens`` is ``max_model_len`` by default, what vLLM insists on.  A batch that does not fit beside the
    weights is no failure: the scheduler runs it in parts.  Usable is memory x ``usable_memory_fraction``.
    """
    need = memory_per_gpu(architecture, engine)
    sequence = (sequence_tokens or engine.max_model_len) * need.kv_bytes_per_token
    if hardware.memory_bytes is None:
        return Fit(None, need.weight_bytes, sequence, reserve_bytes, None, None)
    usable = hardware.memory_bytes * hardware.usable_memory_fraction
    left = usable - need.weight_bytes - reserve_bytes
    return Fit(
        fits=left >= sequence,
        weight_bytes=need.weight_bytes,
        sequence_bytes=sequence,
        reserve_bytes=reserve_bytes,
        usable_bytes=usable,
        kv_capacity_tokens=max(0, int(left // need.kv_bytes_per_token)),
    )
