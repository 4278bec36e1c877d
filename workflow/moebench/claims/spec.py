"""The language of ``config/claims/PAPER.yaml``: which cells a claim compares, how, and the result according to the
paper.

A claim selects rows (``where``), may compare two settings within them (``of``, ``to``, ``as``), applies one of a
handful of tests, and says how many comparisons it needs.  Nothing else is needed for the claims of the three papers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from moebench import columns
from moebench.columns import EVENNESS, METRIC_NAMES
from moebench.config import Config, Name, Strict, parse, read_yaml
from moebench.errors import ConfigError, nearest
from moebench.formats.plan import ClaimsOfPlan, ExperimentPlan, Plan

Settings = dict[str, Any]
Test = Literal[
    "mean", "every", "max", "min", "spread", "trend", "exponent", "bend",
    "monotone", "rank", "steepest", "infeasible",
    "share", "printed", "computed",
]  # fmt: skip

NUMERIC = ("mean", "every", "max", "min", "spread", "trend", "exponent", "bend", "share", "printed", "computed")
"""Tests whose outcome is a number, compared with a range."""
YES_NO = ("monotone", "rank", "steepest", "infeasible")
"""Tests that hold or do not."""
OF_CELLS = (
    "mean", "every", "max", "min", "spread", "trend", "exponent", "bend", "monotone", "rank", "steepest", "infeasible",
)  # fmt: skip
"""Tests on cells; the others need none."""
COMPARED = ("mean", "every", "max", "min", "trend")
"""Tests that need ``of`` and ``to``."""
_ALONG = ("spread", "trend", "exponent", "bend", "monotone", "rank", "steepest", "infeasible")
_OTHER_METRICS = ("accuracy", "parameters", "status", "printed")
_COMPUTED = tuple(c.name for c in columns.of_table("computed") if c.tables == ("computed",))
_MAY_DIFFER = (
    "tp", "pp", "dp", "prune_by", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
    "untuned_kernel_warning", "engine_name", "engine_version",
)  # fmt: skip
PAPER = "paper"
"""The scale of the papers' own grids, of which ``needs`` speaks."""


class Expect(Strict):
    """Expected result if the claim is right."""

    min: float | None = Field(None, description="Smallest value")
    max: float | None = Field(None, description="Largest value")
    first: Any = Field(None, description="`rank`: the best; `steepest`: where the step begins; `bend`: where it bends")
    last: Any = Field(None, description="`rank`: the worst")
    order: tuple[Any, ...] = Field((), description="`rank`: all values, best first")
    top: tuple[Any, ...] = Field((), description="`rank`: the best values, in any order")
    direction: Literal["falling", "rising"] | None = Field(None, description="`monotone`")
    cells: tuple[tuple[Any, ...], ...] = Field((), description="`infeasible`: values of `over` that do not fit")


class Printed(Strict):
    """Numbers that the paper prints: the sum of some over the sum of others; or batches over contexts."""

    divide: tuple[float, ...] = ()
    by: tuple[float, ...] = ()
    contexts: tuple[float, ...] = Field((), description="Contexts of `batches`")
    batches: tuple[tuple[float, ...], ...] = Field(
        (),
        description="Each a batch per context; the value is the share that are floor(C / context), with a C for each",
    )

    @model_validator(mode="after")
    def _whole(self) -> Printed:
        """Refuse settings that give no number."""
        if bool(self.divide and self.by) == bool(self.contexts and self.batches):
            raise ValueError("give divide and by, or contexts and batches")
        if any(len(batches) != len(self.contexts) for batches in self.batches):
            raise ValueError("batches: give one per context")
        return self


class Needs(Strict):
    """Minimum number of comparisons that decide a claim in the paper's grid; with fewer it is `not decided`."""

    points: int = Field(
        1, ge=1, description="Number of pairs; for a test along `over`: points per series, shorter ones are dropped"
    )
    series: int = Field(1, ge=1, description="Number of series with this many points along `over`")
    cover: dict[str, list[Any]] = Field({}, description="Values of columns that the compared cells must have")


class Provided(Strict):
    """Condition on the speed of the same engine configuration and top-k, at every load."""

    metric: str
    as_: Literal["ratio", "gain", "drop"] = Field(alias="as")
    min: float


class Elsewhere(Strict):
    """Differences in the grid of another scale."""

    where: Settings = Field({}, description="Replaces keys of `where`")
    of: Settings | list[Settings] | None = Field(None, description="Replaces keys of `of` (a list: all of it)")
    to: Settings | None = Field(None, description="Replaces keys of `to`")
    expect: Expect | None = Field(None, description="Replaces `expect`; null: only the value is shown")
    provided: Provided | None = Field(None, description="Replaces `provided`")


class Claim(Strict):
    """A paper's sentence as a comparison of cells."""

    id: str = Field(pattern=r"^[A-Za-z0-9\-]+$")
    place: str = Field(description="Place in the paper")
    quote: str = Field("", description="Quote from the paper")
    statement: str = Field(description="The tested statement in one sentence")
    metric: str = Field(description="Column of a metric, or accuracy, parameters, status, printed")
    where: Settings = Field({}, description="Rows that it is about: column and a value or list of values")
    of: Settings | list[Settings] | None = Field(None, description="The compared settings; a list: any of them")
    to: Settings | Literal["best"] | None = Field(
        None, description="The settings to compare with; `best`: the best of the others"
    )
    as_: Literal["ratio", "gain", "drop", "difference"] | None = Field(
        None, alias="as", description="`ratio` of / to, `gain` of / to - 1, `drop` 1 - of / to, `difference` of - to"
    )
    test: Test = Field(description="Test applied to the values; see docs/claims.md")
    over: tuple[str, ...] = Field((), description="Column along which the test runs; further columns vary with it")
    may_differ: tuple[str, ...] = Field(
        (), description="Deployment knobs or kernel facts in which compared cells may differ"
    )
    needs: Needs | None = Field(
        None, description="Minimum number of comparisons that decide it, in the paper's own grid"
    )
    undecidable: str = Field("", description="Why no study can decide it today although its cells are planned")
    expect: Expect | None = Field(description="Expected result if the claim is right; null: the paper claims nothing")
    provided: Provided | None = Field(
        None, description="`accuracy`: a pair counts only if `of` relative to `to` has this speed"
    )
    printed: Printed | None = Field(None, description="`printed`: the paper's numbers")
    at: dict[str, Elsewhere | None] = Field({}, description="By scale: differences in its grid; null: no counterpart")
    contradicts: tuple[str, ...] = Field((), description="Claims that cannot be right together with this claim")
    note: str = Field("", description="Note for the reader")

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        """Refuse a claim that cannot be evaluated."""
        pair = (self.of is not None, self.to is not None, self.as_ is not None)
        known = {*METRIC_NAMES, *EVENNESS, *_OTHER_METRICS, *(_COMPUTED if self.test == "computed" else ())}
        if self.metric not in known:
            raise ValueError(f"metric: unknown {self.metric!r}" + nearest(self.metric, known))
        problems = [
            (any(pair) and not all(pair), "of, to and as: give all three or none"),
            (self.test in COMPARED and not all(pair), f"test {self.test} needs of, to and as"),
            (self.test in _ALONG and not self.over, f"test {self.test} needs over"),
            (self.test not in _ALONG and bool(self.over), f"over: not for test {self.test}"),
            (self.provided is not None and self.metric != "accuracy", "provided: for the metric accuracy only"),
            ((self.test == "printed") != (self.printed is not None), "printed: give the numbers and test: printed"),
        ]
        problems += [(k not in _MAY_DIFFER, f"may_differ: {k!r} is none of {', '.join(_MAY_DIFFER)}")
                     for k in self.may_differ]  # fmt: skip
        for wrong, text in problems:
            if wrong:
                raise ValueError(text)
        for expected in [self.expect, *(e.expect for e in self.at.values() if e)]:
            if expected is not None and (lacks := _lacks(self.test, expected)):
                raise ValueError(f"expect: test {self.test} needs {lacks}")
        return self

    def at_scale(self, scale: str) -> Claim | None:
        """The claim in the grid of a scale: as it stands, or with what ``at`` replaces; None: no counterpart there.

        A scale without words of its own takes those of the scale it is a variant of: ``tiny-full`` those of ``tiny``.
        ``needs`` is about the paper's grid and left out elsewhere, where there are no verdicts.
        """
        update: dict[str, Any] = {} if scale == PAPER or self.needs is None else {"needs": None}
        known = scale if scale in self.at else scale.partition("-")[0]
        if known not in self.at:
            return self.model_copy(update=update) if update else self
        other = self.at[known]
        if other is None:
            return None
        update["where"] = self.where | other.where
        if other.of is not None:
            update["of"] = self.of | other.of if isinstance(self.of, dict) and isinstance(other.of, dict) else other.of
        if other.to is not None:
            update["to"] = self.to | other.to if isinstance(self.to, dict) else other.to
        for name in ("expect", "provided"):
            if name in other.model_fields_set:
                update[name] = getattr(other, name)
        return self.model_copy(update=update)


def _lacks(test: str, expect: Expect) -> str:
    given = {k for k in ("min", "max", "first", "last", "order", "top", "direction", "cells")
             if getattr(expect, k) not in (None, ())}  # fmt: skip
    if test in NUMERIC and not given & {"min", "max"}:
        return "min or max"
    if test == "bend" and "first" not in given:
        return "first"
    wanted = {"monotone": {"direction"}, "rank": {"first", "last", "order", "top"}, "steepest": {"first"},
              "infeasible": {"cells"}}.get(test, given)  # fmt: skip
    return "" if given & wanted or not wanted else " or ".join(sorted(wanted))


class ClaimFile(Strict):
    """The claims of a paper: ``config/claims/NAME.yaml``."""

    name: Name
    title: str
    reference: str
    hardware: tuple[Name, ...] = Field(
        (), description="Machine types that count as the paper's; claims get verdicts only on these"
    )
    claims: tuple[Claim, ...]


def load(config: Config) -> list[ClaimFile]:
    """All files of ``config/claims``, by name.

    Raises ConfigError naming the file for what is wrong in it, an id given twice, or a contradicted claim there is not.
    """
    files, seen = [], dict[str, Path]()
    for path in sorted((config.folder / "claims").glob("*.yaml")):
        made = parse(ClaimFile, read_yaml(path), path)
        if made.name != path.stem:
            raise ConfigError(f"{path}: name is {made.name!r}, but the file is {path.stem!r}; make them equal")
        for claim in made.claims:
            if claim.id in seen:
                raise ConfigError(f"{path}: claim {claim.id} is in {seen[claim.id]} too; ids are unique")
            seen[claim.id] = path
        files.append(made)
    for made in files:
        for claim in made.claims:
            for other in claim.contradicts:
                if other not in seen:
                    raise ConfigError(
                        f"{seen[claim.id]}: {claim.id} contradicts {other}, unknown" + nearest(other, seen)
                    )
    return files


def of_plan(config: Config, experiments: Mapping[str, ExperimentPlan], models: Iterable[str]) -> ClaimsOfPlan:
    """What a plan keeps of the claims, so that its report can be rebuilt from the archive alone.

    ``models``: those of the plan, of which some stand for full-size ones.  Raises ConfigError for an experiment that
    lists a claim there is not.
    """
    files = load(config)
    known = {claim.id for made in files for claim in made.claims}
    for name, experiment in experiments.items():
        for listed in experiment["claims"] if known else ():
            if listed not in known:
                raise ConfigError(
                    f"{config.folder / 'experiments' / name}.yaml: claims: unknown claim {listed!r}"
                    + nearest(listed, known)
                )
    stands_for = {name: config.model(name).variant_of for name in sorted(set(models))}
    return {"papers": [made.model_dump(mode="json", by_alias=True, exclude_unset=True) for made in files],
            "stands_for": {name: full for name, full in stands_for.items() if full}}  # fmt: skip


def from_plan(plan: Plan) -> list[ClaimFile]:
    """The claim files of a plan; none for a plan of an older version."""
    where = f"plan of {plan['study']}: claims"
    claims = plan.get("claims")
    return [parse(ClaimFile, made, where) for made in (claims["papers"] if claims else ())]
