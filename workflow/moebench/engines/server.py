"""A ``vllm serve`` process for an engine configuration: starts, monitors and ends it.  Standard library only.

>>> with Server(flags(arguments(spec)), "tiny-mixtral", log=Path("server.log")) as server:  # doctest: +SKIP
...     ask(server.url, server.key)

It listens on the loopback interface, at a free port, and accepts requests only with a key generated for this process,
so other users of a shared node cannot use it.  The key is passed in the environment, never in arguments or the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from moebench.engines.copied import Copy
from moebench.engines.loopback import direct
from moebench.engines.variables import CORE
from moebench.formats import Knobs

PORT_ATTEMPTS = 3
"""A free port may be taken before the server binds it; then another one is tried."""

STOP_TIMEOUT_S = 15.0
_POLL_S = 0.2
_DROPPED = ("skip_tokenizer_init", "disable_log_stats")
"""Arguments of the offline engine that a server has otherwise: it answers in text, and its statistics are on."""
_ON_BY_DEFAULT = ("enable_prefix_caching", "enable_chunked_prefill")
_NOT_INHERITED = (CORE,)
"""A server's engine core always has a separate process."""


class ServerFailed(RuntimeError):
    """The server did not start, or it ended; ``code`` is its exit code (None: still starting at the time limit)."""

    def __init__(self, reason: str, code: int | None = None, log: str = ""):
        super().__init__(reason)
        self.code, self.log = code, log


def flags(arguments: Knobs) -> list[str]:
    """Convert arguments of ``vllm.LLM`` to those of ``vllm serve``; mappings become JSON."""
    made = [str(arguments["model"])]
    for name, value in arguments.items():
        flag = "--" + name.replace("_", "-")
        if name == "model" or name in _DROPPED or value is None:
            continue
        if value is True:
            made.append(flag)
        elif value is False:
            made += [f"--no-{flag[2:]}"] if name in _ON_BY_DEFAULT else []
        elif isinstance(value, list):
            made += [flag, *map(str, value)]
        else:
            made += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return made


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A ``vllm serve`` process; a context manager.

    Args:
        arguments: of ``vllm serve``, the model first (``flags``).
        name: what requests call the model.
        log: file for its output; default: this process's standard error.
        environment: variables beside this process's own.
        timeout_s: it must answer by then.
        python: interpreter with vLLM; default: this one.
        copied: fork it from this process, which must be ``vllm_startup.ready_to_serve``.
    """

    def __init__(
        self,
        arguments: list[str],
        name: str,
        log: Path | None = None,
        environment: dict[str, str] | None = None,
        timeout_s: float = 600,
        python: str = sys.executable,
        copied: bool = False,
    ):
        self.arguments, self.name, self.log, self.timeout_s, self.python = arguments, name, log, timeout_s, python
        self.copied = copied
        self.key = secrets.token_urlsafe(24)
        self.port = 0
        self.ready_s = 0.0
        self.environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED} | {
            "VLLM_API_KEY": self.key,
            "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600",  # s; with the default of 5, runs would pay for new connections
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            **direct(),
            **(environment or {}),
        }
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, self.environment.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
        self._process: subprocess.Popen[bytes] | Copy | None = None
        self._sockets: tempfile.TemporaryDirectory[str] | None = None  # vLLM leaves them where they are
        self._mark = 0

    @property
    def root(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Base URL of its OpenAI-compatible interface."""
        return f"{self.root}/v1"

    @property
    def pid(self) -> int | None:
        """Process id (also of the process group); None when it is not running."""
        return self._process.pid if self._process else None

    def start(self) -> Server:
        """Start it and wait until it answers.  Raises ServerFailed, after ending everything that was started."""
        for attempt in range(PORT_ATTEMPTS):
            try:
                self._start_once()
                return self
            except ServerFailed as error:
                if "ddress already in use" not in error.log or attempt == PORT_ATTEMPTS - 1:
                    raise
        raise AssertionError("not reached")

    def _start_once(self) -> None:
        self.port = free_port()
        arguments = [*self.arguments, "--served-model-name", self.name, "--host", "127.0.0.1", "--port", str(self.port)]
        started = time.monotonic()
        self._sockets = tempfile.TemporaryDirectory(prefix="moe-", ignore_cleanup_errors=True)
        self.environment["VLLM_RPC_BASE_PATH"] = self._sockets.name
        with contextlib.ExitStack() as stack:
            output = (stack.enter_context(open(self.log, "ab")) if self.log else sys.stderr).fileno()
            self._mark = self.log.stat().st_size if self.log else 0
            self._process = self._copy(arguments, output) if self.copied else self._new(arguments, output)
        try:
            while not self.healthy():
                self.check()
                if time.monotonic() - started > self.timeout_s:
                    raise ServerFailed(f"the server did not answer within {self.timeout_s:.0f} s", log=self.said())
                time.sleep(_POLL_S)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.monotonic() - started

    def _new(self, arguments: list[str], output: int) -> subprocess.Popen[bytes]:
        command = [self.python, "-m", "moebench.engines.serve", str(os.getpid()), *arguments]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment,
            start_new_session=True,
        )  # fmt: skip

    def _copy(self, arguments: list[str], output: int) -> Copy:
        def serve(parent: int = os.getpid()) -> None:
            from moebench.engines.serve import run  # in the copy alone: it changes what this process is told of vLLM

            run(parent, arguments)

        return Copy(serve, output, self.environment)

    def healthy(self, timeout_s: float = 2) -> bool:
        """Whether it answers."""
        try:
            return self.get("/health", timeout_s) is not None
        except (OSError, urllib.error.URLError, ValueError):
            return False

    def get(self, path: str, timeout_s: float = 10) -> str:
        """Its answer to a GET request with its key.  Raises OSError."""
        request = urllib.request.Request(self.root + path, headers={"Authorization": f"Bearer {self.key}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
        with opener.open(request, timeout=timeout_s) as reply:
            return str(reply.read().decode())

    def check(self) -> None:
        """Raise ServerFailed, with its output since the start, if it ended."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise ServerFailed(f"the server ended with {code}", code, self.said())

    def said(self, limit: int = 1 << 20) -> str:
        """The end of its output since the start; empty if that went to standard error."""
        if self.log is None:
            return ""
        with open(self.log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._mark, size - limit))
            return file.read().decode(errors="replace")

    def stop(self) -> None:
        """End it and everything it started: gracefully first (it may hold a GPU), then by force."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._sockets:
            self._sockets.cleanup()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()
