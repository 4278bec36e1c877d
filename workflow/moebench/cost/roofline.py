"""Roofline time of steps and cells: the least time their arithmetic and their memory traffic allow.

Step time = max(operations / peak, bytes read / bandwidth) + collectives (+ overheads where calibrated): no kernel
launches, no scheduler, no imbalance between ranks.  Everything is numpy arrays that broadcast: a cell or a million.

Weights are read once per step however many tokens use them, so a step reads the experts that at least one of its tokens
chose.  For B tokens routed independently and uniformly that is E (1 - (1 - k/E)^B) of E; identical prompts all choose
the same k; what an engine recorded can be given instead.  Skewed routing reads fewer than the uniform law says, never
fewer than k: with ``routed_tokens=1`` the time of a step is a strict lower bound, and a measurement below it is an
error.  Check: vLLM's fused-MoE kernel times on an H100 (its pull request 24700) are met within 3% by the calibration
constants of ``config/hardware/h100-sxm5-80gb.yaml`` (tests/unit/test_cost.py).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from moebench.config import Architecture, EngineKnobs, Hardware, WorkloadKnobs
from moebench.cost import collectives, limits, memory
from moebench.cost.inputs import DTYPE_BYTES, Floats, Formats, Layout, Machine, Sizes
from moebench.cost.vision import image_tokens, tiles

CHUNK = 16_384
"""Cells computed at a time: their arrays stay in the processor's cache."""


@dataclass(frozen=True)
class CellTime:
    """Predicted times of a cell, s."""

    ttft_s: float
    """Until the whole batch has its first token (the paper's protocol: one run with one output token)."""
    itl_s: float
    """Mean time between two tokens of a request (with one output token: until a second would come)."""
    e2e_s: float


# ----------------------------------------------------------------------------------- distinct experts


def distinct_experts(count: ArrayLike, top_k: ArrayLike, tokens: ArrayLike) -> Floats:
    """Expected number of distinct experts of a layer that ``tokens`` tokens choose: E (1 - (1 - k/E)^B).

    Tokens choose independently of each other, ``top_k`` different experts each, all equally likely.
    """
    experts = np.asarray(count, dtype=np.float64)
    missed = 1.0 - np.asarray(top_k, dtype=np.float64) / experts
    return np.asarray(experts * (1.0 - np.power(missed, np.asarray(tokens, dtype=np.float64))))


def distinct_from_shares(shares: ArrayLike, tokens: ArrayLike) -> Floats:
    """The same for measured activations: sum over experts of 1 - (1 - p)^B.

    ``shares``: (..., E), p = the share of tokens that chose each expert (they add up to k).  ``tokens`` broadcasts with
    the leading axes.  Equal shares k/E give :func:`distinct_experts`; any others fewer.
    """
    missed = np.power(1.0 - np.asarray(shares, float), np.asarray(tokens, float)[..., np.newaxis])
    return np.asarray((1.0 - missed).sum(axis=-1))


# ---------------------------------------------------------------------------------------------- steps


@dataclass(frozen=True)
class Step:
    """Times of a step that are linear in the mean context x of its sequences: memory m + m' x, arithmetic c + c' x.

    Windowed layers attend to min(x, window): they add m'' and c'' times that.
    """

    memory_s: Floats
    memory_s_per_token: Floats
    compute_s: Floats
    compute_s_per_token: Floats
    collective_s: Floats
    overhead_s: Floats
    window: Any = np.inf
    near_memory_s: Any = 0.0
    near_compute_s: Any = 0.0

    def memory_at(self, context: ArrayLike, near: ArrayLike | None = None) -> Floats:
        """Time of the bytes alone; ``near``: mean of min(x, window), where x is itself a mean."""
        x = np.asarray(context, dtype=np.float64)
        near = np.minimum(x, self.window) if near is None else near
        return np.asarray(self.memory_s + self.memory_s_per_token * x + self.near_memory_s * near)

    def compute_at(self, context: ArrayLike, near: ArrayLike | None = None) -> Floats:
        """Time of the arithmetic alone."""
        x = np.asarray(context, dtype=np.float64)
        near = np.minimum(x, self.window) if near is None else near
        return np.asarray(self.compute_s + self.compute_s_per_token * x + self.near_compute_s * near)

    def at(self, context: ArrayLike, near: ArrayLike | None = None) -> Floats:
        """Time at a mean context: max(m + m' x, c + c' x) + collectives + overheads."""
        busy = np.maximum(self.memory_at(context, near), self.compute_at(context, near))
        return np.asarray(busy + self.collective_s + self.overhead_s)

    def mean(self, first: ArrayLike, count: ArrayLike) -> Floats:
        """Mean time at contexts ``first``, ``first + 1``, ... (``count`` of them), exact: within the window and
        beyond it, each linear."""
        x0, n = np.asarray(first, float), np.asarray(count, float)
        within = np.clip(np.floor(self.window) - x0 + 1, 0, n)
        near = replace(
            self,
            memory_s_per_token=self.memory_s_per_token + self.near_memory_s,
            compute_s_per_token=self.compute_s_per_token + self.near_compute_s,
        )
        if np.all(within == n):
            return near._linear_mean(x0, n)
        window = np.where(np.isinf(self.window), 0.0, self.window)
        far = replace(
            self,
            memory_s=self.memory_s + self.near_memory_s * window,
            compute_s=self.compute_s + self.near_compute_s * window,
        )
        low = near._linear_mean(x0, np.maximum(within, 1))
        high = far._linear_mean(x0 + within, np.maximum(n - within, 1))
        return np.asarray((within * low + (n - within) * high) / n)

    def _linear_mean(self, first: Floats, count: Floats) -> Floats:
        """The same of a step without a window.

        The mean of max(m, c) is that of c plus that of the positive part of their difference, which is linear and so
        positive on one side of its root: two arithmetic series.
        """
        x0, n = first, count
        x1 = x0 + n - 1
        a, b = self.memory_s - self.compute_s, self.memory_s_per_token - self.compute_s_per_token
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.where(b == 0, np.where(a > 0, -np.inf, np.inf), -a / b)
        low = np.where(b >= 0, np.maximum(x0, np.floor(root) + 1), x0)
        high = np.where(b >= 0, x1, np.minimum(x1, np.ceil(root) - 1))
        positive = np.maximum(0.0, high - low + 1)
        some = positive > 0
        surplus = positive * (a + b * np.where(some, low + high, 0.0) / 2) / n
        middle = self.compute_s + self.compute_s_per_token * (x0 + x1) / 2
        return np.asarray(middle + np.where(some, surplus, 0.0) + self.collective_s + self.overhead_s)


def step(
    sizes: Sizes,
    formats: Formats,
    layout: Layout,
    machine: Machine,
    sequences: ArrayLike,
    new_tokens: ArrayLike = 1,
    top_k: ArrayLike | None = None,
    distinct: ArrayLike | None = None,
    prefill: bool = False,
    even: bool = False,
) -> Step:
    """A step of ``new_tokens`` tokens each of ``sequences`` sequences, on the fullest rank of each stage; ``even``: on
    the mean one, for sums over all.

    Bytes: all weights that are always used and the output matrix; ``distinct`` experts per layer (default: the uniform
    law), shared by the ranks; the cache of the rank's sequences.  Operations: 2 per weight and token, and those of
    attention, of windowed layers to the window only.  States of recurrent layers are read and written in each step; the
    operations on them, and those of an indexer, are neglected.  A token is sampled per sequence, so the output matrix
    counts once per sequence.  Collectives per layer: all-reduce of the hidden states after attention and after the
    feed-forward block; with data parallelism the latter gathers and scatters those of all replicas; with KV parallelism
    attention's partial results are exchanged first.
    Pipeline stages work one after another (one batch in flight), so they do not shorten a step; their transfers are
    neglected.
    """
    own = np.asarray(sequences, float) / layout.dp
    own = own if even else np.ceil(own)  # sequences of the fullest data-parallel replica
    tokens = np.asarray(np.asarray(sequences, float) * new_tokens)
    own_tokens = np.asarray(own * new_tokens)
    chosen = sizes.top_k if top_k is None else np.asarray(top_k, float)
    touched = distinct_experts(sizes.experts, chosen, tokens) if distinct is None else np.asarray(distinct, float)
    group = layout.tp * layout.kvp
    blocks = (sizes.layers - sizes.sparse) * sizes.dense_ffn + sizes.sparse * sizes.shared
    always = sizes.layers * memory.attention_per_gpu(sizes, layout) + blocks / group
    everywhere = sizes.sparse * sizes.router + sizes.layers * sizes.norms + sizes.hidden
    experts = sizes.sparse * sizes.expert / layout.ranks
    output = sizes.vocab * sizes.hidden / group

    read = (always + experts * touched * formats.expert_ratio) * formats.packed + (everywhere + output) * formats.plain
    cached = memory.kv_values_per_token(sizes, layout) * formats.cache
    attending = sizes.layers * sizes.attends
    cache = own * (attending - sizes.windowed) * cached + own * attending * sizes.index_bytes / layout.kvp
    # A state is read and written; beside the weights read here it counts once per sequence.
    states = sizes.state * formats.plain + sizes.state_float32 * DTYPE_BYTES["float32"]
    states = 2 * own * states / layout.tp * (not prefill)
    matrices = 2.0 * ((always + everywhere) * own_tokens + experts * chosen * tokens)
    scores = sizes.prefill_ops if prefill else sizes.decode_ops
    compute = matrices / machine.packed_peak + 2.0 * output * own / machine.plain_peak
    return Step(
        memory_s=np.asarray((read + states) / machine.bandwidth),
        memory_s_per_token=np.asarray(cache / machine.bandwidth),
        compute_s=np.asarray(compute),
        compute_s_per_token=np.asarray(
            own_tokens * ((attending - sizes.windowed) * scores / group) / machine.plain_peak
        ),
        collective_s=collective_s(sizes, formats, layout, machine, own_tokens, tokens),
        overhead_s=np.asarray(machine.step_s + sizes.sparse * machine.moe_layer_s),
        window=sizes.window,
        near_memory_s=np.asarray(own * sizes.windowed * cached / machine.bandwidth),
        near_compute_s=np.asarray(own_tokens * (sizes.windowed * scores / group) / machine.plain_peak),
    )


def collective_s(
    sizes: Sizes, formats: Formats, layout: Layout, machine: Machine, own_tokens: Floats, tokens: Floats
) -> Floats:
    """Time of a step's collectives, none hidden.  ``own_tokens``: of a replica; ``tokens``: of all."""
    group, ranks = layout.tp * layout.kvp, layout.ranks
    if np.all(ranks == 1):
        return np.zeros(())
    state = sizes.hidden * formats.plain
    near, far = collectives.link_of(machine, group), collectives.link_of(machine, ranks)
    per_layer = collectives.all_reduce_s(own_tokens * state, group, near, machine.hop_s)
    per_layer = per_layer + collectives.all_reduce_s(tokens * state, ranks, far, machine.hop_s)
    if np.any(layout.kvp > 1):
        partial = own_tokens * sizes.head_values / layout.tp * formats.plain
        kv_link = collectives.link_of(machine, group)
        per_layer = per_layer + collectives.all_to_all_s(partial, layout.kvp, kv_link, machine.hop_s)
    return np.asarray(sizes.layers * per_layer)


# ---------------------------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Work:
    """Workloads of cells, each field an array."""

    batch: Any
    input_tokens: Any
    """Those of images among them."""
    output_tokens: Any
    top_k: Any = None
    identical: Any = False
    """All prompts are one: tokens at the same place choose the same experts."""
    step_tokens: Any = 8192
    """Most tokens of a step; longer prefills are cut."""
    tiles: Any = 0.0
    """Tiles of a request's images."""


def times(
    sizes: Sizes, formats: Formats, layout: Layout, machine: Machine, work: Work, distinct: ArrayLike | None = None
) -> tuple[Floats, Floats, Floats]:
    """Times of cells, s: until the whole batch has its first token, mean between tokens, end to end.  NaN: unknown.

    Prefill in chunks of ``step_tokens`` over the whole batch, each token attending to half the prompt on average; then
    a decode step per further token, with growing context.  ``distinct``: distinct experts of a layer in a decode step,
    as measured.  Images pass the vision part before the chunk that they are read in.  Neglected: their preparation on
    the host, speculation, waiting when the KV cache cannot hold the batch.
    """
    batch, prompt, out = (np.asarray(v, dtype=np.float64) for v in (work.batch, work.input_tokens, work.output_tokens))
    top_k = sizes.top_k if work.top_k is None else np.asarray(work.top_k, float)
    chunks = np.ceil(batch * prompt / work.step_tokens)
    chunk = prompt / chunks
    alike = np.asarray(work.identical, dtype=bool)
    touched = distinct_experts(sizes.experts, top_k, np.where(alike, chunk, batch * chunk))
    first = step(sizes, formats, layout, machine, batch, chunk, top_k, touched, prefill=True)
    if distinct is None:
        distinct = distinct_experts(sizes.experts, top_k, np.where(alike, 1.0, batch))
    decode = step(sizes, formats, layout, machine, batch, 1, top_k, distinct)
    ttft = chunks * (
        first.at(prompt / 2, near_tokens(sizes, prompt))
        + tower_s(sizes, formats, layout, machine, batch, work.tiles / chunks)
    )
    itl = decode.mean(prompt + 1, np.maximum(out - 1, 1))
    return ttft, itl, ttft + (out - 1) * itl


def near_tokens(sizes: Sizes, prompt: ArrayLike) -> Floats:
    """Tokens that the tokens of a prompt attend to in windowed layers, mean: S / 2 within the window w, then
    w - w^2 / 2 S."""
    length = np.asarray(prompt, dtype=np.float64)
    seen = np.minimum(sizes.window, length)
    return np.asarray(np.where(seen == length, length / 2, seen - seen * seen / (2 * np.maximum(length, 1))))


def tower_s(
    sizes: Sizes, formats: Formats, layout: Layout, machine: Machine, sequences: ArrayLike, tiles: ArrayLike
) -> Floats:
    """Time of the vision part on ``tiles`` tiles of each of ``sequences`` sequences: max(operations, weights once).

    Every rank of a replica computes all of its replica's tiles (vLLM's default), so only data parallelism helps.
    """
    own = np.ceil(np.asarray(sequences, float) / layout.dp) * np.asarray(tiles, float)
    weights = sizes.tower * formats.plain * (own > 0)
    return np.asarray(np.maximum(own * sizes.tile_ops / machine.plain_peak, weights / machine.bandwidth))


def times_of_many(
    sizes: Sizes, formats: Formats, layout: Layout, machine: Machine, work: Work, threads: int = 2
) -> tuple[Floats, Floats, Floats]:
    """:func:`times` of very many cells: every field is one number or has the cells along its only axis.

    Computed in chunks that stay in the processor's cache, by a few threads: several times faster than at once.
    """
    parts = (sizes, formats, layout, machine, work)
    count = max(np.size(getattr(part, f.name)) for part in parts for f in fields(part))
    out = np.empty((3, count))

    def chunk(start: int) -> None:
        where = slice(start, start + CHUNK)
        sizes, formats, layout, machine, work = (_slice(part, where) for part in parts)
        out[:, where] = times(sizes, formats, layout, machine, work)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(chunk, range(0, count, CHUNK)))
    return out[0], out[1], out[2]


def _slice(part: Any, where: slice) -> Any:
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return replace(part, **{name: v[where] for name, v in values.items() if np.ndim(v)})


def step_s(
    architecture: Architecture,
    hardware: Hardware,
    engine: EngineKnobs,
    sequences: int,
    new_tokens: float,
    context_tokens: ArrayLike,
    top_k: int | None = None,
    routed_tokens: float | None = None,
    calibrated: bool = False,
) -> Floats | None:
    """Time of one step of an engine configuration, of mean context ``context_tokens``; see :func:`step`.

    ``routed_tokens``: tokens that choose experts independently, if fewer than all.  ``calibrated``: with the hardware
    file's calibration constants instead of the ideal ones.  Returns None if a constant of the hardware is unknown.
    Raises UserError for what no engine runs (:mod:`limits`).
    """
    sizes = Sizes.of(architecture, engine.mla)
    limits.check(sizes, Layout.of(engine), sequences, context_tokens, top_k)
    tokens = sequences * new_tokens if routed_tokens is None else routed_tokens
    made = step(
        sizes,
        Formats.of(architecture, engine),
        Layout.of(engine),
        Machine.of(hardware, engine, calibrated),
        sequences,
        new_tokens,
        top_k,
        distinct_experts(sizes.experts, top_k or sizes.top_k, tokens),
        prefill=new_tokens != 1,
    ).at(context_tokens)
    return None if np.isnan(made).any() else made


def cell_time(
    architecture: Architecture,
    hardware: Hardware,
    engine: EngineKnobs,
    work: WorkloadKnobs,
    distinct: float | None = None,
    calibrated: bool = False,
) -> CellTime | None:
    """Predicted times of a cell, see :func:`times`; None if a constant of the hardware or the images are unknown."""
    pictures = tiles(architecture, work.images, work.image_size)
    if pictures is None:
        return None
    sizes = Sizes.of(architecture, engine.mla)
    limits.check(sizes, Layout.of(engine), work.batch, work.input_tokens, work.top_k)
    machine = Machine.of(hardware, engine, calibrated)
    asked = Work(
        work.batch,
        work.input_tokens + (image_tokens(architecture, work.images, work.image_size) or 0),
        work.output_tokens,
        work.top_k,
        work.prompts == "identical",
        engine.max_num_batched_tokens,
        pictures,
    )
    ttft, itl, e2e = (
        float(v) for v in times(sizes, Formats.of(architecture, engine), Layout.of(engine), machine, asked, distinct)
    )
    return None if np.isnan(e2e) else CellTime(ttft, itl, e2e)
