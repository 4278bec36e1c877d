"""NVIDIA's compatibility libraries: a newer ``libcuda`` in front of an older driver of a node.  Standard library only.

The locked environments need the driver of their CUDA; on data-centre GPUs these libraries do instead.  They lie among
the environments (``.envs/cuda-compat``), and are used on those nodes whose driver is older than they are: in front of a
newer driver they would not work (docs/slurm.md, Older drivers).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path

FOLDER = "cuda-compat"
DRIVER = Path("/proc/driver/nvidia/version")
"""Where a driver says its version."""


def folder(environments: Path, driver: Path = DRIVER) -> Path | None:
    """Where they lie below the folder of the environments, if this node's driver is older than they are."""
    try:
        has = re.search(r" (\d+)\.\d+", driver.read_text())
    except OSError:
        return None
    for library in (environments / FOLDER).rglob("libcuda.so.*.*"):
        if has and int(has[1]) < int(library.name.split(".")[2]):
            return library.parent
    return None


def put_in_front() -> None:
    """Have this process, and those that it starts, use them where they are needed."""
    if where := folder(Path(sys.prefix).parent):
        given = os.environ.get("LD_LIBRARY_PATH", "")
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(where), given]))
        with contextlib.suppress(OSError):  # whoever needs it says so
            ctypes.CDLL(str(where / "libcuda.so.1"), ctypes.RTLD_GLOBAL)


def in_front(search_path: str) -> str | None:
    """Version of the libcuda that an ``LD_LIBRARY_PATH`` puts in front of the driver's, if it does."""
    for place in filter(None, search_path.split(os.pathsep)):
        library = Path(place) / "libcuda.so.1"
        if library.exists():
            return library.resolve().name.removeprefix("libcuda.so.")
    return None
