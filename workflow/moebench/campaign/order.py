"""Order of a campaign's cells: first those that decide most claims per second, then those that fill most figures.

A load costs more than most runs, so cells are measured in *sessions*: an engine configuration and the cells run in one
load of it.  The same greedy rule as for a budget (``claims.budget``) ranks the claims; each claim's cells join the
session of their engine configuration, so that a load is paid once.  What no claim needs joins too as long as all of it
takes less than another load; the rest comes after all claims.
"""

from __future__ import annotations

from typing import Any

from moebench.claims import budget
from moebench.cost.seconds import cell_seconds, load_seconds
from moebench.formats.campaign import Session, SessionCell
from moebench.formats.plan import Plan


def sessions(plan: Plan) -> list[Session]:
    """The sessions of a plan, most informative first, with expected times: ``engine``, ``load_s`` and ``cells``, a list
    of ``{cell, run_s}``."""
    wanted = {claim: cells & set(plan["cells"]) for claim, cells in budget.needs(plan).items()}
    wanted = {claim: cells for claim, cells in wanted.items() if cells}
    groups: dict[str, list[str]] = {}
    for claim in _ranked(plan, wanted):
        for key in plan["cells"]:
            if key in wanted[claim]:
                _join(groups, key)
    claimed = {f"{engine}/{cell}" for engine, cells in groups.items() for cell in cells}
    later: dict[str, list[str]] = {}
    shown, room = figures_per_second(plan), {engine: load_seconds(plan, engine) for engine in groups}
    for key in sorted(set(plan["cells"]) - claimed, key=lambda k: (-shown[k], k)):
        engine = key.partition("/")[0]
        joins = run_s(plan, key) <= room.get(engine, 0.0)
        if joins:
            room[engine] -= run_s(plan, key)
        _join(groups if joins else later, key)
    # A second session of an engine configuration comes last: it pays a second load.
    second = [engine for engine in later if engine in groups]
    order = [*((e, groups[e]) for e in groups), *((e, later[e]) for e in later if e not in groups)]
    return [_session(plan, *one) for one in (*order, *((e, later[e]) for e in second))]


def _join(groups: dict[str, list[str]], key: str) -> None:
    engine, _, cell = key.partition("/")
    if cell not in groups.setdefault(engine, []):
        groups[engine].append(cell)


def _ranked(plan: Plan, wanted: dict[str, set[str]]) -> list[str]:
    """Claims in the order in which they are decided: repeatedly the one whose missing cells decide the most."""
    price, kept, ranked, left = budget.prices(plan), set[str](), list[str](), dict(wanted)
    while left:
        paid = {price.loads[cell] for cell in kept}

        def rate(claim: str, left: dict[str, set[str]] = left, paid: Any = paid) -> float:
            decided = sum(other <= left[claim] for other in left.values())
            return decided / max(price.gpu_hours(left[claim], paid), 1e-9)

        best = max(left, key=rate)  # the first of equals: claims are in the order of their files
        ranked.append(best)
        kept |= left[best]
        left = {c: cells - kept for c, cells in left.items() if not cells <= kept}
        ranked += [c for c in wanted if c not in left and c not in ranked]
    return ranked


def figures_per_second(plan: Plan) -> dict[str, float]:
    """Per cell how many figures show it, per second of its run and its share of the load."""
    count = dict.fromkeys(plan["cells"], 0)
    for experiment in plan["experiments"].values():
        for key in {f"{row['engine']}/{row['cell']}" for row in experiment["rows"]}:
            count[key] += len(experiment["figures"])
    shared = {e: load_seconds(plan, e) / len(spec["cells"]) for e, spec in plan["engines"].items()}
    return {key: n / (shared[plan["cells"][key]["engine"]] + run_s(plan, key)) for key, n in count.items()}


def run_s(plan: Plan, key: str) -> float:
    """Expected time of a cell, s: all its runs, and what is around them."""
    return cell_seconds(plan["cells"][key], plan["jobs_settings"]["cell_overhead_s"])


def _session(plan: Plan, engine: str, cells: list[str]) -> Session:
    timed: list[SessionCell] = [{"cell": cell, "run_s": round(run_s(plan, f"{engine}/{cell}"), 2)} for cell in cells]
    return {"engine": engine, "load_s": round(load_seconds(plan, engine), 1), "cells": timed}
