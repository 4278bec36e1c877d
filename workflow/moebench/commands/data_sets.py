"""Data sets of a plan: listing, checking and staging them (``moebench stage``)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from moebench import accuracy
from moebench.accuracy import fixtures, vlm_fixtures
from moebench.commands import data_tables
from moebench.config import Config, TableSource
from moebench.config.lockfile import ModelLock
from moebench.errors import StorageError
from moebench.formats.plan import DataSet, EngineConfig, Plan
from moebench.plan.accuracy_cells import LOCK
from moebench.storage import staged


def data_of(plan: Plan) -> dict[str, DataSet]:
    """The distinct data sets of a plan by folder, each with the name of a task that reads it (accuracy tasks and
    corpora)."""
    found = {table["path"]: table for table in tables_of(plan["engines"].values())}
    for harness in accuracy.harnesses(plan):
        for cell in plan["accuracy"][harness]["cells"].values():
            data: DataSet = {**cell["task"]["data"], "task": cell["task"]["name"]}
            found.setdefault(data["path"], data)
    return found


def tables_of(engines: Iterable[EngineConfig]) -> list[DataSet]:
    """Tables used as corpora by the cells of engine configurations."""
    return [t for engine in engines for c in engine.get("corpora", {}).values() if (t := c.get("table"))]


def stage_data(
    config: Config,
    plan: Plan,
    update: bool,
    full: bool,
    noted: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> str:
    """Stage every data set of a plan; return a summary.

    ``noted`` wraps each and may handle its StageError.  Raises StorageError for one that cannot be written.
    """
    done: Counter[str] = Counter()
    for path, data in data_of(plan).items():
        with noted():
            done[_bring(config, Path(path), data, update, full)] += 1
    return (
        f"{done.total()} data sets staged ({done['written']} written, {done['fetched']} fetched, "
        f"{done['there']} already there)"
    )


def _bring(config: Config, path: Path, data: DataSet, update: bool, full: bool) -> str:
    """Stage one data set; return whether it was ``written``, ``fetched`` or ``there``."""
    if data["source"] == "fixtures":
        maker = vlm_fixtures if data["id"] in vlm_fixtures.NAMES else fixtures
        try:
            return "written" if maker.write(data["id"], path) else "there"
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written ({error.strerror or error}); free space and run this again: complete "
                f"files are kept"
            ) from None
    table = isinstance(config.task(data["task"]).data, TableSource)
    if not staged.check(path, full=full) and (table or not update):
        return "there"
    if table:
        data_tables.fetch_table(data, Path(config.root().environments))
    else:
        _fetch(config, data, update, full)
    return "fetched"


def _fetch(config: Config, data: DataSet, update: bool, full: bool) -> None:
    from moebench.models.hub import stage_hub
    from moebench.models.hubprogress import Progress

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
