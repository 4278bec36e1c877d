"""The grid language: blocks of an experiment to rows of knob settings.

A block fixes some knobs and crosses others.  Three kinds of axis express every sweep of the papers:

* ``batch: [1, 16]``: a knob;
* ``input_tokens = output_tokens: [128, 256]``: knobs that move together;
* ``arm: [{label: TP2+EP, tp: 2, ep: true}, ...]``: arms, each setting several knobs under one label.

Two words are short for others: ``precision: int4`` for data type and quantization scheme, and ``model: all``, or a tag
of models, for each of the models.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from moebench.config import KNOBS, AccuracyBlock, Block, EngineKnobs, Experiment
from moebench.errors import ConfigError, nearest

PRECISION = "precision"
PRECISIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("FP32", {"dtype": "float32", "quantization": "none"}),
    "fp16": ("FP16", {"dtype": "float16", "quantization": "none"}),
    "bf16": ("BF16", {"dtype": "bfloat16", "quantization": "none"}),
    "fp8": ("FP8", {"quantization": "fp8"}),
    "fp8_block": ("FP8 blocks", {"quantization": "fp8_block"}),
    "int8": ("INT8", {"quantization": "int8"}),
    "int4": ("INT4", {"quantization": "gptq"}),
    "awq": ("AWQ", {"quantization": "awq"}),
    "gptq": ("GPTQ", {"quantization": "gptq"}),
}
"""Label and knobs of each value of ``precision``; ``int4``: 4-bit integers without zero points, chosen by GPTQ."""

Groups = Callable[[str], "tuple[str, ...] | None"]
"""The models that a word stands for; None if it is not the name of a group."""


def _no_groups(word: str) -> None:
    return None


@dataclass(frozen=True)
class Row:
    """One point of a grid: knob settings, and a label per axis for figures."""

    settings: dict[str, Any]
    labels: dict[str, Any]
    block: int = 0
    """Number of its block in the grid."""


def known_knob(knob: str, where: str, known: Collection[str] = KNOBS) -> str:
    """The knob's name.  Raises ConfigError with the nearest one if there is none."""
    if knob not in known:
        raise ConfigError(f"{where}: unknown knob {knob!r}" + nearest(knob, known))
    return knob


def _meant(knob: str, value: Any, where: str, known: Collection[str]) -> dict[str, Any]:
    """The knobs that a setting sets: itself, or those that ``precision`` is short for."""
    if knob != PRECISION or "dtype" not in known:
        return {known_knob(knob, where, known): value}
    return dict(_precision(value, where)[1])


def _precision(value: Any, where: str) -> tuple[str, dict[str, Any]]:
    name = str(value).lower()
    if name not in PRECISIONS:
        raise ConfigError(f"{where}: unknown precision {value!r}" + nearest(name, PRECISIONS))
    return PRECISIONS[name]


def _settings(given: dict[str, Any], where: str, known: Collection[str]) -> dict[str, Any]:
    """The knobs that some settings set.  Raises ConfigError for an unknown one, or one set twice."""
    settings: dict[str, Any] = {}
    for knob, value in given.items():
        for name, meant in _meant(knob, value, where, known).items():
            if name in settings:
                raise ConfigError(f"{where}: knob {name!r} is set twice; keep one")
            settings[name] = meant
    return settings


def _options(
    axis: str, values: list[Any], where: str, known: Collection[str], groups: Groups
) -> list[tuple[dict[str, Any], Any]]:
    """Each value of an axis as (settings, label), and each model of a group as a value."""
    if not values:
        raise ConfigError(f"{where}: axis {axis!r} has no values; give a list with at least one")
    options: list[tuple[dict[str, Any], Any]] = []
    for value in values:
        if isinstance(value, dict):
            settings = _settings({k: v for k, v in value.items() if k != "label"}, where, known)
            label = value.get("label", next(iter(settings.values()), None))
            if not isinstance(value.get("label", ""), str | int | float):
                raise ConfigError(f"{where}: axis {axis!r}: label is {label!r}: give a word or a number")
        else:
            settings = _settings({knob.strip(): value for knob in axis.split("=")}, where, known)
            label = _precision(value, where)[0] if axis == PRECISION else value
        word = settings.get("model")
        members = groups(word) if isinstance(word, str) else None
        if members == ():
            raise ConfigError(f"{where}: model {word}: this group has no model for the study's hardware; name models")
        for model in members or ():
            options.append((settings | {"model": model}, model if label == word else label))
        if members is None:
            options.append((settings, label))
    return options


def _expand_block(block: Block, number: int, where: str, known: Collection[str], groups: Groups) -> Iterator[Row]:
    for knob, value in block.fix.items():
        if isinstance(value, list) or (knob == "model" and isinstance(value, str) and groups(value) is not None):
            known_knob(knob, f"{where}: fix", known)
            raise ConfigError(f"{where}: fix: {knob} is {value}: fix takes one value; to sweep it, put it under cross")
    fixed = _settings(block.fix, f"{where}: fix", known)
    axes = [(axis.strip(), _options(axis.strip(), given, where, known, groups)) for axis, given in block.cross.items()]
    for combination in itertools.product(*(options for _, options in axes)):
        settings: dict[str, Any] = dict(fixed)
        labels: dict[str, Any] = {}
        for (axis, _), (chosen, label) in zip(axes, combination, strict=True):
            for knob, value in chosen.items():
                if knob in settings:
                    raise ConfigError(f"{where}: knob {knob!r} is set twice (axis {axis!r}); keep one")
                settings[knob] = value
            labels[axis] = label
        yield Row(settings, labels, number)


def expand(experiment: Experiment, scale: str, path: str, groups: Groups = _no_groups) -> list[Row]:
    """All rows of an experiment at a scale, in the order of its file.  ``groups``: words that stand for models.

    Raises ConfigError for a missing scale, an unknown knob, an empty grid or axis, a knob set twice.
    """
    if scale not in experiment.grid:
        raise ConfigError(f"{path}: no grid for scale {scale!r}" + nearest(scale, experiment.grid))
    rows = points(experiment.grid[scale], f"{path}: grid.{scale}", groups=groups)
    if not rows:
        raise ConfigError(f"{path}: grid.{scale} is empty; give at least one block")
    return rows


def points(
    blocks: Iterable[Block], where: str, known: Collection[str] = KNOBS, groups: Groups = _no_groups
) -> list[Row]:
    """All points of some blocks, over the knobs ``known``.  Raises ConfigError as :func:`expand`."""
    return [
        row
        for number, block in enumerate(blocks)
        for row in _expand_block(block, number, f"{where}[{number}]", known, groups)
    ]


def expand_accuracy(
    experiment: Experiment, scale: str, path: str, groups: Groups = _no_groups
) -> list[tuple[AccuracyBlock, Row]]:
    """All rows of an experiment's accuracy blocks at a scale, each with its block.

    Raises ConfigError as ``expand`` does, and for a knob that an accuracy harness does not have.
    """
    if scale not in experiment.accuracy:
        raise ConfigError(f"{path}: no accuracy for scale {scale!r}" + nearest(scale, experiment.accuracy))
    rows = []
    for number, block in enumerate(experiment.accuracy[scale]):
        where = f"{path}: accuracy.{scale}[{number}]"
        for row in _expand_block(block, number, where, KNOBS, groups):
            for knob in row.settings:
                if knob not in EngineKnobs.model_fields and knob != "top_k":
                    raise ConfigError(f"{where}: knob {knob!r} is for speed cells only; a task has its own questions")
            rows.append((block, row))
    return rows
