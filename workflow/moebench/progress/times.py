"""Times from the records of a job: process starts, further loads, cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from moebench.formats.record import RecordHead

NOT_TRIED_S = 0.5
"""A cell without a load that took less was refused before anything was started."""


@dataclass
class Times:
    """Seconds of each kind seen so far.

    A load's time is from its request to its first cell.  The first load of a process is a ``start``: it imports the
    engine, too.  A cell's time is from the end of the one before (the canary included).
    """

    starts: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    cells: list[float] = field(default_factory=list)
    loaded: set[tuple[str, str]] = field(default_factory=set)  # (process, engine configuration) that runs now
    _ended: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, process: str, record: RecordHead) -> None:
        """Count a record; those of a process in the order in which they ended."""
        began, ended = _seconds(record["started_at"]), _seconds(record["ended_at"])
        failed_load = not record["load"] and record["status"] != "ok"
        session = str(record["started_at"] if failed_load else record["load"].get("session", ""))
        if not session or record.get("derived_from") or (failed_load and ended - began < NOT_TRIED_S):
            return
        key = (record["engine"], session)
        if key not in self._ended:
            took = ended - began if failed_load else began - _seconds(session)
            started = any(known == process for known, _ in self.loaded)
            (self.loads if started else self.starts).append(max(0.0, took))
            self.loaded.add((process, record["engine"]))
        if not failed_load:
            self.cells.append(max(0.0, ended - self._ended.get(key, began)))
        self._ended[key] = ended

    def left(self, pairs: set[tuple[str, str]]) -> tuple[int, int]:
        """Of pairs of process and engine configuration: starts and further loads to come."""
        running = {process for process, _ in self.loaded}
        starts = len({process for process, _ in pairs} - running)
        return starts, len(pairs - self.loaded) - starts

    def new_process(self, process: str) -> None:
        """A process restarts, with nothing loaded."""
        self.loaded = {pair for pair in self.loaded if pair[0] != process}


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
