"""Stacked bars of the parameters of models: shares of the components on the left, their numbers on the right, total
beside active."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from moebench import columns
from moebench.config import Plot
from moebench.errors import StorageError
from moebench.figures import canvas, marks, style
from moebench.figures.caption import NOT_MEASURED
from moebench.figures.header import Header
from moebench.tables import parquet

SIDES = ("total", "active")
_MOE = ("routed_experts", "shared_experts", "router")

_BAR_PT, _STEP_PT, _MODEL_PT = 10.0, 11.5, 32.0
"""Height of a bar, from bar to bar of a model, and from model to model, points."""
_SIDE_PT, _GAP_PT, _RIGHT_PT, _AXIS_PT = 30.0, 16.0, 118.0, 28.0
"""Width of the words "total" and "active", between the panels, and of the right panel; height below the panels."""
_THIN = 0.01
"""A component with a smaller share in every bar is hard to see: the legend gives its share."""


def of_experiment(tables_dir: Path, experiment: str) -> pd.DataFrame:
    """The rows of the table ``parameters`` of an experiment."""
    return parquet.read(tables_dir, "parameters", experiment=experiment)


def place(plot: Plot, frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows of the models that a figure shows, in its order.  Raises StorageError if the tables lack one."""
    wanted = list(plot.models) or list(dict.fromkeys(frame["model"]))
    missing = [name for name in wanted if name not in set(frame["model"])]
    if missing or not wanted:
        what = f"model {missing[0]} is" if missing else "its models are"
        raise StorageError(
            f"{where}: {what} not in the table of parameters; `moebench report --partial` rebuilds the tables"
        )
    return pd.concat([frame[frame["model"] == name] for name in wanted], ignore_index=True)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The figure's data as it goes into its CSV."""
    return frame[[c.name for c in columns.of_table("parameters") if c.name not in ("study", "experiment")]]


def caption(frame: pd.DataFrame) -> str:
    """The line under the title."""
    whole = "embeddings and vision tower" if "vision" in set(frame["component"]) else "embeddings"
    return f"{NOT_MEASURED} Active: read by one token; {whole} count in full."


def by_component(frame: pd.DataFrame) -> pd.DataFrame:
    """Parameters and shares of each model and component, all layers together, and the ``rows`` that they are the sums
    of; models and components in order.
    """
    values = [f"{side}_{what}" for side in SIDES for what in ("parameters", "share")]
    grouped = frame.groupby(["model_title", "component"], sort=False)
    summed = grouped[values].sum().astype(float)
    titles, known = dict.fromkeys(frame["model_title"]), set(frame["component"])
    order = [(title, c) for title in titles for c in style.COMPONENTS if c in known]
    return summed.reindex(order, fill_value=0.0).assign(
        rows=pd.Series({key: list(of) for key, of in grouped.groups.items()})
    )


def count(value: float) -> str:
    """A number of parameters with three digits and its unit, in words: ``46.7 billion``."""
    return f"{_number(value / 1e9)} billion" if value >= 1e9 else f"{_number(value / 1e6)} million"


def _number(value: float) -> str:
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def percent(share: float) -> str:
    """A share in whole percent; a small one with one digit that is not zero."""
    return f"{share:.0%}" if share >= _THIN else f"{100 * share:.1g}%"


def described(frame: pd.DataFrame) -> str:
    """The figure in words, for those who cannot see it."""
    told = []
    parts = by_component(frame)
    for title, rows in parts.groupby(level=0, sort=False):
        sides = []
        for side in SIDES:
            found = zip(rows.index.get_level_values(1), rows[f"{side}_share"], strict=True)
            shares = sorted(found, key=lambda pair: -pair[1])
            named = [f"{style.COMPONENTS[c][0].lower()} {percent(s)}" for c, s in shares if s >= _THIN]
            whole = count(rows[f"{side}_parameters"].sum())
            sides.append(f"{whole} {'in total' if side == 'total' else 'active'} ({', '.join(named)})")
        told.append(f"{title}: {'; '.join(sides)}.")
    start = "Stacked bars of each component's share of the total and of the active parameters, and of their numbers."
    return " ".join([start, *told, caption(frame)])


# ----------------------------------------------------------------------------------------- drawing


def figure(plot: Plot, frame: pd.DataFrame) -> Figure:
    """Draw the figure.  Call inside ``style.drawing()``."""
    made = canvas.figure(style.sheet().width_in)
    parts = by_component(frame)
    titles = list(dict.fromkeys(frame["model_title"]))
    header = Header(made, plot, caption(frame), _legends(parts))
    panel_pt, narrow = len(titles) * _MODEL_PT, style.sheet().narrow
    line_pt = 4 + panel_pt + _AXIS_PT
    total_in = (header.height_pt + line_pt * (2 if narrow else 1)) / 72
    made.set_size_inches(style.sheet().width_in, total_in)
    header.place(total_in)
    names_pt = max(_width(made, title, style.NORMAL) for title in titles) + 8
    left_pt, all_pt = names_pt + _SIDE_PT, style.sheet().width_pt
    if narrow:  # one below the other
        share_pt = all_pt - left_pt - 12
        panels = [_panel(made, left_pt, share_pt, panel_pt, total_in, line_pt),
                  _panel(made, left_pt, share_pt, panel_pt, total_in)]  # fmt: skip
        _name(panels[1], titles)
    else:
        share_pt = all_pt - left_pt - _GAP_PT - _RIGHT_PT - 6
        panels = [
            _panel(made, left_pt, share_pt, panel_pt, total_in),
            _panel(made, left_pt + share_pt + _GAP_PT, _RIGHT_PT, panel_pt, total_in),
        ]
    _shares(panels[0], parts, titles, share_pt)
    _numbers(panels[1], parts, titles)
    _name(panels[0], titles)
    return made


def _panel(made: Figure, x_pt: float, width_pt: float, height_pt: float, total_in: float, up_pt: float = 0.0) -> Axes:
    """Axes in points: y from 0 at the top to ``height_pt``."""
    wide, high = style.sheet().width_pt, total_in * 72
    axes = made.add_axes((x_pt / wide, (_AXIS_PT + up_pt) / high, width_pt / wide, height_pt / high))
    axes.set_ylim(height_pt, 0)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_yticks([])
    return axes


def _middle(model: int, side: int) -> float:
    """Height of a bar's middle, points from the top."""
    return model * _MODEL_PT + _MODEL_PT / 2 + (side - 0.5) * _STEP_PT


def _stack(axes: Axes, rows: pd.DataFrame, column: str, y: float, scale: float) -> list[tuple[str, float, float]]:
    """Draw one bar; give its components with their left ends and widths."""
    drawn: list[tuple[str, float, float]] = []
    left = 0.0
    for component, value, of in zip(rows.index.get_level_values(1), rows[column].tolist(), rows["rows"], strict=True):
        width = value * scale
        if width > 0:
            colour = style.COMPONENTS[component][1]
            (bar,) = axes.barh([y], [width], _BAR_PT, left=[left], color=colour, linewidth=0, zorder=2)
            bar.set_gid(marks.name("mark", list(style.COMPONENTS).index(component), column, of))
            drawn.append((component, left, width))
            left += width
    return drawn


def _shares(axes: Axes, parts: pd.DataFrame, titles: list[str], width_pt: float) -> None:
    """Shares in percent, written into every part that is wide enough."""
    axes.set_xlim(0, 100)
    axes.set_xlabel("Share of parameters (%)")
    for i, title in enumerate(titles):
        for j, side in enumerate(SIDES):
            for component, left, width in _stack(axes, parts.loc[[title]], f"{side}_share", _middle(i, j), 100):
                text = percent(width / 100)
                if width / 100 * width_pt < _width(axes.figure, text, style.SMALL) + 3:
                    continue
                axes.text(
                    left + width / 2,
                    _middle(i, j),
                    text,
                    ha="center",
                    va="center_baseline",
                    fontsize=style.SMALL,
                    color=_readable(style.COMPONENTS[component][1]),
                )


def _numbers(axes: Axes, parts: pd.DataFrame, titles: list[str]) -> None:
    """Numbers of parameters, the whole written behind the bar."""
    largest = parts["total_parameters"].groupby(level=0).sum().max()
    unit, word = (1e9, "billion") if largest >= 1e9 else (1e6, "million")
    axes.set_xlim(0, 1.32 * largest / unit)
    axes.set_xticks(
        [t for t in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, largest / unit) if t <= largest / unit]
    )
    axes.grid(False)  # lines would run through the numbers
    axes.set_xlabel(f"Parameters ({word})")
    for i, title in enumerate(titles):
        for j, side in enumerate(SIDES):
            column = f"{side}_parameters"
            _stack(axes, parts.loc[[title]], column, _middle(i, j), 1 / unit)
            whole = parts.loc[[title]][column].sum() / unit
            axes.annotate(
                _number(whole),
                (whole, _middle(i, j)),
                (3, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=style.SMALL,
            )


def _name(axes: Axes, titles: list[str]) -> None:
    """Models and sides to the left of the bars."""
    for i, title in enumerate(titles):
        beside: dict[str, Any] = {
            "xycoords": axes.get_yaxis_transform(),
            "textcoords": "offset points",
            "ha": "right",
            "va": "center_baseline",
        }
        for j, side in enumerate(SIDES):
            axes.annotate(side, (0, _middle(i, j)), (-4, 0), fontsize=style.SMALL, **beside)
        axes.annotate(title, (0, (_middle(i, 0) + _middle(i, 1)) / 2), (-_SIDE_PT - 2, 0), **beside)


def _legends(parts: pd.DataFrame) -> list[tuple[str, list[Any]]]:
    """What each colour stands for: parts of the MoE blocks, the others; the share of what is too thin to see."""
    moe: list[Any] = []
    other: list[Any] = []
    largest = parts[["total_share", "active_share"]].max(axis=1).groupby(level=1).max()
    for component, (words, colour) in style.COMPONENTS.items():
        if largest.get(component, 0.0) > 0:
            thin = f" (up to {percent(largest[component])})" if largest[component] < _THIN else ""
            (moe if component in _MOE else other).append(Patch(facecolor=colour, label=words + thin))
    return [("MoE:", moe), ("Other:", other)]


def _readable(colour: str) -> str:
    """Black or white, whichever reads better on a colour (WCAG's relative luminance)."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "white" if linear @ (0.2126, 0.7152, 0.0722) < 0.179 else style.INK


def _width(made: Any, text: str, size: float) -> float:
    """Width of a text, points."""
    box = Text(0, 0, text, fontsize=size, figure=made).get_window_extent(made.canvas.get_renderer())
    return float(box.width) * 72 / float(made.dpi)
