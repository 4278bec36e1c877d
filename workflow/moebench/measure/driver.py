"""The driver of a measuring job: loads each engine configuration once, runs its pending cells, stores every record.

The engine lives in a worker process.  Whatever happens to it (an exception, a segfault, ``kill -9``, a hang) becomes
the record of the cell it happened to; the driver starts another worker and continues with the rest.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import cast

from moebench.architectures import hf_config
from moebench.architectures.quantization_schemes import claim_problem
from moebench.engines import failures, variables, vllm_kernels
from moebench.errors import StageError, UserError
from moebench.formats import Json
from moebench.formats.messages import Outcome, Request
from moebench.formats.plan import Cell, EngineConfig, EngineKnobsDict, Job, Plan
from moebench.formats.record import (
    Answered,
    CanaryRun,
    EngineVersion,
    Gpu,
    LoadFacts,
    Measured,
    Provenance,
    Rank,
    Record,
    RecordHead,
)
from moebench.measure import device, engine_environment, faults, manifest, max_rate, neighbours, provenance, records
from moebench.measure.job_log import Say
from moebench.measure.process import Worker, WorkerDied, WorkerTimeout
from moebench.measure.telemetry import sidecar
from moebench.measure.time_left import TimeLeft, about, job_work
from moebench.measure.truncation import truncate_to_output
from moebench.models.derive import how_to_make
from moebench.prompts import corpora
from moebench.storage import atomic, disk, lock, scratch, staged

MAX_LOSSES = 3
"""Cells in a row lost to the machinery, after which an engine configuration is given up for this job."""

MAX_HOST_FAULTS = 3
"""Loads or cells in a row that one fault of the node or its environment costs, after which a job stops."""

UNLOAD_TIMEOUT_S = 120

CANARY_MINIMUM = 3
"""Cells an engine session needs before the canary cell is worth its time."""


class Driver:
    """Runs one job of a plan.

    Args:
        plan: the plan, as read from its file.
        results: the results folder.
        log: log file of the engine's output.
        say: prints a line of progress.
        python: interpreter of the engine's environment; default: this one.
    """

    worker_module = "moebench.measure.worker"

    def __init__(self, plan: Plan, results: Path, log: Path, say: Say, python: str = sys.executable):
        self.plan, self.results, self.log, self.say, self.python = plan, results, log, say, python
        self.settings = plan["jobs_settings"]
        self.worker: Worker | None = None
        self.sidecar: sidecar.Sidecar | None = None
        self.loaded = False
        self.canary: list[CanaryRun] = []
        self.facts: LoadFacts = {}
        self.seen: Provenance = {}
        self.done, self.total, self.kept = 0, 0, 0
        self.time_left: TimeLeft | None = None
        self.host = provenance.of_driver()
        self.host_faults: list[str] = []

    # ------------------------------------------------------------------------------------------ the job

    def run_job(self, job: str) -> bool:
        """Measure a job's pending cells and write its manifest.

        Returns False if a cell had an infrastructure failure and may be retried; then there is no manifest. Raises
        StageError (a model is not staged, or differs from the plan) or StorageError (cannot write).
        """
        spec = self.plan["jobs"][job]
        earlier = manifest.read(self.results, job)
        self.canary = list(earlier["canary"]) if earlier else []
        self.check_staged(spec["engines"])
        self.check_shell(spec["engines"])
        self.total = sum(len(self.plan["engines"][e]["cells"]) for e in spec["engines"])
        self.done = sum(self.is_measured(*key) for key in self.keys(spec))
        self.expect(spec["engines"])
        try:
            for engine_id in spec["engines"]:
                if self.is_hopeless():
                    break
                with lock.held(self.results, engine_id, self.say):
                    records.sweep(self.results, engine_id)
                    pending = self.pending(engine_id)
                    self.done = min(self.done, self.total - len(pending))  # intact records may be damaged since
                    self.run_engine(engine_id, self.skip_infeasible(engine_id, pending))
        finally:
            self.stop_worker()
        left = [key for key in self.keys(spec) if not self.is_done(key, waiting=True)]
        if left:
            self.say(
                f"{job}: {len(left)} of {self.total} cells have no result yet and will be tried again; first: "
                + "/".join(left[0])
            )
            return False
        manifest.write(self.results, job, spec, self.plan, self.canary)
        return True

    def run_cell(self, engine_id: str, cell_id: str) -> bool:
        """Measure one cell now, even if it has a record; returns False on an infrastructure failure.

        The manifest of its job is rewritten, so that tables and report are updated, or removed if the cell failed.
        """
        if f"{engine_id}/{cell_id}" not in self.plan["cells"]:
            raise StageError(
                f"{engine_id}/{cell_id}: no such cell in the plan of study {self.plan['study']}; "
                "`moebench plan --cells` lists them"
            )
        self.check_staged([engine_id])
        self.check_shell([engine_id])
        records.tries_path(self.results, engine_id, cell_id).unlink(missing_ok=True)
        self.total = 1
        try:
            with lock.held(self.results, engine_id, self.say):
                self.run_engine(engine_id, [cell_id], derive=False)
        finally:
            self.stop_worker()
        job = next(j for j, spec in self.plan["jobs"].items() if engine_id in spec["engines"])
        record = records.current(self.results, engine_id, cell_id)[0]
        good = record is not None and record["status"] in records.FINAL
        earlier = manifest.read(self.results, job)
        if earlier is not None:
            spec = self.plan["jobs"][job]
            whole = all(self.is_done(key, waiting=True) for key in self.keys(spec))
            if good and earlier["digest"] == spec["digest"] and whole:
                manifest.write(self.results, job, spec, self.plan, earlier["canary"])
            else:
                manifest.path_of(self.results, job).unlink()
        return good

    def keys(self, spec: Job) -> list[tuple[str, str]]:
        """(engine, cell) of a job."""
        return [(e, c) for e in spec["engines"] for c in self.plan["engines"][e]["cells"]]

    def is_done(self, key: tuple[str, str], waiting: bool = False) -> bool:
        """Whether a cell has a final record; with ``waiting``, a cell that waits for a service counts too."""
        record = records.current(self.results, *key)[0]
        if record is None:
            return False
        return self.is_final(record) or (waiting and record["status"] in records.WAITING)

    def is_final(self, record: RecordHead) -> bool:
        """Whether a record is final; one that was skipped by choice is final only while the study still chooses so."""
        if record["status"] == "infeasible":
            return bool(self.settings["skip_infeasible"])
        return records.is_final(record)

    def pending(self, engine_id: str) -> list[str]:
        """Cells of an engine configuration without a final record, in the plan's order."""
        found = []
        for cell_id in self.plan["engines"][engine_id]["cells"]:
            record, damaged = records.current(self.results, engine_id, cell_id)
            if damaged:
                self.say(f"{engine_id}/{cell_id}: its record was set aside: {damaged}")
            if record is None or not self.is_final(record):
                found.append(cell_id)
        return found

    def is_measured(self, engine_id: str, cell_id: str) -> bool:
        """Whether a cell has a final record, which is not measured again.  Raises StorageError for a newer schema."""
        try:
            return self.is_final(records.load(records.cell_path(self.results, engine_id, cell_id)))
        except (FileNotFoundError, records.RecordDamaged):
            return False

    def check_staged(self, engines: list[str]) -> None:
        """Refuse models that are not completely staged or differ from the registry.  Raises StageError."""
        specs = [self.plan["engines"][engine_id] for engine_id in engines]
        for corpus in {name: c for spec in specs for name, c in spec.get("corpora", {}).items()}.values():
            if problem := corpora.check(corpus):
                raise StageError(problem)
        own = cast(EngineKnobsDict, {"experts": None, "moe_ffn_size": None, "quantization": "none"})
        drafts = [(draft, own) for spec in specs if (draft := spec["draft"])]
        for model, config in [(spec["model"], spec["config"]) for spec in specs] + drafts:
            folder, stage = Path(model["path"]), how_to_make(model, self.plan)
            try:
                problems = staged.check(folder)
                if problems:
                    raise StageError(f"{problems[0]}; {stage}")
                written = json.loads((folder / "config.json").read_text())
            except (ValueError, OSError) as error:
                raise StageError(f"{folder}: cannot be read ({error}); delete it and {stage}") from None
            overrides = hf_config.shape_overrides(model, config)
            problem = claim_problem(config.get("quantization", "none"), written)
            if problem:
                raise StageError(f"{folder}/config.json: {problem}")
            found = hf_config.disagreements(model["architecture"], merged(written, overrides))
            if found:
                raise StageError(
                    f"{folder}/config.json disagrees with config/models/{model['name']}.yaml: "
                    f"{'; '.join(found)}; fix whichever is wrong"
                )

    def check_shell(self, engines: list[str]) -> None:
        """Refuse shell variables that change the measurement, unless the study declares them.  Raises UserError."""
        for spec in (self.plan["engines"][engine_id] for engine_id in engines):
            declared = spec["runtime"].get("variables", {})
            found = {k: v for k, v in self.variables(spec).items() if k not in declared}
            if changing := [f"{k}={v}" for k, v in found.items() if variables.changes(k, spec["nodes"])]:
                raise UserError(
                    f"{', '.join(changing)}: set in this job's shell or in NCCL's files, and changes what is measured; "
                    f"unset it, or declare it in study {self.plan['study']} (engine.variables: its cells get other ids)"
                )

    # --------------------------------------------------------------------------------- an engine's cells

    def run_engine(self, engine_id: str, pending: list[str], derive: bool = True) -> None:
        """Measure the pending cells of one engine configuration."""
        todo = [c for c in pending if not (derive and self.derivable(engine_id, c, pending))]
        later = [c for c in pending if c not in todo]
        sentinel = self.canary_cell(engine_id, todo) if derive else None
        middle, lost = len(todo) // 2, 0
        for number, cell_id in enumerate(todo):
            if not self.has_time(engine_id, cell_id):
                continue
            position = ("middle" if number == middle else "") if self.loaded else "start"
            failed = self.ready(engine_id)
            if failed is None and position:
                failed = self.run_canary(engine_id, sentinel, position) or self.ready(engine_id)
            outcome = self.measure(engine_id, cell_id) if failed is None else failed
            if failures.of_host(outcome):
                self.keep(engine_id, cell_id, outcome | {"checks": {"host": 0}})
                self.note_host_fault(outcome["reason"])
                if failed is not None or self.is_hopeless():
                    return  # nothing is known about the other cells
                continue
            self.host_faults.clear()
            if failed is not None or self.cannot_run(engine_id, outcome):
                for other in todo[number:] + later:
                    self.keep(engine_id, other, outcome)
                return
            self.keep(engine_id, cell_id, outcome)
            lost = lost + 1 if outcome["status"] in records.INFRASTRUCTURE else 0
            if lost == MAX_LOSSES:
                self.say(f"{engine_id}: abandoned for now, {MAX_LOSSES} cells in a row were lost")
                break
        if self.loaded:
            self.run_canary(engine_id, sentinel, "end")
            self.unload()
        self.derive(engine_id, later, measure=lost < MAX_LOSSES)

    def note_host_fault(self, reason: str) -> None:
        """Record a fault of the node, for this job and for later SLURM jobs."""
        if self.host_faults and self.host_faults[-1] != reason:
            self.host_faults.clear()
        self.host_faults.append(reason)
        faults.note(self.results, reason)
        if self.is_hopeless():
            self.say(
                f"stopped: {MAX_HOST_FAULTS} times in a row on {faults.node()}: {reason}; fix the node or its "
                "environment (`moebench doctor`, run there), then run again: none of this counts as a result"
            )

    def is_hopeless(self) -> bool:
        """Whether this node has failed too often for one reason."""
        return len(self.host_faults) >= MAX_HOST_FAULTS

    def has_time(self, engine_id: str, cell_id: str) -> bool:
        """Whether there is time to start a cell.  Always true here: SLURM enforces a job's time limit."""
        return True

    def cannot_run(self, engine_id: str, outcome: Outcome) -> bool:
        """Whether a failure applies to the whole engine configuration: no kernel, and neither a cell nor the canary
        ever ran."""
        if not failures.of_configuration(outcome) or any(run["engine"] == engine_id for run in self.canary):
            return False
        found = (records.current(self.results, engine_id, c)[0] for c in self.plan["engines"][engine_id]["cells"])
        return not any(record is not None and record["status"] == "ok" for record in found)

    def skip_infeasible(self, engine_id: str, pending: list[str]) -> list[str]:
        """Record cells that are predicted not to fit, if the study chooses so; return the others."""
        fits = self.plan["engines"][engine_id]["predicted"]
        if not self.settings["skip_infeasible"] or fits["fits"] is not False:
            return pending
        for cell_id in pending:
            need = self.plan["cells"][f"{engine_id}/{cell_id}"]["predicted"]["bytes_per_gpu"] or 0.0
            reason = (
                f"predicted to need {need / 1e9:.1f} GB per GPU, more than {self.plan['hardware']['title']} has; "
                "not tried (jobs.skip_infeasible)"
            )
            self.keep(
                engine_id,
                cell_id,
                {"status": "infeasible", "reason": reason, "started_at": atomic.stamp(), "phase": "load"},
            )
        return []

    def derivable(self, engine_id: str, cell_id: str, pending: list[str]) -> bool:
        """Whether a cell's record can be truncated from another one that is measured or pending."""
        parent = self.plan["cells"][f"{engine_id}/{cell_id}"]["derived_from"]
        if parent is None:
            return False
        record = records.current(self.results, engine_id, parent)[0]
        return parent in pending or (record is not None and record["status"] == "ok")

    def derive(self, engine_id: str, cells: list[str], measure: bool) -> None:
        """Truncate longer runs to records of shorter outputs; measure those that cannot be truncated."""
        rest = []
        for cell_id in cells:
            cell = self.plan["cells"][f"{engine_id}/{cell_id}"]
            longer = cell["derived_from"]
            parent = records.current(self.results, engine_id, longer)[0] if longer else None
            outcome = truncate_to_output(parent, cell["workload"]) if parent and parent["status"] == "ok" else None
            if outcome is not None:
                self.keep(engine_id, cell_id, outcome)
            else:
                rest.append(cell_id)
        if rest and measure:
            self.run_engine(engine_id, rest, derive=False)

    def canary_cell(self, engine_id: str, todo: list[str]) -> str | None:
        """The smallest timed cell of an engine configuration; None: too few timed cells for a canary."""

        def size(cell_id: str) -> tuple[int, str]:
            work = self.plan["cells"][f"{engine_id}/{cell_id}"]["workload"]
            return work["batch"] * (work["input_tokens"] + work["output_tokens"]), cell_id

        def timed(cell_id: str) -> bool:
            return bool(self.plan["cells"][f"{engine_id}/{cell_id}"]["protocol"]["kind"] in ("trace", "paper"))

        if sum(map(timed, todo)) < CANARY_MINIMUM:
            return None
        cells: list[str] = self.plan["engines"][engine_id]["cells"]
        return min(filter(timed, cells), key=size)

    def run_canary(self, engine_id: str, cell_id: str | None, position: str) -> Outcome | None:
        """Run the canary; if that ends the engine, the next cell loads it again.

        Returns the outcome of all cells if the canary shows that none can run, else None.
        """
        if cell_id is None:
            return None
        cell = self.plan["cells"][f"{engine_id}/{cell_id}"]
        request: Request = {
            "do": "canary",
            "workload": cell["workload"],
            "protocol": cell["protocol"],
            "seed": 10_000_019 + len(self.canary) * 2,
        }
        started = atomic.stamp()
        reply = self.ask(request, self.settings["cell_timeout_s"], "run")
        if "metrics" in reply:
            where = {"engine": engine_id, "cell": cell_id, "position": position, "session": self.facts["session"]}
            self.canary.append(cast(CanaryRun, {**where, **reply}))
        else:
            self.say(f"{engine_id}: the canary at the {position} failed: {reply['reason']}")
        lost = failures.of_host(reply) or self.cannot_run(engine_id, reply)
        return reply | {"started_at": started} if lost else None

    # ---------------------------------------------------------------------------------- asking the worker

    def ready(self, engine_id: str) -> Outcome | None:
        """Load an engine configuration unless it is loaded; return None, or the outcome for all its cells."""
        if self.loaded:
            return None
        spec = self.plan["engines"][engine_id]
        self.say(f"loading {engine_id}")
        if self.worker is None:
            self.seen = {}
            self.worker = Worker(self.python, self.log, self.environment(spec), self.worker_module)
            if self.time_left is not None:
                self.time_left.process_started("")
        self.watch(spec)
        request: Request = {"do": "load", "name": spec["runtime"]["kind"], "engine": spec}
        started = atomic.stamp()
        reply = self.ask(request, self.settings["load_timeout_s"], "load")
        if not spec["runtime"]["hosted"]:
            self.check_device(spec["gpus"] // spec["nodes"])
            self.check_environment(spec, reply.get("facts"))
            self.check_ranks(spec, reply.get("facts", {}).get("ranks", []))
        if "status" in reply:
            return reply | {"started_at": started, "phase": "load"}
        expected = hf_config.reshaped(spec["model"]["architecture"], top_k=spec["config"]["top_k"])
        resolved = reply["facts"]["resolved_config"]  # a service does not report its own
        found = hf_config.disagreements(expected, resolved) if resolved else []
        if found:
            self.stop_worker()
            reason = f"the engine loaded a model other than the registry's: {'; '.join(found)}"
            return {"status": "invalid", "reason": reason, "started_at": started, "phase": "load"}
        assert self.worker is not None
        untuned = vllm_kernels.untuned(spec["config"], self.worker.said())
        self.facts = reply["facts"] | {"session": started, "untuned_kernel_warning": untuned}
        if self.sidecar is not None:
            self.seen = self.seen | {"telemetry": self.sidecar.begin()}
        self.loaded = True
        self.say(f"loaded {engine_id} in {reply['took_s']:.0f} s")
        return None

    def watch(self, spec: EngineConfig) -> None:
        """Start reading telemetry of an engine configuration's devices."""
        if self.sidecar is not None:
            self.sidecar.close()
        kind, where = self.plan["hardware"]["kind"], self.environment(spec)
        hosted = spec["runtime"]["hosted"]
        self.sidecar = None if hosted else sidecar.Sidecar(self.python, kind, spec["gpus"], spec["nodes"], where)

    def check_device(self, count: int = 1) -> None:
        """Refuse devices other than the study's (``count`` on this node): their records would have the wrong name.

        Raises UserError.
        """
        hardware, name = self.plan["hardware"], self.seen.get("device_name")
        gpus: list[Gpu] = self.seen.get("gpus", [])[: max(count, 1)]
        known = [device.unlike(hardware, **gpu) for gpu in gpus] or [name and device.unlike(hardware, name)]
        for found in filter(None, known):
            raise UserError(
                f"this machine has {found}, study {self.plan['study']} is for {hardware['device_name']}: run it on "
                f"such a machine (the profile's partition and gpu_model), or choose another hardware in the study"
            )

    def check_ranks(self, spec: EngineConfig, ranks: list[Rank]) -> None:
        """Refuse devices and environments of other nodes that differ from the plan.  Raises UserError."""
        hardware = self.plan["hardware"]
        for rank in ranks:
            found = device.unlike(hardware, **rank["gpu"]) if rank["gpu"] else None
            if found:
                study = self.plan["study"]
                raise UserError(
                    f"node {rank['node']} has {found}, study {study} is for {hardware['device_name']}: exclude the "
                    f"node (slurm_extra or constraint in the profile), or choose another hardware in the study"
                )
            seen: Provenance = {"versions": rank["versions"], "lock_sha256": rank["lock_sha256"]}
            if problem := provenance.unlike_the_plan(spec["runtime"], seen):
                raise UserError(f"node {rank['node']}: {problem}")

    def check_environment(self, spec: EngineConfig, facts: LoadFacts | None) -> None:
        """Refuse an engine other than the plan's: its records would have the wrong version.  Raises UserError.

        ``facts``: the engine's reply to loading.
        """
        served = provenance.said_version((facts or {}).get("server_version"))
        if problem := provenance.unlike_the_plan(spec["runtime"], self.seen, served):
            raise UserError(problem)

    def measure(self, engine_id: str, cell_id: str) -> Outcome:
        """Measure a cell in the loaded engine; return its outcome, also after a failure."""
        cell = self.plan["cells"][f"{engine_id}/{cell_id}"]
        started, before = atomic.stamp(), neighbours.cpus()
        searching = cell.get("workload", {}).get("find")
        reply = self.search(cell) if searching else self.run_in_engine(cell)
        reply |= {"started_at": started}
        seen = [found for found in (before, neighbours.cpus()) if found is not None]
        return reply | ({"checks": reply.get("checks", {}) | {"other_jobs_cpus": max(seen)}} if seen else {})

    def run_in_engine(self, cell: Cell) -> Outcome:
        """Run a cell once, with its devices' telemetry."""
        return sidecar.attach(self.sidecar, self.ask(self.request(cell), self.settings["cell_timeout_s"], "run"))

    def search(self, cell: Cell) -> Outcome:
        """Run a cell at one rate after another; each has the time limit of a cell."""
        journal = max_rate.Journal(self.results, cell["engine"], cell["cell"])
        if journal.tries:
            self.say(f"{cell['engine']}/{cell['cell']}: continues after {len(journal.tries)} rates")
        ask = lambda work: self.run_in_engine({**cell, "workload": work})  # noqa: E731
        return max_rate.search(cell["workload"], journal, ask, self.say)

    def request(self, cell: Cell) -> Request:
        """The request to the worker for a cell."""
        return {
            "do": "run",
            "workload": cell["workload"],
            "protocol": cell["protocol"],
            "image_tokens": cell["predicted"].get("image_tokens"),
        }

    def ask(self, request: Request, timeout_s: float, phase: str) -> Outcome:
        """Send a request to the worker; any error becomes an outcome and ends the worker.

        After a failure an engine may hold memory or unfinished requests, so nothing else is measured in it.
        """
        assert self.worker is not None
        try:
            reply = self.worker.ask(request, timeout_s)
        except WorkerDied as death:
            status, reason, evidence = failures.classify_death(death.code, self.worker.said(), phase)
            reply = {"status": status, "reason": reason, "evidence": evidence}
        except WorkerTimeout:
            reply = {
                "status": "timeout",
                "reason": f"no answer within {timeout_s:.0f} s ({phase})",
                "evidence": self.worker.said().splitlines()[-5:],
            }
        self.seen = reply.pop("provenance", self.seen)
        if reply.pop("cause_in_log", False) and failures.decisive(self.worker.said()):
            status, reason, evidence = failures.classify_log(self.worker.said(), phase)
            reply |= {"status": status, "reason": reason, "evidence": evidence}
        if reply.get("reason", "").startswith(disk.DISK):
            reason = disk.explain(reply["reason"], reply.get("evidence") or [], self.written())
            reply |= {"reason": reason, "checks": {"storage": 0}}
        intact = reply.pop("intact", False)  # refused before anything was started
        if reply.get("status", "ok") not in ("ok", "invalid") and not intact:
            self.stop_worker()
        return reply

    def written(self) -> list[Path]:
        """Folders that this job and its engine write to."""
        return [*filter(None, [self.local]), *disk.written(self.results, self.log)]

    @functools.cached_property
    def local(self) -> Path | None:
        """This job's folder on its node's disk, if it needs one.  Raises UserError."""
        return scratch.make() if scratch.needed() else None

    def environment(self, spec: EngineConfig) -> dict[str, str]:
        """Environment of the engine process: offline, this package importable, engine switches set."""
        return {**os.environ, **spec["runtime"].get("variables", {}), **self.switches(spec)}

    def variables(self, spec: EngineConfig) -> dict[str, str]:
        """The variables that the engine reads from this job's environment and the study; none for a service."""
        shell = {**os.environ, **spec["runtime"].get("variables", {})}
        return {} if spec["runtime"]["hosted"] else variables.of(shell, but=self.switches(spec))

    def switches(self, spec: EngineConfig) -> dict[str, str]:
        """Variables that the plan and this driver set for the engine; they override the shell's."""
        switches = engine_environment.switches(spec, Path(self.python))
        return switches | (scratch.environment(self.local) if self.local else {})

    def unload(self) -> None:
        """Free the engine; the process is reused for the next engine configuration if that is safe."""
        if self.settings["pack_minutes"] == 0:
            self.stop_worker()
        elif self.loaded:
            self.ask({"do": "unload"}, UNLOAD_TIMEOUT_S, "run")
        self.loaded = False

    def stop_worker(self) -> None:
        """End the engine process, if there is one."""
        if self.sidecar is not None:
            self.sidecar.close()
        if self.worker is not None:
            self.worker.close()
        self.worker, self.sidecar, self.loaded = None, None, False

    # ------------------------------------------------------------------------------------------- records

    def keep(self, engine_id: str, cell_id: str, outcome: Outcome) -> None:
        """Write the record of a cell and log it.  Raises StorageError."""
        spec, cell = self.plan["engines"][engine_id], self.plan["cells"][f"{engine_id}/{cell_id}"]
        head: RecordHead = {
            "schema": records.SCHEMA,
            "study": self.plan["study"],
            "engine": engine_id,
            "cell": cell_id,
            "status": outcome["status"],
            "reason": variables.hide(outcome["reason"]),
            "evidence": [variables.hide(line) for line in outcome.get("evidence", [])],
            "started_at": outcome["started_at"],
            "ended_at": atomic.stamp(),
            "attempt": records.attempts_in_a_row(self.results, engine_id, cell_id) + 1,
            "engine_config": spec["config"],
            "engine_version": self.engine_version(spec),
            "hardware": spec["runtime"]["hardware"] or self.plan["hardware"]["name"],
            "model": spec["model"],
            "load": outcome.get("load", {} if outcome.get("phase") == "load" else self.facts),
            "checks": outcome.get("checks", {}),
            "provenance": outcome.get("provenance", self.origin(spec)),
        }
        record = cast(Record, {**head, "predicted": cell["predicted"], **self.about(cell, outcome)})
        if "activation" in outcome:
            record["activation"] = outcome["activation"]
        if corpus := spec.get("corpora", {}).get(cell.get("workload", {}).get("corpus")):
            record["provenance"] = record["provenance"] | {"prompt_corpus_sha256": corpora.sha256(corpus)}
        records.store(self.results, record)
        if record["status"] in records.FINAL:
            records.tries_path(self.results, engine_id, cell_id).unlink(missing_ok=True)
        self.done += 1
        self.kept += 1
        self.progress(engine_id, cell_id, record)

    def engine_version(self, spec: EngineConfig) -> EngineVersion:
        """The engine that ran an engine configuration."""
        runtime = spec["runtime"]
        return {k: runtime[k] for k in ("name", "version", "kind", "hosted")}  # type: ignore[return-value]

    def origin(self, spec: EngineConfig) -> Provenance:
        """Where the numbers of an engine configuration come from."""
        built = provenance.of_environment(spec["runtime"]["environment"])
        return self.host | built | {"variables": self.variables(spec)} | self.seen

    def about(self, cell: Cell, outcome: Outcome) -> Measured | Answered:
        """The part of a record that describes the workload."""
        about: Measured = {
            "workload": cell["workload"],
            "protocol": cell["protocol"],
            "derived_from": outcome.get("derived_from"),
            "warmup": outcome.get("warmup", []),
            "repeats": outcome.get("repeats", []),
        }
        if thrown_away := outcome.get("thrown_away"):
            about["thrown_away"] = thrown_away
        if "search" in outcome:
            about["search"] = outcome["search"]
        return about

    def how(self, record: Record) -> str:
        """A short description of a successful record."""
        if "activation" in record:
            counted = record["activation"]
            return f"ok  {counted['prompts']} prompts counted in {len(counted['layers'])} layers"
        if "load" in record["repeats"][-1]:
            seen = record["repeats"][-1]["metrics"]
            rate = f"{seen['samples_per_s']:.3g} requests/s"
            if "search" in record:
                least = "at least " if record["reason"] else ""
                rate = f"{least}{record['search']['max_rate']:g} requests/s meet the goals"
            return f"ok  {rate}  TTFT {seen['ttft_s']:.3f} s  {seen['throughput_output_tokens_per_s']:,.0f} tokens/s"
        last = record["repeats"][-1]["metrics"]
        return f"ok  e2e {last['e2e_s']:.3f} s  {last['throughput_total_tokens_per_s']:,.0f} tokens/s"

    def progress(self, engine_id: str, cell_id: str, record: Record) -> None:
        """Log a line per cell: position, name, result, time left."""
        how = self.how(record) if record["status"] == "ok" else f"{record['status']}  {record['reason']}"
        left = ""
        if self.time_left is not None:
            self.time_left.add("", record)
            left = f"  ({about(self.time_left.seconds({}))} left)" * (self.done < self.total)
        self.say(f"[{self.done}/{self.total}] {engine_id}/{cell_id}  {how}{left}")

    def expect(self, engines: list[str]) -> None:
        """Estimate the time left for the cells of these engine configurations that have no final record."""
        work = job_work(self.plan, engines)
        work.cells = {key: seconds for key, seconds in work.cells.items() if not self.is_measured(*key)}
        self.time_left = TimeLeft({"": work})


def merged(config: Json, overrides: Json) -> Json:
    """The configuration with overrides; nested sections are merged, as in the engine."""
    both = {
        k: merged(config[k], v) for k, v in overrides.items() if isinstance(v, dict) and isinstance(config.get(k), dict)
    }
    return config | overrides | both
