"""Figures of the cost model's predictions for the paper's own grid and machine, beside the measured ones."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moebench import columns
from moebench.config import Plot, parse
from moebench.figures import caption as captions
from moebench.figures import draw, style
from moebench.figures.data import Data
from moebench.formats.plan import Plan
from moebench.plan.reference import as_plan
from moebench.tables import cell_rows, parquet


def plots(plan: Plan, experiment: str) -> list[Plot]:
    """The figures of an experiment that are drawn from predictions (``reference.figures``)."""
    where = f"plan of {plan['study']}: {experiment}"
    return [parse(Plot, figure, where) for figure in plan["experiments"][experiment].get("predicted_figures", ())]


def frame(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table ``predictions`` as figures need them: no measurement, a status for each.

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
    """Rows whose layout differs from others by less than what the roofline neglects about it."""
    return rows["ep"].fillna(False).astype(bool) | (rows["pp"].fillna(1) > 1)


def of_experiment(tables_dir: Path, experiment: str) -> pd.DataFrame:
    """The predictions of an experiment.  Raises StorageError for missing tables."""
    return frame(parquet.read(tables_dir, "predictions", experiment=experiment))


def of_plan(plan: Plan, experiment: str) -> pd.DataFrame:
    """The same before tables exist."""
    reference = plan["reference"]
    rows = cell_rows.plan_rows(as_plan(reference), [experiment])
    return frame(cell_rows.table("predictions", rows).to_pandas())


FEW = 8
"""Figures with at most this many cells are shown as a table on the page."""


def caption(plan: Plan, placed: Data) -> str:
    """The line under the title."""
    reference, rows = plan["reference"], placed.rows
    kinds = [k for k in rows.get("predicted_kind", pd.Series(dtype=object)).dropna().unique() if "calibrated" in k]
    interval = ", with the interval that contained 80% of left-out points; thin lines: the roofline"
    what = f"{', '.join(kinds)}{interval}" if kinds else "the roofline, without overheads"
    lacking = alike(rows) & ~rows.get("predicted_kind", pd.Series("", index=rows.index)).isin(kinds)
    more = " Not predicted: expert and pipeline parallelism." if lacking.any() else ""
    shown = draw.drawn_only(placed)
    for role in ("panel", "row"):
        if role in placed.axes:
            axis = placed.axes[role]
            gone = [axis.text(v) for v in axis.levels if v not in shown.axes[role].levels]
            more += f"Not drawn, because there is no prediction: {', '.join(gone)}." if gone else ""
    return (
        f"Predicted by the cost model for {reference['hardware']['title']} and the grid of study "
        f"{reference['study']}: {what}. {captions.workload(rows)} Nothing in this figure is measured.{more}"
    )


def as_table(placed: Data) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a figure's predictions; numbers have three digits."""
    plot = placed.plot
    heads = [*(axis.label for axis in placed.axes.values()), *(columns.COLUMNS[y].axis for y in plot.y)]
    rows = []
    for _, row in placed.rows.iterrows():
        values = [draw.predicted(placed.rows.loc[[row.name]], y).iloc[0] for y in plot.y]
        why = style.status_style(row["status"])[0] if row["status"] != draw.PREDICTED else "not predicted"
        told = [why if pd.isna(v) else f"{v:.3g}" if abs(v) < 1000 else f"{v:,.0f}" for v in values]
        rows.append([*(axis.text(row[role]) for role, axis in placed.axes.items()), *told])
    return heads, rows
