"""Speed against accuracy: a point per engine configuration, with intervals both ways, and the Pareto frontier."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from moebench import columns
from moebench.config import Plot
from moebench.errors import ConfigError
from moebench.figures import accuracy, data, draw, marks, style
from moebench.figures.data import Axis, Data

FRONTIER_DASH = (0, (4, 2))
_ROLES = ("hue", "marker", "panel", "row")
INTERVAL_OPACITY = 0.45
"""Of intervals: where many points are as accurate, theirs lie over each other and must not hide the points."""


def place(plot: Plot, frame: pd.DataFrame, where: str) -> Data:
    """Place cells as points.  Raises ConfigError for unknown columns, two cells on one place, or no cells."""
    if plot.row and len(plot.y) > 1:
        raise ConfigError(f"{where}: row is for figures with one y; this one has {len(plot.y)}")
    measured = (*columns.METRIC_NAMES, *accuracy.ANSWERS)
    for name in plot.beside:
        columns.column(name, where)
        if name not in frame:
            raise ConfigError(f"{where}: beside: cells have no column {name!r}")
    for name in (plot.x, *plot.y):
        columns.column(name, where)
        if name not in measured:
            raise ConfigError(f"{where}: {name!r} is not a measured metric; figures of kind pareto show only those")
        if not columns.COLUMNS[name].better:
            raise ConfigError(
                f"{where}: neither high nor low values of {name!r} are better, so there is no Pareto frontier"
            )
    placed = data.place_cells(plot, accuracy.answered(plot, frame, where), _ROLES, where)
    rows = placed.rows.assign(x=placed.rows[plot.x].astype(float))
    values = rows["x"].dropna()
    levels = tuple(sorted(set(values))) or (0.0, 1.0)
    return Data(plot, rows, placed.axes | {"x": Axis(plot.x, columns.COLUMNS[plot.x].axis, levels, True)})


def _rising(metric: str) -> bool:
    return columns.COLUMNS[metric].better == "high"


def frontier(x: np.ndarray, y: np.ndarray, x_up: bool, y_up: bool) -> list[int]:
    """Indices of the points that no other one beats: at least as good in both and better in one; by ``x``."""
    a, b = (x if x_up else -x), (y if y_up else -y)
    kept = [
        i
        for i in range(len(a))
        if not any((a[j] >= a[i] and b[j] >= b[i]) and (a[j] > a[i] or b[j] > b[i]) for j in range(len(a)))
    ]
    return sorted(kept, key=lambda i: (x[i], y[i]))


def ends(rows: pd.DataFrame, metric: str, factor: float) -> np.ndarray:
    """Distances from values to the ends of their intervals (2, n), 0 if there is none."""
    middle, low, high = (
        rows[c].to_numpy(dtype=float) * factor if c in rows else np.full(len(rows), np.nan)
        for c in (metric, f"{metric}_low", f"{metric}_high")
    )
    made: np.ndarray = np.nan_to_num(np.vstack([middle - low, high - middle]).clip(min=0))
    return made


def points(placed: Data, panel: draw.Panel, band: float) -> None:
    """Draw one panel: points, intervals, frontier (``band`` is for failure marks of lines)."""
    plot, axes = placed.plot, panel.axes
    good = complete(panel.rows, plot.x, panel.y)
    for number, (level, colour, own) in enumerate(draw.series(placed)):
        for mark, marker in markers(placed):
            rows = good if level is None else good[good["hue"] == level]
            rows = rows if mark is None else rows[rows["marker"] == mark]
            if len(rows):
                _points(panel, rows, plot.x, number, (colour, marker or own))
    best = _best(good, plot.x, panel.y)
    if not best:
        return
    x, y = good["x"].to_numpy(dtype=float), good[panel.y].to_numpy(dtype=float)
    axes.plot(
        x[best],
        y[best] * panel.factor,
        color=style.FAINT,
        linewidth=1.0,
        linestyle=FRONTIER_DASH,
        marker="o",  # a ring: a frontier of one point has no line
        markersize=9,
        markerfacecolor="none",
        markeredgewidth=0.8,
        zorder=2,
    )
    for place in best:
        if text := beside(plot, good.iloc[place]):
            axes.annotate(
                text,
                (x[place], y[place] * panel.factor),
                xytext=(5, 3),
                textcoords="offset points",
                fontsize=style.SMALL,
                color=style.INK,
                zorder=5,
            )


def beside(plot: Plot, row: pd.Series) -> str:
    """Values that are printed beside a point of the front; empty without any."""
    return ", ".join(f"{row[name]:.3g}" for name in plot.beside if pd.notna(row[name]))


def _points(panel: draw.Panel, rows: pd.DataFrame, x: str, number: int, look: tuple[Any, str]) -> None:
    """Draw points of one hue (its number) and look, colour and marker, with their intervals; hollow where unstable."""
    colour, marker = look
    across, values = rows["x"].to_numpy(dtype=float), rows[panel.y].to_numpy(dtype=float) * panel.factor
    drawn = panel.axes.errorbar(
        across,
        values,
        xerr=ends(rows, x, 1.0),
        yerr=ends(rows, panel.y, panel.factor),
        color=colour,
        linestyle="none",
        capsize=2,
        capthick=0.8,
        elinewidth=0.8,
        marker=marker,
        markersize=5,
        zorder=3,
    )
    drawn[0].set_markeredgewidth(0)
    hollow = draw.unstable(rows)
    rings = draw.hollows(panel.axes, across[hollow], values[hollow], colour, marker, markersize=5, zorder=4)
    drawn[0].set_gid(marks.name("mark", number, panel.y, rows.index))
    marks.parts([*drawn[1], *drawn[2], *rings], number, panel.y, rows.index)
    for part in (*drawn[1], *drawn[2]):
        part.set_alpha(INTERVAL_OPACITY)


def markers(placed: Data) -> list[tuple[Any, str]]:
    """Level and marker of the column that determines it; one pair of None and nothing without such a column."""
    if "marker" not in placed.axes:
        return [(None, "")]
    return list(zip(placed.levels("marker"), itertools.cycle(style.MARKERS), strict=False))


def _panels(placed: Data) -> list[pd.DataFrame]:
    """The rows of each panel."""
    places = itertools.product(placed.levels("row"), placed.levels("panel"))
    return [placed.at(row=row, panel=panel) for row, panel in places]


def told_apart(rows: pd.DataFrame, metric: str) -> bool:
    """Whether two of some values have intervals that do not meet; values without an interval are exact."""
    if len(rows) < 2:
        return False
    value = rows[metric].astype(float)
    low, high = (
        rows[c].astype(float).fillna(value) if c in rows else value for c in (f"{metric}_low", f"{metric}_high")
    )
    return bool(low.max() > high.min())


def _best(good: pd.DataFrame, x: str, y: str) -> list[int]:
    """Places in ``good`` of the points on the frontier; none where the values of an axis cannot be distinguished."""
    if not (told_apart(good, x) and told_apart(good, y)):
        return []
    return frontier(good[x].to_numpy(dtype=float), good[y].to_numpy(dtype=float), _rising(x), _rising(y))


def has_frontier(placed: Data) -> bool:
    """Whether any panel has a Pareto frontier."""
    plot = placed.plot
    return any(_best(complete(rows, plot.x, y), plot.x, y) for rows in _panels(placed) for y in plot.y)


def complete(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Cells that have both values."""
    return rows[(rows["status"] == "ok") & rows[x].notna() & rows[y].notna()]


def set_x(axes: Any, placed: Data) -> None:
    """Limits of the x axis: all intervals and a margin; shares stay within a little of 0 and 1."""
    rows, name = placed.rows, placed.plot.x
    shown = pd.concat([rows[c].astype(float) for c in (name, f"{name}_low", f"{name}_high") if c in rows]).dropna()
    low, high = (shown.min(), shown.max()) if len(shown) else (0.0, 1.0)
    margin = max(0.06 * (high - low), 0.02 * (abs(high) or 1))
    first = low - margin
    if name == accuracy.ACCURACY:  # a share: below zero only the room for a marker
        first, margin = max(first, -0.02), max(margin, 0.1 - (high - low))
    axes.set_xlim(first, high + margin)
    ticks = MaxNLocator(6).tick_values(first, high + margin)
    axes.set_xticks([t for t in ticks if first <= t <= high + margin and (name != accuracy.ACCURACY or 0 <= t <= 1)])


def table(placed: Data) -> pd.DataFrame:
    """The figure's data as it goes into its CSV, with whether a point is on the frontier of each panel."""
    plot, rows = placed.plot, placed.rows
    values = [c for y in (plot.x, *plot.y) for c in (y, f"{y}_low", f"{y}_high") if c in rows]
    named = {getattr(plot, role): rows[role] for role in _ROLES if role in placed.axes}
    made = data.described(rows, named, ["accuracy_status", "accuracy_of", *values, *plot.beside])
    for y in plot.y:
        made[f"frontier_{y}"] = False
        for panel in _panels(placed):
            good = complete(panel, plot.x, y)
            made.loc[good.index[_best(good, plot.x, y)], f"frontier_{y}"] = True
    return made
