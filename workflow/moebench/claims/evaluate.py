"""Evaluation of a claim on rows: which comparisons count, whether they are enough, and the outcome.

A test (``values``) is a function of the medians of the cells it compares.  Its interval is the middle 95% of bootstrap
resamples (Efron and Tibshirani 1993, chapter 13): the repeats of every cell are drawn anew, independently,
``RESAMPLES`` times, and the whole test is done on each draw.  Draws are seeded by the cell, so the same records always
give the same interval.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moebench.claims import select
from moebench.claims.spec import NUMERIC, Claim, Needs, Settings
from moebench.claims.values import AGREES, DISAGREES, SHORTEST, UNDECIDED, Floats, Series, compared, place, tested
from moebench.qs import printed_formulas

__all__ = ["AGREES", "DISAGREES", "UNDECIDED", "Floats", "compared", "place"]  # for modules that read outcomes

RESAMPLES = 2000

NOT_DECIDED, NOT_MEASURED, NO_EXPECTATION = "not decided", "not measured", "nothing claimed"


@dataclass(frozen=True)
class Outcome:
    """Result of a claim's comparison on comparable rows."""

    outcome: str
    reason: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    support: float | None = None
    """Yes-or-no tests: share of the resamples in which the test holds."""
    comparisons: int = 0
    """Number of evaluated pairs or groups."""
    planned: int = 0
    rows: tuple[int, ...] = ()
    context: tuple[tuple[str, Any], ...] = ()


def draws(key: str, repeats: Sequence[float] | Floats) -> Floats:
    """Median of a cell's repeats, and of ``RESAMPLES`` resamples of them; shape (1 + RESAMPLES,)."""
    values = np.asarray(repeats, dtype=float)
    n = len(values)
    chosen = np.random.default_rng(zlib.crc32(key.encode())).integers(0, n, (RESAMPLES, n))
    drawn = np.sort(values[chosen], axis=1)  # np.median takes twice as long for so few
    return np.concatenate([[np.median(values)], (drawn[:, (n - 1) // 2] + drawn[:, n // 2]) / 2])


def evaluate(
    claim: Claim, rows: Sequence[select.Row], values: dict[int, Floats], repeats: dict[int, int] | None = None
) -> list[Outcome]:
    """Evaluate a claim on rows, once for each context that its cells have.

    Args:
        claim: the claim, at the scale of the rows.
        rows: planned cells, with their statuses.
        values: per row with a value, its draws, shape (draws,): the value itself first, then resamples.
        repeats: per such row the number of repeats; None for values without spread (predictions).
    """
    chosen = select.select(claim, rows)
    if not chosen.rows:
        return [Outcome(NOT_MEASURED, "no cells of this study are compared in this way")]
    if claim.test == "infeasible":
        return [_infeasible(claim, rows, chosen, measured=repeats is not None)]
    by_context: dict[tuple[tuple[str, Any], ...], list[Comparison]] = {}
    for one in [p.members for p in chosen.pairs] or chosen.groups:
        by_context.setdefault(select.context(rows, one, claim), []).append(one)
    pairs = {p.members: p for p in chosen.pairs}
    made = []
    for known, members in by_context.items():
        one_context = [pairs[m] for m in members] if pairs else members
        made.append(replace(_one(claim, rows, values, repeats, one_context), context=known))
    return made


Comparison = tuple[int, ...]
_NOTHING = {True: "too few cells along the axis", False: "too few comparisons"}


def _one(
    claim: Claim,
    rows: Sequence[select.Row],
    values: dict[int, Floats],
    repeats: dict[int, int] | None,
    planned: Sequence[select.Pair | Comparison],
) -> Outcome:
    """Outcome in one context."""
    kept, notes = _comparable(claim, rows, values, planned)
    everything = list(dict.fromkeys(i for one in planned for i in _members(one)))
    lacking = [i for i in everything if i not in values]
    waiting = [i for i in lacking if rows[i].get("status") in (None, NOT_MEASURED, "damaged")]
    failed = [i for i in lacking if i not in waiting]
    notes[:0] = [_lost(rows, failed, everything)] * bool(failed)
    notes[:0] = [f"{len(waiting)} of {len(everything)} cells not measured"] * bool(waiting)
    series, short = _series(claim, rows, values, kept)
    notes += [f"{short} series of too few points left out"] * bool(short)
    made = tested(claim, series) if series else None
    few = _too_few(claim.needs or Needs(), claim, rows, series)
    if made is None:
        text = "; ".join([*notes, *([] if waiting else [few if few and claim.needs else _NOTHING[bool(claim.over)]])])
        return Outcome(NOT_MEASURED if waiting else NOT_DECIDED, text, planned=len(planned))
    used = tuple(dict.fromkeys(i for s in series for i in s.rows))
    count = sum(set(_members(one)) <= set(used) if isinstance(one, select.Pair) else bool(set(one) & set(used))
                for one in kept)  # fmt: skip
    shared: dict[str, Any] = {"comparisons": count, "planned": len(planned), "rows": used, "value": made.value}
    if repeats is not None and min(repeats[i] for i in used) < 2:
        return Outcome(UNDECIDED, "; ".join([*notes, "one run per cell, or no standard error: no interval"]), **shared)
    if repeats is not None:
        shared |= {"low": made.low, "high": made.high, "support": made.support}
    if made.outcome is None:
        return Outcome(NO_EXPECTATION, "; ".join(notes), **shared)
    outcome = made.outcome
    if waiting and repeats is not None:
        outcome = UNDECIDED
    elif few:
        outcome = NOT_DECIDED
        notes.append(few)
    elif outcome == UNDECIDED:
        notes.append("the interval holds values on both sides" if claim.test in NUMERIC else "resamples disagree")
    return Outcome(outcome, "; ".join(notes), **shared)


def _members(one: select.Pair | Comparison) -> Comparison:
    return one.members if isinstance(one, select.Pair) else one


def _comparable(
    claim: Claim, rows: Sequence[select.Row], values: dict[int, Floats], planned: Sequence[select.Pair | Comparison]
) -> tuple[list[select.Pair | Comparison], list[str]]:
    """The comparisons that have their cells and are of like ones (groups: the cells that they have), and what was
    removed."""
    kept: list[select.Pair | Comparison] = []
    removed: dict[tuple[str, ...], list[int]] = {}
    mixed = set[str]()
    for one in planned:
        present = tuple(i for i in _members(one) if i in values)
        # "The best of the others", or of all models, counts only if there are all of them.
        whole = isinstance(one, select.Pair) or _needs_all(claim)
        if len(present) < (len(_members(one)) if whole else 2):
            continue
        unlike = select.unlike(rows, present)
        if odd := tuple(name for name in unlike if name not in claim.may_differ):
            removed.setdefault(odd, []).append(present[0])
            continue
        mixed |= set(unlike)
        kept.append(one if isinstance(one, select.Pair) else present)
    pairs = [p for p in planned if isinstance(p, select.Pair)]
    if pairs and _needs_all(claim):
        numbers = [[pairs[n] for n in series] for series in select.along(claim, rows, pairs)]
        kept = [p for one in numbers if all(p in kept for p in one) for p in one]
    firsts = [_members(one)[0] for one in planned]
    notes = [f"never compared: cells that differ in {', '.join(odd)}: {len(some)} of {len(planned)} comparisons"
             + _settings(rows, some, firsts) for odd, some in removed.items()]  # fmt: skip
    return kept, notes + [f"compared although they differ in {', '.join(sorted(mixed))}"] * bool(mixed)


def _series(
    claim: Claim, rows: Sequence[select.Row], values: dict[int, Floats], kept: Sequence[select.Pair | Comparison]
) -> tuple[list[Series], int]:
    """Values along the claim's axis, or all in one if it has none; number of series with too few points."""
    pairs = [one for one in kept if isinstance(one, select.Pair)]
    if pairs:
        differences = compared(claim, values, pairs)
        grouped = select.along(claim, rows, pairs) if claim.over else [list(range(len(pairs)))]
        made = [Series(tuple(rows[pairs[n].of].get(claim.over[0]) if claim.over else n for n in numbers),
                       differences[:, numbers], tuple(i for n in numbers for i in pairs[n].members))
                for numbers in grouped]  # fmt: skip
    else:
        groups = [_members(one) for one in kept]
        made = [Series(tuple(rows[i].get(claim.over[0]) for i in group),
                       np.stack([values[i] for i in group], axis=1), group) for group in groups]  # fmt: skip
    if not claim.over:
        return made, 0
    shortest = max(SHORTEST.get(claim.test, 2), claim.needs.points if claim.needs else 0)
    long = [s for s in made if len(s.x) >= shortest]
    return long, len(made) - len(long)


def _too_few(needs: Needs, claim: Claim, rows: Sequence[select.Row], series: Sequence[Series]) -> str:
    """What the claim needs but lacks; an empty string if it has enough."""
    found = []
    if claim.over and len(series) < needs.series:
        found.append(f"needs {needs.series} series of {max(needs.points, 2)} points or more, has {len(series)}")
    points = sum(len(s.x) for s in series)
    if not claim.over and points < needs.points:
        found.append(f"needs {needs.points} comparisons, has {points}")
    for column, wanted in needs.cover.items():
        has = {rows[i].get(column) for s in series for i in s.rows}
        lacks = [str(v) for v in wanted if v not in has]
        found += [f"needs {column} {', '.join(lacks)}"] * bool(lacks)
    return "; ".join(found)


def _lost(rows: Sequence[select.Row], failed: list[int], everything: list[int]) -> str:
    """Number of cells without a value, which, and why."""
    why = ", ".join(f"{n} {status}" for status, n in Counter(str(rows[i].get("status")) for i in failed).items())
    return f"{len(failed)} of {len(everything)} cells have no value: {why}" + _settings(rows, failed, everything)


def _settings(rows: Sequence[select.Row], some: Sequence[int], every: Sequence[int]) -> str:
    """The settings that distinguish some rows from the rest, in brackets."""

    def known(numbers: Iterable[int], column: str) -> list[Any]:
        return list(dict.fromkeys(rows[i].get(column) for i in numbers))

    found = [f"{column} {', '.join(map(str, own))}" for column in select.TOLD
             if 0 < len(own := known(some, column)) < len(known(every, column))]  # fmt: skip
    return f" ({'; '.join(found)})" if found else ""


def _needs_all(claim: Claim) -> bool:
    """Whether a test on some of the values of ``over`` is none: who is best, or how far models are apart."""
    return claim.test == "rank" or (claim.test == "spread" and bool({"model", "draft_model"} & set(claim.over)))


_KNOWS_MEMORY = ("ok", "invalid", "oom_weights", "oom_kv", "oom_activation")
"""Statuses of cells that were tried and fit, or did not fit."""


def _infeasible(claim: Claim, rows: Sequence[select.Row], chosen: select.Selection, measured: bool) -> Outcome:
    """Whether exactly the expected cells, and all of them, run out of memory.

    ``status`` of a prediction is ok or infeasible.  A measured cell that is ``infeasible`` was not tried: only a
    prediction says so.  It decides nothing, and neither does one that crashed, timed out or was refused.
    """
    assert claim.expect is not None
    known = _KNOWS_MEMORY if measured else (*_KNOWS_MEMORY, "infeasible")
    tried = [i for i in chosen.rows if rows[i].get("status") in known]
    waiting, planned = len(chosen.rows) - len(tried), len(chosen.rows)
    shared: dict[str, Any] = {"comparisons": len(tried), "planned": planned, "rows": chosen.rows,
                              "context": select.context(rows, chosen.rows, claim)}  # fmt: skip
    lacking = f"{waiting} of {planned} cells not measured, not tried, refused or lost"
    if not tried:
        return Outcome(NOT_MEASURED, lacking, **shared | {"rows": ()})
    bad = [i for i in tried if str(rows[i]["status"]).startswith(("oom", "infeasible"))]
    expected = {tuple(c) for c in claim.expect.cells}
    at = {i: tuple(rows[i].get(c) for c in claim.over) for i in tried}
    odd = sorted({at[i] for i in tried if (i in bad) != (at[i] in expected)})
    text = [f"{len(bad)} cells do not fit", *([f"different: {', '.join(map(str, odd))}"] * bool(odd))]
    text += [lacking] * bool(waiting)
    outcome = UNDECIDED if waiting else AGREES if not odd else DISAGREES
    return Outcome(outcome, "; ".join(text), value=float(len(bad)), support=float(not odd), **shared)


def computed(claim: Claim, points: Sequence[select.Row]) -> Outcome | None:
    """A claim about points of the cost model (rows of the table ``computed``): it must hold at every one of them.

    The value is that of the point which speaks most against the claim.  None without such points.
    """
    assert claim.expect is not None
    rows = [row for row in points if select.matches(row, claim.where)]
    if isinstance(claim.to, dict):
        values = _computed_ratios(claim, rows, claim.to)
    else:
        values = [float(row[claim.metric]) for row in rows if row.get(claim.metric) is not None]
    if not values:
        return None
    fit = [place(v, v, claim.expect) == AGREES for v in values]
    low, high = claim.expect.min, claim.expect.max
    middle = (low + high) / 2 if low is not None and high is not None else np.inf if high is None else -np.inf
    worst = max(values, key=lambda v: abs(v - middle) if np.isfinite(middle) else -v * np.sign(middle))
    reason = f"{sum(fit)} of {len(fit)} computed points are as claimed"
    return Outcome(AGREES if all(fit) else DISAGREES, reason, value=worst, comparisons=len(fit), planned=len(fit))


def _computed_ratios(claim: Claim, rows: list[select.Row], to: Settings) -> list[float]:
    """``of`` / ``to`` at every point that both have."""
    of = claim.of if isinstance(claim.of, dict) else {}

    def by_point(settings: Settings) -> dict[tuple[Any, ...], float]:
        return {tuple(row.get(k) for k in _POINT): float(row[claim.metric])
                for row in rows if select.matches(row, settings) and row.get(claim.metric) is not None}  # fmt: skip

    ours, theirs = by_point(of), by_point(to)
    return [value / theirs[point] for point, value in ours.items() if point in theirs]


_POINT = ("model", "gpus", "quality", "context_tokens")
"""Key that a computed point and a printed number share."""


def printed(claim: Claim) -> Outcome:
    """A claim about the paper's own printed numbers."""
    assert claim.printed is not None and claim.expect is not None
    given, reason = claim.printed, "from the paper's own printed numbers"
    if given.contexts:
        count = sum(printed_formulas.of_one_capacity(given.contexts, batches) for batches in given.batches)
        value = count / (planned := len(given.contexts) * len(given.batches))
        reason = f"{count} of {planned} of the paper's own printed numbers are"
    else:
        value = sum(given.divide) / sum(given.by)
    return Outcome(place(value, value, claim.expect), reason, value=value)
