"""The head of a figure: title, what was measured, and legends, each line measured before it is placed."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from moebench import columns
from moebench.config import Plot
from moebench.figures import draw, foreseen, marks, pareto, style, tiles
from moebench.figures.data import Data

MARGIN_PT = 4.0


def _points(made: Figure, artist: Text | Legend) -> tuple[float, float]:
    """Width and height of an artist, points."""
    box = artist.get_window_extent(made.canvas.get_renderer())  # type: ignore[attr-defined]
    return float(box.width) * 72 / made.dpi, float(box.height) * 72 / made.dpi


def wrap(made: Any, text: str, width_pt: float, size: float) -> list[str]:
    """Break a text into lines no wider than ``width_pt``, by measuring it.

    The sum of its words' widths, which are kept, says about where; measuring a whole line takes a millisecond.
    """

    def width(*words: str) -> float:
        return _points(made, Text(0, 0, " ".join(words), fontsize=size, figure=made))[0]

    lines, words, space = [], text.split(" "), width("n", "n") - width("nn")
    while words:
        ends = itertools.accumulate(width(word) + space for word in words)
        count = max(1, sum(1 for _ in itertools.takewhile(lambda end: end <= width_pt + space, ends)))
        while count < len(words) and width(*words[: count + 1]) <= width_pt:
            count += 1
        while count > 1 and width(*words[:count]) > width_pt:
            count -= 1
        lines.append(" ".join(words[:count]))
        words = words[count:]
    return lines


class Header:
    """Title, caption and legends of a figure, laid out from the top; ``height_pt`` is what they need."""

    def __init__(self, made: Figure, plot: Plot, caption: str, legends: list[tuple[str, list[Any]]]):
        self.figure = made
        self.held: list[tuple[Text | Legend, float, float]] = []
        self.height_pt = MARGIN_PT
        self.width_pt = style.sheet().width_pt
        self.inner_pt = self.width_pt - 2 * MARGIN_PT
        if style.sheet().headed:
            number = f"Figure {plot.number}. " if plot.number else ""
            self._text(number + plot.title, style.LARGE, style.INK, 3)
            self._text(caption, style.SMALL, style.FAINT, 5)
        self._legends(legends)
        self.height_pt += 2

    def place(self, total_in: float) -> None:
        """Put everything at its place in a figure ``total_in`` inches high."""
        for artist, x, y in self.held:
            at = (x / self.width_pt, 1 - y / 72 / total_in)
            artist.set_in_layout(False)
            if isinstance(artist, Text):
                artist.set_position(at)
            else:
                artist.set_bbox_to_anchor(at, transform=self.figure.transFigure)

    def _text(self, text: str, size: float, colour: str, gap: float) -> None:
        words = "\n".join(wrap(self.figure, text, self.inner_pt, size))
        artist = self.figure.text(0, 1, words, fontsize=size, color=colour, va="top", linespacing=1.25)
        self.held.append((artist, MARGIN_PT, self.height_pt))
        self.height_pt += _points(self.figure, artist)[1] + gap

    def _legends(self, groups: list[tuple[str, list[Any]]]) -> None:
        """Legends one after the other, each behind its name, on a new line where one does not fit."""
        x, line_pt = MARGIN_PT, 0.0
        for name, handles in groups:
            if not handles:
                continue
            title = self.figure.text(0, 1, name, fontsize=style.SMALL, va="top")
            title_pt, text_pt = _points(self.figure, title) if name else (-6.0, 0.0)
            legend, wide, high = self._fitting(handles, self.inner_pt - title_pt - 8)
            if x > MARGIN_PT and x + title_pt + 8 + wide > self.inner_pt:
                self.height_pt += line_pt
                x, line_pt = MARGIN_PT, 0.0
            self.held += [(title, x, self.height_pt), (legend, x + title_pt + 6, self.height_pt - 0.5)]
            x += title_pt + 6 + wide + 18
            line_pt = max(line_pt, high, text_pt) + 3
        self.height_pt += line_pt

    def _fitting(self, handles: list[Any], width_pt: float) -> tuple[Legend, float, float]:
        """A legend with as many columns as the width takes."""
        for across in range(len(handles), 0, -1):
            legend = self.figure.legend(
                handles=handles,
                ncols=across,
                loc="upper left",
                borderaxespad=0,
                borderpad=0,
                columnspacing=1.2,
                handletextpad=0.5,
                handlelength=1.8,
                labelspacing=0.3,
            )
            wide, high = _points(self.figure, legend)
            if wide <= width_pt or across == 1:
                break
            legend.remove()
        for shown, given, text in zip(legend.legend_handles, handles, legend.get_texts(), strict=True):
            if shown is not None and given.get_gid():
                shown.set_gid(given.get_gid())
                text.set_gid(f"{given.get_gid()}.text")
        return legend, wide, high


def legends(data: Data) -> list[tuple[str, list[Any]]]:
    """The legends of a figure of cells, each with its name."""
    hue = data.axes["hue"].label if "hue" in data.axes else ""
    tiled = tiles.handles(data.rows) if data.plot.kind in ("lines", "bars") else []
    named = [(f"{hue}:", hue_handles(data)), ("", [*unstable_handles(data), *predicted_handles(data)]), ("", tiled)]
    if "marker" in data.axes:
        named.insert(1, (f"{data.axes['marker'].label}:", marker_handles(data)))
    return [*named, ("No value:", status_handles(data))]


def marker_handles(data: Data) -> list[Any]:
    """What each marker stands for."""
    axis = data.axes["marker"]
    look: Any = {"color": style.FAINT, "linestyle": "none", "markeredgewidth": 0}
    return [Line2D([], [], marker=marker, label=axis.text(level), **look) for level, marker in pareto.markers(data)]


def hue_handles(data: Data) -> list[Any]:
    """What each colour stands for."""
    if "hue" not in data.axes:
        return []
    axis = data.axes["hue"]
    handles: list[Any] = []
    for number, (level, colour, marker) in enumerate(draw.series(data)):
        rows, words = data.at(hue=level), axis.text(level)
        valued = any(draw.has_value(rows, y).any() for y in data.plot.y)
        foretold = any(draw.predicted(rows, y).notna().any() for y in data.plot.y)
        if (data.plot.kind == "bars" or "marker" in data.axes) and valued:
            handle: Any = Patch(facecolor=colour, label=words)
        elif valued:
            line: Any = "none" if data.plot.kind == "pareto" else "-"
            handle = Line2D([], [], color=colour, linestyle=line, marker=marker, markeredgewidth=0, label=words)
        elif foretold:
            handle = Line2D([], [], color=colour, linestyle=draw.PREDICTED_DASH, label=words)
        elif data.plot.kind != "pareto" and any(draw.shows(rows, y).any() for y in data.plot.y):  # only marks
            handle = Patch(facecolor="none", edgecolor=colour, label=words)
        else:
            continue
        handle.set_gid(marks.legend_entry(number))
        handles.append(handle)
    return handles


def unstable_handles(data: Data) -> list[Any]:
    """What hollow marks or bars stand for, where there are some."""
    shown = pd.concat([data.rows[draw.has_value(data.rows, y)] for y in data.plot.y])
    if data.plot.kind == "computed" or not draw.unstable(shown).any():
        return []
    if data.plot.kind == "bars":
        return [Patch(facecolor="white", edgecolor=style.FAINT, linewidth=1.0, label="unstable")]
    hollow: Any = {"marker": "o", "markerfacecolor": "white", "markeredgewidth": 0.9, "label": "unstable"}
    return [Line2D([], [], color=style.FAINT, **hollow)]


def predicted_handles(data: Data) -> list[Any]:
    """What the dashes stand for, where anything is predicted."""
    shown = [y for y in data.plot.y if draw.predicted(data.rows, y).notna().any()]
    if not shown or data.plot.kind == "pareto":
        return []
    even = {*columns.UNIFORM, "gini"}
    words = foreseen.words(data.rows, {*shown} - even) + ["computed for uniform routing"] * bool({*shown} & even)
    colour = style.INK if data.plot.kind == "bars" else style.FAINT
    return [Line2D([], [], color=colour, linestyle=draw.PREDICTED_DASH, linewidth=1.0, label=", ".join(words))]


def status_handles(data: Data) -> list[Any]:
    """What each mark of a cell without a value stands for."""
    if data.plot.kind == "pareto":  # a point needs both values: a cell without one is named in the caption
        return []
    seen = {status for y in data.plot.y for status in draw.lacking(data.rows, y)["status"]}
    handles: list[Any] = []
    for status in [s for s in style.STATUSES if s in seen] + sorted(seen - set(style.STATUSES)):
        words, marker, _ = style.status_style(status)
        mark: Any = {"marker": marker, "markersize": 4.6, "markeredgewidth": 1.0, "markerfacecolor": "none"}
        handles.append(Line2D([], [], color=style.FAINT, linestyle="none", label=words, **mark))
    return handles
