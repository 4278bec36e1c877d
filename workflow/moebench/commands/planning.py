"""The complete plan of a study: cells and jobs (``plan.make``), claims, budget, reference study and digest.

This module is above all of these packages, so none of them depends on another.  It also writes the plan to a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from moebench.claims import spec as claims
from moebench.config import Config
from moebench.config.identity import digest
from moebench.config.lockfile import ModelLock
from moebench.errors import StorageError
from moebench.formats.plan import Plan
from moebench.plan import reference
from moebench.plan.make import Draft
from moebench.storage.atomic import canonical_bytes, write_atomic


def make_plan(
    config: Config,
    study: str,
    lock: ModelLock | None = None,
    models: str | None = None,
    data: str | None = None,
    budget_gpu_hours: float | None = None,
    choose: Callable[[Plan], set[str]] | None = None,
) -> Plan:
    """Plan a study: the mapping of docs/data.md; within a budget, only the cells that decide the most claims.

    ``choose`` gives the cells to keep, of a plan that has no jobs yet.

    Raises ConfigError naming the file, the value and the remedy.
    """
    draft = Draft(config, study, lock, models, data)
    plan = draft.plan
    models_of = [e["model"]["name"] for e in plan["engines"].values()]
    drafts = [e["draft"]["name"] for e in plan["engines"].values() if e["draft"]]
    plan["claims"] = claims.of_plan(config, plan["experiments"], [*models_of, *drafts])
    draft.predict()
    if choose is not None or budget_gpu_hours is not None:
        from moebench.claims import budget  # imports what makes tables
    if choose is not None:
        kept = choose(plan)
        budget.leave(plan, kept)
        _drop_figures(plan)
        draft.predict(kept)
    if budget_gpu_hours is not None:
        kept = budget.reduce(plan, budget_gpu_hours)
        plan["budget"]["figures_left_out"] = _drop_figures(plan)
        draft.predict(kept)
    referred = draft.study.reference
    if referred and referred != study:
        other = Draft(config, referred, draft.lock, draft.models, data)
        other.predict_cells()  # all that is shown of it
        plan["reference"] = reference.predictions(other.plan)
        for name, planned in plan["experiments"].items():
            planned["predicted_figures"] = reference.figures(plan, name)
    draft.add_jobs()
    plan["digest"] = digest(plan, 16)
    return plan


def _drop_figures(plan: Plan) -> list[str]:
    """Remove figures that the remaining cells cannot fill, and experiments without content; return the figures' ids."""
    from moebench.figures import cannot_draw

    dropped = cannot_draw(plan)
    for name, experiment in list(plan["experiments"].items()):
        experiment["figures"] = [f for f in experiment["figures"] if f["id"] not in dropped]
        if not any(experiment.get(what) for what in ("rows", "models", "computed", "accuracy")):
            del plan["experiments"][name]
    return dropped


def keep(plan: Plan, results: Path, folder: Path | None = None) -> Path:
    """Write the plan under its digest, unless it is there, and let ``STUDY.json`` point to it; return the former.

    Jobs read the plan they were submitted with, whatever happens to the configuration (``folder``) meanwhile.  Raises
    ConfigError for a figure that cannot be drawn: better now than after hours of measuring.  StorageError if it cannot
    be written.
    """
    path = results / "plan" / f"{plan['study']}-{plan['digest']}.json"
    if not path.exists():
        from moebench.figures import check  # imports matplotlib: only when there is something to check

        check(plan, folder)
        write_atomic(path, canonical_bytes(plan) + b"\n")
    current = path.with_name(f"{plan['study']}.json")
    if not current.is_symlink() or current.readlink() != Path(path.name):
        link = path.with_name(f".{plan['study']}.{os.getpid()}")
        try:
            link.symlink_to(path.name)
            link.replace(current)
        except OSError as error:
            raise StorageError(f"{current}: cannot be written ({error.strerror}); free space, run again") from None
    return path
