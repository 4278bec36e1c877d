"""Manifests of finished jobs: the declared output of a measuring rule, and the index for detecting damage."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import cast

from moebench.engines import waiting
from moebench.formats.manifest import Manifest, RecordEntry
from moebench.formats.plan import Job, Plan
from moebench.formats.record import CanaryRun
from moebench.measure import records
from moebench.storage import atomic, lock

SCHEMA = 1


def path_of(results: Path, job: str) -> Path:
    """Path of a job's manifest."""
    return results / "jobs" / f"{job}.json"


def entry(path: Path) -> RecordEntry:
    """Size, modification time and SHA-256 of a record file."""
    info, data = path.stat(), path.read_bytes()
    return {"bytes": info.st_size, "mtime_ns": info.st_mtime_ns, "sha256": hashlib.sha256(data).hexdigest()}


def write(results: Path, job: str, spec: Job, plan: Plan, canary: list[CanaryRun]) -> None:
    """Write the manifest of a job all of whose cells have a final record.

    Keeps canary runs of earlier sessions of the same job.  ``waiting``: cells that wait for a service's variables.
    """
    entries = {
        f"{engine}/{cell}": entry(records.cell_path(results, engine, cell))
        for engine in spec["engines"]
        for cell in plan["engines"][engine]["cells"]
    }
    data: Manifest = {
        "schema": SCHEMA,
        "job": job,
        "digest": spec["digest"],
        "written_at": atomic.stamp(),
        "records": entries,
        "canary": canary,
        "waiting": [key for key in entries if _waits(results, key)],
    }
    atomic.write_atomic(path_of(results, job), atomic.canonical_bytes(data) + b"\n")


def _waits(results: Path, key: str) -> bool:
    record = records.current(results, *key.split("/", 1))[0]
    return record is not None and record["status"] in records.WAITING


def _parse(data: bytes) -> Manifest | None:
    """Decode a manifest's bytes; None for a newer schema.  Raises ValueError if it is not a complete manifest."""
    try:
        found = json.loads(data)
        if found["schema"] > SCHEMA:
            return None
        _ = [(known["bytes"], known["mtime_ns"], known["sha256"]) for known in found["records"].values()]
        _ = found["digest"], list(found["canary"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a manifest: {error}") from None
    return cast(Manifest, found)


def read(results: Path, job: str) -> Manifest | None:
    """A job's manifest, or None if there is no readable one."""
    try:
        return _parse(path_of(results, job).read_bytes())
    except (OSError, ValueError):
        return None


def canary_path(results: Path, engine: str) -> Path:
    """The path of the canary runs of an engine configuration whose job is not finished."""
    return results / "canary" / f"{engine}.json"


def add_canary(results: Path, engine: str, runs: list[CanaryRun]) -> None:
    """Store each canary run of a job that may never finish once: a campaign stops at its time limit."""
    path = canary_path(results, engine)
    known = canary(results, engine)
    if new := [run for run in runs if run not in known]:
        atomic.write_atomic(path, atomic.canonical_bytes(known + new) + b"\n")


def canary(results: Path, engine: str) -> list[CanaryRun]:
    """The canary runs stored without a manifest; empty if there are no readable ones."""
    try:
        return list(json.loads(canary_path(results, engine).read_bytes()))
    except (OSError, ValueError):
        return []


def stale(results: Path, job: str, plan: Plan) -> list[str]:
    """Cells of a finished job whose records changed or went missing since its manifest was written.

    Compares size and time first and reads a file only if they differ, so it costs a ``stat`` per cell.  With a damaged
    manifest, all cells of the job are stale.  Cells that waited for a service count as changed as soon as its variables
    are set.
    """
    try:
        data = _parse(path_of(results, job).read_bytes())
    except OSError:
        return []
    except ValueError:
        return [f"{e}/{c}" for e in plan["jobs"][job]["engines"] for c in plan["engines"][e]["cells"]]
    engines = plan["engines"]
    changed = [
        key
        for key in (data.get("waiting", ()) if data else ())
        if (engine := engines.get(key.partition("/")[0])) and not waiting.unset(engine["runtime"])
    ]
    for key, known in (data["records"] if data else {}).items():
        path = results / "cells" / f"{key}.json"
        try:
            info = path.stat()
            same = (info.st_size, info.st_mtime_ns) == (known["bytes"], known["mtime_ns"])
            if not same and entry(path)["sha256"] != known["sha256"]:
                changed.append(key)
        except OSError:
            changed.append(key)
    return changed


def drop_stale(results: Path, plan: Plan) -> dict[str, list[str]]:
    """Remove the manifests of jobs with changed records, so that a plain `snakemake` measures those cells again.

    Skips a job that is running: its manifest is about to be written.  Raises StorageError for records of a newer
    schema, before anything is removed.
    """
    dropped = {}
    for job, spec in plan["jobs"].items():
        if any(lock.holder(results, engine) for engine in spec["engines"]):
            continue
        changed = stale(results, job, plan)
        if changed:
            dropped[job] = changed
    for key in (key for changed in dropped.values() for key in changed):
        with contextlib.suppress(FileNotFoundError, records.RecordDamaged):
            records.load(results / "cells" / f"{key}.json")
    for job in dropped:
        with contextlib.suppress(OSError):
            path_of(results, job).unlink()
    return dropped
