"""Series that the engine cannot run at all: named once in the caption instead of marked per cell."""

from __future__ import annotations

import dataclasses
from typing import Any

from moebench.figures import draw
from moebench.figures.data import Data


def series(placed: Data) -> dict[str, list[Any]]:
    """Levels of the hue whose cells, two or more, are all unsupported for the same reason; by reason.

    Empty if this is true of every series: then there are only marks to draw.
    """
    found: dict[str, list[Any]] = {}
    for level in placed.levels("hue") if "hue" in placed.axes else ():
        rows = placed.at(hue=level)
        valued = any(draw.has_value(rows, y).any() for y in placed.plot.y)
        if len(rows) > 1 and set(rows["status"]) == {"unsupported"} and rows["reason"].nunique() == 1 and not valued:
            found.setdefault(rows["reason"].iloc[0], []).append(level)
    return found if sum(map(len, found.values())) < len(placed.levels("hue")) else {}


def words(placed: Data) -> str:
    """The caption's sentence that names them; empty if there are none."""
    parts = [
        f"{', '.join(placed.axes['hue'].text(level) for level in levels)} ({reason})"
        for reason, levels in series(placed).items()
    ]
    return f"Unsupported: {'; '.join(parts)}." if parts else ""


def without(placed: Data) -> Data:
    """The remaining data to draw. The figure's CSV keeps every row."""
    gone = [level for levels in series(placed).values() for level in levels]
    if not gone:
        return placed
    hue = placed.axes["hue"]
    left = dataclasses.replace(hue, levels=tuple(level for level in hue.levels if level not in gone))
    rows = placed.rows[~placed.rows["hue"].isin(gone)]  # numbered as in the CSV: marks are named by it
    return dataclasses.replace(placed, rows=rows, axes=placed.axes | {"hue": left})
