"""Time left: a pure function of remaining work, expected times and measured times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WEIGHT = 2
"""Measurements that the plan's expectation counts as much as."""


@dataclass(frozen=True)
class Work:
    """Tasks of one kind: ``left`` of them to do, ``expected_s`` each by the plan, ``seen`` measured in ``seen_s``."""

    left: int
    expected_s: float
    seen: int = 0
    seen_s: float = 0.0

    def each_s(self) -> float:
        """Expected seconds of one more: ``(WEIGHT * expected_s + seen_s) / (WEIGHT + seen)``.

        A mean, not a median: the times of cells are skewed, and the sum of those left is what is asked for.
        """
        return (WEIGHT * self.expected_s + self.seen_s) / (WEIGHT + self.seen)


def seconds_left(kinds: Iterable[Work], side_by_side: int = 1, since_s: float = 0.0) -> float:
    """Seconds until a phase is done.

    ``sum(left * each_s over kinds) / side_by_side - min(since_s, each_s of every kind with something left)``, at least
    0.  Kinds are process starts, further loads and cells, so that the first cell's load is not taken for a cell's time.

    Args:
        kinds: what is left, by kind.
        side_by_side: jobs that run at the same time.
        since_s: seconds since something was last finished; at most one of each kind is credited for them.
    """
    kinds = [kind for kind in kinds if kind.left > 0]
    whole = sum(kind.left * kind.each_s() for kind in kinds) / max(1, side_by_side)
    return max(0.0, whole - min(since_s, sum(kind.each_s() for kind in kinds)))


def about(seconds: float) -> str:
    """Time left as text, rounded to its accuracy: ``under 10 s``, ``about 40 s``, ``about 1 h 20 min``."""
    if seconds < 10:
        return "under 10 s"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 60 else f"about {minutes // 60} h {minutes % 60:02d} min"
