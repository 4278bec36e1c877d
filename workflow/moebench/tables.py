"""Tables: the records of a study's cells as Parquet, one direction, made anew each time.

Reading 100,000 records is the slow part, so chunks of cells go to two processes that each return finished Arrow
tables; nothing is ever held as one Python object per row and column.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from moebench import at_hand, columns, computed, derived_facts, parameters, show, tablerows
from moebench.accuracy.join import beside_speed
from moebench.accuracy.rows import rows as accuracy_rows
from moebench.config import Hardware
from moebench.errors import StorageError, UserError
from moebench.measure import manifest, records
from moebench.plan.file import read_plan

SCHEMA = 1
"""Version of the tables; readers accept this and older ones."""

CHUNK = 1000
WORKERS = 2
_KEY = b"moebench_schema"


@dataclass(frozen=True)
class Collected:
    """What a collection found: planned cells by status ("not measured" for those without a record)."""

    study: str
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """Planned cells."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items(), key=lambda p: (-p[1], p[0])))
        return f"{self.study}: {self.total} cells: {parts}" if parts else f"{self.study}: no cells"


def collect(plan_path: Path, results: Path, out: Path, *, results_name: str | None = None) -> Collected:
    """Read the records of a plan's cells and write the tables ``plan``, ``measurements``, ``samples``, ``failures``,
    those about routed experts, ``parameters`` of the models that the plan asks about, ``computed`` points,
    ``predictions`` of the study it refers to, ``claims``, ``accuracy``, ``derived`` checkpoints and ``machines``.

    ``results_name`` is the results folder as the rerun commands name it (default: as given).  Raises ConfigError
    without a plan, StorageError for a record of a newer schema or tables that cannot be written.
    """
    from moebench.claims import table as claims  # it reads tables, so it cannot be imported by what writes them

    plan = read_plan(plan_path)
    planned = pa.concat_tables([_empty("plan"), *(tablerows.table("plan", part) for part in _plan_parts(plan))])
    counted = tablerows.table("parameters", parameters.rows(plan))
    points = tablerows.table("computed", computed.rows(plan))
    profile = "profiles/local" if plan["hardware"]["kind"] == "cpu" else "profiles/slurm"
    rerun = show.rerun_command("{engine}/{cell}", results_name or results.as_posix(), profile, plan["study"])
    answers = tablerows.table("accuracy", accuracy_rows(plan, results, results_name or results.as_posix(), profile))
    derived = tablerows.table("derived", derived_facts.rows(plan, results))
    kept = at_hand.read(results)
    chunks = list(chunks_of(plan, results, rerun, kept))
    study = plan["study"]
    reference = plan.get("reference")
    predictions = tablerows.table("predictions", tablerows.plan_rows(reference) if reference else ())
    asked = claims.asked(plan)
    del plan, reference  # 100,000 cells are some hundred MB, and every worker would be started beside them
    made = list(_work(chunks))
    written = {
        name: pa.concat_tables([_empty(name), *(m.tables[name] for m in made)])
        for name in ("measurements", "samples", "failures", *tablerows.ROUTED)
    }
    more = {"plan": planned, "parameters": counted, "computed": points, "predictions": predictions, "accuracy": answers}
    seen = written["measurements"].select(["host", "device_name", "threads"]).to_pydict()
    machines = set(zip(*seen.values(), strict=True))
    more |= {"derived": derived, "machines": tablerows.table("machines", at_hand.rows(study, kept, machines))}
    with replacing(out) as new:
        for name, table in (written | more).items():
            write(new, name, table)
        write(new, "claims", tablerows.table("claims", claims.rows(asked, new, results)))
    counts: Counter[str] = Counter()
    for m in made:
        counts.update(m.counts)
    return Collected(study, dict(counts))


def _plan_parts(plan: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    rows = tablerows.plan_rows(plan)
    while part := list(itertools.islice(rows, CHUNK)):
        yield part


def chunks_of(plan: dict[str, Any], results: Path, rerun: str, kept: at_hand.Kept) -> Iterator[tablerows.Chunk]:
    """The cells of a plan in shares for workers; ``kept``: constants of machines that measured."""
    unknown = kept and plan["hardware"].get("bandwidth_bytes_per_s") is None
    machine = Hardware.model_validate(plan["hardware"]) if unknown else None
    keys = [(cell["engine"], cell["cell"]) for cell in plan["cells"].values()]
    drift, gaps = canaries(plan, results)
    least = least_times(plan)
    for start in range(0, len(keys), CHUNK):
        cells = keys[start : start + CHUNK]
        engines = {engine for engine, _ in cells}
        yield tablerows.Chunk(
            plan["study"],
            results,
            rerun,
            cells,
            {e: plan["engines"][e]["model"]["title"] for e in engines},
            {e: drift[e] for e in engines if e in drift},
            {key: gaps[key] for key in cells if key in gaps},
            {key: least[key] for key in cells if key in least},
            machine,
            kept if machine else {},
        )


def _work(chunks: list[tablerows.Chunk]) -> Iterator[tablerows.Made]:
    """Make the tables of all chunks, in order; in this process where starting others would take longer."""
    workers = min(WORKERS, os.cpu_count() or 1)
    if len(chunks) <= 2 or workers < 2:
        yield from map(tablerows.make, chunks)
        return
    # spawn, not fork: pyarrow's threads do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(tablerows.make, chunks)
        except BrokenProcessPool:
            raise UserError("a process that made tables was killed (out of memory?); run again") from None


def least_times(plan: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Per cell the time below which no run on a GPU can be; a CPU's caches hold small models, so it has no such bound.

    With speculation a step yields several tokens, so those cells have none either.
    """
    if plan["hardware"].get("kind") != "gpu":
        return {}
    return {
        (cell["engine"], cell["cell"]): least
        for cell in plan["cells"].values()
        if (least := (cell.get("predicted") or {}).get("least_e2e_s")) is not None
        and not plan["engines"][cell["engine"]]["config"].get("draft_model")
    }


def canaries(plan: dict[str, Any], results: Path) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """What the canaries tell, of e2e_s: the drift per engine, and the gap per canary cell.

    Drift: (max - min) / median of a session's canary runs, the median of the cell's own repeats among them; of several
    sessions the largest.  Gap: median of the canary runs over that of the cell's own repeats in the same session, - 1.
    """
    drift: dict[str, float] = {}
    gaps: dict[tuple[str, str], float] = {}
    for job in plan["jobs"]:
        found = manifest.read(results, job) or {}
        runs: dict[tuple[str, str, Any], list[float]] = {}
        for run in found.get("canary", ()):
            value = (run.get("metrics") or {}).get("e2e_s")
            if value is not None:
                runs.setdefault((run["engine"], run["cell"], run.get("session")), []).append(value)
        for (engine, cell, session), values in runs.items():
            own = _own_median(results, engine, cell, session)
            if own is not None:
                gaps[engine, cell] = statistics.median(values) / own - 1
                values.append(own)
            if len(values) > 1:
                spread = (max(values) - min(values)) / statistics.median(values)
                drift[engine] = max(spread, drift.get(engine, 0.0))
    return drift, gaps


def _own_median(results: Path, engine: str, cell: str, session: Any) -> float | None:
    """The median e2e_s of a cell's own repeats, if they are of that session."""
    try:
        record = records.load(records.cell_path(results, engine, cell))
        if record["status"] != "ok" or (record.get("load") or {}).get("session") != session:
            return None
        times = [run["metrics"]["e2e_s"] for run in record["repeats"] if run.get("metrics")]
    except (OSError, KeyError, TypeError, records.RecordDamaged, StorageError):  # said where the cell's row is made
        return None
    return statistics.median(times) if times else None


# ------------------------------------------------------------------------------------- read, write


def _empty(name: str) -> pa.Table:
    return columns.schema(name).empty_table()


def path_of(out: Path, name: str) -> Path:
    """Where a table lies."""
    return out / f"{name}.parquet"


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A new folder whose tables take the place of those in ``out`` once all are written: on a full disk the old ones
    stay, all of them.  Raises StorageError.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=out) as new:
            yield Path(new)
            for path in Path(new).iterdir():
                os.replace(path, out / path.name)
    except OSError as error:
        raise StorageError(
            f"{out}: tables cannot be written ({error.strerror or error}); free space or mend permissions, then run "
            "again: those that are there are kept"
        ) from None


def write(folder: Path, name: str, table: pa.Table) -> None:
    """Write a table.  Raises OSError."""
    units = json.dumps({c.name: c.unit for c in columns.of_table(name) if c.unit})
    table = table.replace_schema_metadata({_KEY: str(SCHEMA), b"moebench_table": name, b"moebench_units": units})
    pq.write_table(table, path_of(folder, name), compression="zstd")


def _nullable(kind: pa.DataType) -> Any:
    return {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get(kind)


def read(out: Path, name: str, **where: str) -> pd.DataFrame:
    """A table as a data frame (whole numbers and truth values nullable), only the rows where columns equal ``where``.

    Columns that an older version did not write come back empty.  Raises UserError if the table is missing, StorageError
    if it is damaged or of a newer schema.
    """
    path = path_of(out, name)
    try:
        version = int((pq.read_schema(path).metadata or {})[_KEY])
        if version > SCHEMA:
            raise StorageError(
                f"{path}: tables of schema {version}, this version reads up to {SCHEMA}; update moebench"
            )
        table = pq.read_table(path, filters=[(k, "==", v) for k, v in where.items()] or None, use_threads=False)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such table yet; `moebench report --partial --study {out.name}` makes it of what is measured"
        ) from None
    except (KeyError, ValueError, OSError):
        again = "`moebench report --partial` makes the tables again"
        raise StorageError(f"{path}: not a table of moebench, or damaged; {again}") from None
    for field in columns.schema(name):
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    frame: pd.DataFrame = table.to_pandas(types_mapper=_nullable)
    return frame


def with_status(out: Path, **where: str) -> pd.DataFrame:
    """The plan joined with measurements: a row per experiment and cell, ``status`` never empty.

    Cells without a record are "not measured", those with an unusable one "damaged".  With the accuracy that the same
    experiment asks for, if any (``accuracy.join``).
    """
    planned, measured, failed = read(out, "plan", **where), read(out, "measurements"), read(out, "failures")
    key = ["engine", "cell"]
    own = [c for c in measured.columns if c in key or c not in planned.columns]
    joined = planned.merge(measured[own], on=key, how="left")
    damaged = failed.loc[failed["status"] == tablerows.DAMAGED, [*key, "status", "reason"]]
    joined = joined.merge(damaged, on=key, how="left", suffixes=("", "_damaged"))
    for name in ("status", "reason"):
        joined[name] = joined[name].fillna(joined.pop(f"{name}_damaged"))
    joined["status"] = joined["status"].fillna(tablerows.NOT_MEASURED)
    return beside_speed(joined, read(out, "accuracy", **where))
