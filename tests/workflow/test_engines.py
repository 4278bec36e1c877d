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
from moebench import columns
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.measure import metrics, records
from moebench.tables import cell_rows
from project import ENGINE, HANG_S

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

PATHS = os.pathsep.join([str(studies.ROOT / "workflow"), str(Path(__file__).parent)])
HERE = {**os.environ, "PYTHONPATH": PATHS, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
KERNELS = ("eager", "batched_mm", "grouped_mm")


# ------------------------------------------------------------------------------------- one model, three engines


@pytest.fixture(scope="module")
def found(copies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    architecture = Config(studies.ROOT / "config").model("tiny-mixtral").architecture.model_dump()
    specs = folder / "specs.json"
    specs.write_text(json.dumps([{"architecture": architecture, "seed": 0, "out": str(folder / "model")}]))
    copies.run("-m", "moebench.models.random_init", specs)
    (folder / "model" / "architecture.json").write_text(json.dumps(architecture))
    script = Path(__file__).with_name("compare_engines.py")
    done = copies.run(script, folder / "model", folder / "server.log")
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
    """A cell in transformers, measured by the driver, and one that it does not do.  (The study `tiny` has all three
    engines in one figure.)"""
    folder = tmp_path_factory.mktemp("study")
    cell = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8, "engine_name": "transformers"}
    engines = {"transformers": {"name": "transformers", "version": "5.19.0", "environment": "vllm-cpu"}}
    config = studies.folder(folder, {"a": [{"fix": cell}, {"fix": cell | {"kv_cache_dtype": "fp8"}}]}, engines=engines)
    stage = [sys.executable, "-m", "moebench", "stage", "--config", str(config)]
    subprocess.run(stage, check=True, env=HERE, cwd=studies.ROOT, capture_output=True)
    plan = make_plan(Config(config), "test")
    (folder / "plan.json").write_text(json.dumps(plan))
    (job,) = plan["jobs"]
    command = [ENGINE, "-m", "moebench", "measure", "--plan", folder / "plan.json", "--job", job, "--results",
               folder / "results", "--engine-log", folder / "engine.log"]  # fmt: skip
    done = subprocess.run(command, env=HERE, cwd=studies.ROOT, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return plan, folder / "results"


def test_transformers_in_the_tables(study):
    plan, results = study
    keys = [tuple(k.split("/")) for k in plan["cells"]]
    made = cell_rows.make(cell_rows.Chunk("test", results, "", keys))
    rows = {row["status"]: row for row in made.tables["measurements"].to_pylist()}
    assert set(rows) == {"ok", "unsupported"}
    (failure,) = made.tables["failures"].to_pylist()
    assert "kv_cache_dtype='fp8' is not supported" in failure["evidence"]
    row = rows["ok"]
    assert (row["engine_name"], row["engine_version"], row["expert_kernel"]) == ("transformers", "5.19.0", "grouped_mm")
    assert (row["hardware"], row["gpus"], row["preemptions"], row["n_repeats"]) == ("local-cpu", 1, 0, 2)
    assert all(row[m] > 0 for m in ("ttft_s", "itl_s", "e2e_s", "throughput_total_tokens_per_s", "load_s"))
    assert row["distinct_experts_mean"] > 2 and row["tokens_counted_by"] is None
    assert {c.name for c in columns.of_table("measurements")} >= set(row)


def test_its_record_has_the_form_of_any_other(study):
    plan, results = study
    found = [records.load(results / "cells" / f"{key}.json") for key in plan["cells"]]
    (record,) = [r for r in found if r["status"] == "ok"]
    for run in record["warmup"] + record["repeats"]:
        times = [metrics.token_times(run["step_end_s"], coded) for coded in run["requests"]]
        assert [len(t) for t in times] == [8] * 4
        assert run["metrics"]["e2e_s"] == max(t[-1] for t in times)
    assert record["checks"]["experts_per_token"] == 2 and record["checks"]["moe_layers"] == 2
    assert record["engine_version"] == {
        "name": "transformers", "version": "5.19.0", "kind": "transformers", "hosted": False
    }  # fmt: skip
    assert record["provenance"]["versions"]["transformers"] == "5.19.0"
