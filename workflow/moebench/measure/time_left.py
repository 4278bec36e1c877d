"""Time left of jobs: the plan's expected times, corrected by what the records so far took.  Standard library only.

Work is of three kinds, each with its own pace: the first cell of a process (with the import of the engine and the
harness), further loads, and other cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from moebench.cost.seconds import cell_seconds, load_seconds
from moebench.formats.plan import Plan
from moebench.formats.record import RecordHead

START_S, END_S = 12.0, 3.0
"""Starting a process that imports an engine; ending it, with what Snakemake does before the next."""
CPU_SHARE = 0.75
"""Of the plan's load and overhead of a cell on a CPU, between what two idle cores of an AMD EPYC take (half) and what a
machine half as fast takes (all).  Devices of a CPU are processes on the same cores: so many times as much."""
NOT_TRIED_S = 0.5
"""A cell without a load that took less was refused before anything was started."""
STARTS, LOADS, CELLS = 1.0, 3.0, 8.0
"""So many pieces of work of average length, done as expected, count besides those measured."""


@dataclass
class Pace:
    """Measured by expected time of one kind of work; ``prior_s`` of it count as done in the expected time."""

    prior_s: float
    expected_s: float = 0.0
    seen_s: float = 0.0

    def add(self, expected_s: float, seen_s: float) -> None:
        """Count a piece of work."""
        self.expected_s += expected_s
        self.seen_s += max(0.0, seen_s)

    @property
    def ratio(self) -> float:
        """``(prior_s + seen_s) / (prior_s + expected_s)``; 1 for work that takes no time."""
        whole = self.prior_s + self.expected_s
        return (self.prior_s + self.seen_s) / whole if whole else 1.0


@dataclass
class JobWork:
    """Expected times, s, of what a job has to do: its process start, each load, each cell that is not done."""

    start_s: float
    loads: Mapping[str, float]
    cells: dict[tuple[str, str], float]
    end_s: float = 0.0
    kind: str = ""
    pool: str = ""
    """Jobs of one kind have the pace of starts in common; those of one pool of it (as many devices, the same rule) also
    the paces of loads and cells."""
    started: bool = False
    """Its process has done something."""
    loaded: set[str] = field(default_factory=set)
    """Engine configurations that its process has tried to load."""
    ended: dict[tuple[str, str], float] = field(default_factory=dict)
    """End of the last cell, seconds since the epoch, by engine configuration and session."""

    def next_s(self) -> tuple[float, float, float]:
        """Start, load and cell that are next."""
        if not self.cells:
            return 0.0, 0.0, 0.0
        engine, cell = next(iter(self.cells))
        load_s = 0.0 if engine in self.loaded else self.loads.get(engine, 0.0)
        return 0.0 if self.started else self.start_s, load_s, self.cells[engine, cell]

    def whole_s(self) -> tuple[float, float, float]:
        """Starts, loads and cells that are left."""
        engines = {engine for engine, _ in self.cells} - self.loaded
        start_s = self.start_s if self.cells and not self.started else 0.0
        return start_s, sum(self.loads.get(engine, 0.0) for engine in engines), sum(self.cells.values())


class TimeLeft:
    """Time left of some jobs, by name."""

    def __init__(self, jobs: Mapping[str, JobWork]):
        self.jobs = dict(jobs)
        self._starts = {
            kind: Pace(STARTS * mean([job.start_s for job in jobs.values() if job.kind == kind]))
            for kind in {job.kind for job in jobs.values()}
        }
        self._paces: dict[tuple[str, str], tuple[Pace, Pace, Pace]] = {}
        for pool in {(job.kind, job.pool) for job in jobs.values()}:
            mine = [job for job in jobs.values() if (job.kind, job.pool) == pool]
            loads = LOADS * mean([seconds for job in mine for seconds in job.loads.values()])
            cells = CELLS * mean([seconds for job in mine for seconds in job.cells.values()])
            self._paces[pool] = self._starts[pool[0]], Pace(loads), Pace(cells)

    def process_started(self, name: str) -> None:
        """A job's process starts, with nothing loaded."""
        self.jobs[name].started = False
        self.jobs[name].loaded.clear()

    def add(self, name: str, record: RecordHead) -> None:
        """Count a record; those of a job in the order in which they ended.

        A load's time is from its request to its first cell; a cell's from the end of the one before (the canary
        included).
        """
        job, engine = self.jobs[name], record["engine"]
        expected_s = job.cells.pop((engine, record["cell"]), None)
        began, ended = _seconds(record["started_at"]), _seconds(record["ended_at"])
        failed_load = not record["load"] and record["status"] != "ok"
        session = str(record["started_at"] if failed_load else record["load"].get("session", ""))
        if not session or record.get("derived_from") or (failed_load and ended - began < NOT_TRIED_S):
            return
        start, load, cell = self._paces[job.kind, job.pool]
        before, cell_s = job.ended.get((engine, session)), 0.0 if failed_load else expected_s
        job.ended[engine, session] = ended
        load_s, loaded = job.loads.get(engine, 0.0), ended if failed_load else began
        job.loaded.add(engine)
        if before is None and not job.started:
            job.started = True
            start.add(job.start_s + load_s + (cell_s or 0.0), ended - _seconds(session))
            return
        if before is None:
            load.add(load_s, loaded - _seconds(session))
        if not failed_load and cell_s is not None:
            cell.add(cell_s, ended - (began if before is None else before))

    @property
    def seen_s(self) -> float:
        """Measured seconds of all work so far."""
        others = [pace for _, load, cell in self._paces.values() for pace in (load, cell)]
        return sum(pace.seen_s for pace in (*self._starts.values(), *others))

    def finished(self, name: str, keys: Iterable[tuple[str, str]], took_s: float | None) -> None:
        """Count pieces of work that have no records, for the pace of starts as well; ``took_s``: all together, None if
        that is unknown."""
        job = self.jobs[name]
        expected_s = sum(job.cells.pop(key, 0.0) for key in keys) + (0.0 if job.started else job.start_s)
        if took_s is not None:
            start, _, cell = self._paces[job.kind, job.pool]
            start.add(expected_s, took_s)
            cell.add(expected_s, took_s)
            job.started = True

    def seconds(self, since_s: Mapping[str, float], side_by_side: int = 1) -> float:
        """Seconds until all jobs are done: the longest of them, or all by ``side_by_side``, whichever is more.

        ``since_s``: of jobs that run, seconds since they last finished something; at most their next piece of work is
        credited for them.
        """
        left = [self._job_s(job, since_s.get(name, 0.0)) for name, job in self.jobs.items()]
        return max([sum(left) / max(1, side_by_side), *left], default=0.0)

    def _job_s(self, job: JobWork, since_s: float) -> float:
        ratios = [pace.ratio for pace in self._paces[job.kind, job.pool]]
        whole, ahead = (
            sum(seconds * ratio for seconds, ratio in zip(kinds, ratios, strict=True))
            for kinds in (job.whole_s(), job.next_s())
        )
        return whole - min(since_s, ahead) + job.end_s


def mean(seconds: list[float]) -> float:
    """Their mean; 0 if there are none."""
    return sum(seconds) / max(1, len(seconds))


def job_work(plan: Plan, engines: Iterable[str], kind: str = "") -> JobWork:
    """What a job with these engine configurations has to do by a plan (for accuracy: by the view of its harness).

    Cells truncated from another's record take no time.
    """
    engines = list(engines)
    gpus = {engine: plan["engines"][engine]["gpus"] for engine in engines}
    share = {engine: CPU_SHARE * gpus[engine] if plan["hardware"]["kind"] == "cpu" else 1.0 for engine in engines}
    loads = {engine: share[engine] * load_seconds(plan, engine) for engine in engines}
    cells = {
        (engine, cell): cell_s(plan, f"{engine}/{cell}", share[engine])
        for engine in engines
        for cell in plan["engines"][engine]["cells"]
        if plan["cells"][f"{engine}/{cell}"]["derived_from"] is None
    }
    return JobWork(START_S, loads, cells, END_S, kind, f"{max(gpus.values(), default=0)} devices")


def cell_s(plan: Plan, key: str, share: float = 1.0) -> float:
    """Expected time of a cell, s, of whose overhead only a share is needed; never less than sending its requests."""
    cell = plan["cells"][key]
    if "task" in cell:
        return share * (cell["predicted"].get("run_s") or 0.0)
    seconds = cell_seconds(cell, share * plan["jobs_settings"]["cell_overhead_s"])
    rate = cell["workload"].get("request_rate")
    return max(seconds, cell["protocol"]["repeats"] * cell["workload"]["requests"] / rate if rate else 0.0)


def about(seconds: float) -> str:
    """Time left as text, rounded to its accuracy: ``under 10 s``, ``about 40 s``, ``about 1 h 20 min``."""
    if seconds < 10:
        return "under 10 s"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 60 else f"about {minutes // 60} h {minutes % 60:02d} min"


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
