"""The qs inequality (arXiv 2603.08960): when a mixture of experts reads more than a dense model of equal quality.

Notation as in the paper: E experts, k active ones, s = k/E, batch B, and q, the quality factor: a dense feed-forward
block of equal quality has q times the parameters that the MoE's has active.  The paper's criterion, q s < 1, holds
where every step reads every expert and all experts are routed ones.  A step reads E (1 - (1 - s)^B) of them
(``roofline.distinct_experts``) and the shared ones; the dense block is q times all that is active, shared experts too.
rho: parameters of the shared experts / those of the k active ones.  Everything broadcasts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from moebench.cost import memory, roofline
from moebench.cost.inputs import Floats, Formats, Layout, Machine, Sizes

SCALING_EXPONENT = 0.076
"""Exponent of loss over parameters, eq. 12 (Kaplan et al. 2020, arXiv 2001.08361)."""

PAPER_QUALITY = 5.0
"""The quality factor of the paper's evaluation (section 5.1)."""


def quality_factor(loss_dense: ArrayLike, loss_moe: ArrayLike, exponent: float = SCALING_EXPONENT) -> Floats:
    """q = (L_dense / L_MoE)^(1 / alpha), eq. 14: from losses at equal training compute."""
    return np.asarray((np.asarray(loss_dense, float) / np.asarray(loss_moe, float)) ** (1.0 / exponent))


def traffic_ratio_of_the_paper(quality: ArrayLike, sparsity: ArrayLike) -> Floats:
    """FFN weight bytes per token, MoE / dense, eq. 17: 1 / (q s), whatever the batch, without shared experts."""
    return np.asarray(1.0 / (np.asarray(quality, float) * np.asarray(sparsity, float)))


def shared_over_routed(sizes: Sizes) -> Floats:
    """rho: parameters of a layer's shared experts / those of its k active routed ones; 0 without shared ones."""
    return np.asarray(sizes.shared / (sizes.top_k * sizes.expert))


def traffic_ratio(quality: ArrayLike, sparsity: ArrayLike, batch: ArrayLike, shared: ArrayLike = 0.0) -> Floats:
    """The same if a step reads distinct experts and the shared ones, of rho = ``shared``.

    ((1 - (1 - s)^B) / s + rho) / (q (1 + rho)): 1/q at batch 1; at large ones (1/s + rho) / (q (1 + rho)), which is
    eq. 17 where rho is 0.
    """
    s, rho = np.asarray(sparsity, float), np.asarray(shared, float)
    read = (1.0 - np.power(1.0 - s, np.asarray(batch, float))) / s
    return np.asarray((read + rho) / (np.asarray(quality, float) * (1.0 + rho)))


def break_even_batch(quality: ArrayLike, sparsity: ArrayLike, shared: ArrayLike = 0.0) -> Floats:
    """Batch from which a mixture reads more FFN bytes than the dense model: ln(1 - s (q + rho (q - 1))) / ln(1 - s).

    0: at any batch (q <= 1 may give less than 1); infinite: at none (s (q + rho (q - 1)) >= 1; without shared experts
    q s >= 1, the opposite of eq. 18).
    """
    q, s, rho = (np.asarray(value, float) for value in (quality, sparsity, shared))
    needed = np.maximum(0.0, s * (q + rho * (q - 1.0)))  # share of the routed experts that must be read
    with np.errstate(divide="ignore", invalid="ignore"):
        batch = np.log1p(-np.minimum(needed, 1.0)) / np.log1p(-s)
    return np.asarray(np.where(needed >= 1.0, np.inf, batch))


def dense_equivalent(sizes: Sizes, quality: ArrayLike) -> Sizes:
    """The dense model of equal quality: the same except for its feed-forward blocks (eq. 11).

    Each MoE layer's becomes a dense one of q times its active parameters, k routed experts and the shared ones.
    """
    active = sizes.top_k * sizes.expert + sizes.shared
    ffn = (sizes.layers - sizes.sparse) * sizes.dense_ffn + sizes.sparse * np.asarray(quality, float) * active
    zero, one = np.zeros(()), np.ones(())
    return replace(
        sizes, sparse=zero, dense_ffn=ffn / sizes.layers, expert=zero, shared=zero, experts=one, top_k=one
    )  # fmt: skip


def parameters(sizes: Sizes) -> Floats:
    """All parameters, from sizes."""
    return memory.gpu_bytes(sizes, Formats(packed=1, plain=1, cache=1), Layout())[0]


@dataclass(frozen=True)
class Served:
    """Decoding at the largest batch that fits (eq. 20: weights + B x KV cache of L tokens <= memory)."""

    batch: Floats
    """Sequences on all GPUs together; 0: they do not fit."""
    most: Floats
    """The most that fit; 0: weights and one sequence do not."""
    weight_bytes: Floats
    """Of the fullest GPU."""
    cache_bytes: Floats
    """KV cache of one sequence on a GPU of its replica."""
    step_s: Floats
    memory_s: Floats
    compute_s: Floats
    collective_s: Floats
    tokens_per_s: Floats
    """Of all GPUs together; 0 if nothing fits, NaN where unknown."""


def serve(
    sizes: Sizes,
    formats: Formats,
    layout: Layout,
    machine: Machine,
    usable_bytes: ArrayLike,
    context: ArrayLike,
    batch: ArrayLike | None = None,
) -> Served:
    """Decode throughput at a context length, at the largest feasible batch or a given one.

    ``usable_bytes``: memory of a GPU for weights and KV cache.  Data-parallel replicas hold the same number of
    sequences.  Pipeline stages work at the same time on a part of the batch each.
    """
    length = np.asarray(context, float)
    weights, per_token = memory.gpu_bytes(sizes, formats, layout)
    left = np.asarray(usable_bytes, float) - weights
    sequence = per_token * length - memory.spared_bytes(sizes, formats, layout, length)
    feasible = np.maximum(0.0, np.floor(left / sequence * (1 + 1e-12))) * layout.dp
    served = np.broadcast_to(feasible if batch is None else np.asarray(batch, float), np.shape(feasible))
    served = np.where(served <= feasible, served, 0.0)
    part = np.ceil(np.maximum(served, 1.0) / layout.pp)
    step = roofline.step(sizes, formats, layout, machine, part)
    seconds = step.at(length)
    return Served(
        batch=np.where(np.isnan(left), np.nan, served),
        most=np.where(np.isnan(left), np.nan, feasible),
        weight_bytes=weights,
        cache_bytes=np.asarray(sequence),
        step_s=seconds,
        memory_s=step.memory_at(length),
        compute_s=step.compute_at(length),
        collective_s=np.broadcast_to(step.collective_s, np.shape(seconds)),
        tokens_per_s=np.asarray(np.where(np.isnan(left), np.nan, served) / seconds),
    )
