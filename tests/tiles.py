"""Which shapes of experts have tuned tile sizes in vLLM 0.32 on an H100."""

from __future__ import annotations

from typing import Any

TUNED = {(8, 1792), (8, 2048), (8, 3584), (8, 4096), (8, 7168), (16, 1344), (16, 1792), (16, 2688), (32, 1792),
         (64, 320), (64, 640), (64, 1280), (64, 1536), (72, 384), (72, 768), (128, 192), (128, 384), (128, 512),
         (256, 512)}  # fmt: skip
"""Experts and width per GPU for which vLLM 0.32 has tile sizes tuned on H100 (16-bit weights)."""


def untuned(plan: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether vLLM on H100 warns that it has no tile sizes for the experts of a cell."""
    made, tp = plan["engines"][row["engine"]]["model"]["architecture"]["experts"], row["tp"] or 1
    width = made["ffn_size"] if row["ep"] else made["ffn_size"] // tp
    count = made["count"] // tp if row["ep"] else made["count"]
    return row["kernel_config"] == "default" or (count, width) not in TUNED
