"""Convert lm-eval's results to rows of a record, and check them first.  Standard library only."""

from __future__ import annotations

import math
from typing import Any

from moebench.formats import Json
from moebench.formats.plan import Task
from moebench.formats.record import Result


class Unsound(Exception):
    """The harness succeeded, but its results fail a check; ``str()`` gives the reason."""


def rows_of(found: Json, task: Task) -> list[Result]:
    """lm-eval's results as rows: one per task (or subtask or group), metric and filter.

    Raises Unsound for a task without a result, a metric that is missing or not a number, unanswered questions, or a
    group whose value is not the mean of its tasks.
    """
    rows: list[Result] = []
    for name, values in {**found["results"], **(found.get("groups") or {})}.items():
        group = next((g for g, members in (found.get("group_subtasks") or {}).items() if name in members), None)
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr"):
                continue
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise Unsound(f"lm-eval gave {value!r} for {name} {key}")
            stderr = values.get(f"{metric}_stderr,{kind}")  # a number, or "N/A"
            rows.append(
                {
                    "task": name,
                    "group": group,
                    "metric": metric,
                    "filter": kind,
                    "value": float(value),
                    "stderr": float(stderr) if isinstance(stderr, (int, float)) else None,
                    "n": count_of(found, name),
                    "n_shot": found["n-shot"].get(leaves(found, name)[0]),
                    "task_version": None if found["versions"].get(name) is None else str(found["versions"][name]),
                }
            )
    by_key = {(row["task"], row["metric"], row["filter"]): row for row in rows}
    for metric in task["metrics"]:
        if (task["task"], metric["name"], metric["filter"]) not in by_key:
            raise Unsound(f"lm-eval gave no {metric['name']} ({metric['filter']}) for {task['task']}")
    for row in rows:
        if not row["n"]:
            raise Unsound(f"lm-eval asked no question of {row['task']}")
        _check_group(found, by_key, row)
    _check_answers(found)
    return rows


def leaves(found: Json, name: str) -> list[str]:
    """The tasks of a group, including those of nested groups; for a task, the task itself."""
    members = (found.get("group_subtasks") or {}).get(name)
    return [leaf for member in members for leaf in leaves(found, member)] if members else [name]


def _check_group(found: Json, rows: dict[tuple[str, str, str], Result], row: Result) -> None:
    """Check that a group's value is the mean of its tasks' values, weighted by their numbers of questions."""
    tasks = leaves(found, row["task"])
    if tasks == [row["task"]]:
        return
    members = [rows[task, row["metric"], row["filter"]] for task in tasks]
    mean = sum(m["value"] * m["n"] for m in members) / sum(m["n"] for m in members)
    if abs(mean - row["value"]) > 1e-9:
        raise Unsound(
            f"lm-eval gave {row['value']} for group {row['task']}, its {len(tasks)} tasks have a mean of {mean}"
        )


def _check_answers(found: Json) -> None:
    """Check that every question is in the log, with finite log-likelihoods."""
    for name, samples in found["samples"].items():
        asked = {sample["doc_id"] for sample in samples}
        if len(asked) != count_of(found, name):
            raise Unsound(f"lm-eval's log has {len(asked)} of the {count_of(found, name)} questions of {name}")
        for sample in samples:
            if not _answered(sample["resps"]):
                raise Unsound(f"question {sample['doc_id']} of {name} has no answer: {str(sample['resps'])[:80]}")


def _answered(answer: Any) -> bool:
    if isinstance(answer, (list, tuple)):
        return bool(answer) and all(_answered(part) for part in answer)
    return answer is not None and not (isinstance(answer, float) and not math.isfinite(answer))


def count_of(found: Json, name: str) -> int:
    """Number of questions asked in a task, or in all tasks of a group."""
    return sum(int((found["n-samples"].get(task) or {"effective": 0})["effective"]) for task in leaves(found, name))


def sample_rows(found: Json) -> list[Json]:
    """Every question with its prompt and answer, as plain data."""
    rows = []
    for name, samples in sorted(found["samples"].items()):
        for sample in samples:
            kept = {k: v for k, v in sample.items() if k not in ("doc_hash", "prompt_hash", "target_hash")}
            rows.append({"task": name} | kept)
    return rows
