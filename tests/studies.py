"""Configuration folders for tests: the repository's models, tasks and hardware, and a study made up for the test."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast
from unittest import mock

import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]

TINY = {"eager": True, "max_model_len": 256, "max_num_seqs": 16, "max_num_batched_tokens": 2048, "kv_cache_mb": 64,
        "cpu_threads": 1}  # fmt: skip


def write(path: Path, data: Any) -> Path:
    """Write YAML, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(data, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False))
    return path


def read(path: Path) -> Any:
    """Read YAML; ``yaml.safe_load`` would take ten times as long."""
    return yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


SHARED: list[Path] = []
"""A folder that the workers of a test run share, if there are several (conftest.py): each plan is made by one."""


def planned(study: str) -> dict[str, Any]:
    """The plan of a study of the repository: made once in a process, a copy for each test."""
    plan: dict[str, Any] = pickle.loads(_planned(study))
    return plan


@functools.cache
def _planned(study: str) -> bytes:
    from moebench.commands.planning import make_plan
    from moebench.config import Config  # not at once: what measures has no pydantic

    if not SHARED:
        return pickle.dumps(make_plan(Config(ROOT / "config"), study))
    path = SHARED[0] / f"plan-{study}.pickle"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            path.write_bytes(pickle.dumps(make_plan(Config(ROOT / "config"), study)))
    return path.read_bytes()


@functools.cache
def drafted(study: str) -> dict[str, Any]:
    """The plan of a study of the repository, to be read only, without times, memory and jobs, which take two thirds of
    the time; whole of ``paper`` and ``tiny``, which other tests plan too."""
    from moebench.config import Config
    from moebench.plan.make import Draft

    if study in ("paper", "tiny"):
        return planned(study)
    draft = Draft(Config(ROOT / "config"), study, lock=None, models=None, data=None)
    unknown = mock.patch("moebench.plan.accuracy_time.engine_s", lambda cells, *_: [None] * len(cells))
    with mock.patch.object(Draft, "predict_cells"), unknown:
        draft.predict()
    return cast(dict[str, Any], draft.plan)


def with_claimed_points(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan of ``paper`` with only those points of the cost model that claims are about: a third of all."""
    one = plan["experiments"]["qs-inequality"]
    points = [p for p in one["computed"]["points"]
              if p["settings"]["gpus"] == 64 and p["settings"]["context_tokens"] in (1024, 131072)]  # fmt: skip
    computed = {"qs-inequality": one | {"computed": one["computed"] | {"points": points}}}
    return plan | {"experiments": plan["experiments"] | computed}


def experiment(name: str, blocks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """An experiment with one grid, of scale ``test``."""
    return {"name": name, "title": name.title(), "question": "Does it?", "grid": {"test": blocks}} | more


LINKS: list[Path] = []
"""Where copies of the repository's models, tasks etc. are that new configuration folders link to, each the last one of
its kind that no test has changed; if empty (tests/unit/conftest.py), each folder has copies of its own."""

_copies: dict[str, tuple[Path, set[tuple[str, int, int]]]] = {}


def _state(folder: Path) -> set[tuple[str, int, int]]:
    return {(file.name, (seen := file.stat()).st_mtime_ns, seen.st_size) for file in os.scandir(folder)}


def _link(kind: str, to: Path) -> None:
    """Let ``to`` be a link to a folder of the repository's files, which a test may change: the next has another."""
    folder, as_copied = _copies.get(kind, (None, None))
    if folder is None or LINKS[0] not in folder.parents or not folder.exists() or _state(folder) != as_copied:
        folder = Path(tempfile.mkdtemp(dir=LINKS[0])) / kind
        shutil.copytree(ROOT / "config" / kind, folder, copy_function=shutil.copyfile)
        for file in folder.iterdir():
            os.utime(file, (0, 0))  # any change is later
        _copies[kind] = folder, _state(folder)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    to.symlink_to(folder)


def folder(
    where: Path,
    experiments: dict[str, Any],
    models: Path | str | None = None,
    live_top_k: Any = "auto",
    **study: Any,
) -> Path:
    """A configuration folder with the study ``test``: experiments by name.

    An experiment is a list of blocks, or a mapping: its ``blocks`` and other keys, e.g. ``protocol``.
    ``study`` replaces keys of the study, e.g. ``hardware``, ``defaults``, ``protocol``, ``jobs``.
    """
    config = where / "config"
    for kind in ("models", "families", "tasks", "hardware"):
        if LINKS:
            _link(kind, config / kind)
        else:
            shutil.copytree(ROOT / "config" / kind, config / kind, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for name, given in experiments.items():
        more = given if isinstance(given, dict) else {"blocks": given}
        write(config / "experiments" / f"{name}.yaml", experiment(name, **more))
    engine = {"name": "vllm", "version": "0.32.0", "environment": "vllm-cpu", "live_top_k": live_top_k}
    whole = {"name": "test", "title": "Test", "description": "For a test.", "scale": "test", "hardware": "local-cpu",
             "engine": engine, "experiments": list(experiments), "defaults": TINY,
             "protocol": {"warmup": 1, "repeats": 2, "seed": 1}, "jobs": {"pack_minutes": 100}}  # fmt: skip
    write(config / "studies" / "test.yaml", whole | study)
    write(config / "config.yaml", {"study": "test", "models": str(models or ROOT / "models")})
    return config


def part(where: Path, study: str, experiments: list[str]) -> Path:
    """A configuration folder with a study of the repository that has only some of its experiments."""
    whole, config = ROOT / "config", where / "config"
    own = Path("studies") / f"{study}.yaml"
    write(config / own, read(whole / own) | {"experiments": experiments})
    for path in (*whole.iterdir(), *(whole / "studies").iterdir()):
        link = config / path.relative_to(whole)
        if not link.exists():
            link.symlink_to(path)
    return config


def random_model(config: Path, name: str, like: str = "tiny-mixtral", **architecture: Any) -> None:
    """Add a model to a configuration folder: another one with some sizes changed."""
    spec = read(config / "models" / f"{like}.yaml")
    spec["name"] = name
    for key, value in architecture.items():
        if isinstance(value, dict):
            spec["architecture"][key] |= value
        else:
            spec["architecture"][key] = value
    write(config / "models" / f"{name}.yaml", spec)
