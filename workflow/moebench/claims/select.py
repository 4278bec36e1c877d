"""Selection of the cells that a claim compares: paired or grouped rows, never across incomparable rows.

Two cells are alike if every knob is equal but those that the claim varies, those it says may differ, and, where it
compares models, the sizes that belong to a model.  What is only known after measuring (``MEASURED_GUARDS``) must be
equal too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moebench.claims.spec import Claim, Settings
from moebench.config import KNOBS
from moebench.errors import ConfigError, nearest

Row = Mapping[str, Any]

GUARDS = ("hardware", "engine_name", "engine_version", "protocol_kind", "questions")
"""Columns of the plan, beside the knobs, in which compared cells are always equal; ``questions``: of accuracy."""
MEASURED_GUARDS = ("device_name", "untuned_kernel_warning", "asked")
"""Columns of the records in which compared cells are always equal."""
CONTEXT = ("weights", "prompts", "eager", "kernel_config", "mla", "kv_cache_dtype", *GUARDS)
"""A claim is evaluated separately for each combination of these."""
OF_A_MODEL = ("experts", "moe_ffn_size", "top_k")
"""Settings that belong to a model and may differ when models are compared."""
OF_PRUNING = ("experts", "moe_ffn_size", "prune_ratio", "prune_multiple")
"""Settings that belong to pruning and may differ when pruned and unpruned models are compared."""
_HIDDEN = ("cpu_threads", "kv_cache_mb", "own_process")  # how the machine runs the engine, the same in a figure
TOLD = tuple(k for k in KNOBS if k not in _HIDDEN)
"""Settings that identify cells in a reason."""


@dataclass(frozen=True)
class Pair:
    """A row and its counterpart: one row, or several candidates of which the best counts."""

    of: int
    to: tuple[int, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """All rows of the pair."""
        return (self.of, *self.to)


@dataclass(frozen=True)
class Selection:
    """Rows of a claim: ``pairs`` of a comparison, or else ``groups`` of rows that differ along ``over``."""

    rows: tuple[int, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[int, ...], ...]


def matches(row: Row, settings: Settings, known: Iterable[str] | None = None) -> bool:
    """Whether a row has the settings; a list stands for any of its values, null for "not set"."""
    return all(row.get(k) in v if isinstance(v, list) else row.get(k) == v for k, v in settings.items())


def varied(claim: Claim) -> set[str]:
    """Columns that the claim itself varies between the compared cells."""
    settings = [*_alternatives(claim.of), *([claim.to] if isinstance(claim.to, dict) else [])]
    return {k for s in settings for k in s}


def _alternatives(of: Settings | list[Settings] | None) -> list[Settings]:
    return [] if of is None else of if isinstance(of, list) else [of]


def check_columns(claim: Claim, known: Iterable[str], where: str) -> None:
    """Raise ConfigError for a column that no row has."""
    known = set(known)
    for name in [*claim.where, *varied(claim), *claim.over]:
        if name not in known:
            raise ConfigError(f"{where}: claim {claim.id}: unknown column {name!r}" + nearest(name, known))


def _free(columns: set[str], claim: Claim) -> set[str]:
    of_model = set(OF_A_MODEL) if "model" in columns else set()
    return columns | set(claim.may_differ) | of_model | (set(OF_PRUNING) if "pruning" in columns else set())


def _fixed(free: set[str]) -> list[str]:
    """The columns in which compared cells are equal."""
    return [k for k in (*KNOBS, *GUARDS) if k not in free and k not in _HIDDEN]


def _grouped(rows: Sequence[Row], indices: Iterable[int], free: set[str]) -> list[list[int]]:
    fixed, groups = _fixed(free), dict[tuple[Any, ...], list[int]]()
    for i in indices:
        groups.setdefault(tuple(map(rows[i].get, fixed)), []).append(i)
    return list(groups.values())


def select(claim: Claim, rows: Sequence[Row]) -> Selection:
    """The rows of a claim, in their order; the same cell under two labels counts once unless labels are compared.

    Raises ConfigError if a pair is not unique: the claim then needs a narrower ``where``.
    """
    contrast, along = varied(claim), set(claim.over)
    seen: set[tuple[Any, ...]] = set()
    indices = []
    for i, row in enumerate(rows):
        identity = (row.get("engine"), row.get("cell"), *(row.get(c) for c in claim.over))
        if matches(row, claim.where) and identity not in seen:
            seen.add(identity)
            indices.append(i)
    if claim.of is None:
        groups = [tuple(g) for g in _grouped(rows, indices, _free(along, claim))
                  if len({rows[i].get(claim.over[0]) for i in g}) > 1]  # fmt: skip
        return Selection(tuple(i for g in groups for i in g), (), tuple(groups))
    pairs = list(_pairs(claim, rows, indices, _free(contrast, claim)))
    return Selection(tuple(dict.fromkeys(i for p in pairs for i in p.members)), tuple(pairs), ())


def _pairs(claim: Claim, rows: Sequence[Row], indices: list[int], free: set[str]) -> Iterator[Pair]:
    wanted = _alternatives(claim.of)
    for group in _grouped(rows, indices, free):
        of = [i for i in group if any(matches(rows[i], s) for s in wanted)]
        if isinstance(claim.to, dict):
            to = [i for i in group if matches(rows[i], claim.to) and i not in of]
        else:
            to = [i for i in group if i not in of]
        if isinstance(claim.to, dict) and of and len(to) > 1:
            cells = ", ".join(f"{rows[i]['engine']}/{rows[i]['cell']}" for i in to[:2])
            raise ConfigError(f"claim {claim.id}: a cell is compared with {len(to)} cells ({cells}); narrow `where`")
        if to:
            yield from (Pair(i, tuple(to)) for i in of)


def along(claim: Claim, rows: Sequence[Row], pairs: Sequence[Pair]) -> list[list[int]]:
    """Indices of pairs, grouped so that the pairs of a group differ only along ``over``."""
    # What is compared with the same cell by another setting is a series of its own.
    series = sorted(varied(claim) - set(claim.over))
    fixed = [*_fixed(_free(varied(claim) | set(claim.over), claim)), *series]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for n, pair in enumerate(pairs):
        groups.setdefault(tuple(map(rows[pair.of].get, fixed)), []).append(n)
    return list(groups.values())


def unlike(rows: Sequence[Row], members: Iterable[int]) -> list[str]:
    """The measured guards in which rows differ; unknown matches anything."""
    found = []
    for name in MEASURED_GUARDS:
        if len({rows[i].get(name) for i in members} - {None}) > 1:
            found.append(name)
    return found


def context(rows: Sequence[Row], members: Iterable[int], claim: Claim) -> tuple[tuple[str, Any], ...]:
    """Common properties of compared rows that a verdict must name, except those that the claim varies."""
    free = varied(claim) | set(claim.over) | set(claim.may_differ)
    first = rows[next(iter(members))]
    return tuple((name, first.get(name)) for name in CONTEXT if name not in free)
