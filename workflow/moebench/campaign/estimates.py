"""Estimated times of loads and cells on this machine: the plan's expectation times the observed ratio.

Standard library only: runs where the campaign does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container
from pathlib import Path

from moebench.formats.campaign import CampaignState
from moebench.storage import atomic

REMEMBERED = 5
"""So many latest times of a kind count, the slowest of them: the first load may compile what later ones find."""

CUT_FACTOR = 1.5
"""An interrupted task is expected to take at least this many times its limit."""


class Estimates:
    """Expected and measured times, s, of a campaign; kept in a file, so that the next call knows them."""

    def __init__(self, path: Path):
        self.path = path
        self.state: CampaignState = {"began": atomic.stamp(), "took": [], "cut_off": {}}
        with contextlib.suppress(OSError, ValueError):
            self.state |= json.loads(path.read_bytes())

    @property
    def began(self) -> str:
        """When the campaign began on this machine (UTC)."""
        return self.state["began"]

    def factor(self, kind: str) -> float:
        """The largest of the latest ratios of measured to expected time; 1 before anything is measured."""
        known = [t["took_s"] / t["expected_s"] for t in self.state["took"] if t["kind"] == kind]
        return max(known[-REMEMBERED:], default=1.0)

    def estimate(self, kind: str, what: str, expected_s: float) -> float:
        """Estimated time of a ``load`` or ``cell``, s: more than its limit if it was interrupted before."""
        return max(expected_s * self.factor(kind), CUT_FACTOR * self.state["cut_off"].get(what, 0.0))

    def measured(self, kind: str, what: Container[str]) -> bool:
        """Whether a measured time of one of these is stored."""
        return any(t["kind"] == kind and t["what"] in what for t in self.state["took"])

    def cut_off(self, what: str, after_s: float) -> None:
        """Store that something was not finished after this time. Raises StorageError."""
        known = self.state["cut_off"]
        known[what] = max(known.get(what, 0.0), after_s)
        self._write()

    def note(self, kind: str, what: str, expected_s: float, took_s: float) -> None:
        """Store a measured time. Raises StorageError."""
        if expected_s > 0:
            self.state["took"].append({"kind": kind, "what": what, "expected_s": expected_s, "took_s": took_s})
            self._write()

    def _write(self) -> None:
        atomic.write_atomic(self.path, json.dumps(self.state, indent=1).encode() + b"\n")
