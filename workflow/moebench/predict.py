"""Predictions that go into the plan: memory and time of every cell, time of every engine configuration."""
from __future__ import annotations
from typing import Any
from moebench.config import Hardware, Study

def predict(engine: dict[str, Any], cells: dict[str, dict[str, Any]], study: Study, hardware: Hardware) -> None:
    for c in engine["cells"]:
        cells[f"{engine['id']}/{c}"]["predicted"] = {"fits": None, "bytes_per_gpu": None}
    engine["predicted"] = {"weight_bytes": 0, "job_s": study.jobs.load_s + len(engine["cells"])*study.jobs.cell_overhead_s}
