"""Progress of a run: the time left, times from records, phases from files, what the logger plugin shows."""

from __future__ import annotations

import io
import json
import logging

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import MockOutputSettings

from moebench import progress
from moebench.progress import failure, phases, screen
from moebench.progress.left import Work, about, seconds_left
from moebench.progress.times import Times
from snakemake_logger_plugin_moebench import LogHandler


def test_a_slow_first_load_is_not_taken_for_the_time_of_a_cell():
    before = seconds_left([Work(1, 24), Work(24, 4), Work(100, 2)])
    after = seconds_left([Work(0, 24, 1, 60), Work(24, 4), Work(99, 2, 1, 3)])
    assert before == 24 + 24 * 4 + 200 and abs(after - before) < 60


def test_the_time_left_falls_while_things_go_as_measured_and_never_below_zero():
    left = [seconds_left([Work(100 - n, 2, n, n * 3.0)]) for n in range(20, 101)]
    assert left == sorted(left, reverse=True) and left[-1] == 0
    waiting = [seconds_left([Work(2, 10)], since_s=s) for s in (0, 5, 10, 500)]
    assert waiting == [20, 15, 10, 10]
    assert seconds_left([Work(10, 2)], side_by_side=2) == 10


@pytest.mark.parametrize(("seconds", "words"), [(3, "under 10 s"), (44, "about 40 s"), (240, "about 4 min"),
                                                (4800, "about 1 h 20 min")])  # fmt: skip
def test_a_time_left_is_no_more_exact_than_it_is(seconds, words):
    assert about(seconds) == words


def record(cell, began, ended, session="00", status="ok", **more):
    at = "2026-01-01T00:00:{}Z".format
    return {"engine": "e", "cell": cell, "status": status, "started_at": at(began), "ended_at": at(ended),
            "load": {"session": at(session)}, "reason": "", **more}  # fmt: skip


def test_starts_loads_and_cells_are_told_apart():
    times = Times()
    times.add("job", record("a", "30", "32"))
    times.add("job", record("b", "32", "35"))
    times.add("job", record("c", "30", "35", derived_from="b"))
    times.add("job", record("d", "44", "45", session="40") | {"engine": "f"})
    assert (times.starts, times.loads, times.cells) == ([30], [4], [2, 3, 1])
    assert times.left({("job", "g"), ("other", "h"), ("other", "i")}) == (1, 2)


def cell_phase(tmp_path, cells):
    units = [phases.Unit(tmp_path / f"{c}.json", 1, engine="e", process="job") for c in cells]
    return phases.Phase("cells", (24.0, 4.0, 2.0), units, {1})


def test_cells_are_counted_by_their_records_and_lost_ones_are_not_done(tmp_path):
    phase = cell_phase(tmp_path, "abc")
    (tmp_path / "a.json").write_text(json.dumps(record("a", "30", "32")))
    (tmp_path / "b.json").write_text(json.dumps(record("b", "30", "32", status="unsupported")))
    (tmp_path / "c.json").write_text('{"half')
    assert phase.look(0.0) and (phase.done, phase.failed) == (2, 1)
    assert not phase.look(0.0)
    phase.job_ended(1)
    assert phase.done == 3 and phase.seconds_left(0.0) == 0


def test_a_phase_whose_last_cell_was_seen_before_its_job_ended_is_said_to_be_done(tmp_path):
    stream, phase = io.StringIO(), cell_phase(tmp_path, "a")
    lines = screen.screen_on(stream)
    (tmp_path / "a.json").write_text(json.dumps(record("a", "30", "32")))
    assert phase.look(0.0)
    lines.show([phase], {"cells"}, 0.0)
    phase.job_ended(1)
    for now in (1.0, 2.0):
        lines.show([phase], set(), now)
    first, last = stream.getvalue().splitlines()
    assert "1/1" in first and "done" not in first and "1/1, done" in last


def test_the_time_of_the_tables_is_not_taken_for_that_of_a_figure(tmp_path):
    units = [
        phases.Unit(tmp_path / "tables", 1, free=True),
        *(phases.Unit(tmp_path / f"{n}.svg", 2) for n in range(60)),
    ]
    phase = phases.Phase("figures", (0.0, 0.0, 0.5), units, {1, 2})
    phase.job_started(1, 0.0)
    (tmp_path / "tables").touch()
    phase.look(20.0)
    phase.job_ended(1)
    assert phase.done == 1 and phase.seconds_left(20.0) == 30
    phase.job_started(2, 20.0)
    (tmp_path / "0.svg").touch()
    phase.look(21.0)
    assert phase.times.cells == [1.0]


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
