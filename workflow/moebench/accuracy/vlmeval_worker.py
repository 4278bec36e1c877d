"""The worker process of VLMEvalKit's jobs: a server of the engine configuration, and the harness as its client.

The server (``vllm serve``) is started, monitored and stopped here.  The harness runs in its own process and environment
and knows only the server's address.  If the server ends during a task, the task fails with the server's error, and the
next task gets a new server.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

from moebench.accuracy import MOST_PARALLEL
from moebench.accuracy import vlmeval_results as results_of
from moebench.accuracy.lm_eval_harness import absolute
from moebench.accuracy.lm_eval_results import Unsound
from moebench.accuracy.vlmeval_harness import Harness
from moebench.accuracy.vlmeval_process import FOUND, MODEL
from moebench.accuracy.worker import SCRATCH, write_samples
from moebench.engines import vllm, vllm_arguments, vllm_startup
from moebench.engines.server import Server, ServerFailed, flags
from moebench.engines.variables import CORE
from moebench.errors import StorageError
from moebench.formats import Json
from moebench.formats.messages import Outcome, Request
from moebench.formats.record import Checks, LoadFacts
from moebench.measure import worker

SERVER_TIMEOUT_S, REQUEST_TIMEOUT_S = 3600, 600
_POLL_S, _HEALTH_EVERY_S, _HEALTH_TIMEOUT_S, _SICK = 0.5, 10.0, 10.0, 3
"""It is given up after ``_SICK`` times in a row that it does not say it is well."""


class Session(worker.Session):
    """One server at a time, and the harness."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = Path(os.environ[SCRATCH])
        self.harness: Harness | None = None
        self.server: Server | None = None
        self.top_k: int | None = None
        self.ready_s = 0.0
        atexit.register(self.unload, {})  # gracefully: it may hold a GPU

    # ------------------------------------------------------------------------------------------ the server

    def load(self, request: Request) -> Outcome:
        """Start the server of an engine configuration; reply with its facts."""
        self.unload({})
        self.spec = absolute(request["engine"])
        if self.harness is None:
            self.harness = Harness(self.scratch)
        self.serve(None)
        config = self.spec["config"]
        facts: LoadFacts = {
            "load_s": self.ready_s,
            "kv_cache_tokens": None,
            "eager": config["eager"],
            "resolved_config": None,
        }
        facts |= {"max_num_batched_tokens": config["max_num_batched_tokens"], "harness": self.harness.facts()}
        seen = worker.provenance()
        seen["versions"] |= {"ms-vlmeval": self.harness.ready()["version"]}
        return {"facts": facts, "provenance": seen}

    def serve(self, top_k: int | None) -> None:
        """Ensure a healthy server with ``top_k`` active experts (None: the configuration's); start one if necessary.

        Raises RuntimeError or NotImplementedError with the engine's message.
        """
        if self.server is not None and self.top_k == top_k:
            with contextlib.suppress(ServerFailed):
                self.server.check()
                return
        self.unload({})
        config = self.spec["config"] | ({"top_k": top_k} if top_k else {})
        spec = self.spec | {"config": config}
        if self.spec["nodes"] > 1:
            raise NotImplementedError("a server across nodes is not supported by this driver yet")
        vllm.VllmEngine(spec).refuse()
        arguments = flags(vllm_arguments.arguments(spec))
        arguments += ["--generation-config", "vllm"]  # no sampling settings of the checkpoint beside ours
        switches = vllm_arguments.switches(spec)
        if spec["gpus"] == 1 and config["cpu_threads"]:  # vLLM keeps the worker in the engine core's process: no
            switches[CORE] = "0"  # third import of vLLM, where no time counts
        copied = vllm_startup.ready_to_serve(config["cpu_threads"])
        self.server = Server(arguments, MODEL, environment=switches, timeout_s=SERVER_TIMEOUT_S, copied=copied)
        try:
            self.server.start()
        except ServerFailed as error:
            self.server = None
            raise RuntimeError(f"{error}. See root cause in its log") from None
        self.top_k, self.ready_s = top_k, self.server.ready_s

    def unload(self, request: Request) -> Outcome:
        """Stop the server."""
        if self.server is not None:
            self.server.stop()
        self.server = None
        return {}

    def watch(self, sick: int, ask: bool) -> int:
        """Raise RuntimeError if the server ended or is unhealthy (``ask``: whether to query its health).

        Returns the number of failed health checks in a row; ``sick``: the number before this one.
        """
        assert self.server is not None
        try:
            self.server.check()
        except ServerFailed as error:
            raise RuntimeError(f"{error} while it was asked. See root cause in its log") from None
        if not ask:
            return sick
        sick = 0 if self.server.healthy(_HEALTH_TIMEOUT_S) else sick + 1
        if sick >= _SICK:
            raise RuntimeError("the server does not answer any more. See root cause in its log")
        return sick

    # -------------------------------------------------------------------------------------------- asking

    def evaluate(self, request: Request) -> Outcome:
        """Run one data set: return results and checks, and write the sample log."""
        assert self.harness is not None
        task, spec = request["task"], self.spec
        trained = spec["model"]["architecture"]["experts"]
        own = spec["config"]["top_k"] or (trained["top_k"] if trained else None)
        self.serve(request["top_k"] if request["top_k"] != own else None)
        work = Path(tempfile.mkdtemp(prefix=f"{task['task']}-", dir=self.scratch))  # never a used one
        try:
            self.harness.refuse(task)
            found = self.ask(request, work)
            results, samples = results_of.rows_of(found, task, request["limit"])
        except Unsound as error:
            return {"status": "invalid", "reason": str(error), "evidence": self.harness.last_words()}
        finally:
            shutil.rmtree(work, ignore_errors=True)
        checks: Checks = {
            "truncated_prompts": 0,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        }
        reply: Outcome = {"status": "ok", "reason": "", "results": results, "checks": checks}
        try:
            return reply | {"samples": write_samples(Path(request["samples"]), samples)}
        except StorageError as error:  # not the engine's fault: it stays loaded
            return reply | {"storage": str(error)}

    def ask(self, request: Request, work: Path) -> Json:
        """Have the harness run a data set while the server is monitored.  Raises RuntimeError or Unsound."""
        assert self.server is not None and self.harness is not None
        parallel = min(MOST_PARALLEL, self.spec["config"]["max_num_seqs"])
        asked = {"task": request["task"], "limit": request["limit"], "work": str(work), "url": self.server.url}
        self.harness.send(asked | {"key": self.server.key, "parallel": parallel, "timeout_s": REQUEST_TIMEOUT_S})
        sick, looked, reply = 0, time.monotonic(), None
        while reply is None:
            reply = self.harness.reply(_POLL_S)
            due = time.monotonic() - looked > _HEALTH_EVERY_S
            sick, looked = self.watch(sick, due), time.monotonic() if due else looked
        self.watch(_SICK - 1, True)  # an unhealthy server explains missing answers
        if not (work / FOUND).exists():
            words = "; ".join(self.harness.last_words()[-3:])
            raise RuntimeError(f"VLMEvalKit ended with exit code {reply['exit']} and left no results: {words}")
        found: Json = json.loads((work / FOUND).read_text())
        return found


if __name__ == "__main__":
    worker.main(Session)
