"""The phases of a Snakemake run: their jobs, progress, and time left.

Progress is read from the files that jobs write, so it works for local jobs and for jobs on compute nodes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from moebench import accuracy
from moebench.formats.plan import Plan
from moebench.formats.record import RecordHead
from moebench.measure.records import cell_path, is_final
from moebench.measure.time_left import JobWork, TimeLeft, job_work
from moebench.plan.forecast import checkpoint_bytes

PHASES = ("checkpoints", "cells", "accuracy", "figures")

FILE_JOBS = {"stage": (3.0, 0.4), "derive": (8.0, 0.0), "collect": (3.0, 0.0), "figures": (1.0, 0.33),
             "report": (8.0, 0.0), "archive": (5.0, 0.0)}  # fmt: skip
"""Expected seconds of a job of a rule before its first file, and of each file (study ``tiny``, two cores).  To those of
checkpoints comes what the plan expects, or their download."""
DOWNLOAD_BYTES_PER_S = 100e6
"""Of a hub, before anything is downloaded."""
FIGURE_KINDS = (".csv", ".rst")
"""Files beside a figure's SVG, and captions: not counted on their own."""


def phase_of(rule: str) -> str | None:
    """The phase that a rule belongs to: ``phase_of("measure_cell") == "cells"``; None for ``all``."""
    if rule.startswith("measure"):
        return "cells"
    if rule.startswith("evaluate"):
        return "accuracy"
    if rule == "stage" or rule.startswith("derive_"):
        return "checkpoints"
    return "figures" if rule.partition("_")[0] in ("collect", "figures", "report", "archive") else None


@dataclass
class Unit:
    """One thing that a bar counts: a file that is done when it is there, written after ``since`` (seconds, epoch).

    ``key``: of its work (engine configuration and cell; of a file, its path).
    """

    path: Path
    job: int
    key: tuple[str, str]
    since: float = 0.0
    recorded: bool = False  # the file is a record
    done: bool = False
    failed: bool = False

    def look(self) -> RecordHead | None:
        """Its record (of a checkpoint or figure: an empty one) if it is newly done."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            if self.done or self.path.stat().st_mtime < self.since:
                return None
            record = cast(RecordHead, json.loads(self.path.read_bytes()) if self.recorded else {})
            if self.recorded and not self.since and not is_final(record):
                return None
            self.done, self.failed = True, self.recorded and record["status"] != "ok"
            return record
        return None


@dataclass
class Phase:
    """A phase: its units, its jobs of Snakemake, their work.

    ``at_once``: jobs that may run side by side.
    """

    name: str
    units: list[Unit]
    work: dict[int, JobWork]
    at_once: int = 1
    jobs: set[int] = field(init=False)
    last: dict[int, float] = field(default_factory=dict)
    """When a running job started or last finished a unit, seconds of the monotonic clock."""

    def __post_init__(self) -> None:
        self.jobs, self.left = set(self.work), TimeLeft({str(job): work for job, work in self.work.items()})

    @property
    def done(self) -> int:
        """Finished units."""
        return sum(unit.done for unit in self.units)

    @property
    def failed(self) -> int:
        """Finished units that are not ok."""
        return sum(unit.failed for unit in self.units)

    def look(self, now: float) -> None:
        """Look which units are done by now."""
        found = [(unit, record) for unit in self.units if (record := unit.look()) is not None]
        files = dict[int, list[tuple[str, str]]]()
        for unit, record in sorted(found, key=lambda pair: str(pair[1].get("ended_at"))):
            if unit.recorded:
                self.left.add(str(unit.job), record)
            else:
                files.setdefault(unit.job, []).append(unit.key)
        for job, keys in files.items():
            self.left.finished(str(job), keys, now - self.last[job] if job in self.last else None)
        self.last |= {unit.job: now for unit, _ in found if unit.job in self.last}

    def job_started(self, job: int, now: float) -> None:
        """A job of this phase has started."""
        if job in self.jobs:
            self.last[job] = now
            self.left.process_started(str(job))

    def job_ended(self, job: int) -> None:
        """A job of this phase succeeded: all of its units are done."""
        self.jobs.discard(job)
        self.last.pop(job, None)
        self.left.jobs.pop(str(job), None)
        for unit in self.units:
            if unit.job == job:
                unit.look()  # it may be newer than the last look, and not ok
                unit.done = True

    def job_failed(self, job: int) -> None:
        """A job of this phase has failed: it does not run until it is started again."""
        self.last.pop(job, None)

    def seconds_left(self, now: float) -> float:
        """Seconds until the phase is done; 0 if it is."""
        since = {str(job): now - last for job, last in self.last.items()}
        return self.left.seconds(since, min(self.at_once, len(self.jobs)))


@dataclass(frozen=True)
class Job:
    """A job of Snakemake that will run; ``measuring``: units of the resource it takes."""

    id: int
    rule: str
    output: tuple[str, ...]
    wildcards: Mapping[str, str] = field(default_factory=dict)
    measuring: int = 0


def phases_of(plan: Plan, results: Path, jobs: Iterable[Job], slots: int | None) -> dict[str, Phase]:
    """The phases that some of these jobs belong to, in the order of ``PHASES``, with what is done already.

    ``slots``: units of the resource ``measuring`` that there are; None: no limit.
    """
    jobs, made = list(jobs), dict[str, Phase]()
    for name in PHASES:
        parts = {
            job.id: _cells(plan, results, job) if name in ("cells", "accuracy") else _files(plan, job)
            for job in jobs
            if phase_of(job.rule) == name
        }
        if not parts:
            continue
        units = [unit for mine, _ in parts.values() for unit in mine]
        phase = made[name] = Phase(name, units, {job: work for job, (_, work) in parts.items()})
        if name != "figures":
            taken = max(1, *(job.measuring for job in jobs if job.id in parts))
            phase.at_once = 100 if slots is None else max(1, slots // taken)
        phase.look(time.monotonic())
        for job_id in parts:
            phase.left.process_started(str(job_id))
    return made


def _files(plan: Plan, job: Job) -> tuple[list[Unit], JobWork]:
    """The units and the work of a job that creates files: a bar counts checkpoints, figures, the page, and all tables
    as one."""
    since, rule = time.time(), job.rule.partition("_")[0]
    start_s, each_s = FILE_JOBS[rule]
    paths = job.output[:1] if rule == "collect" else [p for p in job.output if not p.endswith(FIGURE_KINDS)]
    units = [Unit(Path(path), job.id, (rule, path), 0.0 if rule == "stage" else since) for path in paths]
    more: dict[str, float] = {}
    if rule == "stage":
        more = {folder: size / DOWNLOAD_BYTES_PER_S for folder, size in checkpoint_bytes(plan).items()}
    elif rule == "derive":
        expected = list(plan["derive_jobs"].values())[int(job.rule.rpartition("_")[2])]["expected_s"]
        each_s += expected / max(1, len(units))
    files = {unit.key: each_s + more.get(str(unit.path.parent), 0.0) for unit in units}
    return units, JobWork(start_s, {}, files, kind="files", pool=rule)


def _cells(plan: Plan, results: Path, job: Job) -> tuple[list[Unit], JobWork]:
    """The units and the work of a job that measures or evaluates cells, or of one that repeats a single cell."""
    harness, since = job.wildcards.get("harness", ""), 0.0
    if harness:
        plan, results = accuracy.view(plan, harness), accuracy.folder(results, harness)
    if "cell" in job.wildcards:
        keys, since = [(job.wildcards["engine"], job.wildcards["cell"])], time.time()
    else:
        engines = plan["jobs"][job.wildcards["job"]]["engines"]
        keys = [(engine, cell) for engine in engines for cell in plan["engines"][engine]["cells"]]
    work = job_work(plan, dict.fromkeys(engine for engine, _ in keys), harness)
    if since:
        work.cells = {key: seconds for key, seconds in work.cells.items() if key in keys}
    units = [Unit(cell_path(results, *key), job.id, key, since, recorded=True) for key in keys]
    return units, work
