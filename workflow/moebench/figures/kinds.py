"""Kinds of figures: one class each, which places a figure and gives its caption, drawing, data and alternative text.

The check of a plan, the drawing and the page all read figures through these classes.  Another kind is another class in
:data:`KINDS` and its name in ``config.experiments.Plot.kind``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import pandas as pd
from matplotlib.figure import Figure

from moebench import columns
from moebench.config import Plot
from moebench.figures import caption as captions
from moebench.figures import curves, data, draw, heatmap, layout, parameters, pareto, predictions, unsupported
from moebench.formats.plan import Plan


@dataclass(frozen=True)
class Source:
    """Where the figures of an experiment take their data from."""

    plan: Plan
    experiment: str
    cells: pd.DataFrame
    """Rows of ``data.of_experiment``, or of the plan with the measurements empty."""
    tables: Path | None = None
    """Folder of tables; None before anything is measured, when placing checks the plan only."""
    folder: Path | None = None
    """The configuration that the plan was made from, for errors; None where only the plan is known."""

    @property
    def where(self) -> str:
        """The experiment's file, as errors name it."""
        if self.folder is None:
            return f"plan of {self.plan['study']}: {self.experiment}"
        return f"{self.folder}/experiments/{self.experiment}.yaml"

    def sisters(self) -> list[pd.DataFrame]:
        """All cells of the experiment, and the predictions that are drawn beside them."""
        if self.tables is None or not self.plan["experiments"][self.experiment].get("predicted_figures"):
            return [self.cells]
        return [self.cells, self.predicted]

    @cached_property
    def predicted(self) -> pd.DataFrame:
        """The predictions for the paper's own grid."""
        if self.tables is None:
            return predictions.of_plan(self.plan, self.experiment)
        return predictions.of_experiment(self.tables, self.experiment)


class PlacedFigure(ABC):
    """A figure with its data on its axes."""

    plot: Plot

    @classmethod
    @abstractmethod
    def place(cls, plot: Plot, source: Source, where: str) -> Self:
        """Raises ConfigError, with ``where``, for a figure that the rows cannot be placed on; StorageError for tables
        that lack it.
        """

    @abstractmethod
    def caption(self) -> str:
        """The line under the title: what was measured."""

    @abstractmethod
    def figure(self) -> Figure:
        """Draw it.  Call inside ``style.drawing()``."""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Its data, as they go into the CSV; base units."""

    @abstractmethod
    def alt_text(self) -> str:
        """The figure in words, for those who cannot see it."""

    def cells(self) -> list[str]:
        """``ENGINE/CELL`` of each row of its data, in order: what its marks stand for; none if not cells."""
        return []

    def tells(self) -> list[str]:
        """Columns of its data that say what a mark stands for; none if cells."""
        return []

    @staticmethod
    def cell_metrics(plot: Plot) -> list[str]:
        """Columns that the page's table of cells shows for such a figure."""
        return list(plot.y)


@dataclass(frozen=True)
class Cells(PlacedFigure):
    """Lines or bars of cells."""

    plot: Plot
    plan: Plan
    placed: data.Data

    @classmethod
    def place(cls, plot: Plot, source: Source, where: str) -> Self:
        return cls(plot, source.plan, data.with_known(data.place(plot, source.cells, where), source.sisters()))

    @cached_property
    def shown(self) -> data.Data:
        """The part that is drawn."""
        return draw.drawn_only(unsupported.without(self.placed))

    @cached_property
    def said(self) -> str:
        """The caption, which drawings for two sizes and the words for those who cannot see them need."""
        return captions.of(self.plan, self.placed)

    def caption(self) -> str:
        return self.said

    def figure(self) -> Figure:
        return layout.figure(self.shown, self.caption())

    def table(self) -> pd.DataFrame:
        return data.table(self.placed)

    def alt_text(self) -> str:
        return _in_words(self.plot.kind.capitalize(), self.shown, self.caption())

    def cells(self) -> list[str]:
        rows = self.placed.rows
        return [f"{engine}/{cell}" for engine, cell in zip(rows["engine"], rows["cell"], strict=True)]


@dataclass(frozen=True)
class Pareto(Cells):
    """Speed against accuracy: a point per engine configuration."""

    @classmethod
    def place(cls, plot: Plot, source: Source, where: str) -> Self:
        return cls(plot, source.plan, data.with_known(pareto.place(plot, source.cells, where), source.sisters()))

    def figure(self) -> Figure:
        return layout.figure(self.placed, self.caption())

    def table(self) -> pd.DataFrame:
        return pareto.table(self.placed)

    def alt_text(self) -> str:
        return _in_words("Points", self.placed, self.caption())

    @staticmethod
    def cell_metrics(plot: Plot) -> list[str]:
        return [*plot.y, plot.x]


@dataclass(frozen=True)
class HeatMap(PlacedFigure):
    """A map within each cell, e.g. how often each expert of each layer was chosen."""

    plot: Plot
    plan: Plan
    placed: heatmap.Data

    @classmethod
    def place(cls, plot: Plot, source: Source, where: str) -> Self:
        return cls(plot, source.plan, heatmap.place(plot, source.cells, source.tables, where))

    def caption(self) -> str:
        return captions.caption(self.plan, self.placed.rows, medians=False)

    def figure(self) -> Figure:
        return heatmap.figure(self.placed, self.caption())

    def table(self) -> pd.DataFrame:
        return heatmap.table(self.placed)

    def alt_text(self) -> str:
        return heatmap.described(self.placed, self.caption())

    def tells(self) -> list[str]:
        roles = [getattr(self.plot, role) for role in self.placed.axes]
        return list(dict.fromkeys(["model_title", *roles, self.plot.y[0], self.plot.x]))

    @staticmethod
    def cell_metrics(plot: Plot) -> list[str]:
        return list(plot.beside)


@dataclass(frozen=True)
class Computed(PlacedFigure):
    """Points of the cost model, beside what a paper prints."""

    plot: Plot
    placed: data.Data | None

    @classmethod
    def place(cls, plot: Plot, source: Source, where: str) -> Self:
        if source.tables is None:
            curves.check(plot, where)
            return cls(plot, None)
        return cls(plot, curves.place(plot, curves.of_experiment(source.tables, source.experiment), where))

    @property
    def points(self) -> data.Data:
        """The placed points."""
        assert self.placed is not None, "placed without tables"
        return self.placed

    def caption(self) -> str:
        return curves.caption(self.points)

    def figure(self) -> Figure:
        return layout.figure(self.points, self.caption())

    def table(self) -> pd.DataFrame:
        return curves.table(self.points)

    def alt_text(self) -> str:
        return curves.described(self.points)

    def tells(self) -> list[str]:
        made = self.table()
        apart = [name for name in made if name == "model_title" or made[name].nunique(dropna=False) > 1]
        return [name for name in map(str, apart) if name not in self.plot.y and not name.startswith("layout_")]

    @staticmethod
    def cell_metrics(plot: Plot) -> list[str]:
        return []


@dataclass(frozen=True)
class Parameters(PlacedFigure):
    """Stacked bars of the parameters of models."""

    plot: Plot
    rows: pd.DataFrame

    @classmethod
    def place(cls, plot: Plot, source: Source, where: str) -> Self:
        if source.tables is None:  # the schema has checked that the models exist
            return cls(plot, pd.DataFrame())
        return cls(plot, parameters.place(plot, parameters.of_experiment(source.tables, source.experiment), where))

    def caption(self) -> str:
        return parameters.caption(self.rows)

    def figure(self) -> Figure:
        return parameters.figure(self.plot, self.rows)

    def table(self) -> pd.DataFrame:
        return parameters.table(self.rows)

    def alt_text(self) -> str:
        return parameters.described(self.rows)

    def tells(self) -> list[str]:
        return ["model_title", "component"]


@dataclass(frozen=True)
class Predictions(Cells):
    """Predictions of the cost model for the paper's own grid, in the form of an experiment's figures."""

    @classmethod
    def place(cls, plot: Plot, source: Source, where: str) -> Self:
        return cls(plot, source.plan, data.with_known(data.place(plot, source.predicted, where), source.sisters()))

    @cached_property
    def shown(self) -> data.Data:
        return draw.drawn_only(self.placed)

    @cached_property
    def said(self) -> str:
        return predictions.caption(self.plan, self.placed)

    def cells(self) -> list[str]:
        return []

    def tells(self) -> list[str]:
        return [getattr(self.plot, role) for role in self.placed.axes]

    @property
    def is_small(self) -> bool:
        """Whether the numbers are so few that a table says them better."""
        return self.plot.kind == "bars" and len(self.placed.rows) <= predictions.FEW


KINDS: dict[str, type[PlacedFigure]] = {
    "lines": Cells,
    "bars": Cells,
    "pareto": Pareto,
    "heatmap": HeatMap,
    "computed": Computed,
    "parameters": Parameters,
}


def _in_words(marks: str, placed: data.Data, caption: str) -> str:
    metrics = " and ".join(columns.COLUMNS[y].axis for y in placed.plot.y)
    text = f"{marks} of {metrics} over {placed.axes['x'].label}"
    for role, words in (
        ("hue", "one colour for each"),
        ("marker", "one marker for each"),
        ("panel", "one panel for each"),
        ("row", "one row of panels for each"),
    ):
        if role in placed.axes:
            axis = placed.axes[role]
            text += f"; {words} {axis.label}: {', '.join(axis.text(v) for v in axis.levels)}"
    return f"{text}. {caption}"
