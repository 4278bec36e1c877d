"""Figures of what the cost model predicts for the paper's own grid and machine, beside the measured ones."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moebench import columns
from moebench.config import Plot, parse
from moebench.figures import draw
from moebench.formats.plan import Plan
from moebench.plan.reference import as_plan
from moebench.tables import cell_rows, parquet


def plots(plan: Plan, experiment: str) -> list[Plot]:
    """The figures of an experiment that are drawn from predictions (``reference.figures``)."""
    where = f"plan of {plan['study']}: {experiment}"
    return [parse(Plot, figure, where) for figure in plan["experiments"][experiment].get("predicted_figures", ())]


def frame(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table ``predictions`` as figures want them: no measurement, a status for each.

    Layouts that the roofline predicts alike have no bound; batches that the KV cache does not hold have no prediction.
    """
    empty = [c.name for c in columns.of_table("measurements") if c.name not in table.columns]
    fits = [table[name].fillna(True).astype(bool) for name in ("predicted_fits", "predicted_batch_fits")]
    status = (fits[0] & fits[1]).map({True: draw.PREDICTED, False: "infeasible"})
    names = [f"predicted_{name}" for name in columns.PREDICTED if f"predicted_{name}" in table]
    told = {name: table[name].where(~alike(table)) for name in names}
    known = table.reindex(columns=[*table.columns, *empty])
    return known.assign(**told, status=status, predicted_fits=fits[0] & fits[1])


def alike(rows: pd.DataFrame) -> pd.Series:
    """Rows whose layout the roofline tells from others by less than what it neglects of it."""
    return rows["ep"].fillna(False).astype(bool) | (rows["pp"].fillna(1) > 1)


def of_experiment(tables_dir: Path, experiment: str) -> pd.DataFrame:
    """The predictions of an experiment.  Raises StorageError for missing tables."""
    return frame(parquet.read(tables_dir, "predictions", experiment=experiment))


def of_plan(plan: Plan, experiment: str) -> pd.DataFrame:
    """The same before there are tables."""
    reference = plan["reference"]
    rows = [r for r in cell_rows.plan_rows(as_plan(reference)) if r["experiment"] == experiment]
    return frame(cell_rows.table("predictions", rows).to_pandas())


def caption(plan: Plan, rows: pd.DataFrame) -> str:
    """The line under the title."""
    reference = plan["reference"]
    kinds = [k for k in rows.get("predicted_kind", pd.Series(dtype=object)).dropna().unique() if "calibrated" in k]
    interval = ", with the interval that held 80% of left-out points; thin lines: the roofline"
    what = f"{', '.join(kinds)}{interval}" if kinds else "the roofline, no overheads"
    lacking = alike(rows) & ~rows.get("predicted_kind", pd.Series("", index=rows.index)).isin(kinds)
    more = " Not predicted: expert and pipeline parallelism." if lacking.any() else ""
    return (
        f"Predicted by the cost model for {reference['hardware']['title']}, the grid of study {reference['study']}: "
        f"{what}. Nothing in this figure is measured.{more}"
    )
