"""Errors meant for people: one line that names the file, the value and the remedy."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something a user can fix.  The command line prints it as one line and exits with code 2."""


class ConfigError(UserError):
    """A configuration file says something that cannot be."""


class Unsupported(ConfigError):
    """A point of a grid that no engine can run; the text is the reason alone.  The plan has it as a row with it."""


class Misfit(Unsupported):
    """A value that one model has no room for: a mistake where no other point of its block can be, else a point."""


class StageError(UserError):
    """A model or data set is not there, or not whole."""


class StorageError(UserError):
    """The results folder cannot be written, or holds what this version cannot read."""


FULL_DISK = r"No space left on device|Not enough disk space|Disk quota exceeded|\(os error (?:28|122)\)"
"""What the system says about a full disk or a used-up quota, and what libraries written in Rust make of it."""


def disk_is_full(error: BaseException) -> bool:
    """Whether an error is that of a full disk or a used-up quota: by its number, or by its words."""
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
