"""Data sets of a plan: which there are, whether they are whole, and bringing them (``moebench stage``)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moebench import accuracy, staged
from moebench.accuracy import fixtures, vlm_fixtures, vlm_staging
from moebench.accuracy.planning import LOCK
from moebench.config import Config, TableSource
from moebench.errors import StorageError
from moebench.modellock import ModelLock


def data_of(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The distinct data sets of a plan by folder, each with the name of a task that reads it: of accuracy cells, and
    of corpora that are tables."""
    found: dict[str, dict[str, Any]] = {table["path"]: table for table in tables_of(plan["engines"].values())}
    for harness in accuracy.harnesses(plan):
        for cell in plan["accuracy"][harness]["cells"].values():
            found.setdefault(cell["task"]["data"]["path"], cell["task"]["data"] | {"task": cell["task"]["name"]})
    return found


def tables_of(engines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tables that are corpora of engine configurations' cells."""
    return [c["table"] for engine in engines for c in engine.get("corpora", {}).values() if c.get("table")]


def stage_data(config: Config, plan: dict[str, Any], update: bool, full: bool) -> str:
    """Bring every data set of a plan; return what was done, in words.

    Raises StageError for the first that fails, StorageError for one that cannot be written.
    """
    wanted, written, fetched = data_of(plan), 0, 0
    for path, data in wanted.items():
        if data["source"] == "fixtures":
            maker = vlm_fixtures if data["id"] in vlm_fixtures.NAMES else fixtures
            try:
                written += maker.write(data["id"], Path(path))
            except OSError as error:
                raise StorageError(
                    f"{path}: cannot be written ({error.strerror or error}); free space and run this again: what is "
                    "whole is kept"
                ) from None
        elif isinstance(config.task(data["task"]).data, TableSource):
            if staged.check(Path(path), full=full):
                vlm_staging.fetch_table(data, Path(config.root().environments))
                fetched += 1
        elif update or staged.check(Path(path), full=full):
            _fetch(config, data, update, full)
            fetched += 1
    there = len(wanted) - written - fetched
    return f"{len(wanted)} data sets staged ({written} written, {fetched} fetched, {there} already there)"


def _fetch(config: Config, data: dict[str, Any], update: bool, full: bool) -> None:
    from moebench.hub import stage_hub
    from moebench.hubprogress import Progress

    source = config.task(data["task"]).data
    assert not isinstance(source, TableSource)
    root = Path(data["path"]).parent
    done = stage_hub(
        source,
        lambda commit: root / commit[:12],
        ModelLock(config.folder / LOCK),
        Progress(sys.stderr),
        update=update,
        full=full,
        repo_type="dataset",
    )
    # The plan made before pinning names the branch; a link there lets the rule that asked for it find it.
    named = root / source.revision
    if len(source.revision) != 40 and named != done.folder:
        if named.is_symlink():
            named.unlink()
        named.symlink_to(done.folder.name)
