"""The first screen of the report: four cards, the findings, and experiments by state. No HTML except small drawings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moebench.claims import evaluate as ev
from moebench.claims import spec
from moebench.claims.show import counts as verdict_counts
from moebench.claims.values import ends
from moebench.formats.plan import Plan
from moebench.report import content
from moebench.tables import stats
from moebench.tables.cell_rows import NOT_MEASURED

Json = Mapping[str, Any]
MOST_FINDINGS = 8
_YES_OR_NO = ("monotone", "rank", "steepest")
_AS_SHARE = ("mean", "max", "min", "spread", "every", "share")
"""Tests whose value is a share, unless the claim compares by ratio."""
_UNITS = {"trend": "{} per doubling", "exponent": "exponent {}", "ratio": "{} times", "gain": "gain {}",
          "drop": "drop {}", "spread": "spread {}"}  # fmt: skip
"""Format of the value of a test or a comparison that is neither a share nor a yes or no."""
_WIDE, _HIGH = 120, 16
"""Size of a finding's drawing, in CSS pixels."""


@dataclass(frozen=True)
class Card:
    """A number of the study, its meaning, and further details."""

    title: str
    number: str
    words: str
    href: str


@dataclass(frozen=True)
class Finding:
    """A comparison decided by the cells of this study: the sentence, its outcome, the effect here."""

    claim: str
    statement: str
    outcome: str
    effect: str
    interval: str
    expected: str
    comparisons: str
    drawing: str


def cards(
    measured: pd.DataFrame, counted: list[tuple[str, str, int]], total: int, claimed: pd.DataFrame, compared: bool
) -> list[Card]:
    """Cards on measured cells, their stability, the cost model, and the claims.

    ``counted``: status, words and number of cells; ``compared``: the page has a section on the cost model.
    """
    good = measured[measured["status"] == "ok"]
    others = ", ".join(f"{n} {words}" for status, words, n in counted if status != "ok") or "nothing failed"
    return [
        Card("Cells measured", f"{len(good)} of {total}", others, "#failures"),
        _stability(good),
        _model(good, compared),
        _claims(claimed),
    ]


def _stability(good: pd.DataFrame) -> Card:
    unstable, drift = int(good["unstable"].fillna(False).sum()), good["canary_drift"].dropna()
    words = f"coefficient of variation or canary gap above {stats.UNSTABLE_CV:.0%}"
    if len(drift):
        words += f"; canary drift {drift.median():.0%} (median)"
    return Card("Unstable cells", f"{unstable} of {len(good)}", words, "#metrics")


def _model(good: pd.DataFrame, compared: bool) -> Card:
    ratios, refused = good["residual_e2e"].dropna(), int(good["prediction_refused"].notna().sum())
    words = f"measured / roofline bound, median of {len(ratios)} cells" if len(ratios) else "no cell has a prediction"
    if refused:
        words += f"; {content.counted(refused, 'prediction')} refused"
    return Card(
        "Against the roofline",
        f"{ratios.median():.3g}x" if len(ratios) else "none",
        words,
        "#residuals-section" if compared else "",
    )


def _claims(claimed: pd.DataFrame) -> Card:
    tally = verdict_counts(claimed)
    confirmed, refuted = tally.get("confirmed", 0), tally.get("refuted", 0)
    open_ = sum(tally.values()) - confirmed - refuted
    words = f"{confirmed} confirmed, {refuted} refuted, {open_} open"
    return Card("Claims of the papers", f"{confirmed + refuted} of {sum(tally.values())} decided", words, "#claims")


# ---------------------------------------------------------------------------------------- findings


def tried(claimed: pd.DataFrame) -> tuple[int, int, int]:
    """The papers' comparisons on the cells of this study: how many agree, disagree, or are within noise."""
    outcomes = claimed["outcome"].value_counts()
    agree, disagree, noise = (int(outcomes.get(name, 0)) for name in (ev.AGREES, ev.DISAGREES, ev.UNDECIDED))
    return agree, disagree, noise


def findings(plan: Plan, claimed: pd.DataFrame) -> list[Finding]:
    """The comparisons that the cells decide.

    One for each claim family (``MIB-F05-01-DS`` and ``-QW`` are one): those with an interval first, then by number of
    comparisons; in the papers' order at the end.  No more than ``MOST_FINDINGS``.
    """
    decided = claimed[claimed["outcome"].isin([ev.AGREES, ev.DISAGREES]) & (claimed["comparisons"] > 0)]
    scale, claims = plan["scale"], {claim.id: claim for paper in spec.from_plan(plan) for claim in paper.claims}
    ranked = decided.assign(
        interval=decided["value_low"].notna(), family=decided["claim"].str.extract(r"^(.*?-[A-Z]\d+)", expand=False)
    ).sort_values(["interval", "comparisons", "unstable_cells"], ascending=[False, False, True], kind="stable")
    chosen = ranked.drop_duplicates("family").head(MOST_FINDINGS).sort_index()
    return [_finding(row, claims.get(row["claim"]), scale) for row in chosen.to_dict("records")]


def _finding(row: Mapping[Any, Any], claim: spec.Claim | None, scale: str) -> Finding:
    here = claim.at_scale(scale) if claim else None
    low, high = ends(here.expect) if here and here.expect else (-math.inf, math.inf)
    by = here.as_ if here and here.as_ and row["test"] in _AS_SHARE else row["test"]
    number = _percent if row["test"] in _AS_SHARE and by != "ratio" else _plain
    known = row["test"] not in _YES_OR_NO and pd.notna(row["value_low"])
    expected = row["expected_here"] or row["expected"]
    if number is _percent and (low, high) != (-math.inf, math.inf):
        expected = _range(low, high)
    return Finding(
        claim=row["claim"],
        statement=row["statement"],
        outcome=row["outcome"],
        effect=_UNITS.get(by, "{}").format(_effect(row, number)),
        interval=f"{number(row['value_low'])} to {number(row['value_high'])}" if known else "",
        expected=expected,
        comparisons=content.counted(int(row["comparisons"]), "comparison"),
        drawing=_draw(row, low, high) if known else "",
    )


def _effect(row: Mapping[Any, Any], number: Any) -> str:
    if row["test"] in _YES_OR_NO:
        holds = "" if pd.isna(row["support"]) else f" (in {row['support']:.0%} of resamples)"
        return f"{'yes' if row['value'] else 'no'}{holds}"
    return str(number(row["value"]))


def _percent(value: float) -> str:
    return f"{value:.0%}" if abs(value) >= 0.095 else f"{value:.1%}"


def _plain(value: float) -> str:
    return f"{value:.3g}"


def _range(low: float, high: float) -> str:
    if low == -math.inf:
        return f"at most {_percent(high)}"
    return f"at least {_percent(low)}" if high == math.inf else f"{_percent(low)} to {_percent(high)}"


def _draw(row: Mapping[Any, Any], low: float, high: float) -> str:
    """The interval here (dot and line) and the range that the paper's sentence allows (band), as SVG."""
    shown = [row["value_low"], row["value_high"], *(v for v in (low, high) if math.isfinite(v))]
    first, last = min(shown), max(shown)
    margin = 0.12 * (last - first or abs(last) or 1)
    first, last = first - margin, last + margin

    def x(value: float) -> float:
        return float(round(_WIDE * (min(max(value, first), last) - first) / (last - first), 1))

    middle = _HIGH / 2
    band = f'<rect class="band" x="{x(low)}" y="2" width="{max(2.0, x(high) - x(low)):.1f}" height="{_HIGH - 4}"/>'
    line = f'<path class="interval" d="M{x(row["value_low"])} {middle}H{x(row["value_high"])}"/>'
    dot = f'<circle class="value" cx="{x(row["value"])}" cy="{middle}" r="3"/>'
    size = f'width="{_WIDE}" height="{_HIGH}" viewBox="0 0 {_WIDE} {_HIGH}"'
    return f'<svg class="effect" {size} aria-hidden="true">{band}{line}{dot}</svg>'


# ---------------------------------------------------------------------------------------- experiments


@dataclass(frozen=True)
class State:
    """Cells of an experiment by state: measured and stable, measured and unstable, failed, not measured."""

    stable: int
    unstable: int
    unsupported: int
    failed: int
    missing: int

    @property
    def shares(self) -> list[tuple[str, float]]:
        """Class and share of each state that has cells, in percent."""
        named = {"ok": self.stable, "unstable": self.unstable, "unsupported": self.unsupported,
                 "failed": self.failed, "missing": self.missing}  # fmt: skip
        total = sum(named.values())
        return [(name, 100 * n / total) for name, n in named.items() if n]

    @property
    def named(self) -> list[tuple[str, int]]:
        """Label and number of cells of each state, in the order of the table."""
        return [("stable", self.stable), ("unstable", self.unstable), ("unsupported", self.unsupported),
                ("failed", self.failed), ("not measured", self.missing)]  # fmt: skip

    @property
    def worst(self) -> str:
        """Class of the most important state for a reader."""
        order = {"failed": self.failed, "missing": self.missing, "unstable": self.unstable,
                 "ok": self.stable, "unsupported": self.unsupported}  # fmt: skip
        return next(name for name, n in order.items() if n)

    def __str__(self) -> str:
        named = {"measured": self.stable, "measured, unstable": self.unstable, "unsupported": self.unsupported,
                 "failed": self.failed, "not measured": self.missing}  # fmt: skip
        return ", ".join(f"{n} {words}" for words, n in named.items() if n)


def state(rows: pd.DataFrame) -> State | None:
    """Cells of one experiment by state; None for an experiment without cells."""
    if rows.empty:
        return None
    tally = Counter(rows["status"])
    unstable = int(rows.loc[rows["status"] == "ok", "unstable"].fillna(False).sum())
    failed = len(rows) - tally["ok"] - tally["unsupported"] - tally[NOT_MEASURED]
    return State(tally["ok"] - unstable, unstable, tally["unsupported"], failed, tally[NOT_MEASURED])
