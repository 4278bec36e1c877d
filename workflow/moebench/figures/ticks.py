"""Scales, limits, ticks and units of axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from moebench.figures import style
from moebench.figures.data import Axis

BAR_GROUP = 0.8
"""Width of the bars at one x, as a share of its place."""


def is_doubling(levels: tuple[Any, ...]) -> bool:
    """Whether numbers are powers of two times the smallest, over three octaves or more: batch sizes and lengths."""
    if len(levels) < 3 or not all(v > 0 for v in levels):
        return False
    octaves = np.log2(np.array(levels, dtype=float) / levels[0])
    return bool(np.allclose(octaves, octaves.round())) and octaves[-1] >= 3


def dress_x(axes: Axes, axis: Axis, kind: str, log: bool) -> None:
    """Scale, limits and ticks of the x axis.

    Doubling numbers get a logarithmic axis, on which they are evenly spaced; ticks stand at the measured values.
    """
    levels = list(axis.levels)
    if kind == "bars" or not axis.numeric:
        axes.set_xticks(range(len(levels)), [axis.text(v) for v in levels])
        axes.set_xlim(-0.5 - (1 - BAR_GROUP) / 4, len(levels) - 0.5 + (1 - BAR_GROUP) / 4)
        axes.tick_params(axis="x", length=0 if kind == "bars" else 3)
        return
    if log or is_doubling(axis.levels):
        axes.set_xscale("log", base=2)
        spread = max(levels[-1] / levels[0], 2) ** 0.06
        axes.set_xlim(levels[0] / spread, levels[-1] * spread)
    else:
        spread = 0.06 * max(levels[-1] - levels[0], 1)
        axes.set_xlim(levels[0] - spread, levels[-1] + spread)
        gaps = np.diff(levels)
        if len(levels) > 9 or (len(gaps) and gaps.min() < 0.06 * (levels[-1] - levels[0])):
            return  # too dense for a tick each; the locator's round numbers read better
    axes.xaxis.set_major_locator(FixedLocator(levels))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: axis.text(v)))
    axes.xaxis.set_minor_locator(NullLocator())


def dress_y(axes: Axes, log: bool, empty: bool, from_zero: bool = True) -> None:
    """Scale and ticks of the y axis; linear ones start at zero, except for ratios, which are read against their one."""
    if empty:
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        axes.text(0.5, 0.55, "no value", transform=axes.transAxes, ha="center", color=style.FAINT, fontsize=style.SMALL)
        return
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high / low < 30:
            axes.yaxis.set_major_locator(FixedLocator(_round_steps(low, high)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif not from_zero:
        axes.margins(y=0.1)
        axes.locator_params(axis="y", nbins=5)
    else:
        axes.dataLim.update_from_data_y([0.0], ignore=False)  # so that the margin on top is a share of the whole axis
        axes.autoscale_view(scalex=False)
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: number(v, axes.get_ylim()[1])))


def _round_steps(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten between two numbers: ticks of a short logarithmic axis."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    return [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5) if low <= m * 10.0**e <= high]


def number(v: float, largest: float) -> str:
    """A tick's number on an axis up to ``largest``: thousands as k, millions as M, the same way for the whole axis."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if largest >= (size if letter == "M" else 1e4) and (abs(v) >= size or v == 0):
            return f"{v / size:g}{letter}" if v else "0"
    return f"{v:g}" if abs(v) < 1000 else f"{v:,.0f}"


def unit_of(unit: str, values: np.ndarray) -> tuple[float, str]:
    """Factor and unit in which values read best: seconds below a half become milliseconds or microseconds."""
    largest = np.nanmax(values) if len(values) and not np.isnan(values).all() else np.nan
    if unit == "s" and largest < 0.5:
        return (1e3, "ms") if largest >= 0.5e-3 else (1e6, "µs")
    return 1.0, unit
