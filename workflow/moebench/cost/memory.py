"""Memory of an engine configuration: weights and KV cache, whole and per GPU, and whether they fit.

Formats and layout are the engine knobs (``EngineKnobs``).  Bytes are decimal (80 GB is 80e9), as datasheets count.

Layout, as vLLM 0.32 does it: tensor parallelism splits attention by heads (KV heads are replicated once there are more
GPUs than heads), feed-forward blocks by width and embeddings by rows; experts are split over all TP x DP ranks, by
width, or by count with expert parallelism; MLA's latent projections and its cache, routers, norms and the vision tower
are on every rank; data parallelism repeats everything but the experts.  Pipeline stages hold consecutive layers.

Neglected: the allocator's fragmentation and block rounding, kernels' packed copies, the draft model of speculation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from moebench.config import Architecture, EngineKnobs, Hardware
from moebench.cost import params
from moebench.cost.inputs import DTYPE_BYTES, Floats, Formats, Layout, Sizes

RESERVE_BYTES = 3e9
"""Assumed per GPU for everything else: CUDA context, NCCL buffers, activations of a step, CUDA graphs."""


@dataclass(frozen=True)
class GpuMemory:
    """Contents of the fullest GPU of an engine configuration."""

    weight_bytes: float
    kv_bytes_per_token: float
    """Per token of every sequence of the GPU's data-parallel replica, within the window of windowed layers."""


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
    """Tokens the KV cache of a replica holds in what weights and reserve leave, in sequences of ``max_model_len``."""

    @property
    def left_bytes(self) -> float | None:
        """Bytes left for KV caches and states beside weights and reserve; None: unknown."""
        return None if self.usable_bytes is None else self.usable_bytes - self.weight_bytes - self.reserve_bytes


def weight_bytes(architecture: Architecture, engine: EngineKnobs) -> float:
    """Bytes of one whole copy of the weights.

    Quantization covers attention, experts and feed-forward blocks; embeddings, routers, norms and vision stay in
    ``dtype``.
    """
    count, formats = params.total_parameters(architecture), Formats.of(architecture, engine)
    plain = count.embeddings + count.router + count.norms + count.vision
    packed = count.total - plain + count.routed_experts * (formats.expert_ratio - 1)
    return float(plain * formats.plain + packed * formats.packed)


def kv_values_per_token(sizes: Sizes, layout: Layout) -> Floats:
    """Numbers one layer caches per token, mean over the GPUs that share a sequence by tokens.

    MHA, GQA: 2 x KV heads x head_dim, whole heads, at least one per GPU.  MLA: the latent, kv_lora_rank +
    qk_rope_head_dim, on every GPU; expanded to full heads (``Sizes.of(..., latent_cache=False)``): vLLM pads values to
    the width of keys, so 2 x heads x (nope + rope).  KV parallelism divides by its size.
    """
    heads = np.maximum(1.0, np.ceil(sizes.kv_heads / layout.tp))
    return np.asarray((heads * sizes.kv_width + sizes.kv_latent) / layout.kvp)


def cache_bytes_per_token(sizes: Sizes, layout: Layout, value_bytes: ArrayLike) -> Floats:
    """Bytes that a layer with attention caches per token on one GPU, those of an indexer among them."""
    indexed = sizes.index_bytes / layout.kvp
    return np.asarray(kv_values_per_token(sizes, layout) * np.asarray(value_bytes, float) + indexed)


def attention_per_gpu(sizes: Sizes, layout: Layout) -> Floats:
    """Parameters of one layer's attention on one GPU; of models with recurrent layers, the mean of all layers."""
    heads = np.maximum(1.0, np.ceil(sizes.kv_heads / layout.tp)) / sizes.kv_heads
    attention = sizes.attention / layout.tp + sizes.attention_kv * heads + sizes.attention_latent
    return np.asarray(attention * sizes.attends + sizes.recurrent / layout.tp * (1 - sizes.attends))


def _stage_bytes(sizes: Sizes, formats: Formats, layout: Layout, first: Floats, layers: Floats) -> Floats:
    """Weight bytes on one GPU of a pipeline stage of ``layers`` layers from ``first``."""
    shared_by = layout.tp * layout.kvp
    dense = np.clip(sizes.leading_dense - first, 0, layers)
    sparse = np.where(sizes.sparse > 0, (layers - dense) // sizes.every, 0.0)
    own = np.ceil(sizes.experts / layout.ep) * layout.ep / layout.ranks  # experts, of which each may be a part
    packed = layers * attention_per_gpu(sizes, layout) + (layers - sparse) * sizes.dense_ffn / shared_by
    packed = packed + sparse * (own * sizes.expert * formats.expert_ratio + sizes.shared / shared_by)
    plain = sparse * sizes.router + layers * sizes.norms + sizes.vision * (first == 0)
    last = first + layers == sizes.layers
    embeddings = (first == 0) + last * (1 - sizes.tied * (first == 0))
    plain = plain + embeddings * sizes.vocab * sizes.hidden / shared_by + last * sizes.hidden
    return np.asarray(packed * formats.packed + plain * formats.plain)


def stage_layers(sizes: Sizes, layout: Layout, stages: Floats) -> tuple[Floats, Floats]:
    """First layer and number of layers of each stage, 0 if there is no such stage.

    Layers are dealt evenly; what is left over goes to the stages before the last, as in vLLM's ``get_pp_indices``.
    """
    base, extra = np.divmod(sizes.layers, layout.pp)
    # Left-over layers go to stages pp - 1 - extra ... pp - 2.
    longer_before = np.clip(stages - (layout.pp - 1 - extra), 0, extra)
    longer = (stages >= layout.pp - 1 - extra) & (stages < layout.pp - 1)
    there = stages < layout.pp
    return np.asarray(stages * base + longer_before), np.asarray((base + longer) * there)


def gpu_bytes(sizes: Sizes, formats: Formats, layout: Layout) -> tuple[Floats, Floats]:
    """Weight bytes of the fullest GPU, and its KV cache bytes per token of a sequence of its replica."""
    axes = max(value.ndim for inputs in (sizes, formats, layout) for value in vars(inputs).values())
    stages = np.arange(float(layout.pp.max())).reshape(-1, *[1] * axes)  # all at once, on an axis before the others
    first, layers = stage_layers(sizes, layout, stages)
    weights = np.where(layers > 0, _stage_bytes(sizes, formats, layout, first, layers), 0.0).max(axis=0)
    most = layers.max(axis=0)
    return weights, np.asarray(most * sizes.attends * cache_bytes_per_token(sizes, layout, formats.cache))


def spared_bytes(sizes: Sizes, formats: Formats, layout: Layout, tokens: ArrayLike) -> Floats:
    """Bytes of the fullest GPU by which a sequence of ``tokens`` tokens needs less than ``tokens`` times
    :func:`gpu_bytes`' cache per token: windowed layers drop what lies before the window.  Negative for states, which
    a sequence needs whatever its length; tensor parallelism splits them by heads.
    """
    dropped = (sizes.windowed - sizes.kept) * np.maximum(np.asarray(tokens, float) - sizes.window, 0.0)
    dropped = dropped * cache_bytes_per_token(sizes, layout, formats.cache)
    # The data type of states is the model's, also where the cache has another.
    states = (sizes.state * formats.plain + sizes.state_float32 * DTYPE_BYTES["float32"]) / layout.tp
    return np.asarray((dropped - states) / layout.pp)


def memory_per_gpu(architecture: Architecture, engine: EngineKnobs) -> GpuMemory:
    """Weights and KV cache of the fullest GPU: the maximum over pipeline stages."""
    weights, cache = gpu_bytes(Sizes.of(architecture, engine.mla), Formats.of(architecture, engine), Layout.of(engine))
    return GpuMemory(weight_bytes=float(weights), kv_bytes_per_token=float(cache))


def sequence_bytes(architecture: Architecture, engine: EngineKnobs, tokens: int) -> float:
    """KV cache and states of one sequence of ``tokens`` tokens on the fullest GPU."""
    return sequences_bytes(architecture, engine, [tokens])[0]


def sequences_bytes(architecture: Architecture, engine: EngineKnobs, tokens: Sequence[int]) -> list[float]:
    """:func:`sequence_bytes` of sequences of different lengths."""
    sizes, formats, layout = Sizes.of(architecture, engine.mla), Formats.of(architecture, engine), Layout.of(engine)
    per_token, lengths = gpu_bytes(sizes, formats, layout)[1], np.asarray(tokens, float)
    return [float(of_one) for of_one in lengths * per_token - spared_bytes(sizes, formats, layout, lengths)]


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
    tokens = sequence_tokens or engine.max_model_len
    sizes, formats, layout = Sizes.of(architecture, engine.mla), Formats.of(architecture, engine), Layout.of(engine)
    sequence = float(tokens * need.kv_bytes_per_token - spared_bytes(sizes, formats, layout, tokens))
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
        kv_capacity_tokens=max(0, int(left // (sequence / tokens))),
    )
