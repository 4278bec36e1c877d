"""Kernels that an engine compiles or tunes while it runs, read from its log.

vLLM monitors its kernels' compilers (``vllm/utils/jit_monitor.py``) and logs each compilation; in a timed run one adds
seconds that no other run has.  Standard library only.
"""

from __future__ import annotations

import os
import re
import stat

_SAID = re.compile(rb"compilation during inference: ([^\s(]+?)(?:\.(?=\s)| \(|$)|Triton autotuning for function (\w+)")


def mark() -> int | None:
    """Length of the log on standard error, bytes; None if that is not a file."""
    found = os.fstat(2)
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def said(start: int | None) -> bytes:
    """The log's text since a ``mark``; empty without a file."""
    if start is None:
        return b""
    with open("/proc/self/fd/2", "rb") as log:
        log.seek(start)
        return log.read()


def since(start: int | None) -> list[str]:
    """Kernels compiled since a ``mark``, by name."""
    return named(said(start))


def named(log: bytes) -> list[str]:
    """Kernels whose compilation a log reports, each once, in order."""
    names = ((compiled or tuned).decode(errors="replace") for compiled, tuned in _SAID.findall(log))
    return list(dict.fromkeys(names))
