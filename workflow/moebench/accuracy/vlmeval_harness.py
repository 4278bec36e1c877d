"""The client of VLMEvalKit's process: starts it, sends requests, waits for replies.  Standard library only."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path

from moebench.accuracy.lm_eval_results import Unsound
from moebench.accuracy.vlmeval_process import harness_python
from moebench.engines.loopback import direct
from moebench.formats import Json
from moebench.formats.plan import Task

START_TIMEOUT_S = 600


class Harness:
    """The process with VLMEvalKit: started by the constructor, ready when it first replies.

    ``scratch`` becomes its home, so that nothing it writes by itself outlives the job or comes from an earlier one.
    """

    def __init__(self, scratch: Path):
        python = harness_python(sys.executable)
        self.stamp = python.parents[1] / ".lock-sha256"
        home = scratch / "home"
        home.mkdir(exist_ok=True)
        self.log = scratch / "vlmeval.log"
        self.log_file = open(self.log, "ab")  # noqa: SIM115 - lives as long as the process
        own = {"HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **direct()}
        dropped = ("LMUData", "MMEVAL_ROOT", "FWD_API", "OPENAI_API_KEY", "EVAL_PROXY", "OMP_NUM_THREADS")
        environment = {k: v for k, v in os.environ.items() if k not in dropped} | own | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [str(python), "-m", "moebench.accuracy.vlmeval_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log_file, env=environment,
        )  # fmt: skip
        self.buffer, self.mark = b"", 0
        self.hello: Json | None = None

    def ready(self) -> Json:
        """Wait for its imports; return its ``version`` and the ``md5`` of its tables.  Raises RuntimeError."""
        if self.hello is None:
            self.hello = self.reply(START_TIMEOUT_S)
            if self.hello is None:
                raise RuntimeError(f"VLMEvalKit did not start within {START_TIMEOUT_S} s")
        return self.hello

    def refuse(self, task: Task) -> None:
        """Raise an error if a task cannot run: wrong version, or the harness would replace the table."""
        known = self.ready()
        if known["version"] != task["harness_version"]:
            raise RuntimeError(f"VLMEvalKit {known['version']} is installed, the plan is for {task['harness_version']}")
        if task["task"] not in known["md5"]:
            raise NotImplementedError(f"VLMEvalKit {known['version']} has no data set {task['task']!r}")
        data, expected = task["data"], known["md5"][task["task"]]
        if data["source"] != "fixtures" and data["revision"] != expected:
            raise Unsound(
                f"VLMEvalKit expects {task['task']}.tsv with MD5 {expected}, the plan has {data['revision']}: it would "
                "fetch its own; fix config/tasks"
            )

    def facts(self) -> dict[str, str | None]:
        """SHA-256 of its environment's lock file."""
        return {"lock_sha256": self.stamp.read_text().strip() if self.stamp.exists() else None}

    def send(self, request: Json) -> None:
        """Request a run."""
        self.ready()
        assert self.process.stdin is not None
        self.mark = self.log.stat().st_size
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def reply(self, timeout_s: float) -> Json | None:
        """Its next reply, or None within ``timeout_s``.  Raises RuntimeError if it ended."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                data = os.read(self.process.stdout.fileno(), 1 << 20)
                if not data:
                    raise RuntimeError("VLMEvalKit's process ended: " + "; ".join(self.last_words()[-3:]))
                self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        reply: Json = json.loads(line)
        return reply

    def last_words(self) -> list[str]:
        """The end of its output since the last request."""
        with open(self.log, "rb") as file:
            file.seek(self.mark)
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()][-10:]
