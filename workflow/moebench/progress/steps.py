"""Progress of one command on standard error: a changing line on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

EVERY_S = 10.0
"""Seconds between lines if there is no terminal."""


@contextlib.contextmanager
def steps(what: str) -> Iterator[Callable[[str], None]]:
    """Show the steps of a command; yields a function that is called with each step: ``say("figure fig03")``."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    if console.is_terminal and not console.is_dumb_terminal:
        with console.status(what) as status:
            yield lambda step: status.update(f"{what}: {step} ({time.monotonic() - began:.0f} s)")
        return
    last = began - EVERY_S

    def say(step: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_S:
            last = now
            print(f"{what}: {step} ({now - began:.0f} s)", file=sys.stderr, flush=True)

    yield say
