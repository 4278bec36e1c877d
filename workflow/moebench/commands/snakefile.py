"""Functions for the Snakefile: the plan, the engine's interpreter, and checks before a real run."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from snakemake.exceptions import WorkflowError

from moebench import accuracy, progress
from moebench.accuracy.vlmeval_process import ENVIRONMENT
from moebench.commands import kept_plan, site
from moebench.commands.data_sets import data_of, tables_of
from moebench.commands.planning import keep, make_plan
from moebench.config import COMPUTED_KINDS, Config, Root, parse
from moebench.errors import UserError, nearest
from moebench.formats import Knobs
from moebench.formats.model import ModelDict
from moebench.formats.plan import AccuracyCell, AccuracyPart, EngineConfig, Job, Plan, TaskData
from moebench.measure.manifest import drop_stale
from moebench.models.derive import derivation
from moebench.plan.derived import models_of, root
from moebench.storage import sharing, user_files
from moebench.storage.staged import MANIFEST
from moebench.tables import machines


def load_plan(config: Knobs, workflow: Any, project: Path) -> Plan:
    """The plan of the study that the Snakemake configuration names, with its digest; ``project``: the checkout.

    In the main process (not in the jobs it starts) it also keeps the plan in a file, and makes jobs pending again whose
    records were truncated, edited or deleted since they were written.  Raises WorkflowError, in one line, for a
    configuration that is wrong.
    """
    try:
        site.refuse()
        config.update(parse(Root, config, "config/config.yaml (or --config)").model_dump())  # with the defaults
        study, results, configuration = str(config["study"]), Path(config["results"]), Config(project / "config")
        given = {name: config[name] for name in ("models", "data", "budget_gpu_hours")}
        made_from = kept_plan.sources(configuration, given | {"study": study})
        kept = kept_plan.read(results, study, made_from)
        user_files.hashed.clear()
        plan = kept or make_plan(configuration, study, **given)
        if workflow.is_main_process:
            refuse_others_files(config)
            keep(plan, results, configuration.folder)
            if not kept:
                kept_plan.write(results, plan, made_from)
    except UserError as error:
        raise WorkflowError(str(error).replace(f"{project}/", "")) from None
    if workflow.is_main_process:
        parts = [(plan, results), *((part, folder) for _, part, folder in accuracy.views(plan, results))]
        try:
            dropped = [item for part, folder in parts for item in drop_stale(folder, part).items()]
        except UserError as error:
            raise WorkflowError(str(error)) from None
        for job, cells in dropped:
            print(
                f"{job}: {len(cells)} record{'s changed or are' if len(cells) > 1 else ' changed or is'} gone since "
                f"measured, e.g. {cells[0]}; a call without a target measures again",
                file=sys.stderr,
            )
        progress.planned(plan, config)
    return plan


def refuse_others_files(config: Knobs) -> None:
    """Raise UserError if another user's files are in the way: before anything is measured, not after it."""
    replaced = [Path(config["results"]), Path(config["reports"]), Path(".snakemake/metadata"), Path(".snakemake/log")]
    if problem := sharing.refusal(replaced, appended=[Path("logs")]):
        raise UserError(problem)


def engine_python(job: Job, config: Knobs) -> str:
    """Interpreter of a job's environment, ``.envs/NAME/bin/python`` below the project."""
    return f"{config['environments']}/{job['environment']}/bin/python"


def near(path: str) -> str:
    """A path below the current folder as a relative one; any other unchanged."""
    given = Path(os.path.abspath(path))
    return str(given.relative_to(Path.cwd())) if given.is_relative_to(Path.cwd()) else path


def refuse_paths(config: Knobs, workflow: Any) -> None:
    """Before a real run: folders that stand in the commands of the rules, and in those that SLURM gets.

    Raises WorkflowError for one with characters that a shell reads.
    """
    named = {
        f"{key} in config/config.yaml": config[key] for key in ("environments", "models", "data", "results", "reports")
    }
    named["Snakemake's Python"] = near(sys.executable)
    if workflow.non_local_exec:
        named["Snakemake's Python, as SLURM gets it"] = sys.executable
    for what, path in named.items():
        if shlex.quote(str(path)) != str(path):
            raise WorkflowError(
                f"{what}: {path}: it has characters that a shell interprets; use a folder, or a link to it, whose "
                f"path has only letters, digits and @%+=:,./-_"
            )


def part_of(plan: Plan, wildcards: Any) -> Plan | AccuracyPart:
    """The engines, cells and jobs a rule is about: those of an accuracy harness, or of speed."""
    if not hasattr(wildcards, "harness"):
        return plan
    return cast(AccuracyPart, _of_study(plan, "harness", wildcards.harness, plan["accuracy"]))


def planned_job(plan: Plan, wildcards: Any) -> Job:
    """The job a rule is about: that of its name, or the one of its cell.

    Raises WorkflowError for a job that the study does not have: any path may be requested.
    """
    part = part_of(plan, wildcards)
    if hasattr(wildcards, "job"):
        return cast(Job, _of_study(plan, "job", wildcards.job, part["jobs"]))
    cells = _of_study(plan, "engine configuration", wildcards.engine, part["engines"])["cells"]
    _of_study(plan, "cell", wildcards.cell, dict.fromkeys(cells))
    return next(job for job in part["jobs"].values() if wildcards.engine in job["engines"])


def _of_study(plan: Plan, what: str, name: str, known: Mapping[str, object]) -> Any:
    if name not in known:
        raise WorkflowError(
            f"study {plan['study']} has no {what} {name!r}{nearest(name, known, listed=0)} "
            "(for another study, add `--config study=NAME`)"
        )
    return known[name]


def engines_of(job: Job, wildcards: Any) -> list[str]:
    """Engine configurations that a rule is about: that of its cell, or all of its job."""
    return [wildcards.engine] if hasattr(wildcards, "engine") else list(job["engines"])


def one_of(names: Iterable[str]) -> str:
    """Regular expression that matches exactly these names."""
    return "|".join(re.escape(name) for name in names) or r"(?!)"


def staged_files(engines: Iterable[EngineConfig], cells: Iterable[AccuracyCell] = ()) -> list[str]:
    """Manifests of the models and tables that engine configurations read, and of accuracy cells' data."""
    engines = list(engines)
    data = [*tables_of(engines), *(cell["task"]["data"] for cell in cells)]
    return sorted([*_manifests(models_of(engines)), *_manifests(data)])


def roots(plan: Plan) -> list[str]:
    """Manifests of staged models (for a derived one, its parents') and data sets."""
    models = _manifests(map(root, models_of(accuracy.engines(plan))))
    return models + _manifests(data_of(plan).values())


def derived_files(plan: Plan, job: str) -> list[str]:
    """Manifests of the derived models that a job creates."""
    return _manifests(plan["derived"][name] for name in plan["derive_jobs"][job]["models"])


def parent_files(plan: Plan, job: str) -> list[str]:
    """Manifests of the parents that a job derives from, except those that it creates itself."""
    models = [plan["derived"][name] for name in plan["derive_jobs"][job]["models"]]
    return sorted(set(_manifests(derivation(model)["parent"] for model in models)) - set(derived_files(plan, job)))


def _manifests(models: Iterable[ModelDict | TaskData]) -> list[str]:
    return sorted({f"{model['path']}/moebench-stage.json" for model in models})


def figure_labels(plan: Plan) -> dict[str, dict[str, str]]:
    """Experiment, number and title of all figures by file name: the experiments' own, those of predictions for the
    reference study's grid, and that of model against measurement."""
    labels = {
        figure["id"]: {"experiment": e["title"], "figure": figure.get("number") or "", "title": figure["title"]}
        for e in plan["experiments"].values()
        for figure in (*e["figures"], *e.get("predicted_figures", ()))
    }
    if machines.compared(plan):
        title = "Model against measurement"
        labels[machines.FIGURE] = {"experiment": title, "figure": "", "title": f"{title}, every cell"}
    return labels


def computed_figures(plan: Plan) -> set[str]:
    """Names of the figures that need no measurement."""
    own = [figure for e in plan["experiments"].values() for figure in e["figures"] if figure["kind"] in COMPUTED_KINDS]
    foreseen = [figure for e in plan["experiments"].values() for figure in e.get("predicted_figures", ())]
    return {figure["id"] for figure in (*own, *foreseen)}


def unpinned(plan: Plan) -> list[str]:
    """Hub models and data sets whose branch is not yet resolved to a commit."""
    models = [root(e["model"]) for e in accuracy.engines(plan)]
    return sorted(
        {
            f"{what['source'].removeprefix('hub:')} ({what['revision']})"
            for what in [*models, *data_of(plan).values()]
            if what["source"].startswith("hub:") and len(what["revision"]) != 40
        }
    )


def refuse_unpinned(plan: Plan, workflow: Any) -> None:
    """Before a real run: models and data must be pinned, since cells are identified by their commits."""
    targets = set(workflow.dag_settings.targets or ())
    names = unpinned(plan)
    if names and not any(str(target).endswith("stage") for target in targets):  # a module may add a prefix
        raise WorkflowError(
            f"{len(names)} models or data sets are not staged yet, e.g. {names[0]}; run "
            f"`moebench stage --study {plan['study']}` on a machine with internet access, then snakemake again; "
            f"remove experiments whose models you cannot get from the study"
        )


def refuse_unbuilt(plan: Plan, config: Knobs, jobs: Iterable[Any]) -> None:
    """Before a real run: the environments that Snakemake's jobs to be run need.  Raises WorkflowError."""
    for job in jobs:
        for folder in _environments(plan, Path(config["environments"]), job):
            if not (folder / "bin" / "python").exists():
                raise WorkflowError(
                    f"{folder} is not built, but {job.output[0]} needs it; run "
                    f"`python3 envs/build.py {folder.name}`, then snakemake again"
                )


def _environments(plan: Plan, environments: Path, job: Any) -> Iterable[Path]:
    """Environments that a job of Snakemake needs beside the one Snakemake runs in."""
    if python := job.params.get("python"):
        yield Path(python).parents[1]
    if job.wildcards.get("harness") == "vlmeval":
        yield environments / ENVIRONMENT
    if job.name == "stage":
        models = map(root, models_of(accuracy.engines(plan)))
        if any(m["source"] == "random_init" and not (Path(m["path"]) / MANIFEST).exists() for m in models):
            yield environments / plan["engine"]["environment"]
