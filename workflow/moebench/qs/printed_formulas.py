"""The cost model of the qs paper (arXiv 2603.08960) by its equations, for comparison with the values it prints.

Not this project's model: that is :mod:`moebench.qs.inequality`.  What the paper leaves open is a field of
:class:`Case`, so that every assumption is visible.  Equation numbers are the paper's; formulas that its text lost are
reconstructed from the text around them and from the printed numbers.  B: batch, s = k/E, q: quality factor, L: context,
N: GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from moebench.cost import collectives
from moebench.cost.inputs import Floats, Formats, Machine, Sizes


@dataclass(frozen=True)
class Case:
    """A model on a system, with TP x KVP = N GPUs."""

    sizes: Sizes
    parameters: float
    """P, as published."""
    quality: float
    gpus: float
    tensor_parallel: float
    expert_parallel: float
    usable_bytes: float
    """Of a GPU, for weights and KV cache."""
    overlap: float
    """Share of a phase in which its collectives hide."""
    formats: Formats
    machine: Machine

    @property
    def sparsity(self) -> float:
        """s = k / E, eq. 9."""
        return float(self.sizes.top_k / self.sizes.experts)

    def weights(self, dense: bool) -> float:
        """Parameters of the MoE, or of the dense model of equal quality, P_dense = q s P (eq. 21)."""
        return self.parameters * (self.quality * self.sparsity if dense else 1.0)


def cache_bytes(case: Case, context: ArrayLike) -> Floats:
    """KV cache of a sequence on a GPU: shared by KVP ranks and, with heads, by at most n_kv of the TP ranks."""
    kvp = case.gpus / case.tensor_parallel
    sizes = case.sizes
    shards = np.where(sizes.kv_latent > 0, 1.0, np.minimum(case.tensor_parallel, sizes.kv_heads)) * kvp
    values = sizes.layers * (sizes.kv_heads * sizes.kv_width + sizes.kv_latent)
    return np.asarray(values * case.formats.cache / shards * np.asarray(context, float))


def largest_batch(case: Case, context: ArrayLike, dense: bool) -> Floats:
    """B from weights + B KV(L) <= memory (eq. 20), weights spread evenly over all GPUs."""
    left = case.usable_bytes - case.weights(dense) * case.formats.packed / case.gpus
    return np.asarray(np.maximum(0.0, np.floor(left / cache_bytes(case, context) + 1e-12)))


def of_one_capacity(contexts: Sequence[float], batches: Sequence[float]) -> int:
    """How many of the batches are floor(C / L) for one and the same C, which eq. 20 says; of the best C.

    A batch B at context L stands for a C in [B L, (B + 1) L).
    """
    ends = [(b * length, (b + 1) * length) for length, b in zip(contexts, batches, strict=True)]
    return max(sum(low <= start < high for low, high in ends) for start, _ in ends)


@dataclass(frozen=True)
class Latency:
    """Time of a token, s (a step's over its batch)."""

    hbm_s: Floats
    compute_s: Floats
    communication_s: Floats
    """Communication time that is not hidden."""

    @property
    def total_s(self) -> Floats:
        """max(compute, HBM) + exposed communication, eq. 19."""
        return np.asarray(np.maximum(self.hbm_s, self.compute_s) + self.communication_s)


def latency(case: Case, context: ArrayLike, batch: ArrayLike, dense: bool) -> Latency:
    """Time per token at a batch.

    FFN weights: the active ones over s B tokens (eqs. 4 to 6), s P / (s B) = P / B; dense: q s P / B.  Arithmetic: 2
    per active weight over all GPUs, projections over TP, attention over all.  Collectives: all-reduce after attention
    and, dense, after the feed-forward block; a mixture dispatches and combines k hidden states per token by all-to-all.
    What fits into its own phase (attention, feed-forward) is hidden.
    """
    b, length, sizes = np.asarray(batch, float), np.asarray(context, float), case.sizes
    machine, formats = case.machine, case.formats
    ffn_read = case.weights(dense) * formats.packed / case.gpus / b / machine.bandwidth
    kv_read = cache_bytes(case, length) / machine.bandwidth
    active = case.weights(dense) * (1.0 if dense else case.sparsity)
    ffn = 2.0 * active / case.gpus / machine.packed_peak
    projections = 2.0 * sizes.layers * (sizes.attention + sizes.attention_kv + sizes.attention_latent)
    attention = sizes.layers * sizes.decode_ops * length / case.gpus / machine.plain_peak
    attention = attention + projections / case.tensor_parallel / machine.plain_peak
    state = sizes.hidden * formats.plain
    reduce_s = sizes.layers * collectives.all_reduce_s(state, case.tensor_parallel, machine.link)
    if dense:
        exchange_s = reduce_s
    else:
        held = sizes.top_k * state / case.expert_parallel
        exchange_s = 2.0 * sizes.layers * collectives.all_to_all_s(held, case.expert_parallel, machine.link)
    exposed = collectives.exposed_s(reduce_s, np.maximum(kv_read, attention), case.overlap)
    exposed = exposed + collectives.exposed_s(exchange_s, np.maximum(ffn_read, ffn), case.overlap)
    return Latency(np.asarray(ffn_read + kv_read), np.asarray(ffn + attention), np.asarray(exposed))


# ----------------------------------------------------------------- from two printed batches, without any constant


def weights_over_cache(batch_moe: ArrayLike, batch_dense: ArrayLike, qs: ArrayLike) -> Floats:
    """Weights of the MoE / KV cache of a sequence, W / KV(L), from two batches that fill the same memory.

    W + B_moe KV = q s W + B_dense KV (eqs. 20 and 21), so W / KV = (B_dense - B_moe) / (1 - q s).
    """
    return np.asarray((np.asarray(batch_dense, float) - np.asarray(batch_moe, float)) / (1.0 - np.asarray(qs, float)))


def hbm_ratio(
    weights: ArrayLike, qs: ArrayLike, batch_moe: ArrayLike, batch_dense: ArrayLike, read_share: ArrayLike = 1.0
) -> Floats:
    """HBM time per token, MoE / dense; ``weights`` in units of a sequence's KV cache.

    (x W / B_moe + 1) / (q s W / B_dense + 1), x: share of the MoE's weights that a step reads.  1 is eq. 17, and
    then the ratio at batches that fill the same memory is B_dense / B_moe exactly: every step reads all of it once.
    1 - (1 - s)^B: distinct experts.  1 / s: all weights, instead of the active ones, divided by s B.
    """
    w, bm, bd = (np.asarray(v, float) for v in (weights, batch_moe, batch_dense))
    return np.asarray((np.asarray(read_share, float) * w / bm + 1.0) / (np.asarray(qs, float) * w / bd + 1.0))
