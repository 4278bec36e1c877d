"""Terminal output while Snakemake runs: phases, failures, the report's path.

The logger plugin ``snakemake_logger_plugin_moebench`` makes a :class:`Run` and feeds it; the Snakefile tells it the
plan (``planned``) and the jobs to run (``begin``).  Without the plugin both do nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from moebench.formats import Knobs
from moebench.formats.plan import Plan
from moebench.measure.time_left import about
from moebench.models.hubprogress import time_text
from moebench.progress.failure import INTERRUPTED, Failure, reason
from moebench.progress.phases import Job, Phase, phase_of, phases_of
from moebench.progress.screen import Screen, screen_on

current: Run | None = None
"""The run of this process, if the plugin is used."""

LOOK_S = 1.0
"""Seconds between checks of the jobs' files."""


def planned(plan: Plan, config: Knobs) -> None:
    """Pass the plan to the run, if there is one."""
    if current is not None:
        current.plan, current.config = plan, config


def begin(workflow: Any) -> None:
    """Pass the jobs of a Snakemake workflow to the run, if there is one."""
    if current is not None:
        jobs = [
            Job(job.jobid, job.rule.name, tuple(map(str, job.output)), dict(job.wildcards_dict or {}),
                int(job.resources.get("measuring", 0) or 0))
            for job in workflow.dag.needrun_jobs()
        ]  # fmt: skip
        slots = workflow.global_resources.get("measuring")
        current.begin(jobs, None if slots is None else int(getattr(slots, "value", slots)))


class Run:
    """One call of Snakemake, as its user sees it.  Methods may be called from any thread."""

    def __init__(self) -> None:
        self.plan = cast(Plan, {})  # until ``planned``
        self.config: Knobs = {}
        self.jobs: dict[int, Job] = {}
        self.phases: dict[str, Phase] = {}
        self.interrupted = self.idle = False
        self.failures: dict[int, Failure] = {}
        self.output = Path(".snakemake/log") / f"{time.strftime('%Y-%m-%dT%H%M%S')}.jobs.log"
        self._running: dict[int, tuple[float, int, list[str]]] = {}  # since, size of the output then, logs
        self._screen: Screen | None = None
        self._saved: tuple[int, int] | None = None
        self._began = time.monotonic()
        self._lock, self._closed = threading.RLock(), threading.Event()

    # ------------------------------------------------------------------------------------------- the run

    def begin(self, jobs: Iterable[Job], slots: int | None) -> None:
        """Show the phases of these jobs from now on; what the jobs print goes to the file ``output``."""
        with self._lock:
            jobs = list(jobs)
            self.phases = phases_of(self.plan, Path(self.config["results"]), jobs, slots)
            self.jobs = {job.id: job for job in jobs}
            self._screen = screen_on(self._divert())
            self._screen.note(self._summary())
        self.look()
        threading.Thread(target=self._watch, daemon=True).start()

    def _summary(self) -> str:
        parts = [f"{len(p.units) - p.done} of {len(p.units)} {name}" for name, p in self.phases.items()]
        left = sum(phase.seconds_left(time.monotonic()) for phase in self.phases.values())
        return f"study {self.plan['study']}: to do: {', '.join(parts)}; {about(left)}"

    def _divert(self) -> Any:
        """Send what this process and its jobs print to ``output``; return the terminal (standard error until now)."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self._saved = os.dup(1), os.dup(2)
        with open(self.output, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        return open(os.dup(self._saved[1]), "w")

    def _restore(self) -> None:
        if self._saved is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, saved in enumerate(self._saved, start=1):
                os.dup2(saved, number)
                os.close(saved)
            self._saved = None

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Read what the jobs wrote, and show it."""
        with self._lock:
            if self._screen is not None and not self._closed.is_set():
                now = time.monotonic()
                for phase in self.phases.values():
                    phase.look(now)
                running = {str(phase_of(self.jobs[job].rule)) for job in self._running}
                self._screen.show(self.phases.values(), running, now)

    def note(self, text: str) -> None:
        """Show a line that stays."""
        with self._lock:
            if self._screen is not None:
                self._screen.note(text)
            else:
                print(text, file=sys.stderr, flush=True)

    # ------------------------------------------------------------------------------------------ its jobs

    def _phase(self, job: int) -> Phase | None:
        return self.phases.get(str(phase_of(self.jobs[job].rule))) if job in self.jobs else None

    def job_started(self, job: int, logs: list[str]) -> None:
        """A job has started; ``logs``: those of its rule."""
        with self._lock:
            if phase := self._phase(job):
                phase.job_started(job, time.monotonic())
                size = self.output.stat().st_size if self.output.exists() else 0
                self._running[job] = time.time(), size, logs
        self.look()

    def job_finished(self, job: int) -> None:
        """A job succeeded."""
        with self._lock:
            self._running.pop(job, None)
            self.failures.pop(job, None)
            if phase := self._phase(job):
                phase.job_ended(job)
        self.look()

    def job_failed(self, job: int, rule: str, logs: list[str]) -> None:
        """A job failed; Snakemake may try it again."""
        with self._lock:
            since, offset, _ = self._running.pop(job, (0.0, 0, []))
            phase, log = self._phase(job), Path(logs[0]) if logs else None
            if phase:
                phase.job_failed(job)
            why, where = reason(
                log, self.output, since, offset, [u for u in phase.units if u.job == job] if phase else []
            )
            if INTERRUPTED in why.split(":")[-1]:
                self.interrupted = True
                return
            job_words = self.jobs[job].wildcards if job in self.jobs else {}
            what = f"rule {rule}" + "".join(f", {key} {value}" for key, value in job_words.items())
            failure, earlier = Failure(what, why, str(where)), self.failures.get(job)
            self.failures[job] = failure
            if earlier == failure:
                self.note(f"failed again: {what}")
            else:
                self.note("\n".join(failure.lines()))

    # ------------------------------------------------------------------------------------------- the end

    def report(self) -> Path | None:
        """The study's report or, where that was requested, its archive; None if there is none."""
        if not self.plan:
            return None
        folder = Path(self.config["reports"]) / self.plan["study"]
        name = "archive.zip" if any(job.rule == "archive" for job in self.jobs.values()) else "report.html"
        return folder / name if (folder / name).exists() else None

    def close(self) -> None:
        """Finish: leave the bars as they are, list failures, and print the report's path on standard output if all went
        well."""
        if self._closed.is_set():
            return
        self.look()
        self._closed.set()
        with self._lock:
            unfinished = any(phase.jobs for phase in self.phases.values())
            if self._screen is not None:
                self._screen.close()
            self._restore()
            self._screen = None
        good = self.idle or (bool(self.jobs) and not unfinished and not self.failures and not self.interrupted)
        if self.interrupted:
            self.note("interrupted: what was measured is kept; run the same command again to continue")
        elif good:
            self.note(self._ending())
            if (path := self.report()) is not None:
                with contextlib.suppress(OSError):
                    print(path, flush=True)
        elif self.jobs:
            for failure in self.failures.values():
                self.note("\n".join(failure.lines()))
            count = len(self.failures)
            self.note(
                f"{count} job{'' if count == 1 else 's'} failed; what was measured is kept. Fix the cause, then run "
                "the same command again"
            )

    def _ending(self) -> str:
        if self.idle:
            return f"Nothing to do: study {self.plan.get('study')} is complete as requested."
        parts = [
            f"{len(phase.units)} {name}"
            + (f" ({phase.failed} without a value: `moebench failures`)" * bool(phase.failed))
            for name, phase in self.phases.items()
        ]
        took = time.monotonic() - self._began
        return f"study {self.plan['study']}: {', '.join(parts)} in {time_text(took)}"
