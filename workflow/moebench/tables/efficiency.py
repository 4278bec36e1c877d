"""Columns from a record's telemetry: energy per token, utilization of the device's peaks, reasons for reduced
clocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from moebench.columns import Row
from moebench.config import Architecture, EngineKnobs, Hardware
from moebench.cost import utilization
from moebench.formats.plan import Workload
from moebench.formats.record import LoadFacts, Metrics, Record, Run, Telemetry
from moebench.measure.telemetry.nvml import LIMITING

CAPPED = "power_cap_below_default"
"""Our own reason: the device's power limit was lowered."""


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
"""Key of a run's telemetry -> its column, and how a cell's value is computed from its repeats."""


def of_run(run: Run) -> Row:
    """Columns of the table ``samples``, of one run; empty without telemetry."""
    seen = run.get("telemetry")
    if not seen:
        return {}
    row = {column: seen.get(key) for key, (column, _) in _SUMMARIES.items()}
    return row | {"throttle_reasons": _listed(seen.get("throttle_reasons")), "no_energy": seen.get("no_energy")}


def metrics(run: Run, work: Workload, ideal: utilization.Ideal) -> Metrics:
    """Energy, power and utilization of one run as further metrics; unknown ones are left out."""
    measured, seen = run["metrics"], run.get("telemetry") or {}
    made = {"mfu": ideal.mfu(measured.get("e2e_s")), "mbu": ideal.mbu(measured.get("itl_s"))}
    energy = seen.get("energy_j")
    if energy is not None:
        generated, given = work["batch"] * work["output_tokens"], work["batch"] * work["input_tokens"]
        if load := run.get("load"):
            generated, given = sum(load["output_tokens"]), sum(load["input_tokens"])
        made |= {
            "energy_j": energy,
            "power_w": energy / seen["window_s"],
            "joules_per_output_token": energy / generated,
            "joules_per_total_token": energy / (generated + given),
        }
    return {name: value for name, value in made.items() if value is not None}


def shares(measured: Metrics, record: Record, usd_per_hour: float | None) -> Metrics:
    """Tokens/s per user and per device, and cost of tokens. ``usd_per_hour``: of one device; None: unknown."""
    config, made = record["engine_config"], Metrics()
    devices = 0 if record["engine_version"].get("hosted") else config["tp"] * config["pp"] * config["dp"]
    if tpot_s := measured.get("tpot_s"):
        made["output_tokens_per_s_per_user"] = 1 / tpot_s
    for kind in ("output", "total"):
        rate = measured.get(f"throughput_{kind}_tokens_per_s")
        if not (rate and devices):
            continue
        if kind == "output":
            made["output_tokens_per_s_per_device"] = rate / devices
        if usd_per_hour is not None:
            made[f"usd_per_million_{kind}_tokens"] = usd_per_hour * devices / 3600 / rate * 1e6
    return made


def ideal(record: Record, sheet: Hardware | None) -> tuple[utilization.Ideal, str | None]:
    """Times of a record's cell at the data sheet's peaks, and the source of its experts: ``measured`` or
    ``uniform``."""
    timed = record["status"] == "ok" and "activation" not in record
    timed = timed and not any("load" in run for run in record["repeats"])
    if sheet is None or not timed or record["hardware"] != sheet.name or record["engine_version"].get("hosted"):
        return utilization.NOTHING, None
    architecture = Architecture.model_validate(record["model"]["architecture"])
    knobs = EngineKnobs.model_validate({k: v for k, v in record["engine_config"].items() if k != "top_k"})
    counted = [d for d in record["checks"].get("distinct_experts") or () if d is not None]
    distinct = sum(counted) / len(counted) if counted else None
    found = utilization.ideal(architecture, knobs, sheet, record["workload"], distinct)
    routed = architecture.experts is not None and found.step_memory_s is not None
    return found, (("uniform" if distinct is None else "measured") if routed else None)


def of_cell(record: Record) -> Row:
    """Columns of the table ``measurements``: of all repeats, of the devices, and of what the engine chose."""
    seen = [run["telemetry"] for run in record["repeats"] if run.get("telemetry")]
    row: Row = {}
    runs: list[Row] = [{**one} for one in seen]
    for key, (column, summary) in _SUMMARIES.items():
        values = [value for one in runs if (value := one.get(key)) is not None]
        row[column] = summary(values) if values else None
    return row | _throttled(record, seen) | _devices(record) | _chosen(record.get("load") or {})


def _throttled(record: Record, seen: list[Telemetry]) -> Row:
    """Reasons for reduced clocks in any repeat, and whether they throttle the cell."""
    lists = [found for one in seen if (found := one.get("throttle_reasons")) is not None]
    reasons = {reason for found in lists for reason in found}
    for device in (record["provenance"].get("telemetry") or {}).get("devices", ()):
        cap, usual = device.get("power_cap_w"), device.get("power_default_w")
        if cap is not None and usual is not None and cap < usual:
            reasons.add(CAPPED)
    known = bool(lists) or CAPPED in reasons
    return {
        "throttle_reasons": _listed(sorted(reasons)) if known else None,
        "throttled": bool(reasons & {*LIMITING, CAPPED}) if known else None,
    }


def _devices(record: Record) -> Row:
    """Facts of the devices; several values of one fact are listed, of a number the least is given."""
    origin = record["provenance"]
    seen = origin.get("telemetry") or {}
    devices = [dict(device) for device in seen.get("devices", ())]

    def known(name: str) -> list[Any]:
        return [device[name] for device in devices if device.get(name) is not None]

    return {
        "telemetry_source": seen.get("source"),
        "device_uuids": _listed(known("uuid")) or None,
        "device_mig": max(known("mig"), default=None),
        "device_ecc": min(known("ecc"), default=None),
        "power_cap_w": min(known("power_cap_w"), default=None),
        "device_nvlinks": min(known("nvlinks"), default=None),
        "device_links": _listed(sorted({link for link in seen.get("links", {}).values() if link})) or None,
        "driver": seen.get("driver") or origin.get("driver"),
        "nccl": origin.get("nccl"),
    }


def _chosen(load: LoadFacts) -> Row:
    """Kernels and graphs that the engine chose, most used first."""
    sizes = load.get("capture_sizes")
    found = load.get("backends") or {"attention": {}, "moe": {}, "linear": {}, "cudagraph_mode": None}
    return {
        "attention_backend": _most_first(found["attention"]) or load.get("attention_implementation"),
        "moe_backend": _most_first(found["moe"]) or load.get("experts_implementation"),
        "linear_backend": _most_first(found["linear"]),
        "cuda_graph_mode": found["cudagraph_mode"],
        "cuda_graph_sizes": json.dumps(sizes, separators=(",", ":")) if sizes else None,
    }


def _most_first(layers: dict[str, int]) -> str | None:
    return ", ".join(sorted(layers, key=lambda name: (-layers[name], name))) or None


def _listed(words: list[str] | None) -> str | None:
    return None if words is None else ", ".join(words)
