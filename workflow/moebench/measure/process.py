"""The driver's side of a worker process: start it, send requests with a time limit, end it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import cast

from moebench.errors import StorageError
from moebench.formats.messages import Outcome, Request


class WorkerDied(Exception):
    """The worker ended without a reply; ``code`` is its exit code, negative for signals."""

    def __init__(self, code: int):
        super().__init__(f"worker ended with {code}")
        self.code = code


class WorkerTimeout(Exception):
    """The worker did not reply in time and was ended."""


class Worker:
    """A worker process in its own session, with its engine's output in a log file."""

    def __init__(self, python: str, log: Path, environment: dict[str, str], module: str = "moebench.measure.worker"):
        self.log = log
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log_file = open(log, "ab")  # noqa: SIM115 - lives as long as the process
        except OSError as error:
            raise StorageError(f"{log}: the engine's log cannot be written ({error.strerror})") from None
        self._process = subprocess.Popen(
            [python, "-m", module, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            start_new_session=True,
            env=environment,
        )
        self._buffer = b""
        self._mark = log.stat().st_size

    @property
    def pid(self) -> int:
        """Process id (also of the process group)."""
        return self._process.pid

    def ask(self, request: Request, timeout_s: float) -> Outcome:
        """Send a request and wait for its reply.

        Raises WorkerDied or WorkerTimeout.  The process is killed in both cases, and after an interruption too: it is
        busy and would not end gracefully.
        """
        try:
            return self._ask(request, timeout_s)
        except KeyboardInterrupt:
            self.kill()
            raise

    def _ask(self, request: Request, timeout_s: float) -> Outcome:
        self._mark = self.log.stat().st_size
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise WorkerDied(self._end()) from None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0:
                    self.kill()
                    raise WorkerTimeout
                if selector.select(min(left, 1.0)):
                    data = os.read(self._process.stdout.fileno(), 1 << 20)
                    if not data:
                        raise WorkerDied(self._end())
                    self._buffer += data
                elif self._process.poll() is not None:  # one of its children may still hold the pipe open
                    raise WorkerDied(self._end())
        line, _, self._buffer = self._buffer.partition(b"\n")
        return cast(Outcome, json.loads(line))

    def said(self, limit: int = 1 << 20) -> str:
        """The end of the engine's output since the last request."""
        with open(self.log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._mark, size - limit))
            return file.read().decode(errors="replace")

    def _end(self) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=30)
        self.kill()
        return self._process.wait()

    def kill(self) -> None:
        """End the process and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End the process: with SIGTERM first (it may hold a GPU), then with SIGKILL."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self.kill()
        self._process.stdout.close()
        self._log_file.close()
