"""What a figure shows: rows of an experiment placed on the figure's axes, failed and missing cells included."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from moebench import columns
from moebench.config import JOIN, KNOBS, Plot
from moebench.errors import ConfigError, nearest
from moebench.figures import accuracy, foreseen
from moebench.formats.plan import Plan

Json = Mapping[str, Any]
ROLES = ("x", "hue", "panel", "row")


@dataclass(frozen=True)
class Axis:
    """One role of a figure: the column or grid axis behind it, its label and its values in order."""

    name: str
    label: str
    levels: tuple[Any, ...]
    numeric: bool
    known: tuple[Any, ...] = ()
    """Of a hue: all its values in the experiment, in order, so that a label has one colour in all its figures."""

    def text(self, value: Any) -> str:
        """A value as it is written at ticks, in legends and over panels."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if self.name == "context_tokens" and value >= 1024:  # powers of two, as models' context lengths are named
            return f"{value / 2**20:g}M" if value >= 2**20 else f"{value / 1024:g}k"
        if self.numeric:
            return f"{value:g}" if abs(value) < 1e6 else f"{value:.3g}"
        return str(value)

    def panel_title(self, value: Any) -> str:
        """A value over a panel: names speak for themselves, numbers need their column."""
        named = not self.numeric and not isinstance(value, bool) and value != NONE
        return self.text(value) if named else f"{self.label.partition(' (')[0]}: {self.text(value)}"


NONE = "none"
"""Value of an optional column where it is not set, e.g. the draft model of a run without one."""


@dataclass(frozen=True)
class Data:
    """Rows of a figure: columns ``x``, ``hue``, ``panel``, ``row`` (where used), status and the metrics."""

    plot: Plot
    rows: pd.DataFrame
    axes: dict[str, Axis]

    def levels(self, role: str) -> tuple[Any, ...]:
        """Values of a role in order; one None if the figure does not use it."""
        return self.axes[role].levels if role in self.axes else (None,)

    def shown(self, y: str) -> np.ndarray:
        """Values of a metric that set the scale: measured ones, or predicted ones where nothing is measured."""
        measured = self.rows[y].to_numpy(dtype=float)
        if np.isnan(measured).all() and f"predicted_{y}" in self.rows:
            return foreseen.expected(self.rows.assign(predicted_fits=None), y).to_numpy(dtype=float)
        return measured

    def at(self, **place: Any) -> pd.DataFrame:
        """Rows at the given values of roles; roles the figure does not use are ignored."""
        chosen = self.rows
        for role, value in place.items():
            if role in self.axes:
                chosen = chosen[chosen[role] == value]
        return chosen


def swept(labels: Json) -> set[str]:
    """Names that a row's axes sweep: each axis, and each knob of an axis of several."""
    return {part.strip() for axis in labels for part in [axis, *axis.split("=")]}


def _values(name: str, frame: pd.DataFrame, labels: list[Json], where: str) -> pd.Series:
    """The value of a column or grid axis in every row; missing if a row's block has no such axis.

    Of two columns, both values as one text (:data:`AND`).
    """
    if JOIN in name:
        return _joint(name, frame, labels, where)
    if name in columns.COLUMNS and name in frame.columns:
        named = frame["model_title"] if name == "model" else frame[name]
        return named.astype(object).where(named.notna(), NONE)
    known = {axis for row in labels for axis in row}
    if name not in known:
        raise ConfigError(
            f"{where}: {name!r} is neither a column nor an axis of the grid" + nearest(name, known | set(frame.columns))
        )
    return pd.Series([row.get(name) for row in labels], index=frame.index, dtype=object)


AND = " · "
"""Between the values of two columns."""


def _joint(name: str, frame: pd.DataFrame, labels: list[Json], where: str) -> pd.Series:
    """The values of two columns as one text."""
    parts = [_values(part, frame, labels, where) for part in name.split(JOIN)]
    axes = [_axis(part, values.dropna(), labels) for part, values in zip(name.split(JOIN), parts, strict=True)]
    said = [
        None if any(pd.isna(v) for v in pair) else AND.join(axis.text(v) for axis, v in zip(axes, pair, strict=True))
        for pair in zip(*parts, strict=True)
    ]
    return pd.Series(said, index=frame.index, dtype=object)


def _in_order(texts: list[str]) -> list[str]:
    """Texts of two values by the first as they come, then by the second: as they come, or numbers in their order."""
    firsts, seconds = (list(dict.fromkeys(text.split(AND)[i] for text in texts)) for i in (0, 1))
    with contextlib.suppress(ValueError):
        seconds.sort(key=float)
    return sorted(texts, key=lambda text: (firsts.index(text.split(AND)[0]), seconds.index(text.split(AND)[1])))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _coupled(name: str, labels: list[Json]) -> str:
    """The axis ``a = b`` that moves a knob together with others in every row, else the name itself."""
    axes = {axis for row in labels for axis in row if "=" in axis and name in swept({axis: None})}
    return axes.pop() if len(axes) == 1 and all(axes & set(row) for row in labels) else name


def label_of(name: str) -> str:
    """The axis label of a column, of knobs that move together, or of an axis of arms."""
    if name in columns.COLUMNS:
        return columns.COLUMNS[name].axis
    if JOIN in name:
        return ", ".join(label_of(part) for part in name.split(JOIN))
    known = [columns.COLUMNS[k.strip()] for k in name.split("=") if k.strip() in columns.COLUMNS]
    if len(known) < 2:
        return name.replace("_", " ").capitalize()
    units = {c.unit for c in known}
    words = " = ".join(c.heading if i == 0 else c.heading.lower() for i, c in enumerate(known))
    return words + (f" ({known[0].unit})" if len(units) == 1 and known[0].unit else "")


def _axis(name: str, values: pd.Series, labels: list[Json]) -> Axis:
    seen = list(dict.fromkeys(values))
    if JOIN in name:
        seen = _in_order(seen)
    numeric = all(_is_number(v) for v in seen)
    if numeric:
        seen.sort()
    return Axis(name, label_of(_coupled(name, labels)), tuple(seen), numeric)


def with_known(placed: Data, frames: list[pd.DataFrame]) -> Data:
    """The same with the hue's values in all cells of the experiment and in the predictions beside them (``frames``)."""
    if "hue" not in placed.axes:
        return placed
    axis, found = placed.axes["hue"], []
    for frame in frames:
        labels: list[Json] = [json.loads(text) for text in frame["labels"]]
        try:
            found += _values(axis.name, frame, labels, "").dropna().tolist()
        except ConfigError:  # the other grid has no such axis
            continue
    known = list(dict.fromkeys([*found, *axis.levels]))
    if JOIN in axis.name:
        known = _in_order(known)
    numeric = all(_is_number(v) for v in known)
    if numeric == axis.numeric:
        axis = dataclasses.replace(axis, known=tuple(sorted(known) if numeric else known))
    return dataclasses.replace(placed, axes=placed.axes | {"hue": axis})


def _apart(rows: pd.DataFrame) -> list[str]:
    """Knobs in which the first cells sharing a place differ."""
    return [c for c in rows.columns if c in KNOBS and rows[c].nunique(dropna=False) > 1]


def _one_per_place(
    rows: pd.DataFrame, roles: list[str], labels: dict[Hashable, Json], plot: Plot, where: str
) -> pd.DataFrame:
    """Rows with at most one cell per place.  Raises ConfigError naming the knobs that tell them apart.

    An experiment may have blocks that sweep different knobs (batch at fixed length, length at fixed batch), with a
    figure each: where cells meet, a figure keeps the rows whose block sweeps its x.
    """
    roles = roles or ["experiment"]  # without roles there is one place
    same = [*roles, "engine", "cell"]
    distinct = rows[~rows[same].duplicated()]
    if distinct[roles].duplicated().any():
        sweeping = rows[[plot.x in swept(labels[i]) for i in rows.index]]
        distinct = sweeping[~sweeping[same].duplicated()] if len(sweeping) else distinct
    clash = distinct[distinct[roles].duplicated(keep=False)]
    if len(clash):
        first = clash[(clash[roles] == clash[roles].iloc[0]).all(axis=1)]
        knobs = ", ".join(_apart(first)) or "their protocol"
        raise ConfigError(
            f"{where}: {len(first)} cells have the same position and differ in {knobs}; "
            "add a hue, panel or row that separates them, or use a separate experiment"
        )
    return distinct


def chosen(plot: Plot, frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows that a figure's ``only`` leaves.  Raises ConfigError for an unknown column or if none is left."""
    for name, value in plot.only.items():
        if name not in frame.columns:
            raise ConfigError(f"{where}: only: unknown column {name!r}" + nearest(name, frame.columns))
        frame = frame[frame[name].isin(value if isinstance(value, list) else [value])]
        if frame.empty:
            raise ConfigError(f"{where}: only: no row of the experiment has {name} {value!r}")
    return frame


def place(plot: Plot, frame: pd.DataFrame, where: str) -> Data:
    """Place the rows of ``frame`` (see :func:`moebench.tables.join.with_status`) on the axes of ``plot``.

    A row whose block lacks a grid axis that the figure uses is not in the figure.  Raises ConfigError for an unknown
    column, two cells on one place, or a figure without rows.
    """
    counted = (*columns.EVENNESS, *columns.COUNTED, *columns.SPECULATION, *columns.SEARCHED)
    measured = (*columns.METRIC_NAMES, *counted, *accuracy.ANSWERS)
    for name in plot.y:
        columns.column(name, where)
        if name not in measured:
            raise ConfigError(f"{where}: y is {name!r}, which is not measured" + nearest(name, measured))
    if plot.row and len(plot.y) > 1:
        raise ConfigError(f"{where}: row is for figures with one y; this one has {len(plot.y)}")
    return place_cells(plot, accuracy.answered(plot, frame, where), ROLES, where)


def place_cells(plot: Plot, frame: pd.DataFrame, used: tuple[str, ...], where: str) -> Data:
    """Place rows by the roles that a kind of figure has, as :func:`place` does."""
    frame = chosen(plot, frame, where)
    labels: list[Json] = [json.loads(text) for text in frame["labels"]]
    rows = frame.drop(columns=_of_other_metrics(plot, frame)).copy()
    by_row = dict(zip(frame.index, labels, strict=True))
    names = {role: getattr(plot, role) for role in used if getattr(plot, role)}
    for role, name in names.items():
        rows[role] = _values(name, frame, labels, where)
    roles = list(names)
    rows = rows.dropna(subset=roles)
    rows = _one_per_place(rows, roles, by_row, plot, where)
    if rows.empty:
        raise ConfigError(f"{where}: no row of the experiment has all of {', '.join(names.values())}")
    kept = [by_row[i] for i in rows.index]
    axes = {role: _axis(name, rows[role], kept) for role, name in names.items()}
    return Data(plot, rows.reset_index(drop=True), axes)


def columns_of(metric: str) -> list[str]:
    """Columns that a metric may have: measured, predicted and calibrated values, and the ends of their intervals."""
    return [start + metric + end for start in ("", "predicted_", "calibrated_") for end in ("", "_low", "_high")]


def _of_other_metrics(plot: Plot, frame: pd.DataFrame) -> list[str]:
    """Columns of metrics that a figure does not show: selecting rows takes time per column."""
    others = {*columns.METRIC_NAMES} - {plot.x, *plot.y, *plot.beside}
    names = {name for metric in others for name in columns_of(metric)}
    return [name for name in frame if name in names]


IDENTITY = ("experiment", "engine", "cell", "model_title", "weights")
"""Columns that every figure's CSV begins with: whose values these are."""
WORKLOAD = ("batch", "input_tokens", "output_tokens", "top_k", "prompts", "images", "image_size", "gpus", "hardware",
            "device_name", "engine_name", "engine_version", "protocol_kind", "n_repeats")  # fmt: skip
"""Columns that say what was run, on what and how often: in every figure's CSV of cells."""
QUALITY = ("e2e_s_cv", "unstable", "canary_drift", "throttled", "derived_from")


def table(data: Data) -> pd.DataFrame:
    """The figure's data as it goes into its CSV: identity, axes, workload, metrics with intervals, status; base
    units.
    """
    named = {getattr(data.plot, role): data.rows[role] for role in data.axes}
    calibrated = [f"calibrated_{y}{end}" for y in data.plot.y for end in ("", "_low", "_high")]
    values = [c for y in data.plot.y for c in (y, f"{y}_low", f"{y}_high", f"predicted_{y}") if c in data.rows]
    values += [c for c in (*calibrated, "predicted_kind") if c in data.rows]
    return described(data.rows, named, values)


def described(rows: pd.DataFrame, named: Mapping[str, pd.Series], values: list[str]) -> pd.DataFrame:
    """Rows with everything that a reader of their CSV needs; ``named``: the figure's axes by column."""
    made = {c: rows[c] for c in IDENTITY if c in rows} | dict(named)
    for name in (*WORKLOAD, *values, "status", "reason", *QUALITY):
        if name in rows:
            made.setdefault(name, rows[name])
    return pd.DataFrame(made)


def of_experiment(plan: Plan, cells: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """An experiment's rows of ``cells`` (see :func:`moebench.tables.join.with_status`)."""
    if experiment not in plan["experiments"]:
        raise ConfigError(f"{plan['study']}: no experiment {experiment!r}" + nearest(experiment, plan["experiments"]))
    return cells[cells["experiment"] == experiment].reset_index(drop=True)
