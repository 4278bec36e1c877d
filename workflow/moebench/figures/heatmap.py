"""Heat maps within cells, e.g. how often each expert of each layer was chosen: one panel per cell, one colour scale.

Colours show a ratio to what would be even (1) on a logarithmic scale, the same for all panels; a place whose value is
zero has a colour of its own.  A cell without values is an empty panel that says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from moebench import columns
from moebench.config import Plot
from moebench.errors import ConfigError, nearest
from moebench.figures import canvas, marks, style
from moebench.figures import data as figure_data
from moebench.figures.header import Header, wrap
from moebench.tables import parquet

_LAYER_PT, _LEAST_PT, _MOST_PT = 5.0, 46.0, 150.0
"""Height of one row of a map, and bounds of the height of a panel, points."""
_LEFT_PT, _GAP_PT, _BAR_PT, _RIGHT_PT, _TITLE_PT, _TICKS_PT, _BELOW_PT = 34.0, 24.0, 9.0, 46.0, 9.6, 15.0, 17.0
_COLOURS, _NEVER = "RdBu_r", "#000000"
_LONGEST_BAR_PT = 200.0
_ENDS = (1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Upper ends of the scale; ratios beyond the last one, and below its inverse, have the last colour."""


@dataclass(frozen=True)
class Data:
    """A figure's cells (columns ``panel`` and ``row`` where used) and the values within them, in order of y and x."""

    plot: Plot
    rows: pd.DataFrame
    values: pd.DataFrame
    axes: dict[str, figure_data.Axis]

    def within(self, row: Any) -> pd.DataFrame:
        """The values of a cell."""
        same = (self.values["engine"] == row["engine"]) & (self.values["cell"] == row["cell"])
        found: pd.DataFrame = self.values[same]
        return found


def source(plot: Plot, where: str) -> str:
    """The table that has x, y and value of a heat map.  Raises ConfigError if none has."""
    wanted = (plot.x, plot.y[0], str(plot.value))
    common = set(columns.TABLES)
    for name in wanted:
        common &= set(columns.column(name, where).tables)
    if not common - {"plan", "measurements"}:
        raise ConfigError(
            f"{where}: no table has all of {', '.join(wanted)}; `moebench columns` lists the columns of each"
        )
    return sorted(common - {"plan", "measurements"})[0]


def place(plot: Plot, frame: pd.DataFrame, tables_dir: Path | None, where: str) -> Data:
    """Place the cells of an experiment on panels, with what the tables have within each (``None``: nothing yet).

    Raises ConfigError for an unknown column, two cells in one panel, or a figure without cells.
    """
    table = source(plot, where)
    for name in plot.beside:
        if name not in columns.EVENNESS:
            raise ConfigError(f"{where}: beside: {name!r} is not a number of a cell" + nearest(name, columns.EVENNESS))
    inside = {k: v for k, v in plot.only.items() if k not in frame.columns}
    known = [c.name for c in columns.of_table(table)]
    for name in inside:
        if name not in known:
            raise ConfigError(f"{where}: only: unknown column {name!r}" + nearest(name, [*known, *frame.columns]))
    outside = plot.model_copy(update={"only": {k: v for k, v in plot.only.items() if k not in inside}})
    cells = figure_data.place_cells(outside, frame, ("panel", "row"), where)
    values = parquet.read(tables_dir, table) if tables_dir else columns.schema(table).empty_table().to_pandas()
    for name, wanted in inside.items():
        values = values[values[name] == wanted]
    shown = cells.rows[["engine", "cell"]].drop_duplicates()
    values = values.merge(shown, on=["engine", "cell"])
    if values.duplicated(["engine", "cell", plot.x, plot.y[0]]).any():
        more = [c for c in known if c in ("phase", "layer", "expert") and c not in (plot.x, *plot.y)]
        raise ConfigError(f"{where}: several values have the same position; select one of {', '.join(more)} with only")
    return Data(plot, cells.rows, values.sort_values([plot.y[0], plot.x], kind="stable"), cells.axes)


def table(placed: Data) -> pd.DataFrame:
    """The figure's data as it goes into its CSV: a row per place of every map, and one per cell without values."""
    plot = placed.plot
    named = {getattr(plot, role): placed.rows[role] for role in placed.axes}
    cells = figure_data.described(placed.rows, named, [])
    own = [c for c in placed.values.columns if c not in ("study", "model_title")]
    joined = cells.merge(placed.values[own], on=["engine", "cell"], how="left")
    end = ["status", "reason", *figure_data.QUALITY]
    return joined[[c for c in joined.columns if c not in end] + [c for c in end if c in joined]]


# ----------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True)
class _Page:
    """Where everything goes, points from the upper left corner."""

    top: float
    title: float
    wide: float
    high: float
    across: int
    lines: int

    @property
    def line(self) -> float:
        """Height of one line of panels with its titles and tick labels."""
        return self.title + self.high + _TICKS_PT

    @property
    def total(self) -> float:
        """Height of the figure."""
        return self.top + self.lines * self.line + _BELOW_PT

    def panel(self, number: int) -> tuple[float, float, float, float]:
        """The box of a panel."""
        line, column = divmod(number, self.across)
        left = _LEFT_PT + column * (self.wide + _GAP_PT)
        return self.box(left, self.top + line * self.line + self.title, self.wide, self.high)

    def box(self, left: float, top: float, wide: float, high: float) -> tuple[float, float, float, float]:
        """A box in parts of the figure, rounded so that bytes are the same from run to run."""
        parts = (
            left / style.sheet().width_pt,
            1 - (top + high) / self.total,
            wide / style.sheet().width_pt,
            high / self.total,
        )
        return tuple(round(v, 5) for v in parts)  # type: ignore[return-value]

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of all panels, in parts of the figure."""
        x = _LEFT_PT + (self.across * (self.wide + _GAP_PT) - _GAP_PT) / 2
        y = self.top + self.title + (self.lines * self.line - _TICKS_PT - self.title) / 2
        return x / style.sheet().width_pt, 1 - y / self.total


def figure(placed: Data, caption: str) -> Figure:
    """Draw the figure.  Call inside ``style.drawing()``."""
    made = canvas.figure(style.sheet().width_in)
    panels, plot = _panels(placed), placed.plot
    lines = math.ceil(len(panels) / style.sheet().across)
    across = math.ceil(len(panels) / lines)
    header = Header(made, plot, caption, [("", _legend(placed))])
    wide = (style.sheet().width_pt - _LEFT_PT - _RIGHT_PT - _BAR_PT - _GAP_PT * across) / across
    titles = [_title(made, placed, row, wide) for row in panels]
    title_pt = _TITLE_PT * max(len(t) for t in titles) + 4
    layers = placed.values.groupby(["engine", "cell"])[plot.y[0]].nunique().max() if len(placed.values) else 0
    high = min(max(_LAYER_PT * layers, _LEAST_PT), _MOST_PT)
    page = _Page(header.height_pt, title_pt, wide, high, across, lines)
    made.set_size_inches(style.sheet().width_in, page.total / 72)
    header.place(page.total / 72)
    scale, names = norm(placed.values[str(plot.value)]), _names(placed)
    for number, (row, title) in enumerate(zip(panels, titles, strict=True)):
        axes = made.add_axes(page.panel(number))
        axes.set_title("\n".join(title), fontsize=style.SMALL, pad=3, linespacing=1.25)
        _map(axes, placed, row, scale)
        if named := names.get(row.name):
            axes.patch.set_gid(named)
    if len(placed.values):
        _scale(made, placed, scale, page)
    x, y = (columns.COLUMNS[name].axis for name in (plot.x, plot.y[0]))
    made.text(page.middle[0], 4 / page.total, x, ha="center", va="bottom")
    made.text(4 / style.sheet().width_pt, page.middle[1], y, rotation=90, ha="left", va="center")
    return made


def _panels(placed: Data) -> list[pd.Series]:
    """The cells in the order of their panels, row by row."""
    order = {role: {v: i for i, v in enumerate(axis.levels)} for role, axis in placed.axes.items()}
    roles = [role for role in ("row", "panel") if role in order]
    rows = [row for _, row in placed.rows.iterrows()]
    return sorted(rows, key=lambda row: [order[role][row[role]] for role in roles])


def _names(placed: Data) -> dict[Any, str]:
    """Identifiers of the maps, by cell; none of a map with gaps."""
    found, first = {}, 0
    for index, row in placed.rows.iterrows():  # the order of the CSV
        inside = placed.within(row)
        lines, across = inside[placed.plot.y[0]].nunique(), inside[placed.plot.x].nunique()
        if len(inside) and len(inside) == lines * across:
            found[index] = marks.grid(str(placed.plot.value), first, lines, across)
        first += max(1, len(inside))
    return found


def _title(made: Figure, placed: Data, row: Any, width_pt: float) -> list[str]:
    """What a panel shows, and the numbers beside it."""
    words = [placed.axes[role].panel_title(row[role]) for role in ("panel", "row") if role in placed.axes]
    lines = wrap(made, ", ".join(words), width_pt, style.SMALL)
    told = [f"{columns.COLUMNS[c].heading} {row[c]:.2f}" for c in placed.plot.beside if pd.notna(row.get(c))]
    numbers = ", ".join(text.replace(" ", "\N{NO-BREAK SPACE}") for text in told)
    return lines + ([line.rstrip(",") for line in wrap(made, numbers, width_pt, style.SMALL)] if told else [])


def norm(values: pd.Series) -> LogNorm:
    """The shared scale: logarithmic and symmetric around 1, as wide as the values need."""
    positive = values[values > 0].to_numpy(dtype=float)
    needed = float(np.exp(np.abs(np.log(positive)).max())) if len(positive) else 1.0
    widest = next((end for end in _ENDS if needed <= end), _ENDS[-1])
    return LogNorm(1 / widest, widest)


def _map(axes: Axes, placed: Data, row: Any, scale: LogNorm) -> None:
    """One cell's map, or why there is none."""
    plot, inside = placed.plot, placed.within(row)
    axes.grid(False)
    if inside.empty:
        words, _, hatch = style.status_style(row["status"]) if row["status"] != "ok" else ("no values", None, "")
        axes.set(xticks=[], yticks=[], facecolor="white")
        axes.patch.set(hatch=hatch, edgecolor=style.GRID)
        told = "\n".join(
            wrap(axes.figure, words, axes.get_window_extent().width * 72 / axes.figure.dpi - 8, style.SMALL)
        )
        axes.text(0.5, 0.5, told, transform=axes.transAxes, ha="center", va="center", fontsize=style.SMALL,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})  # fmt: skip
        for side in axes.spines.values():
            side.set(visible=True, linestyle=":" if row["status"] == "not measured" else "-")
        return
    grid = inside.pivot(index=plot.y[0], columns=plot.x, values=plot.value)
    values = grid.to_numpy(dtype=float)
    colours = mpl.colormaps[_COLOURS].with_extremes(bad=_NEVER)
    shown = np.ma.masked_less_equal(np.nan_to_num(values), 0)
    ends = float(scale.vmin or 0), float(scale.vmax or 0)
    clipped = np.ma.MaskedArray(shown.clip(*ends), shown.mask)
    axes.pcolormesh(np.arange(values.shape[1] + 1) - 0.5, np.arange(values.shape[0] + 1) - 0.5, clipped, cmap=colours,
                    norm=scale, linewidth=0, rasterized=True)  # fmt: skip
    axes.invert_yaxis()
    places, names = np.arange(len(grid.index)), grid.index.to_numpy()
    step = math.ceil(len(places) / 8)
    axes.set_yticks(places[::step], [str(n) for n in names[::step]])
    names = grid.columns.to_numpy()
    round_steps = MaxNLocator(5, integer=True, steps=[1, 2, 4, 5, 8, 10]).tick_values(0, len(names) - 1)
    shown_x = [int(v) for v in round_steps if 0 <= v < len(names)]
    axes.set_xticks(shown_x, [str(names[i]) for i in shown_x])
    for side in axes.spines.values():
        side.set_visible(True)


def _scale(made: Figure, placed: Data, scale: LogNorm, page: _Page) -> None:
    """The one scale of all panels, to their right."""
    high = min(page.lines * page.line - page.title - _TICKS_PT, _LONGEST_BAR_PT)
    box = page.box(style.sheet().width_pt - _RIGHT_PT - _BAR_PT, page.top + page.title, _BAR_PT, high)
    bar = Colorbar(made.add_axes(box), mpl.cm.ScalarMappable(scale, mpl.colormaps[_COLOURS]))
    widest = float(scale.vmax or 1)
    steps = [1.0, *(s for s in (2.0, 4.0, 8.0) if s < 0.8 * widest), widest]
    bar.ax.yaxis.set_major_locator(FixedLocator(sorted({1 / s for s in steps} | set(steps))))
    values = placed.values[str(placed.plot.value)]
    beyond = {widest: values.max() > widest, 1 / widest: (values[values > 0] < 1 / widest).any()}
    signs = {widest: "\N{GREATER-THAN OR EQUAL TO}", 1 / widest: "\N{LESS-THAN OR EQUAL TO}"}
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: (signs[v] if beyond.get(v) else "") + _ratio(v)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_linewidth(0.6)
    heading = columns.COLUMNS[str(placed.plot.value)].heading
    bar.set_label("\n".join(wrap(made, heading, high, style.SMALL)), fontsize=style.SMALL)


def _ratio(value: float) -> str:
    """A ratio as people write it: 4, 1, 1/4; else two digits."""
    if value < 1 and abs(1 / value - round(1 / value)) < 1e-6:
        return f"1/{round(1 / value)}"
    return f"{value:.3g}"


def _legend(placed: Data) -> list[Any]:
    never = len(placed.values) and (placed.values[placed.plot.value] == 0).any()
    return [Patch(facecolor=_NEVER, label="never chosen")] if never else []


def described(placed: Data, said: str) -> str:
    """The figure in words, for those who cannot see it; the numbers are in its CSV."""
    x, y, value = (columns.COLUMNS[n].heading for n in (placed.plot.x, placed.plot.y[0], str(placed.plot.value)))
    told = []
    for row in _panels(placed):
        words = [placed.axes[role].panel_title(row[role]) for role in ("panel", "row") if role in placed.axes]
        inside = placed.within(row)[placed.plot.value]
        found = f"{inside.min():.2f} to {inside.max():.2f}" if len(inside) else style.status_style(row["status"])[0]
        beside = "".join(f", {columns.COLUMNS[c].heading} {row[c]:.2f}" for c in placed.plot.beside if pd.notna(row[c]))
        told.append(f"{', '.join(words)}: {found}{beside}.")
    return f"Heat maps of {value} over {x} and {y}, one for each of: {' '.join(told)} {said}"
