"""Staging: models and data sets of a study are put into their folders, on a machine with internet access, before any
job."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from moebench import accuracy
from moebench.commands.data_sets import data_of, stage_data
from moebench.commands.data_tables import python_of
from moebench.commands.planning import make_plan
from moebench.config import Config, HubSource, TableSource
from moebench.config.lockfile import SHARED_REVISION, ModelLock
from moebench.errors import StageError, StorageError
from moebench.formats.model import ModelDict
from moebench.formats.plan import Plan
from moebench.models import random_init
from moebench.models.hubprogress import Progress, size_text
from moebench.plan.derived import models_of as loaded_models
from moebench.plan.derived import parent_bytes, root
from moebench.plan.models import hub_folder, shared_folder
from moebench.storage import project, staged


class StagedModel(ModelDict):
    """A model to be staged; ``whole``: its weights are needed, not only dummy ones."""

    whole: bool


def models_of(plan: Plan) -> dict[str, StagedModel]:
    """The distinct models to be staged by folder, including the parents of derived ones."""
    found: dict[str, StagedModel] = {}
    for model in map(root, loaded_models(accuracy.engines(plan))):
        entry = found.setdefault(model["path"], {**model, "whole": False})
        entry["whole"] |= model["weights"] != "dummy"
    return found


def problems(config: Config, study: str, full: bool = False, budget: float | None = None) -> dict[str, str | None]:
    """Problem of each folder of a study's models and data sets (None: complete). ``full``: compare checksums, which
    reads every byte.
    """
    plan = make_plan(config, study, budget_gpu_hours=budget)
    return _problems([*models_of(plan), *data_of(plan)], full)


def _problems(folders: list[str], full: bool) -> dict[str, str | None]:
    return {folder: next(iter(staged.check(Path(folder), full=full)), None) for folder in folders}


def stage_study(
    config: Config,
    study: str,
    update: bool = False,
    full: bool = False,
    budget: float | None = None,
    plan: Plan | None = None,
) -> int:
    """Stage the models and data of a study (of the plan within a budget of GPU-hours); return 0 when all are whole.

    ``plan``: the study's plan, if it is made already.

    What is not available stops nothing else.  It is listed at the end, and StageError raised; at once if an environment
    that is needed is not built.
    """
    project.refuse_shipped(config.folder)
    lock_file = config.folder / "models.lock.yaml"
    plan = plan or make_plan(config, study, budget_gpu_hours=budget)
    models, data = models_of(plan), data_of(plan)
    problems = _problems([*models, *data], full)
    environments = Path(config.root().environments)
    wanted = [d for path, d in data.items() if problems[path] and d["source"] != "fixtures"]
    if any(isinstance(config.task(d["task"]).data, TableSource) for d in wanted):
        python_of(environments)  # now, not after hours of fetching models
    write = [m for path, m in models.items() if m["source"] == "random_init" and problems[path]]
    if write:
        _write_checkpoints(config, study, write, full)
    fetch = [m for path, m in models.items() if m["source"] != "random_init" and (problems[path] or update)]
    _say_size(plan, fetch, Path(config.root().models))
    failed: list[str] = []
    for model in fetch:
        with _noted(failed):
            _fetch(config, model, lock_file, update, full)
    lacking = len(failed)
    print(
        f"study {study}: {len(models) - lacking} models staged ({len(write)} written, {len(fetch) - lacking} fetched, "
        f"{len(models) - len(write) - len(fetch)} already there)"
    )
    if data:
        print(f"study {study}: {stage_data(config, plan, update, full, lambda: _noted(failed))}")
    if failed:
        print(*(f"not staged: {words}" for words in failed), sep="\n", file=sys.stderr)
        raise StageError(
            f"study {study}: {len(failed)} of {len(models) + len(data)} models and data sets are not staged, listed "
            "above; fix the reported causes and run this again, or remove the experiments that need them from the study"
        )
    return 0


@contextlib.contextmanager
def _noted(failed: list[str]) -> Iterator[None]:
    """Report why something could not be staged and note it for the summary, instead of stopping."""
    try:
        yield
    except StageError as error:
        print(f"{error}; continuing with the others", file=sys.stderr, flush=True)
        failed.append(str(error))


def sizes(plan: Plan) -> dict[str, float]:
    """Predicted weight bytes of the models of a plan that are loaded or derived from, by folder."""
    loaded = {
        e["model"]["path"]: e["predicted"]["weight_bytes"]
        for e in plan["engines"].values()
        if e["model"]["weights"] != "dummy" and e["predicted"]["weight_bytes"] is not None
    }
    return loaded | {root(model)["path"]: parent_bytes(model) for model in plan["derived"].values()}


def free_bytes(folder: Path) -> tuple[int, Path]:
    """Free space for a folder that may not exist yet, and its nearest existing parent."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(place).free, place


def _say_size(plan: Plan, fetch: list[StagedModel], folder: Path) -> None:
    """Estimate of the total download before it starts; each repository reports its exact size later."""
    known = sizes(plan)
    fetch = [model for model in fetch if model["source"].startswith("hub:")]
    need = sum(known.get(model["path"], 0) for model in fetch)
    free, place = free_bytes(folder)
    if need:
        print(
            f"{len(fetch)} models to fetch, about {size_text(need)} of weights; free at {place}: {size_text(free)}"
            + (": they do not all fit" if need > free else ""),
            file=sys.stderr,
            flush=True,
        )


def _write_checkpoints(config: Config, study: str, models: list[StagedModel], full: bool) -> None:
    """Write random checkpoints in the engine's environment, which has torch and transformers."""
    environment = config.study(study).engine.environment
    python = Path(config.root().environments) / environment / "bin" / "python"
    if not python.exists():
        raise StageError(f"{python}: the environment is not built; run `python3 envs/build.py {environment}`")
    specs = [
        {
            "architecture": m["architecture"],
            "seed": m["seed"],
            "out": m["path"],
            "source": m["source"],
            "revision": m["revision"],
            "full": full,
        }
        for m in models
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(specs, file)
        file.flush()
        done = subprocess.run([str(python), "-m", "moebench.models.random_init", file.name], stdout=sys.stderr)
    if done.returncode == random_init.NO_ROOM:
        raise StorageError(
            f"{config.root().models}: the disk is full; free space and run this again: complete models are kept"
        )
    if done.returncode:
        raise StageError(f"writing checkpoints failed with exit code {done.returncode}; its messages are above")


def _hub_source(config: Config, model: StagedModel, lock: ModelLock) -> HubSource:
    """The source of a hub model: its own, or that of a ready-made quantized checkpoint."""
    spec, models = config.model(model["name"]), config.root().models
    sources = [source for source in (spec.source.hub, *spec.quantized.values()) if source is not None]
    return next(
        source
        for source in sources
        if hub_folder(models, source.hub, lock.commit(source.hub, source.revision) or source.revision) == model["path"]
    )


def _fetch(config: Config, model: StagedModel, lock_file: Path, update: bool, full: bool) -> None:
    """Download one hub model (only small files for dummy weights), or link one on a shared disk."""
    from moebench.models.hub import stage_hub
    from moebench.models.shared import stage_shared

    lock = ModelLock(lock_file)
    models, own = config.root().models, config.model(model["name"]).source
    if own.path is not None:
        folder_for = functools.partial(_shared_folder, models, model["name"])
        folder = stage_shared(own, folder_for, lock, Progress(sys.stderr), update, full)
        _name_as_planned(folder_for(SHARED_REVISION), folder)
        return
    source = _hub_source(config, model, lock)
    if not model["whole"]:
        source = source.model_copy(update={"include": tuple(p for p in source.include if "safetensors" not in p)})
    done = stage_hub(
        source,
        lambda commit: Path(hub_folder(models, source.hub, commit)),
        lock,
        Progress(sys.stderr),
        update=update,
        full=full,
    )
    _name_as_planned(Path(hub_folder(models, source.hub, source.revision)), done.folder)


def _shared_folder(models: str, name: str, revision: str) -> Path:
    return Path(shared_folder(models, name, revision))


def _name_as_planned(named: Path, folder: Path) -> None:
    """The plan made before pinning names the branch; a link there lets the rule that asked for it find it."""
    if named != folder:
        if named.is_symlink():
            named.unlink()
        named.symlink_to(folder.name)
