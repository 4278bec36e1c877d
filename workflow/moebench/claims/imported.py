"""Cells of a study as imported machines measured them (``results/imported``), beside the study's own.

A cell of a machine belongs to the cell of the plan that ``claims.compare`` would pair it with: every knob equal, the
model's revision and the protocol; its hardware, and the version of its engine, may differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moebench.claims import compare
from moebench.columns import Row
from moebench.tables import parquet

IMPORTED = "imported"
"""Folder in the results folder, a results folder per machine in it; and the table made of them."""


def tables(results: Path) -> list[Path]:
    """Folders with the tables of imported machines."""
    return sorted(path.parent for path in (results / IMPORTED).glob("*/tables/*/measurements.parquet"))


def rows(ours: Path, results: Path) -> list[dict[str, Any]]:
    """The table ``imported``: measurements of imported machines, by the engine and cell of this plan.

    ``ours``: the folder with the table ``plan``.  Raises StorageError for tables that cannot be read.
    """
    folders = tables(results)
    asked: dict[tuple[Any, ...], Row] = {}
    for row in parquet.rows(parquet.read(ours, "plan")) if folders else ():
        asked[compare.key(row)] = row
    made = []
    for folder in folders:
        for row in parquet.rows(parquet.read(folder, "measurements")):
            if planned := asked.get(compare.key(row)):
                here = {k: planned[k] for k in ("study", "engine", "cell")} | {"machine": folder.parent.parent.name}
                made.append(row | here)
    return made
