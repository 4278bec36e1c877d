"""A paper's printed values about models and their speed in a plan: the JSON of ``config.Paper``."""

from __future__ import annotations

from typing import TypedDict

from moebench.formats.model import ConstantDict


class PrintedModelDict(TypedDict):
    """A row of a paper's table of architectures.

    model: of the registry.  total_parameters, active_parameters: with the digits printed, e.g. ``12.9B``.  why: by
    column, why its value is not the model's.
    """

    model: str
    modality: str
    layers: int
    hidden_size: int
    ffn_size: int
    experts: int
    top_k: int
    total_parameters: str
    active_parameters: str
    why: dict[str, str]


class PrintedTableDict(TypedDict):
    """A paper's table of architectures.  source: where in the paper.  note: what the table lacks."""

    source: str
    title: str
    note: str | None
    rows: list[PrintedModelDict]


class PrintedRowDict(TypedDict):
    """A row of numbers.  given: inputs by name.  printed: the digits by quantity, None if they are lost."""

    label: str
    model: str | None
    given: dict[str, float]
    printed: dict[str, str | None]


class PrintedNumbersDict(TypedDict):
    """A table of numbers that a paper computes, or its numbered equations."""

    id: str
    source: str
    title: str
    note: str | None
    rows: list[PrintedRowDict]


class AssumedDict(TypedDict):
    """What a paper's formulas need and it does not give, or gives elsewhere: a machine type, and shares."""

    hardware: str
    tensor_parallel: ConstantDict
    expert_parallel: ConstantDict
    usable_share: ConstantDict
    overlap: ConstantDict


class PaperDict(TypedDict):
    """A paper.  architectures: None if it prints none.  numbers: tables that are reproduced; assumed: for them."""

    name: str
    title: str
    reference: str
    architectures: PrintedTableDict | None
    numbers: list[PrintedNumbersDict]
    assumed: AssumedDict | None
