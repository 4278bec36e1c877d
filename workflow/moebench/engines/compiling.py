"""Kernels that an engine compiles or tunes while it runs: its log says so.

vLLM watches its kernels' compilers (``vllm/utils/jit_monitor.py``) and warns of each; in a timed run such a compilation
is seconds that no other run has.  Standard library only.
"""

from __future__ import annotations

import os
import re
import stat

_SAID = re.compile(rb"compilation during inference: ([^\s(]+?)(?:\.(?=\s)| \(|$)|Triton autotuning for function (\w+)")


def mark() -> int | None:
    """How long the log on standard error is, in bytes; None where that is not a file."""
    found = os.fstat(2)
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def said(start: int | None) -> bytes:
    """What the log says since a ``mark``; nothing where there was no file."""
    if start is None:
        return b""
    with open("/proc/self/fd/2", "rb") as log:
        log.seek(start)
        return log.read()


def since(start: int | None) -> list[str]:
    """Kernels compiled since a ``mark``, by name."""
    return named(said(start))


def named(log: bytes) -> list[str]:
    """Kernels whose compilation a log tells of, each once, in order."""
    names = ((compiled or tuned).decode(errors="replace") for compiled, tuned in _SAID.findall(log))
    return list(dict.fromkeys(names))
