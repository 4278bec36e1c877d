"""Whether a device is the one of a study's hardware: compares full name, memory and multiprocessors.

A part of a device (MIG), or a variant of its family, has a similar name: "NVIDIA H200 NVL", "... MIG 1g.10gb".
Standard library only.
"""

from __future__ import annotations

from moebench.formats.model import HardwareDict

MEMORY_SHARE = 0.95, 1.1
"""Memory that torch or the driver reports, over what the hardware file states; nominal sizes are about 7% less."""


def unlike(
    hardware: HardwareDict, name: str, memory_bytes: float | None = None, multiprocessors: int | None = None
) -> str | None:
    """How a device differs from the hardware, if it does; compares only what is known of both."""
    wanted, stated, whole = hardware["device_name"], hardware["memory_bytes"], hardware.get("multiprocessors")
    if wanted and name != wanted:
        return name
    if wanted and stated and memory_bytes and not MEMORY_SHARE[0] < memory_bytes / stated < MEMORY_SHARE[1]:
        return f"{name} with {memory_bytes / 1e9:.1f} GB of memory instead of {stated / 1e9:g} GB"
    if wanted and whole and multiprocessors and multiprocessors != whole:
        return f"{name} with {multiprocessors} multiprocessors instead of {whole}"
    return None
