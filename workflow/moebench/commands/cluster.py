"""Resources of a SLURM cluster, and what a plan's jobs request through a Snakemake profile."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from moebench import accuracy
from moebench.config.loading import read_yaml
from moebench.formats.plan import DeriveJob, Job, Plan

SINFO = "%P|%D|%G|%l|%m|%c"
"""Format of ``sinfo`` that ``nodes`` reads: one line per kind of node in a partition."""


@dataclass(frozen=True)
class Nodes:
    """Identical nodes of a partition: GPUs per node by type ("" without a type), memory in MB, time limit in
    minutes."""

    partition: str
    default: bool
    count: int
    gpus: dict[str, int]
    memory_mb: int
    cpus: int
    limit_min: float

    def __str__(self) -> str:
        kinds = ",".join(f"gpu:{kind}:{n}" if kind else f"gpu:{n}" for kind, n in self.gpus.items()) or "no GPUs"
        limit = "none" if math.isinf(self.limit_min) else f"{self.limit_min:.0f} min"
        name = self.partition + "*" * self.default
        return f"{name} {self.count} nodes, {kinds}, {self.cpus} CPUs, {self.memory_mb} MB, limit {limit}"

    def hold(self, job: Job | DeriveJob, gpu_model: str, attempt: int = 1) -> bool:
        """Whether they can run a job of a plan; each attempt requests more memory and time (rules/measure.smk)."""
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
    """Number of nodes that a job requests; one for a job that derives checkpoints."""
    return cast(Job, job).get("nodes", 1)


def nodes(text: str) -> list[Nodes]:
    """Nodes from the output of ``sinfo -h -o SINFO``; other lines (banners, cluster names) are skipped."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 6 or None in (sizes := [_number(fields[n]) for n in (1, 4, 5)]):
            continue
        partition, _, gres, limit, _, _ = fields
        count, memory, cpus = (size or 0 for size in sizes)
        gpus: dict[str, int] = {}
        for kind, number in re.findall(r"\bgpu:(?:([^:,(]+):)?(\d+)", gres):
            gpus[kind] = gpus.get(kind, 0) + int(number)
        name = partition.removesuffix("*")
        found.append(Nodes(name, partition.endswith("*"), count, gpus, memory, cpus, minutes(limit)))
    return found


def _number(text: str) -> int | None:
    """A size in SLURM's format: ``64``, ``64+`` (smallest of several), ``1.5T`` (of MB); None for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)\+?", text)
    scale = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
    return int(float(found[1]) * scale[found[2]]) if found else None


def minutes(limit: str) -> float:
    """SLURM's ``[days-]hours:minutes:seconds``, ``days-hours[:minutes]`` or ``minutes[:seconds]``; anything else is no
    limit."""
    days, dash, clock = limit.strip().rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in (*parts, days or "0")) or len(parts) > 3:
        return math.inf
    if dash or len(parts) == 3:
        hours, mins, seconds = (*map(int, parts), 0, 0)[:3]
        return int(days or 0) * 1440 + hours * 60 + mins + seconds / 60
    mins, seconds = (*map(int, parts), 0)[:2]
    return mins + seconds / 60


ASSOCIATION = "Account,MaxSubmit,GrpSubmit,MaxWall,DefaultQOS"
QOS = "Name,MaxSubmitPU,GrpSubmit,MaxWall"
"""Formats of ``sacctmgr -n -P show`` that ``limits`` reads."""
LEAST_JOB_AGE_S = 300
"""Snakemake asks for states every three minutes."""


@dataclass(frozen=True)
class Limits:
    """Maximum number of jobs in a user's queue, and maximum minutes of one."""

    jobs: float
    minutes: float


def limits(associations: str, qualities: str, account: str, qos: str) -> Limits:
    """The limits of a user's account (empty: of any) and quality of service (empty: the default one).

    ``associations``, ``qualities``: what sacctmgr printed with the formats above.
    """
    rows = [line.split("|") for line in associations.splitlines() if line.count("|") == 4]
    mine = [row for row in rows if not account or row[0].lower() == account.lower()]
    named = {qos} if qos else {row[4] for row in mine if row[4]}
    qualified = [line.split("|") for line in qualities.splitlines() if line.count("|") == 3]
    found = [row[1:4] for row in mine] + [row[1:4] for row in qualified if row[0] in named]
    counts = [int(text) for row in found for text in row[:2] if text.isdigit()]
    walls = [minutes(row[2]) for row in found if row[2].strip()]
    return Limits(min(counts, default=math.inf), min(walls, default=math.inf))


def jobs_at_once(profile: Path) -> int:
    """Number of jobs that Snakemake submits at once; all of them if the profile sets no limit."""
    given = str((read_yaml(profile) or {}).get("jobs", ""))
    return int(given) if given.isdigit() else sys.maxsize


def asked_by(profile: Path) -> dict[str, str]:
    """``default-resources`` of a profile as text, written as a mapping or as a list of ``key=value``.

    Raises ConfigError for a profile that cannot be read.
    """
    given = (read_yaml(profile) or {}).get("default-resources") or {}
    pairs = given.items() if isinstance(given, dict) else (str(one).partition("=")[::2] for one in given)
    return {str(key): str(value).strip("'\"") for key, value in pairs}


def chosen(offered: Iterable[Nodes], partitions: str) -> list[Nodes]:
    """The nodes of a job's partitions (``a,b``), or of the default one."""
    names = [name for name in partitions.split(",") if name]
    return [n for n in offered if (n.partition in names if names else n.default)]


def jobs(plan: Plan) -> Iterator[tuple[str, Job | DeriveJob]]:
    """All jobs of a plan that SLURM runs, by name."""
    yield from ((name, job) for name, job in plan["jobs"].items() if not job["hosted"])
    yield from plan["derive_jobs"].items()
    for harness in accuracy.harnesses(plan):
        yield from ((name, job) for name, job in plan["accuracy"][harness]["jobs"].items() if not job["hosted"])
