"""Cells truncated from longer runs, and packing of engine configurations into jobs."""

from __future__ import annotations

import math
from typing import Any

from moebench.accuracy.vlmeval_process import ENVIRONMENT
from moebench.config import Hardware, Study
from moebench.config.identity import canonical, digest
from moebench.cost.seconds import ENDS, at_end
from moebench.formats.plan import AccuracyPart, Cell, EngineConfig, Job, Plan

CLIENT_MB = 2000
"""Host memory of a job that only sends requests, MB."""


def mark_derived(engine: EngineConfig, cells: dict[str, Cell]) -> None:
    """Mark cells that a longer run of the same input gives: the same workload except for the output length.

    Only protocol ``trace`` (time stamps of every token), and not with speculation, where the draft's proposals near
    the end depend on the length asked for; nor through an endpoint, where requests start when they arrive.
    """
    if engine["config"]["draft_tokens"] or engine["runtime"]["kind"] == "endpoint":
        return
    groups: dict[str, list[str]] = {}
    for cell_id in engine["cells"]:
        cell = cells[f"{engine['id']}/{cell_id}"]
        if cell["protocol"]["kind"] == "trace":
            same = {k: v for k, v in cell["workload"].items() if k != "output_tokens"}
            groups.setdefault(canonical([same, cell["protocol"]]), []).append(cell_id)
    for group in groups.values():
        longest = max(group, key=lambda c: cells[f"{engine['id']}/{c}"]["workload"]["output_tokens"])
        for cell_id in group:
            if cell_id != longest:
                cells[f"{engine['id']}/{cell_id}"]["derived_from"] = longest


def jobs_of(plan: Plan | AccuracyPart, study: Study, hardware: Hardware) -> dict[str, Job]:
    """Engine configurations to jobs: one each, or packed by shape up to ``pack_minutes`` of expected time."""
    settings = study.jobs
    packs: list[tuple[int, float, list[str]]] = []  # GPUs, expected seconds, engines
    open_pack: dict[tuple[Any, ...], int] = {}
    for engine_id, engine in plan["engines"].items():
        gpus, seconds = engine["gpus"], engine["predicted"]["job_s"]
        runs_on = engine["runtime"]
        # On a CPU, devices are processes, and a server is a copy of the worker: all share a job, and an import of vLLM.
        allocated = hardware.kind == "gpu"
        # What a worker process cannot change; nor do two engines share one, because the first leaves state behind.
        shape = (
            *((gpus, engine["config"]["own_process"]) if allocated else (engine["nodes"],)),
            *(engine["config"][knob] for knob in ("cpu_threads", "mla")),
            "vllm" if served(engine) and not allocated else runs_on["kind"],
            *(runs_on["environment"], runs_on["hosted"]),
            canonical(runs_on.get("variables")),
            # numba, which n-grams are looked up with, keeps vLLM's CPU build from loading anything after it.
            engine_id if engine["config"].get("speculation") == "ngram" else None,
        )
        last = open_pack.get(shape)
        if last is not None and packs[last][1] + seconds <= 60 * settings.pack_minutes:
            packs[last] = (max(gpus, packs[last][0]), packs[last][1] + seconds, [*packs[last][2], engine_id])
        else:
            open_pack[shape] = len(packs)
            packs.append((gpus, seconds, [engine_id]))
    jobs: dict[str, Job] = {}
    for gpus, seconds, engines in packs:
        # Servers first: what an engine leaves behind in the worker would be in its copy.
        engines.sort(key=lambda e: (not served(plan["engines"][e]), plan["engines"][e]["gpus"]))
        nodes = max(1, math.ceil(gpus / hardware.devices_per_node))
        gpus_per_node = gpus // nodes
        job_id = engines[0] if len(engines) == 1 else f"pack{len(engines)}-{digest(engines)}"
        # Dummy weights are made on the device; only a checkpoint passes through host memory.
        specs = [plan["engines"][e] for e in engines]
        limit_s = sum(e["predicted"].get("limit_s", e["predicted"]["job_s"]) for e in specs)
        loaded = [e for e in specs if e["model"]["weights"] != "dummy" and not e["runtime"]["hosted"]]
        heaviest = max(((engine["predicted"]["weight_bytes"] or 0) for engine in loaded), default=0)
        jobs[job_id] = {
            "engines": engines,
            "gpus": gpus,
            "environment": specs[0]["runtime"]["environment"],
            "hosted": specs[0]["runtime"]["hosted"],
            "nodes": nodes,
            "cpus": max(1, settings.cpus * gpus_per_node),  # these and mem_mb: of each node
            "mem_mb": max(
                settings.host_memory_mb * gpus_per_node or CLIENT_MB, math.ceil(1.5 * heaviest / nodes / 1e6)
            ),
            "runtime_min": math.ceil(limit_s * settings.time_factor / 60) + 5,
            "expected_s": round(seconds, 1),
            "cells": sum(len(plan["engines"][e]["cells"]) for e in engines),
            "digest": digest([_contents(plan["engines"][e], settings.skip_infeasible) for e in engines], 16),
        }
        if any("job_s_low" in spec["predicted"] for spec in specs):
            low, high = (round(sum(at_end(s["predicted"], "job_s", end) or 0.0 for s in specs), 1) for end in ENDS[1:])
            jobs[job_id] |= {"expected_s_low": low, "expected_s_high": high}
    return jobs


def served(engine: EngineConfig) -> bool:
    """Whether an engine configuration is a server on this machine."""
    endpoint = engine["runtime"].get("endpoint")
    return endpoint is not None and endpoint["serve"]


def _contents(engine: EngineConfig, skip_infeasible: bool) -> list[Any]:
    """Parts of an engine configuration whose change makes a job's manifest outdated."""
    skipped = skip_infeasible and engine["predicted"]["fits"] is False
    return [engine["id"], sorted(engine["cells"])] + ["skipped"] * skipped


def environments_needed(plan: Plan) -> list[str]:
    """Names of the environments that a plan needs: of the workflow, its engines, derived models and harnesses."""
    engines = [engine["runtime"]["environment"] for engine in plan["engines"].values()] or [
        plan["engine"]["environment"]
    ]
    derived = [job["environment"] for job in plan["derive_jobs"].values()]
    asking = [ENVIRONMENT] if "vlmeval" in plan["accuracy"] else []
    return list(dict.fromkeys(["workflow", *engines, *derived, *asking]))
