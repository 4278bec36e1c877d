"""Unfused experts for vLLM: a loop with one pair of matrix products per active expert.

Only the experts kernel is swapped; router, attention and scheduler stay the engine's.  So fused and unfused differ only
in the fusion. vLLM has no switch for this: all its kernels are fused (docs/facts.md).  The loop reads back the number
of tokens per expert from the device, so a CUDA graph cannot capture it; compare it with the fused kernel only in eager
mode.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SWITCH = "MOEBENCH_EXPERT_KERNEL"
"""Environment variable that turns the loop on (``unfused``): worker processes inherit it."""


def loop(
    output: torch.Tensor,
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    expert_map: torch.Tensor | None,
) -> None:
    """Gated experts, one after the other: output = sum over the token's experts of weight x W2 (silu(G x) * U x).

    Shapes: hidden states and output [tokens, hidden], w1 [experts, 2 x width, hidden] (gate above up),
    w2 [experts, hidden, width], weights and ids [tokens, k].  ``expert_map`` gives the local index of each expert, -1
    for those of other ranks.  Sums in float32, as the fused kernels do.
    """
    import torch
    import torch.nn.functional as F

    ids = topk_ids if expert_map is None else expert_map[topk_ids.long()]
    total = torch.zeros(output.shape, dtype=torch.float32, device=output.device)
    for expert in ids.unique().tolist():
        if expert < 0:
            continue
        token, slot = torch.where(ids == expert)
        gate, up = F.linear(hidden_states[token], w1[expert]).chunk(2, dim=-1)
        made = F.linear(F.silu(gate) * up, w2[expert])
        total.index_add_(0, token, made.float() * topk_weights[token, slot, None].float())
    output.copy_(total)


@functools.cache
def unfused(base: type) -> type:
    """A subclass of a vLLM experts kernel that loops over experts.  The same subclass for the same base."""
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation

    class LoopExperts(base):
        """See the module."""

        def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
            """Keep the plain layout [experts, out, in]: no packing for a fused kernel."""
            self._use_zentorch = False  # asked for by the CPU kernel's forward path

        def apply(
            self,
            output: torch.Tensor,
            hidden_states: torch.Tensor,
            w1: torch.Tensor,
            w2: torch.Tensor,
            topk_weights: torch.Tensor,
            topk_ids: torch.Tensor,
            activation: Any,
            global_num_experts: int,
            expert_map: torch.Tensor | None,
            *rest: Any,
            **more: Any,
        ) -> None:
            """Write the experts' output.  Raises NotImplementedError for an activation other than SwiGLU, and for
            weights of the router on an expert's input (Llama 4).
            """
            if more.get("apply_router_weight_on_input", rest[5] if len(rest) > 5 else False):
                raise NotImplementedError("unfused experts with the router's weight on their input are not supported")
            if activation != MoEActivation.SILU:
                raise NotImplementedError(f"unfused experts with activation {activation} are not supported")
            loop(output, hidden_states, w1, w2, topk_weights, topk_ids, expert_map)

    LoopExperts.__name__ = f"Unfused{base.__name__}"
    return LoopExperts


def install() -> None:
    """Make vLLM choose the unfused subclass of the kernel that it would use, while the switch is set.  Idempotent.

    Only for kernels with the plain weight layout: others (FlashInfer's, AMD's) swap gate and up or pack them after
    loading, outside the class, and the loop would compute something else. vLLM then skips those kernels.
    """
    from vllm.model_executor.layers.fused_moe.oracle import unquantized

    plain = (unquantized.UnquantizedMoeBackend.TRITON, unquantized.UnquantizedMoeBackend.CPU)

    choose = unquantized.backend_to_kernel_cls
    if getattr(choose, "moebench", False):
        return

    @functools.wraps(choose)
    def chosen(backend: Any) -> list[type]:
        kernels: list[type] = choose(backend)
        if os.environ.get(SWITCH) != "unfused":
            return kernels
        return [unfused(k) for k in kernels] if backend in plain else []

    chosen.moebench = True  # type: ignore[attr-defined]
    unquantized.backend_to_kernel_cls = chosen
