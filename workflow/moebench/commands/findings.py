"""A line of ``moebench doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line: subject, status, observation, and remedy if something is missing."""

    what: str
    good: bool | None
    seen: str
    todo: str = ""

    @property
    def mark(self) -> str:
        """``ok``, ``MISSING`` or ``note``."""
        return {True: "ok", False: "MISSING", None: "note"}[self.good]

    @property
    def remedy(self) -> str:
        """The remedy; empty if there is nothing to do."""
        return "" if self.good else self.todo

    def as_json(self) -> dict[str, str]:
        """The line as JSON."""
        return {"what": self.what, "status": self.mark.lower(), "seen": self.seen, "remedy": self.remedy}
