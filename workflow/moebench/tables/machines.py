"""Predictions for measured cells with the constants of the very machine that measured them.

A machine type such as ``local-cpu`` has no data sheet, so a plan predicts nothing for it.  Once a cell is measured, its
record names the machine; if its constants are kept (``measure.constants``), the same roofline gives the bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moebench.columns import Row
from moebench.config import Architecture, EngineKnobs, Hardware, Peak
from moebench.cost import memory
from moebench.cost.predict import cell_times
from moebench.cost.vision import tiles
from moebench.formats.manifest import MachineConstants
from moebench.formats.plan import Plan, Prediction
from moebench.formats.record import Record
from moebench.measure import constants

Kept = Mapping[tuple[Any, Any], MachineConstants]
"""Constants by host and number of threads."""

DATA_SHEET, MEASURED = "data sheet", "measured constants"
"""Where the constants behind a prediction are from."""
FIGURE = "residuals"
"""File name of the figure of model against measurement (``figures.residuals``)."""


def compared(plan: Plan) -> bool:
    """Whether cells of a plan can have predictions: from a data sheet, or from constants that its jobs measure."""
    foreseen = any(cell.get("predicted", {}).get("e2e_s") is not None for cell in plan["cells"].values())
    return bool(plan["cells"]) and (foreseen or bool(plan["jobs_settings"].get("measure_constants")))


def read(results: Path) -> dict[tuple[Any, Any], MachineConstants]:
    """All kept constants, by host and threads.  Raises StorageError for a damaged file."""
    found = (constants.load(path) for path in sorted((results / "machines").glob("*.json")))
    return {(made["host"], made["threads"]): made for made in found if made}


def bandwidth(made: MachineConstants, working_set_bytes: float) -> float:
    """Bytes/s of the triad whose arrays are the largest not above the working set: small models stay in caches."""
    known = sorted((t["bytes"], t["bytes_per_s"]) for t in made["triad"])
    within = [rate for size, rate in known if size <= working_set_bytes]
    return float(within[-1] if within else known[0][1])


def hardware(machine: Hardware, made: MachineConstants, working_set_bytes: float) -> Hardware:
    """A machine type with measured constants in place of unknown ones; memory stays unknown.

    What processes of one host exchange counts nothing: the result stays a bound.
    """
    reference = f"measured by moebench calibrate at {made['started_at']} on {made['host']}"
    peaks = {
        name: Peak(flops_per_s=found["flops_per_s"], reference=reference) for name, found in made["products"].items()
    }
    return machine.model_copy(
        update={
            "bandwidth_bytes_per_s": machine.bandwidth_bytes_per_s or bandwidth(made, working_set_bytes),
            "link_bytes_per_s": machine.link_bytes_per_s or math.inf,
            "peak": peaks | machine.peak,
        }
    )


def predicted(record: Record, machine: Hardware, kept: Kept) -> Prediction:
    """``ttft_max_s``, ``itl_s`` and ``e2e_s`` of a record's cell on the machine that measured it; empty if unknown.

    Unknown are machines without constants, and what the roofline does not know: speculation, images of unknown sizes,
    services elsewhere.
    """
    origin, work, config = record["provenance"], record["workload"], record["engine_config"]
    made = kept.get((origin.get("host"), origin.get("threads")))
    if made is None or made["device_name"] != origin.get("device_name"):
        return {}
    architecture = Architecture.model_validate(record["model"]["architecture"])
    unseen = tiles(architecture, work.get("images") or 0, work.get("image_size")) is None
    if config["draft_model"] or unseen or record["engine_version"].get("hosted"):
        return {}
    knobs = EngineKnobs.model_validate({k: v for k, v in config.items() if k != "top_k"})
    here = hardware(machine, made, memory.weight_bytes(architecture, knobs))
    ((ttft, itl, e2e),) = cell_times(architecture, knobs, here, [work])
    return {} if e2e is None else {"ttft_max_s": ttft, "itl_s": itl, "e2e_s": e2e}


def rows(study: str, kept: Kept, machines: set[tuple[Any, ...]]) -> list[Row]:
    """The table ``machines``: a row per constant of the machines (host, device, threads) that measured cells."""
    made: list[Row] = []
    for one in kept.values():
        if (one["host"], one["device_name"], one["threads"]) not in machines:
            continue
        origin: Row = {"study": study, **{k: one[k] for k in ("host", "device_name", "threads", "started_at")}}
        for t in one["triad"]:
            rate = {"value": t["bytes_per_s"], "unit": "bytes/s", "n_repeats": len(t["runs_s"])}
            made.append(origin | {"constant": "triad", "constant_size": t["bytes"]} | rate)
        for name, p in one["products"].items():
            rate = {"value": p["flops_per_s"], "unit": "FLOP/s", "n_repeats": len(p["runs_s"])}
            made.append(origin | {"constant": f"product {name}", "constant_size": p["side"]} | rate)
    return made
