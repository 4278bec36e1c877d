"""Faults of a node or of its environment.  Later submissions exclude that node.

``faults/NODE.json`` contains a node's last fault; ``commands/slurm_commands.py`` reads it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from moebench.errors import StorageError
from moebench.storage.atomic import canonical_bytes, stamp, write_atomic


def node() -> str:
    """This node's name in SLURM, if SLURM chose the node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def note(results: Path, reason: str) -> None:
    """Record a fault of this node, unless SLURM did not choose it."""
    node = os.environ.get("SLURMD_NODENAME", "")
    if not node or "/" in node:
        return
    fault = {"node": node, "at": stamp(), "job": os.environ.get("SLURM_JOB_ID", ""), "reason": reason}
    with contextlib.suppress(StorageError):  # the disk may be the fault
        write_atomic(results / "faults" / f"{node}.json", canonical_bytes(fault) + b"\n")
