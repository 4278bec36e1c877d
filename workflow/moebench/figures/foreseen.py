"""Figures of what the cost model predicts for the paper's own grid and machine, beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from moebench import columns, tablerows, tables
from moebench.config import Plot, parse
from moebench.figures import draw


def plots(plan: Mapping[str, Any], experiment: str) -> list[Plot]:
    """The figures of an experiment that are drawn from predictions (``reference.figures``)."""
    where = f"plan of {plan['study']}: {experiment}"
    return [parse(Plot, figure, where) for figure in plan["experiments"][experiment].get("predicted_figures", ())]


def frame(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table ``predictions`` as figures want them: no measurement, a status for each."""
    measured = [c.name for c in columns.of_table("measurements")]
    empty = {c: None for c in measured if c not in table.columns}
    fits = table["predicted_fits"].fillna(True).astype(bool)
    return table.assign(**empty).assign(status=fits.map({True: draw.PREDICTED, False: "infeasible"}))


def of_experiment(tables_dir: Path, experiment: str) -> pd.DataFrame:
    """The predictions of an experiment.  Raises StorageError for missing tables."""
    return frame(tables.read(tables_dir, "predictions", experiment=experiment))


def of_plan(plan: Mapping[str, Any], experiment: str) -> pd.DataFrame:
    """The same before there are tables."""
    reference = plan["reference"]
    rows = [r for r in tablerows.plan_rows(dict(reference)) if r["experiment"] == experiment]
    return frame(tablerows.table("predictions", rows).to_pandas())


def caption(plan: Mapping[str, Any]) -> str:
    """The line under the title."""
    reference = plan["reference"]
    return (
        f"Predicted by the cost model for {reference['hardware']['title']}, the grid of study {reference['study']}: "
        "the roofline, no overheads. Nothing in this figure is measured."
    )
