"""Progress of a run: the time left, times from records, phases from files, what the logger plugin shows."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import MockOutputSettings

from moebench import progress
from moebench.measure.time_left import JobWork
from moebench.progress import failure, phases, screen
from snakemake_logger_plugin_moebench import LogHandler


def record(cell, began, ended, session="00", status="ok", **more):
    at = "2026-01-01T00:00:{}Z".format
    return {"engine": "e", "cell": cell, "status": status, "started_at": at(began), "ended_at": at(ended),
            "load": {"session": at(session)}, "reason": "", "attempt": 1} | more  # fmt: skip


def cell_phase(tmp_path, cells):
    units = [phases.Unit(tmp_path / f"{c}.json", 1, ("e", c), recorded=True) for c in cells]
    return phases.Phase("cells", units, {1: JobWork(24.0, {"e": 4.0}, {unit.key: 2.0 for unit in units})})


def test_cells_are_counted_by_their_records_and_lost_ones_are_not_done(tmp_path):
    phase = cell_phase(tmp_path, "abc")
    (tmp_path / "a.json").write_text(json.dumps(record("a", "30", "32")))
    (tmp_path / "b.json").write_text(json.dumps(record("b", "30", "32", status="unsupported")))
    (tmp_path / "c.json").write_text('{"half')
    for _ in range(2):
        phase.look(0.0)
        assert (phase.done, phase.failed) == (2, 1) and 0 < phase.seconds_left(0.0) < 10
    phase.job_ended(1)
    assert phase.done == 3 and phase.seconds_left(0.0) == 0


def test_a_cell_without_a_value_counts_also_if_it_is_recorded_just_before_its_job_ends(tmp_path):
    phase = cell_phase(tmp_path, "a")
    (tmp_path / "a.json").write_text(json.dumps(record("a", "30", "32", status="unsupported")))
    phase.job_ended(1)
    assert (phase.done, phase.failed) == (1, 1)


def test_a_phase_whose_last_cell_was_seen_before_its_job_ended_is_said_to_be_done(tmp_path):
    stream, phase = io.StringIO(), cell_phase(tmp_path, "a")
    lines = screen.screen_on(stream)
    (tmp_path / "a.json").write_text(json.dumps(record("a", "30", "32")))
    phase.look(0.0)
    lines.show([phase], {"cells"}, 0.0)
    phase.job_ended(1)
    for now in (1.0, 2.0):
        lines.show([phase], set(), now)
    first, last = stream.getvalue().splitlines()
    assert "1/1" in first and "done" not in first and "1/1, done" in last


def test_the_time_of_the_tables_is_not_taken_for_that_of_a_figure(tmp_path):
    figures = tuple(str(tmp_path / f"{n}.svg") for n in range(60))
    jobs = [phases.Job(1, "collect", (str(tmp_path / "tables"),)), phases.Job(2, "figures", figures)]
    phase = phases.phases_of({}, tmp_path, jobs, 2)["figures"]
    before = phase.seconds_left(0.0)
    for unit in phase.units:
        unit.since = 0.0  # a file's time is up to a tick of the kernel before this process's
    phase.job_started(1, 0.0)
    (tmp_path / "tables").touch()
    phase.look(20.0)
    phase.job_ended(1)
    assert phase.done == 1 and abs(phase.seconds_left(20.0) - before) < 4
    phase.job_started(2, 20.0)
    for name in figures[:30]:
        Path(name).touch()
    phase.look(50.0)
    assert phase.done == 31 and phase.seconds_left(50.0) > 15
    page = phases.phases_of({}, tmp_path, [*jobs, phases.Job(3, "report", (str(tmp_path / "page"),))], 2)["figures"]
    before = page.seconds_left(0.0)
    page.job_started(1, 0.0)
    page.units[0].since = 0.0
    page.look(20.0)
    page.job_ended(1)
    assert page.seconds_left(20.0) > before, "a page comes later on a slow machine, too"


def test_a_download_is_expected_by_its_size_and_a_derived_checkpoint_by_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(phases, "checkpoint_bytes", lambda plan: {"models/large": 90e9})
    plan = {"derive_jobs": {"a": {"expected_s": 5.0}, "b": {"expected_s": 600.0}}}
    jobs = [phases.Job(1, "stage", ("models/large/m.json", "data/small/m.json")), phases.Job(2, "derive_1", ("d",))]
    left = [phases.phases_of(plan, tmp_path, [job], 2)["checkpoints"].seconds_left(0.0) for job in jobs]
    assert left == [pytest.approx(900, abs=10), pytest.approx(600, abs=10)]


def test_without_a_terminal_there_is_a_line_now_and_then(tmp_path):
    stream, phase = io.StringIO(), cell_phase(tmp_path, "ab")
    lines = screen.screen_on(stream)
    for now in range(100):
        lines.show([phase], {"cells"}, float(now))
    assert len(stream.getvalue().splitlines()) == 1
    phase.job_ended(1)
    for now in range(100, 110):
        lines.show([phase], set(), float(now))
    assert stream.getvalue().splitlines()[1:] == ["cells: 2/2, done"]


def test_the_reason_of_a_failed_job_is_its_own_last_line_or_its_lost_cell(tmp_path):
    log, output = tmp_path / "j.log", tmp_path / "output"
    output.write_text("earlier\nmoebench stage: disk is full\nTraceback\n")
    assert failure.reason(None, output, 0, 8, []) == ("moebench stage: disk is full", output)
    log.write_text("collecting\nmoebench collect: results/a.json: cut short\n")
    assert failure.reason(log, output, 0, 0, []) == ("moebench collect: results/a.json: cut short", log)
    log.with_suffix(".progress.log").write_text("T host loading e\nT host e: no such file\n")
    assert failure.reason(log, output, 0, 0, [])[0] == "e: no such file"
    lost = cell_phase(tmp_path, "ab").units
    for unit, status in zip(lost, ("crashed", "ok"), strict=True):
        unit.path.write_text(json.dumps(record(unit.key[1], "30", "32", status=status, reason="out of files")))
    assert failure.reason(log, output, 0, 0, lost) == ("e/a: crashed: out of files", log)


@pytest.fixture
def handler():
    made = LogHandler(MockOutputSettings(), None)
    yield made
    made.close()
    progress.current = None


def message(text, level=logging.INFO, **more):
    made = logging.LogRecord("snakemake", level, "", 0, text, (), None)
    made.__dict__.update(more)
    return made


def test_chatter_is_not_shown_and_errors_are(handler, capfd):
    for text in ("Building DAG of jobs...", "host: x", "Select jobs to execute...", "Execute 1 jobs..."):
        handler.emit(message(text))
    handler.emit(message(None, event=LogEvent.RESOURCES_INFO))
    assert capfd.readouterr() == ("", "")
    handler.emit(message("config.yaml: unknown key", logging.ERROR, event=LogEvent.ERROR, exception="WorkflowError"))
    assert capfd.readouterr().err == "config.yaml: unknown key\n"


def test_a_failed_job_is_three_lines(handler, capfd):
    handler.emit(
        message("", logging.ERROR, event=LogEvent.JOB_ERROR, jobid=1, rule_name="measure", log=["no/such.log"])
    )
    what, why, log = capfd.readouterr().err.splitlines()
    assert "measure" in what and why.strip().startswith("why:") and log.strip().startswith("log:")
