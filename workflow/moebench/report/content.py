"""Contents of the report: joined tables as text. No HTML here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from moebench import columns
from moebench.config import Plot
from moebench.figures import caption, style
from moebench.figures import data as figure_data
from moebench.figures.kinds import KINDS
from moebench.report import svg
from moebench.tables.cell_rows import NOT_MEASURED, UNSUPPORTED

Json = Mapping[str, Any]
MOST_ROWS = 400
"""Maximum number of rows of a table in the page; the CSV file has all of them."""

MOST_CSV = 500_000
"""Maximum size of a figure's data in the page, bytes; larger data are only in the file beside it."""

PREFERRED = ("e2e_s", "throughput_total_tokens_per_s")


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    plot: Plot
    svg: str
    csv: str
    """Its data as a data URL; empty if they are large."""
    path: str
    """Path of its files without the suffix."""
    narrow: str
    """SVG for small screens; empty if there is none."""
    caption: str
    cells: list[str]
    """``ENGINE/CELL`` of each row of its data; none if its marks are not cells."""
    tells: list[str]
    """Columns of its data that identify a mark; none if marks are cells."""
    columns: list[str]
    """The columns of its data."""
    numbers: tuple[list[str], list[list[str]]] | None = None
    """Headings and rows, if the page shows a small figure as a table instead."""


def drawn(
    plot: Plot, said: str, words: str, folder: Path, href: str, cells: list[str], tells: Iterable[str] = ()
) -> Figure:
    """A figure from its files.  Raises StorageError if one is missing."""
    text = svg.inline(folder / f"{plot.id}.svg", plot.id, f"Figure {plot.number}. {plot.title}", words)
    narrow = folder / "narrow" / f"{plot.id}.svg"
    small = (
        ""
        if not narrow.exists()
        else svg.inline(narrow, f"{plot.id}-narrow", f"Figure {plot.number}. {plot.title}", words)
    )
    data, csv = (folder / f"{plot.id}.csv").read_bytes(), ""
    if len(data) <= MOST_CSV:
        csv = "data:text/csv;charset=utf-8," + quote(data, safe="/,:;.()+")
    heads = data.partition(b"\n")[0].decode("utf-8").split(",")
    return Figure(plot, text, csv, f"{href}/{plot.id}", small, said, cells, list(tells), heads)


# ----------------------------------------------------------------------------------------- numbers


def number(value: Any, digits: int = 4) -> str:
    """A number with four significant digits, thousands separated; an empty string for none."""
    if value is None or pd.isna(value):
        return ""
    value = float(value)
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return (
        f"{value:,.0f}" if places == 0 else f"{value:,.{places}f}" if abs(value) >= 1e-4 else f"{value:.{digits - 1}e}"
    )


def quantity(value: Any, unit: str) -> str:
    """A number with its unit; bytes in GB or MB."""
    if value is None or pd.isna(value):
        return "unknown"
    if unit == "bytes":
        size, word = (1e9, "GB") if value >= 1e9 else (1e6, "MB")
        return f"{number(value / size, 3)} {word}"
    return f"{number(value)} {unit}".strip()


def counted(number: int, thing: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def with_interval(row: Any, name: str) -> str:
    """Median and, where there is one, its interval."""
    middle, low, high = row[name], row.get(f"{name}_low"), row.get(f"{name}_high")
    if pd.isna(middle):
        return ""
    return number(middle) if pd.isna(low) or low == high else f"{number(middle)} ({number(low)} to {number(high)})"


# ------------------------------------------------------------------------------------------ tables


@dataclass(frozen=True)
class CellTable:
    """The cells of an experiment: headings (and whether the column is numeric), rows with link, texts and status, the
    number of further rows, and batch and lengths as text."""

    heads: list[tuple[str, bool]]
    rows: list[dict[str, Any]]
    left_out: int
    workload: str


def cell_table(frame: pd.DataFrame, shown: Iterable[Plot]) -> CellTable:
    """The table under an experiment's figures: its axes, status, and the metrics that its figures show."""
    wanted = [name for plot in shown for name in KINDS[plot.kind].cell_metrics(plot)]
    metrics = list(dict.fromkeys(wanted)) or list(PREFERRED)
    labels = [json.loads(text) for text in frame["labels"]]
    axes = list(dict.fromkeys(axis for row in labels for axis in row if axis != "model"))
    plain = ["Model", *(figure_data.label_of(axis) for axis in axes), "Status"]
    spread = [c for c in ("e2e_s_cv", "distinct_experts_mean", "residual_e2e") if frame[c].notna().any()]
    numeric = [columns.COLUMNS[c].axis for c in [*metrics, *spread]]
    heads = [
        *((h, False) for h in plain),
        *((h, True) for h in numeric),
        ("Every repeat, end to end (s)", True),
        ("Cell", False),
    ]
    entries = _entries(frame)
    rows = []
    for places in entries[:MOST_ROWS]:
        row, mine = frame.iloc[places[0]], [labels[place] for place in places]
        marks = {"unstable": row["unstable"], "throttled": row["throttled"], "derived": row["derived_from"]}
        notes = [word for word, on in marks.items() if _true(on)]
        rows.append(
            {
                "texts": [row["model_title"], *(_shared(_plain(label.get(axis)) for label in mine) for axis in axes)],
                "status": row["status"],
                "words": status_words(row["status"]),
                "notes": [f"{len(places)} cells"] * (len(places) > 1) + notes,
                "values": [
                    *(with_interval(row, m) for m in metrics),
                    *(number(row[c], 2 if c == "e2e_s_cv" else 3) for c in spread),
                ],
                "name": f"{row['engine']}/{row['cell']}",
            }
        )
    return CellTable(heads, rows, sum(map(len, entries[MOST_ROWS:])), caption.workload(frame))


def _entries(frame: pd.DataFrame) -> list[list[int]]:
    """Positions of the rows of each entry: one row, or all rows of an engine configuration that cannot run."""
    found: dict[Any, list[int]] = {}
    for place, (engine, status, reason) in enumerate(
        zip(frame["engine"], frame["status"], frame["reason"], strict=True)
    ):
        found.setdefault((engine, reason) if status == UNSUPPORTED else place, []).append(place)
    return list(found.values())


def _shared(texts: Iterable[str]) -> str:
    """The text common to some rows, or "several"."""
    different = set(texts)
    return different.pop() if len(different) == 1 else "several"


def _true(value: Any) -> bool:
    return not pd.isna(value) and bool(value)


def _plain(value: Any) -> str:
    return (
        ""
        if value is None
        else {True: "yes", False: "no"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    )


def record_link(row: Any, records: str) -> str | None:
    """Link from the page to a cell's record; None if there is none yet, or if the plan rules the cell out."""
    planned = row["status"] == UNSUPPORTED and pd.isna(row["started_at"])
    return None if planned or row["status"] == NOT_MEASURED else f"{records}/{row['engine']}/{row['cell']}.json"


def status_words(status: str) -> str:
    """A status in words."""
    return "measured" if status == "ok" else style.status_style(status)[0]


def counts(frame: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Status, its label, and the number of distinct cells with it; measured first, not measured last."""
    distinct = frame.drop_duplicates(["engine", "cell"])["status"].value_counts()
    order = ["ok", *style.STATUSES, *sorted(set(distinct.index) - set(style.STATUSES) - {"ok"})]
    return [(s, status_words(s), int(distinct[s])) for s in order if s in distinct.index]


def failures(failed: pd.DataFrame, titles: Mapping[str, str], records: str) -> list[dict[str, Any]]:
    """Failed cells with reason, evidence, predicted memory and the command that runs one again.

    All cells of an engine configuration that cannot run are one entry with their number, ``cells``, shown by the first.
    """
    rows = []
    for places in _entries(failed):
        group = failed.iloc[places]
        row = group.iloc[0]
        memory, fits = _memory(group["predicted_bytes_per_gpu"]), set(group["predicted_fits"].dropna())
        rows.append(
            {
                "name": f"{row['engine']}/{row['cell']}" if len(group) == 1 else row["engine"],
                "cells": len(group),
                "first": f"{row['engine']}/{row['cell']}",
                "model": titles.get(row["engine"], row["model_title"] or row["engine"]),
                "href": record_link(row, records),
                "status": row["status"],
                "words": status_words(row["status"]),
                "reason": "" if pd.isna(row["reason"]) else row["reason"],
                "evidence": "" if pd.isna(row["evidence"]) else row["evidence"],
                "memory": memory
                if len(fits) != 1 or memory == "unknown"
                else f"{memory}, {'fits' if fits.pop() else 'does not fit'}",
                "rerun": row["rerun"],
            }
        )
    return rows


def causes(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Failures by cause: status and reason, numbers of cells and engine configurations; the most frequent cause
    first."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        found.setdefault((entry["status"], entry["reason"]), []).append(entry)
    made = [
        {
            "status": status,
            "words": mine[0]["words"],
            "reason": reason,
            "cells": sum(entry["cells"] for entry in mine),
            "engines": len({entry["first"].partition("/")[0] for entry in mine}),
            "entries": mine,
        }
        for (status, reason), mine in found.items()
    ]
    return sorted(made, key=lambda cause: -cause["cells"])


def repeats(runs: pd.DataFrame) -> dict[str, str]:
    """End-to-end time of each repeat of a cell, by ``ENGINE/CELL``."""
    found: dict[str, list[str]] = {}
    for engine, cell, took_s in zip(runs["engine"], runs["cell"], runs["e2e_s"], strict=True):
        found.setdefault(f"{engine}/{cell}", []).append(number(took_s))
    return {key: "; ".join(texts) for key, texts in found.items()}


def _memory(values: pd.Series) -> str:
    """Predicted memory of some cells: one quantity, or the range."""
    return " to ".join(dict.fromkeys(quantity(v, "bytes") for v in (values.min(), values.max())))


def provenance(measured: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Origin of the numbers: each fact with its values (and the number of cells with each, if they differ)."""
    facts = [
        "host",
        "device_name",
        "engine_name",
        "engine_version",
        "git_commit",
        "lock_sha256",
        "prompt_corpus_sha256",
        "versions",
        "variables",
        "slurm_job_id",
    ]
    found = []
    for name in facts:
        values = measured[name].dropna()
        if name == "git_commit":
            dirty = measured.loc[values.index, "git_dirty"].fillna(False).astype(bool)
            values = values.where(~dirty, values + " with uncommitted changes")
        tally = values.value_counts(sort=False)
        many = len(tally) > 1
        texts = [
            f"{_WORDS[name](v) if name in _WORDS else v}{f' ({n} cells)' if many else ''}" for v, n in tally.items()
        ]
        found.append((columns.COLUMNS[name].heading, _short_list(texts) or ["not recorded"]))
    drift = measured[["engine", "canary_drift"]].dropna().drop_duplicates().sort_values("canary_drift")
    if len(drift):
        worst = drift.iloc[-1]
        texts = [
            f"median {drift['canary_drift'].median():.0%} of {len(drift)} engine configurations",
            f"most {worst['canary_drift']:.0%} ({worst['engine']})",
        ]
        found.append(("Canary drift", texts))
    started = measured["started_at"].dropna()
    if len(started):
        found.append(("Measured (UTC)", [f"{started.min()[:19]} to {started.max()[:19]}"]))
    return found


def _versions(text: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in json.loads(text).items())


def _variables(text: Any) -> str:
    return ", ".join(f"{k}={v}" for k, v in json.loads(text).items()) or "none that the engine reads"


_WORDS: dict[str, Callable[[Any], str]] = {"versions": _versions, "variables": _variables}
"""Columns of JSON, in words."""


def _short_list(texts: list[str], most: int = 12) -> list[str]:
    return texts if len(texts) <= most else [*texts[:most], f"and {len(texts) - most} more"]


def derived(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The table ``derived`` as text; empty strings for values that are unknown or do not apply to a checkpoint."""
    words = {
        **dict.fromkeys(("ratio_asked", "ratio_reached"), "{:.1%}"),
        **dict.fromkeys(("calibration_tokens", "tokens_per_expert_min"), "{:,}"),
        "took_s": "{:,.1f}",
    }
    plain = frame.astype(object).where(frame.notna(), "").to_dict("records")
    rows = ({str(k): v for k, v in row.items()} for row in plain)
    return [row | {k: text.format(row[k]) if row[k] != "" else "" for k, text in words.items()} for row in rows]


def weights(measured: pd.DataFrame) -> list[dict[str, str]]:
    """Models with the shape of their experts and the kind and revision of their weights."""
    shown = ["model_title", "experts", "moe_ffn_size", "weights", "revision"]
    kinds = measured[shown].drop_duplicates().sort_values(shown[:3])
    return [
        {k: "" if pd.isna(v) else str(v) for k, v in zip(shown, row, strict=True)}
        for row in kinds.head(MOST_ROWS).to_numpy()
    ]
