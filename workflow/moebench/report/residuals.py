"""The report's section on the model against measurements: residuals by experiment, and the constants used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from moebench.figures import residuals
from moebench.formats.plan import Plan
from moebench.report import content
from moebench.tables import machines, parquet

PLOT = residuals.PLOT
_HOW = {
    "triad": "memory bandwidth (triad of {:.0f} MB)",
    "product": "matrix products in {} (side {:.0f})",
}


def section(plan: Plan, tables_dir: Path, folder: Path, href: str) -> dict[str, Any] | None:
    """Contents of the section; None for a plan whose cells cannot have predictions.

    Raises StorageError for missing tables or a missing figure.
    """
    if not machines.compared(plan):
        return None
    frame, measured = residuals.of_plan(plan, tables_dir), parquet.read(tables_dir, "measurements")
    said = residuals.caption(plan, frame)
    words = f"{said} {residuals.described(plan, frame)}"
    rows = [
        row | {k: content.number(row[k], 3) for k in row if k not in ("experiment", "cells")}
        for row in residuals.summary(frame)
    ]
    cells = [f"{engine}/{cell}" for engine, cell in zip(frame["engine"], frame["cell"], strict=True)]
    return {
        "words": _words(plan, frame, measured),
        "rows": rows,
        "figure": content.drawn(residuals.PLOT, said, words, folder, href, cells) if rows else None,
        "constants": _constants(parquet.read(tables_dir, "machines")),
        "without": _without(measured),
    }


def _words(plan: Plan, frame: pd.DataFrame, measured: pd.DataFrame) -> str:
    """Meaning of the ratios, or what is missing for them."""
    if frame.empty and (measured["status"] == "ok").any():
        return (
            "The constants of the machine that measured the cells are unknown. Run `moebench calibrate` on it, then "
            "`moebench report --partial`."
        )
    if frame.empty:
        return "Nothing is measured yet."
    text = (
        "Measured time of each cell divided by the cost model's lower bound. A ratio far above 1 shows time that the "
        "roofline does not include: Python, the scheduler, kernel launches, and products too small to reach the "
        "machine's peak rate."
    )
    if set(frame["predicted_with"]) == {machines.MEASURED}:
        text += (
            " This machine has no data sheet: its constants were measured, and the bandwidth is that of arrays no "
            "larger than the model, which may fit in caches."
        )
    return text


def _constants(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The table ``machines`` in words."""
    made = []
    for row in frame.to_dict("records"):
        kind, _, dtype = row["constant"].partition(" ")
        size = row["constant_size"]
        what = _HOW[kind].format(dtype, size) if dtype else _HOW[kind].format(size / 1e6)
        made.append(
            {
                "machine": f"{row['host']}: {row['device_name']}, {content.counted(row['threads'], 'thread')}",
                "what": what,
                "value": f"{content.number(row['value'] / 1e9, 3)} G{row['unit'].replace('bytes', 'B')}",
                "runs": row["n_repeats"],
                "when": row["started_at"][:19].replace("T", " "),
            }
        )
    return made


def refused(measured: pd.DataFrame) -> list[tuple[str, int]]:
    """Reasons why measured constants are refused, each with the number of cells without a prediction for that
    reason."""
    counts = measured.loc[measured["status"] == "ok", "prediction_refused"].value_counts()
    return [(str(reason), int(n)) for reason, n in counts.items()]


def _without(measured: pd.DataFrame) -> str:
    """Why measured cells have no prediction, with their numbers."""
    rest = measured[(measured["status"] == "ok") & measured["predicted_with"].isna()]
    refused = rest["prediction_refused"].notna()
    kinds = {
        "whose machine constants are refused": refused,
        "with speculative decoding": rest["draft_tokens"].fillna(0) > 0,
        "with images of unknown sizes": rest["images"].fillna(0) > 0,
        "through a hosted service": rest["gpus"].isna(),
    }
    other = ~pd.concat(kinds.values(), axis=1).any(axis=1) if len(rest) else pd.Series(dtype=bool)
    kinds["on a machine, or in a data type, without constants"] = other
    return ", ".join(f"{int(n.sum())} {words}" for words, n in kinds.items() if n.any())
