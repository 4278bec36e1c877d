"""How often the driver loads an engine configuration that fails.  The engine's answers are scripted."""

import json
import re

import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.engines.failures import classify
from moebench.measure import records
from moebench.measure.driver import Driver
from moebench.storage import atomic

OF = re.compile(r"\[(\d)/4\]")
NO_KERNEL = "AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_attention'"
TOO_LONG = "VLLMValidationError: This model's maximum context length is 256 tokens. However, you requested 300"


class Silent:
    """Stands for the engine's process, which is never asked and says nothing."""

    def said(self):
        return ""

    def close(self):
        pass


class Scripted(Driver):
    """A driver whose engine fails with ``words`` where ``fails(request)``; it starts no process."""

    def __init__(self, plan, results, fails, words):
        super().__init__(plan, results, results / "engine.log", lambda text: None)
        self.fails, self.words, self.asked = fails, words, []

    def check_staged(self, engines):
        pass

    def ready(self, engine_id):
        if self.worker is None:
            self.worker, self.seen = Silent(), {}
        return super().ready(engine_id)

    def watch(self, spec):
        pass

    def ask(self, request, timeout_s, phase):
        self.asked.append(request["do"])
        if self.fails(request):
            status, reason, evidence = classify(self.words, phase)
            self.stop_worker()
            return {"status": status, "reason": reason, "evidence": evidence}
        if request["do"] == "load":
            return {"facts": {"resolved_config": {}}, "took_s": 0.0}
        metrics = {"e2e_s": 1.0, "throughput_total_tokens_per_s": 1.0}
        if request["do"] == "canary":
            return {"started_at": atomic.stamp(), "metrics": metrics}
        return {"status": "ok", "reason": "", "repeats": [{"metrics": metrics}]}


@pytest.fixture
def plan(tmp_path):
    return made(tmp_path, [1, 2, 4, 8])


def made(folder, batches):
    """A plan of one engine configuration; with three cells or more its driver runs a canary."""
    block = {"fix": {"model": "tiny-mixtral", "input_tokens": 4, "output_tokens": 4}, "cross": {"batch": batches}}
    return make_plan(Config(studies.folder(folder, {"one": [block]})), "test")


def measured(plan, results, fails, words):
    """What was asked of the engine in a call, and the statuses of all cells after it."""
    driver = Scripted(plan, results, fails, words)
    (job,) = plan["jobs"]
    driver.run_job(job)
    found = [json.loads(records.cell_path(results, *key.split("/")).read_text())["status"] for key in plan["cells"]]
    return driver.asked, found


def loading(request):
    return request["do"] == "load"


def running(request):
    return request["do"] in ("run", "canary")


def test_records_damaged_while_a_job_waits_for_its_turn_are_not_counted_twice(plan, tmp_path, monkeypatch):
    """Its progress log said [5/4] (found by the soak)."""
    results, (job,) = tmp_path / "results", plan["jobs"]
    Scripted(plan, results, lambda request: False, "").run_job(job)
    (torn, *_) = results.glob("cells/*/*.json")
    driver, said = Scripted(plan, results, lambda request: False, ""), []
    driver.say = said.append
    monkeypatch.setattr(records, "sweep", lambda *_: torn.write_text("torn"))  # the first thing under the lock
    driver.run_job(job)
    assert [found[1] for line in said if (found := OF.search(line))] == ["4"]


@pytest.mark.parametrize("fails", [loading, running])
@pytest.mark.parametrize("batches", [[1, 2, 4, 8], [1, 2]])
def test_an_engine_without_a_kernel_is_loaded_once_whenever_it_shows(tmp_path, fails, batches):
    plan = made(tmp_path, batches)
    asked, found = measured(plan, tmp_path / "results", fails, NO_KERNEL)
    assert asked.count("load") == 1 and set(found) == {"unsupported"}
    again, _ = measured(plan, tmp_path / "results", fails, NO_KERNEL)
    assert again == [], "what is final is not tried again"


@pytest.mark.parametrize("words", [TOO_LONG, NO_KERNEL])
@pytest.mark.parametrize("batch", [2, 4, 8])
def test_what_one_workload_cannot_do_the_others_are_still_measured(plan, tmp_path, words, batch):
    def fails(request):
        return running(request) and request["workload"]["batch"] == batch

    _, found = measured(plan, tmp_path / "results", fails, words)
    assert sorted(found) == ["ok"] * 3 + ["unsupported"]


COMPILER = "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set triton.knobs"
ECC = "RuntimeError: CUDA error: uncorrectable ECC error encountered"


class OnANode(Scripted):
    """A scripted driver that keeps what it says."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.said = []
        self.say = self.said.append


@pytest.mark.parametrize("words", [COMPILER, ECC])
@pytest.mark.parametrize(("fails", "loads"), [(loading, 1), (running, 1), (lambda request: request["do"] == "run", 3)])
def test_a_fault_of_the_host_is_the_result_of_no_cell(tmp_path, monkeypatch, fails, words, loads):
    """However often it comes: one load (or three cells in a row) per call, and all cells stay pending."""
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    plan, results = made(tmp_path, [1, 2, 3, 4, 6, 8]), tmp_path / "results"
    (job,) = plan["jobs"]
    for _ in range(4):
        driver = OnANode(plan, results, fails, words)
        assert driver.run_job(job) is False
        assert driver.asked.count("load") == loads
        found = [records.load(path) for path in results.glob("cells/*/*.json")]
        assert len(found) == loads
        assert {(r["status"], r["checks"]["host"], records.is_final(r)) for r in found} == {("node_fault", 0, False)}
        assert sum("stopped: 3 times in a row on n7: " in line for line in driver.said) == (loads == 3)
    fault = json.loads((results / "faults" / "n7.json").read_text())
    assert fault["node"] == "n7" and fault["reason"] == classify(words, "run")[1]
    _, statuses = measured(plan, results, lambda request: False, "")
    assert set(statuses) == {"ok"}


def test_a_job_of_many_loads_stops_after_three_with_one_reason(tmp_path):
    block = {"fix": {"model": "tiny-mixtral", "input_tokens": 4, "output_tokens": 4, "batch": 1},
             "cross": {"arm": [{"label": str(n), "max_num_seqs": n} for n in (8, 16, 32, 64, 128)]}}  # fmt: skip
    plan = make_plan(Config(studies.folder(tmp_path, {"one": [block]})), "test")
    (job,) = plan["jobs"]
    driver = OnANode(plan, tmp_path / "results", loading, COMPILER)
    driver.run_job(job)
    assert len(plan["jobs"][job]["engines"]) == 5 and driver.asked == ["load"] * 3
    assert sum("stopped" in line for line in driver.said) == 1
