"""FlashInfer's kernels off, on every node alike (docs/decisions/0033).

vLLM uses them if it finds ``nvcc`` and ``ninja``, and compiles them on the node; the most important one is the
all-reduce fused with RMSNorm for TP > 1.  So two nodes of one cluster could run different kernels under one label.
"""

from __future__ import annotations

import os

from moebench.formats import Knobs
from moebench.formats.plan import EngineConfig

SWITCH = "MOEBENCH_FLASHINFER"
"""Environment variable that turns them off (``off``): worker processes inherit it."""

_OFF = {SWITCH: "off", "VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_HAS_FLASHINFER_CUBIN": "0"}
"""vLLM asks for the sampler on its own, compiler or none."""


def environment(spec: EngineConfig) -> dict[str, str]:
    """Environment variables of an engine configuration's processes; empty if the plan does not set this."""
    return dict(_OFF) if spec.get("flashinfer") is False else {}


def arguments(spec: EngineConfig) -> Knobs:
    """Arguments of ``vllm.LLM`` for what its front end decides before any worker exists."""
    return {"compilation_config": {"pass_config": {"fuse_allreduce_rms": False}}} if environment(spec) else {}


def install() -> None:
    """Hide the compiler for FlashInfer from vLLM while the switch is off.  Idempotent."""
    if os.environ.get(SWITCH) != "off":
        return
    from vllm.utils import flashinfer

    flashinfer._flashinfer_nvcc_path = lambda: None
    for found in vars(flashinfer).values():
        if callable(forget := getattr(found, "cache_clear", None)):
            forget()
