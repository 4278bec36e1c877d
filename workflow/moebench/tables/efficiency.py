"""Columns made of a record's telemetry: energy per token, utilization of the device's peaks, what held clocks down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from moebench.config import Architecture, EngineKnobs, Hardware
from moebench.cost import utilization
from moebench.measure.telemetry.nvml import LIMITING

Row = dict[str, Any]

CAPPED = "power_cap_below_default"
"""Reason of our own: somebody lowered the device's power limit."""


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


_SUMMARIES: dict[str, tuple[str, Callable[[list[float]], float]]] = {
    "power_max_w": ("power_max_w", max),
    "sm_clock_mhz": ("sm_clock_mhz", _mean),
    "memory_clock_mhz": ("memory_clock_mhz", _mean),
    "temperature_c": ("device_temperature_c", max),
    "memory_peak_bytes": ("device_memory_peak_bytes", max),
    "utilization": ("device_utilization", _mean),
}
"""Key of a run's telemetry -> its column, and how a cell's number comes from those of its repeats."""


def of_run(run: Row) -> Row:
    """Columns of the table ``samples``, of one run; empty without telemetry."""
    seen = run.get("telemetry")
    if not seen:
        return {}
    row = {column: seen.get(key) for key, (column, _) in _SUMMARIES.items()}
    return row | {"throttle_reasons": _listed(seen.get("throttle_reasons")), "no_energy": seen.get("no_energy")}


def metrics(run: Row, work: Row, ideal: utilization.Ideal) -> Row:
    """Energy, power and utilization of one run, as further metrics; those that cannot be told are left out."""
    measured, seen = run["metrics"], run.get("telemetry") or {}
    made = {"mfu": ideal.mfu(measured.get("e2e_s")), "mbu": ideal.mbu(measured.get("itl_s"))}
    energy = seen.get("energy_j")
    if energy is not None:
        generated = work["batch"] * work["output_tokens"]
        made |= {
            "energy_j": energy,
            "power_w": energy / seen["window_s"],
            "joules_per_output_token": energy / generated,
            "joules_per_total_token": energy / (generated + work["batch"] * work["input_tokens"]),
        }
    return {name: value for name, value in made.items() if value is not None}


def ideal(record: Row, sheet: Hardware | None) -> tuple[utilization.Ideal, str | None]:
    """Times of a record's cell at the peaks of the data sheet, and whose experts: ``measured`` or ``uniform``."""
    timed = record["status"] == "ok" and "activation" not in record
    if sheet is None or not timed or record["hardware"] != sheet.name or record["engine_version"].get("hosted"):
        return utilization.NOTHING, None
    architecture = Architecture.model_validate(record["model"]["architecture"])
    knobs = EngineKnobs.model_validate({k: v for k, v in record["engine_config"].items() if k != "top_k"})
    counted = [d for d in record["checks"].get("distinct_experts") or () if d is not None]
    distinct = sum(counted) / len(counted) if counted else None
    found = utilization.ideal(architecture, knobs, sheet, record["workload"], distinct)
    routed = architecture.experts is not None and found.step_memory_s is not None
    return found, (("uniform" if distinct is None else "measured") if routed else None)


def of_cell(record: Row) -> Row:
    """Columns of the table ``measurements``: of all repeats, of the devices, and of what the engine chose."""
    seen = [run["telemetry"] for run in record["repeats"] if run.get("telemetry")]
    row: Row = {}
    for key, (column, summary) in _SUMMARIES.items():
        values = [one[key] for one in seen if one.get(key) is not None]
        row[column] = summary(values) if values else None
    return row | _throttled(record, seen) | _devices(record) | _chosen(record.get("load") or {})


def _throttled(record: Row, seen: list[Row]) -> Row:
    """What held clocks down in any repeat, and whether that makes the cell slower than its device."""
    lists = [one["throttle_reasons"] for one in seen if one.get("throttle_reasons") is not None]
    reasons = {reason for found in lists for reason in found}
    devices = (record["provenance"].get("telemetry") or {}).get("devices") or ()
    if any((d.get("power_cap_w") or 0) < (d.get("power_default_w") or 0) for d in devices):
        reasons.add(CAPPED)
    known = bool(lists) or CAPPED in reasons
    return {
        "throttle_reasons": _listed(sorted(reasons)) if known else None,
        "throttled": bool(reasons & {*LIMITING, CAPPED}) if known else None,
    }


def _devices(record: Row) -> Row:
    """Facts of the devices; several values of one fact are listed, of a number the least is given."""
    origin = record["provenance"]
    seen = origin.get("telemetry") or {}
    devices = seen.get("devices") or ()

    def least(name: str) -> Any:
        return min((d[name] for d in devices if d.get(name) is not None), default=None)

    return {
        "telemetry_source": seen.get("source"),
        "device_uuids": _listed([d["uuid"] for d in devices if d.get("uuid")]) or None,
        "device_mig": any(d["mig"] for d in devices) if devices and "mig" in devices[0] else None,
        "device_ecc": least("ecc"),
        "power_cap_w": least("power_cap_w"),
        "device_nvlinks": least("nvlinks"),
        "device_links": _listed(sorted({str(link) for link in (seen.get("links") or {}).values() if link})) or None,
        "driver": seen.get("driver") or origin.get("driver"),
        "nccl": origin.get("nccl"),
    }


def _chosen(load: Row) -> Row:
    """Kernels and graphs that the engine chose, most used first."""
    backends, sizes = load.get("backends") or {}, load.get("capture_sizes")
    names = {
        kind: ", ".join(sorted(found, key=lambda name: (-found[name], name))) or None
        for kind, found in backends.items()
        if isinstance(found, dict)
    }
    return {
        "attention_backend": names.get("attention") or load.get("attention_implementation"),
        "moe_backend": names.get("moe") or load.get("experts_implementation"),
        "linear_backend": names.get("linear"),
        "cuda_graph_mode": backends.get("cudagraph_mode"),
        "cuda_graph_sizes": json.dumps(sizes, separators=(",", ":")) if sizes else None,
    }


def _listed(words: list[str] | None) -> str | None:
    return None if words is None else ", ".join(words)
