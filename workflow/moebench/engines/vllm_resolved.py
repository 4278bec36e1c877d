"""Which attention, experts and linear kernels vLLM chose, and its CUDA graphs, read from its loaded layers (0.32.0).

Uses duck typing on private attributes: a vLLM version with other names yields a method's name or nothing, never an
error.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from enum import Enum
from typing import Any

from moebench.formats.record import Backends

_KERNELS = ("kernel", "fp8_linear", "linear_kernel", "_gemm_impl")
"""Where linear methods and their quantization schemes keep the kernel."""


def backends(runner: Any) -> Backends:
    """``attention``, ``moe`` and ``linear``: layers of this rank by kernel; ``cudagraph_mode`` settled on."""
    found: dict[str, Counter[str]] = {"attention": Counter(), "moe": Counter(), "linear": Counter()}
    for module in runner.get_model().modules():
        method = getattr(module, "quant_method", None)
        if hasattr(getattr(module, "attn_backend", None), "get_name"):
            found["attention"][_attention(module)] += 1
        elif method is not None and hasattr(method, "moe_kernel"):
            found["moe"][_experts(method)] += 1
        elif method is not None and type(method).__name__.endswith("LinearMethod"):
            found["linear"][_linear(module, method)] += 1
    mode = getattr(getattr(runner, "compilation_config", None), "cudagraph_mode", None)
    return {
        "attention": dict(found["attention"]),
        "moe": dict(found["moe"]),
        "linear": dict(found["linear"]),
        "cudagraph_mode": getattr(mode, "name", None),
    }


def serving(config: Any) -> dict[str, Any]:
    """The serving knobs as vLLM's configuration resolved them, by name; for speculation, its method."""
    parallel, speculative = config.parallel_config, config.speculative_config
    return {
        "prefix_caching": bool(config.cache_config.enable_prefix_caching),
        "chunked_prefill": bool(config.scheduler_config.enable_chunked_prefill),
        "all_to_all": str(parallel.all2all_backend),
        "eplb": bool(parallel.enable_eplb),
        "redundant_experts": int(parallel.eplb_config.num_redundant_experts),
        "speculation": None if speculative is None else str(speculative.method),
    }


_SAID = {
    "prefix_caching": re.compile(rb"\benable_prefix_caching=(\w+)"),
    "chunked_prefill": re.compile(rb"\benable_chunked_prefill=(\w+)"),
    "all_to_all": re.compile(rb"\bUsing (\w+) all2all manager"),
}


def serving_said(log: bytes) -> dict[str, Any]:
    """The same from a server's log; ``all_to_all``: the name of its manager, if there are several ranks."""
    found = {knob: said[1].decode() for knob, pattern in _SAID.items() if (said := pattern.search(log))}
    return {knob: {"True": True, "False": False}.get(value, value) for knob, value in found.items()}


def _attention(module: Any) -> str:
    """Backend, with the version of FlashAttention if it has one."""
    version = getattr(getattr(module, "impl", None), "vllm_flash_attn_version", None)
    name = str(module.attn_backend.get_name())
    return name if version is None else f"{name} {version}"


def _experts(method: Any) -> str:
    """Backend and experts class, else the method."""
    chosen = [
        value.value for name, value in vars(method).items() if name.endswith("_backend") and isinstance(value, Enum)
    ]
    kernel = getattr(method.moe_kernel, "fused_experts", None)
    experts = getattr(method, "experts_cls", None) if kernel is None else type(kernel)
    return " ".join([*map(str, chosen), *([experts.__name__] if experts else [])]) or type(method).__name__


def _linear(module: Any, method: Any) -> str:
    """Kernel of the layer's quantization scheme or of its method, else the name of either."""
    holder = getattr(module, "scheme", None) or method
    kernel = next((getattr(holder, name) for name in _KERNELS if getattr(holder, name, None) is not None), None)
    if kernel is None:
        return type(holder).__name__
    if isinstance(kernel, functools.partial):
        kernel = kernel.func
    return str(getattr(kernel, "__name__", type(kernel).__name__))
