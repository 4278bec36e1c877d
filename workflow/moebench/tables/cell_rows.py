"""Turns records and plans into rows of the tables.  Plain Python and Arrow, since this runs once per cell, 100,000
times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from moebench import columns
from moebench.architectures import quantization_schemes
from moebench.columns import Row
from moebench.config import KNOBS, EngineKnobs, Hardware
from moebench.cost.predict import kind_of
from moebench.errors import StorageError
from moebench.formats.model import ModelDict
from moebench.formats.plan import OPTIONAL, EngineKnobsDict, Plan, Prediction, ProtocolDict, Workload
from moebench.formats.record import ActivationCounts, Checks, Metrics, Record, Run
from moebench.measure import load_metrics, metrics, records
from moebench.tables import efficiency, evenness, machines, parquet, stats

DAMAGED = "damaged"
UNSUPPORTED = "unsupported"
NOT_MEASURED = "not measured"
"""Status of a planned cell without a record; in no table, given where the plan is joined with measurements."""

ROUTED = ("activation", "activation_layers", "activation_steps")
"""Tables about routed experts."""

_SUMMARISED = [c.name for m in columns.METRICS for c in columns.COLUMNS.values()
               if c.name in (m.name, f"{m.name}_low", f"{m.name}_high")]  # fmt: skip
_STATISTICS = {*_SUMMARISED, "e2e_s_cv", "unstable", "n_repeats", *map(columns.residual, columns.RESIDUALS)}


@dataclass(frozen=True)
class Chunk:
    """A share of the cells for one worker, with data from the plan and the manifests."""

    study: str
    results: Path
    rerun: str
    """The command that measures a cell again, with ``{engine}`` and ``{cell}``."""
    cells: list[tuple[str, str]]
    titles: dict[str, str] = field(default_factory=dict)
    drift: dict[str, float] = field(default_factory=dict)
    gaps: dict[tuple[str, str], float] = field(default_factory=dict)
    """Of canary cells: ``gather.canaries``."""
    least: dict[tuple[str, str], float] = field(default_factory=dict)
    """Lower bound of the run time per cell, s."""
    machine: Hardware | None = None
    """The study's machine type, if it has no data sheet and constants were measured instead: ``kept``."""
    kept: machines.Kept = field(default_factory=dict)
    sheet: Hardware | None = None
    """The study's machine type, if it has a data sheet with peak rates."""
    goals: dict[str, float] = field(default_factory=dict)
    """Latency goals of the study, s by metric."""
    usd_per_hour: float | None = None
    """Price of one device of the study's machine type."""


@dataclass(frozen=True)
class Made:
    """Tables built from a chunk, and its cells by status."""

    tables: dict[str, pa.Table]
    counts: dict[str, int]


# ------------------------------------------------------------------------------------------ knobs


_KNOWN_OF_A_SERVICE = {"model", "engine_name"}
_IF_UNSAID = {name: field.default if name in OPTIONAL else None for name, field in KNOBS.items()}


def knobs(config: EngineKnobsDict, model: ModelDict, workload: Mapping[str, object], hosted: bool = False) -> Row:
    """Every knob column of a cell, resolved: experts and FFN width from the shape that is loaded.

    Of a hosted service only model and workload are known: how it runs them is unknown, and null here.
    """
    experts, known = model["architecture"].get("experts"), {**config, **workload}
    values: Row = {name: known.get(name, default) for name, default in _IF_UNSAID.items()}
    shape = {"experts": experts and experts["count"], "moe_ffn_size": experts and experts["ffn_size"]}
    values |= shape | {"weights": model["weights"]}
    if hosted:
        values |= dict.fromkeys(set(EngineKnobs.model_fields) - _KNOWN_OF_A_SERVICE - set(shape))
    return values


def shared(
    config: EngineKnobsDict,
    model: ModelDict,
    workload: Workload,
    protocol: ProtocolDict,
    predicted: Prediction,
    hosted: bool = False,
) -> Row:
    """Columns common to plan and measurements."""
    experts = model["architecture"].get("experts")
    return (
        knobs(config, model, workload, hosted)
        | {
            "model_title": model["title"],
            "revision": model["revision"],
            "gpus": None if hosted else config["tp"] * config["pp"] * config["dp"],
            **(
                {}
                if hosted
                else quantization_schemes.bits(config["quantization"], config["dtype"], config["kv_cache_dtype"])
            ),
            "protocol_kind": protocol["kind"],
            "predicted_bytes_per_gpu": predicted.get("bytes_per_gpu"),
            "predicted_fits": predicted.get("fits"),
            "predicted_batch_fits": predicted.get("batch_fits"),
        }
        | _predicted(workload, predicted)
        | evenness.uniform_law(experts and experts["count"], workload, config)
    )


def _predicted(work: Workload, predicted: Prediction) -> Row:
    """Predicted metrics; throughputs follow from the predicted end-to-end time."""
    row: Row = {f"predicted_{name}": predicted.get(name) for name in (*columns.PREDICTED, "least_e2e_s")}
    if e2e_s := predicted.get("e2e_s"):
        rates = metrics.throughputs(work["batch"], work["input_tokens"], work["output_tokens"], e2e_s)
        row |= {f"predicted_{name}": value for name, value in rates.items()}
    return row | _calibrated(work, predicted)


def _calibrated(work: Workload, predicted: Prediction) -> Row:
    """Calibrated metrics with their intervals, the kind of prediction, and why it is not calibrated."""
    row: Row = {"predicted_kind": kind_of(predicted), "uncalibrated": predicted.get("uncalibrated")}
    if times := predicted.get("calibrated"):
        row |= {f"calibrated_{name}": value for name, value in times.items() if name != "kind"}
        for end, opposite in (("", ""), ("_low", "_high"), ("_high", "_low")):  # more time, less throughput
            rates = metrics.throughputs(
                work["batch"], work["input_tokens"], work["output_tokens"], row[f"calibrated_e2e_s{opposite}"]
            )
            row |= {f"calibrated_{name}{end}": value for name, value in rates.items()}
    return row


# ------------------------------------------------------------------------------------------- plan


def plan_rows(plan: Plan, experiments: Iterable[str] | None = None) -> Iterator[Row]:
    """One row per experiment and cell, then one per grid point that cannot run; of some experiments or of all."""
    jobs = {engine: job for job, spec in plan["jobs"].items() for engine in spec["engines"]}
    for name in plan["experiments"] if experiments is None else experiments:
        experiment = plan["experiments"][name]
        for row in experiment["rows"]:
            engine, cell = plan["engines"][row["engine"]], plan["cells"][f"{row['engine']}/{row['cell']}"]
            runs_on = engine.get("runtime")  # plans older than services have none
            used, hosted = runs_on or plan["engine"], bool(runs_on and runs_on["hosted"])
            yield (
                shared(
                    engine["config"],
                    engine["model"],
                    cell["workload"],
                    cell["protocol"],
                    cell.get("predicted", {}),
                    hosted,
                )
                | {
                    "study": plan["study"],
                    "hardware": (runs_on and runs_on["hardware"]) or plan["hardware"]["name"],
                    "engine_name": used["name"],
                    "engine_version": used["version"],
                    "experiment": name,
                    "engine": row["engine"],
                    "cell": row["cell"],
                    "job": jobs.get(row["engine"]),
                    "labels": json.dumps(row["labels"], ensure_ascii=False),
                    "derived_from": cell.get("derived_from"),
                }
            )
        yield from (
            row | {"experiment": name, "labels": json.dumps(asked["labels"], ensure_ascii=False)}
            for asked, row in zip(experiment.get("unsupported", ()), unsupported_rows(plan, name), strict=True)
        )


def unsupported_rows(plan: Plan, experiment: str) -> Iterator[Row]:
    """Grid points of an experiment that cannot run, as cells with status and reason."""
    for row in plan["experiments"][experiment].get("unsupported", ()):
        runs_on = row["runtime"]
        yield shared(row["config"], row["model"], row["workload"], row["protocol"], {}, runs_on["hosted"]) | {
            "study": plan["study"],
            "hardware": runs_on["hardware"] or plan["hardware"]["name"],
            "engine_name": runs_on["name"],
            "engine_version": runs_on["version"],
            "engine": row["engine"],
            "cell": row["cell"],
            "status": UNSUPPORTED,
            "reason": row["reason"],
        }


def unsupported(plan: Plan) -> Made:
    """Measurements and failures of all points that cannot run, each once, since they are never measured."""
    rows = {(r["engine"], r["cell"]): r for name in plan["experiments"] for r in unsupported_rows(plan, name)}
    failed = [row | {"evidence": None, "rerun": ""} for row in rows.values()]
    tables = {"measurements": _summarised(list(rows.values()), [[] for _ in rows])}
    return Made(tables | {"failures": table("failures", failed)}, {UNSUPPORTED: len(rows)} if rows else {})


# ---------------------------------------------------------------------------------------- records


def _speculation(checks: Checks) -> dict[str, float | None]:
    """Acceptance over all runs of a cell, whole and by position in the draft; nulls without speculation."""
    proposed, drafts = checks.get("draft_tokens"), checks.get("drafts")
    if not proposed or not drafts:
        return dict.fromkeys(columns.SPECULATION)
    accepted = checks.get("accepted_tokens", 0.0)
    counted: Mapping[str, Any] = checks
    by_position = [counted.get(f"accepted_at_{i}") for i in range(len(columns.ACCEPTANCE_AT))]
    return {
        "draft_acceptance": accepted / proposed,
        "tokens_per_draft_step": 1 + accepted / drafts,
        **{name: None if n is None else n / drafts for name, n in zip(columns.ACCEPTANCE_AT, by_position, strict=True)},
    }


_RESOLVED = ("flashinfer", "fuse_allreduce_rms", "custom_all_reduce", "deep_gemm")
_COUNTED = ("tokens_counted_by", "input_tokens_seen", "output_tokens_seen", "ran_together", "tokens_per_arrival")


def _measurement(record: Record, chunk: Chunk) -> Row:
    """The row of a record, except for its statistics."""
    origin, checks, engine = record["provenance"], record.get("checks") or {}, record["engine"]
    distinct = [d for d in checks.get("distinct_experts") or () if d is not None]
    preemptions, load = checks.get("preemptions"), record.get("load") or {}
    hosted = record["engine_version"].get("hosted", False)
    return shared(
        record["engine_config"],
        record["model"],
        record["workload"],
        record["protocol"],
        record.get("predicted") or {},
        hosted,
    ) | {
        "study": chunk.study,
        "engine": engine,
        "predicted_with": machines.DATA_SHEET if (record.get("predicted") or {}).get("e2e_s") else None,
        "cell": record["cell"],
        "status": record["status"],
        "reason": record["reason"] or None,
        "hardware": record["hardware"],
        "engine_name": record["engine_version"]["name"],
        "engine_version": record["engine_version"]["version"],
        "derived_from": record.get("derived_from"),
        "canary_drift": chunk.drift.get(engine),
        "canary_gap": chunk.gaps.get((engine, record["cell"])),
        "load_s": load.get("load_s"),
        "kv_cache_tokens": load.get("kv_cache_tokens"),
        "untuned_kernel_warning": load.get("untuned_kernel_warning"),
        **{name: load.get(name) for name in _RESOLVED},
        "thrown_away_runs": checks.get("thrown_away_runs"),
        "other_jobs_cpus": checks.get("other_jobs_cpus"),
        "distinct_experts_mean": sum(distinct) / len(distinct) if distinct else None,
        **_speculation(checks),
        **_queue(checks),
        **_searched(record),
        **_active(checks),
        "prefix_cache_hits": checks.get("prefix_cache_hits"),
        "serving": json.dumps(load["serving"], sort_keys=True) if load.get("serving") else None,
        "image_tokens": checks.get("image_tokens"),
        **{name: checks.get(name) for name in _COUNTED},
        "preemptions": None if preemptions is None else int(preemptions),
        "attempt": record.get("attempt"),
        "host": origin.get("host"),
        "threads": origin.get("threads"),
        "slurm_job_id": (origin.get("slurm") or {}).get("SLURM_JOB_ID"),
        "device_name": origin.get("device_name"),
        "git_commit": origin.get("git_commit"),
        "git_dirty": origin.get("git_dirty"),
        "lock_sha256": origin.get("lock_sha256"),
        "prompt_corpus_sha256": origin.get("prompt_corpus_sha256"),
        "versions": json.dumps(origin["versions"], sort_keys=True) if origin.get("versions") else None,
        "variables": json.dumps(origin["variables"], sort_keys=True) if "variables" in origin else None,
        "started_at": record.get("started_at"),
        **efficiency.of_cell(record),
    }


def _at_hand(record: Record, chunk: Chunk) -> Row:
    """Predictions with the constants of the measuring machine, if the plan has none."""
    loaded = record["protocol"]["kind"] == "load"  # how requests queue is not modelled
    found = machines.predicted(record, chunk.machine, chunk.kept) if chunk.machine and not loaded else {}
    if "refused" in found:
        return {"prediction_refused": found["refused"]}
    return _predicted(record["workload"], found) | {"predicted_with": machines.MEASURED} if found else {}


def _over_time(run: Run, record: Record, chunk: Chunk) -> Metrics:
    """For requests over time: the steady part and the share that met the study's goals, as further metrics."""
    if "load" not in run:
        return {}
    part = load_metrics.steady(run["load"], record["workload"].get("concurrency"))
    found = load_metrics.cut(run["load"], part)
    if chunk.goals:
        found |= load_metrics.goodput(run["load"], part, run["metrics"]["samples_per_s"], chunk.goals)
    return found


def _searched(record: Record) -> Row:
    """Result of a search for the highest rate."""
    if not (found := record.get("search")):
        return {}
    kept = found["max_rate"]
    ends = {"max_rate_low": kept, "max_rate_high": found["missed_rate"]} if kept else {}
    return {"max_rate": kept, **ends, "rates_tried": len(found["tries"])}


def _active(checks: Checks) -> Row:
    """Active experts per token, mean over the layers, as counted if a budget allows fewer than top-k."""
    chosen, tokens, used = checks.get("experts_per_token"), checks.get("routed_tokens"), checks.get("used_experts")
    plain = chosen if isinstance(chosen, int | float) else None
    decode = checks.get("active_experts_decode")
    return {
        "active_experts": used / tokens if tokens and used is not None else plain,
        "active_experts_decode": sum(decode) / len(decode) if decode else None if tokens else plain,
    }


def _queue(checks: Checks) -> Row:
    """Requests over time: number that count, arrival rate, and mean waiting time in the server."""
    waited, queued = checks.get("queue_time_s"), checks.get("queued_requests")
    return {
        "steady_requests": checks.get("steady_requests"),
        "arrival_rate": checks.get("arrival_rate"),
        "queue_time_mean_s": waited / queued if queued and waited is not None else None,
    }


def _rates(row: Row, record: Record) -> Iterator[Row]:
    """The rates that a search tried, from the lowest up."""
    known = {name: row[name] for name in ("study", "engine", "cell", "model_title")}
    for tried in sorted(record.get("search", {"tries": []})["tries"], key=lambda t: t["request_rate"]):
        yield (
            known
            | tried["metrics"]
            | {
                "request_rate": tried["request_rate"],
                "arrival_rate": tried["arrival_rate"],
                "rate_verdict": tried["verdict"],
                "reason": tried["why"] or None,
                "goals_met_share": tried["share"],
                "steady_requests": tried["requests"],
                "started_at": tried["started_at"],
            }
        )


def _above_ceiling(row: Row, record: Record, chunk: Chunk) -> Row:
    """Status and reason of a cell that was measured faster than its hardware can be; the record stays as it is.

    Judged with the plan's prediction, not the record's, so that a corrected cost model is enough to correct the status.
    """
    least = chunk.least.get((row["engine"], row["cell"]))
    if least is None or row["status"] != "ok":
        return {}
    fastest = min(run["metrics"]["e2e_s"] for run in record["repeats"])
    if fastest >= machines.CEILING_SLACK * least:
        return {}
    return {
        "status": "invalid",
        "reason": f"measured in {fastest:.4g} s, which is above the roofline ceiling: {row['hardware']} needs at least "
        f"{least:.4g} s; the record is as it was measured",
    }


def _failure(row: Row, evidence: Sequence[str], chunk: Chunk) -> Row:
    return row | {
        "evidence": evidence if isinstance(evidence, str) else "\n".join(str(line) for line in evidence),
        "rerun": chunk.rerun.format(engine=row["engine"], cell=row["cell"]),
    }


def _damaged(engine: str, cell: str, reason: str, chunk: Chunk) -> Row:
    row = {"study": chunk.study, "engine": engine, "cell": cell, "model_title": chunk.titles.get(engine)}
    return _failure(row | {"status": DAMAGED, "reason": f"the record cannot be used: {reason}"}, (), chunk)


def _intact(data: bytes) -> Record | None:
    """The record of bytes that match their own checksum as they stand; None if they need a full check.

    ``records.parse`` rewrites the record to hash it, which takes twice as long as reading it.  The driver's files
    are already in the form that is hashed, except for the checksum itself.
    """
    try:
        record: Record = json.loads(data)
        seal = record["sha256"]
        body = data.rstrip().replace(f'"sha256":"{seal}",'.encode(), b"", 1)
    except (ValueError, KeyError, TypeError):
        return None
    good = hashlib.sha256(body).hexdigest() == seal and record.get("schema") == records.SCHEMA
    return record if good else None


def _load(engine: str, cell: str, chunk: Chunk) -> Record | None:
    """The record of a cell; None without one.  Raises RecordDamaged or StorageError."""
    path = records.cell_path(chunk.results, engine, cell)
    try:
        record = _intact(path.read_bytes()) or records.load(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})") from None
    if (record["engine"], record["cell"]) != (engine, cell):
        raise records.RecordDamaged(f"it is the record of {record['engine']}/{record['cell']}")
    return record


def make(chunk: Chunk) -> Made:
    """Read a chunk's records into measurements, samples and failures.  Raises StorageError for a newer schema."""
    rows: list[Row] = []
    raw: list[list[Metrics]] = []  # the repeats' metrics, per row
    samples: list[Row] = []
    failed: list[Row] = []
    routed: dict[str, list[Row]] = {name: [] for name in ROUTED}
    tried: list[Row] = []
    counts: dict[str, int] = {}
    for engine, cell in chunk.cells:
        try:
            record = _load(engine, cell, chunk)
            if record is None:
                counts[NOT_MEASURED] = counts.get(NOT_MEASURED, 0) + 1
                continue
            row = _measurement(record, chunk)
            row |= _at_hand(record, chunk) | _above_ceiling(row, record, chunk)
            # Numbers of a run that failed its checks stay in the record: nobody averages them by accident.
            runs = [r for r in record["repeats"] if r["metrics"]] if row["status"] == "ok" else []
            if row["status"] == "ok" and "activation" in record:
                row, counted = _routed(row, record["activation"])
                for name in ROUTED:
                    routed[name] += counted[name]
            ideal, row["mbu_experts"] = efficiency.ideal(record, chunk.sheet)
            found = [
                run["metrics"]
                | efficiency.metrics(run, record["workload"], ideal)
                | efficiency.shares(run["metrics"], record, chunk.usd_per_hour)
                | _over_time(run, record, chunk)
                for run in runs
            ]
            taken = [_sample(row, number, run, m) for number, (run, m) in enumerate(zip(runs, found, strict=True))]
        except (records.RecordDamaged, KeyError, TypeError) as error:
            # A sealed record without a field it must have was not written by us: as useless as a truncated one.
            text = str(error) if isinstance(error, records.RecordDamaged) else f"it lacks {error}"
            failed.append(_damaged(engine, cell, text, chunk))
            counts[DAMAGED] = counts.get(DAMAGED, 0) + 1
            continue
        counts[row["status"]] = counts.get(row["status"], 0) + 1
        rows.append(row)
        raw.append(found)
        samples += taken
        tried += _rates(row, record)
        if row["status"] != "ok":
            failed.append(_failure(row, record.get("evidence") or (), chunk))
    tables = {"measurements": _summarised(rows, raw), "samples": table("samples", samples)}
    tables |= {name: table(name, found) for name, found in routed.items()} | {"rates": table("rates", tried)}
    return Made(tables | {"failures": table("failures", failed)}, counts)


def _routed(row: Row, counted: ActivationCounts) -> tuple[Row, dict[str, list[Row]]]:
    """The row of a cell whose routed experts were counted, and the rows of the tables about them."""
    key = {name: row[name] for name in ("study", "engine", "cell", "model_title")}
    found = evenness.tables(key, counted, row["top_k"])
    return row | evenness.summary(counted, row["top_k"]), found


def _sample(row: Row, number: int, run: Run, values: Metrics) -> Row:
    known = {"study": row["study"], "engine": row["engine"], "cell": row["cell"], "repeat": number}
    return known | {"seed": run.get("seed"), "started_at": run.get("started_at")} | values | efficiency.of_run(run)


# ----------------------------------------------------------------------------------------- tables


def table(name: str, rows: Iterable[Row]) -> pa.Table:
    """An Arrow table of rows with the registry's columns; other keys are left out."""
    listed = list(rows)
    return pa.Table.from_pylist(listed, schema=columns.schema(name)) if listed else parquet.empty(name)


def _summarised(rows: list[Row], raw: list[list[Metrics]]) -> pa.Table:
    """Measurements: the rows with median, interval and spread of their repeats, all cells at once."""
    if not rows:
        return parquet.empty("measurements")
    seen = {"e2e_s"}.union(*(run for runs in raw for run in runs))
    names = [name for name in columns.METRIC_NAMES if name in seen]
    out = {name: np.full(len(rows), np.nan) for name in [*_SUMMARISED, "e2e_s_cv"]}
    repeats = np.array([len(runs) for runs in raw], dtype=int)
    for n in sorted(set(repeats.tolist()) - {0}):
        where = np.flatnonzero(repeats == n)
        values = np.array([[[_number(run.get(name)) for run in raw[i]] for name in names] for i in where])
        flat = values.reshape(-1, n)
        middle, (low, high) = stats.median(flat), stats.median_interval(flat)
        for end, result in (("", middle), ("_low", low), ("_high", high)):
            for k, name in enumerate(names):
                out[name + end][where] = result.reshape(len(where), len(names))[:, k]
        out["e2e_s_cv"][where] = stats.cv(values[:, names.index("e2e_s")])
    for name in columns.RESIDUALS:
        foreseen = np.array([_number(row.get(f"predicted_{name}")) for row in rows])
        out[columns.residual(name)] = out[name] / foreseen
    spread = out["e2e_s_cv"]
    made: dict[str, Any] = {name: pa.array(values, from_pandas=True) for name, values in out.items()}
    gap = np.abs([_number(row.get("canary_gap")) for row in rows])
    made["unstable"] = pa.array(np.fmax(spread, gap) > stats.UNSTABLE_CV, mask=np.isnan(spread) & np.isnan(gap))
    made["n_repeats"] = pa.array(repeats, type=pa.int64())
    schema = columns.schema("measurements")
    known = pa.Table.from_pylist(rows, schema=pa.schema([f for f in schema if f.name not in _STATISTICS]))
    arrays = dict(zip(known.column_names, known.columns, strict=True)) | made
    return pa.table([arrays[f.name] for f in schema], schema=schema)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
