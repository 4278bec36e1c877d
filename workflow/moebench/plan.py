"""The plan: a study's grids to cells, engine configurations and jobs.  Pure: reads configuration, writes nothing.

Cells are identified by content.  A cell that two experiments ask for is one cell, measured once; a change that can
change a number changes the identifier, so that a stale record is never taken for a new one.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from moebench import budget, computed, corpora, reference, runtime
from moebench import parameters as counted
from moebench.accuracy.planning import AccuracyPlanner, table_of
from moebench.claims import spec as claims
from moebench.config import (
    Architecture,
    Calibration,
    Config,
    Engine,
    EngineKnobs,
    Experiment,
    Experts,
    Hardware,
    ModelSpec,
    Protocol,
    Study,
    WorkloadKnobs,
    explain,
)
from moebench.cost.vision import image_tokens, parameters
from moebench.derivation import derived_models
from moebench.derivation import jobs as derive_jobs
from moebench.errors import ConfigError
from moebench.grid import Row, expand, known_knob
from moebench.identity import canonical, digest, stated
from moebench.modellock import ModelLock
from moebench.plan_file import SCHEMA
from moebench.predict import predict
from moebench.prune.plan import normal, pruned
from moebench.quantize.plan import quantized, ready_made
from moebench.registry import family, reshaped

RECIPE_VERSION = 1
"""Raised whenever ``checkpoints`` writes other weights or another tokenizer from the same architecture and seed."""
PROTOCOL_VERSION = 2
"""Raised whenever the way of measuring changes so that old and new numbers must not meet."""

CLIENT_MB = 2000
"""Host memory of a job that only sends requests, MB."""

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


# ------------------------------------------------------------------------------------------- weights


def recipe_revision(architecture: dict[str, Any], seed: int) -> str:
    """Revision of a checkpoint that the project writes: a hash of what determines it."""
    return digest({"recipe": RECIPE_VERSION, "architecture": stated(Architecture, architecture), "seed": seed}, 12)


def hub_folder(models: str, hub: str, revision: str) -> str:
    """Where a hub model of a revision lies; a commit is shortened, a branch not yet pinned stays as it is."""
    return f"{models}/{hub.replace('/', '--')}/{revision[:12] if len(revision) == 40 else revision}"


@dataclass(frozen=True)
class Model:
    """A model as one engine configuration loads it."""

    spec: ModelSpec
    architecture: dict[str, Any]
    weights: str
    revision: str
    path: str
    source: str
    models: str
    """The folder of all models."""
    stem: str
    """The path's readable last part, without the revision."""
    derived: dict[str, Any] | None = None
    """How it is made from another: ``by``, ``settings`` and the ``parent`` as JSON; None for a staged model."""

    def as_json(self) -> dict[str, Any]:
        """The model as a plan and a record hold it."""
        return {
            "name": self.spec.name,
            "title": self.spec.title,
            "path": self.path,
            "source": self.source,
            "revision": self.revision,
            "weights": self.weights,
            "seed": self.spec.source.random_init.seed if self.spec.source.random_init else None,
            "architecture": self.architecture,
            "derived": self.derived,
        }

    def identity(self) -> dict[str, Any]:
        """What can change a number: the folder is where the weights lie, not what they are.

        How a derived model is made is in its revision.
        """
        facts = {k: v for k, v in self.as_json().items() if k not in ("path", "title", "derived")}
        return facts | {"architecture": stated(Architecture, self.architecture)}


def resolve_model(
    spec: ModelSpec,
    knobs: EngineKnobs,
    models: str,
    commit: Callable[[str, str], str | None],
    calibration: Calibration | None = None,
) -> Model:
    """Which files an engine configuration reads, and what they are: a staged model, or one derived from it.

    Raises ConfigError for a shape or a derivation that cannot be.
    """
    model = staged_model(spec, knobs, models, commit)
    if knobs.pruning != "none":
        model = pruned(model, knobs, calibration or Calibration())
    return quantized(model, knobs, calibration or Calibration())


def staged_model(spec: ModelSpec, knobs: EngineKnobs, models: str, commit: Callable[[str, str], str | None]) -> Model:
    """The model as it is staged, before any derivation.

    A checkpoint the project writes is written in the shape asked for; a hub checkpoint keeps its shape, so other
    expert counts or FFN sizes need ``weights: dummy`` (the engine fills the overridden shape itself).
    """
    changed = {"experts": knobs.experts, "moe_ffn_size": knobs.moe_ffn_size}
    try:
        family(spec.architecture.model_dump())
        shape = reshaped(spec.architecture.model_dump(), **changed)
    except ValueError as error:
        raise ConfigError(f"model {spec.name}: {error}") from None
    if spec.source.random_init is not None:
        seed = spec.source.random_init.seed
        revision = recipe_revision(shape, seed)
        suffix = "".join(f".{k.removeprefix('moe_')[0]}{size}" for k, size in changed.items() if size)
        weights = knobs.weights or "random_init"
        if weights == "checkpoint":
            raise ConfigError(f"model {spec.name} has no trained checkpoint; use weights: random_init")
        stem = f"{spec.name}{suffix}"
        return Model(spec, shape, weights, revision, f"{models}/{stem}-{revision[:8]}", "random_init", models, stem)
    assert spec.source.hub is not None
    hub = ready_made(spec, knobs) or spec.source.hub
    revision = commit(hub.hub, hub.revision) or hub.revision
    weights = knobs.weights or "checkpoint"
    if weights == "random_init":
        raise ConfigError(f"model {spec.name} is a trained checkpoint; use weights: checkpoint or dummy")
    if any(changed.values()) and weights != "dummy":
        raise ConfigError(
            f"model {spec.name}: experts or moe_ffn_size cannot change in a trained checkpoint; set weights: dummy"
        )
    path = hub_folder(models, hub.hub, revision)
    return Model(spec, shape, weights, revision, path, f"hub:{hub.hub}", models, spec.name)


# ----------------------------------------------------------------------------------------- identities


def plain(knobs: EngineKnobs, spec: ModelSpec) -> EngineKnobs:
    """The knobs with what changes nothing left at its default, so that both spellings are the same cell.

    A size set to the model's own value; experts spread over one rank (vLLM's ``use_ep`` needs TP x DP > 1, so PP+EP
    without TP is PP); MLA switched off in a model that has none; the method that pruning means when it names none.
    """
    experts = spec.architecture.experts
    own = {"experts": experts.count, "moe_ffn_size": experts.ffn_size} if experts else {}
    update: dict[str, Any] = {k: None for k, v in own.items() if getattr(knobs, k) == v}
    if knobs.tp * knobs.dp == 1 or experts is None:
        update["ep"] = False
    if spec.architecture.attention.kind != "mla":
        update["mla"] = True
    return knobs.model_copy(update=update | normal(knobs))


def engine_slug(knobs: EngineKnobs, top_k: int | None) -> str:
    """Readable part of an engine id: the model and what differs from the knobs' defaults."""
    parts: list[str] = [knobs.model]
    parts += [knobs.engine_name] if knobs.engine_name else []
    parts += [f"e{knobs.experts}"] if knobs.experts else []
    parts += [f"f{knobs.moe_ffn_size}"] if knobs.moe_ffn_size else []
    parts += [_DTYPES[knobs.dtype]] if knobs.dtype != "bfloat16" else []
    parts += [knobs.quantization.replace("_", "")] if knobs.quantization != "none" else []
    parts += ["kvfp8"] if knobs.kv_cache_dtype == "fp8" else []
    parts += [f"{knobs.pruning}{100 * knobs.prune_ratio:g}" + (f"-{knobs.prune_by}" if knobs.prune_by else "")] * (
        knobs.pruning != "none"
    )
    parts += [f"draft-{knobs.draft_model}x{knobs.draft_tokens}"] if knobs.draft_model else []
    parts += [f"{axis}{size}" for axis in ("tp", "pp", "dp") if (size := getattr(knobs, axis)) > 1]
    parts += ["ep"] if knobs.ep else []
    parts += [knobs.expert_kernel.replace("_", "")] if knobs.expert_kernel != "fused" else []
    parts += ["defaultkernels"] if knobs.kernel_config == "default" else []
    parts += ["nomla"] if not knobs.mla else []
    parts += [f"k{top_k}"] if top_k else []
    return ".".join(parts)


def cell_slug(work: WorkloadKnobs, protocol: Protocol) -> str:
    """Readable part of a cell id."""
    text = f"b{work.batch}.i{work.input_tokens}.o{work.output_tokens}" + (f".k{work.top_k}" if work.top_k else "")
    text += f".{work.prompts}" if work.prompts != "text" else ""
    text += f".n{work.requests}" if work.requests else ""
    text += f".{work.corpus}" if work.corpus != corpora.PROSE else ""
    text += f".img{work.images}" + (f"x{work.image_size}" if work.image_size else "") if work.images else ""
    return text + (f".{protocol.kind}" if protocol.kind != "trace" else "")


# ---------------------------------------------------------------------------------------- resolution


@dataclass
class _Planner:
    config: Config
    study: Study
    commit: Callable[[str, str], str | None]
    hardware: Hardware
    models: str
    data: str
    """Folder of staged data sets."""
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    _knobs: dict[str, EngineKnobs] = field(default_factory=dict)
    _models: dict[str, Model] = field(default_factory=dict)
    _engines: dict[str, str] = field(default_factory=dict)

    def engine_of(self, knobs: EngineKnobs, path: str) -> tuple[str, Engine]:
        """Name and settings of the engine that runs these knobs."""
        try:
            return runtime.of(self.study, knobs)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def split(self, row: Row, path: str) -> tuple[EngineKnobs, WorkloadKnobs]:
        """Validate a row's settings over the study's defaults."""
        merged = {**self.study.defaults, **row.settings}
        engine = {k: v for k, v in merged.items() if k in EngineKnobs.model_fields}
        work = {k: v for k, v in merged.items() if k in WorkloadKnobs.model_fields}
        key = repr(sorted(engine.items()))
        try:
            if key not in self._knobs:
                self._knobs[key] = EngineKnobs.model_validate(engine)
            return self._knobs[key], WorkloadKnobs.model_validate(work)
        except ValidationError as error:
            cls = EngineKnobs if error.title == "EngineKnobs" else WorkloadKnobs
            raise explain(error, cls, path) from None

    def add(self, row: Row, protocol: Protocol, path: str) -> dict[str, Any]:
        """Add the cell of a row, unless it is there; return {engine, cell, labels}."""
        knobs, work = self.split(row, path)
        engine_id, top_k = self.place(knobs, work, path)
        check_counting(knobs, work, self.config.model(knobs.model, path), protocol, path)
        settings = work.model_dump() | {"top_k": top_k} | ({} if work.images else {"image_size": None})
        identity = {
            "engine": engine_id,
            "workload": stated(WorkloadKnobs, settings),
            "protocol": protocol.model_dump(exclude_defaults=True),
        }
        if corpus := self.corpus(work, path):
            self.engines[engine_id].setdefault("corpora", {})[work.corpus] = corpus
            identity["corpus"] = corpora.identity(corpus)
        cell_id = f"{cell_slug(WorkloadKnobs.model_construct(**settings), protocol)}-{digest(identity)}"
        key = f"{engine_id}/{cell_id}"
        if key not in self.cells:
            self.cells[key] = {
                "engine": engine_id,
                "cell": cell_id,
                "workload": settings,
                "protocol": protocol.model_dump(),
                "derived_from": None,
            }
            self.engines[engine_id]["cells"].append(cell_id)
        return {"engine": engine_id, "cell": cell_id, "labels": row.labels}

    def corpus(self, work: WorkloadKnobs, path: str) -> corpora.Spec | None:
        """The corpus that a workload reads, unless it is the prose."""
        if work.corpus == corpora.PROSE or work.prompts == "random":
            return None
        corpus = self.config.corpus(work.corpus, path)
        table = None
        if corpus.table:
            task = self.config.task(corpus.table, str(self.config.folder / "corpora" / f"{corpus.name}.yaml"))
            table = {"task": task.name} | table_of(task, corpus.data == "fixtures", self.data)
        return corpus.model_dump(exclude={"data"}) | {"table": table}

    def place(self, knobs: EngineKnobs, work: WorkloadKnobs, path: str) -> tuple[str, int | None]:
        """The engine configuration that runs a workload, added unless it is there, and the workload's top-k."""
        spec = self.config.model(knobs.model, path)
        self.check(knobs, work, spec, path)
        runs_on = self.engine_of(knobs, path)[1]
        knobs = plain(runtime.plain(knobs, self.study, runs_on), spec)
        left = self.model(knobs, spec, path).architecture["experts"]  # pruning may leave fewer than top-k
        top_k = (work.top_k or left["top_k"]) if left else None
        if top_k and top_k > left["count"]:
            few = f"top_k {top_k} is more than the {left['count']} experts of pruned {spec.name}"
            raise ConfigError(f"{path}: {few}; lower it, or prune less")
        return self.engine(knobs, spec, None if runtime.live_top_k(runs_on, knobs) else top_k, path), top_k

    def engine(self, knobs: EngineKnobs, spec: ModelSpec, top_k: int | None, path: str) -> str:
        """Add an engine configuration, unless it is there; return its id."""
        key = repr((knobs, top_k))
        if key not in self._engines:
            model = self.model(knobs, spec, path)
            try:
                draft = self.draft(knobs, path)
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from None
            name, runs_on = self.engine_of(knobs, path)
            settings = knobs.model_dump() | {"weights": model.weights, "top_k": top_k, "engine_name": name}
            config = knobs.model_dump(exclude_defaults=True, exclude={"engine_name"})
            identity = {
                "protocol_version": PROTOCOL_VERSION,
                "hardware": self.hardware.name,
                "memory_fraction": self.hardware.usable_memory_fraction,
                "engine": runtime.identity(runs_on, spec.name),
                "config": config | {"weights": model.weights, "top_k": top_k},
                "model": model.identity(),
                "draft": draft.identity() if draft else None,
            }
            own_top_k = (model.architecture["experts"] or {}).get("top_k")
            slug = engine_slug(knobs, top_k if top_k != own_top_k else None)
            engine_id = f"{slug}-{digest(identity)}"
            self._engines[key] = engine_id
            self.engines[engine_id] = {
                "id": engine_id,
                "runtime": runtime.as_json(name, runs_on, spec.name),
                "config": settings,
                "model": model.as_json(),
                "draft": draft.as_json() if draft else None,
                "memory_fraction": self.hardware.usable_memory_fraction,
                "gpus": (gpus := 0 if runs_on.hosted else knobs.tp * knobs.pp * knobs.dp),
                "nodes": max(1, math.ceil(gpus / self.hardware.devices_per_node)),
                "cells": [],
            }
        return self._engines[key]

    def model(self, knobs: EngineKnobs, spec: ModelSpec, path: str) -> Model:
        """The model that an engine configuration loads.  Raises ConfigError naming ``path``."""
        key = repr(knobs)
        if key not in self._models:
            try:
                self._models[key] = resolve_model(spec, knobs, self.models, self.commit, self.study.calibration)
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from None
        return self._models[key]

    def draft(self, knobs: EngineKnobs, path: str) -> Model | None:
        """The draft model of speculative decoding, if there is one."""
        if knobs.draft_model is None:
            return None
        spec, target = self.config.model(knobs.draft_model, path), self.config.model(knobs.model, path)
        sizes = spec.architecture.vocab_size, target.architecture.vocab_size
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"draft_model {spec.name} has a vocabulary of {sizes[0]} tokens, {target.name} one of {sizes[1]}; "
                "speculation needs the same"
            )
        return resolve_model(spec, EngineKnobs(model=knobs.draft_model), self.models, self.commit)

    def check(self, knobs: EngineKnobs, work: WorkloadKnobs, spec: ModelSpec, path: str) -> None:
        """Refuse what no engine could run as asked.  Raises ConfigError."""
        count, top_k = experts_of(spec.architecture.experts, knobs, work)
        called, runs_on = self.engine_of(knobs, path)
        name, positions = spec.name, spec.architecture.max_positions
        corpus = self.corpus(work, path)
        shown = bool(corpus and corpus["table"])  # images of a data set, of sizes of their own
        images = image_tokens(spec.architecture, work.images, work.image_size)
        pixels = f" of {work.images} images" + ("" if shown else f" of {work.image_size} x {work.image_size} pixels")
        tokens = f"{work.input_tokens} + {work.output_tokens} tokens" + (f" and {images}{pixels}" if images else "")
        limit, whose = min((positions, f"the max_positions of {name}"), (knobs.max_model_len, "max_model_len"))
        gpus, devices = knobs.tp * knobs.pp * knobs.dp, self.hardware.devices_per_node
        problems = [
            (
                count == 0 and work.top_k is not None,
                f"top_k {work.top_k}: {name} is dense, it has no experts; leave it out",
            ),
            (top_k > count, f"top_k {top_k} is more than the {count} experts of {name}; set it to {count} or less"),
            (
                work.input_tokens + work.output_tokens + (images or 0) > limit,
                f"{tokens} are more than {whose}, {limit}; ask for fewer"
                + (", or raise it" if whose == "max_model_len" else ""),
            ),
            (
                knobs.max_model_len > positions,
                f"max_model_len {knobs.max_model_len} is more than the max_positions of"
                f" {name}, {positions}; set it to that or less",
            ),
            (
                gpus > devices and gpus % devices > 0,
                f"tp x pp x dp is {gpus}: more than the {devices} a node of {self.hardware.name} has, and no multiple",
            ),
            (
                work.batch > knobs.max_num_seqs,
                f"batch {work.batch} is more than max_num_seqs {knobs.max_num_seqs}; raise that",
            ),
            (
                (knobs.pruning != "none") != (knobs.prune_ratio > 0),
                f"pruning {knobs.pruning!r} with prune_ratio {knobs.prune_ratio}: give both or neither",
            ),
            (
                knobs.prune_by is not None and knobs.pruning == "none",
                f"prune_by {knobs.prune_by!r} without pruning: give both or neither",
            ),
            (
                (knobs.draft_model is None) != (knobs.draft_tokens == 0),
                f"draft_model {knobs.draft_model!r} with draft_tokens {knobs.draft_tokens}: give both or neither",
            ),
            (work.images > 0 and parameters(spec.architecture) == 0, f"images {work.images}: {name} takes none"),
            (
                work.images > 0 and work.image_size is None and not shown,
                f"images {work.images}: image_size is missing; give the edge of the images in pixels",
            ),
            (
                work.images == 0 and work.image_size is not None,
                f"image_size {work.image_size} without images: give both or neither",
            ),
            (
                work.images > 0 and corpus is not None and not shown,
                f"images {work.images}: corpus {work.corpus} is text, and images made up for it would pass for its own;"
                " leave images out, or take a corpus with a table",
            ),
            (
                shown and work.images > 0 and (work.images, work.image_size, work.prompts) != (1, None, "items"),
                f"corpus {work.corpus} shows each item with its own image: set images: 1 and prompts: items, and leave"
                " image_size out",
            ),
            (
                runs_on.name == "vllm" and runs_on.live_top_k is True and not knobs.eager,
                "engine.live_top_k is true and eager is false: a compiled router ignores it; set eager: true or"
                " live_top_k: auto",
            ),
            (
                self.hardware.kind == "cpu"
                and knobs.kv_cache_mb is None
                and runs_on.name != "transformers"
                and not runs_on.hosted,
                f"kv_cache_mb is missing: on {self.hardware.name} the engine cannot choose it; e.g. kv_cache_mb: 256",
            ),
            *((True, text) for text in runtime.problems(called, runs_on, knobs, work, spec)),
        ]
        for wrong, text in problems:
            if wrong:
                raise ConfigError(f"{path}: {text}")


def check_counting(knobs: EngineKnobs, work: WorkloadKnobs, spec: ModelSpec, protocol: Protocol, path: str) -> None:
    """Refuse what protocol activation could not count, and what only it can run.  Raises ConfigError."""
    counts = protocol.kind == "activation"
    problems = [
        (counts and not knobs.eager, "protocol activation needs eager: true; a compiled router reports no experts"),
        (counts and spec.architecture.experts is None, f"protocol activation: {spec.name} is dense, it has no experts"),
        (
            work.prompts == "items" and not counts,
            "prompts: items have lengths of their own, only protocol activation takes them; use text",
        ),
    ]
    problems += [(work.requests > 0 and not counts, f"requests {work.requests}: only protocol activation takes it")]
    for wrong, text in problems:
        if wrong:
            raise ConfigError(f"{path}: {text}")


def experts_of(experts: Experts | None, knobs: EngineKnobs, work: WorkloadKnobs) -> tuple[int, int]:
    """Routed experts per layer and active ones of a cell; zeros for a dense model."""
    return (knobs.experts or experts.count, work.top_k or experts.top_k) if experts else (0, 0)


# ----------------------------------------------------------------------------------------- after grids


def _derive(engine: dict[str, Any], cells: dict[str, dict[str, Any]]) -> None:
    """Mark cells that a longer run of the same input gives: same workload but for the output length.

    Only protocol ``trace`` (time stamps of every token), and not with speculation, where the draft's proposals near
    the end depend on the length asked for; nor through an endpoint, where requests start when they arrive.
    """
    if engine["config"]["draft_model"] or engine["runtime"]["kind"] == "endpoint":
        return
    groups: dict[str, list[str]] = {}
    for cell_id in engine["cells"]:
        cell = cells[f"{engine['id']}/{cell_id}"]
        if cell["protocol"]["kind"] == "trace":
            same = {k: v for k, v in cell["workload"].items() if k != "output_tokens"}
            groups.setdefault(canonical([same, cell["protocol"]]), []).append(cell_id)
    for group in groups.values():
        longest = max(group, key=lambda c: cells[f"{engine['id']}/{c}"]["workload"]["output_tokens"])
        for cell_id in group:
            if cell_id != longest:
                cells[f"{engine['id']}/{cell_id}"]["derived_from"] = longest


def _jobs(plan: dict[str, Any], study: Study, hardware: Hardware) -> dict[str, dict[str, Any]]:
    """Engine configurations to jobs: one each, or packed by shape up to ``pack_minutes`` of expected time."""
    settings = study.jobs
    packs: list[tuple[int, float, list[str]]] = []  # GPUs, expected seconds, engines
    open_pack: dict[tuple[Any, ...], int] = {}
    for engine_id, engine in plan["engines"].items():
        gpus, seconds = engine["gpus"], engine["predicted"]["job_s"]
        runs_on = engine["runtime"]
        # What a worker process cannot change; nor do two engines share one, for what the first leaves behind.
        shape = (
            *(gpus, engine["config"]["cpu_threads"], engine["config"]["mla"]),
            *(runs_on["kind"], runs_on["environment"], runs_on["hosted"]),
        )
        last = open_pack.get(shape)
        if last is not None and packs[last][1] + seconds <= 60 * settings.pack_minutes:
            packs[last] = (gpus, packs[last][1] + seconds, [*packs[last][2], engine_id])
        else:
            open_pack[shape] = len(packs)
            packs.append((gpus, seconds, [engine_id]))
    jobs = {}
    for gpus, seconds, engines in packs:
        nodes = max(1, math.ceil(gpus / hardware.devices_per_node))
        gpus_per_node = gpus // nodes
        job_id = engines[0] if len(engines) == 1 else f"pack{len(engines)}-{digest(engines)}"
        # Dummy weights are made on the device; only a checkpoint passes through host memory.
        specs = [plan["engines"][e] for e in engines]
        limit_s = sum(e["predicted"].get("limit_s", e["predicted"]["job_s"]) for e in specs)
        loaded = [e for e in specs if e["model"]["weights"] != "dummy" and not e["runtime"]["hosted"]]
        heaviest = max(((engine["predicted"]["weight_bytes"] or 0) for engine in loaded), default=0)
        jobs[job_id] = {
            "engines": engines,
            "gpus": gpus,
            "environment": specs[0]["runtime"]["environment"],
            "hosted": specs[0]["runtime"]["hosted"],
            "nodes": nodes,
            "cpus": max(1, settings.cpus * gpus_per_node),  # these and mem_mb: of each node
            "mem_mb": max(
                settings.host_memory_mb * gpus_per_node or CLIENT_MB, math.ceil(1.5 * heaviest / nodes / 1e6)
            ),
            "runtime_min": math.ceil(limit_s * settings.time_factor / 60) + 5,
            "expected_s": round(seconds, 1),
            "cells": sum(len(plan["engines"][e]["cells"]) for e in engines),
            "digest": digest([_contents(plan["engines"][e], settings.skip_infeasible) for e in engines], 16),
        }
    return jobs


def _contents(engine: dict[str, Any], skip_infeasible: bool) -> list[Any]:
    """What of an engine configuration makes a job's manifest outdated when it changes."""
    skipped = skip_infeasible and engine["predicted"]["fits"] is False
    return [engine["id"], sorted(engine["cells"])] + ["skipped"] * skipped


def make_plan(
    config: Config,
    study_name: str,
    lock: ModelLock | None = None,
    models: str | None = None,
    data: str | None = None,
    budget_gpu_hours: float | None = None,
) -> dict[str, Any]:
    """Plan a study: the mapping of docs/data.md; within a budget, only the cells that decide the most claims.

    Raises ConfigError naming the file, the value and the remedy.
    """
    named = config.root().study == study_name
    study = config.study(study_name, str(config.folder / "config.yaml") if named else "--study, --config study=")
    where = str(config.folder / "studies" / f"{study_name}.yaml")
    hardware = config.hardware(study.hardware, where)
    if study.reference:
        config.study(study.reference, f"{where}: reference")
    lock = lock or ModelLock(config.folder / "models.lock.yaml")
    lock.read()  # a lock file that is wrong is not the mistake of the experiment that needs it
    commit = functools.cache(lock.commit)
    models, data = models or config.root().models, data or config.root().data
    planner, other = (_Planner(config, study, commit, hardware, models, data) for _ in range(2))
    accuracy = AccuracyPlanner(config, other, digest, data)
    _check_defaults(study, where)
    experiments: dict[str, Any] = {}
    for name in study.experiments:
        experiment: Experiment = config.experiment(name, where)
        path = str(config.folder / "experiments" / f"{name}.yaml")
        protocol = experiment.protocol or study.protocol
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for row in expand(experiment, study.scale, path) if experiment.grid else ():
            placed = planner.add(row, protocol, path)
            rows[placed["engine"], placed["cell"], canonical(placed["labels"])] = placed
        kept = experiment.model_dump(exclude={"grid", "protocol", "models", "printed_in", "computed", "accuracy"})
        about = counted.facts(config, experiment) | computed.facts(config, experiment)
        experiments[name] = kept | about | {"rows": list(rows.values())}
        if experiment.accuracy:
            experiments[name]["accuracy"] = accuracy.experiment(experiment, study.scale, path)
    plan: dict[str, Any] = {
        "schema": SCHEMA,
        "protocol_version": PROTOCOL_VERSION,
        "study": study.name,
        "title": study.title,
        "description": study.description,
        "scale": study.scale,
        "hardware": hardware.model_dump(),
        "engine": study.engine.model_dump(mode="json"),
        "jobs_settings": study.jobs.model_dump(),
        "protocol": study.protocol.model_dump(),
        "order": list(study.experiments),
        "experiments": experiments,
        "engines": planner.engines,
        "cells": planner.cells,
    }
    loaded = [e["model"]["name"] for e in planner.engines.values()]
    drafts = [e["draft"]["name"] for e in planner.engines.values() if e["draft"]]
    plan["claims"] = claims.of_plan(config, experiments, [*loaded, *drafts])
    for engine in plan["engines"].values():
        random.Random(f"{study.protocol.seed}:{engine['id']}").shuffle(engine["cells"])
    plan["accuracy"] = accuracy.parts(study, hardware, predict, _jobs)
    _foresee(plan, study, hardware)
    _derivations(plan, other.engines, study, hardware)
    if budget_gpu_hours is not None:
        answers = budget.reduce(plan, budget_gpu_hours)
        plan["accuracy"] = accuracy.parts(study, hardware, predict, _jobs, answers)
        _foresee(plan, study, hardware)
        _derivations(plan, other.engines, study, hardware)
    if study.reference and study.reference != study.name:
        plan["reference"] = reference.predictions(make_plan(config, study.reference, lock, models))
        for name, planned in plan["experiments"].items():
            planned["predicted_figures"] = reference.figures(plan, name)
    plan["jobs"] = _jobs(plan, study, hardware)
    plan["digest"] = digest(plan, 16)
    return plan


def _foresee(plan: dict[str, Any], study: Study, hardware: Hardware) -> None:
    """Which cells come from longer runs, and what is predicted of all."""
    for cell in plan["cells"].values():
        cell["derived_from"] = None
    for engine in plan["engines"].values():
        _derive(engine, plan["cells"])
        predict(engine, plan["cells"], study, hardware)


def _derivations(plan: dict[str, Any], others: dict[str, Any], study: Study, hardware: Hardware) -> None:
    """The derived checkpoints of a plan and the jobs that make them; ``others``: engine configurations of accuracy."""
    asked = {name for part in plan["accuracy"].values() for name in part["engines"]}
    plan["derived"] = derived_models({k: v for k, v in others.items() if k in asked} | plan["engines"])
    plan["derive_jobs"] = derive_jobs(plan["derived"], study, 1 if hardware.kind == "gpu" else 0)


def _check_defaults(study: Study, where: str) -> None:
    for knob in study.defaults:
        known_knob(knob, f"{where}: defaults")
