"""Accuracy in figures: which cells have a value, and what a reader must know about it."""

from __future__ import annotations

import pandas as pd

from moebench.config import Plot
from moebench.errors import ConfigError
from moebench.tables.join import AMBIGUOUS

ACCURACY, PERPLEXITY = "accuracy", "perplexity"
ANSWERS = (ACCURACY, PERPLEXITY)


def uses(plot: Plot) -> bool:
    """Whether a figure shows accuracy or perplexity."""
    return not {*ANSWERS}.isdisjoint((plot.x, *plot.y))


def printed(plot: Plot) -> bool:
    """Whether a figure prints one of them beside its points."""
    return not {*ANSWERS}.isdisjoint(plot.beside)


def answered(plot: Plot, frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows whose engine configuration has accuracy tasks; all if the figure shows no accuracy.

    Raises ConfigError if none was requested, or an engine configuration has two values.
    """
    if not uses(plot):
        return frame
    rows = frame[frame["accuracy_status"].notna()]
    if rows.empty:
        raise ConfigError(f"{where}: no cell of the experiment has an engine configuration with accuracy tasks")
    twice = rows[rows["accuracy_status"] == AMBIGUOUS]
    if len(twice):
        raise ConfigError(
            f"{where}: the accuracy of {twice['engine'].iloc[0]} is not one number: several blocks measure it, or "
            "several tasks without a mean; put them into separate experiments"
        )
    return rows
