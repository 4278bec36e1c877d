"""Speed against accuracy: a point per engine configuration, with intervals both ways, and the Pareto frontier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from moebench import columns
from moebench.config import Plot
from moebench.errors import ConfigError
from moebench.figures import accuracy, data, draw, style
from moebench.figures.data import Axis, Data

FRONTIER_DASH = (0, (4, 2))
INTERVAL_OPACITY = 0.45
"""Of intervals: where many points are as accurate, theirs lie over each other and must not hide the points."""


def place(plot: Plot, frame: pd.DataFrame, where: str) -> Data:
    """Place cells as points.  Raises ConfigError for unknown columns, two cells on one place, or no cells."""
    measured = (*columns.METRIC_NAMES, *accuracy.ANSWERS)
    for name in (plot.x, *plot.y):
        columns.column(name, where)
        if name not in measured:
            raise ConfigError(f"{where}: {name!r} is not measured, a figure of kind pareto shows what is")
        if not columns.COLUMNS[name].better:
            raise ConfigError(f"{where}: neither high nor low {name!r} is better, so there is no Pareto frontier")
    placed = data.place_cells(plot, accuracy.answered(plot, frame, where), ("hue", "panel"), where)
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
    """Distances from values to the ends of their intervals (2, n), 0 where there is none."""
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
    for number, (level, colour) in enumerate(zip(placed.levels("hue"), draw.colours(placed), strict=True)):
        rows = good if level is None else good[good["hue"] == level]
        if rows.empty:
            continue
        drawn = axes.errorbar(
            rows["x"].to_numpy(dtype=float),
            rows[panel.y].to_numpy(dtype=float) * panel.factor,
            xerr=ends(rows, plot.x, 1.0),
            yerr=ends(rows, panel.y, panel.factor),
            color=colour,
            linestyle="none",
            capsize=2,
            capthick=0.8,
            elinewidth=0.8,
            marker=style.MARKERS[number % len(style.MARKERS)],
            markersize=5,
            zorder=3,
        )
        drawn[0].set_markeredgewidth(0)
        for part in (*drawn[1], *drawn[2]):
            part.set_alpha(INTERVAL_OPACITY)
    x, y = good["x"].to_numpy(dtype=float), good[panel.y].to_numpy(dtype=float)
    best = frontier(x, y, _rising(plot.x), _rising(panel.y))
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
    if name == accuracy.ACCURACY:  # a share: no room for less than none of the right answers but that of a marker
        first, margin = max(first, -0.02), max(margin, 0.1 - (high - low))
    axes.set_xlim(first, high + margin)
    ticks = MaxNLocator(6).tick_values(first, high + margin)
    axes.set_xticks([t for t in ticks if first <= t <= high + margin and (name != accuracy.ACCURACY or 0 <= t <= 1)])


def table(placed: Data) -> pd.DataFrame:
    """The figure's data as it goes into its CSV, with whether a point is on the frontier of each panel."""
    plot, rows = placed.plot, placed.rows
    keys = [
        "experiment",
        "engine",
        "cell",
        "model_title",
        "weights",
        "top_k",
        "status",
        "accuracy_status",
        "accuracy_of",
    ]
    values = [c for y in (plot.x, *plot.y) for c in (y, f"{y}_low", f"{y}_high") if c in rows]
    made = rows[[*keys, *values]].copy()
    for role in (role for role in ("hue", "panel") if role in placed.axes):
        name = getattr(plot, role)
        if name not in made:
            made.insert(len(keys), name, rows[role])
    for y in plot.y:
        made[f"frontier_{y}"] = False
        for panel in placed.levels("panel"):
            good = complete(placed.at(panel=panel), plot.x, y)
            best = frontier(good["x"].to_numpy(dtype=float), good[y].to_numpy(dtype=float),
                            _rising(plot.x), _rising(y))  # fmt: skip
            made.loc[good.index[best], f"frontier_{y}"] = True
    return made
