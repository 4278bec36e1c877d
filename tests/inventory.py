"""Every performance figure of MoE-Inference-Bench (3-16) as blocks of the grid language, after papers/inventory.md.

What the paper leaves open is chosen as the inventory infers it.  Only tests plan these.
"""

from __future__ import annotations

from typing import Any

Blocks = list[dict[str, Any]]

LENGTHS = [128, 256, 512, 1024, 2048]
BATCHES = [1, 16, 32, 64, 128]
BOTH = "input_tokens = output_tokens"
LONG = {"input_tokens": 2048, "output_tokens": 2048}
MIXTRAL = {"model": "mixtral-8x7b", "tp": 4}
PRUNING = [
    {"label": "none", "pruning": "none"},
    *({"label": f"{kind} {share:.1%}", "pruning": kind, "prune_ratio": share}
      for kind in ("inter", "intra") for share in (0.125, 0.25, 0.5)),
]  # fmt: skip
DRAFTS = ["qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b"]
ARMS = {
    "TP": lambda n: {"tp": n},
    "TP+EP": lambda n: {"tp": n, "ep": True},
    "PP": lambda n: {"pp": n},
    "PP+EP": lambda n: {"pp": n, "ep": True},
}

FIGURES: dict[str, Blocks] = {
    "3": [{"fix": {"batch": 64, **LONG}, "cross": {"model": [
        "mixtral-8x7b", "qwen1.5-moe-a2.7b", "qwen3-30b-a3b", "deepseek-v2-lite", "phi-3.5-moe", "olmoe-1b-7b"]}}],
    "4": [{"fix": {"batch": 64, "images": 1, "image_size": 384},
           "cross": {"model": ["deepseek-vl2-tiny", "deepseek-vl2-small", "deepseek-vl2"]}}],
    "5": [{"fix": {"input_tokens": 1024, "output_tokens": 1024}, "cross": {
        "model": ["deepseek-v2-lite", "qwen1.5-moe-a2.7b"], "batch": [1, 16, 64, 128], "top_k": [1, 2, 4, 8, 16, 32]}}],
    "6": [{"cross": {"model": ["deepseek-v2-lite", "qwen1.5-moe-a2.7b"], "batch": BATCHES, BOTH: LENGTHS}}],
    "7-9": [{"fix": {**MIXTRAL, "weights": "dummy", "batch": 16, **LONG}, "cross": {
        "moe_ffn_size": [1792, 3584, 7168, 14336], "experts": [8, 16, 32, 64], "top_k": [1, 2, 4, 8]}}],
    "10a": [{"fix": {**MIXTRAL, **LONG}, "cross": {"quantization": ["none", "fp8"], "batch": BATCHES}}],
    "10b": [{"fix": {**MIXTRAL, "batch": 16}, "cross": {"quantization": ["none", "fp8"], BOTH: LENGTHS}}],
    "11": [{"fix": {"model": model, "tp": 4, "batch": 16, **LONG}, "cross": {"pruned": PRUNING, "top_k": top_k}}
           for model, top_k in (("olmoe-1b-7b", list(range(1, 9))), ("qwen1.5-moe-a2.7b", list(range(1, 5))))],
    "12a": [{"fix": {"model": "qwen3-30b-a3b", "draft_tokens": 4, "batch": 16, "output_tokens": 512},
             "cross": {"draft_model": DRAFTS, "input_tokens": LENGTHS}}],
    "12b": [{"fix": {"model": "qwen3-30b-a3b", "batch": 16, "input_tokens": 512, "output_tokens": 512},
             "cross": {"draft_model": DRAFTS, "draft_tokens": [1, 2, 3, 4, 5, 6, 8]}}],
    "13": [{"fix": {"batch": 16, **LONG}, "cross": {
        "model": ["mixtral-8x7b", "olmoe-1b-7b"],
        "layout": [{"label": f"{name} on {n}", **arm(n)} for name, arm in ARMS.items() for n in (1, 2, 4)]}}],
    "14a": [{"fix": {**MIXTRAL, **LONG}, "cross": {"expert_kernel": ["fused", "unfused"], "batch": BATCHES}}],
    "14b": [{"fix": {**MIXTRAL, "batch": 16}, "cross": {"expert_kernel": ["fused", "unfused"], BOTH: LENGTHS}}],
    "16a": [{"fix": {"model": "llama-4-scout-17b-16e", "tp": 4, "batch": 16}, "cross": {BOTH: LENGTHS}}],
    "16b": [{"fix": {"model": "llama-4-scout-17b-16e", "tp": 4, **LONG}, "cross": {"batch": [1, 32, 64, 128]}}],
}  # fmt: skip
"""Blocks by figure."""

CELLS = {"3": 6, "4": 3, "5": 48, "6": 50, "7-9": 64, "10a": 10, "10b": 10, "11": 84, "12a": 20, "12b": 28, "13": 24,
         "14a": 10, "14b": 10, "16a": 5, "16b": 4}  # fmt: skip
LOADS = {"3": 6, "4": 3, "5": 12, "6": 2, "7-9": 64, "10a": 2, "10b": 2, "11": 84, "12a": 4, "12b": 28, "13": 18,
         "14a": 2, "14b": 2, "16a": 1, "16b": 1}  # fmt: skip
LIVE_LOADS = LOADS | {"5": 2, "7-9": 16, "11": 14}
"""The inventory's own counts."""
