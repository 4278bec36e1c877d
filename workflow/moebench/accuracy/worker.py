"""The worker process of accuracy jobs: holds an engine and a harness, answers ``load``, ``evaluate`` and ``unload``."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
from pathlib import Path

from moebench.accuracy import lm_eval_harness as lm_eval
from moebench.accuracy import lm_eval_results as results_of
from moebench.errors import StorageError
from moebench.formats import Json
from moebench.formats.messages import Outcome, Request
from moebench.formats.record import Checks, SampleLog
from moebench.measure import worker
from moebench.storage.atomic import write_atomic

SCRATCH = "MOEBENCH_SCRATCH"
"""Environment variable: a fresh folder for what the harness caches."""


class Session(worker.Session):
    """One engine at a time, in a harness."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = lm_eval.LmEval(Path(os.environ[SCRATCH]))
        self.evaluated: lm_eval.EvaluatedEngine | None = None

    def load(self, request: Request) -> Outcome:
        """Load an engine configuration; reply with its facts."""
        self.unload({})
        self.spec = lm_eval.absolute(request["engine"])
        self.evaluated = lm_eval.EvaluatedEngine(self.spec)
        self.engine = self.evaluated
        return {"facts": self.evaluated.load(), "provenance": worker.provenance()}

    def unload(self, request: Request) -> Outcome:
        """Free the engine."""
        self.evaluated = None
        return super().unload(request)

    def evaluate(self, request: Request) -> Outcome:
        """Run a task: return results and checks, and write the sample log."""
        assert self.evaluated is not None
        engine, task = self.evaluated, request["task"]
        if self.spec["config"]["top_k"] is None and request["top_k"] is not None:
            engine.set_top_k(request["top_k"])
        before = engine.counters()["preemptions"]
        try:
            found, truncated = self.harness.evaluate(engine, task, request["limit"], request["seeds"])
            results = results_of.rows_of(found, task)
        except results_of.Unsound as error:
            return {"status": "invalid", "reason": str(error)}
        checks: Checks = {
            "truncated_prompts": truncated,
            "preemptions": engine.counters()["preemptions"] - before,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        reply: Outcome = {"status": "ok", "reason": "", "results": results, "checks": checks}
        try:
            return reply | {"samples": write_samples(Path(request["samples"]), results_of.sample_rows(found))}
        except StorageError as error:  # not the engine's fault: it stays loaded
            return reply | {"storage": str(error)}


def write_samples(path: Path, rows: list[Json]) -> SampleLog:
    """Write the sample log (gzipped JSON lines); return its bytes, rows and SHA-256.  Raises StorageError."""
    text = "".join(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str) + "\n" for row in rows)
    data = gzip.compress(text.encode(), mtime=0)  # the same answers give the same bytes
    write_atomic(path, data)
    return {"file": path.name, "rows": len(rows), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


if __name__ == "__main__":
    worker.main(Session)
