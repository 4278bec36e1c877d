"""NVIDIA's compatibility libraries: a newer ``libcuda`` in front of an older driver of a node.  Standard library only.

The locked environments need a driver as new as their CUDA; on data-centre GPUs these libraries can replace it.  They
are installed beside the environments (``.envs/cuda-compat``) and used only on nodes whose driver is older: with a newer
driver they would not work (docs/slurm.md, Older drivers).
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
    """Their folder below the folder of the environments, if this node's driver is older than they are."""
    try:
        has = re.search(r" (\d+)\.\d+", driver.read_text())
    except OSError:
        return None
    for library in (environments / FOLDER).rglob("libcuda.so.*.*"):
        if has and int(has[1]) < int(library.name.split(".")[2]):
            return library.parent
    return None


def put_in_front() -> None:
    """Make this process and its children use them if they are needed."""
    if where := folder(Path(sys.prefix).parent):
        given = os.environ.get("LD_LIBRARY_PATH", "")
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(where), given]))
        with contextlib.suppress(OSError):  # whoever needs the library will raise its own error
            ctypes.CDLL(str(where / "libcuda.so.1"), ctypes.RTLD_GLOBAL)


def in_front(search_path: str) -> str | None:
    """Version of the libcuda that an ``LD_LIBRARY_PATH`` puts in front of the driver's, if any."""
    for place in filter(None, search_path.split(os.pathsep)):
        library = Path(place) / "libcuda.so.1"
        if library.exists():
            return library.resolve().name.removeprefix("libcuda.so.")
    return None
