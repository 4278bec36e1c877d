"""A copy of the project to run commands in, as a user has it after `git clone`; environments are shared."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVS = Path(os.environ.get("MOEBENCH_ENVS") or ROOT / ".envs").resolve()
DEV = ENVS / "dev" / "bin"
ENGINE = ENVS / "vllm-cpu" / "bin" / "python"
QUANTIZE = ENVS / "quantize-cpu" / "bin" / "python"
PARTS = ("Snakefile", "workflow", "config", "profiles", "envs", "docs", "README.md", "LICENSE")

HANG_S = 3600
"""Seconds after which whatever a test waits for is taken to hang: no busy machine needs as many."""


def copy(place: Path) -> Path:
    """Copy the project's files (not its results) to ``place`` and link its environments."""
    place.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, place / name)
    (place / ".envs").symlink_to(ENVS)
    return place


def environment(place: Path, **extra: str) -> dict[str, str]:
    """Environment in which `moebench` and `snakemake` are those of the copy."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SNAKEMAKE", "SLURM"))}
    return {**kept, "PATH": f"{DEV}:{kept['PATH']}", "PYTHONPATH": str(place / "workflow"), **extra}


def run(place: Path, *command: str, code: int | None = 0, timeout_s: float = HANG_S, **extra: str):
    """Run a command in the copy; fail with its output when it does not end with ``code`` (None: any)."""
    done = subprocess.run(command, cwd=place, env=environment(place, **extra), capture_output=True, text=True,
                          timeout=timeout_s)  # fmt: skip
    if code is not None:
        assert done.returncode == code, (
            f"{command} gave {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
    return done


def snakemake(place: Path, *arguments: str, code: int | None = 0, profile: str = "profiles/local", **extra: str):
    """Run Snakemake with a profile."""
    return run(place, str(DEV / "python"), "-m", "snakemake", "--profile", profile, *arguments, code=code, **extra)


def moebench(place: Path, *arguments: str, code: int | None = 0, **extra: str):
    """Run a verb, by the command that users have."""
    return run(place, str(DEV / "moebench"), *arguments, code=code, **extra)
