"""The estimate of the time left: its parts, and a recorded run that is replayed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moebench.measure.time_left import JobWork, TimeLeft, about, job_work
from moebench.progress import phases

RECORDED = {name: json.loads((Path(__file__).parent / "recorded" / f"report_{name}.json").read_text())
            for name in ("epyc", "avx2")}  # fmt: skip
"""By tests/record_times.py, with the name of the machine."""
RUNS = [("epyc", 1.0), ("epyc", 2.0), ("avx2", 1.0)]
"""A recording, and how many times slower it is replayed."""
SHOWN_S = 11.0
"""What the estimate may be off by near the end, where engine configurations that are refused take no time."""


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(1e9 + seconds, UTC).isoformat()


def record(engine, cell, session, began, ended, status="ok", derived_from=None):
    return {"engine": engine, "cell": cell, "status": status, "reason": "", "derived_from": derived_from,
            "load": {} if session is None else {"session": stamp(session)},
            "started_at": stamp(began), "ended_at": stamp(ended)}  # fmt: skip


def one_job(cells: int) -> TimeLeft:
    keys = {("e" if n < cells // 2 else "f", str(n)): 1.0 for n in range(cells)}
    return TimeLeft({"job": JobWork(12.0, {"e": 4.0, "f": 4.0}, keys)})


def test_a_slow_start_is_not_taken_for_the_time_of_a_cell():
    left = one_job(20)
    assert left.seconds({}) == 12 + 2 * 4 + 20
    left.add("job", record("e", "0", 0, 60, 80))
    assert left.seconds({}) == 4 + 19


def test_cells_and_loads_each_have_their_own_pace():
    left = one_job(20)
    for n in range(10):
        left.add("job", record("e", str(n), 0, 10 + 3 * n, 13 + 3 * n))
    slow_cells = left.seconds({})
    assert 4 + 10 * 2 < slow_cells - 0 < 4 + 10 * 3
    left.add("job", record("f", "10", 50, 90, 93))
    assert slow_cells - 9 < left.seconds({}) < slow_cells, "the only slow load is over"


def test_only_the_next_piece_of_work_is_credited_for_waiting():
    left = one_job(4)
    assert [left.seconds({"job": since}) for since in (0, 10, 17, 500)] == [24, 14, 7, 7]


def test_jobs_side_by_side_take_as_long_as_the_longest_or_their_share():
    jobs = {str(n): JobWork(0.0, {}, {("e", str(n)): seconds}) for n, seconds in enumerate((30.0, 5.0, 5.0))}
    assert TimeLeft(jobs).seconds({}, 2) == 30 and TimeLeft(jobs).seconds({}) == 40


def test_a_refused_engine_configuration_changes_no_pace():
    left = one_job(20)
    left.add("job", record("e", "0", 0, 12, 13))
    before = left.seconds({})
    left.add("job", record("e", "1", None, 20, 20.1, status="unsupported"))
    assert left.seconds({}) == before - 1


def test_requests_that_are_sent_at_a_rate_take_at_least_so_long():
    plan = RECORDED["epyc"]["plan"]
    work = job_work(plan, ["tiny-mixtral.vllm-serve-0e81a2"])
    sent = {cell: seconds for (_, cell), seconds in work.cells.items() if ".r16." in cell}
    assert list(sent.values()) == [3 * 40 / 16]


@pytest.mark.parametrize(("seconds", "words"), [(3, "under 10 s"), (44, "about 40 s"), (240, "about 4 min"),
                                                (4800, "about 1 h 20 min")])  # fmt: skip
def test_a_time_left_is_no_more_exact_than_it_is(seconds, words):
    assert about(seconds) == words


def replayed(name: str, results: Path, recorded: dict[str, Any], slower: float) -> list[tuple[float, float]]:
    """Estimates and true times left of a phase of a recorded run, each second of it."""
    jobs = [job for job in recorded["jobs"] if job[0] == name]
    records = [r for r in recorded["records"] if bool(r[0]) == (name == "accuracy")]
    asked = [
        phases.Job(n, "evaluate", (), {"job": job, "harness": harness}, measuring=1)
        if harness
        else phases.Job(n, "measure", (), {"job": job}, measuring=2)
        for n, (_, harness, job, _, _) in enumerate(jobs)
    ]
    phase = phases.phases_of(recorded["plan"], results, asked, 2)[name]
    begin, end = round(min(job[3] for job in jobs)), round(max(job[4] for job in jobs))
    seen = []
    for now in range(begin, end + 2):  # records and jobs end between two seconds
        for n, job in enumerate(jobs):
            if now == round(job[3]):
                phase.job_started(n, slower * now)
        for harness, engine, cell, *times, status, derived_from in records:
            if now - 1 < times[2] <= now:
                made = record(engine, cell, *(t and slower * t for t in times), status, derived_from)
                path = (results / "accuracy" / harness if harness else results) / "cells" / engine / f"{cell}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(made))
        phase.look(slower * now)
        for n, job in enumerate(jobs):
            if now == round(job[4]):
                phase.job_ended(n)
        if now < end:
            seen.append((phase.seconds_left(slower * now), slower * (end - now)))
    assert phase.done == len(records)
    return seen


@pytest.mark.parametrize(("run", "slower"), RUNS)
@pytest.mark.parametrize("name", ["cells", "accuracy"])
def test_no_estimate_of_a_recorded_run_is_wrong_by_more_than_a_factor_of_two(name, run, slower, tmp_path):
    seen = replayed(name, tmp_path, RECORDED[run], slower)
    first, true = seen[0]
    assert 1 / 2.5 < first / true < 2.5
    wrong = [
        (round(true), round(estimate))
        for estimate, true in seen[len(seen) // 10 :]
        if not true / 2 < estimate < true * 2 and abs(estimate - true) > SHOWN_S
    ]
    assert not wrong


@pytest.mark.parametrize(("run", "slower"), RUNS)
def test_no_estimate_of_a_jobs_own_log_is_wrong_by_more_than_a_factor_of_two(run, slower):
    recorded = RECORDED[run]
    job = max((job for job in recorded["jobs"] if job[0] == "cells"), key=lambda job: job[4] - job[3])
    engines = recorded["plan"]["jobs"][job[2]]["engines"]
    left, records = TimeLeft({"": job_work(recorded["plan"], engines)}), []
    for _, engine, cell, *times, status, derived_from in recorded["records"]:
        if engine in engines and job[3] < times[2] < job[4]:
            records.append(record(engine, cell, *(t and slower * t for t in times), status, derived_from))
    end = datetime.fromisoformat(records[-1]["ended_at"])
    assert len(records) == {"epyc": 86, "avx2": 100}[run]
    for made in records:
        left.add("", made)
        true = (end - datetime.fromisoformat(made["ended_at"])).total_seconds()
        assert true / 2 < left.seconds({}) < true * 2 or abs(left.seconds({}) - true) < SHOWN_S
