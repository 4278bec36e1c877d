"""Values that the papers print."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moebench.config.base import Name, Positive, Strict
from moebench.config.hardware import Constant
from moebench.errors import nearest

Modality = Literal["Text", "Text + Image"]
Billions = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?B$")]


class PrintedModel(Strict):
    """A row of a paper's table of architectures, as printed."""

    model: Name = Field(description="Model of the registry that the row is about")
    modality: Modality
    layers: Positive
    hidden_size: Positive
    ffn_size: Positive = Field(description="FFN dimension")
    experts: Positive
    top_k: Positive = Field(description="Active experts")
    total_parameters: Billions = Field(description="Model size as printed, e.g. 12.9B")
    active_parameters: Billions = Field(description="Active parameters as printed")
    why: dict[str, str] = Field({}, description="Column: why its value differs from the model's")

    @model_validator(mode="after")
    def _columns(self) -> PrintedModel:
        known = [name for name in type(self).model_fields if name not in ("model", "why")]
        for name in self.why:
            if name not in known:
                raise ValueError(f"why: no column {name!r}" + nearest(name, known))
        return self


class PrintedTable(Strict):
    """A paper's table of architectures."""

    source: str = Field(description="Place in the paper, e.g. Table 1")
    title: str
    note: str | None = Field(None, description="Remark on the whole table")
    rows: tuple[PrintedModel, ...]


class PrintedRow(Strict):
    """A row of numbers, as printed."""

    label: str
    model: Name | None = Field(None, description="Model of the registry that the row is about")
    given: dict[str, float] = Field({}, description="Inputs of the row by name, e.g. quality, gpus")
    printed: dict[str, str | None] = Field(description="Value as printed, by quantity; null: illegible in our copy")


class PrintedNumbers(Strict):
    """A table of numbers that a paper computes, or its numbered equations."""

    id: Name
    source: str = Field(description="Place in the paper, e.g. Table 3")
    title: str
    note: str | None = None
    rows: tuple[PrintedRow, ...]


class Assumed(Strict):
    """Values that a paper's formulas need but it does not give, or gives elsewhere, and why."""

    hardware: Name
    tensor_parallel: Constant
    expert_parallel: Constant
    usable_share: Constant
    overlap: Constant


class Paper(Strict):
    """What a paper prints about models: ``config/papers/NAME.yaml``."""

    name: Name
    title: str
    reference: str
    architectures: PrintedTable | None = None
    numbers: tuple[PrintedNumbers, ...] = Field((), description="Tables of numbers to reproduce")
    assumed: Assumed | None = Field(None, description="Assumptions needed to reproduce them")
