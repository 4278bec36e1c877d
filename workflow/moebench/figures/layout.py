"""A whole figure: title, caption, legends and a grid of panels, sized so that nothing overlaps."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator

from moebench import columns
from moebench.figures import canvas, curves, draw, pareto, style, ticks
from moebench.figures.data import Data
from moebench.figures.header import Header, legends, wrap

X_LABEL_PT = 12.0
SLANT, STEEP = 40, 80
"""Of names that have no room beside each other, degrees."""

Place = tuple[str, Any, Any]
"""What one panel shows: metric, level of the row, level of the panel."""


def grid(data: Data) -> list[list[Place]]:
    """Places row by row: a row per metric or row level; a long single row is wrapped."""
    panels, rows = data.levels("panel"), data.levels("row")
    lines = [[(y, row, panel) for panel in panels] for y in data.plot.y for row in rows]
    most = style.sheet().across
    if (len(lines) == 1 or style.sheet().narrow) and len(panels) > most:
        across = math.ceil(len(panels) / math.ceil(len(panels) / most))
        return [line[i : i + across] for line in lines for i in range(0, len(panels), across)]
    return lines


def figure(data: Data, caption: str) -> Figure:
    """Draw a figure.  Call inside ``style.drawing()``."""
    data = draw.narrowed(data)
    made = canvas.figure(style.sheet().width_in)
    places = grid(data)
    header = Header(made, data.plot, caption, curves.handles(data) if data.plot.kind == "computed" else legends(data))
    panel_in = 1.75 if data.plot.kind in ("lines", "computed", "pareto") else 1.6 if len(places) < 3 else 1.35
    sizes = _Sizes(made, header, len(places), panel_in)
    sizes.set(header.height_pt / 72 + panel_in * len(places) + 0.3 + X_LABEL_PT / 72)
    apart = len(data.plot.y) > 1 or bool(data.plot.row)
    grid_axes = made.subplots(len(places), max(map(len, places)), squeeze=False, sharex="all")
    _fill(made, data, places, grid_axes, apart)
    made.align_ylabels(grid_axes[:, 0])
    _settle(made, grid_axes, data.axes["x"].numeric and data.plot.kind != "bars")
    sizes.make_room(grid_axes)
    _freeze(made, grid_axes)
    _label_x(made, grid_axes, data.axes["x"].label, sizes.total_in)
    return made


@dataclass
class _Sizes:
    """Keeps head, panels and x label of a figure at their sizes while its height changes."""

    figure: Figure
    header: Header
    lines: int
    panel_in: float
    total_in: float = 0.0

    def set(self, total_in: float) -> None:
        """Make the figure ``total_in`` inches high."""
        self.total_in = total_in
        self.figure.set_size_inches(style.sheet().width_in, total_in)
        self.header.place(total_in)
        top, bottom = self.header.height_pt / 72 / total_in, X_LABEL_PT / 72 / total_in
        rect = (0.005, bottom, 0.99, 1 - top - bottom)
        self.figure.set_layout_engine("constrained", rect=rect, w_pad=0.05, h_pad=0.03, wspace=0.02, hspace=0.03)

    def make_room(self, grid_axes: np.ndarray) -> None:
        """Where long tick labels took the panels' height, give it back."""
        least = min(a.get_window_extent().height for a in grid_axes.flat if a.axison) / self.figure.dpi
        wanted = self.panel_in - 0.35  # what is left of it above titles and tick labels of a usual figure
        if least < wanted:
            self.set(self.total_in + self.lines * (wanted - least))
            _lay_out(self.figure)


def _fill(made: Figure, data: Data, places: list[list[Place]], grid_axes: np.ndarray, apart: bool) -> None:
    """Draw every panel; panels of one metric and row share their y axis when ``apart``, else all do."""
    units = {y: ticks.unit_of(columns.COLUMNS[y].unit, data.shown(y)) for y in data.plot.y}
    alike: dict[Any, list[draw.Panel]] = {}
    wrapped = len(places) > len(data.plot.y) * len(data.levels("row"))
    shown = [[not data.at(row=row, panel=panel).empty for _, row, panel in across] for across in places]
    for line, across in enumerate(places):
        for column, axes in enumerate(grid_axes[line]):
            if column >= len(across):
                axes.set_axis_off()
                continue
            y, row, panel = across[column]
            if not shown[line][column] and column:  # a place that the grid does not have; the first holds the y axis
                axes.set_axis_off()
                _title(axes, data, across[column], first_line=line == 0, last=column == len(across) - 1)
                continue
            same = alike.setdefault((y, row) if apart else None, [])
            if same:
                axes.sharey(same[0].axes)
            axes.tick_params(axis="y", labelleft=column == 0)
            same.append(draw.Panel(axes, data.at(row=row, panel=panel), y, units[y][0]))
            named_here = line == 0 or wrapped or not apart
            _title(axes, data, across[column], first_line=named_here, last=column == len(across) - 1)
            if column == 0:
                heading, unit = columns.COLUMNS[y].heading, units[y][1]
                text = f"{heading} ({unit})" if unit else heading
                axes.set_ylabel("\n".join(wrap(made, text, 88, style.NORMAL)))
            below = any(column < len(later) and later[column] for later in shown[line + 1 :])
            axes.tick_params(axis="x", labelbottom=not below)
    for group in alike.values():
        _draw(data, group)


def _title(axes: Axes, data: Data, place: Place, first_line: bool, last: bool) -> None:
    """Name a panel: its level above, its row's level at the right end of the line."""
    _, row, panel = place
    if "panel" in data.axes and first_line:
        axes.set_title(data.axes["panel"].panel_title(panel), pad=4)
    if "row" in data.axes and last:
        text = "\n".join(wrap(axes.figure, data.axes["row"].panel_title(row), 80, style.NORMAL))
        axes.annotate(
            text,
            (1, 0.5),
            (5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            rotation=270,
            va="center",
            ha="left",
            fontsize=style.NORMAL,
        )


def _draw(data: Data, panels: list[draw.Panel]) -> None:
    """Draw panels with one y axis: values first, then limits, then the band of failure marks below them."""
    kind = data.plot.kind
    empty = not any(panel.has_values for panel in panels)
    log = data.plot.log_y and not empty
    stacked = max(draw.marks_stacked(p.rows, p.y, kind) for p in panels) if kind in ("lines", "bars") else 0
    height_pt = panels[0].axes.get_window_extent().height * 72 / panels[0].axes.figure.dpi
    share = min(0.45, stacked * draw.MARK_PT / height_pt)
    paint = {"lines": draw.lines, "bars": draw.bars, "computed": curves.curves, "pareto": pareto.points}[kind]
    for panel in panels:
        if kind == "pareto":
            pareto.set_x(panel.axes, data)
        else:
            ticks.dress_x(panel.axes, data.axes["x"], kind, data.plot.log_x)
        paint(data, panel, share)
    for panel in panels:
        ticks.dress_y(panel.axes, log, empty, from_zero=data.plot.level is None)
    if share:
        draw.make_band([p.axes for p in panels], share, log)


def _label_x(made: Figure, grid_axes: np.ndarray, label: str, total_in: float) -> None:
    """One label for all columns, centred under the panels, in the strip kept free for it."""
    shown = [a.get_position() for a in grid_axes.flat if a.axison]
    middle = (min(b.x0 for b in shown) + max(b.x1 for b in shown)) / 2
    text = made.text(middle, 3 / 72 / total_in, label, ha="center", va="bottom", fontsize=style.NORMAL)
    text.set_in_layout(False)


def _lay_out(made: Figure) -> None:
    """Compute the places of the panels, as drawing does first."""
    if engine := made.get_layout_engine():
        engine.execute(made)


def _settle(made: Figure, grid_axes: np.ndarray, numeric: bool) -> None:
    """Lay out; where tick labels of x would collide, thin out numbers, break or slant names."""
    _lay_out(made)
    shown = [a for a in grid_axes.flat if a.axison]
    if numeric:
        for axes in shown:
            _thin_out(axes)
    elif _collide(shown):
        named = [a for a in shown if any(t.get_text() for t in a.get_xticklabels())]  # the others share x
        for axes in named:
            axes.set_xticks(axes.get_xticks(), [_broken(t.get_text()) for t in axes.get_xticklabels()])
        _lay_out(made)
        if _collide(shown):
            for axes in named:
                whole = [t.get_text().replace("\n", " ") for t in axes.get_xticklabels()]
                axes.set_xticks(axes.get_xticks(), whole)
            slant = max(_slant(axes) for axes in named)
            for axes in shown:
                axes.tick_params(axis="x", labelrotation=slant)
                for text in axes.get_xticklabels():
                    text.set(ha="right", rotation_mode="anchor")
    _lay_out(made)


def _slant(axes: Axes) -> int:
    """Degrees by which names are slanted, enough for a line of text to fit between two ticks."""
    places = [axes.transData.transform((x, 0))[0] for x in axes.get_xticks()]
    apart_px = min((b - a for a, b in itertools.pairwise(places)), default=np.inf)
    line_px = max(float(t.get_fontsize()) for t in axes.get_xticklabels()) * axes.figure.dpi / 72
    return SLANT if apart_px * math.sin(math.radians(SLANT)) >= line_px else STEEP


def _thin_out(axes: Axes) -> None:
    """Leave out labels of ticks too close to their right neighbour's; the ticks stay."""
    labels = [t for t in axes.get_xticklabels() if t.get_text()]
    if axes.xaxis.get_major_locator().__class__ is not FixedLocator:
        return
    kept: list[str] = []
    edge = np.inf
    for text in reversed(labels):
        box = text.get_window_extent()
        fits = box.x1 + 3 < edge
        kept.append(text.get_text() if fits else "")
        edge = box.x0 if fits else edge
    if "" in kept:
        axes.xaxis.set_major_formatter(FixedFormatter(kept[::-1]))


def _freeze(made: Figure, grid_axes: np.ndarray) -> None:
    """Keep the layout as it is, rounded: the solver's last digits differ from run to run, and bytes must not."""
    made.set_layout_engine(None)  # not "none": that would draw once more before writing
    for axes in grid_axes.flat:
        axes.set_position([round(v, 5) for v in axes.get_position(original=True).bounds])


def _broken(text: str) -> str:
    """A long name in two lines, broken nearest its middle."""
    cuts = [i + (c != " ") for i, c in enumerate(text) if c in " -" and 2 < i < len(text) - 2]
    if "\n" in text or not cuts:
        return text
    at = min(cuts, key=lambda i: abs(i - len(text) / 2))
    return f"{text[:at].rstrip()}\n{text[at:].lstrip()}"


def _collide(shown: list[Axes]) -> bool:
    """Whether neighbouring tick labels of x touch, within a panel or from one to the next."""
    boxes = [t.get_window_extent() for a in shown for t in a.get_xticklabels() if t.get_text() and t.get_visible()]
    boxes.sort(key=lambda b: (round(b.y1), b.x0))
    return any(round(a.y1) == round(b.y1) and b.x0 < a.x1 + 2 for a, b in itertools.pairwise(boxes))
