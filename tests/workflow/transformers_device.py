"""Run by test_transformers_device.py in the engine's environment: what the transformers engine does on a device.

Usage: python transformers_device.py TINY-SPEC MIXTRAL-SPEC OUT.  The device is torch's `meta`, or one that the model
only says it is on: no GPU is needed.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from moebench.engines.transformers import TransformersEngine

PROMPTS = [[1, 2, 3, 4], [5, 6, 7, 8]]


def peak_gb() -> float:
    """Most memory that this process had, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def while_decoding(engine: TransformersEngine, optimize: Any) -> list[str]:
    """Experts implementations within the context that `generate` decodes in, for a model that says it is on a GPU."""
    kind = type(engine.model)
    device = kind.device
    kind.device = property(lambda model: torch.device("cuda"))
    try:
        with optimize():
            return sorted(set(engine.model.get_experts_implementation().values()))
    finally:
        kind.device = device


def clocked(engine: TransformersEngine) -> list[str]:
    """What happens around the times that `timed` and `trace` read."""
    events: list[str] = []
    clock, settle = time.perf_counter, engine.settle
    engine.settle = lambda: events.append("settled")  # type: ignore[method-assign]
    time.perf_counter = lambda: events.append("time") or clock()  # type: ignore[func-returns-value]
    try:
        engine.timed(PROMPTS, 3)
        timed, events = events, []
        engine.trace(PROMPTS, 3)
    finally:
        time.perf_counter, engine.settle = clock, settle  # type: ignore[method-assign]
    return [*timed, "|", *events]


def main(tiny: str, mixtral: str, out: str) -> None:
    found: dict[str, Any] = {}
    transformers.MixtralConfig().save_pretrained(Path(mixtral).parent / "mixtral")  # the defaults are 8x7B's sizes
    spec = json.loads(Path(tiny).read_text())
    engine = TransformersEngine(spec)
    engine.load()
    found["grouped_mm"] = while_decoding(engine, engine.model._optimize_model_for_decode)
    found["by_itself"] = while_decoding(engine, lambda: type(engine.model)._optimize_model_for_decode(engine.model))
    found["clocked"] = clocked(engine)
    engine.device, waits = "cuda", []
    torch.cuda.synchronize = lambda: waits.append(1)
    engine.settle()
    engine.device = "cpu"
    engine.settle()
    found["waits"] = len(waits)
    engine.close()

    before = peak_gb()
    big = TransformersEngine(json.loads(Path(mixtral).read_text()))
    big.device = "meta"
    big.load()
    parameters = list(big.model.parameters())
    found |= {
        "devices": sorted({p.device.type for p in parameters}),
        "made_gb": sum(p.numel() * p.element_size() for p in parameters) / 1e9,
        "host_gb": peak_gb() - before,
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
