"""Accuracy in figures: which cells have one, and what a reader must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from moebench.accuracy.join import AMBIGUOUS
from moebench.config import Plot
from moebench.errors import ConfigError
from moebench.figures import style

if TYPE_CHECKING:
    from moebench.figures.data import Data

ACCURACY = "accuracy"


def uses(plot: Plot) -> bool:
    """Whether a figure shows accuracy."""
    return ACCURACY in (plot.x, *plot.y)


def answered(plot: Plot, frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows whose engine configuration was asked for accuracy, all where the figure shows none.

    Raises ConfigError where none was asked, or an engine configuration has two values.
    """
    if not uses(plot):
        return frame
    rows = frame[frame["accuracy_status"].notna()]
    if rows.empty:
        raise ConfigError(f"{where}: no cell of the experiment has an engine configuration that accuracy asks for")
    twice = rows[rows["accuracy_status"] == AMBIGUOUS]
    if len(twice):
        raise ConfigError(
            f"{where}: the accuracy of {twice['engine'].iloc[0]} is not one number: several blocks ask it, or several "
            "tasks without a mean; put them into experiments of their own"
        )
    return rows


def words(plan: Mapping[str, Any], placed: Data) -> str:
    """What the caption of a figure with accuracy adds; empty for one without."""
    if not uses(placed.plot):
        return ""
    rows = placed.rows
    good = rows[rows["accuracy_status"] == "ok"]
    if good.empty:
        return "No accuracy is measured yet."
    tasks = _tasks(plan, rows["experiment"].iloc[0], set(good["engine"]))
    parts = [f"Accuracy: {'; '.join(_mean(of) for of in dict.fromkeys(good['accuracy_of']))}."]
    parts.append("Bars of accuracy: 1.96 standard errors over the questions, tasks being independent.")
    if placed.plot.kind == "pareto":
        parts.append("Ringed: the points that no other one beats (Pareto frontier, dashed).")
    chance = sorted(set(good["accuracy_chance"].dropna()))
    if set(good["weights"]) & {"random_init", "dummy"}:
        level = f"at chance level ({chance[0]:.2f})" if chance and chance[-1] - chance[0] < 0.005 else "at chance level"
        if any(task["harness"] == "vlmeval" for task in tasks):  # an answer that names no choice is wrong there
            level = "at or below chance level"
        parts.append(f"Random weights know nothing: accuracy is {level}, differences are noise.")
    if "fixtures" in {task["data"]["source"] for task in tasks}:
        parts.append("Questions are the project's own small sets, not the published ones.")
    lost = [f"{row['model_title']} ({_why(row)})" for _, row in rows.iterrows() if _why(row)]
    if lost:
        parts.append(f"Without a value: {', '.join(dict.fromkeys(lost))}.")
    return " ".join(parts)


def _mean(of: str) -> str:
    """``made_of`` of the table in a few words."""
    head, _, tasks = of.partition(", all counting the same: ")
    names = [task.partition(" ")[0] for task in tasks.split(", ")] if tasks else []
    return f"mean of {head} ({', '.join(names)})" if tasks else of


def _tasks(plan: Mapping[str, Any], experiment: str, engines: set[str]) -> list[dict[str, Any]]:
    """What an experiment asks of some engine configurations."""
    asked = [r for r in plan["experiments"][experiment].get("accuracy") or () if r["engine"] in engines]
    return [plan["accuracy"][r["harness"]]["cells"][f"{r['engine']}/{r['cell']}"]["task"] for r in asked]


def _why(row: Any) -> str:
    if row["status"] != "ok":
        return f"speed: {style.status_style(row['status'])[0]}"
    status = row["accuracy_status"]
    return "" if status == "ok" else f"accuracy: {style.status_style(status)[0]}"
