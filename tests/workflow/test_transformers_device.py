"""The transformers engine as it is on a GPU, without one: one experts kernel, settled times, weights made there."""

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

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

ENGINES = {"other": {"name": "transformers", "version": "5.19.0", "environment": "vllm-cpu"}}


def spec(folder: Path, model: str, path: Path) -> Path:
    block = {"fix": {"model": model, "engine_name": "other", "weights": "dummy", "input_tokens": 4, "output_tokens": 4}}
    config = Config(studies.folder(folder, {"one": [block]}, engines=ENGINES))
    (engine,) = make_plan(config, "test")["engines"].values()
    file = folder / "spec.json"
    file.write_text(json.dumps(engine | {"model": engine["model"] | {"path": str(path)}}))
    return file


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    tiny = folder / "tiny"
    tiny.mkdir()
    sizes = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 64, "head_dim": 32,
             "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
             "num_local_experts": 4, "num_experts_per_tok": 2, "vocab_size": 128}  # fmt: skip
    (tiny / "config.json").write_text(json.dumps(sizes))
    files = [spec(folder / "a", "tiny-mixtral", tiny), spec(folder / "b", "mixtral-8x7b", folder / "b" / "mixtral")]
    environment = {**os.environ, "PYTHONPATH": str(studies.ROOT / "workflow"), "HF_HUB_OFFLINE": "1",
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    script = Path(__file__).with_name("transformers_device.py")
    command = [ENGINE, script, *files, folder / "out.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "out.json").read_text())


def test_both_protocols_decode_with_the_experts_kernel_that_was_asked_for(found):
    assert found["by_itself"] == ["batched_mm"]  # what `generate` does with the model of a device
    assert found["grouped_mm"] == ["grouped_mm"]


def test_a_time_is_read_when_the_device_has_done_all_it_was_given(found):
    timed, traced = " ".join(found["clocked"]).split(" | ")
    assert timed == "settled time settled time"
    assert traced.split() == ["settled", "time", *["time"] * 3]  # a step ends with its tokens on the host
    assert found["waits"] == 1


def test_dummy_weights_are_made_on_the_device(found):
    assert found["devices"] == ["meta"]
    assert found["made_gb"] > 90 and found["host_gb"] < 2
