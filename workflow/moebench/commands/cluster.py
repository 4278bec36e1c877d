"""What a SLURM cluster offers and what a plan's jobs ask for through a Snakemake profile.  Pure but for the profile."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from moebench import accuracy
from moebench.config.loading import read_yaml
from moebench.formats.plan import DeriveJob, Job, Plan

SINFO = "%P|%D|%G|%l|%m|%c"
"""Format of ``sinfo`` that ``nodes`` reads: a line per kind of nodes of a partition."""


@dataclass(frozen=True)
class Nodes:
    """Equal nodes of a partition: GPUs of a node by type ("" where they have none), memory in MB, limit in minutes."""

    partition: str
    default: bool
    count: int
    gpus: dict[str, int]
    memory_mb: int
    cpus: int
    limit_min: float

    def hold(self, job: Job | DeriveJob, gpu_model: str, attempt: int = 1) -> bool:
        """Whether they can run a job of a plan; each attempt asks for more memory and time (rules/measure.smk)."""
        across = nodes_of(job)
        offered = self.gpus.get(gpu_model, 0) if gpu_model else sum(self.gpus.values())
        sizes: list[tuple[float, float]] = [
            (self.count, across),
            (offered, job["gpus"] / across),
            (self.cpus, job["cpus"]),
            (self.memory_mb, job["mem_mb"] * (attempt + 1) / 2),
            (self.limit_min, job["runtime_min"] * attempt),
        ]
        return all(there >= asked for there, asked in sizes)


def nodes_of(job: Job | DeriveJob) -> int:
    """Nodes that a job of a plan asks for; one, where it derives checkpoints."""
    return cast(Job, job).get("nodes", 1)


def nodes(text: str) -> list[Nodes]:
    """What ``sinfo -h -o SINFO`` printed."""
    found = []
    for line in text.splitlines():
        partition, count, gres, limit, memory, cpus = line.split("|")
        gpus: dict[str, int] = {}
        for kind, number in re.findall(r"\bgpu:(?:([^:,(]+):)?(\d+)", gres):
            gpus[kind] = gpus.get(kind, 0) + int(number)
        name = partition.removesuffix("*")
        sizes = (int(memory.rstrip("+")), int(cpus.rstrip("+")))  # 64+: the least of several
        found.append(Nodes(name, partition.endswith("*"), int(count), gpus, *sizes, _minutes(limit)))
    return found


def _minutes(limit: str) -> float:
    """SLURM's ``[days-]hours:minutes:seconds``, or ``minutes:seconds``; anything else is no limit."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or len(parts) not in (2, 3):
        return math.inf
    *hours, minutes, seconds = map(int, parts)
    return int(days or 0) * 1440 + sum(hours) * 60 + minutes + seconds / 60


def asked_by(profile: Path) -> dict[str, str]:
    """``default-resources`` of a profile as text, written as a mapping or as a list of ``key=value``.

    Raises ConfigError for a profile that cannot be read.
    """
    given = (read_yaml(profile) or {}).get("default-resources") or {}
    pairs = given.items() if isinstance(given, dict) else (str(one).partition("=")[::2] for one in given)
    return {str(key): str(value).strip("'\"") for key, value in pairs}


def chosen(offered: Iterable[Nodes], partitions: str) -> list[Nodes]:
    """The nodes of the partitions that a job names (``a,b``), of the default one where it names none."""
    names = [name for name in partitions.split(",") if name]
    return [n for n in offered if (n.partition in names if names else n.default)]


def jobs(plan: Plan) -> Iterator[tuple[str, Job | DeriveJob]]:
    """All jobs of a plan that SLURM runs, by name."""
    yield from ((name, job) for name, job in plan["jobs"].items() if not job["hosted"])
    yield from plan["derive_jobs"].items()
    for harness in accuracy.harnesses(plan):
        yield from ((name, job) for name, job in plan["accuracy"][harness]["jobs"].items() if not job["hosted"])
