"""Forecast of a plan before anything is submitted: GPU-hours, wall time, disk, and cells that do not fit in memory."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any, Literal

from moebench import accuracy
from moebench.architectures.quantization_schemes import WHILE_LOADING
from moebench.config import Architecture
from moebench.cost import params
from moebench.cost.predict import kind_of
from moebench.cost.seconds import ENDS, at_end
from moebench.formats.plan import Budget, DeriveJob, Job, Plan
from moebench.plan.derived import models_of, parents


def jobs_by_kind(plan: Plan) -> dict[str, list[Job | DeriveJob]]:
    """All jobs of a plan: of speed cells, of accuracy cells, and those that derive checkpoints."""
    tasks: list[Job | DeriveJob] = [job for part in plan.get("accuracy", {}).values() for job in part["jobs"].values()]
    derive: list[Job | DeriveJob] = list(plan.get("derive_jobs", {}).values())
    return {"speed": [*plan["jobs"].values()], "accuracy": tasks, "derived checkpoints": derive}


def gpu_hours(plan: Plan, end: str = "") -> dict[str, float]:
    """Expected GPU-hours of a plan's jobs, by kind, or an end of their interval (``predict.ENDS``).

    Loads, runs and tasks at predicted speed, without the safety factor of time limits.  The interval takes all cells to
    be off the same way at once; loads have none.
    """
    return {
        kind: float(sum(job["gpus"] * (at_end(job, "expected_s", end) or 0.0) for job in jobs) / 3600)
        for kind, jobs in jobs_by_kind(plan).items()
    }


def wall_hours(plan: Plan, gpus: int) -> float | None:
    """Expected wall time of all jobs on some GPUs, those of accuracy and of derived checkpoints among them; None if
    a job needs more.

    List scheduling, longest job first (Graham, SIAM J. Appl. Math. 17 (1969) 416); waiting in the queue of a cluster
    and for derived checkpoints comes on top.
    """
    jobs = sorted(
        (job for kind in jobs_by_kind(plan).values() for job in kind),
        key=lambda job: (-job["expected_s"], -job["gpus"]),
    )
    if any(job["gpus"] > gpus for job in jobs):
        return None
    free, now, running = gpus, 0.0, list[tuple[float, int]]()
    while jobs:
        ready = next((i for i, job in enumerate(jobs) if job["gpus"] <= free), None)
        if ready is None:
            now, given_back = heapq.heappop(running)
            free += given_back
            continue
        job = jobs.pop(ready)
        free -= job["gpus"]
        heapq.heappush(running, (now + job["expected_s"], job["gpus"]))
    return max((end for end, _ in running), default=now) / 3600


def checkpoint_bytes(plan: Plan) -> dict[str, float]:
    """Disk space of checkpoints by folder: two bytes per parameter, as they are published in 16 bits; of those that
    are stored quantized, the predicted size in memory.

    Those of accuracy cells count too; data sets do not.  Those that others are made from count too; where only dummy
    weights are asked of a model, no weights are staged.
    """
    found: dict[str, float] = {}
    engines = accuracy.engines(plan)
    for asked in models_of(engines):
        for model in (asked, *parents(asked)):
            size = 2.0 * params.total_parameters(Architecture.model_validate(model["architecture"])).total
            found[model["path"]] = max(found.get(model["path"], 0.0), size if model["weights"] != "dummy" else 0.0)
    for engine in engines:
        loaded, stored = engine["predicted"]["weight_bytes"], engine["config"]["quantization"] not in WHILE_LOADING
        if loaded is not None and stored and engine["config"]["quantization"] != "none":
            path = engine["model"]["path"]
            found[path] = min(found[path], loaded)
    return found


Fit = Literal["fits", "batch_fits"]


def unfit(plan: Plan) -> dict[str, list[str]]:
    """Cells that cannot fit in memory, by engine configuration."""
    return _by_engine(plan, "fits")


def split(plan: Plan) -> dict[str, list[str]]:
    """Cells whose batch does not fit in the KV cache although the engine starts, by engine configuration.

    Requests over time have no batch: those that do not fit wait.
    """
    return _by_engine(plan, "batch_fits", but="fits", without="load")


def _by_engine(plan: Plan, wanted: Fit, but: Fit | None = None, without: str = "") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in plan["cells"].values():
        if cell["protocol"]["kind"] == without:
            continue
        if cell["predicted"][wanted] is False and (but is None or cell["predicted"][but] is not False):
            found.setdefault(cell["engine"], []).append(cell["cell"])
    return found


def boundaries(plan: Plan) -> list[list[Any]]:
    """Memory limits: one row per engine configuration.

    Engine, weights per GPU in GB, capacity of the KV cache in tokens, longest requested sequence in tokens, the largest
    batch of these that fits, and the largest requested batch.  Without a known memory size there are no rows.
    """
    rows: list[list[Any]] = []
    for name, engine in plan["engines"].items():
        predicted = engine["predicted"]
        if predicted["kv_capacity_tokens"] is None or predicted["weight_bytes_per_gpu"] is None:
            continue
        work = [plan["cells"][f"{name}/{cell}"]["workload"] for cell in engine["cells"]]
        longest = max(w["input_tokens"] + w["output_tokens"] for w in work)
        fits = predicted["kv_capacity_tokens"] // longest if predicted["fits"] else 0
        asked = max(w["batch"] for w in work if w["input_tokens"] + w["output_tokens"] == longest)
        size = round(predicted["weight_bytes_per_gpu"] / 1e9, 1)
        rows.append([name, size, predicted["kv_capacity_tokens"], longest, fits, asked])
    return rows


def tightest(plan: Plan) -> list[list[Any]]:
    """Memory limits, one row per model and number of GPUs: model, GPUs, and the other columns of the tightest row of
    ``boundaries``."""
    found: dict[tuple[str, int], list[Any]] = {}
    for name, *rest in boundaries(plan):
        engine = plan["engines"][name]
        key = engine["model"]["name"], engine["gpus"]
        if key not in found or (rest[3], -rest[4]) < (found[key][3], -found[key][4]):
            found[key] = rest
    return [[*key, *rest] for key, rest in found.items()]


def lines(plan: Plan, gpus: int | None) -> list[str]:
    """The forecast as text."""
    cpu = plan["hardware"]["kind"] == "cpu"
    hours_of = {kind: hours for kind, hours in gpu_hours(plan).items() if jobs_by_kind(plan)[kind]}
    parts = ", ".join(f"{hours:.1f} {kind}" for kind, hours in hours_of.items())
    text = [
        f"about {sum(hours_of.values()):.1f} {'hours' if cpu else 'GPU-hours'} at the predicted speed ({_span(plan)}"
        f"{f': {parts}' if len(hours_of) > 1 else ''})"
    ]
    if gpus:
        hours = wall_hours(plan, gpus)
        most = max((job["gpus"] for kind in jobs_by_kind(plan).values() for job in kind), default=0)
        text.append(f"a job needs {most} GPUs, more than {gpus}" if hours is None
                    else f"about {hours:.1f} hours on {gpus} GPUs, queues not counted")  # fmt: skip
    sizes = checkpoint_bytes(plan)
    text.append(f"{sum(sizes.values()) / 1e9:,.1f} GB of disk for {sum(s > 0 for s in sizes.values())} checkpoints")
    text += _memory(plan)
    if chosen := plan.get("budget"):
        text += _left_out(chosen)
    return text


def _span(plan: Plan) -> str:
    """Uncertainty of the hours: their interval, and the kinds of times of the cells."""
    kinds = Counter(kind_of(cell["predicted"]) for cell in plan["cells"].values())
    if not any(kind.startswith("calibrated") for kind in kinds):
        return "a rough estimate"
    low, high = (sum(gpu_hours(plan, end).values()) for end in ENDS[1:])
    told = ", ".join(f"{count} cells {kind}" for kind, count in kinds.most_common())
    return f"{low:.1f} to {high:.1f}; {told}"


def _memory(plan: Plan) -> list[str]:
    cells = len(plan["cells"])
    if all(cell["predicted"]["fits"] is None for cell in plan["cells"].values()):
        return ["whether cells fit in memory is unknown: the hardware file gives no memory size"] * bool(cells)
    text = []
    for found, words in (
        (unfit(plan), "cannot fit in memory and will be recorded as out of memory"),
        (split(plan), "have a batch that does not fit in the KV cache and will be invalid"),
    ):
        count = sum(len(c) for c in found.values())
        of = [
            f"{n} of {name}"
            for name, e in plan["experiments"].items()
            if (n := len({(r["engine"], r["cell"]) for r in e["rows"] if r["cell"] in found.get(r["engine"], ())}))
        ]
        text.append(f"{count} of {cells} cells {words}" + (f" ({', '.join(of)}):" if count else ""))
        text += [f"    {name}: {', '.join(sorted(names))}" for name, names in found.items()]
    return text


def _left_out(chosen: Budget) -> list[str]:
    text = [
        f"within {chosen['gpu_hours']:g} GPU-hours: decides {len(chosen['decides'])} claims; "
        f"{chosen['cells_left_out']} cells, {chosen['accuracy_cells_left_out']} accuracy cells and "
        f"{len(chosen['left_out'])} claims are left out"
    ]
    text += [f"figures left out: {', '.join(chosen['figures_left_out'])}"] * bool(chosen["figures_left_out"])
    return text + [f"    {claim}: {hours:.2f} GPU-hours more" for claim, hours in chosen["left_out"].items()]
