"""Why a Snakemake job failed, in three lines: the job, the decisive reason, its log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moebench.measure.records import is_final
from moebench.progress.phases import Unit

INTERRUPTED = "interrupted"
"""Start of the last line of a job that was told to end."""
TAIL = 20_000


@dataclass(frozen=True)
class Failure:
    """A failed job: its name, the reason, the file to read."""

    what: str
    why: str
    log: str

    def lines(self) -> list[str]:
        """The three lines."""
        return [f"failed: {self.what}", f"   why: {self.why}", f"   log: {self.log}"]


def reason(log: Path | None, output: Path, since: float, offset: int, units: Iterable[Unit]) -> tuple[str, Path]:
    """The decisive reason of a failed job, and the file it comes from.

    The first of: the newest record that the job wrote for a cell it has to try again (with the engine's log); the last
    line of the job's own log; the last line that anything printed since it started.

    Args:
        log: the job's log by its rule, if it has one; ``moebench`` keeps its own lines beside it.
        output: what the jobs printed.
        since: when the job started, seconds since the epoch.
        offset: size of ``output`` then.
        units: cells of the job.
    """
    lost = [found for unit in units if (found := _lost(unit, since))]
    if lost and log is not None:
        why = max(lost)[1]
        return why + (f" (and {len(lost) - 1} other cells)" if len(lost) > 1 else ""), log
    if log is not None:
        for path in (log.with_suffix(".progress.log"), log):
            if path.exists() and path.stat().st_mtime >= since and (line := _last(path, 0)):
                own = line.startswith("moebench ")  # lines as on a terminal; those of a log begin with time and host
                return line if own else " ".join(line.split(" ")[2:]) or line, path
    return _last(output, offset) or "it ended without a message", output


def _lost(unit: Unit, since: float) -> tuple[str, str] | None:
    """When and why the last attempt at a cell gave no result; None: it did, or there was none."""
    try:
        if not unit.recorded or unit.path.stat().st_mtime < since:
            return None
        record = json.loads(unit.path.read_bytes())
        words = f"{record['engine']}/{record['cell']}: {record['status']}: {record['reason']}"
        return None if is_final(record) else (record["ended_at"], words)
    except (OSError, ValueError, KeyError):
        return None


def _last(path: Path, offset: int) -> str:
    """The last line of a file from ``offset`` on that says something; one of ``moebench`` itself, if there is any."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - TAIL))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    own = [line for line in lines if line.startswith("moebench ")]
    return (own or lines or [""])[-1]
