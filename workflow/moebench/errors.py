"""Errors shown to users: one line that names the file, the value and the remedy."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something a user can fix.  The command line prints it as one line and exits with code 2."""


class ConfigError(UserError):
    """A configuration file is invalid."""


class Unsupported(ConfigError):
    """A grid point that no engine can run; the text is only the reason, which the plan's row shows."""


class Misfit(Unsupported):
    """A value that does not fit one model: a mistake if it fits no point of its block, otherwise an unsupported
    point."""


class StageError(UserError):
    """A model or data set is missing or incomplete."""


class StorageError(UserError):
    """The results folder cannot be written, or contains something that this version cannot read."""


FULL_DISK = r"No space left on device|Not enough disk space|Disk quota exceeded|\(os error (?:28|122)\)"
"""Messages of the system, and of libraries written in Rust, about a full disk or an exhausted quota."""


def disk_is_full(error: BaseException) -> bool:
    """Whether an error is about a full disk or an exhausted quota, by its number or its text."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return re.search(FULL_DISK, str(error)) is not None


def nearest(word: str, known: Iterable[str], listed: int = 12) -> str:
    """``; did you mean 'x'?`` for the closest known word, or ``; known: a, b`` when none is close."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(known[:listed]) + (", ..." if len(known) > listed else "")
    return f"; known: {shown}" if known and listed else ""
