"""Calibrated time of steps, prefills and served requests: the roofline's operators, each with what it really costs.

The roofline (:mod:`moebench.cost.roofline`) is a bound: one maximum over a step, no overhead.  Here every operator has
one of its own and a factor on it, and layers, sequences and steps have overheads.  With n tokens in a step, and per
GPU::

    step = sum over layers and operators of  hypot(c_x bytes_x / bandwidth, operations_x / (eta_x peak_x))
         + L t_layer + M t_matrix + L_moe t_moe + 2 L T_AR(ranks, n d bytes) + own sequences t_sequence + t_step

Operators: attention's projections, dense and shared blocks, experts, attention itself, the output matrix.  Each has the
bytes and the arithmetic of its own data type, so that attention in bfloat16 may stand beside experts of 4 bits.
Bytes and operations overlap in part: the root of the sum of their squares.  Weights of experts count for the experts
that are read on the fullest rank (:func:`fullest_rank`), their operations with tiles filled up: kernels work on
``tile_tokens`` tokens of an expert at a time, and on average half a tile of each is empty.

``c``: time over bytes / data-sheet bandwidth, at least about 1.  ``eta``: share of the data sheet's peak.  All of them,
and the overheads, are :class:`Constants`; where they are from is in ``config/hardware/*.yaml`` and docs/cost-model.md.
T_AR is measured: a table by group and message (:class:`AllReduce`).  Everything broadcasts: a cell or a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from moebench.config import Architecture
from moebench.cost import limits, memory, roofline
from moebench.cost.inputs import DTYPE_BYTES, Arrays, Floats, Formats, Layout, Machine, Sizes

GRAPH_TOKENS = 512
"""Most tokens of a step that vLLM replays as one CUDA graph; larger steps start their collectives one by one."""

PROCESSOR_BYTES_PER_S = 25e9
"""Rate that passes over activations are counted at, per multiprocessor.  An H200, with 1.43 times the bandwidth of an
H100 and the same multiprocessors, is no faster at them."""


@dataclass(frozen=True)
class Constants(Arrays):
    """Differences of a machine with its engine from the data sheet.  Times in s."""

    dense_bytes: Any = 1.2
    """c of attention's projections, dense and shared blocks and the output matrix."""
    expert_bytes: Any = 0.9
    cache_bytes: Any = 1.2
    """c of the KV cache; ``_low``: of one in fp8, whose values are widened first."""
    cache_bytes_low: Any = 1.6
    dense_share: Any = 0.75
    """eta of dense matrices in the plain data type; ``_low``: in a faster one (fp8, int8, fp4)."""
    dense_share_low: Any = 0.5
    expert_share: Any = 0.48
    expert_share_low: Any = 0.35
    attention_share: Any = 0.45
    """eta of attention's scores and sums, of the plain peak."""
    expert_share_packed: Any = 0.26
    """eta of experts of 4 bits whose weights are unpacked for plain arithmetic."""
    tile_tokens: Any = 120.0
    """Tokens of an expert that a kernel works on at a time; ``_packed``: of one with 4 bits."""
    tile_tokens_packed: Any = 45.0
    expert_correlation: Any = 0.04
    """Correlation of two tokens' choices of an expert; 0: all experts are chosen alike.  Their popularity has the mean
    p = k / E and the variance correlation x p (1 - p)."""
    expert_passes: Any = 2.7
    """Times that an MoE layer reads or writes each of its activations: n k (2 d + 3 f) values."""
    layer_passes: Any = 20.0
    """Times that the rest of a layer reads or writes the hidden states: n d values."""
    moe_token_s: Any = 0.05e-6
    """Time per token and layer of experts beside bytes and operations: the router's small kernels, on every rank."""
    layer_s: Any = 35e-6
    matrix_s: Any = 5e-6
    """More of a layer for each dense matrix beyond attention's two: a dense or shared block has two, latent attention
    three."""
    piecewise_layer_s: Any = 15e-6
    """More of a layer of a step whose graph is cut at attention (vLLM's cudagraph_mode PIECEWISE)."""
    moe_layer_s: Any = 37e-6
    deal_layer_s: Any = 10e-6
    """More of a MoE layer whose experts are dealt to ranks: tokens of others' experts are masked."""
    low_matrix_s: Any = 5e-6
    """More of a dense matrix in a faster data type: its activations are quantized first."""
    scaled_matrix_s: Any = 90e-6
    """More of one with a scale per block of weights, where no graph starts its kernels: time of the host."""
    sequence_s: Any = 5e-6
    step_s: Any = 0.5e-3
    prefill_layer_s: Any = 100e-6
    """Instead of ``layer_s`` in a step with a prefill, which is no replayed graph."""
    prefill_reduces: Any = 1.0
    """Time of all-reduces in a prefill over the table's: engines have faster ones for large messages."""
    request_s: Any = 10e-3
    """Time a served request takes to its first token beside its prefill: the server, the step in flight."""
    prompt_token_s: Any = 4e-6
    """Time per token of its prompt on the host: the tokenizer, the server."""
    waited_steps: Any = 1.5
    """Steps that a request waits before its prefill: those that were scheduled when it came."""
    opening_share: Any = 0.1
    """Share of a served run's requests that start together at its beginning and wait for each other's prefills."""


@dataclass(frozen=True)
class Precision(Arrays):
    """Bytes per value and peak operations/s, by operator."""

    attention: Any
    blocks: Any
    """Dense and shared feed-forward blocks."""
    experts: Any
    plain: Any
    """Embeddings, routers, norms, activations."""
    cache: Any
    attention_peak: Any
    blocks_peak: Any
    experts_peak: Any
    plain_peak: Any
    scaled: Any = False
    """Weights in fp8 have a scale per block."""


@dataclass(frozen=True)
class Traits(Arrays):
    """Properties of an architecture that its sizes do not give."""

    whole_norms: Any = False
    """Queries and keys are normed over all heads, so that tensor parallelism sums both over its ranks in each layer."""
    latent: Any = False
    """Multi-head latent attention."""

    @classmethod
    def of(cls, architecture: Architecture) -> Traits:
        """Traits of an architecture."""
        attention = architecture.attention
        return cls(whole_norms=attention.qk_norm == "full", latent=attention.kind == "mla")


@dataclass(frozen=True)
class AllReduce:
    """Measured times of all-reduces of a machine, by number of GPUs and size of the message."""

    message_bytes: tuple[float, ...]
    graph_s: Mapping[int, tuple[float, ...]]
    """By GPUs, one time per size: replayed in a CUDA graph."""
    eager_s: Mapping[int, tuple[float, ...]]
    link: float
    """Bytes/s one way of the machine they were measured on; on another, what the message adds scales with its link."""
    far_hop_s: float = 20e-6
    """Start of a ring step between nodes (assumed)."""

    def time_s(self, message_bytes: ArrayLike, ranks: ArrayLike, machine: Machine, eager: ArrayLike = False) -> Floats:
        """Time of one all-reduce, s; 0 for one rank.  NaN between nodes whose link is unknown.

        Log-log interpolation between the sizes; beyond the largest, as its bytes.  A group without a table takes the
        next larger one's.  More ranks than a node has: the node's own, then a ring over m nodes in which each of the
        node's GPUs moves its part, 2 (m - 1) (hop + bytes / (m node far link)).
        """
        size = np.maximum(np.asarray(message_bytes, float), 1.0)
        n, eager_too = np.asarray(ranks, float), np.asarray(eager, bool)
        inside = np.minimum(n, machine.node)
        size, inside, eager_too = np.broadcast_arrays(size, inside, eager_too)
        found, groups = np.zeros(size.shape), sorted(self.graph_s)
        for low, group in zip([1, *groups], groups, strict=False):
            here = (inside > low) & ((inside <= group) | (group == groups[-1]))
            for table, kind in ((self.graph_s, ~eager_too), (self.eager_s, eager_too)):
                chosen = here & kind
                if chosen.all():
                    found = self._interpolate(table[group], size, machine)
                elif chosen.any():
                    found = np.where(chosen, self._interpolate(table[group], size, machine), found)
        nodes = np.ceil(n / machine.node)
        if not np.any(nodes > 1):
            return np.asarray(found)
        part = size / (nodes * machine.node * machine.far_link)
        return np.asarray(found + np.where(nodes > 1, 2 * (nodes - 1) * (self.far_hop_s + part), 0.0))

    def _interpolate(self, times: tuple[float, ...], size: Floats, machine: Machine) -> Floats:
        x, y = np.log(self.message_bytes), np.log(times)
        made = np.exp(np.interp(np.log(size), x, y)) * np.maximum(1.0, size / self.message_bytes[-1])
        first = min(times)
        return np.asarray(first + (np.maximum(made, first) - first) * self.link / machine.link)


@dataclass(frozen=True)
class Setup:
    """Inputs of a prediction: architecture, formats, layout, machine and its constants.  All broadcast together."""

    sizes: Sizes
    precision: Precision
    layout: Layout
    machine: Machine
    constants: Constants
    all_reduce: AllReduce
    traits: Traits = Traits()
    graph_tokens: Any = GRAPH_TOKENS
    piecewise: Any = 0.0
    """1: also a step that only decodes is several graphs, with attention between them."""
    """Most tokens of a step that is replayed as one CUDA graph."""


# ----------------------------------------------------------------------------------------- experts


def fullest_rank(
    experts: ArrayLike, top_k: ArrayLike, tokens: ArrayLike, groups: ArrayLike, spread: ArrayLike = 0.0
) -> tuple[Floats, Floats]:
    """Expected distinct experts and routed tokens of the fullest of ``groups`` expert-parallel groups, per layer.

    n tokens choose k of E experts each, independently; a group holds m = E / groups of them.  Experts' popularity has
    variance v (``spread``; 0: uniform routing) over its mean squared, as a gamma variable: tokens per expert are
    negative binomial.  The distinct experts of a group have mean m (1 - a) and variance
    m a (1 - a) + m (m - 1) (b - a^2), with a = (1 - v n ln(1 - k/E))^(-1/v) the chance that none chose an expert, at
    most 1 - k/E, for v = 0 (1 - k/E)^n, and b = a^2 ((E-k)(E-k-1) / (E (E-1)))^n / (1 - k/E)^2n that none chose either
    of two.  Its tokens have mean n k / groups and the variance of n hypergeometric draws and of m popularities.  The
    fullest group: mean + z sigma, corrected for skew (Cornish-Fisher, as of a Poisson variable), z the expected largest
    of ``groups`` normal variables (Blom 1958).
    Against simulated routing of 64 to 384 experts: within 9% up to 8 groups (12% with popular experts); with 32, up to
    30% too many for one or two tokens and within 10% from 16 on (tests/unit/test_calibrated.py).  One group: the means.
    """
    e, k, n, g = (np.asarray(v, float) for v in (experts, top_k, tokens, groups))
    v = np.maximum(np.asarray(spread, float), 1e-9)
    uniform = n * np.log1p(-np.minimum(k / e, 1 - 1e-12))
    none = np.minimum(np.exp(-np.log1p(-v * uniform) / v), 1 - np.minimum(n, 1) * k / e)
    mean, routed = e / g * (1.0 - none), n * k / g
    if np.all(g == 1):
        return np.asarray(mean), np.asarray(routed)
    from scipy.special import ndtri  # here: its import takes longer than planning an engine without such groups

    m, others = e / g, np.maximum(e - 1, 1.0)
    pair = np.log(np.maximum((e - k) * (e - k - 1) / (e * others), 1e-300))
    neither = none**2 * np.exp(np.minimum(n * pair - 2 * uniform, 0.0))
    variance = np.maximum(m * none * (1 - none) + m * (m - 1) * (neither - none**2), 0.0)
    uneven = (routed * (e - k) / others + v * routed * n * k / e) * (1 - 1 / g)
    z = np.where(g > 1, ndtri((np.maximum(g, 1) - 0.375) / (g + 0.25)), 0.0)
    skew = (z * z - 1) / 6 * (g > 1)
    ratio = np.where(mean > 0, variance / np.maximum(mean, 1e-300), 0.0)
    most = np.minimum(m, n * np.minimum(k, m))
    distinct = np.clip(mean + z * np.sqrt(variance) + skew * ratio, np.minimum(1.0, most), most)
    return np.asarray(distinct), np.asarray(np.minimum(routed + z * np.sqrt(uneven) + skew, n * np.minimum(k, m)))


# ------------------------------------------------------------------------------------------- steps


def _matrices(
    setup: Setup,
    own: Floats,
    tokens: Floats,
    outputs: Floats,
    top_k: Floats,
    distinct: Any = None,
) -> Floats:
    """Time of all matrices of a step, s: ``own`` tokens of a replica, ``tokens`` of all, ``outputs`` sampled ones."""
    s, p, layout, machine, c = setup.sizes, setup.precision, setup.layout, setup.machine, setup.constants
    group = layout.tp * layout.kvp
    per_byte = c.dense_bytes / machine.bandwidth

    more = 2 * (s.layers - s.sparse + s.sparse * (s.shared > 0)) + 3 * s.layers * setup.traits.latent
    low = c.low_matrix_s * (p.attention_peak > p.plain_peak) + c.scaled_matrix_s * p.scaled * (own > setup.graph_tokens)

    def dense(weights: Floats, width: Floats, peak: Floats, count: Floats) -> Floats:
        share = np.where(peak > p.plain_peak, c.dense_share_low, c.dense_share)
        return np.asarray(weights * np.hypot(width * per_byte, 2.0 * count / (share * peak)))

    time = s.layers * dense(memory.attention_per_gpu(s, layout), p.attention, p.attention_peak, own)
    blocks = ((s.layers - s.sparse) * s.dense_ffn + s.sparse * s.shared) / group
    time = time + dense(blocks, p.blocks, p.blocks_peak, own)
    time = time + dense(s.sparse * s.router, p.plain, p.plain_peak, own)
    time = time + dense(s.vocab * s.hidden / group, p.plain, p.plain_peak, outputs)
    time = time + low * (2 * s.layers + more) + c.matrix_s * more
    rate = machine.processors * PROCESSOR_BYTES_PER_S
    time = time + s.layers * own * c.layer_passes * s.hidden * p.plain / rate
    time = time + s.sparse * own * c.moe_token_s
    if np.any(s.sparse > 0):
        spread = c.expert_correlation * (s.experts / top_k - 1)
        fullest, routed = fullest_rank(s.experts, top_k, tokens, layout.ep, spread)
        if distinct is not None:
            expected, _ = fullest_rank(s.experts, top_k, tokens, 1.0, spread)
            fullest = np.where(np.isnan(distinct), fullest, fullest * np.asarray(distinct, float) / expected)
        piece = s.expert * layout.ep / layout.ranks
        packed = (p.experts < 1) & (p.experts_peak <= p.plain_peak)
        share = np.where(p.experts_peak > p.plain_peak, c.expert_share_low, c.expert_share)
        share = np.where(packed, c.expert_share_packed, share)
        tile = np.where(packed, c.tile_tokens_packed, c.tile_tokens)
        loaded = fullest * p.experts * c.expert_bytes / machine.bandwidth
        filled = 2.0 * (routed + fullest * tile / 2) / (share * p.experts_peak)
        moved = c.expert_passes * routed * (2 * s.hidden + piece / s.hidden) * p.plain / rate
        time = time + s.sparse * (piece * np.hypot(loaded, filled) + moved)
        time = time + s.sparse * (c.moe_layer_s + c.deal_layer_s * (layout.ep > 1))
    return np.asarray(time)


def _collectives(setup: Setup, own: Floats, tokens: Floats) -> Floats:
    """Time of the two all-reduces per layer, as in :func:`roofline.collective_s`, and of transfers between stages."""
    s, layout, machine = setup.sizes, setup.layout, setup.machine
    group, ranks = layout.tp * layout.kvp, layout.ranks
    if np.all(layout.gpus == 1):
        return np.zeros(())
    state, reduce = s.hidden * setup.precision.plain, setup.all_reduce
    time = s.layers * reduce.time_s(own * state, group, machine, own > setup.graph_tokens)
    if np.all(layout.dp == 1):
        time = 2.0 * time
    else:
        time = time + s.layers * reduce.time_s(tokens * state, ranks, machine, tokens > setup.graph_tokens)
    if np.any(setup.traits.whole_norms):
        norms = reduce.time_s(4.0 * own, layout.tp, machine, own > setup.graph_tokens)  # one float32 of every token
        time = time + 2.0 * s.layers * norms * setup.traits.whole_norms
    if np.any(layout.pp > 1):  # a transfer to the next stage counts as an all-reduce of two
        pair = np.where(layout.gpus > machine.node, machine.node + 1, 2)
        time = time + (layout.pp - 1) * reduce.time_s(own * state, pair, machine, True)
    return np.asarray(time)


def step_s(
    setup: Setup,
    sequences: ArrayLike,
    context: ArrayLike,
    top_k: ArrayLike | None = None,
    distinct: ArrayLike | None = None,
    new_tokens: ArrayLike = 1,
) -> Floats:
    """Time of a step of a batch that only decodes, s; ``context``: mean tokens before.  NaN: unknown.

    Attention: b L c_kv KV bytes / bandwidth, of windowed layers at most the window; the batch is dealt to replicas.
    With PP stages that many parts of the batch are in flight, each passing all layers.  ``distinct``: distinct experts
    of a layer over all ranks, as measured, instead of the uniform law.  ``new_tokens`` of each sequence, one but where
    drafted tokens are verified; they read its cache once.
    """
    s, layout, c = setup.sizes, setup.layout, setup.constants
    each = np.asarray(new_tokens, float)
    all_ = np.asarray(sequences, float) / layout.pp
    own = np.maximum(np.ceil(all_ / layout.dp), 1.0)
    tokens = np.maximum(all_, own) * each
    k = s.top_k if top_k is None else np.asarray(top_k, float)
    time = _matrices(setup, own * each, tokens, own * each, k, distinct)
    time = time + own * _decoding_s(setup, context, each) + _collectives(setup, own * each, tokens)
    return np.asarray(time + s.layers * (c.layer_s + setup.piecewise * c.piecewise_layer_s) + c.step_s)


def _decoding_s(setup: Setup, context: ArrayLike, new_tokens: ArrayLike = 1) -> Floats:
    """Time that a decoding sequence adds to a step beside its matrices, s: it reads its cache, or computes with it for
    longer; reads and writes its states; and has its share of the host."""
    s, layout, machine, c = setup.sizes, setup.layout, setup.machine, setup.constants
    x = np.asarray(context, float) + 1
    spanned = (s.layers * s.attends - s.windowed) * x + s.windowed * np.minimum(x, s.window)
    per_byte = np.where(setup.precision.cache < 2, c.cache_bytes_low, c.cache_bytes) / machine.bandwidth
    read = memory.kv_values_per_token(s, layout) * setup.precision.cache * per_byte
    scores = s.decode_ops / (layout.tp * layout.kvp) / (c.attention_share * setup.precision.plain_peak)
    states = s.state * setup.precision.plain + s.state_float32 * DTYPE_BYTES["float32"]
    states = 2 * states / layout.tp * c.cache_bytes / machine.bandwidth
    return np.asarray(spanned * np.maximum(read, scores * np.asarray(new_tokens, float)) + states + c.sequence_s)


def prefill_s(
    setup: Setup,
    sequences: ArrayLike,
    prompt: ArrayLike,
    step_tokens: ArrayLike = 8192,
    top_k: ArrayLike | None = None,
    tiles: ArrayLike = 0.0,
    beside: ArrayLike = 0.0,
    context: ArrayLike = 0.0,
) -> Floats:
    """Time to read ``sequences`` prompts of ``prompt`` tokens in steps of at most ``step_tokens``, s.

    As a step with more tokens; attention's operations instead of its bytes: a token attends to half the prompt on
    average, in windowed layers to at most the window.  Stages of a pipeline work on one chunk each:
    T (1 + (m - 1) / PP) for m chunks of time T.  ``tiles`` of images of each prompt pass the vision part before, at
    what dense matrices reach.  ``beside``: sequences that decode in the same steps, at mean ``context``.
    """
    s, layout, c = setup.sizes, setup.layout, setup.constants
    tokens_each, seen = np.asarray(prompt, float), s.window
    others = np.asarray(beside, float) / layout.dp
    own_sequences = np.ceil(np.asarray(sequences, float) / layout.dp)
    total = own_sequences * tokens_each
    chunks = np.maximum(np.ceil(total / np.asarray(step_tokens, float)), 1.0)
    read = total / chunks
    own = read + others
    tokens = np.asarray(sequences, float) * tokens_each / chunks + others * layout.dp
    k = s.top_k if top_k is None else np.asarray(top_k, float)
    half = tokens_each / 2
    near = np.minimum(seen, tokens_each)  # mean of min(position, window): w - w^2 / 2 S
    near = near - near * near / (2 * np.maximum(tokens_each, 1))
    spanned = (s.layers * s.attends - s.windowed) * half + s.windowed * near
    scores = read * spanned * s.prefill_ops / (layout.tp * layout.kvp)
    time = _matrices(setup, own, tokens, own_sequences / chunks + others, k)
    time = time + scores / (c.attention_share * setup.precision.plain_peak)
    time = time + c.prefill_reduces * _collectives(setup, own, tokens)
    time = time + others * _decoding_s(setup, context)
    time = time + s.layers * np.where(own > setup.graph_tokens, c.prefill_layer_s, c.layer_s) + c.step_s
    return np.asarray(time * (1.0 + (chunks - 1.0) / layout.pp) + _tower_s(setup, sequences, tiles))


def _tower_s(setup: Setup, sequences: ArrayLike, tiles: ArrayLike) -> Floats:
    if not np.any(np.asarray(tiles, float) > 0):
        return np.zeros(())
    p, c, machine = setup.precision, setup.constants, setup.machine
    slower = replace(machine, plain_peak=p.plain_peak * c.dense_share, bandwidth=machine.bandwidth / c.dense_bytes)
    formats = Formats(packed=p.blocks, plain=p.plain, cache=p.cache)
    return roofline.tower_s(setup.sizes, formats, setup.layout, slower, sequences, tiles)


# ------------------------------------------------------------------------------------ cells, serving


@dataclass(frozen=True)
class Times:
    """Predicted times of cells, s."""

    ttft_s: Floats
    """Static: until the whole batch has its first token.  Serving: mean over requests."""
    tpot_s: Floats
    """Mean time between two tokens of a request."""
    e2e_s: Floats


def kv_capacity_tokens(setup: Setup, memory_bytes: ArrayLike, fraction: ArrayLike = 0.9) -> Floats:
    """Tokens of full context that the KV caches of all replicas hold beside weights and reserve; NaN: unknown."""
    s, p, layout = setup.sizes, setup.precision, setup.layout
    group = layout.tp * layout.kvp
    weights = s.layers * memory.attention_per_gpu(s, layout) * p.attention
    weights = weights + ((s.layers - s.sparse) * s.dense_ffn + s.sparse * s.shared) / group * p.blocks
    weights = weights + s.sparse * s.experts * s.expert / layout.ranks * p.experts
    weights = weights / layout.pp + (2 - s.tied) * s.vocab * s.hidden / group * p.plain
    growing = s.layers * s.attends - s.windowed + s.kept
    per_token = growing * memory.cache_bytes_per_token(s, layout, p.cache) / layout.pp
    left = np.asarray(memory_bytes, float) * fraction - weights - memory.RESERVE_BYTES
    return np.asarray(layout.dp * np.maximum(left, 0.0) / per_token)


@dataclass(frozen=True)
class Speculation:
    """Speculative decoding with a draft model on the same GPUs."""

    draft: Setup
    tokens: Any
    """Drafted per step; 0: none."""
    acceptance: Any
    """Share of the drafted tokens that are accepted, as measured: nothing here predicts it."""


def token_s(
    setup: Setup, sequences: ArrayLike, context: ArrayLike, speculation: Speculation | None = None,
    top_k: ArrayLike | None = None, distinct: ArrayLike | None = None,
) -> Floats:  # fmt: skip
    """Time between two tokens of a batch that only decodes, s; see :func:`step_s`.

    With n drafted tokens of which a share a is accepted: (step that verifies n + 1 tokens + n steps of the draft) /
    (1 + a n).
    """
    if speculation is None:
        return step_s(setup, sequences, context, top_k, distinct)
    n = np.asarray(speculation.tokens, float)
    step = step_s(setup, sequences, context, top_k, distinct, 1 + n)
    step = step + n * step_s(speculation.draft, sequences, context)
    return np.asarray(step / (1 + np.asarray(speculation.acceptance, float) * n))


def _first_s(
    setup: Setup, sequences: ArrayLike, prompt: ArrayLike, step_tokens: ArrayLike, tiles: ArrayLike,
    speculation: Speculation | None, beside: ArrayLike = 0.0, context: ArrayLike = 0.0,
) -> Floats:  # fmt: skip
    """Time to read prompts, by the draft model, too."""
    time = prefill_s(setup, sequences, prompt, step_tokens, None, tiles, beside, context)
    if speculation is None:
        return time
    drafts = prefill_s(speculation.draft, sequences, prompt, step_tokens)
    return np.asarray(time + np.where(np.asarray(speculation.tokens, float) > 0, drafts, 0.0))


def static(
    setup: Setup, batch: ArrayLike, prompt: ArrayLike, output: ArrayLike, step_tokens: ArrayLike = 8192,
    tiles: ArrayLike = 0.0, speculation: Speculation | None = None,
) -> Times:  # fmt: skip
    """Times of a batch that starts together: prefill, then a step per further token, at the mean context."""
    limits.check(setup.sizes, setup.layout, batch, prompt)
    out = np.asarray(output, float)
    ttft = _first_s(setup, batch, prompt, step_tokens, tiles, speculation)
    tpot = token_s(setup, batch, np.asarray(prompt, float) + out / 2, speculation)
    return Times(ttft, tpot, np.asarray(ttft + np.maximum(out - 1, 0) * tpot))


def serving(
    setup: Setup,
    concurrency: ArrayLike,
    prompt: ArrayLike,
    output: ArrayLike,
    step_tokens: ArrayLike = 8192,
    capacity_tokens: ArrayLike = np.inf,
    tiles: ArrayLike = 0.0,
    speculation: Speculation | None = None,
) -> Times:
    """Times of requests that C clients send one after another (closed loop), means over requests.

    ::

        TPOT = step + (C - 1) / output x (prefill of one request - step)
        TTFT = t_request + (1 - w) x (host + waited x TPOT + prefill of one)
             + w x ((C + 1) / 2 x host + prefill of C at once x (1 + 1 / steps) / 2)

    with host = input x t_token.  The others' prefills run between the tokens; a step with a prefill gives the others
    their token, and reads their caches.  A new request finds some steps already scheduled.  A share w of the requests
    start together when the run begins: the host reads their prompts one after another, and the mean request waits for
    half of the steps of all prefills, and half a step.
    A KV cache of ``capacity_tokens`` runs fewer requests at once; the others wait for one to end.
    """
    limits.check(setup.sizes, setup.layout, concurrency, prompt)
    asked, p, out = (np.asarray(v, float) for v in (concurrency, prompt, output))
    layout, c = setup.layout, setup.constants
    most = np.maximum(np.asarray(capacity_tokens, float) / (p + out / 2), 1.0)
    running = np.minimum(asked, np.where(np.isnan(most), np.inf, most))
    step = token_s(setup, running, p + out / 2, speculation)
    others = np.maximum(running / layout.dp - 1, 0.0)
    one = _first_s(setup, 1.0, p, step_tokens, tiles, speculation, others * layout.dp, p + out / 2)
    tpot = step + others / out * np.maximum(one - step, 0.0) / layout.pp
    opening = _first_s(setup, running, p, step_tokens, tiles, speculation)
    steps = np.maximum(running / layout.dp * p / np.asarray(step_tokens, float), 1.0)
    host = p * c.prompt_token_s
    steady = host + c.waited_steps * tpot + one
    first = (asked + 1) / 2 * host + np.maximum(opening * (1 + 1 / steps) / 2, one)
    ttft = c.request_s + (1 - c.opening_share) * steady + c.opening_share * first
    ttft = ttft + (asked / running - 1.0) * (ttft + (out - 1) * tpot)
    return Times(np.asarray(ttft), np.asarray(tpot), np.asarray(ttft + np.maximum(out - 1, 0) * tpot))
