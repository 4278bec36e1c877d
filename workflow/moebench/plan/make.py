"""The plan: turns a study's grids into cells, engine configurations and jobs.  It reads configuration and writes
nothing.

Cells are identified by content.  A cell that two experiments contain is one cell, measured once.  Every change that can
affect a number changes the id, so a stale record is never taken for a new one.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from moebench.config import (
    LOAD,
    SEARCH,
    SHAPES,
    Config,
    Engine,
    EngineKnobs,
    Experiment,
    Hardware,
    ModelSpec,
    Protocol,
    Study,
    WorkloadKnobs,
    environment_locks,
    explain,
)
from moebench.config.grid import Row, expand, known_knob
from moebench.config.identity import canonical, digest, stated
from moebench.config.lockfile import ModelLock
from moebench.cost.predict import predict
from moebench.errors import ConfigError, Misfit, Unsupported
from moebench.formats import Knobs
from moebench.formats import plan as planned
from moebench.formats.model import HardwareDict
from moebench.plan import engine_choice, load_checks, loadable, unsupported
from moebench.plan import parameters as counted
from moebench.plan.accuracy_cells import AccuracyPlanner, table_of
from moebench.plan.checks import check, check_protocol
from moebench.plan.derived import derived_models
from moebench.plan.derived import jobs as derive_jobs
from moebench.plan.file import SCHEMA
from moebench.plan.jobs import jobs_of, mark_derived
from moebench.plan.model import Model
from moebench.plan.models import resolve_model, staged_model
from moebench.plan.names import cell_slug, engine_slug, plain
from moebench.prompts import corpora, over_time
from moebench.qs import points

PROTOCOL_VERSION = 2
"""Increased whenever the measurement changes so that old and new numbers must not be mixed."""


@dataclass
class _Planner:
    config: Config
    study: Study
    commit: Callable[[str, str], str | None]
    hardware: Hardware
    models: str
    data: str
    """Folder of staged data sets."""
    engines: dict[str, planned.EngineConfig] = field(default_factory=dict)
    cells: dict[str, planned.Cell] = field(default_factory=dict)
    _knobs: dict[str, EngineKnobs] = field(default_factory=dict)
    _models: dict[EngineKnobs, Model] = field(default_factory=dict)
    _engines: dict[tuple[EngineKnobs, int | None], str] = field(default_factory=dict)

    @property
    def goals(self) -> dict[str, float]:
        """Latency goals of the study, s by metric."""
        return {str(metric): limit for metric, limit in self.study.goals.items()}

    def engine_of(self, knobs: EngineKnobs, path: str) -> tuple[str, Engine]:
        """Name and settings of the engine that runs these knobs."""
        try:
            return engine_choice.of(self.study, knobs)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def split(self, row: Row, path: str) -> tuple[EngineKnobs, WorkloadKnobs]:
        """Validate a row's settings over the study's defaults."""
        merged = {**self.study.defaults, **row.settings}
        of_engine, of_work = EngineKnobs.model_fields, WorkloadKnobs.model_fields
        engine = {k: v for k, v in merged.items() if k in of_engine}
        work = {k: v for k, v in merged.items() if k in of_work}
        key = repr(sorted(engine.items()))
        try:
            if key not in self._knobs:
                self._knobs[key] = EngineKnobs.model_validate(engine)
            return self._knobs[key], WorkloadKnobs.model_validate(work)
        except ValidationError as error:
            cls = EngineKnobs if error.title == "EngineKnobs" else WorkloadKnobs
            raise explain(error, cls, path) from None

    def add(self, row: Row, protocol: Protocol, path: str) -> planned.GridRow:
        """Add the cell of a row, unless it exists; return its location. Raises Unsupported if it cannot run."""
        knobs, work = self.split(row, path)
        engine = self.engine_of(knobs, path)[1]
        load_checks.check(knobs, work, engine, protocol, self.goals, path)
        engine_id, top_k = self.place(knobs, work, path)
        check_protocol(knobs, work, self.config.model(knobs.model, path), protocol, path)
        settings, identity = self.identified(engine_id, work, top_k, protocol)
        if corpus := self.corpus(work, path):
            self.engines[engine_id].setdefault("corpora", {})[work.corpus] = corpus
            identity["corpus"] = corpora.identity(corpus)
        cell_id = f"{cell_slug(WorkloadKnobs.model_construct(**settings), protocol)}-{digest(identity)}"
        key = f"{engine_id}/{cell_id}"
        if key not in self.cells:
            self.cells[key] = {
                "engine": engine_id,
                "cell": cell_id,
                "workload": cast(planned.Workload, settings),
                "protocol": cast(planned.ProtocolDict, protocol.model_dump()),
                "derived_from": None,
            }
            self.engines[engine_id]["cells"].append(cell_id)
        return {"engine": engine_id, "cell": cell_id, "labels": row.labels}

    def identified(
        self, engine_id: str, work: WorkloadKnobs, top_k: int | None, protocol: Protocol
    ) -> tuple[Knobs, Knobs]:
        """A cell's resolved workload and its identity, except for its corpus."""
        settings = work.model_dump(exclude=_not_of(work, protocol)) | {"top_k": top_k}
        settings |= {} if work.images else {"image_size": None}
        stated_work = stated(WorkloadKnobs, settings)
        identity: Knobs = {
            "engine": engine_id,
            "workload": stated_work,
            "protocol": protocol.model_dump(exclude_defaults=True),
        }
        if work.find:  # which rates it tries depends on the goals
            identity["goals"] = settings["goals"] = self.goals
        if work.trace:  # its contents, wherever it is stored
            stated_work["trace"] = settings["trace_sha256"] = over_time.sha256(Path(work.trace))
        return settings, identity

    def refused(self, row: Row, path: str) -> tuple[str, planned.Runtime, planned.EngineKnobsDict, Model, int | None]:
        """Substitute for the engine configuration of a row that cannot run: its id, engine, knobs, staged model and
        the workload's top-k."""
        knobs, work = self.split(row, path)
        spec, (called, runs_on) = self.config.model(knobs.model, path), self.engine_of(knobs, path)
        knobs = plain(engine_choice.plain(knobs, self.study, runs_on, self.hardware), spec)
        shape = knobs.model_copy(update={"experts": None, "moe_ffn_size": None, "weights": None})
        staged = staged_model(spec, shape, self.models, self.commit)
        experts = spec.architecture.experts
        top_k = work.top_k or (experts.top_k if experts else None)
        name = unsupported.engine_id(knobs, staged, runs_on, self.hardware)
        return name, *unsupported.asked(knobs, staged, called, runs_on), staged, top_k

    def unsupported(self, row: Row, protocol: Protocol, reason: str, path: str) -> planned.UnsupportedRow:
        """The row of a point that cannot run."""
        engine_id, runtime, config, model, top_k = self.refused(row, path)
        settings, identity = self.identified(engine_id, self.split(row, path)[1], top_k, protocol)
        return {
            "engine": engine_id,
            "cell": f"{cell_slug(WorkloadKnobs.model_construct(**settings), protocol)}-{digest(identity)}",
            "labels": row.labels,
            "reason": reason,
            "runtime": runtime,
            "config": config,
            "model": model.as_json(),
            "workload": cast(planned.Workload, settings),
            "protocol": cast(planned.ProtocolDict, protocol.model_dump()),
        }

    def rows(
        self, grid: Iterable[Row], protocol: Protocol, path: str
    ) -> tuple[list[planned.GridRow], list[planned.UnsupportedRow]]:
        """Add the cells of a grid; return its rows, and those of points that cannot run."""
        rows: dict[tuple[str, str, str], planned.GridRow] = {}
        refused, possible = [], set()
        for row in grid:
            try:
                placed = self.add(row, protocol, path)
            except Unsupported as why:
                refused.append((row.block, why, self.unsupported(row, protocol, str(why), path)))
                continue
            rows[placed["engine"], placed["cell"], canonical(placed["labels"])] = placed
            possible.add(row.block)
        lacking = unsupported.settle(refused, possible, path)
        return list(rows.values()), list({(r["cell"], canonical(r["labels"])): r for r in lacking}.values())

    def corpus(self, work: WorkloadKnobs, path: str) -> planned.CorpusDict | None:
        """The corpus of a workload, unless it is the prose."""
        if work.corpus == corpora.PROSE or work.prompts == "random":
            return None
        corpus = self.config.corpus(work.corpus, path)
        table = None
        if corpus.table:
            task = self.config.task(corpus.table, str(self.config.folder / "corpora" / f"{corpus.name}.yaml"))
            table = {"task": task.name} | table_of(task, corpus.data == "fixtures", self.data)
        return cast(planned.CorpusDict, corpus.model_dump(exclude={"data"}) | {"table": table})

    def place(self, knobs: EngineKnobs, work: WorkloadKnobs, path: str) -> tuple[str, int | None]:
        """The engine configuration for a workload, added unless it exists, and the workload's top-k."""
        spec = self.config.model(knobs.model, path)
        called, runs_on = self.engine_of(knobs, path)
        check(knobs, work, spec, (called, runs_on), self.corpus(work, path), self.hardware, path)
        knobs = plain(engine_choice.plain(knobs, self.study, runs_on, self.hardware), spec)
        left = self.model(knobs, spec, path).architecture["experts"]  # pruning may leave fewer than top-k
        top_k = (work.top_k or left["top_k"]) if left else None
        if left and top_k and top_k > left["count"]:
            few = f"top_k {top_k} is more than the {left['count']} experts of pruned {spec.name}"
            raise Misfit(f"{few}; lower it, or prune less")
        return self.engine(knobs, spec, None if engine_choice.live_top_k(runs_on, knobs) else top_k, path), top_k

    def engine(self, knobs: EngineKnobs, spec: ModelSpec, top_k: int | None, path: str) -> str:
        """Add an engine configuration, unless it exists; return its id."""
        key = (knobs, top_k)
        if key not in self._engines:
            model = self.model(knobs, spec, path)
            draft = self.draft(knobs, path)
            name, runs_on = self.engine_of(knobs, path)
            if problem := loadable.problem(knobs, model, draft, runs_on):
                raise Unsupported(problem)
            pinned = engine_choice.pinned(runs_on, self.hardware)
            gpus = 0 if runs_on.hosted else knobs.tp * knobs.pp * knobs.dp
            nodes = max(1, math.ceil(gpus / self.hardware.devices_per_node))
            settings = knobs.resolved() | {"weights": model.weights, "top_k": top_k, "engine_name": name}
            config = knobs.model_dump(exclude_defaults=True, exclude={"engine_name"})
            identity = {
                "protocol_version": PROTOCOL_VERSION,
                "hardware": self.hardware.name,
                "memory_fraction": self.hardware.usable_memory_fraction,
                "engine": engine_choice.identity(runs_on, spec.name, nodes),
                "config": config | {"weights": model.weights, "top_k": top_k},
                "model": model.identity(),
                "draft": draft.identity() if draft else None,
                **pinned,
            }
            experts = model.architecture["experts"]
            slug = engine_slug(knobs, None if experts and top_k == experts["top_k"] else top_k)
            engine_id = f"{slug}-{digest(identity)}"
            self._engines[key] = engine_id
            made: planned.EngineConfig = {
                "id": engine_id,
                "runtime": engine_choice.as_json(name, runs_on, spec.name),
                "config": cast(planned.EngineKnobsDict, settings),
                "model": model.as_json(),
                "draft": draft.as_json() if draft else None,
                "memory_fraction": self.hardware.usable_memory_fraction,
                "gpus": gpus,
                "nodes": nodes,
                "cells": [],
            }
            if "flashinfer" in pinned:
                made["flashinfer"] = pinned["flashinfer"]
            self.engines[engine_id] = made
        return self._engines[key]

    def model(self, knobs: EngineKnobs, spec: ModelSpec, path: str) -> Model:
        """The model that an engine configuration loads.  Raises ConfigError naming ``path``, or Unsupported."""
        if knobs not in self._models:
            try:
                self._models[knobs] = resolve_model(spec, knobs, self.models, self.commit, self.study.calibration)
            except Unsupported:
                raise
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from None
        return self._models[knobs]

    def draft(self, knobs: EngineKnobs, path: str) -> Model | None:
        """The draft model of speculative decoding, if there is one."""
        if knobs.draft_model is None:
            return None
        spec, target = self.config.model(knobs.draft_model, path), self.config.model(knobs.model, path)
        sizes = spec.architecture.vocab_size, target.architecture.vocab_size
        if sizes[0] != sizes[1]:
            raise Misfit(
                f"draft_model {spec.name} has a vocabulary of {sizes[0]} tokens, {target.name} one of {sizes[1]}; "
                "speculative decoding requires the same"
            )
        try:
            return resolve_model(spec, EngineKnobs(model=knobs.draft_model), self.models, self.commit)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


class Draft:
    """A plan being built: the cells of all experiments, then their predictions, and finally their jobs.

    ``plan`` lacks claims, reference and digest, which ``commands.planning`` adds.
    """

    def __init__(
        self, config: Config, study_name: str, lock: ModelLock | None, models: str | None, data: str | None
    ) -> None:
        """Raises ConfigError naming the file, the value and the remedy."""
        named = config.root().study == study_name
        study = config.study(study_name, str(config.folder / "config.yaml") if named else "--study, --config study=")
        where = str(config.folder / "studies" / f"{study_name}.yaml")
        hardware = config.hardware(study.hardware, where)
        if study.reference:
            config.study(study.reference, f"{where}: reference")
        lock = lock or ModelLock(config.folder / "models.lock.yaml")
        lock.read()  # an invalid lock file is not an error of the experiment that needs it
        commit = functools.cache(lock.commit)
        models, data = models or config.root().models, data or config.root().data
        planner, self._other = (_Planner(config, study, commit, hardware, models, data) for _ in range(2))
        accuracy = AccuracyPlanner(config, self._other, digest, data)
        groups = functools.partial(config.group, small=hardware.kind == "cpu")
        _check_defaults(study, where)
        environment_locks.check(config, study, where)
        engine_choice.check_variables(study, where)
        experiments: dict[str, planned.ExperimentPlan] = {}
        for name in study.experiments:
            experiment: Experiment = config.experiment(name, where)
            path = str(config.folder / "experiments" / f"{name}.yaml")
            protocol = experiment.protocol or study.protocol
            grid = expand(experiment, study.scale, path, groups) if experiment.grid else []
            rows, lacking = planner.rows(grid, protocol, path)
            kept = experiment.model_dump(exclude={"grid", "protocol", "models", "printed_in", "computed", "accuracy"})
            about = counted.facts(config, experiment) | points.facts(config, experiment)
            kept["assumptions"] = experiment.assumed(study.scale)
            experiments[name] = cast(planned.ExperimentPlan, kept | about | {"rows": rows})
            if lacking:
                experiments[name]["unsupported"] = lacking
            if experiment.accuracy:
                experiments[name]["accuracy"], unasked = accuracy.experiment(experiment, study.scale, path, groups)
                if unasked:
                    experiments[name]["unsupported_accuracy"] = unasked
        self.plan: planned.Plan = {
            "schema": SCHEMA,
            "protocol_version": PROTOCOL_VERSION,
            "study": study.name,
            "title": study.title,
            "description": study.description,
            "scale": study.scale,
            "hardware": _as_dict(hardware),
            "engine": cast(planned.StudyEngine, study.engine.model_dump(mode="json", exclude={"variables"})),
            "jobs_settings": cast(planned.JobSettings, study.jobs.model_dump()),
            "protocol": cast(planned.ProtocolDict, study.protocol.model_dump()),
            "order": list(study.experiments),
            "experiments": experiments,
            "engines": planner.engines,
            "cells": planner.cells,
            "jobs": {},
        }
        if study.goals:
            self.plan["goals"] = planner.goals
        self.study, self.hardware, self._accuracy = study, hardware, accuracy
        self.lock, self.models = lock, models
        for engine in planner.engines.values():
            random.Random(f"{study.protocol.seed}:{engine['id']}").shuffle(engine["cells"])

    def predict(self, kept: set[str] | None = None) -> None:
        """Add the parts of accuracy (``kept``: only these cells, ``HARNESS:ENGINE/CELL``), what is predicted, which
        cells truncated from longer runs, derived checkpoints and the jobs that make them."""
        plan, study, hardware = self.plan, self.study, self.hardware
        plan["accuracy"] = self._accuracy.parts(study, hardware, predict, jobs_of, kept)
        self.predict_cells()
        asked = {name for part in plan["accuracy"].values() for name in part["engines"]}
        loaded = {k: v for k, v in self._other.engines.items() if k in asked} | plan["engines"]
        plan["derived"] = derived_models(loaded)
        plan["derive_jobs"] = derive_jobs(plan["derived"], study, 1 if hardware.kind == "gpu" else 0)

    def predict_cells(self) -> None:
        """Add what is predicted for cells, and which of them are truncated from longer runs."""
        cells = self.plan["cells"]
        for cell in cells.values():
            cell["derived_from"] = None
        for engine in self.plan["engines"].values():
            mark_derived(engine, cells)
            predict(engine, cells, self.study, self.hardware)

    def add_jobs(self) -> None:
        """Add the jobs."""
        self.plan["jobs"] = jobs_of(self.plan, self.study, self.hardware)


def _not_of(work: WorkloadKnobs, protocol: Protocol) -> set[str]:
    """Knobs of requests over time that a cell does not have."""
    if protocol.kind != "load":
        return set(LOAD)
    plain = {knob for knob in SHAPES if getattr(work, knob) == WorkloadKnobs.model_fields[knob].default}
    return plain if work.find else plain | set(SEARCH)


def _as_dict(hardware: Hardware) -> HardwareDict:
    """A machine as stored in a plan: without multiprocessors or price if there are none, like earlier plans."""
    own: Knobs = {"multiprocessors": hardware.multiprocessors} if hardware.multiprocessors else {}
    own |= {"price": hardware.price.model_dump()} if hardware.price else {}
    return cast(HardwareDict, hardware.model_dump() | own)


def _check_defaults(study: Study, where: str) -> None:
    for knob in study.defaults:
        known_knob(knob, f"{where}: defaults")
