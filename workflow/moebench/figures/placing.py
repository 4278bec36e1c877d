"""The figures of an experiment of a plan, placed on their axes."""

from __future__ import annotations

from collections.abc import Iterator

from moebench.config import COMPUTED_KINDS, Plot, parse
from moebench.figures import predictions
from moebench.figures.kinds import KINDS, PlacedFigure, Predictions, Source
from moebench.formats.plan import Plan


def plots(plan: Plan, experiment: str) -> list[Plot]:
    """The figures of an experiment of a plan."""
    where = f"plan of {plan['study']}: {experiment}"
    return [parse(Plot, figure, where) for figure in plan["experiments"][experiment].get("figures", ())]


def placed(source: Source, computed: bool | None = None) -> Iterator[PlacedFigure]:
    """The figures of an experiment, those of predictions last.  ``computed``: only those that need no measurement, or
    only the others.

    Raises ConfigError for a figure that the experiment's rows cannot be placed on, StorageError for missing tables.
    """
    where = f"{source.where}: figure"
    for plot in plots(source.plan, source.experiment):
        if computed in (None, plot.kind in COMPUTED_KINDS):
            yield KINDS[plot.kind].place(plot, source, f"{where} {plot.id}")
    for plot in predictions.plots(source.plan, source.experiment) if computed is not False else ():
        yield Predictions.place(plot, source, f"{where} {plot.id}")
