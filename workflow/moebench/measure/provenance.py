"""Where numbers come from: code revision, locks, host, SLURM job.  Standard library only; never a secret."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import subprocess

import moebench
from moebench.formats.record import Provenance
from moebench.storage import project

SLURM_VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURM_CPUS_ON_NODE",
    "SLURM_RESTART_COUNT",
)


@functools.cache
def code_revision() -> Provenance:
    """Git commit and whether tracked files differ from it; nulls outside a git checkout."""

    def git(*arguments: str) -> str | None:
        if project.INSTALLED:  # a repository around the environment is another one
            return None
        try:
            done = subprocess.run(
                ["git", "-C", str(project.ROOT), *arguments], capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}


@functools.cache
def lock_hashes() -> dict[str, str]:
    """SHA-256 of each environment lock."""
    return {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((project.ROOT / "envs").glob("*.lock"))}


def of_driver() -> Provenance:
    """What the driver knows of where it runs."""
    from moebench.prompts import prose

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "moebench": moebench.__version__,
        **code_revision(),
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "host_memory_bytes": memory,
        "slurm": {k: os.environ[k] for k in SLURM_VARIABLES if k in os.environ},
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "prompt_corpus_sha256": prose.sha256(),
    }


def of_environment(name: str) -> Provenance:
    """SHA-256 of the lock of an engine's environment; null without a lock."""
    return {"lock_sha256": lock_hashes().get(name)}
