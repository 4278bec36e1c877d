"""Lines and bars on one pair of axes.  A failed cell is drawn where its value would be: a mark in a band below the
axis for lines, a hatched stub for bars; a cell that was not measured is hollow.  Nothing is left out silently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import ScaledTranslation

from moebench.figures import foreseen, style, tiles
from moebench.figures.data import Data
from moebench.figures.ticks import BAR_GROUP

STUB = 0.11
"""Height of a failed bar's stub, as a share of the axis."""
DODGE_PT = 1.2
"""Series stand this far apart at the same x, points, so that their error bars can be told apart."""
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


def has_value(rows: pd.DataFrame, y: str) -> pd.Series:
    """Which cells are drawn as values."""
    return (statuses(rows, y) == "ok") & rows[y].notna()


def statuses(rows: pd.DataFrame, y: str) -> pd.Series:
    """What became of each cell; of its accuracy, where that is shown."""
    return rows[f"{y}_status"] if f"{y}_status" in rows else rows["status"]


def lacking(rows: pd.DataFrame, y: str) -> pd.DataFrame:
    """Cells that a mark stands for: without a value, where one was to be measured."""
    shown = rows.assign(status=statuses(rows, y))
    return shown[~has_value(rows, y) & (rows["status"] != PREDICTED)]


def predicted(rows: pd.DataFrame, y: str) -> pd.Series:
    """The computed value of each cell, base units; missing without one, or where it is predicted not to fit."""
    return foreseen.expected(rows, y)


def value(panel: Panel, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Medians of good rows and the distances to the ends of their intervals (2, n); no interval, no distance."""
    middle, low, high = (
        rows[c].to_numpy(dtype=float) * panel.factor if c in rows else np.full(len(rows), np.nan)
        for c in (panel.y, f"{panel.y}_low", f"{panel.y}_high")
    )
    return middle, np.nan_to_num(np.vstack([middle - low, high - middle]).clip(min=0))


def colours(data: Data) -> list[Any]:
    """A colour per level of the hue; one series is drawn in the first colour."""
    levels = data.levels("hue")
    return style.palette(len(levels), "hue" in data.axes and data.axes["hue"].numeric)


# ------------------------------------------------------------------------------------------- lines


def lines(data: Data, panel: Panel, band: float) -> None:
    """Lines over x, one per hue.  ``band``: share of the axis height below zero that belongs to failure marks."""
    axes, x = panel.axes, data.axes["x"]
    position = {v: v if x.numeric else i for i, v in enumerate(x.levels)}
    stacked: dict[Any, int] = {}
    untuned = tiles.untuned(data.rows)
    step = MARK_PT / (axes.get_window_extent().height * 72 / axes.figure.dpi)
    for number, (level, colour) in enumerate(zip(data.levels("hue"), colours(data), strict=True)):
        rows = panel.rows if level is None else panel.rows[panel.rows["hue"] == level]
        rows = rows.sort_values("x", key=lambda s: s.map({v: i for i, v in enumerate(x.levels)}))
        middle, ends = value(panel, rows)  # NaN where there is no value: the line breaks there
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
            marker=style.MARKERS[number % len(style.MARKERS)],
            zorder=3,
        )
        drawn[0].set_markeredgewidth(0)
        axes.plot(
            [position[v] for v in rows["x"]],
            predicted(rows, panel.y) * panel.factor,
            color=colour,
            linewidth=0.9,
            linestyle=PREDICTED_DASH,
            zorder=2,
        )
        foreseen.line(axes, [position[v] for v in rows["x"]], rows, panel.y, panel.factor, colour)
        dotted = untuned[rows.index].to_numpy() & has_value(rows, panel.y).to_numpy(dtype=bool)
        at = np.array([position[v] for v in rows["x"]])[dotted]
        tiles.dots(axes, at, middle[dotted], zorder=5, transform=axes.transData + shift)
        for artist in (drawn[0], *drawn[1], *drawn[2]):  # moved only now: the axis limits come from the true places
            artist.set_transform(axes.transData + shift)
        for _, row in lacking(rows, panel.y).iterrows():
            height = step * (0.5 + stacked.get(row["x"], 0))
            stacked[row["x"]] = stacked.get(row["x"], 0) + 1
            failure_mark(axes, position[row["x"]], min(height, max(band - step / 2, step / 2)), colour, row["status"])


def failure_mark(axes: Axes, x: float, height: float, colour: Any, status: str) -> None:
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
    )


def marks_stacked(rows: pd.DataFrame, y: str) -> int:
    """Most cells without a value at one x: how many rows of marks a panel needs."""
    missing = lacking(rows, y)
    return int(missing.groupby("x").size().max()) if len(missing) else 0


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
    """Bars over the levels of x, side by side per hue (they need no ``band``: failures are stubs)."""
    axes, x, hues = panel.axes, data.axes["x"], data.levels("hue")
    width, untuned = BAR_GROUP / len(hues), tiles.untuned(data.rows)
    position = {v: i for i, v in enumerate(x.levels)}
    for number, (level, colour) in enumerate(zip(hues, colours(data), strict=True)):
        rows = panel.rows if level is None else panel.rows[panel.rows["hue"] == level]
        shift = (number - (len(hues) - 1) / 2) * width
        good = rows[has_value(rows, panel.y)]
        middle, ends = value(panel, good)
        at = [position[v] + shift for v in good["x"]]
        axes.bar(at, middle, width * 0.92, color=colour, linewidth=0, zorder=2)
        dotted = untuned[good.index].to_numpy()
        tiles.dots(axes, np.array(at)[dotted], middle[dotted] / 2, zorder=5)
        drawn = ends.sum(axis=0) > 0
        axes.errorbar(
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
        hoped = predicted(rows, panel.y).to_numpy() * panel.factor
        centre = np.array([position[v] + shift for v in rows["x"]])
        axes.hlines(
            hoped,
            centre - width * 0.46,
            centre + width * 0.46,
            color=colour if (rows["status"] == PREDICTED).all() else style.INK,  # no bar to stand out from
            linewidth=1.0,
            linestyle=PREDICTED_DASH,
            zorder=4,
        )
        foreseen.marks(axes, centre, width * 0.92, rows, panel.y, panel.factor, style.INK)
        for _, row in lacking(rows, panel.y).iterrows():
            stub(axes, position[row["x"]] + shift, width * 0.92, colour, row["status"])


def stub(axes: Axes, x: float, width: float, colour: Any, status: str) -> None:
    """The hatched stub of a cell without a value; hollow and dotted when it was not measured."""
    _, _, hatch = style.status_style(status)
    axes.bar(
        [x],
        [STUB],
        width,
        transform=axes.get_xaxis_transform(),
        facecolor="white",
        edgecolor=colour,
        hatch=hatch,
        linewidth=0.8,
        linestyle="-" if hatch else ":",
        zorder=2,
    )
