"""The live view: what is done, what fails and why, what is left, from files alone."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

import synthetic
from moebench.commands import watching
from moebench.commands.app import Study
from moebench.progress import watch
from moebench.storage import lock


@pytest.fixture
def study(tmp_path):
    """Ten cells on two GPUs each that the plan expects to take 100 s, none measured yet: plan, results folder."""
    plan = synthetic.Plan(hardware="gpu")
    plan.experiment("batch")
    for batch in range(1, 11):
        work = {"batch": batch, "input_tokens": 16, "output_tokens": 8}
        engine, _ = plan.add("batch", {"batch": batch}, work, model="olmoe-tiny")
    plan.data["jobs"] = {engine: {"engines": [engine], "gpus": 2, "expected_s": 100.0}}
    return plan.data, tmp_path


def measure(study, cells, **how) -> None:
    plan, results = study
    for number in cells:
        key = list(plan["cells"].values())[number]
        made = synthetic.record(plan, key["engine"], key["cell"], **how)
        synthetic.store_fast(results, made)


def text(state: watch.State) -> str:
    out = Console(file=io.StringIO(), width=120)
    out.print(watch.shown("tiny", state, "no report"))
    return out.file.getvalue()


def test_done_failing_and_why(study):
    looker = watch.Watch(*study)
    assert looker.look().done == 0
    measure(study, range(3))
    measure(study, [3, 4], status="unsupported", reason="no kernel for it")
    measure(study, [5], status="oom_kv")
    measure(study, [6], status="crashed", reason="ended by SIGSEGV")
    state = looker.look()
    assert state.lines == [watch.Line("batch", 10, 3, 2, 1)] and (state.done, state.cells) == (6, 10)
    assert [(c.status, c.cells, c.tried_again) for c in state.causes] == [
        ("crashed", 1, True), ("oom_kv", 1, False), ("unsupported", 2, False)]  # fmt: skip
    said = text(state)
    assert "6 of 10 cells done, no jobs running" in said and "2 unsupported: no kernel for it" in said
    assert "1 crashed, to be tried again: ended by SIGSEGV" in said


def test_gpu_hours_and_time_left_follow_the_measured_pace(study):
    looker = watch.Watch(*study)
    whole = looker.look()
    assert whole.gpu_hours_left == pytest.approx(2 * 100 / 3600) and whole.seconds_left == pytest.approx(100)
    measure(study, range(5), started_at="2026-03-01T10:00:00.000000Z", ended_at="2026-03-01T10:02:00.000000Z",
            load={"session": "2026-03-01T09:59:00.000000Z", "load_s": 60.0})  # fmt: skip
    half = looker.look()
    took = 60 + 120  # one load; cells that end together count once
    pace = (took + watch.PRIOR_S) / (50 + watch.PRIOR_S)
    assert half.seconds_left == pytest.approx(50 * pace) and half.gpu_hours_left == pytest.approx(2 * 50 * pace / 3600)
    assert "GPU-hours" in watch.words(half)


def test_a_job_that_holds_a_lock_runs(study):
    plan, results = study
    engine = next(iter(plan["engines"]))
    looker = watch.Watch(plan, results)
    with lock.held(results, engine, lambda words: None):
        assert looker.look().running == [engine] and "1 job running" in watch.words(looker.look())
    assert looker.look().running == []


def test_a_record_is_read_once_and_again_when_it_changed(study):
    looker = watch.Watch(*study)
    measure(study, [0], status="crashed")
    assert looker.look().causes and not looker.look().done
    measure(study, [0])
    assert looker.look().done == 1 and not looker.look().causes
    (path,) = looker._seen
    path.write_text("{")  # half of a record, while it is written
    assert looker.look().done == 1


def test_all_done(study):
    measure(study, range(10))
    state = watch.Watch(*study).look()
    assert watch.words(state) == "all 10 cells are done" and state.seconds_left == 0


def test_the_partial_report_is_built_when_there_is_something_new(study, monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(watching.subprocess, "Popen", lambda command, **more: started.append(command))
    builder = watching._Builder(Study(results_folder=tmp_path, reports_folder=tmp_path), study[0], 5)
    looker = watch.Watch(*study)
    builder.look(looker.look())
    assert not started, "nothing to report"
    measure(study, [0])
    builder.look(looker.look())
    builder.look(looker.look())
    assert len(started) == 1 and started[0][1:5] == ["-m", "moebench", "report", "--partial"]
    measure(study, range(10))
    builder.look(looker.look())
    assert len(started) == 2, "the last one, though five minutes are not over"
