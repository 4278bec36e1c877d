"""Number of comparisons of each claim in a plan, and whether they can decide it, before anything is measured."""

from __future__ import annotations

from moebench.claims import budget, select
from moebench.claims import evaluate as ev
from moebench.claims.spec import OF_CELLS, Claim, from_plan
from moebench.claims.table import needed
from moebench.columns import Row
from moebench.formats.plan import Plan
from moebench.qs import points
from moebench.text import table


def rows(plan: Plan) -> list[Row]:
    """A row per claim: ``planned`` comparisons, those that ``fit`` by the predicted memory (pairs, or groups of cells),
    what it ``needs``, and ``why_not`` if they do not decide it (empty if they do)."""
    cells, asked = list(budget.rows_of(plan)), list(budget.answers_of(plan))
    decided, computed_points = budget.needs(plan), list(points.rows(plan))
    made = []
    for paper in from_plan(plan):
        for claim in paper.claims:
            listed = {name for name, e in plan["experiments"].items() if claim.id in e["claims"]}
            here = claim.at_scale(plan["scale"])
            row = {"claim": claim.id, "test": claim.test, "needs": needed(here or claim), "planned": 0, "fit": 0}
            row["why_not"] = claim.undecidable
            if claim.test == "computed":
                found = ev.computed(claim, [p for p in computed_points if p["experiment"] in listed])
                row["planned"] = row["fit"] = found.planned if found else 0
                row["why_not"] = "the cost model's own points: a prediction, nothing to measure"
            elif claim.test not in OF_CELLS:
                row["why_not"] = "" if claim.test == "printed" or listed else "no experiment of this study lists it"
            elif here is None:
                row["why_not"] = "it has no counterpart in the grid of this study"
            else:
                mine = [r for r in (asked if claim.metric == "accuracy" else cells) if r["experiment"] in listed]
                row["planned"], row["fit"] = _counted(plan, here, mine)
                if not row["why_not"] and claim.id not in decided:
                    row["why_not"] = "fewer comparisons fit than it needs" if mine else "no experiment lists it"
            made.append(row)
    return made


def _counted(plan: Plan, claim: Claim, mine: list[Row]) -> tuple[int, int]:
    """Comparisons, and those whose cells (groups: two of them at least) are predicted to fit."""
    chosen = select.select(claim, mine)
    pairs = [p.members for p in chosen.pairs]
    if claim.test == "infeasible":
        return len(chosen.rows), len(chosen.rows)
    fits = [claim.metric == "accuracy" or budget.fits(plan, row) for row in mine]
    least = [len(p) for p in pairs] or [2] * len(chosen.groups)
    every = pairs or list(chosen.groups)
    return len(every), sum(sum(fits[i] for i in one) >= n for one, n in zip(every, least, strict=True))


def text(made: list[Row], study: str) -> str:
    """The table as text."""
    lines = [
        [r["claim"], r["test"], str(r["planned"] or ""), str(r["fit"] or ""), r["needs"], r["why_not"]] for r in made
    ]
    ready = sum(not r["why_not"] for r in made)
    return "\n".join([
        table(["claim", "test", "planned", "fit", "needs", "cannot be decided, because"], lines), "",
        f"study {study}: {len(made)} claims, {ready} that the study can decide",
    ])  # fmt: skip
