"""The sidecar: ``python -m moebench.measure.telemetry.process PARENT-PID KIND DEVICES NODES``.

Prints its facts as a line of JSON, then samples every 100 ms.  A line with runs ([begin, end] each, s of the monotonic
clock) on standard input is answered by a line with their numbers, once there is a sample after the last run.  It ends
with its standard input or its parent.  If there is nothing to read, it prints ``{"none": why}`` and ends.
"""

from __future__ import annotations

import json
import os
import selectors
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Protocol

from moebench.engines.parent import die_with
from moebench.formats.record import Devices
from moebench.measure.telemetry import rapl, window
from moebench.measure.telemetry.nvml import Nvml
from moebench.measure.telemetry.rapl import Rapl

PERIOD_S = 0.1
KEPT = 50_000
"""Most samples kept, 83 minutes; what belongs to runs that were asked for goes at once."""
NICE = 10
RAPL_FOLDER = "MOEBENCH_RAPL_FOLDER"
"""Variable with another folder than the kernel's, for tests."""


class Source(Protocol):
    """Devices that can be read."""

    @property
    def nothing(self) -> str: ...

    def facts(self) -> Devices: ...

    def read(self) -> list[window.Reading]: ...


class Requests:
    """Lines of standard input, read between samples."""

    def __init__(self, stream: int):
        self.stream, self._buffer, self.ended = stream, b"", False
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ)

    def wait(self, seconds: float) -> list[tuple[float, float]] | None:
        """The next request, if one arrives completely within that time."""
        if self._selector.select(max(0.0, seconds)):
            data = os.read(self.stream, 1 << 16)
            self.ended = not data
            self._buffer += data
        line, found, rest = self._buffer.partition(b"\n")
        if not found:
            return None
        self._buffer = rest
        return [(begin, end) for begin, end in json.loads(line)]


def serve(source: Source, requests: Requests, missing: str) -> None:
    """Sample and answer until the requests end.  ``missing``: why some of the job's devices are missing, if so."""
    samples: deque[window.Sample] = deque(maxlen=KEPT)
    asked: list[tuple[float, float]] = []
    due = time.monotonic()
    while not requests.ended:
        samples.append((time.monotonic(), source.read()))
        if asked and samples[-1][0] >= asked[-1][1] + PERIOD_S:  # the counter has caught up
            made = [window.reduce(list(samples), *run) for run in asked]
            for run in made if missing else ():
                run |= {"energy_j": None, "no_energy": missing}
            say(made)
            samples, asked = deque([samples[-1]], maxlen=KEPT), []
        due = max(due + PERIOD_S, time.monotonic())
        while not requests.ended and (left := due - time.monotonic()) > 0:
            asked = requests.wait(left) or asked


def say(reply: Any) -> None:
    """Write a line of JSON to the driver."""
    print(json.dumps(reply), flush=True)


def main(kind: str, devices: int, nodes: int) -> None:
    """Sample the devices of a job until it ends; ``devices`` and ``nodes`` are those of the engine configuration."""
    source: Source
    missing = "devices of other nodes are not read" if nodes > 1 else ""
    if kind == "gpu":
        source = Nvml(os.environ.get("CUDA_VISIBLE_DEVICES"), devices)
        if len(source.devices) < devices:
            missing = missing or f"only {len(source.devices)} of {devices} devices are visible"
    else:
        source = Rapl(Path(os.environ.get(RAPL_FOLDER) or rapl.FOLDER))
    if source.nothing:
        say({"none": source.nothing})
    else:
        say(source.facts())
        serve(source, Requests(0), missing)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    os.nice(NICE)
    main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
