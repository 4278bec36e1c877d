"""``moebench campaign``: pack a campaign, run one that is unpacked here, import what it brought back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
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


def pack(config: Config, studies: Sequence[str], out: Path, gpus: int = 1, engine: Path | None = None) -> str:
    """Pack studies for a machine with so many devices; what was packed, in words.

    ``engine``: folder of the archives of an engine to carry along.  Raises UserError (also for a figure that could not
    be drawn), StorageError.
    """

    from moebench.figures import check  # imports matplotlib

    def planned(study: str, choose: Callable[[Plan], set[str]]) -> Plan:
        def checked(plan: Plan) -> set[str]:
            check(plan, config.folder)  # now, not when its results are home
            return choose(plan)

        return make_plan(config, study, models=MODELS, choose=checked)

    return _words(pack_archive(out, planned, studies, Path(config.root().models), gpus, engine))


def _words(made: Packed) -> str:
    lines = [f"{made.path}: {made.path.stat().st_size / 2**20:.1f} MiB"]
    lines += [f"study {study}: {count} cells" for study, count in made.cells.items()]
    lines += [f"left out: {name}: {why}" for name, why in made.left_out.items()]
    if made.stand_ins:
        lines.append(
            f"{len(made.stand_ins)} models are not staged here: config.json from the registry, words as tokens "
            "(every record says so)"
        )
    lines.append(f"there: python3 -m tarfile -e {made.path.name} && sh campaign/run.sh --minutes 9")
    return "\n".join(lines)


def run(folder: Path, arguments: Sequence[str], python: str | None = None) -> int:
    """Run a campaign that is unpacked in ``folder`` with the code it carries; return its exit code.

    ``python``: its interpreter, one with the engine's packages.  Raises UserError.
    """
    script = folder / "run.sh"
    if not script.is_file():
        raise UserError(f"{script}: no campaign there; unpack what `moebench campaign pack` made")
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.call(["sh", str(script), *arguments], env=clean | {"PYTHON": python or sys.executable})


def import_files(config: Config, paths: Sequence[Path], results: Path, name: str | None = None) -> str:
    """Take results in and make their tables; what was taken, in words.  Raises UserError, StorageError."""
    known = {path.stem for path in (config.folder / "studies").glob("*.yaml")}
    wanted = {study for path in paths for study in parcels.read(path).about["studies"]}
    plans = {study: make_plan(config, study) for study in sorted(wanted & known)}
    made = bring_home.take(paths, plans, results, name)
    lines = [str(made)]
    for study in made.studies:
        plan = keep(plans[study], made.folder, config.folder)
        lines.append(str(collect(plan, made.folder, made.folder / "tables" / study)))
        reports = f"reports/{IMPORTED}/{made.folder.name}"
        lines.append(f"report: moebench report --partial --study {study} --results {made.folder} --reports {reports}")
    return "\n".join(lines)
