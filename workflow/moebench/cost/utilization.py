"""Utilization of a machine's peaks: MFU of a run, MBU of its decode steps, by the cost model's operations and bytes.

MFU (model FLOPs utilization: Chowdhery et al., PaLM, arXiv 2204.02311, appendix B) is the time that the operations of
the model would take at the device's dense peak over the time they took.  Operations count at the peak of the data type
they run in, so with one type this is FLOP / (peak x time).  MBU (model bandwidth utilization: Databricks, LLM Inference
Performance Engineering: Best Practices, 2023) is the bytes that a decode step must read over bandwidth x time per
output token; of a mixture only the experts that the step uses (Jiang et al., MoE-CAP, arXiv 2412.07067: S-MBU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moebench.config import Architecture, EngineKnobs, Hardware
from moebench.cost import roofline
from moebench.cost.inputs import Formats, Layout, Machine, Sizes
from moebench.cost.vision import image_tokens, tiles
from moebench.formats.plan import Workload


@dataclass(frozen=True)
class Ideal:
    """Times at peak rates, of the mean GPU, s; None: unknown."""

    run_compute_s: float | None
    """All operations of a run."""
    step_memory_s: float | None
    """All bytes of a decode step, at the mean context of the run."""

    def mfu(self, e2e_s: float | None) -> float | None:
        """Model FLOPs utilization of a run of ``e2e_s``."""
        return self.run_compute_s / e2e_s if self.run_compute_s and e2e_s else None

    def mbu(self, itl_s: float | None) -> float | None:
        """Model bandwidth utilization of decode steps that took ``itl_s``."""
        return self.step_memory_s / itl_s if self.step_memory_s and itl_s else None


NOTHING = Ideal(None, None)


def ideal(
    architecture: Architecture,
    knobs: EngineKnobs,
    hardware: Hardware,
    work: Workload,
    distinct: float | None = None,
) -> Ideal:
    """Times at peak rates of a workload.  ``distinct``: distinct experts of a layer in a decode step, as measured;
    None: by the law of uniform routing.

    Unknown with speculation (neither the draft's work nor the rejected tokens are counted), with images of unknown
    sizes, and where the hardware file lacks the constant.  The bytes also with pipeline stages, which work on several
    batches and read their weights for each.
    """
    batch, prompt, out = float(work["batch"]), float(work["input_tokens"]), float(work["output_tokens"])
    shown = tiles(architecture, work.get("images") or 0, work.get("image_size"))
    if knobs.draft_tokens or knobs.budgeted or knobs.prefix_caching or shown is None:
        return NOTHING
    prompt += image_tokens(architecture, work.get("images") or 0, work.get("image_size")) or 0
    sizes, layout, machine = Sizes.of(architecture, knobs.mla), Layout.of(knobs), Machine.of(hardware, knobs)
    formats, top_k = Formats.of(architecture, knobs), work.get("top_k")
    if distinct is None and work["prompts"] == "identical":
        distinct = float(sizes.top_k if top_k is None else top_k)  # all tokens of a step choose the same
    first = roofline.step(sizes, formats, layout, machine, batch, prompt, top_k, prefill=True, even=True)
    decode = roofline.step(sizes, formats, layout, machine, batch, 1, top_k, distinct, even=True)
    context = prompt + 1 + max(out - 2, 0) / 2
    compute = (
        first.compute_at(prompt / 2, roofline.near_tokens(sizes, prompt)) + (out - 1) * decode.compute_at(context)
    ) / layout.pp + batch * shown * sizes.tile_ops / machine.plain_peak / layout.gpus
    memory = decode.memory_at(context)
    return Ideal(_known(compute), None if knobs.pp > 1 or out < 2 else _known(memory))


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
