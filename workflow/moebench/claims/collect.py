"""The tables of a study, built from its plan and records, and the verdicts on the papers' claims built from these."""

from __future__ import annotations

from pathlib import Path

from moebench.claims import imported
from moebench.claims import table as claims
from moebench.plan.file import read_plan
from moebench.tables import cell_rows, gather, parquet
from moebench.tables.gather import Collected


def collect(plan_path: Path, results: Path, out: Path, *, results_name: str | None = None) -> Collected:
    """Write the tables of a study to the folder ``out``, all of them or none.

    ``plan``, ``measurements``, ``samples``, ``failures``, those about routed experts, ``parameters`` of the models that
    the plan asks about, ``computed`` points, ``predictions`` of the study it refers to, ``claims``, ``accuracy``,
    ``derived`` checkpoints, ``machines``, and what ``imported`` ones measured.  ``results_name`` is the results folder
    as the rerun commands name it (default: as given).  Raises ConfigError without a plan, StorageError for a record of
    a newer schema or tables that cannot be written.
    """
    asked = claims.asked(read_plan(plan_path))
    made, found = gather.gather(plan_path, results, results_name)
    with parquet.replacing(out) as new:
        for name, table in made.items():
            parquet.write(new, name, table)
        elsewhere = imported.rows(new, results)
        parquet.write(new, imported.IMPORTED, cell_rows.table(imported.IMPORTED, elsewhere))
        parquet.write(new, "claims", cell_rows.table("claims", claims.rows(asked, new, results)))
    return found
