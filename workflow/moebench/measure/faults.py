"""Faults of a node or of its environment, for the submission of later jobs, which leave that node out.

``faults/NODE.json`` has a node's last one; ``commands/slurm_commands.py`` reads them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from moebench.errors import StorageError
from moebench.storage.atomic import canonical_bytes, stamp, write_atomic


def node() -> str:
    """This node's name, as SLURM has it if it chose the node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def note(results: Path, reason: str) -> None:
    """Keep what was wrong with this node; nothing where SLURM did not choose it."""
    node = os.environ.get("SLURMD_NODENAME", "")
    if not node or "/" in node:
        return
    fault = {"node": node, "at": stamp(), "job": os.environ.get("SLURM_JOB_ID", ""), "reason": reason}
    with contextlib.suppress(StorageError):  # it may be what is wrong
        write_atomic(results / "faults" / f"{node}.json", canonical_bytes(fault) + b"\n")
