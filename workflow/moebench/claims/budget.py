"""A plan within a budget of GPU-hours: the cells that decide the most claims.

Choosing sets of cells (a claim needs all of its cells, claims share cells, cells share the load of an engine) for the
most claims is a knapsack problem with shared items, which has no fast exact solution.  The usual greedy rule is used:
repeatedly the claim whose missing cells decide the most claims per GPU-hour, until none fits.  It is
deterministic; equal claims go by their order in the claim files.

Cells of speed are named ``ENGINE/CELL``, those of accuracy ``HARNESS:ENGINE/CELL``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from moebench.claims import accuracy_rows, select
from moebench.claims import evaluate as ev
from moebench.claims.spec import OF_CELLS, Claim, from_plan
from moebench.columns import Row
from moebench.cost.seconds import cell_seconds
from moebench.errors import ConfigError
from moebench.formats.plan import Plan
from moebench.plan.derived import derived_models
from moebench.tables import cell_rows
from moebench.tables.accuracy import MEAN, unmeasured


def needs(plan: Plan) -> dict[str, set[str]]:
    """The cells that each claim needs; claims that no experiment of the study decides are left out.

    Cells predicted not to fit are not needed (they give no value), except for a claim about what does not fit.
    """
    rows, asked = defaultdict(list), list(answers_of(plan))
    for row in rows_of(plan):
        rows[row["experiment"]].append(row)
    found: dict[str, set[str]] = {}
    for paper in from_plan(plan):
        for claim in paper.claims:
            here = claim.at_scale(plan["scale"])
            if here is None or claim.test not in OF_CELLS:
                continue
            deciding = [name for name, e in plan["experiments"].items() if claim.id in e["claims"]]
            speed = [row for name in deciding for row in rows[name]]
            if claim.metric == "accuracy":
                cells = _tasks(plan, here, [r for r in asked if r["experiment"] in deciding], speed)
            else:
                cells = _cells(plan, here, speed)
            if cells:
                found[claim.id] = cells
    return found


def rows_of(plan: Plan) -> Iterable[Row]:
    """The plan's rows as claims select them: knobs, labels of axes, small models by the name they stand for.

    Unsupported points are left out: nothing measures them.
    """
    for row in cell_rows.plan_rows(plan):
        if f"{row['engine']}/{row['cell']}" not in plan["cells"]:
            continue
        yield json.loads(row["labels"]) | row | _small(plan, row)


def answers_of(plan: Plan) -> Iterator[Row]:
    """Accuracy rows for claims, one per task and mean; ``members``: their cells."""
    asked = [row for row in unmeasured(plan) if row["status"] != cell_rows.UNSUPPORTED]
    counted: dict[tuple[Any, ...], set[str]] = {}
    for row in asked:
        key = f"{row['engine']}/{row['cell']}"
        if plan["accuracy"][row["harness"]]["cells"][key]["task"]["in_mean"]:
            counted.setdefault(_of_block(row), set()).add(f"{row['harness']}:{key}")
    for row in accuracy_rows.rows(asked):
        own = {f"{row['harness']}:{row['engine']}/{row['cell']}"}
        members = counted.get(_of_block(row), set()) if row["task"] == MEAN else own
        if members:  # a block whose tasks do not count in means has none
            yield row | _small(plan, row) | {"members": members}


def _of_block(row: Row) -> tuple[Any, ...]:
    return tuple(row[k] for k in ("experiment", "block", "harness", "engine", "top_k"))


def _small(plan: Plan, row: Row) -> Row:
    stands_for = claims["stands_for"] if (claims := plan.get("claims")) else {}
    return {k: stands_for[row[k]] for k in ("model", "draft_model") if row.get(k) in stands_for}


def _cells(plan: Plan, claim: Claim, rows: list[Row]) -> set[str]:
    chosen = select.select(claim, rows)
    keys = [f"{row['engine']}/{row['cell']}" for row in rows]
    if claim.test == "infeasible":
        return {keys[i] for i in chosen.rows}
    # Run the test on equal values to see whether the cells that fit are enough for it.
    alike = {i: np.ones(1) for i in chosen.rows if fits(plan, rows[i])}
    outcomes = ev.evaluate(claim, rows, alike)
    return {keys[i] for o in outcomes if _decides(o) for i in o.rows}


def _decides(outcome: ev.Outcome) -> bool:
    return outcome.value is not None and outcome.outcome != ev.NOT_DECIDED


def fits(plan: Plan, row: Row) -> bool:
    """Whether a speed cell is predicted to have a value."""
    predicted = plan["cells"][f"{row['engine']}/{row['cell']}"]["predicted"]
    return predicted["fits"] is not False and predicted["batch_fits"] is not False


def _tasks(plan: Plan, claim: Claim, asked: list[Row], speed: list[Row]) -> set[str]:
    """The cells of a claim about accuracy, and the speed cells that it requires."""
    chosen = select.select(claim, asked)
    engines = [plan["accuracy"][row["harness"]]["engines"][row["engine"]] for row in asked]
    alike = {i: np.ones(1) for i in chosen.rows if engines[i]["predicted"]["fits"] is not False}
    timed: dict[tuple[Any, ...], set[str]] = {}
    if claim.provided:
        for pair in select.select(accuracy_rows.of_speed(claim), speed).pairs:
            if all(fits(plan, speed[i]) for i in pair.members):
                loaded = tuple(accuracy_rows.loaded(speed[i]) for i in pair.members)
                timed.setdefault(loaded, set()).update(f"{speed[i]['engine']}/{speed[i]['cell']}" for i in pair.members)
        joined = {
            pair.of: timed.get(tuple(accuracy_rows.loaded(asked[i]) for i in pair.members)) for pair in chosen.pairs
        }
        alike = {i: v for i, v in alike.items() if joined.get(i, set()) is not None}
    used = {i for o in ev.evaluate(claim, asked, alike) if _decides(o) for i in o.rows}
    found = {cell for i in used for cell in asked[i]["members"]}
    return found | {cell for i in used if claim.provided for cell in joined.get(i) or ()}


# ------------------------------------------------------------------------------------------- prices


@dataclass(frozen=True)
class Prices:
    """What the cells of a plan take, in GPU-seconds: each by a run of its own (also those that a longer run may give),
    what loads them, and derived checkpoints."""

    runs: dict[str, float]
    loads: dict[str, tuple[str, float, tuple[str, ...]]]
    """Per cell: its load, the time of that, and the jobs that derive the loaded checkpoint."""
    derive: dict[str, float]

    def gpu_hours(self, cells: Iterable[str], paid: Iterable[tuple[str, float, tuple[str, ...]]] = ()) -> float:
        """Price of some cells: each run once, with loads and derivation jobs shared, and without loads already paid."""
        cells, there = list(cells), set(paid)
        loads = {self.loads[cell] for cell in cells} - there
        made = {j for _, _, jobs in loads for j in jobs} - {j for _, _, jobs in there for j in jobs}
        seconds = sum(self.runs[c] for c in cells) + sum(s for _, s, _ in loads) + sum(self.derive[j] for j in made)
        return seconds / 3600


def prices(plan: Plan) -> Prices:
    """The prices of a plan's cells, including accuracy cells."""
    jobs, runs, loads = plan["jobs_settings"], dict[str, float](), dict[str, tuple[str, float, tuple[str, ...]]]()
    makers = {model: job for job, spec in plan.get("derive_jobs", {}).items() for model in spec["models"]}
    seconds = {("", key): cell_seconds(cell, jobs["cell_overhead_s"]) for key, cell in plan["cells"].items()}
    for harness, part in plan["accuracy"].items():
        seconds |= {(f"{harness}:", key): cell["predicted"]["run_s"] for key, cell in part["cells"].items()}
    for prefix, engines in [("", plan["engines"]), *((f"{h}:", p["engines"]) for h, p in plan["accuracy"].items())]:
        for name, engine in engines.items():
            load = jobs["load_s"] + (engine["predicted"]["weight_bytes"] or 0) / jobs["weights_bytes_per_s"]
            derived = tuple(dict.fromkeys(makers[m] for m in derived_models({name: engine}) if m in makers))
            for key in (f"{name}/{cell_id}" for cell_id in engine["cells"]):
                runs[f"{prefix}{key}"] = engine["gpus"] * seconds[prefix, key]
                loads[f"{prefix}{key}"] = (f"{prefix}{name}", engine["gpus"] * load, derived)
    made = {job: spec["gpus"] * spec["expected_s"] for job, spec in plan.get("derive_jobs", {}).items()}
    return Prices(runs, loads, made)


class Choice(TypedDict):
    """Cells to keep, the claims they decide, and the claims left out with the additional GPU-hours of each."""

    cells: list[str]
    decides: list[str]
    left_out: dict[str, float]


def choose(plan: Plan, budget: float) -> Choice:
    """The cells to keep within ``budget`` GPU-hours, and what is left out, of the claims that some experiment decides.

    Raises ConfigError if not even one claim fits.
    """
    wanted, price = needs(plan), prices(plan)
    everything = list(price.runs)
    if price.gpu_hours(everything) <= budget:
        return {"cells": everything, "decides": list(wanted), "left_out": {}}
    kept: set[str] = set()
    spent = 0.0
    left = dict(wanted)  # claim -> its missing cells
    more = {claim: price.gpu_hours(cells) for claim, cells in left.items()}
    while left:
        best, score = "", 0.0
        for claim, cells in left.items():
            decided = sum(other <= cells for other in left.values())
            rate = decided / max(more[claim], 1e-9)
            if spent + more[claim] <= budget and rate > score:
                best, score = claim, rate
        if not best:
            break
        spent += more[best]
        kept |= left[best]
        left = {c: cells - kept for c, cells in left.items() if not cells <= kept}
        paid = {price.loads[cell] for cell in kept}
        more = {claim: price.gpu_hours(cells, paid) for claim, cells in left.items()}
    if not kept:
        cheapest = min((price.gpu_hours(cells), c) for c, cells in wanted.items()) if wanted else None
        text = f"; the cheapest, {cheapest[1]}, takes {cheapest[0]:.2f}" if cheapest else ""
        raise ConfigError(f"budget_gpu_hours {budget:g}: no claim of study {plan['study']} can be decided in it{text}")
    return {
        "cells": [key for key in everything if key in kept],
        "decides": [c for c in wanted if c not in left],
        "left_out": {c: round(more[c], 2) for c in left},
    }


def reduce(plan: Plan, budget: float) -> set[str]:
    """Leave only the chosen cells in a plan that has no jobs yet, and note under ``budget`` what was left out.

    The parts of accuracy are left as they are, since their jobs change: the cells to keep of them are returned.
    """
    chosen = choose(plan, budget)
    kept = set(chosen["cells"])
    speed, tasks = len(plan["cells"]), sum(len(part["cells"]) for part in plan["accuracy"].values())
    leave(plan, kept)
    answered = kept - set(plan["cells"])
    plan["budget"] = {
        "gpu_hours": budget,
        "cells_left_out": speed - len(plan["cells"]),
        "accuracy_cells_left_out": tasks - len(answered),
        "decides": chosen["decides"],
        "left_out": chosen["left_out"],
    }
    return answered


def leave(plan: Plan, kept: set[str]) -> None:
    """Remove all other cells from a plan without jobs, except for the accuracy part."""
    for experiment in plan["experiments"].values():
        experiment["rows"] = [r for r in experiment["rows"] if f"{r['engine']}/{r['cell']}" in kept]
        if experiment.get("accuracy"):
            experiment["accuracy"] = [
                r for r in experiment["accuracy"] if f"{r['harness']}:{r['engine']}/{r['cell']}" in kept
            ]
    for name, engine in list(plan["engines"].items()):
        engine["cells"] = [c for c in engine["cells"] if f"{name}/{c}" in kept]
        if not engine["cells"]:
            del plan["engines"][name]
    plan["cells"] = {key: cell for key, cell in plan["cells"].items() if key in kept}
