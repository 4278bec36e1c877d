"""The job's GPUs through NVML (nvidia-ml-py): facts once, then readings.  Creates no CUDA context.

A value that a device or driver does not support is None.  A MIG instance shares its GPU: its energy, power and
utilization are unknown; clocks, temperature and throttling are the GPU's.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moebench.formats.record import Device, Devices
from moebench.measure.telemetry.window import Reading

REASONS = {
    0x1: "gpu_idle",
    0x2: "application_clocks",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
}
"""Names of the bits of nvmlClocksEventReasons (nvml.h)."""
LIMITING = {"sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake"}
"""Reasons that make a run slower than the device can be: power, heat, or the board's supply."""
_LEVELS = {0: "same board", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""Names of nvmlGpuTopologyLevel_t, as ``nvidia-smi topo`` has them."""


def reason_names(bits: int) -> list[str]:
    """Names of the bits that are set; a bit without a known name is given as a number."""
    return [REASONS.get(1 << n, hex(1 << n)) for n in range(bits.bit_length()) if bits >> n & 1]


def library() -> Any:
    """The module pynvml of nvidia-ml-py, else the copy in vLLM.  Raises ImportError."""
    try:
        import pynvml
    except ImportError:
        vllm = importlib.util.find_spec("vllm")  # found, not imported: that takes seconds
        if vllm is None or vllm.origin is None:
            raise
        sys.path.append(str(Path(vllm.origin).parent / "third_party"))
        import pynvml
    return pynvml


class Part:
    """A GPU or a MIG instance: ``gpu`` is the GPU's handle, ``instance`` the instance's, if known."""

    def __init__(self, gpu: Any, mig: bool = False, instance: Any = None):
        self.gpu, self.mig, self.instance = gpu, mig, instance


class Nvml:
    """The first ``count`` devices that CUDA shows to a process with ``CUDA_VISIBLE_DEVICES`` = ``visible``.

    CUDA must number devices as NVML does (CUDA_DEVICE_ORDER=PCI_BUS_ID, which the driver sets).  ``nothing``: why there
    is nothing to read; empty otherwise.
    """

    def __init__(self, visible: str | None, count: int):
        self.devices: list[Part] = []
        self.nothing = ""
        try:
            self.lib = library()
        except ImportError:
            self.nothing = "nvidia-ml-py is not installed"
            return
        try:
            self.lib.nvmlInit()
            self.devices = self._visible(visible)[:count]
        except self.lib.NVMLError as error:
            self.nothing = f"NVML: {error}"
            return
        self.nothing = "" if self.devices else f"no device of this job (CUDA_VISIBLE_DEVICES={visible})"

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self.lib.NVMLError:
            return None

    def _visible(self, visible: str | None) -> list[Part]:
        """Devices in CUDA's order; like CUDA's, the list ends at the first entry that names none."""
        gpus = [self.lib.nvmlDeviceGetHandleByIndex(i) for i in range(self.lib.nvmlDeviceGetCount())]
        if visible is None:
            return [self._whole(gpu) for gpu in gpus]
        uuids = [self.lib.nvmlDeviceGetUUID(gpu) for gpu in gpus]
        found = []
        for entry in map(str.strip, visible.split(",")):
            matches = [gpu for gpu, uuid in zip(gpus, uuids, strict=True) if uuid.startswith(entry)]
            if entry.isdecimal() and int(entry) < len(gpus):
                found.append(self._whole(gpus[int(entry)]))
            elif entry.startswith("GPU-") and len(matches) == 1:
                found.append(self._whole(matches[0]))
            elif entry.startswith("MIG-") and (instance := self._ask(self.lib.nvmlDeviceGetHandleByUUID, entry)):
                gpu = self.lib.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
                found.append(Part(gpu, True, instance))
            else:
                break
        return found

    def _whole(self, gpu: Any) -> Part:
        """A GPU named as a whole: in MIG mode CUDA then uses one of its instances, and NVML does not report which."""
        mode = self._ask(self.lib.nvmlDeviceGetMigMode, gpu)
        return Part(gpu, bool(mode and mode[0]))

    def facts(self) -> Devices:
        """``source``, ``driver`` (version), ``devices`` (a dict each) and ``links`` (how each pair is connected)."""
        pairs = itertools.combinations(range(len(self.devices)), 2)
        return {
            "source": "nvml",
            "driver": self._ask(self.lib.nvmlSystemGetDriverVersion),
            "devices": [self._facts(device) for device in self.devices],
            "links": {f"{a}-{b}": self._link(self.devices[a].gpu, self.devices[b].gpu) for a, b in pairs},
        }

    def _facts(self, device: Part) -> Device:
        lib, gpu = self.lib, device.gpu
        ecc = self._ask(lib.nvmlDeviceGetEccMode, gpu)
        cap = self._ask(lib.nvmlDeviceGetEnforcedPowerLimit, gpu)
        usual = self._ask(lib.nvmlDeviceGetPowerManagementDefaultLimit, gpu)
        states = [self._ask(lib.nvmlDeviceGetNvLinkState, gpu, n) for n in range(lib.NVML_NVLINK_MAX_LINKS)]
        links = [state for state in states if state is not None]
        return {
            "uuid": self._ask(lib.nvmlDeviceGetUUID, device.instance or gpu),
            "name": self._ask(lib.nvmlDeviceGetName, gpu),
            "mig": device.mig,
            "ecc": None if ecc is None else bool(ecc[0]),
            "power_cap_w": _per_thousand(cap),
            "power_default_w": _per_thousand(usual),
            "sm_clock_max_mhz": self._ask(lib.nvmlDeviceGetMaxClockInfo, gpu, lib.NVML_CLOCK_SM),
            "nvlinks": sum(links) if links else None,
        }

    def _link(self, one: Any, other: Any) -> str | None:
        """``NVLink``, else the connection between two GPUs in the terms of ``nvidia-smi topo``."""
        lib = self.lib
        status = self._ask(lib.nvmlDeviceGetP2PStatus, one, other, lib.NVML_P2P_CAPS_INDEX_NVLINK)
        if status == lib.NVML_P2P_STATUS_OK:
            return "NVLink"
        level = self._ask(lib.nvmlDeviceGetTopologyCommonAncestor, one, other)
        return None if level is None else _LEVELS.get(level, str(level))

    def read(self) -> list[Reading]:
        """A reading of each device."""
        return [self._reading(device) for device in self.devices]

    def _reading(self, device: Part) -> Reading:
        lib, gpu = self.lib, device.gpu
        shared = device.mig
        energy = None if shared else self._ask(lib.nvmlDeviceGetTotalEnergyConsumption, gpu)  # mJ
        power = None if shared else self._ask(lib.nvmlDeviceGetPowerUsage, gpu)  # mW
        use = None if shared else self._ask(lib.nvmlDeviceGetUtilizationRates, gpu)
        holder = device.instance if shared else gpu
        memory = None if holder is None else self._ask(lib.nvmlDeviceGetMemoryInfo, holder)
        bits = self._ask(lib.nvmlDeviceGetCurrentClocksEventReasons, gpu)
        return {
            "energy_j": _per_thousand(energy),
            "power_w": _per_thousand(power),
            "sm_clock_mhz": self._ask(lib.nvmlDeviceGetClockInfo, gpu, lib.NVML_CLOCK_SM),
            "memory_clock_mhz": self._ask(lib.nvmlDeviceGetClockInfo, gpu, lib.NVML_CLOCK_MEM),
            "temperature_c": self._ask(lib.nvmlDeviceGetTemperature, gpu, lib.NVML_TEMPERATURE_GPU),
            "memory_bytes": None if memory is None else memory.used,
            "utilization": None if use is None else use.gpu / 100,
            "throttle_reasons": None if bits is None else reason_names(bits),
        }


def _per_thousand(value: int | None) -> float | None:
    return None if value is None else value / 1000
