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
from moebench.progress.left import Work, seconds_left
from moebench.progress.times import Times

PHASES = ("checkpoints", "cells", "accuracy", "figures")

START_S = 12.0
"""Starting a process that imports an engine, expected before one was seen."""
CHECKPOINT_S = 2.0
"""A checkpoint."""
FIGURE_S = 0.45
"""A figure, and its share of the tables and the report, on two cores (study tiny)."""
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
    return "figures" if rule in ("collect", "figures", "report", "archive") else None


@dataclass
class Unit:
    """One thing that a bar counts: a file that is done when it is there, written after ``since`` (seconds, epoch)."""

    path: Path
    job: int
    since: float = 0.0
    free: bool = False  # truncated from another cell's record, or the tables or the page: not like other units
    engine: str = ""
    process: str = ""
    done: bool = False
    failed: bool = False

    def look(self) -> RecordHead | None:
        """Its record (of a checkpoint or figure: an empty one) if it is newly done."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            if self.done or self.path.stat().st_mtime < self.since:
                return None
            record = cast(RecordHead, json.loads(self.path.read_bytes()) if self.engine else {})
            if self.engine and not self.since and not is_final(record):
                return None
            self.done, self.failed = True, bool(self.engine) and record["status"] != "ok"
            return record
        return None


@dataclass
class Phase:
    """A phase: its units, its jobs of Snakemake, and what their times were.

    ``expected_s``: of a process start, of a further load, of a unit.  ``at_once``: jobs that may run side by side.
    """

    name: str
    expected_s: tuple[float, float, float]
    units: list[Unit] = field(default_factory=list)
    jobs: set[int] = field(default_factory=set)
    at_once: int = 1
    times: Times = field(default_factory=Times)
    last: float | None = None  # when a unit was last done or a job last started, seconds of the monotonic clock

    @property
    def done(self) -> int:
        """Finished units."""
        return sum(unit.done for unit in self.units)

    @property
    def failed(self) -> int:
        """Finished units that are not ok."""
        return sum(unit.failed for unit in self.units)

    def look(self, now: float) -> bool:
        """Look which units are done by now; True if there are new ones."""
        found = [(unit, record) for unit in self.units if (record := unit.look()) is not None]
        for unit, record in sorted(found, key=lambda pair: str(pair[1].get("ended_at"))):
            if unit.engine:
                self.times.add(unit.process, record)
            elif self.last is not None and not unit.free:
                self.times.cells.append((now - self.last) / len(found))
        if found and self.last is not None:
            self.last = now
        return bool(found)

    def job_started(self, job: int, now: float) -> None:
        """A job of this phase has started."""
        self.last = now
        for process in {unit.process for unit in self.units if unit.job == job}:
            self.times.new_process(process)

    def job_ended(self, job: int) -> None:
        """A job of this phase succeeded: all of its units are done."""
        self.jobs.discard(job)
        for unit in self.units:
            unit.done |= unit.job == job

    def seconds_left(self, now: float) -> float:
        """Seconds until the phase is done; 0 if it is."""
        if not self.jobs:
            return 0.0
        left = [unit for unit in self.units if not unit.done and not unit.free]
        starts, loads = self.times.left({(unit.process, unit.engine) for unit in left if unit.engine})
        seen = self.times.starts, self.times.loads, self.times.cells
        counts = zip((starts, loads, len(left)), self.expected_s, seen, strict=True)
        kinds = [Work(count, expected, len(times), sum(times)) for count, expected, times in counts]
        return seconds_left(kinds, min(self.at_once, len(self.jobs)), 0.0 if self.last is None else now - self.last)


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
    made: dict[str, Phase] = {}
    for job in jobs:
        name = phase_of(job.rule)
        if name is None:
            continue
        phase = made.setdefault(name, Phase(name, _expected_s(plan, name)))
        phase.jobs.add(job.id)
        phase.units += _units(plan, results, job)
        if name != "figures":
            phase.at_once = 100 if slots is None else max(1, slots // max(1, job.measuring))
    for phase in made.values():
        phase.look(time.monotonic())
        phase.times.loaded.clear()
    return {name: made[name] for name in PHASES if name in made}


def _units(plan: Plan, results: Path, job: Job) -> list[Unit]:
    """The units that a job produces."""
    now = time.time()
    if phase_of(job.rule) not in ("cells", "accuracy"):
        if job.rule == "collect":  # all tables at once
            return [Unit(Path(job.output[0]), job.id, now, free=True)]
        kept, page = 0.0 if job.rule == "stage" else now, job.rule == "report"
        return [Unit(Path(path), job.id, kept, page) for path in job.output if not path.endswith(FIGURE_KINDS)]
    if harness := job.wildcards.get("harness"):
        plan, results = accuracy.view(plan, harness), accuracy.folder(results, harness)
    if "cell" in job.wildcards:
        keys, since, name = [(job.wildcards["engine"], job.wildcards["cell"])], now, job.wildcards["engine"]
    else:
        name, since = job.wildcards["job"], 0.0
        keys = [(engine, cell) for engine in plan["jobs"][name]["engines"] for cell in plan["engines"][engine]["cells"]]
    return [
        Unit(
            cell_path(results, engine, cell),
            job.id,
            since,
            free=not since and plan["cells"][f"{engine}/{cell}"]["derived_from"] is not None,
            engine=engine,
            process=name,
        )
        for engine, cell in keys
    ]


def _expected_s(plan: Plan, phase: str) -> tuple[float, float, float]:
    """Expected time of a process start, a further load and a unit of a phase, by the plan, s.

    Of its jobs: ``unit = (sum of expected_s - load_s * engine configurations) / units that take time``.
    """
    if phase == "figures":
        return 0.0, 0.0, FIGURE_S
    if phase == "checkpoints":
        jobs = plan["derive_jobs"].values()
        models = sum(len(job["models"]) for job in jobs)
        return 0.0, 0.0, max(CHECKPOINT_S, sum(job["expected_s"] for job in jobs) / max(1, models))
    parts = list(plan["accuracy"].values()) if phase == "accuracy" else [plan]
    load_s = float(plan["jobs_settings"]["load_s"])
    expected = sum(job["expected_s"] for part in parts for job in part["jobs"].values())
    engines = sum(len(part["engines"]) for part in parts)
    units = sum(cell["derived_from"] is None for part in parts for cell in part["cells"].values())
    return load_s + START_S, load_s, max(0.0, expected - load_s * engines) / max(1, units)
