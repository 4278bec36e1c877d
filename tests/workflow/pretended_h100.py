"""Run by test_pretended_h100.py in the engine's environment: vLLM's configuration of engines on a pretended H100.

Usage: python pretended_h100.py PLAN OUT.  vLLM's CPU build has the Python files of its CUDA build.  What they ask of a
device, of CUDA's libraries and of Triton is answered here as on an H100; nothing is loaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

from moebench.engines import vllm_arguments


class Kernels(types.ModuleType):
    """A compiled module of the CUDA build, by name only."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **more: None


def pretend() -> None:
    """Let vLLM find an H100."""
    for name in ("vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch", "vllm.vllm_flash_attn"):
        module = sys.modules[name] = Kernels(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None, is_package=True)
    import torch
    import vllm.platforms
    from vllm.platforms import cuda
    from vllm.platforms.interface import DeviceCapability

    class H100(cuda.CudaPlatformBase):
        get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(9, 0))
        get_device_name = classmethod(lambda cls, device_id=0: "NVIDIA H100 80GB HBM3")
        get_device_total_memory = classmethod(lambda cls, device_id=0: 85_520_809_984)
        is_fully_connected = classmethod(lambda cls, device_ids: True)
        device_count = classmethod(lambda cls: 8)
        num_compute_units = classmethod(lambda cls, device_id=0: 132)

    vllm.platforms._current_platform = H100()
    torch.cuda.is_available, torch.cuda.device_count = (lambda: True), (lambda: 8)
    import vllm._custom_ops as kernels
    import vllm.config.vllm
    from vllm.model_executor.models.registry import _LazyRegisteredModel

    kernels.cutlass_scaled_mm_supports_fp8 = lambda capability: capability >= 90
    kernels.cutlass_scaled_mm_supports_block_fp8 = lambda capability: capability >= 90
    vllm.config.vllm.HAS_TRITON = True
    _LazyRegisteredModel._save_modelinfo_to_cache = lambda *args: None  # it would import the layers


def resolved(spec: Any) -> dict[str, Any]:
    """What vLLM makes of an engine configuration."""
    from vllm.engine.arg_utils import EngineArgs

    given = vllm_arguments.arguments(spec)
    if spec["nodes"] > 1:
        given |= {"nnodes": spec["nodes"], "node_rank": 0, "master_addr": "10.0.0.1",
                  "distributed_executor_backend": "mp"}  # fmt: skip
    config = EngineArgs(**given).create_engine_config()
    compilation, speculation = config.compilation_config, config.speculative_config
    return {
        "compiled": compilation.mode.name,
        "graphs": compilation.cudagraph_mode.name,
        "fused_all_reduce": compilation.pass_config.fuse_allreduce_rms,
        "v2_model_runner": bool(config.use_v2_model_runner),
        "async_scheduling": config.scheduler_config.async_scheduling,
        "quantization": config.model_config.quantization,
        "speculation": speculation and speculation.method,
    }


def main(plan: str, out: str) -> None:
    pretend()
    found: dict[str, Any] = {}
    shell = dict(os.environ)
    for key, spec in json.loads(Path(plan).read_text())["engines"].items():
        os.environ.update(vllm_arguments.switches(spec))
        try:
            found[key] = resolved(spec)
        except Exception as error:
            found[key] = f"{type(error).__name__}: {error}"
        for name in os.environ.keys() - shell.keys():
            del os.environ[name]
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
