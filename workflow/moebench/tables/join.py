"""Accuracy and speed: the table ``accuracy`` joined by the engine configuration and top-k of each speed cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from moebench.columns import Row
from moebench.tables import cell_rows, parquet
from moebench.tables.accuracy import MEAN

Z = 1.96
"""Two-sided 95% of the normal distribution."""
AMBIGUOUS = "ambiguous"
"""Several blocks of the experiment, or several tasks without a mean, give the engine configuration a value."""
_KEY = ["experiment", "engine", "top_k"]
_READ = ["block", "task", "main", "status", "unit", "value", "stderr", "made_of", "metric", "chance"]
"""Columns read from the table ``accuracy``: pandas takes a part of a wide table slowly."""


def beside_speed(frame: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """``frame`` (a row per experiment and speed cell) with the accuracy that the same experiment asks for.

    ``accuracy`` is the mean over the tasks of the experiment's block, or its only task; ``accuracy_low``
    and ``accuracy_high`` are 1.96 standard errors away, within 0 and 1.

    ``perplexity`` is that of the only task of the block that has one.

    ``accuracy_status`` is ok, why there is no value (of the first task without one), or null where no accuracy is asked
    for; ``accuracy_of`` names its tasks, ``accuracy_chance`` is that of guessing.  An engine configuration that two
    blocks ask has no value: ``accuracy_status`` is then ``AMBIGUOUS``.
    """
    asked: dict[tuple[Any, ...], list[Row]] = {}
    for row in parquet.rows(answers[_KEY + _READ]):
        asked.setdefault(tuple(row[k] for k in _KEY), []).append(row)
    found = {key: _one(rows) for key, rows in asked.items()}
    numbers = ["accuracy", "accuracy_low", "accuracy_high", "accuracy_chance", "perplexity"]
    empty = dict.fromkeys([*numbers, "accuracy_status", "accuracy_of"])
    rows = [found.get(tuple(row[k] for k in _KEY), empty) for row in parquet.rows(frame[_KEY])]
    made = pd.DataFrame(rows, index=frame.index, columns=list(empty))
    return frame.join(made.astype(dict.fromkeys(numbers, float)))


def _one(rows: list[Row]) -> Row:
    """Accuracy of an engine configuration: the mean if there is one, otherwise its only task's value, otherwise the
    reason."""
    if len({row["block"] for row in rows}) > 1:
        return {"accuracy_status": AMBIGUOUS}
    means = [row for row in rows if row["task"] == MEAN]
    main = [row for row in rows if row["task"] != MEAN and row["main"]]
    bad = [row["status"] for row in main if row["status"] != "ok"]
    if bad and not means:
        return {"accuracy_status": bad[0]}
    chosen = means or [row for row in main if row["unit"] == "share"]
    if len(chosen) != 1:
        return {"accuracy_status": AMBIGUOUS}
    row, texts = chosen[0], [row["value"] for row in main if row["unit"] == "perplexity"]
    error, value = row["stderr"], row["value"]
    spread = None if error is None else Z * error
    ends = (None, None) if spread is None else (max(0.0, value - spread), min(1.0, value + spread))
    of = row["made_of"] if row["task"] == MEAN else f"{row['task']} {row['metric']}"
    return {
        "accuracy": value,
        "accuracy_low": ends[0],
        "accuracy_high": ends[1],
        "accuracy_status": "ok",
        "accuracy_of": of,
        "accuracy_chance": row["chance"],
        "perplexity": texts[0] if len(texts) == 1 else None,
    }


def with_status(out: Path, **where: str) -> pd.DataFrame:
    """The plan joined with measurements: a row per experiment and cell, ``status`` never empty.

    Cells without a record are "not measured", those with an unusable one "damaged".  The engine's version is the one
    that ran, which in a campaign may be another than the planned one.  With the accuracy that the same
    experiment asks for, if any (``accuracy.join``).
    """
    planned, measured, failed = (
        parquet.read(out, "plan", **where),
        parquet.read(out, "measurements"),
        parquet.read(out, "failures"),
    )
    key = ["engine", "cell"]
    own = [c for c in measured.columns if c in (*key, "engine_version") or c not in planned.columns]
    joined = planned.merge(measured[own], on=key, how="left", suffixes=("", "_ran"))
    joined["engine_version"] = joined.pop("engine_version_ran").fillna(joined["engine_version"])
    damaged = failed.loc[failed["status"] == cell_rows.DAMAGED, [*key, "status", "reason"]]
    joined = joined.merge(damaged, on=key, how="left", suffixes=("", "_damaged"))
    for name in ("status", "reason"):
        joined[name] = joined[name].fillna(joined.pop(f"{name}_damaged"))
    joined["status"] = joined["status"].fillna(cell_rows.NOT_MEASURED)
    return plain(beside_speed(joined, parquet.read(out, "accuracy", **where)))


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with texts as objects and in few blocks: selecting rows is five times faster."""
    columns = {name: column.astype(object) if column.dtype == "str" else column for name, column in frame.items()}
    return pd.DataFrame(columns, index=frame.index, columns=frame.columns)
