"""Model against measurement: measured / predicted time of every cell, an experiment per line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from moebench import columns
from moebench.config import Plot
from moebench.figures import canvas, draw, marks, style
from moebench.figures import data as figure_data
from moebench.figures.header import Header
from moebench.formats.plan import Plan
from moebench.tables import machines, parquet

PLOT = Plot.model_construct(
    id=machines.FIGURE, number="M1", title="Ratio of measured time to the cost model's prediction, by cell", kind="bars"
)
METRICS = {"ttft_max_s": "TTFT of the batch", "itl_s": "Inter-token latency", "e2e_s": "End-to-end latency"}
_LINE_PT, _AXIS_PT, _GAP_PT, _SPREAD = 15.0, 30.0, 10.0, 0.3


def of_plan(plan: Plan, tables_dir: Path) -> pd.DataFrame:
    """One row per experiment and measured cell with a prediction, in the plan's order."""
    asked = parquet.read(tables_dir, "plan")[["experiment", "engine", "cell"]].drop_duplicates()
    wide = asked.merge(parquet.read(tables_dir, "measurements"), on=["engine", "cell"])
    good = wide[wide[[columns.residual(m) for m in METRICS]].notna().any(axis=1)]
    order = {name: i for i, name in enumerate(plan["experiments"])}
    return good.sort_values("experiment", key=lambda s: s.map(order), kind="stable").reset_index(drop=True)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The figure's data for its CSV, in base units."""
    names = [n for m in METRICS for n in (m, f"predicted_{m}", columns.residual(m))]
    return figure_data.described(frame, {}, [*names, "predicted_with", "host"])


def caption(plan: Plan, frame: pd.DataFrame) -> str:
    """The line under the title."""
    if frame.empty:
        return "No measured cell has a prediction yet."
    if set(frame["predicted_with"]) == {machines.MEASURED}:
        devices = ", ".join(sorted(frame["device_name"].dropna().unique()))
        source = f"constants measured on the machine itself ({devices}; memory bandwidth and matrix products)"
    else:
        source = f"the data sheet of {plan['hardware']['title']}"
    return (
        f"The prediction is a roofline without overheads, from {source}. 1 is the lower bound. Dots: median over the "
        f"repeats of each cell; bars: median over the cells of an experiment."
    )


def described(plan: Plan, frame: pd.DataFrame) -> str:
    """The figure in words."""
    told = [f"{r['experiment']}: {r['e2e']:.3g} ({r['cells']} cells)." for r in summary(frame)]
    return " ".join(["Strips of dots on logarithmic axes. Median of the end-to-end latency:", *told])


def summary(frame: pd.DataFrame) -> list[columns.Row]:
    """Per experiment: cells, median residuals, range of that of e2e, median predicted and measured e2e."""
    made = []
    for name, rows in frame.groupby("experiment", sort=False):
        ratios = rows["residual_e2e"]
        made.append(
            {
                "experiment": name,
                "cells": len(rows),
                **{m.removesuffix("_s"): rows[columns.residual(m)].median() for m in METRICS},
                "least": ratios.min(),
                "most": ratios.max(),
                "predicted_s": rows["predicted_e2e_s"].median(),
                "measured_s": rows["e2e_s"].median(),
            }
        )
    return made


# ----------------------------------------------------------------------------------------- drawing


def figure(plan: Plan, frame: pd.DataFrame) -> Figure:
    """Draw the figure.  Call inside ``style.drawing()``."""
    made = canvas.figure(style.sheet().width_in)
    names = list(dict.fromkeys(frame["experiment"]))
    dot: Any = Line2D([], [], color=style.CATEGORIES[0], linestyle="none", marker="o", markersize=3, label="cell")
    bar: Any = Line2D([], [], color=style.INK, linestyle="none", marker="|", markersize=8, label="median")
    hollow: Any = Line2D([], [], color=style.CATEGORIES[0], linestyle="none", marker="o", markersize=3,
                         markerfacecolor="none", markeredgewidth=0.6, label="unstable")  # fmt: skip
    shown = [dot, *([hollow] if draw.unstable(frame).any() else []), bar]
    header = Header(made, PLOT, caption(plan, frame), [("", shown)] if names else [])
    panel_pt = max(2, len(names)) * _LINE_PT
    lines = len(METRICS) if style.sheet().narrow else 1
    line_pt = 16 + panel_pt + _AXIS_PT
    total_in = (header.height_pt + lines * line_pt) / 72
    made.set_size_inches(style.sheet().width_in, total_in)
    header.place(total_in)
    boxes = [Text(0, 0, n, fontsize=style.SMALL, figure=made).get_window_extent() for n in names]
    left_pt = max((box.width * 72 / made.dpi for box in boxes), default=0) + 12
    wide_pt, high_pt = style.sheet().width_pt, total_in * 72
    across = len(METRICS) // lines
    panel_wide = (wide_pt - left_pt - 6 - _GAP_PT * (across - 1)) / across
    low, high = _limits(frame)
    for number, (metric, title) in enumerate(METRICS.items()):
        line, column = divmod(number, across)
        left, bottom = left_pt + column * (panel_wide + _GAP_PT), _AXIS_PT + (lines - 1 - line) * line_pt
        box = (left / wide_pt, bottom / high_pt, panel_wide / wide_pt, panel_pt / high_pt)
        axes = made.add_axes(tuple(round(v, 5) for v in box))  # type: ignore[arg-type]
        axes.set_title(title, pad=4)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(max(2, len(names)) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names if column == 0 else [""] * len(names))
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        axes.axvline(1, color=style.FAINT, linewidth=0.8, zorder=1.5)
        _ticks(axes, low, high)
        for place, name in enumerate(names):
            rows = frame[(frame["experiment"] == name) & frame[columns.residual(metric)].notna()]
            _strip(axes, place, rows.sort_values(columns.residual(metric), kind="stable"), columns.residual(metric))
    made.axes[-1 if lines > 1 else 1].set_xlabel("Measured / predicted")
    return made


def _limits(frame: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axes: all values and 1, with a little room."""
    values = frame[[columns.residual(m) for m in METRICS]].to_numpy(dtype=float)
    values = values[values > 0]
    return (min(values.min(initial=1.0), 1.0) / 1.3, max(values.max(initial=1.0), 10.0) * 1.3)


def _ticks(axes: Axes, low: float, high: float) -> None:
    """Powers of ten, and 2 and 5 times them where there is room."""
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _strip(axes: Axes, line: int, rows: pd.DataFrame, name: str) -> None:
    """Cells (sorted) as dots around a line, by rank so that equal ones stand beside each other, unstable ones hollow,
    and their median.
    """
    if rows.empty:
        return
    values, hollow = rows[name].to_numpy(dtype=float), draw.unstable(rows)
    aside = _SPREAD * (((np.arange(len(values)) * 0.618) % 1) * 2 - 1) if len(values) > 1 else np.zeros(1)
    for some, face, edge in ((~hollow, style.CATEGORIES[0], 0.0), (hollow, "none", 0.6)):
        axes.plot(
            values[some], line + aside[some], color=style.CATEGORIES[0], alpha=0.55, linestyle="none", marker="o",
            markersize=2.6, markerfacecolor=face, markeredgewidth=edge, zorder=3,
            gid=marks.name("mark", 0, name, rows.index[some]) if some.any() else None,
        )  # fmt: skip
    axes.plot([np.median(values)], [line], color=style.INK, marker="|", markersize=9, markeredgewidth=1.4, zorder=4)
