"""The modules that AWQ may rescale in a decoder, layer by layer (arXiv 2306.00978, section 3.2).

A norm's output is divided by a scale per channel, and the weights of every layer that reads it are multiplied by the
same scale. llm-compressor 0.14's own mappings omit readers: those for Mixtral, PhiMoE, OLMoE and DeepSeek-V2 omit the
router, which then sends tokens to other experts, and the one for Qwen2-MoE omits the shared expert and its gate.  These
mappings are complete; routers and gates are rescaled, not rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

READERS = ("gate", "router", "shared_expert_gate")
"""What reads a layer's hidden states beside its experts, by name within the MoE block; only those that are there."""


def mappings(modules: Iterable[str]) -> list[tuple[str, list[str]]]:
    """(divided module, multiplied modules) for each pair in a decoder, as patterns of full module names.

    ``modules`` are the names of all modules of the model, experts one by one.
    """
    names = set(modules)
    layers = sorted({m.group() for n in names if (m := re.match(r".*?\blayers\.\d+(?=\.)", n))}, key=_number)
    found = []
    for layer in layers:
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        latent = f"{attention}.kv_a_proj_with_mqa" in names
        reads = "(q_proj|q_a_proj|kv_a_proj_with_mqa)" if latent else "[qkv]_proj"
        found.append((f"{layer}.input_layernorm", [_pattern(attention, reads)]))
        if latent:
            found += [
                (f"{attention}.{rank}_a_layernorm", [_pattern(attention, f"{rank}_b_proj")])
                for rank in ("q", "kv")
                if f"{attention}.{rank}_a_layernorm" in names
            ]
        else:
            found.append((f"{attention}.v_proj", [_pattern(attention, "o_proj")]))
        readers = [_pattern(mlp, name) for name in READERS if f"{mlp}.{name}" in names]
        found.append((f"{layer}.post_attention_layernorm", [*readers, _pattern(mlp, r"(.*\.)?(gate|up)_proj")]))
    pairs = [(f"re:^{re.escape(divided)}$", multiplied) for divided, multiplied in found]
    return [*pairs, (r"re:.*\.up_proj$", [r"re:.*\.down_proj$"])]  # of every expert and every dense block


def _number(layer: str) -> int:
    return int(layer.rpartition(".")[2])


def _pattern(prefix: str, name: str) -> str:
    return rf"re:^{re.escape(prefix)}\.{name}$"
