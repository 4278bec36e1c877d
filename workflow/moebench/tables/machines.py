"""Predictions for measured cells with the constants of the machine that measured them.

A machine type such as ``local-cpu`` has no data sheet, so a plan predicts nothing for it.  Once a cell is measured, its
record names the machine; if its constants are kept (``measure.constants``), the same roofline gives the bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from moebench import columns
from moebench.config import Architecture, EngineKnobs, Hardware, Peak
from moebench.cost import memory
from moebench.cost.predict import cell_times
from moebench.cost.vision import tiles
from moebench.engines.vllm_routing import budgeted
from moebench.formats.manifest import MachineConstants
from moebench.formats.plan import Plan, Prediction, Workload
from moebench.formats.record import Record
from moebench.measure import constants
from moebench.measure.plausible import implausible

Kept = Mapping[tuple[Any, Any], MachineConstants]
"""Constants by host and number of threads."""

DATA_SHEET, MEASURED = "data sheet", "measured constants"
"""Source of the constants used for a prediction."""
CEILING_SLACK = 0.95
"""A run may be this much below the lower bound, since clocks and bandwidths differ slightly from the assumed ones."""
_FROM_CONSTANTS = [f"predicted_{name}" for name in (*columns.PREDICTED, "least_e2e_s")] + [
    columns.residual(name) for name in columns.RESIDUALS
]
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
    """Bytes/s of the triad whose arrays are the largest not above the working set: small models stay in caches.

    A rate that larger arrays reach, smaller ones reach too: the fastest of them and all larger ones counts.
    """
    known = sorted((t["bytes"], t["bytes_per_s"]) for t in made["triad"])
    first = max(sum(size <= working_set_bytes for size, _ in known) - 1, 0)
    return float(max(rate for _, rate in known[first:]))


def hardware(machine: Hardware, made: MachineConstants, working_set_bytes: float) -> Hardware:
    """A machine type with measured constants in place of unknown ones; memory stays unknown, and so do constants that
    are implausible.

    Exchange between processes of one host counts as free: the result stays a bound.
    """
    reference = f"measured by moebench calibrate at {made['started_at']} on {made['host']}"
    wrong = implausible(made)
    peaks = {
        name: Peak(flops_per_s=found["flops_per_s"], reference=reference)
        for name, found in made["products"].items()
        if f"product {name}" not in wrong
    }
    rate = None if "triad" in wrong else bandwidth(made, working_set_bytes)
    return machine.model_copy(
        update={
            "bandwidth_bytes_per_s": machine.bandwidth_bytes_per_s or rate,
            "link_bytes_per_s": machine.link_bytes_per_s or math.inf,
            "peak": peaks | machine.peak,
        }
    )


class BoundPrediction(Prediction, total=False):
    """refused: why constants that the prediction needs are implausible; then there is nothing else."""

    refused: str


def predicted(record: Record, machine: Hardware, kept: Kept) -> BoundPrediction:
    """``ttft_max_s``, ``itl_s``, ``e2e_s`` and ``least_e2e_s`` of a record's cell on the machine that measured it; only
    ``refused``, with the reason, if constants that it needs are implausible; empty if unknown.

    Unknown are machines without constants, and what the roofline does not cover: speculation, images of unknown sizes,
    services elsewhere.
    """
    origin, work, config = record["provenance"], record["workload"], record["engine_config"]
    made = kept.get((origin.get("host"), origin.get("threads")))
    if made is None or made["device_name"] != origin.get("device_name"):
        return {}
    architecture = Architecture.model_validate(record["model"]["architecture"])
    unseen = tiles(architecture, work.get("images") or 0, work.get("image_size")) is None
    unseen = unseen or bool(config["draft_tokens"] or budgeted(config) or config.get("prefix_caching"))
    if unseen or record["engine_version"].get("hosted"):
        return {}
    knobs = EngineKnobs.model_validate({k: v for k, v in config.items() if k != "top_k"})
    here = hardware(machine, made, memory.weight_bytes(architecture, knobs))
    same: Workload = work | {
        "prompts": "identical",
        "images": 0,
    }  # as in cost.predict: the fewest experts, the least time
    (ttft, itl, e2e), (_, _, least) = cell_times(architecture, knobs, here, [work, same])
    if e2e is None:
        wrong = implausible(made)
        return {"refused": "; ".join(wrong.values())} if wrong else {}
    return {"ttft_max_s": ttft, "itl_s": itl, "e2e_s": e2e, "least_e2e_s": None if knobs.pp > 1 else least}


def refuse_beaten(measured: pa.Table) -> pa.Table:
    """The table ``measurements`` without the predictions that cells refute.

    A cell that is faster than the least time shows that the constants behind it are wrong.  All predictions of that
    machine, number of threads and precision are refused.
    """
    keys = ["host", "threads", "dtype", "quantization"]
    frame = measured.select([*keys, "predicted_with", "e2e_s", "predicted_least_e2e_s"]).to_pandas()
    ours = frame["predicted_with"] == MEASURED
    beaten = ours & (frame["e2e_s"] < CEILING_SLACK * frame["predicted_least_e2e_s"])
    if not beaten.any():
        return measured
    wrong = frame[beaten].groupby(keys, dropna=False).size()
    refused = ours & pd.MultiIndex.from_frame(frame[keys]).isin(wrong.index)
    reasons = [
        f"{wrong[key]} {'cell' if wrong[key] == 1 else 'cells'} faster than the least time that the constants allow"
        if out
        else None
        for key, out in zip(frame[keys].itertuples(index=False, name=None), refused, strict=True)
    ]
    keep = pa.array(~refused)
    for name in [*_FROM_CONSTANTS, "predicted_with", "predicted_kind"]:
        at, kind = measured.schema.get_field_index(name), measured.schema.field(name)
        instead = pa.scalar("none" if name == "predicted_kind" else None, kind.type)
        measured = measured.set_column(at, kind, pc.if_else(keep, measured[name], instead))
    at, kind = measured.schema.get_field_index("prediction_refused"), measured.schema.field("prediction_refused")
    said = pc.coalesce(measured["prediction_refused"], pa.array(reasons, pa.string()))
    return measured.set_column(at, kind, said)


def rows(study: str, kept: Kept, machines: set[tuple[Any, ...]]) -> list[columns.Row]:
    """The table ``machines``: a row per constant of the machines (host, device, threads) that measured cells."""
    made: list[columns.Row] = []
    for one in kept.values():
        if (one["host"], one["device_name"], one["threads"]) not in machines:
            continue
        origin: columns.Row = {"study": study, **{k: one[k] for k in ("host", "device_name", "threads", "started_at")}}
        for t in one["triad"]:
            rate = {"value": t["bytes_per_s"], "unit": "bytes/s", "n_repeats": len(t["runs_s"])}
            made.append(origin | {"constant": "triad", "constant_size": t["bytes"]} | rate)
        for name, p in one["products"].items():
            rate = {"value": p["flops_per_s"], "unit": "FLOP/s", "n_repeats": len(p["runs_s"])}
            made.append(origin | {"constant": f"product {name}", "constant_size": p["side"]} | rate)
    return made
