"""State of a running study, from its files alone: what is done, what failed and why, what is left.

It needs nothing from the jobs, so it works with local Snakemake jobs, SLURM jobs on other nodes, and campaigns.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from moebench import accuracy
from moebench.formats.plan import Plan
from moebench.formats.record import RecordHead
from moebench.measure.records import cell_path, is_final
from moebench.measure.time_left import JobWork, TimeLeft, about
from moebench.storage import lock

PRIOR_S = 120.0
"""Seconds of work that count as going at the pace that the plan expects."""
MOST_CAUSES = 8


@dataclass(frozen=True)
class Cause:
    """Why cells have no value: status, reason, how many, whether they are tried again."""

    status: str
    reason: str
    cells: int
    tried_again: bool


@dataclass(frozen=True)
class Line:
    """An experiment's distinct cells."""

    name: str
    cells: int
    ok: int
    unsupported: int
    failed: int

    @property
    def done(self) -> int:
        """Cells with a final record."""
        return self.ok + self.unsupported + self.failed


@dataclass(frozen=True)
class State:
    """State of a study at one moment."""

    lines: list[Line]
    causes: list[Cause]
    cells: int
    done: int
    running: list[str]
    """Jobs of which a process is measuring."""
    gpu_hours_left: float
    seconds_left: float
    """With as many jobs side by side as run now (at least one)."""
    on_gpus: bool


@dataclass
class _Job:
    gpus: int
    expected_s: float
    keys: list[tuple[str, str]]
    counted: int
    """Its cells that take time."""


class Watch:
    """Polls a study's records; reads each of them once."""

    def __init__(self, plan: Plan, results: Path):
        self.plan, self.results = plan, results
        self._seen: dict[Path, tuple[int, RecordHead]] = {}
        self._jobs: dict[str, _Job] = {}
        self._paths: dict[Path, str] = {}
        for prefix, part, folder in _parts(plan, results):
            for name, job in part["jobs"].items():
                keys = [(engine, cell) for engine in job["engines"] for cell in part["engines"][engine]["cells"]]
                counted = sum(part["cells"][f"{e}/{c}"].get("derived_from") is None for e, c in keys)
                self._jobs[prefix + name] = _Job(job["gpus"], float(job["expected_s"]), keys, counted)
                self._paths |= {cell_path(folder, *key): prefix + name for key in keys}
        self._folders = {prefix: folder for prefix, _, folder in _parts(plan, results)}
        self._times = TimeLeft(
            {name: JobWork(0.0, {}, dict.fromkeys(job.keys, 0.0)) for name, job in self._jobs.items()}
        )

    def look(self) -> State:
        """Read new records, and return the state of the study."""
        new = [(path, record) for path in self._paths if (record := self._read(path)) is not None]
        for path, record in sorted(new, key=lambda pair: str(pair[1].get("ended_at"))):
            self._times.add(self._paths[path], record)
        final = {path: record for path, (_, record) in self._seen.items() if is_final(record)}
        running = [name for name, job in self._jobs.items() if self._runs(name, job)]
        left = {name: self._left_s(name, job, final) for name, job in self._jobs.items()}
        pace = self._pace(left)
        return State(
            self._lines(final), self._causes(), len(self._paths), len(final), running,
            sum(left[name] * pace * job.gpus for name, job in self._jobs.items()) / 3600,
            sum(left.values()) * pace / max(1, len(running)), self.plan["hardware"]["kind"] != "cpu",
        )  # fmt: skip

    def _read(self, path: Path) -> RecordHead | None:
        """A record that is new or was rewritten."""
        try:
            written = path.stat().st_mtime_ns
            if self._seen.get(path, (0,))[0] == written:
                return None
            record: RecordHead = json.loads(path.read_bytes())
            is_final(record)
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or half of one
            return None
        self._seen[path] = written, record
        return record

    def _folder(self, name: str) -> Path:
        return next(folder for prefix, folder in reversed(self._folders.items()) if name.startswith(prefix))

    def _runs(self, name: str, job: _Job) -> bool:
        folder = self._folder(name)
        return any(lock.holder(folder, engine) for engine in dict.fromkeys(engine for engine, _ in job.keys))

    def _left_s(self, name: str, job: _Job, final: dict[Path, RecordHead]) -> float:
        """Expected seconds of the rest of a job, by the plan."""
        folder = self._folder(name)
        missing = sum(cell_path(folder, *key) not in final for key in job.keys)
        return job.expected_s * min(1.0, missing / max(1, job.counted))

    def _pace(self, left: dict[str, float]) -> float:
        """Measured / expected time of the finished cells."""
        measured = {name for name, job in self._times.jobs.items() if job.started}
        expected = sum(job.expected_s - left[name] for name, job in self._jobs.items() if name in measured)
        return (self._times.seen_s + PRIOR_S) / (expected + PRIOR_S)

    def _lines(self, final: dict[Path, RecordHead]) -> list[Line]:
        made = []
        for name, experiment in self.plan["experiments"].items():
            keys = {(self.results, r["engine"], r["cell"]) for r in experiment["rows"]}
            keys |= {(accuracy.folder(self.results, r["harness"]), r["engine"], r["cell"])
                     for r in experiment.get("accuracy") or ()}  # fmt: skip
            paths = [cell_path(*key) for key in keys]
            tally = Counter(final[path]["status"] for path in paths if path in final)
            failed = tally.total() - tally["ok"] - tally["unsupported"]
            if paths:
                made.append(Line(name, len(paths), tally["ok"], tally["unsupported"], failed))
        return made

    def _causes(self) -> list[Cause]:
        """Grouped by status and reason: those tried again first, then the most frequent."""
        bad = [record for _, record in self._seen.values() if record["status"] != "ok"]
        tally = Counter((r["status"], r["reason"], not is_final(r)) for r in bad)
        found = [Cause(status, reason, n, again) for (status, reason, again), n in tally.items()]
        return sorted(found, key=lambda c: (not c.tried_again, c.status == "unsupported", -c.cells, c.reason))


def _parts(plan: Plan, results: Path) -> Iterator[tuple[str, Plan, Path]]:
    """Speed cells, and those of each harness: what the names of their jobs begin with, plan, folder."""
    yield "", plan, results
    for harness, part, folder in accuracy.views(plan, results):
        yield f"{harness}: ", part, folder


def shown(study: str, state: State, report: str = "") -> RenderableType:
    """The state for a terminal; ``report``: text about the report."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head, side in (("experiment", "left"), ("", "left"), ("done", "right"), ("measured", "right"),
                       ("unsupported", "right"), ("failed", "right")):  # fmt: skip
        table.add_column(head, justify=side)  # type: ignore[arg-type]
    for line in state.lines:
        numbers = [str(n) if n else "" for n in (line.ok, line.unsupported)]
        failed = Text(str(line.failed) if line.failed else "", style="red")
        table.add_row(
            line.name, ProgressBar(line.cells, line.done, width=20), f"{line.done}/{line.cells}", *numbers, failed
        )
    return Group(Text(f"study {study}: {words(state)}", style="bold"), table, *_why(state), Text(report))


def words(state: State) -> str:
    """The state in a line."""
    if state.done == state.cells:
        return f"all {state.cells:,} cells are done"
    jobs = (
        f"{len(state.running)} job{'' if len(state.running) == 1 else 's'} running"
        if state.running
        else "no jobs running"
    )
    hours = "GPU-hours" if state.on_gpus else "hours of work"
    digits = max(0, 1 - math.floor(math.log10(state.gpu_hours_left))) if state.gpu_hours_left else 0
    left = f"{about(state.seconds_left)} left" + (" with one job" if not state.running else "")
    return f"{state.done:,} of {state.cells:,} cells done, {jobs}; {left}, {state.gpu_hours_left:.{digits}f} {hours}"


def _why(state: State) -> list[Text]:
    """Why cells have no value."""
    lines = []
    for cause in state.causes[:MOST_CAUSES]:
        again = ", to be tried again" if cause.tried_again else ""
        style = "dim" if cause.status == "unsupported" else "red"
        lines.append(Text(f"{cause.cells} {cause.status}{again}: {cause.reason}", style=style))
    more = sum(cause.cells for cause in state.causes[MOST_CAUSES:])
    return (
        [Text(), *lines, *([Text(f"and {more} more: moebench failures", style="dim")] if more else [])] if lines else []
    )
