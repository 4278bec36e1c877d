"""The driver's side of the sidecar: started beside an engine, queried after each cell.

Its failures never affect a measurement: if it does not answer in time, it is ended, and runs have no telemetry until
the next engine starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from typing import Any, cast

from moebench.formats.messages import Outcome
from moebench.formats.record import Devices, Telemetry

ANSWER_S = 5.0
"""Longest wait for an answer, of which two samples take 0.2 s."""
START_S = 20.0
"""Longest wait for its facts after an engine is loaded: NVML may take seconds to start."""
END_S = 5.0


class Sidecar:
    """A process that monitors an engine's devices.

    Args:
        python: interpreter of the engine's environment.
        kind: ``gpu`` or ``cpu``.
        devices, nodes: of the engine configuration.
        environment: variables of the engine's process.
    """

    def __init__(self, python: str, kind: str, devices: int, nodes: int, environment: dict[str, str]):
        self._buffer = b""
        command = [python, "-m", "moebench.measure.telemetry.process", str(os.getpid()), kind, str(devices), str(nodes)]
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
            )

    @property
    def pid(self) -> int | None:
        """Process id (also of the process group); None when it is gone."""
        return self._process.pid if self._process else None

    def begin(self) -> Devices:
        """Wait for its facts: devices, driver and links, or ``{"none": why}``."""
        found = self._line(START_S)
        facts = cast(Devices, found or {"none": "the sidecar did not start"})
        if "none" in facts:
            self.close()
        return facts

    def of(self, windows: list[tuple[float, float]]) -> list[Telemetry]:
        """The numbers of runs (begin and end each, s of the monotonic clock); empty if it does not answer."""
        if self._process is None:
            return []
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(windows).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self.close()
            return []
        found = self._line(ANSWER_S)
        return found if isinstance(found, list) else []

    def _line(self, timeout_s: float) -> Any:
        """Its next line of output, decoded; if none comes, end it and return None."""
        if self._process is None:
            return None
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                data = b""
                if selector.select(max(0.0, deadline - time.monotonic())):
                    data = os.read(self._process.stdout.fileno(), 1 << 16)
                if not data:
                    self.close()
                    return None
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError:
            self.close()
            return None

    def close(self) -> None:
        """End it, and the process that waits with it for the driver's end."""
        process, self._process, self._buffer = self._process, None, b""
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process that hangs in a driver call cannot be killed
            process.wait(timeout=END_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def attach(sidecar: Sidecar | None, outcome: Outcome) -> Outcome:
    """The outcome of a cell, with ``telemetry`` instead of ``window`` in its repeats if available."""
    for run in outcome.get("warmup", []):
        run.pop("window", None)
    runs = [run for run in outcome.get("repeats", []) if "window" in run]
    windows = [run.pop("window") for run in runs]
    if windows and sidecar is not None and len(seen := sidecar.of(windows)) == len(runs):
        for run, numbers in zip(runs, seen, strict=True):
            run["telemetry"] = numbers
    return outcome
