"""Results of a campaign into a results folder of their own, ``results/imported/NAME``, checked against the plan here.

Imported records are ordinary ones: tables, claims, report and ``moebench compare`` read them like any others.  A file
is imported whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moebench.campaign import parcels
from moebench.campaign.parcels import Parcel
from moebench.claims.imported import IMPORTED
from moebench.errors import UserError
from moebench.formats import Json
from moebench.formats.plan import Plan
from moebench.formats.record import Record
from moebench.measure import records
from moebench.storage.atomic import write_atomic


@dataclass
class Taken:
    """Result of an import."""

    folder: Path
    studies: list[str]
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((parcels.NEW, parcels.BETTER, parcels.KEPT), 0)
    )
    ran: list[str] = field(default_factory=list)
    """Engines and versions that ran, and on what."""

    def __str__(self) -> str:
        new, better, kept = (self.counts[k] for k in (parcels.NEW, parcels.BETTER, parcels.KEPT))
        return f"{self.folder}: {new} new records, {better} replacing worse ones, {kept} already there;  " + "; ".join(
            self.ran
        )


def take(paths: Sequence[Path], plans: Mapping[str, Plan], results: Path, name: str | None = None) -> Taken:
    """Import parcels.

    ``plans``: of the studies here, by name.  ``name``: of the machine's folder; default: its device and the day the
    campaign began.  Raises UserError for a file that is damaged, changed or not of these plans, before anything is
    written; StorageError.
    """
    read = [(path, parcels.read(path)) for path in paths]
    for path, parcel in read:
        if unknown := sorted(set(parcel.about["studies"]) - set(plans)):
            raise UserError(f"{path}: results of study {unknown[0]}, which is not in this configuration")
        for record in parcel.records:
            if problem := disagreement(record, plans):
                raise UserError(f"{path}: {record['engine']}/{record['cell']}: {problem}")
    every = [record for _, parcel in read for record in parcel.records]
    if not every:
        raise UserError(f"{paths[0]}: no records in it: nothing was measured")
    folder = results / IMPORTED / (name or _name(read[0][1]))
    _refuse_other_device(folder, every, paths[0])
    made = Taken(folder, sorted({record["study"] for record in every}), ran=sorted(set(map(_ran, every))))
    for _, parcel in read:
        for what, count in parcels.unpack(parcel, folder).items():
            made.counts[what] += count
        for file, data in parcel.logs.items():
            write_atomic(folder / "logs" / file, data)
    return made


def disagreement(record: Record, plans: Mapping[str, Plan]) -> str | None:
    """How a record differs from the plan of its study; None if it does not.

    The version of the engine is not compared: the record says which one ran.
    """
    plan = plans.get(record["study"])
    if plan is None:
        return f"of study {record['study']}, which the file does not name"
    cell = plan["cells"].get(f"{record['engine']}/{record['cell']}")
    if cell is None:
        return f"no cell of study {plan['study']} here: the configuration differs from the one that was packed"
    engine = plan["engines"][record["engine"]]
    planned: Json = {
        "engine_config": engine["config"],
        "model": engine["model"],
        "workload": cell["workload"],
        "protocol": cell["protocol"],
    }
    found: Json = {**record}
    for part, here in planned.items():
        for key in here.keys() & found[part].keys() - {"path"}:  # ignore knobs that are newer than the record
            if here[key] != found[part][key]:
                return f"{part}.{key} is {found[part][key]!r}, in the plan it is {here[key]!r}"
    if record["engine_version"]["kind"] != engine["runtime"]["kind"]:
        return f"of engine {record['engine_version']['kind']}, in the plan it is {engine['runtime']['kind']}"
    return None


def _ran(record: Record) -> str:
    version, origin = record["engine_version"], record["provenance"]
    return (
        f"{version['kind']} {version['version']} on {origin.get('device_name') or 'an unknown device'}, "
        f"Python {origin.get('python')}, torch {(origin.get('versions') or {}).get('torch')}, "
        f"{record['engine_config']['weights']} weights"
    )


def _name(parcel: Parcel) -> str:
    device = next((d for r in parcel.records if (d := r["provenance"].get("device_name"))), "machine")
    return re.sub(r"[^a-z0-9]+", "-", str(device).lower()).strip("-") + f"-{parcel.about['began'][:10]}"


def _refuse_other_device(folder: Path, new: Sequence[Record], path: Path) -> None:
    """Refuse a second kind of device in a folder: figures would name one and show both.  Raises UserError."""
    devices = {d for record in new if (d := record["provenance"].get("device_name"))}
    devices |= set(_devices(folder))
    if len(devices) > 1:
        raise UserError(f"{path}: {folder} would hold records of {' and of '.join(sorted(devices))}; give --name")


def _devices(folder: Path) -> Iterator[str]:
    """The device of the existing records, which is the same for all."""
    for path in sorted((folder / "cells").glob("*/*.json")):
        try:
            if device := records.load(path)["provenance"].get("device_name"):
                yield device
                return
        except records.RecordDamaged:
            continue
