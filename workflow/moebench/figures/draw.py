"""Lines and bars on one pair of axes.  A cell without a value has no height: it is a mark in a band below the axis.
The mark or bar of an unstable cell is hollow.  Nothing is left out silently."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import ScaledTranslation

from moebench.config import JOIN
from moebench.figures import foreseen, marks, style, tiles
from moebench.figures.data import AND, Data, columns_of
from moebench.figures.ticks import BAR_GROUP

DODGE_PT = 1.2
"""Series stand this far apart at the same x, points, so that their error bars can be distinguished."""
PREDICTED = "predicted"
"""Status of a cell that is only predicted: its dash is all there is."""
PREDICTED_DASH = (0, (3, 1.6))
MARK_PT = 8.5
"""Height that one row of failure marks takes, points."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes: which rows, which metric, drawn how."""

    axes: Axes
    rows: pd.DataFrame
    y: str
    factor: float
    """Metric in axis units per base unit, e.g. 1000 for milliseconds."""

    @property
    def has_values(self) -> bool:
        """Whether anything measured or predicted is there to draw."""
        return bool(has_value(self.rows, self.y).any() or predicted(self.rows, self.y).notna().any())


def shows(rows: pd.DataFrame, y: str) -> pd.Series:
    """Which rows give anything to draw: a value, a prediction, or the mark of a cell that should have a value."""
    return has_value(rows, y) | predicted(rows, y).notna() | (rows["status"] != PREDICTED)


def drawn_only(placed: Data) -> Data:
    """The levels of every axis at which there is something to draw, so that no panel and no place is empty.

    A figure in which nothing is drawn stays as it is.
    """
    rows, something = placed.rows, pd.Series(False, index=placed.rows.index)
    for y in placed.plot.y:
        something |= shows(rows, y)
    if not something.any():
        return placed
    axes, kept = {}, pd.Series(True, index=rows.index)
    for role, axis in placed.axes.items():
        levels = set(rows.loc[something, role])
        axes[role] = dataclasses.replace(axis, levels=tuple(level for level in axis.levels if level in levels))
        kept &= rows[role].isin(levels)
    return dataclasses.replace(placed, rows=rows[kept], axes=axes)  # the index leads to the CSV


def narrowed(placed: Data) -> Data:
    """The same with only the columns that drawing reads: selecting rows takes time per column."""
    metrics = (placed.plot.x, *placed.plot.y, *placed.plot.beside)
    read = {"status", "unstable", "predicted_fits", "by", tiles.UNTUNED, *placed.axes}
    read |= {name for metric in metrics for name in (*columns_of(metric), f"{metric}_status")}
    return dataclasses.replace(placed, rows=placed.rows[[name for name in placed.rows if name in read]])


def has_value(rows: pd.DataFrame, y: str) -> pd.Series:
    """Which cells are drawn as values."""
    return (statuses(rows, y) == "ok") & rows[y].notna()


def statuses(rows: pd.DataFrame, y: str) -> pd.Series:
    """The status of each cell, or of its accuracy if that is shown."""
    return rows[f"{y}_status"] if f"{y}_status" in rows else rows["status"]


def lacking(rows: pd.DataFrame, y: str) -> pd.DataFrame:
    """Cells that a mark stands for: without a value, where one was to be measured."""
    shown = rows.assign(status=statuses(rows, y))
    return shown[~has_value(rows, y) & (rows["status"] != PREDICTED)]


def predicted(rows: pd.DataFrame, y: str) -> pd.Series:
    """The computed value of each cell, base units; missing without one, or if it is predicted not to fit."""
    return foreseen.expected(rows, y)


def value(panel: Panel, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Medians of good rows and the distances to the ends of their intervals (2, n); no interval, no distance."""
    middle, low, high = (
        rows[c].to_numpy(dtype=float) * panel.factor if c in rows else np.full(len(rows), np.nan)
        for c in (panel.y, f"{panel.y}_low", f"{panel.y}_high")
    )
    return middle, np.nan_to_num(np.vstack([middle - low, high - middle]).clip(min=0))


def unstable(rows: pd.DataFrame) -> np.ndarray:
    """Which cells are marked unstable."""
    if "unstable" not in rows:
        return np.zeros(len(rows), dtype=bool)
    return np.array([pd.notna(v) and bool(v) for v in rows["unstable"]], dtype=bool)


def series(data: Data) -> list[tuple[Any, Any, str]]:
    """Level, colour and marker of each series: those of its label in every figure of the experiment."""
    if "hue" not in data.axes:
        return [(None, style.CATEGORIES[0], style.MARKERS[0])]
    axis = data.axes["hue"]
    known = axis.known or axis.levels
    if JOIN in axis.name:
        shades = style.shades([level.split(AND)[0] for level in known])
        return [(level, shades[known.index(level)], style.MARKERS[0]) for level in axis.levels]
    looks = style.palette(len(known), axis.numeric)
    places = [known.index(level) for level in axis.levels]
    return [
        (level, looks[i], style.MARKERS[i % len(style.MARKERS)]) for level, i in zip(axis.levels, places, strict=True)
    ]


# ------------------------------------------------------------------------------------------- lines


def lines(data: Data, panel: Panel, band: float) -> None:
    """Lines over x, one per hue.  ``band``: share of the axis height below zero that belongs to failure marks."""
    axes, x = panel.axes, data.axes["x"]
    position = {v: v if x.numeric else i for i, v in enumerate(x.levels)}
    stacked: dict[Any, int] = {}
    untuned = tiles.untuned(data.rows)
    step = MARK_PT / (axes.get_window_extent().height * 72 / axes.figure.dpi)
    for number, (level, colour, marker) in enumerate(series(data)):
        rows = panel.rows if level is None else panel.rows[panel.rows["hue"] == level]
        rows = rows.sort_values("x", key=lambda s: s.map({v: i for i, v in enumerate(x.levels)}))
        middle, ends = value(panel, rows)  # NaN if there is no value: the line breaks there
        aside = DODGE_PT * (number - (len(data.levels("hue")) - 1) / 2)
        shift = ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
        drawn = axes.errorbar(
            [position[v] for v in rows["x"]],
            middle,
            yerr=ends,
            color=colour,
            capsize=2,
            capthick=0.8,
            elinewidth=0.8,
            marker=marker,
            zorder=3,
        )
        drawn[0].set_markeredgewidth(0)
        at = np.array([position[v] for v in rows["x"]])
        hollow = unstable(rows) & has_value(rows, panel.y).to_numpy(dtype=bool)
        rings = hollows(axes, at[hollow], middle[hollow], colour, marker, zorder=4, transform=axes.transData + shift)
        foretold = predicted(rows, panel.y).to_numpy(dtype=float) * panel.factor
        dashed = axes.plot(at, foretold, color=colour, linewidth=0.9, linestyle=PREDICTED_DASH, zorder=2)
        foreseen.line(axes, at, rows, panel.y, panel.factor, colour)
        alone = _without_neighbours(foretold)  # a line of one point would be invisible
        if alone.any():
            dashed += axes.plot(at[alone], foretold[alone], color=colour, linestyle="none", marker="_", markersize=7)
        _point_at_predictions(axes, at, foretold, number, rows, panel.y)
        if not np.isnan(middle).all():  # a marker for each value
            drawn[0].set_gid(marks.name("mark", number, panel.y, rows.index[~np.isnan(middle)]))
        marks.parts([*drawn[1], *drawn[2], *dashed, *rings], number, panel.y, rows.index)
        dotted = untuned[rows.index].to_numpy() & has_value(rows, panel.y).to_numpy(dtype=bool)
        for some, ink in ((dotted & ~hollow, "white"), (dotted & hollow, colour)):
            tiles.dots(axes, at[some], middle[some], ink, zorder=5, transform=axes.transData + shift)
        for artist in (drawn[0], *drawn[1], *drawn[2]):  # moved only now: the axis limits come from the true places
            artist.set_transform(axes.transData + shift)
        for index, row in lacking(rows, panel.y).iterrows():
            height = step * (0.5 + stacked.get(row["x"], 0))
            stacked[row["x"]] = stacked.get(row["x"], 0) + 1
            named = marks.name("lacks", number, panel.y, [int(str(index))])
            at_height = min(height, max(band - step / 2, step / 2))
            failure_mark(axes, position[row["x"]], at_height, colour, row["status"], gid=named)


def _point_at_predictions(axes: Axes, at: Any, values: Any, hue: int, rows: pd.DataFrame, y: str) -> None:
    """Marks of the cells that are only predicted: dashes have none."""
    alone = (rows["status"] == PREDICTED).to_numpy() & ~np.isnan(values)
    named = marks.name("mark", hue, foreseen.column(rows, y), rows.index[alone])
    marks.targets(axes, at[alone], values[alone], named)


def _without_neighbours(values: np.ndarray) -> np.ndarray:
    """Which values have none on either side."""
    there = np.concatenate([[False], ~np.isnan(values), [False]])
    return np.asarray(there[1:-1] & ~there[:-2] & ~there[2:])


def hollows(axes: Axes, at: Any, values: Any, colour: Any, marker: str, **more: Any) -> list[Any]:
    """Hollow markers over those of some points."""
    if not len(at):
        return []
    return axes.plot(at, values, color=colour, linestyle="none", marker=marker, markerfacecolor="white",
                     markeredgewidth=0.9, **more)  # fmt: skip


def failure_mark(axes: Axes, x: float, height: float, colour: Any, status: str, gid: str | None = None) -> None:
    """The mark of a cell without a value, at a height given as a share of the axis."""
    _, marker, _ = style.status_style(status)
    axes.plot(
        [x],
        [height],
        transform=axes.get_xaxis_transform(),
        color=colour,
        zorder=4,
        clip_on=False,
        linestyle="none",
        marker=marker,
        markersize=4.6,
        markeredgewidth=1.0,
        markerfacecolor="none",
        gid=gid,
    )


def marks_stacked(rows: pd.DataFrame, y: str, kind: str) -> int:
    """Rows of marks that a panel needs: most cells without a value at one x; bars have a place each."""
    missing = lacking(rows, y)
    if missing.empty:
        return 0
    return 1 if kind == "bars" else int(missing.groupby("x").size().max())


def make_band(panels: list[Axes], share: float, log: bool) -> None:
    """Give the lowest ``share`` of panels with one y axis to failure marks, in grey, without ticks."""
    low, high = panels[0].get_ylim()
    if log:
        bottom = 10 ** (np.log10(low) - np.log10(high / low) * share / (1 - share))
    else:
        bottom = low - (high - low) * share / (1 - share)
    ticks = [t for t in panels[0].get_yticks() if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
    panels[0].set_ylim(bottom, high)
    panels[0].yaxis.set_major_locator(FixedLocator(ticks))
    for axes in panels:
        axes.axhspan(bottom, low, color=style.BAND, zorder=0.5, linewidth=0)
        axes.axhline(low, color=style.FAINT, linewidth=0.6, zorder=1)


# -------------------------------------------------------------------------------------------- bars


def bars(data: Data, panel: Panel, band: float) -> None:
    """Bars over the levels of x, side by side per hue.  ``band``: as for lines."""
    axes, x, hues = panel.axes, data.axes["x"], data.levels("hue")
    width, untuned = BAR_GROUP / len(hues), tiles.untuned(data.rows)
    position = {v: i for i, v in enumerate(x.levels)}
    for number, (level, colour, _) in enumerate(series(data)):
        rows = panel.rows if level is None else panel.rows[panel.rows["hue"] == level]
        shift = (number - (len(hues) - 1) / 2) * width
        good = rows[has_value(rows, panel.y)]
        middle, ends = value(panel, good)
        at = [position[v] + shift for v in good["x"]]
        hollow, dotted = unstable(good), untuned[good.index].to_numpy()
        faces = ["white" if h else colour for h in hollow]
        drawn_bars = axes.bar(at, middle, width * 0.92, color=faces, edgecolor=colour, linewidth=0, zorder=2)
        for bar, h, index in zip(drawn_bars, hollow, good.index, strict=True):
            bar.set_linewidth(1.0 if h else 0)
            bar.set_gid(marks.name("mark", number, panel.y, [index]))
        for some, ink in ((dotted & ~hollow, "white"), (dotted & hollow, colour)):
            tiles.dots(axes, np.array(at)[some], middle[some] / 2, ink, zorder=5)
        drawn = ends.sum(axis=0) > 0
        bounds = axes.errorbar(
            np.array(at)[drawn],
            middle[drawn],
            yerr=ends[:, drawn],
            fmt="none",
            ecolor=style.INK,
            elinewidth=0.8,
            capsize=min(2.5, 20 * width),
            capthick=0.8,
            zorder=3,
        )
        hoped = predicted(rows, panel.y).to_numpy(dtype=float) * panel.factor
        centre = np.array([position[v] + shift for v in rows["x"]])
        dashes = axes.hlines(
            hoped,
            centre - width * 0.46,
            centre + width * 0.46,
            color=colour if (rows["status"] == PREDICTED).all() else style.INK,  # no bar to stand out from
            linewidth=1.0,
            linestyle=PREDICTED_DASH,
            zorder=4,
        )
        foreseen.marks(axes, centre, width * 0.92, rows, panel.y, panel.factor, style.INK)
        _point_at_predictions(axes, centre, hoped, number, rows, panel.y)
        marks.parts([*bounds[1], *bounds[2], dashes], number, panel.y, rows.index)
        for index, row in lacking(rows, panel.y).iterrows():
            named = marks.name("lacks", number, panel.y, [int(str(index))])
            failure_mark(axes, position[row["x"]] + shift, band / 2, colour, row["status"], gid=named)
