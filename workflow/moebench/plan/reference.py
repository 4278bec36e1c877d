"""Parts of a plan from the study it refers to: predictions of the paper's own grid, and their figures."""

from __future__ import annotations

from typing import cast

from moebench import columns
from moebench.engines.vllm_routing import budgeted
from moebench.formats.model import HardwareDict, ModelDict
from moebench.formats.plan import FigureSpec, Plan, ReferenceModel, ReferencePlan


def predictions(plan: Plan) -> ReferencePlan:
    """The part of a plan that another study shows: its rows with their predictions."""
    return {
        "study": plan["study"],
        "title": plan["title"],
        "scale": plan["scale"],
        "hardware": _stated(plan["hardware"]),
        "engine": plan["engine"],
        "cells": plan["cells"],
        "engines": {
            name: {"config": engine["config"], "gpus": engine["gpus"], "model": _shown(engine["model"])}
            for name, engine in plan["engines"].items()
        },
        "experiments": {
            name: {"claims": e["claims"], "rows": e["rows"]} for name, e in plan["experiments"].items() if e["rows"]
        },
        "jobs": {},
    }


def _stated(hardware: HardwareDict) -> HardwareDict:
    """A machine without the keys that only jobs on it are checked by."""
    return cast(HardwareDict, {k: v for k, v in hardware.items() if k != "multiprocessors"})


def _shown(model: ModelDict) -> ReferenceModel:
    return {
        "name": model["name"],
        "title": model["title"],
        "weights": model["weights"],
        "revision": model["revision"],
        "architecture": {"experts": model["architecture"]["experts"]},
    }


def as_plan(reference: ReferencePlan) -> Plan:
    """For what makes the rows of the table ``plan``: they show nothing that a reference lacks."""
    return cast(Plan, reference)


def figures(plan: Plan, experiment: str) -> list[FigureSpec]:
    """The figures of an experiment as they are drawn from the reference's predictions.

    None if the reference lacks the experiment, and for what the cost model does not know: speculation, unfused
    experts, requests over time.  Their ids end in ``-predicted``.
    """
    reference = plan["reference"]
    if experiment not in reference["experiments"]:
        return []
    rows = reference["experiments"][experiment]["rows"]
    if any(reference["cells"][f"{r['engine']}/{r['cell']}"]["protocol"]["kind"] == "load" for r in rows):
        return []
    keys = {r["engine"] for r in rows}
    configs = [reference["engines"][key]["config"] for key in keys]
    if any(c.get("draft_tokens") or c.get("expert_kernel") == "unfused" or budgeted(c) for c in configs):
        return []
    made = []
    for figure in plan["experiments"][experiment]["figures"]:
        y = [m for m in figure["y"] if m in columns.PREDICTED]
        if figure["kind"] in ("lines", "bars") and y and "accuracy" not in figure["y"]:  # not predicted
            number, title = f"{figure['number']} (predicted)", f"{figure['title']}: the paper's own grid"
            made.append(figure | {"id": f"{figure['id']}-predicted", "number": number, "title": title, "y": y})
    return made
