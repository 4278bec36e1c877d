"""The environment variables with which the driver starts an engine."""

from __future__ import annotations

import os
from pathlib import Path

from moebench.engines import loopback, toolkit, variables
from moebench.formats.plan import EngineConfig


def switches(spec: EngineConfig, python: Path) -> dict[str, str]:
    """Variables that the plan and the driver set for an engine, overriding the shell's.  ``python``: the engine's."""
    package = str(Path(__file__).resolve().parents[2])
    path = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    switches = toolkit.environment(python, os.environ.get("PATH", "")) | {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML numbers devices
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "VLLM_CONFIGURE_LOGGING": "1",  # its log shows untuned kernels, and compilations in a timed run
        "VLLM_LOGGING_LEVEL": "DEBUG" if os.environ.get("VLLM_LOGGING_LEVEL") == "DEBUG" else "INFO",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        **loopback.direct(),
    }
    if variables.core_is_within(spec):  # no second process to start and to time
        switches[variables.CORE] = "0"
    if not spec["config"]["mla"]:
        switches["VLLM_MLA_DISABLE"] = "1"
    if spec["config"]["cpu_threads"]:  # not bound to cores: another process may occupy one
        switches |= {"OMP_NUM_THREADS": str(spec["config"]["cpu_threads"]), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return switches
