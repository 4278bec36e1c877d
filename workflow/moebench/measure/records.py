"""Records of cells: written so that no measurement is lost, read so that no damaged record is used.

A record is sealed with a SHA-256 over its canonical JSON, written to a temporary file, flushed to disk and then renamed
into place.  A crash at any point leaves either the old record or the new one.  ``history/`` has a copy, not a hard
link, so that editing or restoring a record in place does not change it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from moebench.engines import failures
from moebench.errors import StorageError
from moebench.formats.record import Record, RecordHead
from moebench.storage.atomic import canonical_bytes, stamp, write_atomic

SCHEMA = 1

FINAL = ("ok", "oom_weights", "oom_kv", "oom_activation", "infeasible", "unsupported", "invalid", "goals_missed")
"""Final statuses: a cell with such a record is not tried again."""
INFRASTRUCTURE = ("timeout", "crashed", "node_fault", "service_fault")
"""Infrastructure failures: retried up to MAX_ATTEMPTS times."""
WAITING = ("no_endpoint",)
"""Waits for configuration: the job continues without it, and the next run tries it again."""
MAX_ATTEMPTS = 3


class RecordDamaged(Exception):
    """A record file that is truncated, edited or not a record; ``str()`` says which."""


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its ``sha256``."""
    body = {k: v for k, v in record.items() if k != "sha256"}
    return body | {"sha256": hashlib.sha256(canonical_bytes(body)).hexdigest()}


def parse(data: bytes) -> Record:
    """Check and decode a record's bytes.

    Raises RecordDamaged (truncated, edited, not a record) or StorageError (newer schema).
    """
    try:
        record = json.loads(data)
    except ValueError as error:
        raise RecordDamaged(f"not complete JSON ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int) or "status" not in record:
        raise RecordDamaged("not a record: schema or status is missing")
    if record.get("sha256") != seal(record)["sha256"]:  # first, because the schema number itself may be damaged
        raise RecordDamaged("its contents do not match its checksum (edited by hand?)")
    if record["schema"] > SCHEMA:
        raise StorageError(f"record of schema {record['schema']}, this version reads up to {SCHEMA}; update moebench")
    return cast(Record, record)


def load(path: Path) -> Record:
    """Read a record.  Raises FileNotFoundError, RecordDamaged, or StorageError naming the file."""
    try:
        return parse(path.read_bytes())
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})") from None


def sweep(results: Path, engine: str) -> None:
    """Remove temporary files of killed writers.  Call it while holding the engine's lock."""
    for folder in ("cells", "history", "samples", "tries"):
        for left in (results / folder / engine).glob(".*.tmp"):
            with contextlib.suppress(OSError):
                left.unlink()


def cell_path(results: Path, engine: str, cell: str) -> Path:
    """Path of a cell's record."""
    return results / "cells" / engine / f"{cell}.json"


def store(results: Path, record: RecordHead) -> bytes:
    """Seal and write a record, and keep a copy in ``history/``; return its bytes.  Raises StorageError."""
    data = canonical_bytes(seal(record)) + b"\n"
    path = cell_path(results, record["engine"], record["cell"])
    history = results / "history" / record["engine"] / f"{record['cell']}.{record['ended_at'].replace(':', '')}.json"
    write_atomic(history, data)
    try:
        write_atomic(path, data)
    except StorageError:
        with contextlib.suppress(OSError):
            history.unlink()
        raise
    return data


def tries_path(results: Path, engine: str, cell: str) -> Path:
    """Path of the journal of an unfinished search (``measure.max_rate``)."""
    return results / "tries" / engine / f"{cell}.json"


def again_path(results: Path, engine: str, cell: str) -> Path:
    """The file with the time at which a user last requested that a cell be measured again."""
    return results / "history" / engine / f"{cell}.again"


def measure_again(results: Path, engine: str, cell: str) -> None:
    """Make a cell pending and discount its earlier attempts; its record stays in ``history/``.  Raises StorageError."""
    write_atomic(again_path(results, engine, cell), stamp().replace(":", "").encode())
    path = cell_path(results, engine, cell)
    try:
        path.unlink(missing_ok=True)
        tries_path(results, engine, cell).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed ({error.strerror}); fix its permissions") from None


def set_aside(results: Path, path: Path, reason: str) -> Path:
    """Move a damaged record to ``set-aside/`` with a note of the reason; nothing is deleted."""
    target = results / "set-aside" / path.parent.name / f"{path.name}.{stamp().replace(':', '')}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        target.with_name(target.name + ".why").write_text(reason + "\n")
    except OSError as error:
        raise StorageError(
            f"{path}: is damaged ({reason}) and cannot be set aside ({error.strerror}); free space or fix permissions"
        ) from None
    return target


def current(results: Path, engine: str, cell: str) -> tuple[Record | None, str | None]:
    """The intact record of a cell, if any, and why a damaged one was set aside, if one was."""
    path = cell_path(results, engine, cell)
    try:
        record = load(path)
    except FileNotFoundError:
        return None, None
    except RecordDamaged as error:
        set_aside(results, path, str(error))
        return None, str(error)
    if (record.get("engine"), record.get("cell")) != (engine, cell):
        reason = f"record of {record.get('engine')}/{record.get('cell')} under another cell's name"
        set_aside(results, path, reason)
        return None, reason
    return record, None


def is_final(record: RecordHead) -> bool:
    """Whether a cell with this record is finished (a result, or an infrastructure failure after the last retry)."""
    return record["status"] in FINAL or (record["attempt"] >= MAX_ATTEMPTS and not is_mendable(record))


def is_mendable(record: RecordHead) -> bool:
    """Whether a cell failed because of disk space, incomplete data or a faulty node: a person fixes that, so retries
    are unlimited.  In records older than ``checks.host`` the reason shows a fault of the node."""
    return failures.of_host(record) or 0 in (record.get("checks", {}).get(what) for what in ("storage", "data", "host"))


def attempts_in_a_row(results: Path, engine: str, cell: str) -> int:
    """Number of infrastructure failures of this cell since its last result, or since a user requested it again
    (Snakemake may delete a failed record).

    Failures that a person must fix (a full disk) do not count.
    """
    count, asked = 0, again_path(results, engine, cell)
    since = asked.read_text() if asked.exists() else ""
    for path in sorted((results / "history" / engine).glob(f"{cell}.*.json"), reverse=True):
        if path.name < f"{cell}.{since}":
            break
        try:
            record = load(path)
        except (RecordDamaged, OSError, StorageError):
            continue
        if record["status"] in FINAL + WAITING:
            break
        count += not is_mendable(record)
    return count
