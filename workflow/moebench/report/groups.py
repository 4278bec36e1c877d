"""Where each experiment stands in the report: the papers' figures by number, controls, accuracy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Experiment = Mapping[str, Any]
"""An experiment as the page shows it."""
Group = tuple[str, str, list[Experiment]]
"""Anchor, title, experiments."""

NOT_OF_A_PAPER = ("not in", "none")
"""How ``paper`` begins in the file of an experiment that no paper has."""


def groups(experiments: Iterable[Experiment]) -> list[Group]:
    """The sections of experiments in their order; one may be empty."""
    figures, controls, accuracy = [], [], []
    for experiment in experiments:
        if experiment["accuracy"] and not experiment["numbers"]:
            accuracy.append(experiment)
        elif experiment["paper"].startswith(NOT_OF_A_PAPER):
            controls.append(experiment)
        else:
            figures.append(experiment)
    return [
        ("figures", "The papers' figures", sorted(figures, key=_number)),
        ("controls", "Controls and extensions", sorted(controls, key=_number)),
        ("accuracy", "Accuracy", accuracy),
    ]


def _number(experiment: Experiment) -> tuple[bool, int]:
    """Numbers of the first paper's figures in order; the other papers' behind them."""
    found = re.match(r"\d+", experiment["numbers"][0]) if experiment["numbers"] else None
    return (found is None, int(found.group()) if found else 0)
