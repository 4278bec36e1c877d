"""``moebench rerun``: failed cells made pending again, many at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from moebench import accuracy
from moebench.commands import show
from moebench.formats.plan import Plan
from moebench.formats.record import Record
from moebench.measure import records
from moebench.storage import lock
from moebench.text import count, table

STATUSES = tuple(status for status in (*records.FINAL, *records.INFRASTRUCTURE) if status != "ok")
"""Statuses of cells that may be wanted again."""


@dataclass
class Found:
    """Cells of a study that match: their folders and records, and how many are skipped because they are running."""

    cells: list[tuple[Path, Record]] = field(default_factory=list)
    busy: int = 0


def matching(plan: Plan, results: Path, statuses: list[str], reason: str) -> Found:
    """Speed and accuracy cells with one of these statuses, whose reason contains ``reason`` in any case."""
    found = Found()
    for part, folder in [(plan, results), *((part, folder) for _, part, folder in accuracy.views(plan, results))]:
        for record in show.statuses(part, folder).values():
            if record and record["status"] in statuses and reason.lower() in record["reason"].lower():
                if lock.holder(folder, record["engine"]):
                    found.busy += 1
                else:
                    found.cells.append((folder, record))
    return found


def make_pending(found: Found) -> None:
    """Make the cells pending; their records stay in ``history/``.  Raises StorageError."""
    for folder, record in found.cells:
        records.measure_again(folder, record["engine"], record["cell"])


def text(found: Found, study: str, command: str, dry: bool) -> str:
    """What is, or would be, measured again: cells by status and reason, and the command that does it."""
    groups: dict[tuple[str, str], int] = {}
    for _, record in found.cells:
        key = (record["status"], record["reason"][:100])
        groups[key] = groups.get(key, 0) + 1
    busy = []
    if found.busy:
        busy.append(f"{count(found.busy, 'cell')} left alone: their engine configurations are being measured")
    if not groups:
        return "\n".join([f"study {study}: no such cells", *busy])
    rows = [[number, status, reason] for (status, reason), number in groups.items()]
    will = "would be" if dry else "will be"
    lines = [table(["cells", "status", "reason"], rows), "", *busy]
    return "\n".join([*lines, f"{count(len(found.cells), 'cell')} {will} measured again by: {command}"])
