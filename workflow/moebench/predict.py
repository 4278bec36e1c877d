"""Predictions that stand in the plan beside every cell: memory per GPU, time on the study's hardware, job times."""

from __future__ import annotations

from typing import Any

from moebench.config import Architecture, EngineKnobs, Hardware, Study, WorkloadKnobs
from moebench.cost import memory, roofline


def predict(engine: dict[str, Any], cells: dict[str, dict[str, Any]], study: Study, hardware: Hardware) -> None:
    """Add ``predicted`` to an engine configuration of a plan and to each of its cells.

    Engine: ``weight_bytes`` (all GPUs), ``weight_bytes_per_gpu``, ``kv_capacity_tokens``, ``fits`` and ``job_s``, the
    expected wall time of loading it and running its cells.  Cell: ``bytes_per_gpu`` (weights, the batch's KV cache and
    the reserve), ``fits``, ``batch_fits`` (the KV cache holds the whole batch at once), ``ttft_max_s`` (the whole
    batch has its first token), ``itl_s``,
    ``e2e_s``.  Null where the hardware's constants are unknown.
    """
    architecture = Architecture.model_validate(engine["model"]["architecture"])
    knobs = EngineKnobs.model_validate({k: v for k, v in engine["config"].items() if k != "top_k"})
    fit = memory.fits(architecture, hardware, knobs)
    per_token = memory.memory_per_gpu(architecture, knobs).kv_bytes_per_token
    seconds = 0.0
    for cell_id in engine["cells"]:
        cell = cells[f"{engine['id']}/{cell_id}"]
        work = WorkloadKnobs.model_construct(**cell["workload"])
        time = roofline.cell_time(architecture, hardware, knobs, work)
        tokens = work.batch * (work.input_tokens + work.output_tokens)
        cell["predicted"] = {
            "bytes_per_gpu": fit.weight_bytes + fit.reserve_bytes + tokens * per_token,
            "weight_bytes_per_gpu": fit.weight_bytes,
            "kv_bytes_per_gpu": tokens * per_token,
            "fits": fit.fits,
            "batch_fits": None if fit.kv_capacity_tokens is None else tokens <= fit.kv_capacity_tokens,
            "ttft_max_s": time.ttft_s if time else None,
            "itl_s": time.itl_s if time else None,
            "e2e_s": time.e2e_s if time else None,
        }
        if cell["derived_from"] is None:
            runs = cell["protocol"]["warmup"] + cell["protocol"]["repeats"]
            seconds += study.jobs.cell_overhead_s + runs * (time.e2e_s if time else 0.0)
    weights = memory.weight_bytes(architecture, knobs)
    engine["predicted"] = {
        "weight_bytes": weights,
        "weight_bytes_per_gpu": fit.weight_bytes,
        "kv_capacity_tokens": fit.kv_capacity_tokens,
        "fits": fit.fits,
        "job_s": study.jobs.load_s + weights / study.jobs.weights_bytes_per_s + seconds,
    }
