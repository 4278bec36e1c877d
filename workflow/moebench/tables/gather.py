"""Tables: the records of a study's cells as Parquet, rebuilt each time.

Reading 100,000 records is the slow part, so chunks of cells go to two processes that each return finished Arrow
tables; nothing is ever held as one Python object per row and column.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from moebench import text
from moebench.columns import Row
from moebench.config import Hardware
from moebench.errors import StorageError, UserError
from moebench.formats.plan import Plan
from moebench.measure import manifest, records
from moebench.plan import parameters
from moebench.plan.file import read_plan
from moebench.plan.reference import as_plan
from moebench.qs import points
from moebench.tables import cell_rows, derived_checkpoints, machines, parquet
from moebench.tables.accuracy import rows as accuracy_rows

CHUNK = 1000
WORKERS = 2


@dataclass(frozen=True)
class Collected:
    """Summary of a collection: planned cells by status ("not measured" without a record)."""

    study: str
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """Planned cells."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items(), key=lambda p: (-p[1], p[0])))
        return f"{self.study}: {self.total} cells: {parts}" if parts else f"{self.study}: no cells"


def gather(plan_path: Path, results: Path, results_name: str | None = None) -> tuple[dict[str, pa.Table], Collected]:
    """Read the records of a plan's cells; return the tables by name, all but ``claims``, and a summary.

    ``results_name`` is the results folder as the rerun commands name it (default: as given).  Raises ConfigError
    without a plan, StorageError for a record of a newer schema.
    """
    plan = read_plan(plan_path)
    planned = pa.concat_tables([parquet.empty("plan"), *(cell_rows.table("plan", part) for part in _plan_parts(plan))])
    computed = computed_tables(plan)
    profile = "profiles/local" if plan["hardware"]["kind"] == "cpu" else "profiles/slurm"
    rerun = text.rerun_command("{engine}/{cell}", results_name or results.as_posix(), profile, plan["study"])
    answers = cell_rows.table("accuracy", accuracy_rows(plan, results, results_name or results.as_posix(), profile))
    derived = cell_rows.table("derived", derived_checkpoints.rows(plan, results))
    kept = machines.read(results)
    chunks = list(chunks_of(plan, results, rerun, kept))
    study, unsupported = plan["study"], cell_rows.unsupported(plan)
    del plan  # 100,000 cells are some hundred MB, and every worker would be started beside them
    made = [*_work(chunks), unsupported]
    written = {
        name: pa.concat_tables([parquet.empty(name), *(m.tables[name] for m in made if name in m.tables)])
        for name in ("measurements", "samples", "failures", "rates", *cell_rows.ROUTED)
    }
    written["measurements"] = machines.refuse_beaten(written["measurements"])
    more = {"plan": planned, "accuracy": answers, **computed}
    seen = written["measurements"].select(["host", "device_name", "threads"]).to_pydict()
    measured_on = set(zip(*seen.values(), strict=True))
    more |= {"derived": derived, "machines": cell_rows.table("machines", machines.rows(study, kept, measured_on))}
    counts: Counter[str] = Counter()
    for m in made:
        counts.update(m.counts)
    return written | more, Collected(study, dict(counts))


def computed_tables(plan: Plan) -> dict[str, pa.Table]:
    """The tables that need no measurement."""
    reference = plan.get("reference")
    predicted = cell_rows.plan_rows(as_plan(reference)) if reference else ()
    return {
        "parameters": cell_rows.table("parameters", parameters.rows(plan)),
        "computed": cell_rows.table("computed", points.rows(plan)),
        "predictions": cell_rows.table("predictions", predicted),
    }


def _plan_parts(plan: Plan) -> Iterator[list[Row]]:
    rows = cell_rows.plan_rows(plan)
    while part := list(itertools.islice(rows, CHUNK)):
        yield part


def chunks_of(plan: Plan, results: Path, rerun: str, kept: machines.Kept) -> Iterator[cell_rows.Chunk]:
    """The cells of a plan in shares for workers; ``kept``: stored constants of machines."""
    unknown = kept and plan["hardware"].get("bandwidth_bytes_per_s") is None
    machine = Hardware.model_validate(plan["hardware"]) if unknown else None
    sheet = Hardware.model_validate(plan["hardware"]) if plan["hardware"].get("peak") else None
    keys = [(cell["engine"], cell["cell"]) for cell in plan["cells"].values()]
    drift, gaps = canaries(plan, results)
    least = least_times(plan)
    for start in range(0, len(keys), CHUNK):
        cells = keys[start : start + CHUNK]
        engines = {engine for engine, _ in cells}
        yield cell_rows.Chunk(
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
            sheet,
            plan.get("goals", {}),
            plan["hardware"]["price"]["usd_per_hour"] if "price" in plan["hardware"] else None,
        )


def _work(chunks: list[cell_rows.Chunk]) -> Iterator[cell_rows.Made]:
    """Build the tables of all chunks, in order; in this process if starting others would take longer."""
    workers = min(WORKERS, os.cpu_count() or 1)
    if len(chunks) <= 2 or workers < 2:
        yield from map(cell_rows.make, chunks)
        return
    # spawn, not fork: pyarrow's threads do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(cell_rows.make, chunks)
        except BrokenProcessPool:
            raise UserError("a process that made tables was killed (out of memory?); run again") from None


def least_times(plan: Plan) -> dict[tuple[str, str], float]:
    """Per cell the time below which no run on a GPU can be; a CPU's caches hold small models, so it has no such bound.

    With speculation a step yields several tokens, so those cells have none either.
    """
    if plan["hardware"].get("kind") != "gpu":
        return {}
    return {
        (cell["engine"], cell["cell"]): least
        for cell in plan["cells"].values()
        if (least := (cell.get("predicted") or {}).get("least_e2e_s")) is not None
        and not plan["engines"][cell["engine"]]["config"].get("draft_tokens")
    }


def canaries(plan: Plan, results: Path) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """Results of the canaries, from e2e_s: the drift per engine, and the gap per canary cell.

    Drift: (max - min) / median of a session's canary runs, the median of the cell's own repeats among them; of several
    sessions the largest.  Gap: median of the canary runs / that of the cell's own repeats in the same session, minus 1.
    """
    drift: dict[str, float] = {}
    gaps: dict[tuple[str, str], float] = {}
    for job, spec in plan["jobs"].items():
        finished = manifest.read(results, job)
        found = list(finished["canary"]) if finished else []
        kept = (run for engine in spec["engines"] for run in manifest.canary(results, engine))
        found += [run for run in kept if run not in found]
        runs: dict[tuple[str, str, Any], list[float]] = {}
        for run in found:
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
    except (OSError, KeyError, TypeError, records.RecordDamaged, StorageError):  # reported when the cell's row is built
        return None
    return statistics.median(times) if times else None
