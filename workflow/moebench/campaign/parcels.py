"""Results as files that travel: zip archives of at most 16 MiB, each whole in itself, each checked by itself.

A parcel holds a part of the records, the canary runs, constants of the machine, the ends of the logs, and
``parcel.json`` with the SHA-256 of every file in it.  That finds damage, not forgery: nothing is signed.  Standard
library only: it is written where the campaign runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from moebench.errors import StorageError, UserError
from moebench.formats import Json
from moebench.formats.campaign import ParcelAbout
from moebench.formats.record import CanaryRun, Record
from moebench.measure import manifest, records
from moebench.storage.atomic import canonical_bytes, write_atomic

SCHEMA = 1
INDEX = "parcel.json"
MOST_BYTES = 16 * 2**20
"""The largest parcel."""
_ENTRY_BYTES = 400
"""Room for an entry's headers, its name twice and its line in the index."""
_LOG_BYTES = 200_000
"""The end of a log that travels."""


@dataclass(frozen=True)
class Parcel:
    """A checked parcel."""

    about: ParcelAbout
    """What ``write`` was told about the campaign."""
    records: list[Record]
    canary: dict[str, list[CanaryRun]]
    """Canary runs by engine configuration."""
    machines: dict[str, bytes]
    """Constants of machines, by file name."""
    logs: dict[str, bytes]


def write(folder: Path, name: str, results: Path, logs: Path, about: ParcelAbout) -> list[Path]:
    """Write all results as parcels ``NAME-01.zip`` and so on, replacing existing ones; return them.

    Raises StorageError.
    """
    parts = list(_parts(list(_files(results, logs))))
    made = []
    for number, part in enumerate(parts, 1):
        sums = {file: hashlib.sha256(data).hexdigest() for file, data in part}
        index = {"schema": SCHEMA, "part": number, "parts": len(parts), **about, "files": sums}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            for path, data in [(INDEX, canonical_bytes(index)), *part]:
                file.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
        made.append(folder / f"{name}-{number:02d}.zip")
        write_atomic(made[-1], packed.getvalue())
    for old in set(folder.glob(f"{name}-[0-9][0-9].zip")) - set(made):
        old.unlink(missing_ok=True)
    return made


def _files(results: Path, logs: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that travels, by its name in the parcel: records first, logs last."""
    for pattern in ("cells/*/*.json", "canary/*.json", "machines/*.json"):
        for path in sorted(results.glob(pattern)):
            if not path.name.startswith("."):
                yield path.relative_to(results).as_posix(), path.read_bytes()
    for path in sorted(logs.glob("*.log")):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            yield f"logs/{path.name}", file.read()


def _parts(files: list[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Files in parts that are within ``MOST_BYTES`` when compressed; at least one part."""
    part: list[tuple[str, bytes]] = []
    size = room = MOST_BYTES // 16  # of the index
    for name, data in files:
        needs = len(zlib.compress(data)) + _ENTRY_BYTES + 3 * len(name)
        if part and size + needs > MOST_BYTES:
            yield part
            part, size = [], room
        part.append((name, data))
        size += needs
    yield part


def read(path: Path) -> Parcel:
    """A parcel, every byte of it checked.  Raises UserError, one line, if it is not whole or not as it was written."""
    again = "copy the file again"
    try:
        with zipfile.ZipFile(path) as file:
            found = {entry.filename: file.read(entry) for entry in file.infolist()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise UserError(f"{path}: truncated, changed, or not the results of a campaign ({error}); {again}") from None
    try:
        index: Json = json.loads(found.pop(INDEX))
        schema, sums = int(index.pop("schema")), dict(index.pop("files"))
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: not the results of a campaign ({INDEX} is missing or damaged)") from None
    if schema > SCHEMA:
        raise UserError(f"{path}: results of schema {schema}, this version reads up to {SCHEMA}; update moebench")
    changed = sorted(set(sums) ^ set(found)) or sorted(
        name for name, data in found.items() if hashlib.sha256(data).hexdigest() != sums[name]
    )
    if changed:
        raise UserError(f"{path}: changed since it was written ({changed[0]}); {again}")
    made = Parcel(cast(ParcelAbout, index), [], {}, {}, {})
    for name, data in found.items():
        kind, _, rest = name.partition("/")
        try:
            if kind == "cells":
                made.records.append(_record(rest, data))
            elif kind == "canary":
                made.canary[rest.removesuffix(".json")] = list(json.loads(data))
            elif kind in ("machines", "logs") and rest == os.path.basename(rest) and not rest.startswith("."):
                (made.machines if kind == "machines" else made.logs)[rest] = data
            else:
                raise ValueError("a file that no campaign writes")
        except (records.RecordDamaged, StorageError, ValueError) as error:
            raise UserError(f"{path}: {name}: {error}") from None
    return made


def _record(name: str, data: bytes) -> Record:
    record = records.parse(data)
    if name != f"{record.get('engine')}/{record.get('cell')}.json":
        raise ValueError("its record is of another cell")
    return record


# ------------------------------------------------------------------------------------------- taking in

NEW, BETTER, KEPT = "new", "better", "kept"
"""What became of a record: there was none; it took the place of a worse one; the one there is as good."""


def _worth(record: Record) -> int:
    """Rank of a record: measured, another result, or a failure of the machinery."""
    return 2 if record["status"] == "ok" else 1 if record["status"] in records.FINAL else 0


def take(results: Path, record: Record) -> str:
    """Store a record unless the existing one is as good; return NEW, BETTER or KEPT.  Raises StorageError."""
    there = records.current(results, record["engine"], record["cell"])[0]
    if there is not None and _worth(there) >= _worth(record):
        return KEPT
    records.store(results, record)
    return NEW if there is None else BETTER


def unpack(parcel: Parcel, results: Path) -> dict[str, int]:
    """Take a parcel's records, canary runs and machine constants into a results folder.

    Returns how many records were NEW, BETTER and KEPT.  Doing it twice changes nothing.  Raises StorageError.
    """
    counts = dict.fromkeys((NEW, BETTER, KEPT), 0)
    for record in parcel.records:
        counts[take(results, record)] += 1
    for engine, runs in parcel.canary.items():
        manifest.add_canary(results, engine, runs)
    for name, data in parcel.machines.items():
        if not (path := results / "machines" / name).exists():
            write_atomic(path, data)
    return counts
