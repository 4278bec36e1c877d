"""The grid language: blocks of an experiment to rows of knob settings.

A block fixes some knobs and crosses others.  Three kinds of axis express every sweep of the papers:

* ``batch: [1, 16]``: a knob;
* ``input_tokens = output_tokens: [128, 256]``: knobs that move together;
* ``arm: [{label: TP2+EP, tp: 2, ep: true}, ...]``: arms, each setting several knobs under one label.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from moebench.config import KNOBS, AccuracyBlock, Block, EngineKnobs, Experiment
from moebench.errors import ConfigError, nearest


@dataclass(frozen=True)
class Row:
    """One point of a grid: knob settings, and a label per axis for figures."""

    settings: dict[str, Any]
    labels: dict[str, Any]
    block: int = 0
    """Number of its block in the grid."""


def known_knob(knob: str, where: str, known: Collection[str] = KNOBS) -> str:
    """The knob's name.  Raises ConfigError with the nearest one if there is none such."""
    if knob not in known:
        raise ConfigError(f"{where}: unknown knob {knob!r}" + nearest(knob, known))
    return knob


def _options(axis: str, values: Any, where: str, known: Collection[str]) -> list[tuple[dict[str, Any], Any]]:
    """Each value of an axis as (settings, label)."""
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}: axis {axis!r} has no values; give a list with at least one")
    options: list[tuple[dict[str, Any], Any]] = []
    for value in values:
        if isinstance(value, dict):
            settings = {known_knob(k, where, known): v for k, v in value.items() if k != "label"}
            label = value.get("label", next(iter(settings.values()), None))
        else:
            settings = {known_knob(knob.strip(), where, known): value for knob in axis.split("=")}
            label = value
        options.append((settings, label))
    return options


def _expand_block(block: Block, number: int, where: str, known: Collection[str]) -> Iterator[Row]:
    for knob, value in block.fix.items():
        known_knob(knob, f"{where}: fix", known)
        if isinstance(value, list):
            raise ConfigError(f"{where}: fix: {knob} is {value}: fix takes one value; to sweep it, put it under cross")
    axes = [(axis.strip(), _options(axis, values, where, known)) for axis, values in block.cross.items()]
    for combination in itertools.product(*(options for _, options in axes)):
        settings: dict[str, Any] = dict(block.fix)
        labels: dict[str, Any] = {}
        for (axis, _), (chosen, label) in zip(axes, combination, strict=True):
            for knob, value in chosen.items():
                if knob in settings:
                    raise ConfigError(f"{where}: knob {knob!r} is set twice (axis {axis!r}); keep one")
                settings[knob] = value
            labels[axis] = label
        yield Row(settings, labels, number)


def expand(experiment: Experiment, scale: str, path: str) -> list[Row]:
    """All rows of an experiment at a scale, in the order of its file.

    Raises ConfigError for a missing scale, an unknown knob, an empty grid or axis, a knob set twice.
    """
    if scale not in experiment.grid:
        raise ConfigError(f"{path}: no grid for scale {scale!r}" + nearest(scale, experiment.grid))
    rows = points(experiment.grid[scale], f"{path}: grid.{scale}")
    if not rows:
        raise ConfigError(f"{path}: grid.{scale} is empty; give at least one block")
    return rows


def points(blocks: Iterable[Block], where: str, known: Collection[str] = KNOBS) -> list[Row]:
    """All points of some blocks, over the knobs ``known``.  Raises ConfigError as :func:`expand`."""
    return [
        row for number, block in enumerate(blocks) for row in _expand_block(block, number, f"{where}[{number}]", known)
    ]


def expand_accuracy(experiment: Experiment, scale: str, path: str) -> list[tuple[AccuracyBlock, Row]]:
    """All rows of an experiment's accuracy blocks at a scale, each with its block.

    Raises ConfigError as ``expand`` does, and for a knob that an accuracy harness does not have.
    """
    if scale not in experiment.accuracy:
        raise ConfigError(f"{path}: no accuracy for scale {scale!r}" + nearest(scale, experiment.accuracy))
    rows = []
    for number, block in enumerate(experiment.accuracy[scale]):
        where = f"{path}: accuracy.{scale}[{number}]"
        for row in _expand_block(block, number, where, KNOBS):
            for knob in row.settings:
                if knob not in EngineKnobs.model_fields and knob != "top_k":
                    raise ConfigError(f"{where}: knob {knob!r} is of speed cells only; a task brings its own questions")
            rows.append((block, row))
    return rows
