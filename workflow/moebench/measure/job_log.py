"""The progress log of a job, and the signals that end it."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moebench.storage import atomic

Say = Callable[[str], None]
"""Prints a line of progress."""


def end_on_signals() -> None:
    """Turn SIGTERM (scancel, a time limit) into an exception, so that the worker and the lock are released."""

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)


def speaker(log: Path) -> Say:
    """Print lines to standard error and append them to a job's progress log."""

    def say(text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the job
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
        note(log, text)

    return say


def note(log: Path, text: str) -> None:
    """Append a line, with time and host, to a job's progress log."""
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as file:
            file.write(f"{atomic.stamp()} {socket.gethostname()} {text}\n")
