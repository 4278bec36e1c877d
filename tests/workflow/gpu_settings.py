"""Run by test_gpu_settings.py in the engine's environment: vLLM's own decisions for a pretended H100, as JSON.

Usage: python gpu_settings.py SPEC OUT.  vLLM is told that it runs on CUDA, that FlashInfer is there, and where nvcc
and ninja are; nothing is loaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from moebench.engines import compiling, vllm_arguments, vllm_flashinfer
from moebench.engines.factory import make
from moebench.engines.failures import Refused
from moebench.engines.server import flags


def tools(where: Path) -> None:
    """A node that has nvcc and ninja."""
    for name in ("nvcc", "ninja"):
        tool = where / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text("#!/bin/sh\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    os.environ |= {"CUDA_HOME": str(where), "PATH": f"{where / 'bin'}:{os.environ['PATH']}"}


def decided(config: Any) -> dict[str, bool]:
    """What vLLM decides now, its answers of before forgotten."""
    from vllm.config.vllm import enable_allreduce_rms_fusion
    from vllm.utils import flashinfer

    return {"fused": enable_allreduce_rms_fusion(config), "flashinfer": flashinfer.has_flashinfer(),
            "moe": flashinfer.has_flashinfer_moe(), "comm": flashinfer.has_flashinfer_comm()}  # fmt: skip


def main(spec_file: str, out: str) -> None:
    import vllm.platforms
    from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils import flashinfer, jit_monitor
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    found: dict[str, Any] = {}
    spec = json.loads(Path(spec_file).read_text())
    arguments = vllm_arguments.arguments(spec)
    offline = EngineArgs(**arguments)
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(flags(arguments)[1:])
    served = AsyncEngineArgs.from_cli_args(parsed)
    for name, given in (("offline", offline), ("served", served)):
        passes = given.compilation_config.pass_config
        found[name] = {"fused": passes.fuse_allreduce_rms, "verbose": given.jit_monitor_verbose}

    unknown = spec["model"] | {"title": "M", "architecture": spec["model"]["architecture"] | {"family": "molmoe"}}
    runtime = {"kind": "endpoint", "endpoint": {"serve": True, "model": "m"}}
    try:
        make("endpoint", spec | {"model": unknown, "runtime": runtime}).load()
    except Refused as error:
        found["molmoe_served"] = str(error)

    there = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: sys if name.startswith("flashinfer") and "cubin" not in name else (
        None if name.startswith("flashinfer") else there(name, *rest)
    )  # fmt: skip
    hopper = SimpleNamespace(is_rocm=lambda: False, is_cuda=lambda: True,
                             is_device_capability_family=lambda family: family == 90,
                             is_device_capability=lambda capability: capability == 90)  # fmt: skip
    vllm.platforms.current_platform = hopper
    config = SimpleNamespace(parallel_config=SimpleNamespace(tensor_parallel_size=2))
    found["by_the_node"] = decided(config)
    tools(Path(spec_file).parent)
    flashinfer.has_flashinfer.cache_clear()
    flashinfer.has_flashinfer_moe.cache_clear()
    flashinfer.has_flashinfer_comm.cache_clear()
    assert shutil.which("ninja")
    found["with_tools"] = decided(config)
    os.environ |= vllm_flashinfer.environment(spec)
    vllm_flashinfer.install()
    found["off"] = decided(config)

    start = compiling.mark()
    jit_monitor._verbose = True
    for kernel in ("fused_moe_kernel", "fused_moe_kernel", "_fwd_kernel"):
        jit_monitor._log_triton_jit_compile(kernel, {"compile": {"constants": {}}, "key": "k"})
    found["compiled"] = compiling.since(start)
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    os.dup2(2, 1)  # as in the worker: what vLLM says is in the log
    main(*sys.argv[1:])
