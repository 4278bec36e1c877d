"""Worker extension: reaches the MoE layers inside vLLM's workers (``worker_extension_cls``).

Live top-k and routing capture work on every ``MoERunner``; both are ignored by a compiled router, which is why the
driver checks the captured experts per token rather than trusting them (facts/vllm.md).
"""

from __future__ import annotations

import os
from typing import Any

import torch

from moebench.engines import (
    vllm_flashinfer,
    vllm_kernels,
    vllm_ranks,
    vllm_resolved,
    vllm_routing,
    vllm_unfused,
)
from moebench.engines.expert_counts import ExpertCounts
from moebench.engines.protocol import Routed
from moebench.engines.vllm_phases import Phases
from moebench.formats.record import Backends, Rank

vllm_unfused.install()  # this module is imported in every worker process before it loads the model
vllm_kernels.install()
vllm_flashinfer.install()
vllm_routing.install()


def _runners(model: torch.nn.Module) -> list[Any]:
    from vllm.model_executor.layers.fused_moe.layer import MoERunner

    return [module for module in model.modules() if isinstance(module, MoERunner)]


class MoEExtension:
    """Methods mixed into vLLM's worker; called by name with ``collective_rpc``."""

    model_runner: Any

    def moe_resolved(self) -> dict[str, Any]:
        """vLLM's decisions that depend on the node: FlashInfer, custom all-reduce, DeepGEMM, the toolkit."""
        from vllm.distributed.parallel_state import get_tp_group
        from vllm.utils.deep_gemm import is_deep_gemm_supported
        from vllm.utils.flashinfer import has_flashinfer

        communicator = getattr(get_tp_group().device_communicator, "ca_comm", None)
        return {
            "flashinfer": has_flashinfer(),
            "custom_all_reduce": communicator is not None and not communicator.disabled,
            "deep_gemm": is_deep_gemm_supported(),
            "cuda_home": os.environ.get("CUDA_HOME"),
        }

    def moe_rank(self) -> Rank:
        """Node, device and versions of this rank (``vllm_ranks``)."""
        return vllm_ranks.here()

    def moe_watch_compiling(self) -> None:
        """Make vLLM log kernel compilations from now on, also in eager mode, in which it normally does not."""
        from vllm.utils import jit_monitor

        jit_monitor.activate(verbose=True)

    def moe_used(self) -> dict[str, float]:
        """Experts that tokens were sent to so far, under a budget (``vllm_routing``)."""
        return vllm_routing.used(_runners(self.model_runner.get_model()))

    def moe_backends(self) -> Backends:
        """The kernels that vLLM chose (``vllm_resolved``)."""
        return vllm_resolved.backends(self.model_runner)

    def moe_set_top_k(self, top_k: int) -> int:
        """Set the active experts per token of every MoE layer; return the number of layers."""
        runners = _runners(self.model_runner.get_model())
        for runner in runners:
            runner.router.top_k = top_k
            runner.moe_config.experts_per_token = top_k
        return len(runners)

    def moe_capture(self, on: bool) -> int:
        """Start counting routed experts per layer, or stop; return the number of layers."""
        runners = _runners(self.model_runner.get_model())
        self._captured: dict[int, ExpertCounts] = {}
        phases = Phases(self.model_runner, on)
        for runner in runners:
            if not on:
                runner.router.set_capture_fn(None)
                continue
            counts = self._captured[runner.layer_id] = ExpertCounts(runner.router.global_num_experts)

            def keep(topk_ids: torch.Tensor, counts: ExpertCounts = counts, router: Any = runner.router) -> None:
                counts.add(vllm_routing.kept(router, topk_ids), int(topk_ids.shape[0]), phases.now)

            runner.router.set_capture_fn(keep)
        return len(runners)

    def moe_captured(self) -> dict[int, Routed]:
        """Counts per layer since capture began, also by the phase of the step (:class:`Phases`)."""
        return {number: counts.routed() for number, counts in self._captured.items()}
