"""Experiments: their grids, tasks, computed points and figures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from moebench.config.base import Name, Positive, Quantization, Strict
from moebench.config.knobs import Protocol
from moebench.errors import nearest

Axis = list[Any]


_AXIS = {"anyOf": [{"items": {}, "type": "array"}, {"type": "string"}]}


def _listed(values: Any) -> Any:
    return [values] if isinstance(values, str) else values


_AXIS_OR_TWO = {
    "anyOf": [{"items": {"type": "string"}, "maxItems": 2, "minItems": 2, "type": "array"}, {"type": "string"}]
}
COMPUTED_KINDS = ("parameters", "computed")
"""Kinds of figures that need only the plan, no measurement."""
JOIN = " + "
"""Between the two columns of a hue."""


def _joint(given: Any) -> Any:
    """Two columns as one name; the type refuses anything else."""
    if not isinstance(given, list):
        return given
    if len(given) != 2 or not all(isinstance(name, str) for name in given):
        raise ValueError("hue takes one column or two")
    return JOIN.join(given)


class Block(Strict):
    """A part of a grid: ``fix`` sets knobs, ``cross`` sweeps them (every combination).

    An axis of ``cross`` is named after its knob, or after several knobs that vary together
    (``input_tokens = output_tokens``).  A value that is a mapping is an *arm*: it sets all the knobs in it,
    and the axis name is free; its ``label`` names it in figures.  A single word is a list of one.
    """

    fix: dict[str, Any] = Field({})
    cross: dict[str, Annotated[Axis, BeforeValidator(_listed), WithJsonSchema(_AXIS)]] = Field({})


class AccuracyBlock(Block):
    """A part of an accuracy grid: every task for every engine configuration of ``fix`` and ``cross``.

    Engine knobs and ``top_k`` only; everything else belongs to the task.
    """

    tasks: tuple[Name, ...] = Field(min_length=1, description="Tasks in config/tasks")
    data: Literal["hub", "fixtures"] = Field(
        "hub", description="The published data sets, or small ones in the same format that the project writes"
    )
    limit: Positive | None = Field(None, description="Use only this many rows of each data set (of each MMLU subject)")
    max_tokens: Positive | None = Field(None, description="vlmeval: longest answer in tokens, instead of the task's")


class Plot(Strict):
    """A figure drawn from an experiment's rows by one of the general renderers."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9_\-]+$")] = Field(description="File name of the figure")
    number: str = Field(description="Number in the paper, e.g. '7'")
    title: str
    kind: Literal["lines", "bars", "pareto", "heatmap", "parameters", "computed"] = Field(
        description="Lines or bars of measured cells, points of speed against accuracy, a heat map within each cell,"
        " stacked bars of model parameters, or lines of computed points"
    )
    x: str = Field("", description="Column on the x axis (all but parameters)")
    y: tuple[str, ...] = Field((), description="Columns on the y axis, one row of panels each; heatmap: exactly one")
    value: str | None = Field(None, description="Column shown as colour (heatmap)")
    beside: tuple[str, ...] = Field(
        (),
        description="Columns whose values are printed above each panel (heatmap), or beside points on the Pareto "
        "frontier",
    )
    only: dict[str, Any] = Field(
        {}, description="Column: value or list of values; only matching rows are shown (all but parameters)"
    )
    hue: Annotated[str, BeforeValidator(_joint), WithJsonSchema(_AXIS_OR_TWO)] | None = Field(
        None, description="Column that determines the colour; if there are two, the second determines the shade"
    )
    marker: str | None = Field(None, description="Column that determines the marker (pareto)")
    panel: str | None = Field(None, description="Column with one column of panels per value")
    row: str | None = Field(None, description="Column with one row of panels per value (with one y only)")
    log_x: bool = False
    log_y: bool = False
    models: tuple[Name, ...] = Field((), description="Models shown (parameters); default: all models of the experiment")
    level: float | None = Field(None, description="Value of y to mark with a line (computed)")

    @model_validator(mode="after")
    def _of_its_kind(self) -> Plot:
        if self.kind == "parameters":
            names = ("x", "y", "value", "beside", "only", "hue", "marker", "panel", "row")
            given = {name: getattr(self, name) for name in names}
            if wrong := [key for key, value in given.items() if value]:
                raise ValueError(f"{', '.join(wrong)}: not for a figure of kind parameters; it takes models")
        elif not (self.x and self.y):
            raise ValueError(f"{'y' if self.x else 'x'} is missing: a figure of kind {self.kind} needs x and y")
        elif self.models:
            raise ValueError(f"models: not for a figure of kind {self.kind}, only for kind parameters")
        elif self.kind == "heatmap" and (self.value is None or len(self.y) != 1 or self.hue):
            raise ValueError("a figure of kind heatmap needs value, the colour, and one y; it takes no hue")
        elif self.kind != "heatmap" and (self.value or (self.beside and self.kind != "pareto")):
            raise ValueError(f"value, beside: not for a figure of kind {self.kind}, only for kind heatmap")
        if self.kind == "pareto" and self.log_x:
            raise ValueError("log_x: not for a figure of kind pareto")
        if self.kind != "pareto" and self.marker:
            raise ValueError("marker: only for a figure of kind pareto")
        if self.kind != "computed" and self.level is not None:
            raise ValueError("level: only for a figure of kind computed")
        return self


class ComputedKnobs(Strict):
    """A point of ``computed``: decoding by an MoE and by a dense model of equal quality on a machine.

    A parallel size that is not given is searched for: the fastest layout that fits.
    """

    model: Name = Field(description="MoE model of the registry")
    hardware: Name = Field(description="Machine type")
    gpus: Positive = Field(description="Devices")
    tp: Positive | None = Field(None, description="Tensor parallel size")
    pp: Positive | None = Field(None, description="Pipeline parallel size")
    dp: Positive | None = Field(None, description="Data parallel size")
    ep: Positive | None = Field(None, description="Number of groups over which whole experts are distributed")
    kvp: Positive | None = Field(None, description="Number of ranks that split a sequence's KV cache by tokens")
    quantization: Quantization = Field("none", description="Quantization scheme of the weights")
    quality: float = Field(
        5.0, gt=0, description="Quality factor q: FFN parameters of the dense model divided by the active ones"
    )
    context_tokens: Positive = Field(131072, description="Context length of every sequence, tokens")
    batch: Positive | None = Field(None, description="Number of sequences; default: as many as fit")
    memory_factor: float = Field(1.0, gt=0, description="Factor on the device memory of the machine type")
    bandwidth_factor: float = Field(1.0, gt=0, description="Factor on the memory bandwidth of the machine type")
    link_factor: float = Field(1.0, gt=0, description="Factor on the link bandwidth of the machine type")


class Assumption(Strict):
    """An assumption about the grids of some scales only."""

    scales: tuple[str, ...] = Field(min_length=1, description="Scales of the grids that it is about")
    text: str


class Experiment(Strict):
    """One question and its figures: ``config/experiments/NAME.yaml``."""

    name: Name
    title: str
    question: str = Field(description="The question in a sentence or two")
    paper: str = Field("MoE-Inference-Bench (arXiv 2508.17467)")
    assumptions: tuple[str | Assumption, ...] = Field(
        (), description="Choices made here where the paper is silent; with scales and text: for those scales only"
    )
    claims: tuple[str, ...] = Field((), description="Ids of the claims that this experiment decides")
    protocol: Protocol | None = Field(None, description="Overrides the study's")
    models: tuple[Name, ...] = Field((), description="Models whose parameters are counted; needs no grid")
    printed_in: Name | None = Field(
        None, description="A paper in config/papers whose tables are shown beside true and computed values"
    )
    computed: tuple[Block, ...] = Field(
        (), description="Points of the cost model, in the grid language; needs no grid, measures nothing"
    )
    grid: dict[str, list[Block]] = Field(
        {}, description="Blocks by scale (paper, tiny, ...); the grid is their union; if empty, nothing is measured"
    )
    accuracy: dict[str, list[AccuracyBlock]] = Field(
        {}, description="Blocks by scale whose tasks are evaluated; if empty, accuracy is not evaluated"
    )
    figures: tuple[Plot, ...] = ()

    def assumed(self, scale: str) -> list[str]:
        """The assumptions that the grid of a scale makes."""
        everywhere = [a if isinstance(a, Assumption) else Assumption(scales=(scale,), text=a) for a in self.assumptions]
        return [a.text for a in everywhere if scale in a.scales]

    @model_validator(mode="after")
    def _asks_something(self) -> Experiment:
        if not (self.grid or self.models or self.computed or self.accuracy):
            raise ValueError("grid is missing; give a grid, accuracy, computed, or models whose parameters are counted")
        if self.printed_in and not self.models:
            raise ValueError("printed_in needs models, whose architectures are compared")
        for figure in self.figures:
            if figure.kind == "computed" and not self.computed:
                raise ValueError(f"figure {figure.id} of kind computed needs computed in the experiment")
            if figure.kind in ("lines", "bars") and not self.grid:
                raise ValueError(f"figure {figure.id} of kind {figure.kind} needs a grid")
            if figure.kind == "parameters" and not self.models:
                raise ValueError(f"figure {figure.id} of kind parameters needs models in the experiment")
            for name in figure.models:
                if name not in self.models:
                    raise ValueError(
                        f"figure {figure.id}: model {name!r} is not one of the experiment's"
                        + nearest(name, self.models)
                    )
        return self
