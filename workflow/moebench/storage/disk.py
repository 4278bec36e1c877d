"""Full disks: finds the full folder among those that a job, its engine and its harness write to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

DISK = "the disk is full"
"""Start of the reason if the engine or a harness had no space (for its log, a cache)."""

FULL_BYTES, TIGHT_BYTES = 1 << 16, 1 << 24
"""Room with which a file system counts as full (what was written last may have left a little), and as the one that was
full a moment ago: who fails removes its temporary files."""


def full(folders: Iterable[Path], least_bytes: int = FULL_BYTES) -> list[Path]:
    """The folders whose file system has no space or inodes left, one per file system."""
    found: dict[int, Path] = {}
    for folder in folders:
        try:
            seen, device = os.statvfs(folder), folder.stat().st_dev
        except OSError:
            continue
        if seen.f_bavail * seen.f_frsize < least_bytes or (seen.f_files and not seen.f_favail):
            found.setdefault(device, folder)
    return list(found.values())


def explain(reason: str, evidence: list[str], folders: list[Path]) -> str:
    """A reason that begins with ``failures.DISK``, with the folders that are full, or else the engine's message, and
    the remedy."""
    now = full(folders)
    where = ", ".join(map(str, now or full(folders, TIGHT_BYTES)))
    words = "" if now or not evidence else f" ({evidence[-1][:300]})"
    return f"{DISK}{' at ' + where if where else ''}{words}{reason.removeprefix(DISK)}; free space, then run again"


def written(results: Path, log: Path) -> list[Path]:
    """Folders that a job writes to: results, logs, temporary files, shared memory, caches in the home."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    return [results, log.parent, temporary, Path("/dev/shm"), home]
