"""``moebench calibrate``: measured constants of this machine, and measured cells compared with them.

The constants go to ``results/machines/``, never to ``config/``: a data sheet and a measurement are different things.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from moebench.columns import Row
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import StageError
from moebench.formats.manifest import MachineConstants
from moebench.measure import constants
from moebench.measure.plausible import refused
from moebench.tables import cell_rows, gather, machines
from moebench.text import table


def measure(config: Config, study: str, results: Path, threads: int | None) -> tuple[Path, MachineConstants]:
    """Measure in the environment of the study's engine, and store the result.

    ``threads``: by default the engine's threads in the study, or all cores.  Raises StageError if the environment is
    not built or the measurement fails, StorageError if the result cannot be stored.
    """
    asked = config.study(study)
    threads = threads or asked.defaults.get("cpu_threads") or os.cpu_count() or 1
    environment = asked.engine.environment
    python = Path(config.root().environments) / environment / "bin" / "python"
    if not python.exists():
        raise StageError(f"{python} is not there; python3 envs/build.py {environment}")
    return constants.take(str(python), results, threads)


def residuals(config: Config, study: str, results: Path) -> list[Row]:
    """Measured times divided by their bounds, per engine configuration, for bounds from measured constants.

    The numbers are those of the table ``measurements``.  Raises StorageError for damaged constants.
    """
    kept, found = machines.read(results), []
    made = [cell_rows.make(chunk) for chunk in gather.chunks_of(make_plan(config, study), results, "", kept)]
    frame = pd.concat([one.tables["measurements"].to_pandas() for one in made])
    good = frame[(frame["predicted_with"] == machines.MEASURED) & frame["residual_e2e"].notna()]
    for engine, rows in good.groupby("engine", sort=False):
        found.append(
            {
                "engine": engine,
                "cells": len(rows),
                "itl": float(rows["residual_itl"].median()),
                "e2e": float(rows["residual_e2e"].median()),
                "least_e2e": float(rows["residual_e2e"].min()),
                "most_e2e": float(rows["residual_e2e"].max()),
            }
        )
    return found


def text(path: Path, made: MachineConstants) -> str:
    """The constants as text."""
    lines = [f"{made['device_name']}, {made['threads']} threads, host {made['host']}, {made['started_at']}", ""]
    lines += [f"triad of {t['bytes'] / 1e6:>4.0f} MB   {t['bytes_per_s'] / 1e9:8.1f} GB/s" for t in made["triad"]]
    lines += [
        f"product {name:<10} {found['flops_per_s'] / 1e9:8.1f} GFLOP/s   (side {found['side']})"
        for name, found in made["products"].items()
    ]
    wrong = refused(made)
    lines += ["", *wrong] * bool(wrong)
    return "\n".join([*lines, "", f"Best of the repeats; all are in {path}"])


def residual_text(found: list[Row]) -> str:
    """The residuals as text."""
    if not found:
        return (
            "No measured cell of a calibrated machine: measure the study, and run `moebench calibrate` on the same "
            "machine with the same number of threads."
        )
    rows = [
        [
            r["engine"],
            r["cells"],
            round(r["itl"], 1),
            round(r["e2e"], 1),
            f"{r['least_e2e']:.1f} to {r['most_e2e']:.1f}",
        ]
        for r in found
    ]
    return table(["measured / bound", "cells", "itl", "e2e", "e2e from to"], rows)
