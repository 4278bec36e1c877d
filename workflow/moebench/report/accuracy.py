"""Accuracy in the report: a table per block of an experiment, chance level beside it.  No HTML here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from moebench import columns
from moebench.config import EngineKnobs
from moebench.figures import caption
from moebench.formats.plan import Plan
from moebench.tables.accuracy import MEAN

_NEAR = 3.0
"""Number of standard errors of guessing, sqrt(c (1 - c) / n), within which a value is at chance level c."""
_UNITS = {"share": "", "points": "points", "perplexity": "perplexity", "bits/byte": "bits/byte"}
_BESIDE = ("model", "weights")


@dataclass
class Table:
    """Results of a block: a row per engine configuration and top-k, a column per task."""

    heads: list[tuple[str, str]]
    """Task and what is below its name."""
    chance: list[str]
    rows: list[tuple[str, list[tuple[str, str, str]]]] = field(default_factory=list)
    """Name; value, its standard error, and the status if there is none."""
    notes: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)


def tables(plan: Plan, frame: pd.DataFrame, experiment: str) -> list[Table]:
    """The tables of an experiment from the table ``accuracy``; none if it has no accuracy tasks."""
    mine = frame[(frame["experiment"] == experiment) & (frame["main"].fillna(False) | (frame["task"] == MEAN))]
    return [_table(plan, rows.reset_index(drop=True)) for _, rows in mine.groupby("block", sort=True)]


def _table(plan: Plan, frame: pd.DataFrame) -> Table:
    tasks = [t for t in dict.fromkeys(frame["task"]) if t != MEAN] + [MEAN] * bool((frame["task"] == MEAN).any())
    first = {task: frame[frame["task"] == task].sort_values("value", na_position="last").iloc[0] for task in tasks}
    made = Table(
        [(first[t]["task_title"], _below(first[t])) for t in tasks],
        ["" if pd.isna(first[t]["chance"]) else f"{first[t]['chance']:.3f}" for t in tasks],
    )
    knobs = [k for k in [*EngineKnobs.model_fields, "top_k"] if k not in _BESIDE]
    values = frame.groupby("model")[knobs].nunique(dropna=False).max()
    differing = [k for k in knobs if values[k] > 1]
    for _, rows in frame.groupby(["engine", "top_k"], sort=False, dropna=False):
        by_task = {row["task"]: row for _, row in rows.iterrows()}
        one = rows.iloc[0]
        said = [f"{columns.column(k).heading.lower()} {one[k]}" for k in differing if not pd.isna(one[k])]
        made.rows.append((", ".join([one["model_title"], *said]), [_cell(by_task.get(t)) for t in tasks]))
    bad = frame[~frame["status"].isin(["ok", "not measured"])]
    for _, row in bad.iterrows():
        name = f"{row['engine']}/{row['cell']}"
        made.failed.append({k: str(row[k]) for k in ("status", "reason", "rerun")} | {"name": name})
    made.notes = [f"{caption.WRONG_TOKENS}."] * caption.tokens_are_wrong(plan, frame) + _notes(frame)
    return made


def _below(row: Any) -> str:
    parts = [str(row["metric"]) if row["task"] != MEAN else "", _UNITS.get(row["unit"], "")]
    parts += ["" if pd.isna(row["n"]) else f"{row['n']} {'tasks' if row['task'] == MEAN else 'questions'}"]
    parts += [f"{row['n_shot']}-shot" if not pd.isna(row["n_shot"]) else ""]
    return ", ".join(filter(None, parts))


def _cell(row: Any) -> tuple[str, str, str]:
    if row is None:
        return "", "", ""
    if row["status"] != "ok":
        return "", "", str(row["status"])
    value = f"{row['value']:.3f}" if row["unit"] == "share" else f"{row['value']:.4g}"
    return value, "" if pd.isna(row["stderr"]) else f"{row['stderr']:.3f}", ""


def _notes(frame: pd.DataFrame) -> list[str]:
    """Notes that a reader must know before comparing."""
    notes = []
    harness = ", ".join(sorted({f"{h} {v}" for h, v in zip(frame["harness"], frame["harness_version"], strict=True)}))
    judge = (
        "no judge: the harness compares" if frame["judge"].isna().all() else ", ".join(frame["judge"].dropna().unique())
    )
    notes.append(f"Run and scored by {harness} with its own task definitions ({judge}). Standard errors in brackets.")
    if (frame["data_source"] == "fixtures").any():
        notes.append(
            "The questions are small sets in the published format, written by the project. They are not the "
            "published data sets, and no value here is a result on those."
        )
    random = frame["weights"].isin(["random_init", "dummy"])
    if random.any():
        asked = frame[random & (frame["status"] == "ok") & frame["chance"].notna() & (frame["task"] != MEAN)]
        spread = (asked["chance"] * (1 - asked["chance"]) / asked["n"].astype(float)) ** 0.5  # of guesses
        near = (asked["value"] - asked["chance"]).abs() <= _NEAR * spread
        level = "at or below chance level" if (frame["harness"] == "vlmeval").any() else "at chance level"
        notes.append(
            f"Models with random weights are {level}, and differences between them are noise."
            + (
                f" {int(near.sum())} of {len(asked)} values are within {_NEAR:g} standard errors of guessing."
                if len(asked)
                else ""
            )
        )
    if (frame["harness"] == "vlmeval").any():
        notes.append(
            "An answer that names none of the choices counts as wrong, not as a guess, so accuracy may be below "
            "chance level. "
            "Chance level: the mean of 1 / choices over the questions, and for MME 75 of the 200 points of each kind. "
            "MME's value is its share of 2800 points."
        )
    notes += [f"Mean: {text}." for text in dict.fromkeys(frame["made_of"].dropna())]
    if (cut := int(frame["truncated_prompts"].fillna(0).max() or 0)) > 0:
        notes.append(f"The harness truncated up to {cut} prompts of a task to the engine's maximum sequence length.")
    compared = frame[frame["arm_of"].notna()]
    for _, row in compared.iterrows():
        if pd.isna(row["arm_differs"]):
            verdict = "cannot be compared: a sample log is missing or altered"
        else:
            verdict = f"differs by {row['arm_difference']:+.4f}, " + (
                "which exceeds noise (question by question, at 1% for all such comparisons together): one of them is "
                "probably wrong"
                if row["arm_differs"]
                else "within noise"
            )
        notes.append(f"{row['task_title']} on {row['engine']} against {row['arm_of']}: {verdict}.")
    return notes
