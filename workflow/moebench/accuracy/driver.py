"""The driver of an accuracy job: the speed cells' driver, with tasks instead of workloads.

Records, locks, attempts and manifests work the same way, in a separate folder (``accuracy.folder``).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import cast

from moebench import accuracy
from moebench.accuracy.vlmeval_process import ENVIRONMENT, harness_python
from moebench.errors import StageError
from moebench.formats.messages import Outcome, Request
from moebench.formats.plan import AccuracyCell, Cell, EngineConfig, Plan, TaskData
from moebench.formats.record import AccuracyRecord, Answered, Record
from moebench.measure.driver import Driver
from moebench.measure.job_log import Say
from moebench.storage import atomic, staged

SCRATCH = "MOEBENCH_SCRATCH"
WORKERS = {"lm-eval": "moebench.accuracy.worker", "vlmeval": "moebench.accuracy.vlmeval_worker"}
"""Who holds engine and harness."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Switches for a harness that must not ask the network."""


class Evaluator(Driver):
    """Runs one accuracy job of a plan.  Arguments as for ``Driver``; ``harness`` selects a part of the plan."""

    def __init__(self, plan: Plan, harness: str, results: Path, log: Path, say: Say, python: str = sys.executable):
        super().__init__(accuracy.view(plan, harness), accuracy.folder(results, harness), log, say, python)
        self.harness, self.part = harness, plan["accuracy"][harness]
        self.worker_module = WORKERS[harness]
        self.settings = self.settings | {"cell_timeout_s": self.settings["task_timeout_s"]}
        self.scratch = Path(tempfile.mkdtemp(prefix="moebench-accuracy-", dir=self.local))
        self._data: dict[str, str | None] = {}

    def close(self) -> None:
        """Remove the caches of this job."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def check_staged(self, engines: list[str]) -> None:
        """Refuse incompletely staged models, and a harness whose environment is not built.  Raises StageError."""
        super().check_staged(engines)
        if self.harness == "vlmeval" and not (python := harness_python(self.python)).exists():
            raise StageError(f"{python}: the environment is not built; run `python3 envs/build.py {ENVIRONMENT}`")

    def run_engine(self, engine_id: str, pending: list[str], derive: bool = True) -> None:
        """Run the cells whose data set is completely staged; the others get a record that says what is wrong."""
        good = []
        for cell_id in pending:
            problem = self.data_problem(self.part["cells"][f"{engine_id}/{cell_id}"]["task"]["data"])
            if problem is None:
                good.append(cell_id)
            else:
                self.keep(engine_id, cell_id, problem | {"started_at": atomic.stamp(), "phase": "load"})
        super().run_engine(engine_id, good, derive)

    def data_problem(self, data: TaskData) -> Outcome | None:
        """The outcome of a cell whose data set is unusable, else None.  Reads every byte of it, once per job."""
        path = data["path"]
        if path not in self._data:
            found = staged.check(Path(path), full=True)
            self._data[path] = found[0] if found else self._other_revision(data)
        if self._data[path] is None:
            return None
        stage = f"run `moebench stage --study {self.plan['study']} --full` on a machine with internet"
        return {
            "status": "crashed",
            "reason": f"data set {data['id']}: {self._data[path]}; {stage}",
            "checks": {"data": 0},
        }

    def _other_revision(self, data: TaskData) -> str | None:
        manifest = staged.read_manifest(Path(data["path"]))
        there = (manifest["source"], manifest["revision"]) if manifest else (None, None)
        if there == (data["source"], data["revision"]):
            return None
        return f"{data['path']} contains {there[1]}, but the plan is for {data['revision']}"

    def watch(self, spec: EngineConfig) -> None:
        """No telemetry: tasks are not timed."""

    def canary_cell(self, engine_id: str, todo: list[str]) -> None:
        """No canary: it detects drifting run times, and tasks are not timed."""

    def request(self, cell: Cell) -> Request:
        """The request to the worker for a cell."""
        asked = self.task_cell(cell)
        data = asked["task"]["data"]
        return {
            "do": "evaluate",
            "top_k": asked["top_k"],
            "limit": asked["limit"],
            "seeds": asked["seeds"],
            "task": asked["task"] | {"data": data | {"path": os.path.abspath(data["path"])}},
            "samples": str(self.samples_path(cell["engine"], cell["cell"])),
        }

    def task_cell(self, cell: Cell) -> AccuracyCell:
        """A cell of this harness, as in the plan."""
        return self.part["cells"][f"{cell['engine']}/{cell['cell']}"]

    def measure(self, engine_id: str, cell_id: str) -> Outcome:
        """Run a task. If its sample log cannot be written, the results are discarded."""
        outcome = super().measure(engine_id, cell_id)
        if "storage" not in outcome:
            return outcome
        return {
            "status": "crashed",
            "reason": outcome["storage"],
            "started_at": outcome["started_at"],
            "checks": {"storage": 0},
        }

    def written(self) -> list[Path]:
        """The folders of a speed job, and the harness's caches."""
        return [self.scratch, *super().written()]

    def samples_path(self, engine: str, cell: str) -> Path:
        """The path of a cell's sample log."""
        return Path(os.path.abspath(self.results)) / "samples" / engine / f"{cell}.jsonl.gz"

    def environment(self, spec: EngineConfig) -> dict[str, str]:
        """The environment of a speed job, in which the harness has no network access and no cache of an earlier job."""
        home = self.scratch / "huggingface"
        fresh = {"HF_HOME": str(home), "HF_DATASETS_CACHE": str(home / "datasets"), SCRATCH: str(self.scratch)}
        return super().environment(spec) | OFFLINE | fresh

    def about(self, cell: Cell, outcome: Outcome) -> Answered:
        """The part of a record that describes the task instead of a workload."""
        asked = self.task_cell(cell)
        return {
            "task": asked["task"],
            "top_k": asked["top_k"],
            "limit": asked["limit"],
            "seeds": asked["seeds"],
            "results": outcome.get("results", []),
            "samples": outcome.get("samples"),
        }

    def how(self, record: Record) -> str:
        """A short description of a successful record."""
        answered = cast(AccuracyRecord, record)
        task, main = answered["task"]["task"], answered["task"]["metrics"][0]
        value = next(
            r
            for r in answered["results"]
            if (r["task"], r["metric"], r["filter"]) == (task, main["name"], main["filter"])
        )
        return f"ok  {main['name']} {value['value']:.4g} of {value['n']} questions"
