"""The driver of an accuracy job: that of the speed cells, with tasks in the place of workloads.

Records, locks, attempts and manifests are the same machinery in a folder of its own (``accuracy.folder``).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from moebench import accuracy
from moebench.accuracy.vlmeval_process import ENVIRONMENT, harness_python
from moebench.errors import StageError
from moebench.measure.driver import Driver, Say
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
    """Runs one accuracy job of a plan.  Arguments as of ``Driver``; ``harness`` chooses the part of the plan."""

    def __init__(
        self, plan: dict[str, Any], harness: str, results: Path, log: Path, say: Say, python: str = sys.executable
    ):
        super().__init__(accuracy.view(plan, harness), accuracy.folder(results, harness), log, say, python)
        self.harness = harness
        self.worker_module = WORKERS[harness]
        self.settings = self.settings | {"cell_timeout_s": self.settings["task_timeout_s"]}
        self.scratch = Path(tempfile.mkdtemp(prefix="moebench-accuracy-"))
        self._data: dict[str, str | None] = {}

    def close(self) -> None:
        """Remove the caches of this job."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def check_staged(self, engines: list[str]) -> None:
        """Refuse models that are not staged whole, and a harness whose environment is not built.  Raises StageError."""
        super().check_staged(engines)
        if self.harness == "vlmeval" and not (python := harness_python(self.python)).exists():
            raise StageError(f"{python}: the environment is not built; run `python3 envs/build.py {ENVIRONMENT}`")

    def run_engine(self, engine_id: str, pending: list[str], derive: bool = True) -> None:
        """Run the cells whose data are staged whole; the others get a record that says what is wrong."""
        good = []
        for cell_id in pending:
            problem = self.data_problem(self.plan["cells"][f"{engine_id}/{cell_id}"]["task"]["data"])
            if problem is None:
                good.append(cell_id)
            else:
                self.keep(engine_id, cell_id, problem | {"started_at": atomic.stamp(), "phase": "load"})
        super().run_engine(engine_id, good, derive)

    def data_problem(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Why a cell of this data set cannot be run, as its outcome; every byte is read, once per job."""
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

    def _other_revision(self, data: dict[str, Any]) -> str | None:
        manifest = staged.read_manifest(Path(data["path"])) or {}
        if (manifest.get("source"), manifest.get("revision")) == (data["source"], data["revision"]):
            return None
        return f"{data['path']} holds {manifest.get('revision')}, the plan is for {data['revision']}"

    def watch(self, spec: dict[str, Any]) -> None:
        """No telemetry: tasks are not timed."""

    def canary_cell(self, engine_id: str, todo: list[str]) -> None:
        """No canary: what drifts is time, and tasks are not timed."""

    def request(self, cell: dict[str, Any]) -> dict[str, Any]:
        """What the worker is asked for a cell."""
        samples = self.samples_path(cell["engine"], cell["cell"])
        asked = {"task": cell["task"] | {"data": self._absolute(cell["task"]["data"])}, "samples": str(samples)}
        return {"do": "evaluate", "top_k": cell["top_k"], "limit": cell["limit"], "seeds": cell["seeds"]} | asked

    def measure(self, engine_id: str, cell_id: str) -> dict[str, Any]:
        """Run a task; results whose log of questions could not be written are none."""
        outcome = super().measure(engine_id, cell_id)
        if "storage" not in outcome:
            return outcome
        return {
            "status": "crashed",
            "reason": outcome["storage"],
            "started_at": outcome["started_at"],
            "checks": {"storage": 0},
        }

    def _absolute(self, data: dict[str, Any]) -> dict[str, Any]:
        return data | {"path": os.path.abspath(data["path"])}

    def written(self) -> list[Path]:
        """As for speed, and the harness's caches."""
        return [self.scratch, *super().written()]

    def samples_path(self, engine: str, cell: str) -> Path:
        """Where the sample log of a cell lies."""
        return Path(os.path.abspath(self.results)) / "samples" / engine / f"{cell}.jsonl.gz"

    def environment(self, spec: dict[str, Any]) -> dict[str, str]:
        """As for speed; the harness may ask no network and finds no cache of an earlier job."""
        home = self.scratch / "huggingface"
        fresh = {"HF_HOME": str(home), "HF_DATASETS_CACHE": str(home / "datasets"), SCRATCH: str(self.scratch)}
        return super().environment(spec) | OFFLINE | fresh

    def about(self, cell: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
        """The part of a record that tells a task from a workload."""
        return {
            "task": cell["task"],
            "top_k": cell["top_k"],
            "limit": cell["limit"],
            "seeds": cell["seeds"],
            "results": outcome.get("results", []),
            "samples": outcome.get("samples"),
        }

    def how(self, record: dict[str, Any]) -> str:
        """A good record in a few words."""
        main = record["task"]["metrics"][0]
        value = next(
            r
            for r in record["results"]
            if (r["task"], r["metric"], r["filter"]) == (record["task"]["task"], main["name"], main["filter"])
        )
        return f"ok  {main['name']} {value['value']:.4g} of {value['n']} questions"
