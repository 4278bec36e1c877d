"""Turns accuracy records into rows of the table ``accuracy``: one per task (or subtask), metric and filter, and
means."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from moebench import accuracy, text
from moebench.columns import Row
from moebench.formats.plan import AccuracyCell, AccuracyPart, AccuracyRow, Plan, Task, TaskMetricDict
from moebench.formats.record import AccuracyRecord, Result
from moebench.measure import records
from moebench.tables import cell_rows, parity

MEAN = "mean"
"""Name of the task in rows with means over tasks."""


def rows(plan: Plan, results: Path, results_name: str, profile: str) -> list[Row]:
    """All rows of a plan's accuracy cells; a cell that is not ok is one row without a value.

    ``results_name`` is the results folder as the rerun commands name it.  Raises StorageError for a record of a newer
    schema.
    """
    made: list[Row] = []
    for harness in accuracy.harnesses(plan):
        part, folder = plan["accuracy"][harness], accuracy.folder(results, harness)
        found = {key: _record(folder, cell) for key, cell in part["cells"].items()}
        compared = parity.compare(part, found, folder)
        rerun = f"{results_name}/accuracy/{harness}"
        for name, experiment in plan["experiments"].items():
            asked = [r for r in experiment.get("accuracy") or () if r["harness"] == harness]
            for row in asked:
                key = f"{row['engine']}/{row['cell']}"
                shared = _shared(plan, part, part["cells"][key], name, row["block"])
                again = {"rerun": text.rerun_command(key, rerun, profile, plan["study"])}
                made += [
                    shared | again | one for one in _of_cell(part["cells"][key], found[key], compared.get(key, {}))
                ]
            made += _means(asked, made, name, harness, part["cells"])
    return made + [row for name in plan["experiments"] for row in _unsupported(plan, name)]


def _unsupported(plan: Plan, experiment: str) -> Iterator[Row]:
    """Tasks of an experiment on engine configurations that cannot run."""
    for row in plan["experiments"][experiment].get("unsupported_accuracy", ()):
        first = row["task"]["metrics"][0]
        config = row["config"]
        yield cell_rows.knobs(config, row["model"], {"top_k": row["top_k"]}) | {
            "study": plan["study"],
            "experiment": experiment,
            "block": row["block"],
            "engine": row["engine"],
            "cell": row["cell"],
            "model_title": row["model"]["title"],
            "revision": row["model"]["revision"],
            "hardware": plan["hardware"]["name"],
            "engine_name": row["runtime"]["name"],
            "engine_version": row["runtime"]["version"],
            "gpus": config["tp"] * config["pp"] * config["dp"],
            **_asked(row["task"], row["limit"]),
            "status": cell_rows.UNSUPPORTED,
            "reason": row["reason"],
            "metric": first["name"],
            "filter": first["filter"],
            "main": True,
            "rerun": "",
        }


def planned(plan: Plan, experiment: str) -> list[Row]:
    """A row for each engine configuration that an experiment asks of, without a value, before anything is measured."""
    asked = plan["experiments"][experiment].get("accuracy") or ()
    shared: Row = {"experiment": experiment, "main": True, "status": cell_rows.NOT_MEASURED}
    made = {(r["block"], r["engine"], r["top_k"]): {k: r[k] for k in ("block", "engine", "top_k")} for r in asked}
    rows = [shared | {"task": "planned"} | row for row in made.values()]
    return rows + list(_unsupported(plan, experiment))


def unmeasured(plan: Plan) -> list[Row]:
    """The row of every accuracy cell of a plan, by experiment, as if nothing were measured; reads no files."""
    made: list[Row] = []
    for harness, part in plan["accuracy"].items():
        for name, experiment in plan["experiments"].items():
            for row in (r for r in experiment.get("accuracy") or () if r["harness"] == harness):
                cell = part["cells"][f"{row['engine']}/{row['cell']}"]
                shared = _shared(plan, part, cell, name, row["block"])
                made += [shared | one for one in _of_cell(cell, _without(cell_rows.NOT_MEASURED), {})]
    return made


def _without(status: str, reason: str = "") -> AccuracyRecord:
    """Substitute for a missing record."""
    return cast(AccuracyRecord, {"status": status, "reason": reason})


def _record(folder: Path, cell: AccuracyCell) -> AccuracyRecord:
    """A cell's record, or a substitute if it is missing or damaged."""
    path = records.cell_path(folder, cell["engine"], cell["cell"])
    try:
        return cast(AccuracyRecord, records.load(path))
    except FileNotFoundError:
        return _without(cell_rows.NOT_MEASURED)
    except records.RecordDamaged as error:
        return _without(cell_rows.DAMAGED, f"the record cannot be used: {error}")


def _shared(plan: Plan, part: AccuracyPart, cell: AccuracyCell, experiment: str, block: int) -> Row:
    """Columns known from the plan."""
    engine, task = part["engines"][cell["engine"]], cell["task"]
    config = engine["config"]
    return cell_rows.knobs(config, engine["model"], {"top_k": cell["top_k"]}) | {
        "study": plan["study"],
        "experiment": experiment,
        "block": block,
        "engine": cell["engine"],
        "cell": cell["cell"],
        "model_title": engine["model"]["title"],
        "revision": engine["model"]["revision"],
        "hardware": plan["hardware"]["name"],
        "engine_name": engine["runtime"]["name"],
        "engine_version": engine["runtime"]["version"],
        "gpus": engine["gpus"],
        **_asked(task, cell["limit"]),
    }


def _asked(task: Task, limit: int | None) -> Row:
    """Columns about the task."""
    return {
        "harness": task["harness"],
        "harness_version": task["harness_version"],
        "task": task["name"],
        "task_title": task["title"],
        "limit": limit,
        "data_source": task["data"]["source"],
        "data_revision": task["data"]["revision"],
    }


def _of_cell(cell: AccuracyCell, record: AccuracyRecord, compared: Row) -> Iterator[Row]:
    """A record's own columns, one row per result."""
    origin, checks = record.get("provenance", {}), record.get("checks", {})
    evidence, log = record.get("evidence") or (), record.get("samples")
    common: Row = {
        "status": record["status"],
        "reason": record["reason"] or None,
        "evidence": "\n".join(evidence) or None,
        "attempt": record.get("attempt"),
        "host": origin.get("host"),
        "slurm_job_id": (origin.get("slurm") or {}).get("SLURM_JOB_ID"),
        "git_commit": origin.get("git_commit"),
        "git_dirty": origin.get("git_dirty"),
        "lock_sha256": origin.get("lock_sha256"),
        "versions": json.dumps(origin["versions"], sort_keys=True) if origin.get("versions") else None,
        "variables": json.dumps(origin["variables"], sort_keys=True) if "variables" in origin else None,
        "started_at": record.get("started_at"),
        "truncated_prompts": checks.get("truncated_prompts"),
        "samples_sha256": log and log["sha256"],
    }
    task = cell["task"]
    known = {(m["name"], m["filter"]): m for m in task["metrics"]}
    first = task["metrics"][0]["name"], task["metrics"][0]["filter"]
    if record["status"] != "ok":
        yield common | {"metric": first[0], "filter": first[1], "main": True}
        return
    for result in record["results"]:
        metric = known.get((result["metric"], result["filter"]))
        if metric is None:
            continue
        main = result["task"] == task["task"] and (result["metric"], result["filter"]) == first
        yield common | {
            "subtask": result["task"],
            "group": result["group"],
            "metric": result["metric"],
            "filter": result["filter"],
            "main": main,
            "value": result["value"],
            "unit": metric["unit"],
            "stderr": result["stderr"],
            "n": result["n"],
            "n_shot": result["n_shot"],
            "task_version": result["task_version"],
            "higher_is_better": metric["higher_is_better"],
            "chance": _chance(task, metric, result),
            "judge": task.get("judge"),
            **(compared if main else {}),
        }


def _chance(task: Task, metric: TaskMetricDict, result: Result) -> float | None:
    """Chance level, from the questions or from the task's number of choices."""
    if metric["unit"] != "share":
        return None
    if "chance" in result:
        return None if result["chance"] is None else float(result["chance"])
    return 1 / task["choices"] if task["choices"] else None


def _means(
    asked: list[AccuracyRow], made: list[Row], experiment: str, harness: str, cells: dict[str, AccuracyCell]
) -> list[Row]:
    """The mean over the tasks of a block, per engine configuration and top-k, where all of them have a value.

    Every task counts the same; the standard error is that of a mean of independent values, sqrt(sum s^2) / n.
    """
    counts = {key: cell["task"]["in_mean"] for key, cell in cells.items()}
    mine = {(r["block"], r["engine"], r["cell"]): r for r in made
            if r["experiment"] == experiment and r["harness"] == harness and r.get("main")}  # fmt: skip
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in asked:
        if not counts[f"{row['engine']}/{row['cell']}"]:
            continue
        one = mine[row["block"], row["engine"], row["cell"]]
        groups.setdefault((row["block"], row["engine"], one["top_k"]), []).append(one)
    found = []
    for members in groups.values():
        tasks = members
        if len(tasks) < 2 or any(one["status"] != "ok" for one in tasks):
            continue
        n = len(tasks)
        errors, chances = [one["stderr"] for one in tasks], [one["chance"] for one in tasks]
        words = ", ".join(f"{one['task']} {one['metric']}" for one in tasks)
        kept = {k: v for k, v in tasks[0].items() if k not in _OF_ONE_TASK}
        found.append(
            kept
            | {
                "task": MEAN,
                "task_title": f"Mean of {n} tasks",
                "subtask": MEAN,
                "metric": "mean",
                "filter": "none",
                "main": False,
                "value": sum(one["value"] for one in tasks) / n,
                "unit": "share",
                "stderr": None if None in errors else math.sqrt(sum(e * e for e in errors)) / n,
                "n": n,
                "higher_is_better": True,
                "chance": None if None in chances else sum(chances) / n,
                "made_of": f"{n} tasks, all counting the same: {words}",
            }
        )
    return found


_OF_ONE_TASK = {
    "cell", "group", "n_shot", "task_version", "truncated_prompts", "data_source", "data_revision", "samples_sha256",
    "arm_of", "arm_difference", "arm_differs", "rerun", "started_at", "attempt", "slurm_job_id", "evidence",
}  # fmt: skip
