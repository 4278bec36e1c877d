"""A plan within a budget of GPU-hours: the cells that decide the most claims.

Choosing sets of cells (a claim needs all of its cells, claims share cells, cells share the load of an engine) for the
most claims is a knapsack problem with shared items, which has no fast exact solution.  The usual greedy rule is used:
again and again the claim whose missing cells decide the most claims per GPU-hour, until none fits.  It is
deterministic; equal claims go by their order in the claim files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from moebench import tablerows
from moebench.claims import evaluate as ev
from moebench.claims import select
from moebench.claims.spec import OF_CELLS, Claim, from_plan
from moebench.errors import ConfigError
from moebench.predict import cell_seconds

Plan = dict[str, Any]


def needs(plan: Plan) -> dict[str, set[str]]:
    """The cells each claim needs, by claim; claims that no experiment of the study decides are left out.

    Cells predicted not to fit are not needed (they give no value), but for a claim about what does not fit.
    """
    rows = list(rows_of(plan))
    found: dict[str, set[str]] = {}
    for paper in from_plan(plan):
        for claim in paper.claims:
            here = claim.at_scale(plan["scale"])
            if here is None or claim.test not in OF_CELLS or claim.metric == "accuracy":
                continue
            listed = [r for r in rows if claim.id in plan["experiments"][r["experiment"]]["claims"]]
            if cells := _cells(plan, here, listed):
                found[claim.id] = cells
    return found


def rows_of(plan: Plan) -> Iterable[dict[str, Any]]:
    """The plan's rows as claims select them: knobs, labels of axes, small models by the name they stand for."""
    stands_for = (plan.get("claims") or {}).get("stands_for") or {}
    for row in tablerows.plan_rows({"jobs": {}} | plan):
        small = {k: stands_for[row[k]] for k in ("model", "draft_model") if row[k] in stands_for}
        yield json.loads(row["labels"]) | row | small


def _cells(plan: Plan, claim: Claim, rows: list[dict[str, Any]]) -> set[str]:
    chosen = select.select(claim, rows)
    keys = [f"{row['engine']}/{row['cell']}" for row in rows]
    if claim.test == "infeasible":
        return {keys[i] for i in chosen.rows}
    fit = [plan["cells"][key]["predicted"] for key in keys]
    good = [p["fits"] is not False and p["batch_fits"] is not False for p in fit]
    # Whether the cells that fit are enough for the test is found by doing it on values that are all alike.
    alike = {i: np.ones(1) for i in chosen.rows if good[i]}
    outcomes = ev.evaluate(claim, rows, alike)
    return {keys[i] for o in outcomes if o.value is not None for i in o.rows}


def gpu_hours(plan: Plan, cells: Iterable[str]) -> float:
    """Expected GPU-hours of loading the engines of some cells and measuring them, each by a run of its own."""
    jobs, total = plan["jobs_settings"], 0.0
    engines = set()
    for key in cells:
        cell = plan["cells"][key]
        engines.add(cell["engine"])
        total += plan["engines"][cell["engine"]]["gpus"] * cell_seconds(cell, jobs["cell_overhead_s"])
    for name in engines:
        engine = plan["engines"][name]
        load = jobs["load_s"] + (engine["predicted"]["weight_bytes"] or 0) / jobs["weights_bytes_per_s"]
        total += engine["gpus"] * load
    return total / 3600


def choose(plan: Plan, budget: float) -> dict[str, Any]:
    """The cells to keep within ``budget`` GPU-hours, and what is left out.

    Returns ``cells``, ``decides`` (claims), ``left_out`` (claim -> GPU-hours it would cost more), all of the
    claims that some experiment decides.  Raises ConfigError if not even one claim fits.
    """
    wanted = needs(plan)
    whole = gpu_hours(plan, plan["cells"])
    if whole <= budget:
        return {"cells": list(plan["cells"]), "decides": list(wanted), "left_out": {}}
    kept: set[str] = set()
    spent = 0.0
    left = dict(wanted)
    while left:
        best, score, cost = "", 0.0, 0.0
        for claim, cells in left.items():
            union = kept | cells
            price = gpu_hours(plan, union)
            decided = sum(other <= union for other in left.values())
            rate = decided / max(price - spent, 1e-9)
            if price <= budget and rate > score:
                best, score, cost = claim, rate, price
        if not best:
            break
        kept |= left[best]
        spent = cost
        left = {c: cells for c, cells in left.items() if not cells <= kept}
    if not kept:
        cheapest = min((gpu_hours(plan, cells), c) for c, cells in wanted.items()) if wanted else None
        text = f"; the cheapest, {cheapest[1]}, takes {cheapest[0]:.2f}" if cheapest else ""
        raise ConfigError(f"budget_gpu_hours {budget:g}: no claim of study {plan['study']} can be decided in it{text}")
    return {
        "cells": [key for key in plan["cells"] if key in kept],
        "decides": [c for c in wanted if c not in left],
        "left_out": {c: round(gpu_hours(plan, kept | cells) - spent, 2) for c, cells in left.items()},
    }


def reduce(plan: Plan, budget: float) -> None:
    """Leave only the chosen cells in a plan that has no jobs yet, and note under ``budget`` what was left out."""
    chosen = choose(plan, budget)
    kept, before = set(chosen["cells"]), len(plan["cells"])
    for experiment in plan["experiments"].values():
        experiment["rows"] = [r for r in experiment["rows"] if f"{r['engine']}/{r['cell']}" in kept]
    for name, engine in list(plan["engines"].items()):
        engine["cells"] = [c for c in engine["cells"] if f"{name}/{c}" in kept]
        if not engine["cells"]:
            del plan["engines"][name]
    plan["cells"] = {key: cell for key, cell in plan["cells"].items() if key in kept}
    plan["budget"] = {"gpu_hours": budget, "cells_left_out": before - len(kept), "decides": chosen["decides"],
                      "left_out": chosen["left_out"], "figures_left_out": _drop_figures(plan)}  # fmt: skip


def _drop_figures(plan: Plan) -> list[str]:
    """Take out figures that the kept cells cannot fill, and experiments of which nothing is left; the figures' ids."""
    from moebench.figures import cannot_draw

    dropped = cannot_draw({"jobs": {}} | plan)
    for name, experiment in list(plan["experiments"].items()):
        experiment["figures"] = [f for f in experiment["figures"] if f["id"] not in dropped]
        if not any(experiment.get(what) for what in ("rows", "models", "computed", "accuracy")):
            del plan["experiments"][name]
    return dropped
