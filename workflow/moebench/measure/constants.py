"""Constants of the measuring machines (``moebench.measure.machine``): measured once per host and number of threads, and
stored beside the records.  Standard library only."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

from moebench.errors import StageError, StorageError
from moebench.formats.manifest import MachineConstants
from moebench.formats.plan import Plan
from moebench.measure import records
from moebench.measure.plausible import refused
from moebench.storage import atomic, lock


def path_of(results: Path, host: str, threads: int) -> Path:
    """The path of a machine's constants."""
    return results / "machines" / f"{host}.threads{threads}.json"


def load(path: Path) -> MachineConstants | None:
    """Stored constants; None if there are none.  Raises StorageError if damaged."""
    try:
        constants = json.loads(path.read_bytes())
        if records.seal(constants)["sha256"] != constants["sha256"]:
            raise ValueError
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError):
        raise StorageError(f"{path}: not a file of `moebench calibrate`, or changed by hand; delete it") from None
    return cast(MachineConstants, constants)


def take(python: str, results: Path, threads: int) -> tuple[Path, MachineConstants]:
    """Measure in a separate process and store the result.

    ``python``: the interpreter of an engine's environment.  Raises StageError if the measurement fails, StorageError if
    the result cannot be stored.
    """
    package = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [python, "-m", "moebench.measure.machine", str(threads)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise StageError(f"the measurement with {python} failed: {last}")
    made = cast(MachineConstants, records.seal(json.loads(done.stdout)))
    path = path_of(results, made["host"], threads)
    atomic.write_atomic(path, atomic.canonical_bytes(made) + b"\n")
    return path, made


def ensure(plan: Plan, engine: str, results: Path, python: str, say: Callable[[str], None]) -> None:
    """Measure this machine's constants before the cells of a job, if the study requests them and there are none.

    ``engine``: an engine configuration of the job, which determines the threads.  A failed measurement is logged and
    stops nothing.  Raises StorageError if the folder cannot be written.
    """
    spec, host = plan["engines"][engine], socket.gethostname()
    if not plan["jobs_settings"].get("measure_constants") or spec["runtime"]["hosted"]:
        return
    threads = spec["config"]["cpu_threads"] or os.cpu_count() or 1
    path = path_of(results, host, threads)
    if path.exists():
        return
    with lock.held(results, f"machine-{host}", say):
        if path.exists():  # written by the job that held the lock
            return
        say(f"measuring constants of this machine ({host}, {threads} threads)")
        try:
            _, made = take(python, results, threads)
        except StageError as error:
            say(f"no constants of this machine: {error}")
            return
        for line in refused(made):
            say(line)
