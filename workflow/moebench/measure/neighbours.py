"""Other jobs on the measuring node, according to SLURM.  Standard library only.

A job with a few of a node's GPUs shares its CPUs, memory and links with other jobs; `--exclusive` prevents that, but
costs the whole node.  So a record contains the CPUs of other jobs.
"""

from __future__ import annotations

import os
import re
import subprocess

TIMEOUT_S = 20


def cpus() -> int | None:
    """CPUs of this node that are allocated to other jobs; None outside SLURM, or if SLURM does not report it.

    Uses the node's total, which includes all users' jobs: a cluster may list only a user's own jobs.
    """
    job, node = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURMD_NODENAME")
    if not (job and node):
        return None
    allocated = re.search(r"\bCPUAlloc=(\d+)", _said("scontrol", "show", "node", node, "--oneliner"))
    own = _said("squeue", "--noheader", "--jobs", job, "--format", "%C %D").split()
    if allocated is None or len(own) != 2:
        return None
    return max(0, int(allocated[1]) - int(own[0]) // int(own[1]))


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
