"""Convert the output of a VLMEvalKit run to rows of a record, and check it first.

The harness exits with 0 even after errors, so nothing is trusted: every row must have an answer, and the table of
scores is recomputed from the rows.  Standard library only.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Any, TypedDict

from moebench.accuracy.lm_eval_results import Unsound
from moebench.formats.plan import Task
from moebench.formats.record import Result

UNANSWERED = "Failed to obtain answer"
"""What the harness writes as the answer where it got none; also for an empty one."""
PERCEPTION = ("OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene")
REASONING = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
MOST_POINTS = 200.0
"""MME: of a kind of questions; 100 for right answers, 100 for images with both answers right."""
ANLS_THRESHOLD = 0.5
"""Answers less alike than this count as 0 (Biten et al. 2019, arXiv 1905.13648)."""
_NEAR = 1e-6

Row = dict[str, Any]
"""A row of the harness's files, or of the sample log."""


class Value(TypedDict):
    """A metric's value, standard error, number of questions and chance level (None if a question has no choices)."""

    value: float
    stderr: float | None
    n: int
    chance: float | None


def rows_of(found: Row, task: Task, limit: int | None) -> tuple[list[Result], list[Row]]:
    """Rows of the record (one per metric) and of the sample log (one per question, with its score, 0 to 1).

    Raises Unsound for a failed run, rows without an answer, missing metrics, or a table of scores that does not follow
    from the rows.
    """
    name = task["task"]
    _check_status(found["status"], task)
    asked = found["asked"] or []
    wanted = {str(row["index"]) for row in (asked[:limit] if limit else asked)}
    _check_answers(found["predictions"], wanted, name)
    scored = found["scored"]
    if scored is None or not found["table"]:
        raise Unsound(f"VLMEvalKit wrote no {'scores of rows' if scored is None else 'table of scores'} for {name}")
    if {str(row["index"]) for row in scored} != wanted:
        raise Unsound(f"VLMEvalKit scored {len(scored)} of the {len(wanted)} rows of {name}")
    samples = [_sample(row, task) for row in scored]
    make = _mme if task["scoring"] == "mme" else _mean
    values = make(samples, found["table"], task)
    rows: list[Result] = []
    for metric in task["metrics"]:
        if metric["name"] not in values:
            raise Unsound(f"VLMEvalKit gave no {metric['name']} for {name}")
        one = values[metric["name"]]
        if not math.isfinite(one["value"]):
            raise Unsound(f"VLMEvalKit gave {one['value']!r} for {name} {metric['name']}")
        rows.append(
            {
                "task": name,
                "group": None,
                "metric": metric["name"],
                "filter": "none",
                "n_shot": 0,
                "task_version": f"tsv {task['data']['revision'][:12]}",
                **one,
            }
        )
    return rows, samples


def _check_status(status: Row, task: Task) -> None:
    name = task["task"]
    if status.get("error_message"):
        raise Unsound(f"VLMEvalKit failed on {name}: {str(status['error_message'])[:200]}")
    if status.get("skip_reason"):
        raise Unsound(f"VLMEvalKit skipped {name}: {status['skip_reason']}")
    if status.get("status") != "done":
        raise Unsound(f"VLMEvalKit did not end {name}: its status is {status.get('status')!r}")
    if status.get("judge_model") != task["judge"]:
        raise Unsound(f"VLMEvalKit judged {name} by {status.get('judge_model')!r}, not by {task['judge']!r}")
    if not status.get("metrics"):
        raise Unsound(f"VLMEvalKit gave no metrics for {name}")


def _check_answers(predictions: list[Row] | None, wanted: set[str], name: str) -> None:
    if predictions is None:
        raise Unsound(f"VLMEvalKit wrote no answers for {name}")
    got = [str(row["index"]) for row in predictions]
    if len(got) != len(set(got)) or set(got) != wanted:
        raise Unsound(f"VLMEvalKit has answers to {len(got)} rows of {name}, which has {len(wanted)}")
    empty = [r["index"] for r in predictions if UNANSWERED in str(r["prediction"])]
    if empty:
        raise Unsound(f"{len(empty)} of the {len(wanted)} rows of {name} have no answer, first: row {empty[0]}")


def _sample(row: Row, task: Task) -> Row:
    """A row of the sample log: question, answer, score (0 to 1) and number of choices."""
    kept = ("question", "answer", "prediction", "category", "split", "image_path")
    choices = sum(row.get(letter) is not None for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    if task["scoring"] == "choices":
        score = float(row["hit"])
    elif task["scoring"] == "mme":
        score = float(row["score"])
    else:
        matches = row["eval_match"]
        matches = ast.literal_eval(matches) if isinstance(matches, str) else matches
        score = sum(matches) / len(matches) if task["scoring"] == "vqa" else _anls(matches)
    # An open question is turned into "its answer, or another": no choice, and none is put at chance.
    choices = choices if choices > 2 or row.get("B") != "Other Answers" else 0
    about = {k: row[k] for k in kept if row.get(k) is not None}
    return {"task": task["task"], "doc_id": row["index"], "choices": choices, task["metrics"][0]["name"]: score} | about


def _anls(distances: list[float]) -> float:
    nearest = 1 - min(distances)
    return nearest if nearest >= ANLS_THRESHOLD else 0.0


def _error(values: Sequence[float]) -> float | None:
    """Standard error of the mean, sqrt(sum (x - m)^2 / (n (n - 1))); for 0 and 1 that is sqrt(p (1 - p) / (n - 1))."""
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (n * (n - 1)))


def _mean(samples: list[Row], table: list[Row], task: Task) -> dict[str, Value]:
    """The mean over the rows of the task's split, and its chance level if all its rows have choices."""
    metric, split = task["metrics"][0]["name"], task["split"]
    mine = [s for s in samples if split is None or s.get("split") == split]
    if not mine:
        raise Unsound(f"{task['task']} has no rows of split {split!r}")
    values = [s[metric] for s in mine]
    value = sum(values) / len(values)
    _check_table(value, table, task)
    choices = [s["choices"] for s in mine]
    chance = sum(1 / c if c else 0.0 for c in choices) / len(mine) if any(choices) else None
    return {metric: {"value": value, "stderr": _error(values), "n": len(mine), "chance": chance}}


def _check_table(value: float, table: list[Row], task: Task) -> None:
    """Check the harness's own number against ours; it is a share for multiple choice and a percentage otherwise."""
    scale, split = (1.0 if task["scoring"] == "choices" else 100.0), task["split"]
    lines = [row for row in table if split is None or row.get("split") == split]
    if len(lines) != 1 or not isinstance(lines[0].get("Overall"), (int, float)):
        raise Unsound(
            f"VLMEvalKit's table of {task['task']} has {len(lines)} lines where one with an Overall is expected"
        )
    theirs = lines[0]["Overall"] / scale
    if abs(theirs - value) > _NEAR:
        raise Unsound(f"VLMEvalKit gave {theirs} for {task['task']}, its rows have a mean of {value}")


def _mme(samples: list[Row], table: list[Row], task: Task) -> dict[str, Value]:
    """MME's points: the sum over kinds of 100 x the share of right answers + 100 x the share of images with both right.

    For the standard error, an image gives 100 x (mean of its two answers + both right), images of a kind are
    independent, and the variances of kinds add up.
    """
    metric, points = task["metrics"][0]["name"], {}
    for kind in dict.fromkeys(s["category"] for s in samples):
        images: dict[str, list[float]] = {}
        for s in samples:
            if s["category"] == kind:
                images.setdefault(s["image_path"], []).append(s[metric])
        if any(len(pair) != 2 for pair in images.values()):
            raise Unsound(f"MME asks two questions of each image; {kind} has others")
        each = [100 * (sum(pair) / 2 + pair[0] * pair[1]) for pair in images.values()]
        points[kind] = sum(each) / len(each), _error(each), 2 * len(each)
        theirs = table[0].get(kind)
        if not isinstance(theirs, (int, float)) or abs(theirs - points[kind][0]) > _NEAR * MOST_POINTS:
            raise Unsound(f"VLMEvalKit gave {theirs} for MME's {kind}, its rows give {points[kind][0]}")
    made: dict[str, Value] = {}
    parts = {"perception": PERCEPTION, "reasoning": REASONING, "points": PERCEPTION + REASONING}
    for name, kinds in parts.items():
        if missing := [k for k in kinds if k not in points]:
            raise Unsound(f"MME's {name} lacks {missing[0]}: too few rows were asked")
        errors = [points[k][1] for k in kinds]
        value, n = sum(points[k][0] for k in kinds), sum(points[k][2] for k in kinds)
        known = [e for e in errors if e is not None]
        error = math.sqrt(sum(e * e for e in known)) if len(known) == len(errors) else None
        made[name] = {"value": value, "stderr": error, "n": n, "chance": None}
    total, most = made["points"], MOST_POINTS * len(PERCEPTION + REASONING)
    error = total["stderr"]
    # Guessing gives 50 points for answers and 25 for images, of 200 of each kind.
    made["share_of_points"] = {
        "value": total["value"] / most,
        "stderr": None if error is None else error / most,
        "n": total["n"],
        "chance": 75 / MOST_POINTS,
    }
    return made
