"""Parameters of an architecture, by component, in total and per token.

Counting convention: every matrix, every norm weight, the biases that the registry names.  *Active* parameters are
those one token's forward pass reads, with both embedding matrices and the vision tower counted in full, as Mistral,
Qwen, Microsoft and OLMoE publish them; DeepSeek, Meta and Molmo leave the input embedding out, of which a token reads
one row.  Neglected: other biases (Phi-3.5-MoE: 1 in 100,000), relative position tables, the router's correction biases
(DeepSeek-V3, GLM-4.5, MiniMax-M2, ERNIE: one per expert), modules for multi-token prediction.  The totals of sixteen
families equal those of transformers (tests/workflow/test_checkpoints.py, tests/unit/test_families.py).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from moebench.architectures.hf_config import reshaped
from moebench.config import Architecture, Attention, Recurrent
from moebench.cost import vision


@dataclass(frozen=True)
class Parameters:
    """Parameters by component, of a whole model or of a part of it."""

    embeddings: int = 0
    """Input and output embedding matrices; one if they are tied."""
    attention: int = 0
    """Of recurrent layers, what they have in its place."""
    router: int = 0
    routed_experts: int = 0
    shared_experts: int = 0
    dense_ffn: int = 0
    norms: int = 0
    vision: int = 0

    @property
    def total(self) -> int:
        """Sum of all components."""
        return sum(getattr(self, field.name) for field in fields(self))


Kind = Literal["moe", "dense", "recurrent", "outside"]


@dataclass(frozen=True)
class Layers:
    """Layers that are alike, or what stands outside the layers (embeddings, last norm, vision) as one of its kind."""

    kind: Kind
    count: int
    total: Parameters
    """Parameters of one layer."""
    active: Parameters
    """Parameters of one layer that a token reads."""


def reshape(
    architecture: Architecture, experts: int | None = None, moe_ffn_size: int | None = None, top_k: int | None = None
) -> Architecture:
    """The architecture with other experts (``hf_config.reshaped``), validated."""
    return Architecture.model_validate(reshaped(architecture.as_dict(), experts, moe_ffn_size, top_k))


def moe_layers(architecture: Architecture) -> int:
    """Number of layers with routed experts: every ``experts.every``-th of those that are not dense."""
    if architecture.experts is None:
        return 0
    return (architecture.layers - architecture.dense_layers) // architecture.experts.every


def ffn(hidden_size: int, width: int, gated: bool = True) -> int:
    """Parameters of a feed-forward block: 3 d f with SwiGLU (gate, up, down), 2 d f without."""
    return (3 if gated else 2) * hidden_size * width


def expert(architecture: Architecture) -> int:
    """Parameters of one routed expert, 3 d f (2 d f where it is not gated), and its biases; 0 for a dense model."""
    block, hidden = architecture.experts, architecture.hidden_size
    if block is None:
        return 0
    biases = (1 + block.gated) * block.ffn_size + hidden if block.bias else 0
    return ffn(hidden, block.ffn_size, block.gated) + biases


def router(architecture: Architecture) -> int:
    """Parameters of one router, d E, and its biases; 0 for a dense model."""
    block = architecture.experts
    return block.count * (architecture.hidden_size + block.bias) if block else 0


def attention_layer(attention: Attention, hidden_size: int) -> int:
    """Parameters of one layer's attention projections, d = hidden size, n = heads.

    MHA and GQA: Q and O of n x head_dim, K and V of kv_heads x head_dim, each times d; their biases; a gate as Q; a
    sink per head.  MLA (DeepSeek-V2, arXiv 2405.04434, section 2.1): Q of n (nope + rope), from d or through
    q_lora_rank; d (kv_lora + rope) down; kv_lora n (nope + v) up; O of n v d; an indexer, :func:`indexer`.
    """
    heads = attention.heads
    if attention.kind != "mla":
        q, kv = heads * attention.head_dim, attention.kv_heads * attention.head_dim
        biases = (q + 2 * kv if attention.bias else 0) + (hidden_size if attention.output_bias else 0)
        gate = hidden_size * q if attention.output_gate else 0
        return 2 * hidden_size * (q + kv) + biases + gate + (heads if attention.sinks else 0)
    q = heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    rank = attention.q_lora_rank
    queries = rank * (hidden_size + q) if rank else hidden_size * q
    down = hidden_size * (attention.kv_lora_rank + attention.qk_rope_head_dim)
    up = attention.kv_lora_rank * heads * (attention.qk_nope_head_dim + attention.head_dim)
    return queries + down + up + heads * attention.head_dim * hidden_size + indexer(attention, hidden_size)


def indexer(attention: Attention, hidden_size: int) -> int:
    """Parameters of one layer's indexer (DeepSeek-V3.2, arXiv 2512.02556), with m heads of width w: queries q_lora m w,
    one key d w with a norm 2 w, weights of heads d m."""
    width = attention.index_heads * attention.index_head_dim
    return (
        attention.q_lora_rank * width
        + hidden_size * (attention.index_head_dim + attention.index_heads)
        + (2 * attention.index_head_dim)
    )


def recurrent_layer(recurrent: Recurrent | None, hidden_size: int) -> int:
    """Parameters of what one recurrent layer has instead of attention, K and V the widths of all keys and values.

    In: d (2 K + 2 V + gates), a gate per value head, of Gated DeltaNet two; a convolution of its width over 2 K + V;
    out: V d.  Gated DeltaNet: decay and its bias per head, a norm over one head.  Mamba-2: also D per head, a bias per
    channel of the convolution, and a norm over V.  Reference: transformers' Qwen3-Next and GraniteMoeHybrid, whose
    counts these are (tests/workflow/test_checkpoints.py).
    """
    if recurrent is None:
        return 0
    keys = recurrent.key_heads * recurrent.key_head_dim
    values = recurrent.value_heads * recurrent.value_head_dim
    channels = 2 * keys + values
    mamba = recurrent.kind == "mamba2"
    gates = recurrent.value_heads * (1 if mamba else 2)
    small = (
        3 * recurrent.value_heads + channels + values
        if mamba
        else 2 * recurrent.value_heads + (recurrent.value_head_dim)
    )
    matrices = hidden_size * (2 * keys + 2 * values + gates) + values * hidden_size
    return matrices + channels * recurrent.conv_width + small


def attention_norms(attention: Attention) -> int:
    """Parameters of the norms inside one layer's attention: MLA's on its latents, or those of queries and keys."""
    if attention.kind == "mla":
        return attention.kv_lora_rank + attention.q_lora_rank
    if attention.qk_norm == "head":
        return 2 * attention.head_dim
    if attention.qk_norm == "full":
        return (attention.heads + attention.kv_heads) * attention.head_dim
    return 0


def input_embedding(architecture: Architecture) -> int:
    """Parameters of an input embedding with a matrix of its own, V d, of which a token reads one row; 0 if tied."""
    return 0 if architecture.tied_embeddings else architecture.vocab_size * architecture.hidden_size


def _parts(architecture: Architecture, experts_per_layer: int) -> dict[Kind, tuple[int, Parameters]]:
    """How many layers of each kind there are, and the parameters of one."""
    hidden, block, sparse = architecture.hidden_size, architecture.experts, moe_layers(architecture)
    recurrent = architecture.recurrent.layers if architecture.recurrent else 0
    attention = attention_layer(architecture.attention, hidden)
    norms = 2 * hidden + attention_norms(architecture.attention)
    shared = ffn(hidden, block.shared_ffn_size) + hidden * block.shared_gate if block and block.shared_ffn_size else 0
    moe = Parameters(
        attention=attention,
        router=router(architecture),
        routed_experts=experts_per_layer * expert(architecture),
        shared_experts=shared,
        norms=norms,
    )
    dense = Parameters(attention=attention, dense_ffn=ffn(hidden, architecture.dense_ffn_size), norms=norms)
    outside = Parameters(
        embeddings=architecture.vocab_size * hidden * (1 if architecture.tied_embeddings else 2),
        norms=hidden,
        vision=vision.parameters(architecture),
    )
    state = replace(
        moe if block else dense, attention=recurrent_layer(architecture.recurrent, hidden), norms=2 * hidden
    )
    return {
        "moe": (sparse - recurrent * bool(block), moe),
        "dense": (architecture.layers - sparse - recurrent * (not block), dense),
        "recurrent": (recurrent, state),
        "outside": (1, outside),
    }


def _whole(parts: dict[Kind, tuple[int, Parameters]]) -> Parameters:
    return Parameters(
        **{f.name: sum(count * getattr(one, f.name) for count, one in parts.values()) for f in fields(Parameters)}
    )


def _read(architecture: Architecture, top_k: int | None) -> int:
    """Routed experts that a token reads in a layer."""
    return (top_k or architecture.experts.top_k) if architecture.experts else 0


def _stored(architecture: Architecture) -> int:
    return architecture.experts.count if architecture.experts else 0


def total_parameters(architecture: Architecture) -> Parameters:
    """All parameters: what has to be stored."""
    return _whole(_parts(architecture, _stored(architecture)))


def active_parameters(architecture: Architecture, top_k: int | None = None) -> Parameters:
    """Parameters one token reads, with ``top_k`` routed experts per layer (default: as trained)."""
    return _whole(_parts(architecture, _read(architecture, top_k)))


def by_layer(architecture: Architecture, top_k: int | None = None) -> list[Layers]:
    """The same per layer, for each kind of layer there is; times their counts, they add up to the whole model."""
    total = _parts(architecture, _stored(architecture))
    active = _parts(architecture, _read(architecture, top_k))
    return [Layers(kind, count, one, active[kind][1]) for kind, (count, one) in total.items() if count]
