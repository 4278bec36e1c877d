"""``moebench calibrate``: constants of the machine at hand, measured, and how measured cells compare with them.

The constants go to ``results/machines/``, never into ``config/``: a data sheet and a measurement are different things.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from moebench.config import Architecture, Config, EngineKnobs, Hardware, Peak
from moebench.cost import memory
from moebench.errors import StageError, StorageError
from moebench.measure import records
from moebench.plan import make_plan
from moebench.predict import cell_times

Json = dict[str, Any]


def path_of(results: Path, host: str, threads: int) -> Path:
    """Where the constants of a machine lie."""
    return results / "machines" / f"{host}.threads{threads}.json"


def measure(config: Config, study: str, results: Path, threads: int | None) -> tuple[Path, Json]:
    """Measure in the engine's environment of a study, and keep the result.

    ``threads``: default, those the study gives the engine, else all cores.  Raises StageError if the environment is not
    built or the measurement fails, StorageError if the result cannot be kept.
    """
    asked = config.study(study)
    threads = threads or asked.defaults.get("cpu_threads") or os.cpu_count() or 1
    environment = asked.engine.environment
    python = Path(config.root().environments) / environment / "bin" / "python"
    if not python.exists():
        raise StageError(f"{python} is not there; python3 envs/build.py {environment}")
    package = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [str(python), "-m", "moebench.measure.machine", str(threads)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise StageError(f"the measurement in {environment} failed: {last}")
    made: Json = json.loads(done.stdout)
    path = path_of(results, made["host"], threads)
    records.write_atomic(path, records.canonical_bytes(records.seal(made)) + b"\n")
    return path, made


def load(path: Path) -> Json | None:
    """Kept constants; None without any.  Raises StorageError for a damaged file."""
    try:
        made: Json = json.loads(path.read_bytes())
        if records.seal(made)["sha256"] != made["sha256"]:
            raise ValueError
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError):
        raise StorageError(f"{path}: not a file of `moebench calibrate`, or changed by hand; delete it") from None
    return made


def bandwidth(made: Json, working_set_bytes: float) -> float:
    """Bytes/s of the triad whose arrays are the largest not above the working set: small models stay in caches."""
    known = sorted((t["bytes"], t["bytes_per_s"]) for t in made["triad"])
    within = [rate for size, rate in known if size <= working_set_bytes]
    return float(within[-1] if within else known[0][1])


def hardware(machine: Hardware, made: Json, working_set_bytes: float) -> Hardware:
    """A machine type with measured constants in place of unknown ones; memory stays unknown."""
    reference = f"measured by moebench calibrate at {made['started_at']} on {made['host']}"
    peaks = {
        name: Peak(flops_per_s=found["flops_per_s"], reference=reference) for name, found in made["products"].items()
    }
    return machine.model_copy(
        update={
            "bandwidth_bytes_per_s": machine.bandwidth_bytes_per_s or bandwidth(made, working_set_bytes),
            "peak": peaks | machine.peak,
        }
    )


def residuals(config: Config, study: str, results: Path) -> list[Json]:
    """Measured cells over their bound, per engine configuration, where the machine that measured them is calibrated.

    The constants must be of the host and the number of threads that measured the cell.  Distinct experts are those that
    the engine counted, where it did.  Raises StorageError for damaged constants.
    """
    plan = make_plan(config, study)
    machine, found = Hardware.model_validate(plan["hardware"]), []
    for engine in plan["engines"].values():
        knobs = EngineKnobs.model_validate({k: v for k, v in engine["config"].items() if k != "top_k"})
        architecture = Architecture.model_validate(engine["model"]["architecture"])
        if knobs.draft_model or knobs.tp * knobs.pp * knobs.dp > 1:
            continue  # the bound has no drafts, and no link between processes of one host
        ratios = []
        for cell_id in engine["cells"]:
            made = _measured(results, engine["id"], cell_id)
            if made is None:
                continue
            origin = made["provenance"]
            constants = load(path_of(results, str(origin.get("host")), origin.get("threads") or 0))
            if constants is None or constants["device_name"] != origin.get("device_name"):
                continue
            here = hardware(machine, constants, memory.weight_bytes(architecture, knobs))
            counted = [d for d in made["checks"].get("distinct_experts") or () if d is not None]
            distinct = [float(np.mean(counted))] if counted else None
            (_, itl, e2e) = cell_times(architecture, knobs, here, [made["workload"]], distinct)[0]
            if e2e and itl:
                measured = {m: float(np.median([r["metrics"][m] for r in made["repeats"]])) for m in ("itl_s", "e2e_s")}
                ratios.append((measured["itl_s"] / itl, measured["e2e_s"] / e2e))
        if ratios:
            itl_ratio, e2e_ratio = np.array(ratios).T
            found.append(
                {
                    "engine": engine["id"],
                    "cells": len(ratios),
                    "itl": float(np.median(itl_ratio)),
                    "e2e": float(np.median(e2e_ratio)),
                    "least_e2e": float(e2e_ratio.min()),
                    "most_e2e": float(e2e_ratio.max()),
                }
            )
    return found


def _measured(results: Path, engine: str, cell: str) -> Json | None:
    """The record of a cell that is ok, has a second token, time stamps and no images; None without one."""
    try:
        made = records.load(records.cell_path(results, engine, cell))
    except (FileNotFoundError, records.RecordDamaged):
        return None
    timed = made["status"] == "ok" and made["workload"]["output_tokens"] > 1 and made["protocol"]["kind"] == "trace"
    return made if timed and not made["workload"].get("images") else None


def text(path: Path, made: Json) -> str:
    """Constants for people."""
    lines = [f"{made['device_name']}, {made['threads']} threads, host {made['host']}, {made['started_at']}", ""]
    lines += [f"triad of {t['bytes'] / 1e6:>4.0f} MB   {t['bytes_per_s'] / 1e9:8.1f} GB/s" for t in made["triad"]]
    lines += [
        f"product {name:<10} {found['flops_per_s'] / 1e9:8.1f} GFLOP/s   (side {found['side']})"
        for name, found in made["products"].items()
    ]
    return "\n".join([*lines, "", f"Best of the repeats; all are in {path}"])


def residual_text(found: list[Json]) -> str:
    """Residuals for people."""
    if not found:
        return (
            "No measured cell of a calibrated machine: measure the study, and run `moebench calibrate` on the same "
            "machine with the same number of threads."
        )
    wide = max(len(row["engine"]) for row in found)
    lines = [f"{'measured / bound':<{wide}}  cells    itl    e2e  e2e from to"]
    for r in found:
        ends = f"{r['least_e2e']:.1f} to {r['most_e2e']:.1f}"
        lines.append(f"{r['engine']:<{wide}}  {r['cells']:>5} {r['itl']:>6.1f} {r['e2e']:>6.1f}  {ends}")
    return "\n".join(lines)
