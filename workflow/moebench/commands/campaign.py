"""``moebench campaign``: pack a campaign, run an unpacked one, import its results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moebench.campaign import bring_home, parcels
from moebench.campaign.pack import MODELS, Packed
from moebench.campaign.pack import pack as pack_archive
from moebench.claims.collect import collect
from moebench.claims.imported import IMPORTED
from moebench.commands.planning import keep, make_plan
from moebench.config import Config
from moebench.errors import UserError
from moebench.formats.plan import Plan


def pack(config: Config, studies: Sequence[str], out: Path, gpus: int = 1, engine: Path | None = None) -> Packed:
    """Pack studies for a machine with ``gpus`` devices.

    ``engine``: folder with the archives of an engine to include.  Raises UserError (also for a figure that cannot be
    drawn), StorageError.
    """

    from moebench.figures import check  # imports matplotlib

    def planned(study: str, choose: Callable[[Plan], set[str]]) -> Plan:
        def checked(plan: Plan) -> set[str]:
            check(plan, config.folder)  # now, not after its results are imported
            return choose(plan)

        return make_plan(config, study, models=MODELS, choose=checked)

    return pack_archive(out, planned, studies, Path(config.root().models), gpus, engine)


def run(folder: Path, arguments: Sequence[str], python: str | None = None) -> int:
    """Run the campaign unpacked in ``folder`` with its own code; return its exit code.

    ``python``: an interpreter with the engine's packages.  Raises UserError.
    """
    script = folder / "run.sh"
    if not script.is_file():
        raise UserError(f"{script}: no campaign in this folder; unpack the archive written by `moebench campaign pack`")
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.call(["sh", str(script), *arguments], env=clean | {"PYTHON": python or sys.executable})


@dataclass(frozen=True)
class Imported:
    """Imported results and the tables built from them."""

    taken: bring_home.Taken
    tables: dict[str, str]
    """By study: what its tables contain, in one line."""
    reports: dict[str, str]
    """By study: the command that builds a report of this machine."""

    def __str__(self) -> str:
        lines = [f"{self.tables[study]}\nreport: {self.reports[study]}" for study in self.tables]
        return "\n".join([str(self.taken), *lines])


def import_files(config: Config, paths: Sequence[Path], results: Path, name: str | None = None) -> Imported:
    """Import results and build their tables.  Raises UserError, StorageError."""
    known = {path.stem for path in (config.folder / "studies").glob("*.yaml")}
    wanted = {study for path in paths for study in parcels.read(path).about["studies"]}
    plans = {study: make_plan(config, study) for study in sorted(wanted & known)}
    taken = bring_home.take(paths, plans, results, name)
    imported = Imported(taken, {}, {})
    for study in taken.studies:
        plan = keep(plans[study], taken.folder, config.folder)
        imported.tables[study] = str(collect(plan, taken.folder, taken.folder / "tables" / study))
        reports = f"reports/{IMPORTED}/{taken.folder.name}"
        imported.reports[study] = (
            f"moebench report --partial --study {study} --results {taken.folder} --reports {reports}"
        )
    return imported
