"""Identifiers on the marks of a figure, so that the page can show a mark's value and link to its cell.

The SVG of a figure names its marks ``mark.hue0.ttft_s.3-7-11``: kind, number of the hue level, metric, and the rows of
the figure's CSV that the marks of the group stand for, in order.  A ``part`` belongs to marks (an error bar, a dash),
a ``lacks`` stands for cells without a value.  One mark of several rows shows their sum.  A map of 4 by 8 places, the
first of them in row 12, is ``map.relative_activation.12.4x8``.  Entries of the legend are ``legend.hue0`` and
``legend.hue0.text``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from matplotlib.axes import Axes

Kind = Literal["mark", "lacks"]


def name(kind: Kind, hue: int, metric: str, rows: Iterable[int]) -> str:
    """The identifier of marks that stand for some rows of the figure's data."""
    return f"{kind}.hue{hue}.{metric}.{'-'.join(map(str, rows))}"


def parts(artists: Iterable[Any], hue: int, metric: str, rows: Iterable[int]) -> None:
    """Name artists that belong to the marks of some rows; without rows they are not drawn and keep their names."""
    first = next(iter(rows), None)
    if first is not None:
        for number, artist in enumerate(artists):
            artist.set_gid(f"part.hue{hue}.{metric}.{first}.{number}")


def targets(axes: Axes, at: Any, values: Any, gid: str) -> None:
    """Invisible markers, so that a pointer can select points of a line drawn without markers."""
    if len(at):
        axes.plot(at, values, linestyle="none", marker="o", markersize=7, markerfacecolor=(0, 0, 0, 0),
                  markeredgewidth=0, gid=gid)  # fmt: skip


def grid(metric: str, first: int, lines: int, across: int) -> str:
    """The identifier of a map whose places are rows of the figure's data from ``first`` on, line by line."""
    return f"map.{metric}.{first}.{lines}x{across}"


def legend_entry(hue: int) -> str:
    """The identifier of a hue level's entry in the legend."""
    return f"legend.hue{hue}"
