"""All cells of a study as one JSON object inside the page: what the table, the explorer and the figures' marks read.

Numbers have seven significant digits.  Columns are lists over the cells; a column of few texts is ``{levels, at}`` with
the place of each cell's text in ``levels``, or null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from moebench import columns, text
from moebench.config import KNOBS
from moebench.figures import caption
from moebench.figures import data as figure_data
from moebench.formats.plan import Plan
from moebench.report import content
from moebench.tables import parquet

Json = dict[str, Any]
DIGITS = 7
REPEATED = ("e2e_s", "ttft_s", "itl_s", "throughput_total_tokens_per_s")
"""Metrics of the single repeats that a cell's record shows."""
_OTHER = ("accuracy", "draft_acceptance", "tokens_per_draft_step", "e2e_s_cv", "canary_drift", "residual_e2e",
          "residual_itl", "residual_ttft_max", *columns.EVENNESS, *columns.COUNTED, *columns.SEARCHED,
          "predicted_e2e_s", "predicted_bytes_per_gpu", "load_s", "n_repeats")  # fmt: skip
"""Columns beside the metrics that can be drawn."""
_TOLD = ("status", "reason", "unstable", "throttled", "derived_from", "prediction_refused", "engine_version", "host",
         "device_name", "threads", "revision", "git_commit", "started_at", "attempt")  # fmt: skip
"""Columns of a cell's record that are not drawn."""
_KEY = ["engine", "cell"]


def payload(plan: Plan, frame: pd.DataFrame, tables_dir: Path, figures: Sequence[content.Figure], results: str) -> Json:
    """The data that the page's script reads.

    Args:
        frame: the plan joined with measurements, a row per experiment and cell.
        results: the results folder as commands name it.
    """
    failed = parquet.read(tables_dir, "failures")
    distinct = frame.drop_duplicates(_KEY).reset_index(drop=True)
    ids = (distinct["engine"] + "/" + distinct["cell"]).tolist()
    place = {name: i for i, name in enumerate(ids)}
    profile = "local" if plan["hardware"]["kind"] == "cpu" else "slurm"
    metrics = [m.name for m in columns.METRICS if distinct[m.name].notna().any()]
    drawn = metrics + [c for c in _OTHER if c in distinct and distinct[c].notna().any()]
    knobs = ["model_title", *(k for k in KNOBS if k != "model" and k in distinct and distinct[k].notna().any())]
    ends = [f"{m}_{end}" for m in (*metrics, "accuracy", *columns.SEARCHED) for end in ("low", "high")]
    kept = [*knobs, *drawn, *(c for c in (*ends, *_TOLD) if c in distinct and distinct[c].notna().any())]
    evidence = failed.dropna(subset=["evidence"])
    return {
        "study": plan["study"],
        "rerun": text.rerun_command("CELL", results, f"profiles/{profile}", plan["study"]),
        "records": f"{results}/cells",
        "names": _names_in(figures) | {c: _named(c) for c in kept if c not in ends},
        "knobs": knobs,
        "metrics": drawn,
        "ids": ids,
        "columns": {c: _column(distinct[c]) for c in kept},
        "words": {s: content.status_words(s) for s in ["infeasible", *distinct["status"].unique()]},
        "range_up_to": caption.MOST_RANGE,
        "evidence": {
            str(place[key]): said
            for key, said in zip(evidence["engine"] + "/" + evidence["cell"], evidence["evidence"], strict=True)
            if key in place
        },
        "repeats": {"of": list(REPEATED), "cells": _repeats(tables_dir, place)},
        "experiments": [_experiment(plan, name, rows, place) for name, rows in frame.groupby("experiment", sort=False)],
        "figures": {f.plot.id: [place.get(key) for key in f.cells] for f in figures if f.cells},
        "tells": {f.plot.id: f.tells for f in figures if f.tells},
        "machines": _machines(tables_dir, place, metrics),
    }


def script(made: Json) -> str:
    """The object as text that may stand inside a ``script`` element."""
    plain = json.dumps(made, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return (
        plain.replace("&", "\\u0026").replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def _named(name: str) -> list[str]:
    """Heading, unit and meaning of a column; which values are better."""
    column = columns.COLUMNS[name]
    return [column.heading, column.unit, column.description, column.better]


def _names_in(figures: Iterable[content.Figure]) -> dict[str, list[str]]:
    """Heading and unit of the columns of figures whose marks are not cells."""
    named = {name for figure in figures if figure.tells for name in (*figure.columns, *figure.tells)}
    known = {name: columns.COLUMNS.get(name) for name in sorted(named)}
    return {
        name: [column.heading, column.unit, "", ""] if column else [figure_data.label_of(name), "", "", ""]
        for name, column in known.items()
    }


def _column(values: pd.Series) -> Any:
    made = [_plain(value) for value in values]
    if not any(isinstance(value, str) for value in made):
        return made
    levels = list(dict.fromkeys(value for value in made if value is not None))
    places = {level: i for i, level in enumerate(levels)}
    return {"levels": levels, "at": [None if value is None else places[value] for value in made]}


def _plain(value: Any) -> Any:
    if value is None or pd.isna(value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, float) or math.isinf(value):
        return value if not isinstance(value, float) else None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _experiment(plan: Plan, name: Any, rows: pd.DataFrame, place: Mapping[str, int]) -> Json:
    labels = [json.loads(label) for label in rows["labels"]]
    axes = list(dict.fromkeys(axis for label in labels for axis in label))
    keys = rows["engine"] + "/" + rows["cell"]
    titles = rows["model_title"]
    values = [
        [titles.iloc[i] if axis == "model" and axis in label else label.get(axis) for axis in axes]
        for i, label in enumerate(labels)
    ]
    return {
        "name": name,
        "title": plan["experiments"][name]["title"],
        "axes": [[axis, figure_data.label_of(axis)] for axis in axes],
        "drawn": _drawn(plan, name, axes),
        "rows": [[place[key], *found] for key, found in zip(keys, values, strict=True)],
    }


def _drawn(plan: Plan, name: Any, axes: list[str]) -> Json | None:
    """Axes of the experiment's first figure of lines or bars, as its grid calls them."""
    moved = {part.strip(): axis for axis in axes for part in [axis, *axis.split("=")]}
    moved["model_title"] = "model"
    for figure in plan["experiments"][name].get("figures", ()):
        if figure.get("kind", "lines") in ("lines", "bars"):
            roles = {
                "x": figure["x"],
                "c": figure.get("hue") or "",
                "f": figure.get("panel") or figure.get("row") or "",
            }
            made = {role: moved.get(axis, axis) for role, axis in roles.items()}
            return made | {"y": figure["y"] if isinstance(figure["y"], str) else figure["y"][0]}
    return None


def _repeats(tables_dir: Path, place: Mapping[str, int]) -> dict[str, list[list[Any]]]:
    """The repeats of each cell: number of the cell, then for each run its metrics in the order of ``REPEATED``."""
    runs = parquet.read(tables_dir, "samples")
    found: dict[str, list[list[Any]]] = {}
    keys = runs["engine"] + "/" + runs["cell"]
    for key, *values in zip(keys, *(runs[name] for name in REPEATED), strict=True):
        if key in place:
            found.setdefault(str(place[key]), []).append([_plain(value) for value in values])
    return found


def _machines(tables_dir: Path, place: Mapping[str, int], metrics: Iterable[str]) -> list[Json]:
    """Measurements of the same cells on imported machines."""
    if not parquet.path_of(tables_dir, "imported").exists():  # tables of an older version
        return []
    found = parquet.read(tables_dir, "imported")
    made = []
    for machine, rows in found[found["status"] == "ok"].groupby("machine", sort=False):
        keys = (rows["engine"] + "/" + rows["cell"]).tolist()
        there = [i for i, key in enumerate(keys) if key in place]
        values = {m: [_plain(rows[m].iloc[i]) for i in there] for m in metrics if rows[m].notna().any()}
        made.append({"name": str(machine), "ids": [keys[i] for i in there], "columns": values})
    return made
