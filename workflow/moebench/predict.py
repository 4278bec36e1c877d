"""Predictions that stand in the plan beside every cell: memory per GPU, time on the study's hardware, job times."""

from __future__ import annotations

from typing import Any

from moebench.config import Architecture, EngineKnobs, Hardware, Study, WorkloadKnobs
from moebench.cost import memory, roofline
from moebench.cost.vision import image_tokens


def predict(engine: dict[str, Any], cells: dict[str, dict[str, Any]], study: Study, hardware: Hardware) -> None:
    """Add ``predicted`` to an engine configuration of a plan and to each of its cells.

    Engine: ``weight_bytes`` (all GPUs), ``weight_bytes_per_gpu``, ``kv_capacity_tokens``, ``fits`` and ``job_s``, the
    expected wall time of loading it and running its cells.  Cell: ``bytes_per_gpu`` (weights, the batch's KV cache and
    the reserve), ``image_tokens`` of a request with images, ``fits``, ``batch_fits`` (the KV cache holds the whole
    batch at once), ``ttft_max_s`` (the whole batch has its first token), ``itl_s``, ``e2e_s``.  Null where the
    hardware's constants are unknown; times also for cells with images, memory for images whose tokens are not known.
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
        images = image_tokens(architecture, work.images, work.image_size)
        tokens = None if images is None else work.batch * (images + work.input_tokens + work.output_tokens)
        capacity = fit.kv_capacity_tokens
        cell["predicted"] = {
            "bytes_per_gpu": None if tokens is None else fit.weight_bytes + fit.reserve_bytes + tokens * per_token,
            "weight_bytes_per_gpu": fit.weight_bytes,
            "kv_bytes_per_gpu": None if tokens is None else tokens * per_token,
            "fits": fit.fits,
            "batch_fits": None if capacity is None or tokens is None else tokens <= capacity,
            "ttft_max_s": time.ttft_s if time else None,
            "itl_s": time.itl_s if time else None,
            "e2e_s": time.e2e_s if time else None,
        }
        if work.images:
            cell["predicted"]["image_tokens"] = images
        if cell["derived_from"] is None:
            runs = cell["protocol"]["warmup"] + cell["protocol"]["repeats"]
            if work.images:  # without the vision tower: a lower bound is still better than nothing for the time limit
                text = work.model_copy(update={"images": 0, "input_tokens": work.input_tokens + (images or 0)})
                time = roofline.cell_time(architecture, hardware, knobs, text)
            seconds += study.jobs.cell_overhead_s + runs * (time.e2e_s if time else 0.0)
    weights = memory.weight_bytes(architecture, knobs)
    engine["predicted"] = {
        "weight_bytes": weights,
        "weight_bytes_per_gpu": fit.weight_bytes,
        "kv_capacity_tokens": fit.kv_capacity_tokens,
        "fits": fit.fits,
        "job_s": study.jobs.load_s + weights / study.jobs.weights_bytes_per_s + seconds,
    }
