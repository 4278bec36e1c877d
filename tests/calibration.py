"""Made-up constants of a machine, and cells measured on it, for the tests of ``moebench calibrate`` and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import studies
from moebench.claims import collect
from moebench.config import Config
from moebench.measure import constants, records
from moebench.storage import atomic
from moebench.tables import parquet

TRIAD = [
    {"bytes": 3e6, "bytes_per_s": 40e9, "runs_s": [0.001, 0.002]},
    {"bytes": 48e6, "bytes_per_s": 20e9, "runs_s": [0.001, 0.002]},
    {"bytes": 768e6, "bytes_per_s": 9e9, "runs_s": [0.001, 0.002]},
]
MADE = {
    "schema": 1, "started_at": "2026-01-01T00:00:00.000000Z", "host": "here", "threads": 1, "device_name": "A CPU",
    "triad": TRIAD, "products": {"bfloat16": {"side": 512, "flops_per_s": 50e9, "runs_s": [0.005]}},
}  # fmt: skip


def study(where: Path, **cross: list[int]) -> Config:
    """A study of four cells."""
    fix = {"model": "tiny-mixtral", "input_tokens": 16}
    cross = cross or {"batch": [1, 4], "output_tokens": [1, 8]}
    return Config(studies.folder(where, {"x": [{"fix": fix, "cross": cross}]}))


def keep(results: Path, **other: Any) -> Path:
    """Constants of the host ``here``, sealed; ``other`` replaces some."""
    made = records.seal(MADE | other)
    path = constants.path_of(results, made["host"], made["threads"])
    atomic.write_atomic(path, atomic.canonical_bytes(made))
    return path


def measured(results: Path, key: str, plan: dict[str, Any], host: str = "here", status: str = "ok") -> None:
    """A cell's record as the driver writes it."""
    engine, cell = key.split("/")
    spec, work = plan["engines"][engine], plan["cells"][key]["workload"]
    record = {
        "schema": records.SCHEMA, "engine": engine, "cell": cell, "status": status, "reason": "", "workload": work,
        "protocol": plan["protocol"], "checks": {"distinct_experts": None}, "engine_config": spec["config"],
        "model": spec["model"], "hardware": plan["hardware"]["name"], "predicted": {},
        "engine_version": {"name": "vllm", "version": "0.32.0", "kind": "vllm", "hosted": False},
        "provenance": {"host": host, "threads": 1, "device_name": "A CPU"},
        "repeats": [{"metrics": {"ttft_max_s": s, "itl_s": s if work["output_tokens"] > 1 else None, "e2e_s": 10 * s}}
                    for s in (0.001, 0.002, 0.009)],
    }  # fmt: skip
    atomic.write_atomic(records.cell_path(results, engine, cell), atomic.canonical_bytes(records.seal(record)) + b"\n")


def collected(plan: dict[str, Any], results: Path) -> pd.DataFrame:
    """The table of measurements, by cell."""
    atomic.write_atomic(results / "plan.json", atomic.canonical_bytes(plan))
    collect.collect(results / "plan.json", results, results / "tables")
    return parquet.read(results / "tables", "measurements").set_index("cell")


def slow(size_mb: float, rate: float) -> dict[str, Any]:
    """A triad's measurement."""
    return {"bytes": size_mb * 1e6, "bytes_per_s": rate, "runs_s": [0.01]}
