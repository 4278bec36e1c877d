"""Figures of the table ``computed``: what a paper prints as marks, what its formulas give dashed, what this cost model
gives as full lines.  Over names instead of numbers: marks only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from moebench import columns
from moebench.config import ComputedKnobs, Plot
from moebench.errors import ConfigError, nearest
from moebench.figures import draw, marks, style
from moebench.figures.data import Axis, Data
from moebench.tables import parquet

BY: dict[str, tuple[str, Any, str]] = {  # origin -> words, line style over numbers, marker
    "distinct": ("distinct experts (this cost model)", "-", "o"),
    "formulas": ("the paper's formulas", (0, (3, 1.6)), "_"),
    "printed": ("printed", "none", "X"),
}
CAPTION = "Computed by the cost model from architectures and data sheets; nothing was measured."
PRINTED = " Marks: values printed in the paper."


def of_experiment(tables_dir: Path, experiment: str) -> pd.DataFrame:
    """The rows of the table ``computed`` of an experiment."""
    return parquet.read(tables_dir, "computed", experiment=experiment)


def check(plot: Plot, where: str) -> None:
    """Raise ConfigError for a column that the table ``computed`` does not have."""
    known = {c.name for c in columns.of_table("computed")}
    named = [plot.x, *plot.y, *filter(None, (plot.hue, plot.panel, plot.row)), *plot.only]
    for name in named:
        if name not in known:
            raise ConfigError(f"{where}: computed points have no column {name!r}" + nearest(name, known))


def place(plot: Plot, frame: pd.DataFrame, where: str) -> Data:
    """Place computed points on the axes of a figure.  Raises ConfigError for an unknown column, or without rows."""
    check(plot, where)
    rows = frame
    for name, wanted in plot.only.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        absent = rows[name].isna() if None in values else False
        rows = rows[rows[name].isin([v for v in values if v is not None]) | absent]
    rows = rows[rows[list(plot.y)].notna().any(axis=1) & rows[plot.x].notna()].reset_index(drop=True)
    if rows.empty:
        raise ConfigError(f"{where}: no computed point has {', '.join([plot.x, *plot.y])}" + f" where {plot.only}")
    axes = {}
    for role in ("x", "hue", "panel", "row"):
        if name := getattr(plot, role):
            shown = {"model": "model_title", "hardware": "hardware_title"}.get(name, name)
            rows = rows.assign(**{role: rows[shown].astype(object)})
            levels = list(dict.fromkeys(rows[role].dropna()))
            numeric = all(isinstance(v, (int, float)) for v in levels)
            axes[role] = Axis(name, columns.COLUMNS[name].axis, tuple(sorted(levels) if numeric else levels), numeric)
    roles = [*axes, "by"]
    told = rows.drop_duplicates([*roles, *plot.y])
    clash = told[told.duplicated(roles, keep=False)]
    if len(clash):
        first = clash[(clash[roles] == clash[roles].iloc[0]).all(axis=1)]
        knobs = [*ComputedKnobs.model_fields, "variant"]
        differ = [c for c in knobs if c in first and first[c].nunique(dropna=False) > 1]
        raise ConfigError(f"{where}: points have the same position and differ in {', '.join(differ)}; use only or hue")
    return Data(plot, told.assign(status="ok").reset_index(drop=True), axes)


def table(data: Data) -> pd.DataFrame:
    """The figure's data as it goes into its CSV."""
    wanted = {"model_title", "by", "variant", "hardware", "gpus", "quality", "context_tokens", "batch", data.plot.x}
    wanted |= {*data.plot.y, "layout_moe", "layout_dense"}
    kept = [c.name for c in columns.of_table("computed") if c.name in wanted]
    return data.rows[kept].dropna(axis=1, how="all")


def caption(data: Data) -> str:
    """The line under the title."""
    return CAPTION + (PRINTED if "printed" in set(data.rows["by"]) else "")


def curves(data: Data, panel: draw.Panel, band: float) -> None:
    """Draw one panel (``band`` is for failures of measured cells)."""
    axes, x = panel.axes, data.axes["x"]
    position = {v: v if x.numeric else i for i, v in enumerate(x.levels)}
    if data.plot.level is not None:
        axes.axhline(data.plot.level, color=style.FAINT, linewidth=0.8, zorder=1.5)
    origins = [by for by in BY if by in set(data.rows["by"])]
    for number, (level, colour, look) in enumerate(draw.series(data)):
        rows = panel.rows if level is None else panel.rows[panel.rows["hue"] == level]
        aside: float = 0 if x.numeric else 0.12 * (number - (len(data.levels("hue")) - 1) / 2)
        for by in origins:
            mine = rows[(rows["by"] == by) & rows[panel.y].notna()]
            mine = mine.sort_values("x", key=lambda s: s.map({v: i for i, v in enumerate(x.levels)}))
            if mine.empty:
                continue
            _, dashes, marker = BY[by]
            at, values = [position[v] + aside for v in mine["x"]], mine[panel.y].to_numpy(dtype=float)
            (drawn,) = axes.plot(
                at,
                values,
                color=colour,
                linestyle=dashes if x.numeric else "none",
                marker="" if x.numeric and by == "formulas" else _marker(by, look, marker),
                markersize=5 if by == "printed" else 3.6,
                linewidth=1.0 if by == "formulas" else 1.3,
                zorder=4 if by == "printed" else 3,
                markeredgewidth=1.2 if marker == "_" else 0,
            )
            named = marks.name("mark", number, panel.y, mine.index)
            if drawn.get_marker():
                drawn.set_gid(named)
            else:
                marks.targets(axes, at, values, named)
    if not x.numeric:
        axes.xaxis.set_major_locator(FixedLocator(list(position.values())))


def _marker(by: str, own: str, usual: str) -> str:
    return own if by == "distinct" else usual


def handles(data: Data) -> list[tuple[str, list[Any]]]:
    """Legends: what colours stand for, and kinds of lines where there is more than one."""
    found: list[tuple[str, list[Any]]] = []
    if "hue" in data.axes:
        axis, numeric = data.axes["hue"], data.axes["x"].numeric
        named: list[Any] = []
        for level, colour, marker in draw.series(data):
            named.append(
                Line2D([], [], color=colour, linestyle="-" if numeric else "none", marker=marker, markeredgewidth=0,
                       label=axis.text(level))
            )  # fmt: skip
        found.append((f"{axis.label}:", named))
    origins = [by for by in BY if by in set(data.rows["by"])]
    if len(origins) > 1:
        lines: list[Any] = []
        for by in origins:
            words, dashes, marker = BY[by]
            numeric = data.axes["x"].numeric
            mark = marker if by == "printed" or not numeric else ""
            line: Any = dashes if numeric else "none"
            lines.append(Line2D([], [], color=style.FAINT, linestyle=line, marker=mark, label=words))
        found.append(("", lines))
    return found


def described(data: Data) -> str:
    """The figure in words, for those who cannot see it."""
    metrics = " and ".join(columns.COLUMNS[y].axis for y in data.plot.y)
    text = f"{'Lines' if data.axes['x'].numeric else 'Marks'} of {metrics} over {data.axes['x'].label}"
    for role, words in (("hue", "one colour for each"), ("panel", "one panel for each"), ("row", "one row for each")):
        if role in data.axes:
            axis = data.axes[role]
            text += f"; {words} {axis.label}: {', '.join(axis.text(v) for v in axis.levels)}"
    ranges = []
    for by, rows in data.rows.groupby("by", sort=False):
        for y in data.plot.y:
            values = rows[y].dropna().astype(float)
            if len(values):
                ranges.append(
                    f"{BY[str(by)][0]}: {columns.COLUMNS[y].heading} {values.min():.3g} to {values.max():.3g}"
                )
    return f"{text}. {'; '.join(ranges)}. {caption(data)}"
