"""Roofline time of a cell: the least time its arithmetic and its memory traffic allow.

Step time = max(arithmetic / peak, bytes read / bandwidth) + collectives: no efficiencies, no kernel launches, no
scheduler, no imbalance between ranks.

Weights are read once per step however many tokens use them, so a step reads the experts that at least one of its tokens
chose.  For B tokens routed independently and uniformly that is E (1 - (1 - k/E)^B) of E; identical prompts all choose
the same k.  Skewed routing reads fewer than that, never fewer than k: with ``routed_tokens=1`` the time of a step is a
strict lower bound, and a measurement below it is an error.  Check: vLLM's fused-MoE kernel times on an H100 (its pull
request 24700) follow 34.0 us + 56.22 us x distinct experts within 3% (tests/unit/test_cost.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moebench.config import Architecture, EngineKnobs, Hardware, WorkloadKnobs
from moebench.cost import memory, params
from moebench.quantize.schemes import SCHEMES

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CellTime:
    """Predicted times of a cell, s."""

    ttft_s: float
    """Until the whole batch has its first token (the paper's protocol: one run with one output token)."""
    itl_s: float
    """Mean time between two tokens of a request (with one output token: until a second would come)."""
    e2e_s: float


def distinct_experts(count: int, top_k: int, tokens: ArrayLike) -> Floats:
    """Expected number of distinct experts of a layer that ``tokens`` tokens choose: E (1 - (1 - k/E)^B).

    Tokens choose independently of each other, ``top_k`` different experts each, all equally likely.
    """
    return count * (1.0 - (1.0 - top_k / count) ** np.asarray(tokens, dtype=np.float64))


def all_reduce_s(message_bytes: ArrayLike, ranks: int, link_bytes_per_s: float) -> Floats:
    """Ring all-reduce of a message: 2 (n-1)/n S / bandwidth, latency neglected (Thakur et al. 2005)."""
    return 2.0 * (ranks - 1) / ranks * np.asarray(message_bytes, dtype=np.float64) / link_bytes_per_s


def _peak(hardware: Hardware, name: str) -> float | None:
    peak = hardware.peak.get(name)
    return peak.flops_per_s if peak else None


def _arithmetic(engine: EngineKnobs) -> str:
    """Data type whose peak the quantized matrices run at; 4-bit weights are widened first."""
    scheme = SCHEMES.get(engine.quantization)
    if scheme is None or scheme.activation_bits is None:
        return engine.dtype
    return "fp8" if scheme.numbers == "float" else f"int{scheme.activation_bits}"


def step_s(
    architecture: Architecture,
    hardware: Hardware,
    engine: EngineKnobs,
    sequences: int,
    new_tokens: float,
    context_tokens: ArrayLike,
    top_k: int | None = None,
    routed_tokens: float | None = None,
) -> Floats | None:
    """Time of one step: ``new_tokens`` tokens each of ``sequences`` sequences, of mean context ``context_tokens``.

    2 operations per weight and token, and those of attention (``attention_ops``).  A token is sampled per sequence,
    so the output matrix counts once per sequence.  ``routed_tokens``: tokens that choose experts independently, if
    fewer than all.  Pipeline stages work one after
    another (one batch in flight), so they do not shorten a step; their transfers are neglected.
    Returns None if a constant of the hardware is unknown.
    """
    dense_peak, packed_peak = _peak(hardware, engine.dtype), _peak(hardware, _arithmetic(engine))
    bandwidth, link = hardware.bandwidth_bytes_per_s, hardware.link_bytes_per_s
    ranks = engine.tp * engine.dp
    if dense_peak is None or packed_peak is None or bandwidth is None or (ranks > 1 and link is None):
        return None
    context = np.asarray(context_tokens, dtype=np.float64)
    layers, sparse, block = architecture.layers, params.moe_layers(architecture), architecture.experts
    own = -(-sequences // engine.dp)  # sequences of the fullest data-parallel replica
    tokens, own_tokens = sequences * new_tokens, own * new_tokens
    fixed = params.active_parameters(architecture)
    always = fixed.total - fixed.embeddings - fixed.routed_experts - fixed.vision
    output = architecture.vocab_size * architecture.hidden_size
    chosen = (top_k or block.top_k) if block else 0
    distinct = float(distinct_experts(block.count, chosen, routed_tokens or tokens)) if block else 0.0
    expert = params.expert(architecture)

    packed, plain = memory.weight_bytes_per_parameter(architecture, engine), memory.DTYPE_BYTES[engine.dtype]
    cache = layers * memory.kv_values_per_token(architecture, engine.mla, engine.tp)
    cache_bytes = cache * memory.DTYPE_BYTES[engine.dtype if engine.kv_cache_dtype == "auto" else engine.kv_cache_dtype]
    read = (always * packed + output * plain) / engine.tp + sparse * distinct * expert * packed / ranks
    memory_s = (read + own * context * cache_bytes) / bandwidth

    attention = layers * attention_ops(architecture, engine.mla and new_tokens == 1) / engine.tp
    matrix_ops = 2.0 * always * own_tokens / engine.tp + 2.0 * sparse * chosen * expert * tokens / ranks
    output_ops = 2.0 * output * own / engine.tp
    compute_s = matrix_ops / packed_peak + (own_tokens * context * attention + output_ops) / dense_peak

    # Two all-reduces per layer of all hidden states; data parallelism gathers and scatters those of all its replicas.
    collective_s = np.zeros(())
    if ranks > 1 and link is not None:
        state = architecture.hidden_size * plain
        collective_s = layers * all_reduce_s(own_tokens * state, engine.tp, link)
        collective_s = collective_s + layers * all_reduce_s(tokens * state, ranks, link)
    return np.asarray(np.maximum(memory_s, compute_s) + collective_s, dtype=np.float64)


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


def cell_time(
    architecture: Architecture, hardware: Hardware, engine: EngineKnobs, work: WorkloadKnobs
) -> CellTime | None:
    """Predicted times of a cell, or None if a constant of the hardware is unknown, or for a cell with images.

    Prefill in chunks of ``max_num_batched_tokens`` over the whole batch, each token attending to half the prompt on
    average; then a decode step per further token.  Neglected: speculation, waiting when the KV cache cannot
    hold the batch.
    """
    if work.images:  # the vision tower's time and the engine's preparation of images are not modelled
        return None
    tokens = work.batch * work.input_tokens
    identical = work.prompts == "identical"
    chunks = -(-tokens // engine.max_num_batched_tokens)
    chunk = work.input_tokens / chunks
    prefill = step_s(
        architecture,
        hardware,
        engine,
        work.batch,
        chunk,
        work.input_tokens / 2,
        work.top_k,
        chunk if identical else None,
    )
    contexts = work.input_tokens + np.arange(1, max(work.output_tokens, 2), dtype=np.float64)
    decode = step_s(architecture, hardware, engine, work.batch, 1, contexts, work.top_k, 1 if identical else None)
    if prefill is None or decode is None:
        return None
    ttft = float(chunks * prefill)
    itl = float(decode.mean())
    return CellTime(ttft_s=ttft, itl_s=itl, e2e_s=ttft + (work.output_tokens - 1) * itl)
