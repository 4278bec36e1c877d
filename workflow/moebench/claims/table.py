"""The table ``claims``: one row per claim and context, from the tables of a study.

A verdict is about the paper's own models on the paper's machine.  The same comparison on anything else is given beside
it (``outcome``), with what it was evaluated on, and decides nothing about the paper.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from moebench import accuracy, columns
from moebench.claims import accuracy_rows, predicted_draws, select
from moebench.claims import evaluate as ev
from moebench.claims.spec import OF_CELLS, Claim, ClaimFile, Expect, from_plan
from moebench.columns import Row
from moebench.formats.plan import ExperimentPlan, Plan, ReferenceExperiment
from moebench.tables import join, parity, parquet

CONFIRMED, REFUTED, INCONCLUSIVE = "confirmed", "refuted", "inconclusive"
VERDICTS = {
    ev.AGREES: CONFIRMED, ev.DISAGREES: REFUTED, ev.UNDECIDED: INCONCLUSIVE, ev.NOT_DECIDED: ev.NOT_DECIDED,
}  # fmt: skip
NEGLECTED = ("expert_kernel", "kernel_config", "eager", "draft_model", "draft_tokens")
"""Knobs that the cost model does not know: cells that differ in them are predicted alike, so nothing is predicted."""
BOUND_NEGLECTS = ("ep", "pp")
"""Knobs whose effect the roofline neglects and the calibrated model does not: imbalance of experts over ranks, pipeline
stages that overlap."""
_ABSENT = {"draft_model": None, "expert_kernel": "fused"}
_WEIGHTS = {"random_init": "random weights", "checkpoint": "trained weights", "dummy": "dummy weights"}


def asked(plan: Plan) -> Plan:
    """The parts of a (possibly large) plan that evaluating claims needs."""

    def lists(experiments: Mapping[str, ExperimentPlan] | Mapping[str, ReferenceExperiment]) -> Any:
        return {name: {"claims": list(e.get("claims") or ())} for name, e in experiments.items()}

    kept: dict[str, object] = {k: plan[k] for k in ("study", "scale", "hardware", "claims") if k in plan}
    kept["experiments"] = lists(plan["experiments"])
    reference = plan.get("reference")
    kept["reference"] = reference and {
        "hardware": reference["hardware"], "experiments": lists(reference["experiments"])
    }  # fmt: skip
    return cast(Plan, kept)


def rows(plan: Plan, folder: Path, results: Path) -> list[Row]:
    """Rows of the table ``claims`` of a plan (``asked``), in the order of the claim files.

    ``folder`` holds the other tables, ``results`` the sample logs of accuracy.  Raises ConfigError for a claim that
    names an unknown column.
    """
    files = from_plan(plan)
    if not files:
        return []
    stands_for = plan["claims"]["stands_for"]
    listing = [name for name, e in plan["experiments"].items() if e["claims"]]
    frame = join.with_status(folder)
    measured = _cells(frame[frame["experiment"].isin(listing)], stands_for)
    samples = _samples(folder)
    answered = [row for row in parquet.rows(parquet.read(folder, "accuracy")) if row["experiment"] in listing]
    asked = [_stand_in(row, stands_for) for row in accuracy_rows.rows(answered, functools.partial(_logged, results))]
    predicted, where = _predicted(plan, folder, stands_for)
    parameters = parquet.read(folder, "parameters")
    points = parquet.rows(parquet.read(folder, "computed"))
    made = []
    for paper in files:
        for claim in paper.claims:
            listed = [name for name, e in plan["experiments"].items() if claim.id in e["claims"]]
            reference = _reference_lists(plan, claim)
            foreseen = _foreseen(claim, [r for r in predicted if r["experiment"] in reference])
            if claim.test == "computed":
                made.append(_of_model(plan, paper, claim, [p for p in points if p["experiment"] in listed]))
                continue
            for outcome, mine in _outcomes(claim, plan, listed, measured, asked, samples, parameters):
                prompts = dict(outcome.context).get("prompts", "text")
                known = foreseen.get(prompts)
                kind = _kind(predicted, known, reference)
                made.append(_row(plan, paper, claim, outcome, mine, known, where) | {"predicted_kind": kind})
    return made


def _logged(results: Path, row: Row) -> dict[str, float] | None:
    """The score of every question of a row of the table ``accuracy``, from its sample log."""
    path = accuracy.folder(results, row["harness"]) / "samples" / row["engine"] / f"{row['cell']}.jsonl.gz"
    return parity.logged(path, row["samples_sha256"] or "", row["metric"], row["filter"])


def _reference_lists(plan: Plan, claim: Claim) -> set[str]:
    source = plan.get("reference") or plan
    return {name for name, e in source["experiments"].items() if claim.id in e["claims"]}


def _cells(frame: pd.DataFrame, stands_for: Mapping[str, str]) -> list[Row]:
    """Planned cells as plain rows: axis labels as columns, small models under the name of their full-size model."""
    made = []
    for row in parquet.rows(frame):
        own = {k: v for k, v in json.loads(row["labels"] or "{}").items() if k not in columns.COLUMNS}
        made.append(own | _stand_in(row, stands_for))
    return made


def _stand_in(row: Row, stands_for: Mapping[str, str]) -> Row:
    """The row with the paper's model names, and whether a small model represents one."""
    small = {k: stands_for[row[k]] for k in ("model", "draft_model") if row[k] in stands_for}
    return row | small | {"stand_in": bool(small)}


def _of_model(plan: Plan, paper: ClaimFile, claim: Claim, points: list[Row]) -> Row:
    """A claim about computed points: it has a prediction, but nothing to measure."""
    foreseen = ev.computed(claim, points)
    machines = sorted({p["hardware_title"] for p in points if select.matches(p, claim.where) and p["hardware_title"]})
    reason = (
        f"nothing to measure; {foreseen.reason}" if foreseen else "no experiment of this study computes such points"
    )
    return _row(plan, paper, claim, ev.Outcome(ev.NOT_MEASURED, reason), [], foreseen, ", ".join(machines))


def _samples(folder: Path) -> dict[tuple[str, str], pd.DataFrame]:
    return {(str(e), str(c)): part for (e, c), part in parquet.read(folder, "samples").groupby(["engine", "cell"])}


def _kind(cells: list[Row], foreseen: ev.Outcome | None, listed: set[str]) -> str:
    """Kind of a claim's prediction: ``calibrated (MACHINE, DATE)``, ``bound`` or both, otherwise ``none``."""
    if foreseen is None:
        return "none"
    mine = [row for row in cells if row["experiment"] in listed]
    kinds = dict.fromkeys(str(mine[i]["predicted_kind"]) for i in foreseen.rows if mine[i].get("predicted_kind"))
    return ", ".join(kinds) or "bound"


def _predicted(plan: Plan, folder: Path, stands_for: Mapping[str, str]) -> tuple[list[Row], str]:
    """Cells of the paper's own grid with their predictions, and the hardware."""
    if plan.get("reference"):
        frame, machine = parquet.read(folder, "predictions"), plan["reference"]["hardware"]
    else:
        frame, machine = parquet.read(folder, "plan"), plan["hardware"]
    cells = _cells(frame, stands_for)
    for row in cells:
        row["status"] = None if row["predicted_fits"] is None else "ok" if row["predicted_fits"] else "infeasible"
    return cells, machine["title"]


# ----------------------------------------------------------------------------------------- outcomes


def _outcomes(
    claim: Claim,
    plan: Plan,
    listed: list[str],
    measured: list[Row],
    asked: list[Row],
    samples: Mapping[tuple[str, str], pd.DataFrame],
    parameters: pd.DataFrame,
) -> list[tuple[ev.Outcome, list[Row]]]:
    """What a claim's comparison gives on the study's cells: an outcome and its rows for each context."""
    if claim.test == "printed":
        return [(ev.printed(claim), [])]
    if claim.test == "share":
        return [(_share(claim, parameters), [])]
    here = claim.at_scale(plan["scale"])
    if here is None:
        return [(ev.Outcome(ev.NOT_MEASURED, "it has no counterpart in the grid of this study"), [])]
    mine = [r for r in measured if r["experiment"] in listed]
    cells = [r for r in asked if r["experiment"] in listed] if claim.metric == "accuracy" else mine
    if not cells:
        return [(ev.Outcome(ev.NOT_MEASURED, "no experiment of this study decides it"), [])]
    select.check_columns(here, {k for r in cells for k in r}, f"study {plan['study']}")
    if claim.metric == "accuracy":
        timed = _timed(here.provided.metric, mine, samples)[0] if here.provided else {}
        return [(o, [cells[i] for i in o.rows]) for o in accuracy_rows.evaluate(here, cells, (mine, timed))]
    if claim.metric in columns.EVENNESS:
        return [(o, [mine[i] for i in o.rows]) for o in _counted(here, mine)]
    return [(o, [mine[i] for i in o.rows]) for o in ev.evaluate(here, mine, *_timed(claim.metric, mine, samples))]


def _timed(
    metric: str, rows: list[Row], samples: Mapping[tuple[str, str], pd.DataFrame]
) -> tuple[dict[int, ev.Floats], dict[int, int]]:
    """Draws of a metric and how many repeats they are from, by row; those that have it."""
    values: dict[int, ev.Floats] = {}
    repeats: dict[int, int] = {}
    if metric in columns.METRIC_NAMES:
        for i, row in enumerate(rows):
            part = samples.get((row["engine"], row["cell"]))
            if row["status"] == "ok" and part is not None and part[metric].notna().all():
                values[i] = ev.draws(f"{row['engine']}/{row['cell']}", np.asarray(part[metric], dtype=float))
                repeats[i] = len(part)
    return values, repeats


def _counted(claim: Claim, rows: list[Row]) -> list[ev.Outcome]:
    """Outcomes of counts over a whole data set, which have no repeats and so no interval."""
    known = {i: row[claim.metric] for i, row in enumerate(rows) if row["status"] == "ok"}
    values = {i: np.full(2, float(v)) for i, v in known.items() if v is not None}
    outcomes = ev.evaluate(claim, rows, values, dict.fromkeys(values, 2))
    return [dataclasses.replace(o, low=None, high=None, support=None) for o in outcomes]


def _share(claim: Claim, parameters: pd.DataFrame) -> ev.Outcome:
    """The smaller of the shares of all and of active parameters, of the model where it is smallest."""
    chosen = parameters
    for name, value in claim.where.items():
        chosen = chosen[chosen[name].isin(value if isinstance(value, list) else [value])]
    if chosen.empty:
        return ev.Outcome(ev.NOT_MEASURED, "no experiment of this study counts these parameters")
    shares = chosen.drop_duplicates(["model", "layer_kind", "component"]).groupby("model")[
        ["total_share", "active_share"]
    ].sum()  # fmt: skip
    value = float(shares.min().min())
    assert claim.expect is not None
    return ev.Outcome(ev.place(value, value, claim.expect), "computed from published architectures", value=value,
                      comparisons=len(shares), planned=len(shares))  # fmt: skip


def _foreseen(claim: Claim, cells: list[Row]) -> dict[str, ev.Outcome]:
    """The cost model's predictions for the paper's own cells by kind of prompts; empty without any."""
    varied = {*select.varied(claim), *claim.over}
    bound = not any(str(row.get("predicted_kind") or "").startswith("calibrated") for row in cells)
    unknown = claim.metric == "accuracy" or varied & {*NEGLECTED, *(BOUND_NEGLECTS if bound else ())}
    if claim.test not in OF_CELLS or not cells or unknown:
        return {}
    select.check_columns(claim, {k for r in cells for k in r}, "the paper's grid")
    values: dict[int, ev.Floats] = {}
    for i, row in enumerate(cells):
        if varied & set(BOUND_NEGLECTS) and row.get("predicted_kind") == "bound":
            continue
        known = all(row[k] == v for k, v in _ABSENT.items())
        value = predicted_draws.draws(claim.metric, row)
        if (
            known
            and value is not None
            and row["predicted_fits"] is not False
            and (row["predicted_batch_fits"] is not False)
        ):
            values[i] = value
    if claim.test != "infeasible" and not values:
        return {}
    most = max((len(v) for v in values.values()), default=1)
    values = {i: v if len(v) == most else np.full(most, v[0]) for i, v in values.items()}
    repeats = dict.fromkeys(values, most) if most > 1 and claim.test != "infeasible" else None
    found: dict[str, ev.Outcome] = {}
    for outcome in ev.evaluate(claim, cells, values, repeats):
        if outcome.value is not None:
            found.setdefault(dict(outcome.context).get("prompts", "text"), outcome)
    return found


# --------------------------------------------------------------------------------------------- rows


def _row(
    plan: Plan,
    paper: ClaimFile,
    claim: Claim,
    outcome: ev.Outcome,
    mine: list[Row],
    foreseen: ev.Outcome | None,
    foreseen_on: str,
) -> Row:
    if claim.undecidable and outcome.value is None:
        outcome = dataclasses.replace(outcome, reason=f"{outcome.reason}; {claim.undecidable}")
    verdict, reason = _verdict(plan, paper, claim, outcome, mine)
    here = claim.at_scale(plan["scale"]) or claim
    return {
        "study": plan["study"],
        "claim": claim.id,
        "paper": f"{paper.title} ({paper.reference})",
        "place": claim.place,
        "quote": claim.quote or None,
        "statement": claim.statement,
        "metric": claim.metric,
        "test": claim.test,
        "expected": said(claim.expect),
        "expected_here": said(here.expect),
        "verdict": verdict,
        "reason": reason or None,
        "outcome": outcome.outcome,
        "value": outcome.value,
        "value_low": outcome.low,
        "value_high": outcome.high,
        "support": outcome.support,
        "comparisons": outcome.comparisons,
        "comparisons_planned": outcome.planned,
        "needs": needed(claim) or None,
        "unstable_cells": sum(bool(r.get("unstable")) for r in mine),
        "evaluated_on": evaluated_on(plan, outcome, mine) or None,
        "predicted_value": None if foreseen is None else foreseen.value,
        "predicted_low": None if foreseen is None else foreseen.low,
        "predicted_high": None if foreseen is None else foreseen.high,
        "predicted_support": None if foreseen is None else foreseen.support,
        "predicted_outcome": None if foreseen is None else foreseen.outcome,
        "predicted_on": None if foreseen is None else foreseen_on,
        "contradicts": ", ".join(claim.contradicts) or None,
        "note": claim.note or None,
    }


def _verdict(plan: Plan, paper: ClaimFile, claim: Claim, outcome: ev.Outcome, mine: list[Row]) -> tuple[str, str]:
    """Verdict on the paper's own models and machine, and the reason if there is none."""
    if claim.expect is None:
        return ev.NO_EXPECTATION, "the paper makes no claim here"
    if outcome.outcome not in VERDICTS and outcome.value is None:
        return ev.NOT_MEASURED, outcome.reason
    if claim.test in ("printed", "share"):
        return VERDICTS[outcome.outcome], outcome.reason
    stand_in, made_up = any(r["stand_in"] for r in mine), any(r["weights"] == "random_init" for r in mine)
    small = stand_in or (plan["scale"] != "paper" and made_up)
    why = [f"{plan['scale']} {'stand-ins' if stand_in else 'models'}, not the paper's models"] * small
    why += [f"{plan['hardware']['title']}, not {', '.join(paper.hardware)}"] * (
        plan["hardware"]["name"] not in paper.hardware
    )
    why += ["weights that are not trained"] * (
        claim.metric in ("accuracy", *columns.EVENNESS) and any(r["weights"] != "checkpoint" for r in mine)
    )
    why += ["the project's own questions, not the published ones"] * any(r.get("from_fixtures") for r in mine)
    why += ["a part of the questions"] * any(r.get("limit") is not None for r in mine)
    why += ["another grid than the paper's"] * (plan["scale"] != "paper" and not why)
    if why:
        return ev.NOT_MEASURED, "; ".join(filter(None, [*why, outcome.reason]))
    return VERDICTS[outcome.outcome], outcome.reason


def evaluated_on(plan: Plan, outcome: ev.Outcome, mine: list[Row]) -> str:
    """Description of the compared cells: models, weights, machine, prompts, mode."""
    if not mine or outcome.value is None:
        return ""
    known = dict(outcome.context)
    papers_own = "the paper's models" if plan["scale"] == "paper" else f"{plan['scale']} models"
    parts = [f"{plan['scale']} stand-ins" if any(r["stand_in"] for r in mine) else papers_own]
    parts += [_WEIGHTS.get(known["weights"], known["weights"])] * ("weights" in known and known["weights"] is not None)
    parts.append(plan["hardware"]["title"])
    parts += [f"{known['prompts']} prompts"] * (known.get("prompts") is not None)
    if "task_title" in mine[0]:
        parts.append(mine[0]["task_title"] + ", questions of the project" * bool(mine[0]["from_fixtures"]))
    parts += ["eager" if known["eager"] else "CUDA graphs"] * ("eager" in known)
    parts += ["MLA off"] * (known.get("mla") is False)
    parts += ["default kernels"] * (known.get("kernel_config") == "default")
    return ", ".join(parts)


def needed(claim: Claim) -> str:
    """Short form of ``needs``; an empty string without it."""
    needs = claim.needs
    if needs is None:
        return ""
    text = f"{needs.series} series of {max(needs.points, 2)}" if claim.over else str(needs.points)
    return "; ".join([text, *(f"{k} {', '.join(map(str, v))}" for k, v in needs.cover.items())])


def said(expect: Expect | None) -> str:
    """Short form of the expectation: ``0.15 to 0.2``, ``at least 8``, ``falling``."""
    if expect is None:
        return "nothing"
    ends = expect.min, expect.max
    if ends != (None, None):
        return (f"at most {ends[1]:g}" if ends[0] is None else f"at least {ends[0]:g}" if ends[1] is None
                else f"{ends[0]:g} to {ends[1]:g}")  # fmt: skip
    words: Iterable[tuple[Any, str]] = (
        (expect.first, f"first: {expect.first}"),
        (expect.last, f"last: {expect.last}"),
        (expect.order, "order: " + ", ".join(map(str, expect.order))),
        (expect.top, "top: " + ", ".join(map(str, expect.top))),
        (expect.direction, str(expect.direction)),
        (expect.cells, "exactly " + ", ".join(str(tuple(c)) for c in expect.cells)),
    )
    return next((text for value, text in words if value not in (None, ())), "nothing")
