"""A kernel compiled inside a timed run: the run is thrown away, repeated and counted."""

from __future__ import annotations

import json
import sys

import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.measure import records
from moebench.measure.driver import Driver

SESSION = """
import sys
from moebench.measure import worker

class Fake:
    def set_top_k(self, top_k):
        pass

    def counters(self):
        return {}

class Compiling(worker.Session):
    runs = 0

    def load(self, request):
        self.spec, self.engine = request["engine"], Fake()
        return {"facts": {"resolved_config": {}}}

    def provenance(self):
        return {}

    def warm_up(self, work, protocol):
        return {"experts_per_token": None, "distinct_experts": None, "image_tokens": None}, []

    def once(self, work, kind, seed):
        self.runs += 1
        if self.runs in COMPILES:
            print("WARNING 11-28 08:12:31 [jit_monitor.py:152] Triton kernel JIT compilation during inference: k. This",
                  file=sys.stderr)
        metrics = {"e2e_s": 1.0, "throughput_total_tokens_per_s": 1.0}
        return {"seed": seed, "started_at": "2026-11-28T00:00:00Z", "metrics": metrics}

worker.main(Compiling)
"""


def measured(tmp_path, monkeypatch, compiles):
    block = {"fix": {"model": "tiny-mixtral", "input_tokens": 4, "output_tokens": 4}}
    protocol = {"kind": "trace", "repeats": 3, "seed": 1}
    plan = make_plan(Config(studies.folder(tmp_path, {"one": [block]}, protocol=protocol)), "test")
    (tmp_path / "compiling_session.py").write_text(SESSION.replace("COMPILES", repr(compiles)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    driver = Driver(plan, tmp_path / "results", tmp_path / "log", lambda text: None, sys.executable)
    driver.worker_module = "compiling_session"
    monkeypatch.setattr(driver, "check_staged", lambda engines: None)
    driver.run_job(next(iter(plan["jobs"])))
    return json.loads(records.cell_path(tmp_path / "results", *next(iter(plan["cells"])).split("/")).read_text())


@pytest.mark.parametrize(("compiles", "kept", "thrown"), [((), [1, 2, 3], []), ((1, 3), [2, 4, 5], [1, 3]),
                                                          ((1, 2, 3), [4, 5, 6], [1, 2, 3])])  # fmt: skip
def test_a_run_with_a_compilation_is_repeated_with_fresh_prompts_and_counted(
    tmp_path, monkeypatch, compiles, kept, thrown
):
    record = measured(tmp_path, monkeypatch, compiles)
    first = 1002  # after the warm-up's seed, and none twice
    assert record["status"] == "ok"
    assert [run["seed"] for run in record["repeats"]] == [first + n - 1 for n in kept]
    assert [(run["seed"], run["compiled"]) for run in record.get("thrown_away", [])] == [
        (first + n - 1, ["k"]) for n in thrown
    ]
    assert record["checks"]["thrown_away_runs"] == len(thrown)


def test_an_engine_that_never_stops_compiling_gives_no_number(tmp_path, monkeypatch):
    record = measured(tmp_path, monkeypatch, tuple(range(1, 9)))
    assert record["status"] == "invalid" and len(record["thrown_away"]) == 6
    assert record["reason"] == "the engine still compiled kernels in 6 of 6 timed runs: k"
