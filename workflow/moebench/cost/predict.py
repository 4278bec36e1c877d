"""Predictions that the plan contains for every cell: memory per GPU, time on the study's hardware, job times.

Times are twofold: the roofline's bound, and calibrated ones (:mod:`moebench.cost.cells`) if the machine has constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moebench.config import Architecture, EngineKnobs, Hardware, Study
from moebench.cost import cells as calibrated_cells
from moebench.cost import memory, roofline
from moebench.cost.inputs import Formats, Layout, Machine, Sizes
from moebench.cost.seconds import ENDS, cell_seconds
from moebench.cost.vision import image_tokens, tiles
from moebench.engines import rate_search
from moebench.formats.plan import CalibratedTimes, Cell, EngineConfig, Prediction, Workload


def kind_of(predicted: Mapping[str, Any]) -> str:
    """Kind of a cell's predicted times: ``calibrated (MACHINE, DATE)``, ``bound`` or ``none``."""
    if "calibrated" in predicted:
        return str(predicted["calibrated"]["kind"])
    return "none" if predicted.get("e2e_s") is None else "bound"


def over_time(cell: Cell) -> bool:
    """Whether a cell's requests come over time: how they queue is not modelled."""
    return cell["protocol"]["kind"] == "load"


def in_flight(work: Workload, knobs: EngineKnobs) -> Workload:
    """The closed batch that a service under load holds at most."""
    return work | {"batch": min(work["requests"], work.get("concurrency") or knobs.max_num_seqs, knobs.max_num_seqs)}


def sending_s(work: Workload, batch: int, batch_s: float | None) -> float | None:
    """Time to send the requests of a workload, or to run them in batches, whichever is longer, s; of a search to try
    its rates."""
    if work.get("find"):
        return rate_search.seconds(work)
    sent = work["requests"] / rate if (rate := work.get("request_rate")) else 0.0
    return None if batch_s is None else max(sent, batch_s * work["requests"] / batch)


def predict(engine: EngineConfig, cells: dict[str, Cell], study: Study, hardware: Hardware) -> None:
    """Add ``predicted`` to an engine configuration of a plan and to each of its cells.

    None if the hardware's constants are unknown; times also for cells with speculation or images of unknown sizes
    (``run_s`` is then a rough one), ``least_e2e_s`` also with pipeline stages, which may work on several batches,
    memory for images whose tokens are not known; all of it for a hosted service.
    """
    if engine["runtime"]["hosted"]:
        return _nothing(engine, cells, study)
    architecture = Architecture.model_validate(engine["model"]["architecture"])
    knobs = EngineKnobs.model_validate({k: v for k, v in engine["config"].items() if k != "top_k"})
    fit = memory.fits(architecture, hardware, knobs)
    mine = [cells[f"{engine['id']}/{cell_id}"] for cell_id in engine["cells"]]
    works = [in_flight(cell["workload"], knobs) if over_time(cell) else cell["workload"] for cell in mine]
    images_of = [image_tokens(architecture, w.get("images") or 0, w.get("image_size")) for w in works]
    # Requests that all choose the same experts read the fewest: no run of this shape can be faster.
    same: list[Workload] = [w | {"prompts": "identical", "images": 0} for w in works]
    times = cell_times(architecture, knobs, hardware, [*works, *same])
    tokens = [(i or 0) + w["input_tokens"] + w["output_tokens"] for i, w in zip(images_of, works, strict=True)]
    sequences = memory.sequences_bytes(architecture, knobs, tokens)
    why, known = expected_times(architecture, knobs, hardware, engine, works, study.jobs.draft_acceptance)
    for cell, work, images, sequence, time, least, likely in zip(
        mine, works, images_of, sequences, times, times[len(mine) :], known, strict=False
    ):
        kv = None if images is None else work["batch"] * sequence
        # With speculation neither the draft's time nor how many of its tokens are accepted is modelled.
        seen = tiles(architecture, work.get("images") or 0, work.get("image_size"))
        unknown = knobs.draft_tokens > 0 or knobs.budgeted or knobs.prefix_caching or seen is None or over_time(cell)
        cell["predicted"] = {
            "bytes_per_gpu": None if kv is None else fit.weight_bytes + fit.reserve_bytes + kv,
            "weight_bytes_per_gpu": fit.weight_bytes,
            "kv_bytes_per_gpu": kv,
            "fits": fit.fits,
            "batch_fits": None if fit.left_bytes is None or kv is None else kv <= fit.left_bytes,
            "ttft_max_s": None if unknown else time[0],
            "itl_s": None if unknown else time[1],
            "e2e_s": None if unknown else time[2],
            "least_e2e_s": None if unknown or knobs.pp > 1 else least[2],
            # Also where the rest is unknown: a lower bound is still better than nothing for the time limit.
            "run_s": sending_s(cell["workload"], work["batch"], time[2]) if over_time(cell) else time[2],
        }
        if likely:
            cell["predicted"] |= _run_times(cell, work, likely)
        if likely and not over_time(cell):
            cell["predicted"]["calibrated"] = likely
        elif likely or why:
            cell["predicted"]["uncalibrated"] = QUEUES if likely or over_time(cell) else why or ""
        if work.get("images"):
            cell["predicted"]["image_tokens"] = images
    weights = memory.weight_bytes(architecture, knobs)
    engine["predicted"] = {
        "weight_bytes": weights,
        "weight_bytes_per_gpu": fit.weight_bytes,
        "kv_capacity_tokens": fit.kv_capacity_tokens,
        "fits": fit.fits,
        "job_s": 0.0,
    }
    load = study.jobs.load_s + weights / study.jobs.weights_bytes_per_s
    measured = [cell for cell in mine if cell["derived_from"] is None]
    job_s = {end: load + sum(cell_seconds(c, study.jobs.cell_overhead_s, end) for c in measured) for end in ENDS}
    engine["predicted"]["job_s"] = job_s[""]
    if hardware.fitted:
        engine["predicted"] |= {"job_s_low": job_s["_low"], "job_s_high": job_s["_high"]}


QUEUES = "requests come over time: how they queue is not modelled"


def _run_times(cell: Cell, work: Workload, likely: CalibratedTimes) -> Prediction:
    """``run_s`` and its ends."""
    times = [likely["e2e_s"], likely["e2e_s_low"], likely["e2e_s_high"]]
    if over_time(cell):
        times = [sending_s(cell["workload"], work["batch"], time) or 0.0 for time in times]
    return {"run_s": times[0], "run_s_low": times[1], "run_s_high": times[2]}


def expected_times(
    architecture: Architecture,
    knobs: EngineKnobs,
    hardware: Hardware,
    engine: EngineConfig,
    works: Sequence[Workload],
    acceptance: float | None = None,
) -> tuple[str | None, Sequence[CalibratedTimes | None]]:
    """Why an engine has no calibrated times on a machine with constants; those of its workloads (None: unknown)."""
    nothing = [None] * len(works)
    if hardware.fitted is None or not works:
        return None, nothing
    if why := calibrated_cells.why_not(architecture, knobs, hardware, engine["runtime"]["kind"], acceptance):
        return why, nothing
    draft = Architecture.model_validate(engine["draft"]["architecture"]) if engine["draft"] else None
    found = calibrated_cells.times(architecture, knobs, hardware, works, engine["model"]["name"], draft, acceptance)
    return "the size of its images or a constant of the machine is unknown", found


def _nothing(engine: EngineConfig, cells: dict[str, Cell], study: Study) -> None:
    """A service elsewhere: the study's hardware says nothing about it."""
    for cell_id in engine["cells"]:
        cells[f"{engine['id']}/{cell_id}"]["predicted"] = {
            "bytes_per_gpu": None,
            "weight_bytes_per_gpu": None,
            "kv_bytes_per_gpu": None,
            "fits": None,
            "batch_fits": None,
            "ttft_max_s": None,
            "itl_s": None,
            "e2e_s": None,
            "least_e2e_s": None,
            "run_s": None,
        }
    engine["predicted"] = {
        "weight_bytes": None,
        "weight_bytes_per_gpu": None,
        "kv_capacity_tokens": None,
        "fits": None,
        "job_s": study.jobs.load_s + len(engine["cells"]) * study.jobs.cell_overhead_s,
    }


def cell_times(
    architecture: Architecture,
    knobs: EngineKnobs,
    hardware: Hardware,
    works: Sequence[Workload],
    distinct: list[float] | None = None,
) -> list[tuple[float | None, float | None, float | None]]:
    """Roofline times of an engine's workloads, s: ttft of the whole batch, itl, e2e; None if unknown.

    ``works``: workload knobs of each cell; images of unknown sizes count nothing.  ``distinct``: distinct experts of
    its decode steps, where measured.
    """
    if not works:
        return []
    sizes = Sizes.of(architecture, knobs.mla)
    shown = [(w.get("images") or 0, w.get("image_size")) for w in works]
    work = roofline.Work(
        batch=[w["batch"] for w in works],
        input_tokens=[
            w["input_tokens"] + (image_tokens(architecture, *i) or 0) for w, i in zip(works, shown, strict=True)
        ],
        output_tokens=[w["output_tokens"] for w in works],
        top_k=[w.get("top_k") or float(sizes.top_k) for w in works],
        identical=[w["prompts"] == "identical" for w in works],
        step_tokens=knobs.max_num_batched_tokens,
        tiles=np.array([tiles(architecture, *i) or 0 for i in shown], dtype=float),
    )
    found = roofline.times(
        sizes, Formats.of(architecture, knobs), Layout.of(knobs), Machine.of(hardware, knobs), work, distinct
    )
    columns = np.broadcast_arrays(*found)
    return [
        (None, None, None) if np.isnan(e2e) else (float(ttft), float(itl), float(e2e))
        for ttft, itl, e2e in zip(*columns, strict=True)
    ]
