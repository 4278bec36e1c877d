"""The report's section on imported machines: each machine, its progress, and its times beside the others'."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moebench.figures.caption import WEIGHTS
from moebench.report import content
from moebench.tables import parquet

METRIC = "throughput_total_tokens_per_s"
OWN = "this study's own"


def section(plan: Mapping[str, Any], tables_dir: Path) -> dict[str, Any] | None:
    """Contents of the section; None if no machine was imported. Raises StorageError for a damaged table."""
    if not parquet.path_of(tables_dir, "imported").exists():  # tables of an older version
        return None
    found = parquet.read(tables_dir, "imported")
    if found.empty:
        return None
    own = parquet.read(tables_dir, "measurements").assign(machine=OWN)
    groups = ([(OWN, own)] if len(own) else []) + list(found.groupby("machine"))
    values = {name: _values(rows) for name, rows in groups}
    base = groups[0][0]
    machines = [_machine(str(name), rows, len(plan["cells"]), values[base]) for name, rows in groups]
    return {"machines": machines, "base": base, **_side_by_side(values, pd.concat([rows for _, rows in groups]))}


def _values(rows: pd.DataFrame) -> pd.Series:
    """Throughput of the cells that were measured, by engine and cell."""
    good = rows[rows["status"] == "ok"]
    return good.set_index(["engine", "cell"])[METRIC].dropna().astype(float)


def _machine(name: str, rows: pd.DataFrame, planned: int, base: pd.Series) -> dict[str, Any]:
    mine = _values(rows)
    both = mine.index.intersection(base.index)
    ratio = float(np.exp(np.log(mine[both] / base[both]).mean())) if len(both) else math.nan
    return {
        "name": name,
        "device": _each(rows["device_name"]),
        "engine": _each(rows["engine_name"].str.cat(rows["engine_version"], sep=" ")),
        "versions": _each(rows["versions"].dropna().map(_versions)),
        "weights": _each(rows["weights"].map(lambda w: WEIGHTS.get(w, w))),
        "cells": f"{len(mine)} of {planned}",
        "other": int((rows["status"] != "ok").sum()),
        "pairs": len(both),
        "ratio": content.number(ratio, 3),
        "day": _each(rows["started_at"].dropna().str[:10]),
    }


def _each(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(map(str, values.dropna().sort_values()))) or "not recorded"


def _versions(text: str) -> str:
    return ", ".join(f"{k} {v}" for k, v in json.loads(text).items() if k in ("torch", "transformers"))


def _side_by_side(values: Mapping[Any, pd.Series], every: pd.DataFrame) -> dict[str, Any]:
    """A row per cell that a machine measured: its throughput on each."""
    cells = every.drop_duplicates(["engine", "cell"]).set_index(["engine", "cell"])
    measured = [key for key in cells.index if any(key in found.index for found in values.values())]
    rows = [
        {
            "model": cells.loc[key, "model_title"],
            "name": "/".join(key),
            "values": [content.number(found.get(key)) for found in values.values()],
        }
        for key in measured[: content.MOST_ROWS]
    ]
    return {"heads": list(map(str, values)), "rows": rows, "left_out": len(measured) - len(rows)}
