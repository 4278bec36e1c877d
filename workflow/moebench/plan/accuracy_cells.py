"""The accuracy part of a plan: engine configurations times tasks, identified by content like the speed cells.

Engine configurations are resolved by the planner of the speed cells, so that the same one has the same id and the
tables join on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from moebench.accuracy import fixtures, vlm_fixtures
from moebench.config import AccuracyBlock, Config, TableSource, TaskSpec
from moebench.config.grid import Groups, Row, expand_accuracy
from moebench.config.lockfile import ModelLock
from moebench.errors import ConfigError, Misfit, Unsupported
from moebench.formats.plan import (
    AccuracyCell,
    AccuracyPart,
    AccuracyPrediction,
    AccuracyRow,
    EngineConfig,
    Task,
    TaskData,
    UnsupportedAnswer,
)
from moebench.plan import accuracy_time, unsupported

ACCURACY_VERSION = 1
"""Increased whenever the evaluation changes so that old and new numbers must not be mixed."""
VERSIONS = {"lm-eval": "0.4.13", "vlmeval": "0.0.20"}
"""Harnesses and their versions as pinned in envs/; other installed versions are refused."""
SEEDS: dict[str, dict[str, int]] = {
    "lm-eval": {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234},
    "vlmeval": {},
}
"""Seeds of lm-eval: its own defaults, so that few-shot examples are those of published numbers.  VLMEvalKit with exact
matching draws nothing."""
JUDGE = "exact_matching"
"""VLMEvalKit's judge; always set, since by default it names a model that it does not query."""
LOCK = "datasets.lock.yaml"


def data_of(task: TaskSpec, block: AccuracyBlock, config: Config, root: str) -> TaskData:
    """Files that a task reads: ``id`` (ORG/NAME), ``source``, ``revision`` and the folder they are staged in."""
    if isinstance(task.data, TableSource):
        return table_of(task, block.data == "fixtures", root)
    name = task.data.hub
    if block.data == "fixtures":
        if name not in fixtures.NAMES:
            raise ConfigError(f"task {task.name}: no fixtures are written for {name}; use data: hub")
        revision = fixtures.revision(name)
        return {
            "id": name,
            "source": "fixtures",
            "revision": revision,
            "path": _folder(root, "fixtures", name, revision),
        }
    asked = task.data.revision
    revision = ModelLock(config.folder / LOCK).commit(name, asked) or asked
    return {"id": name, "source": f"hub:{name}", "revision": revision, "path": _folder(root, "hub", name, revision)}


def table_of(task: TaskSpec, own: bool, root: str) -> TaskData:
    """A table with images, as ``data_of``: its revision is its MD5.  ``own``: the project's fixtures of its form.

    Raises ConfigError for a task without a table, or fixtures that are not written.
    """
    if not isinstance(task.data, TableSource):
        raise ConfigError(f"task {task.name} has no table of questions with images; use a task of harness vlmeval")
    name = task.task
    if own:
        if name not in vlm_fixtures.NAMES:
            raise ConfigError(f"task {task.name}: no fixtures are written for {name}; use data: hub")
        revision = vlm_fixtures.revision(name)
        path = _folder(root, "fixtures", f"vlmeval--{name}", revision)
        return {"id": name, "source": "fixtures", "revision": revision, "path": path}
    revision = task.data.md5
    path = f"{root}/vlmeval/{name}/{revision[:12]}"
    return {"id": name, "source": task.data.tsv, "revision": revision, "path": path}


def _folder(root: str, kind: str, name: str, revision: str) -> str:
    return f"{root}/{kind}/{name.replace('/', '--')}/{revision[:12] if len(revision) == 40 else revision}"


def _short(row: Row) -> Row:
    """The row with a minimal workload, since the task sets lengths and batches."""
    return Row(row.settings | {"batch": 1, "input_tokens": 1, "output_tokens": 1}, row.labels, row.block)


def tasks_s(cells: list[AccuracyCell], engine: EngineConfig, study: Any, hardware: Any) -> list[dict[str, float]]:
    """Expected time of each accuracy cell in its loaded engine, s, and the ends of its interval where it has one."""
    return [
        {"": float(study.jobs.task_s)}
        if seconds is None
        else {end: float(value + study.jobs.task_overhead_s) for end, value in seconds.items()}
        for seconds in accuracy_time.engine_s(cells, engine, hardware)
    ]


@dataclass
class AccuracyPlanner:
    """Collects the accuracy cells of a study.

    ``planner``: a planner of engine configurations, for these alone; ``digest`` makes identifiers; ``root``: folder of
    staged data sets.
    """

    config: Config
    planner: Any
    digest: Callable[[Any], str]
    root: str
    cells: dict[str, AccuracyCell] = field(default_factory=dict)
    order: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Cells by harness and engine configuration."""

    def experiment(
        self, experiment: Any, scale: str, path: str, groups: Groups
    ) -> tuple[list[AccuracyRow], list[UnsupportedAnswer]]:
        """Add an experiment's cells; return its rows, and those of points that cannot run."""
        rows, refused, possible = {}, [], set()
        for block, row in expand_accuracy(experiment, scale, path, groups):
            for name in block.tasks:
                number, task = experiment.accuracy[scale].index(block), self.config.task(name, path)
                try:
                    placed = self.add(block, number, row, task, path)
                except Unsupported as why:
                    answer = self.unsupported(block, number, row, task, str(why), path)
                    refused.append((number, why, answer))
                    continue
                rows[placed["block"], placed["engine"], placed["cell"]] = placed
                possible.add(number)
        lacking = {(r["block"], r["cell"]): r for r in unsupported.settle(refused, possible, path)}
        return list(rows.values()), list(lacking.values())

    def add(self, block: AccuracyBlock, number: int, row: Row, task: TaskSpec, path: str) -> AccuracyRow:
        """Add a cell of the experiment's block with this number, unless it exists.

        Raises ConfigError for what the harness cannot do, Unsupported for what no engine can.
        """
        knobs, work = self.planner.split(_short(row), path)
        engine_id, top_k = self.planner.place(knobs, work, path)
        kind = self.planner.engine_of(knobs, path)[1].name
        if kind != "vllm":
            raise ConfigError(
                f"{path}: accuracy on an engine of kind {kind}: {task.harness} runs on vllm; choose that one"
            )
        if knobs.routing:
            raise ConfigError(
                f"{path}: accuracy with routing {knobs.routing}: answers of random experts are meaningless"
            )
        if knobs.dp > 1:
            raise Misfit(
                f"accuracy with dp {knobs.dp}{' and ep' if knobs.ep else ''}: {task.harness} would start "
                f"{knobs.dp} separate engines, not the engine configuration whose speed is measured (with ep it "
                "refuses); set dp: 1"
            )
        if task.harness == "vlmeval":
            self.check_vision(knobs.model, task, path)
        elif block.max_tokens:
            raise ConfigError(f"{path}: max_tokens is for tasks of vlmeval; {task.name} is one of {task.harness}")
        asked, cell_id = self.asked(block, task, engine_id, top_k)
        if f"{engine_id}/{cell_id}" not in self.cells:
            self.cells[f"{engine_id}/{cell_id}"] = {
                "engine": engine_id,
                "cell": cell_id,
                "task": asked,
                "top_k": top_k,
                "limit": block.limit,
                "seeds": SEEDS[task.harness],
                "derived_from": None,
            }
            self.order.setdefault(task.harness, {}).setdefault(engine_id, []).append(cell_id)
        return {
            "harness": task.harness,
            "engine": engine_id,
            "cell": cell_id,
            "top_k": top_k,
            "labels": row.labels,
            "block": number,
        }

    def asked(self, block: AccuracyBlock, task: TaskSpec, engine_id: str, top_k: int | None) -> tuple[Task, str]:
        """A task with a block's settings, and the id of its cell."""
        data, version = data_of(task, block, self.config, self.root), VERSIONS[task.harness]
        asked = {
            "harness": task.harness,
            "harness_version": version,
            "task": task.task,
            "shots": task.shots,
            "data": {k: data[k] for k in ("id", "source", "revision")},
        }
        if task.harness == "vlmeval":
            longest = block.max_tokens or task.max_tokens
            asked |= {"scoring": task.scoring, "split": task.split, "max_tokens": longest, "judge": JUDGE}
        identity = {
            "accuracy_version": ACCURACY_VERSION,
            "engine": engine_id,
            "task": asked,
            "top_k": top_k,
            "limit": block.limit,
            "seeds": SEEDS[task.harness],
        }
        slug = f"{task.name}" + (f".k{top_k}" if top_k else "") + (f".n{block.limit}" if block.limit else "")
        shown = task.model_dump(include={"name", "title", "choices", "metrics", "in_mean", "reference", "size"})
        return cast(Task, shown | asked | {"data": data}), f"{slug}-{self.digest(identity)}"

    def unsupported(
        self, block: AccuracyBlock, number: int, row: Row, task: TaskSpec, reason: str, path: str
    ) -> UnsupportedAnswer:
        """The row of a point that cannot run."""
        engine_id, runtime, config, model, top_k = self.planner.refused(_short(row), path)
        asked, cell_id = self.asked(block, task, engine_id, top_k)
        return {
            "harness": task.harness,
            "engine": engine_id,
            "cell": cell_id,
            "top_k": top_k,
            "labels": row.labels,
            "block": number,
            "reason": reason,
            "runtime": runtime,
            "config": config,
            "model": model.as_json(),
            "task": asked,
            "limit": block.limit,
        }

    def check_vision(self, name: str, task: TaskSpec, path: str) -> None:
        """Raise Misfit for a model without a vision part."""
        architecture = self.config.model(name, path).architecture
        if not (architecture.vision or architecture.vision_parameters):
            raise Misfit(f"task {task.name} uses images, but model {name} has no vision part")

    def parts(
        self, study: Any, hardware: Any, predict: Any, jobs: Any, kept: set[str] | None = None
    ) -> dict[str, AccuracyPart]:
        """Engines, cells and jobs by harness; ``accuracy.view`` puts them in the place of the speed cells'.

        ``kept``: only these cells, as ``HARNESS:ENGINE/CELL``.
        """
        made = {}
        for harness, order in self.order.items():
            part: AccuracyPart = {"engines": {}, "cells": {}, "jobs": {}}
            for engine_id, asked in order.items():
                cells = [c for c in asked if kept is None or f"{harness}:{engine_id}/{c}" in kept]
                if not cells:
                    continue
                engine: EngineConfig = self.planner.engines[engine_id] | {"cells": []}
                predict(engine, {}, study, hardware)
                engine["cells"] = list(cells)
                random.Random(f"{study.protocol.seed}:{engine_id}").shuffle(engine["cells"])
                part["engines"][engine_id] = engine
                known = engine["predicted"]
                least = known["job_s"]
                asked_of = [self.cells[f"{engine_id}/{cell_id}"] for cell_id in cells]
                for cell_id, cell, seconds in zip(
                    cells, asked_of, tasks_s(asked_of, engine, study, hardware), strict=True
                ):
                    predicted: AccuracyPrediction = {
                        "bytes_per_gpu": known["weight_bytes_per_gpu"],
                        "fits": known["fits"],
                        "run_s": seconds[""],
                    }
                    if "_low" in seconds:
                        predicted |= {"run_s_low": seconds["_low"], "run_s_high": seconds["_high"]}
                    part["cells"][f"{engine_id}/{cell_id}"] = cell | {"predicted": predicted}
                    known["job_s"] += seconds[""]
                    if "job_s_low" in known:
                        known["job_s_low"] += seconds.get("_low", seconds[""])
                        known["job_s_high"] += seconds.get("_high", seconds[""])
                    least += max(seconds[""], study.jobs.task_s)
                known["limit_s"] = least
            if part["cells"]:
                part["jobs"] = jobs(part, study, hardware)
                made[harness] = part
        return made
