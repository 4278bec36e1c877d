"""The tiny study's way through a real SLURM with profiles/slurm: what is asked of it, and what survives when it fails.

slurmctld, slurmd, sbatch, Snakemake, drivers and signals are real.  Runs are shared between tests: ``night`` is one
in which an engine crashes, another hangs until its job's time limit, and a third job is cancelled; its engines, as
those of ``interrupted``, are stand-ins that compute nothing (``stand_in.py``).  ``tight`` has the real vLLM: the first
attempt of each job has too little memory, and one of its two engine configurations is refused.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from moebench.storage import lock
from moebench.tables import parquet
from slurm import stand_in
from slurm.cluster import Missing, check
from slurm.clusterproject import Head, Project, until

Make = Callable[..., Project]


def block(model: str, top_k: list[int], **more: Any) -> dict[str, Any]:
    """Cells of one engine configuration."""
    fixed = {"model": model, "batch": 16, "input_tokens": 64, "output_tokens": 64}
    return {"fix": fixed | more, "cross": {"top_k": top_k}}


@contextmanager
def ended(head: Head, run: Project) -> Iterator[Head]:
    """End a head and its jobs, whatever a test makes of them."""
    try:
        yield head
    finally:
        head.kill()
        run.end()


def clock(minutes: int) -> str:
    """Minutes as SLURM prints them."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def rules(output: str) -> dict[str, int]:
    """How many jobs of each rule Snakemake says it runs."""
    statistics = output.partition("Job stats:")[2].partition("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", statistics, re.MULTILINE)}


# ------------------------------------------------------------------------------------------------ shared runs


@pytest.fixture(scope="module")
def tight(project: Make) -> Iterator[tuple[Project, Head]]:
    """A run of two engine configurations, of which vLLM refuses one on a CPU, whose jobs get 1000 MB, less than it
    needs; in the background while other tests run."""
    run = project("tight", {"one": [block("tiny-mixtral", [2]), block("tiny-mixtral", [2], dp=2)]}, host_memory_mb=1000)
    with ended(run.start("collect"), run) as head:
        yield run, head


@dataclass
class Night:
    """The run of ``night``, and what was seen while it ran."""

    run: Project
    crashing: str = ""
    hanging: str = ""
    cancelled: str = ""
    wide: str = ""
    victim: str = ""
    devices: dict[str, str] = field(default_factory=dict)
    kept: dict[str, list[str]] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def until(self, look: Callable[[], Any], what: str, pause: float = 0.2) -> Any:
        """Wait for something while the run goes on."""
        found = until(lambda: self.over.is_set() or look(), what, pause=pause)
        assert not self.over.is_set(), f"{what}: the run was over before"
        return found

    def crash(self) -> None:
        """Kill the engine in the middle of its last cell, and again in each of the two retries."""
        for attempt in (1, 2, 3):
            os.kill(self.until(lambda: self.run.stopped(self.crashing), f"{self.crashing}: engine"), signal.SIGKILL)
            self.until(lambda n=attempt: self.run.history()[self.victim] == n, f"{self.victim}: a record of its crash")

    def hang(self) -> None:
        """Let a job whose engine hangs in the middle of a cell run into its time limit (moved to now)."""
        job = self.hung(self.hanging)
        self.run.cluster.run("scontrol", "update", f"JobId={job}", "EndTime=now+1")
        self.ended_as("TIMEOUT", self.hanging)

    def cancel(self) -> None:
        """Cancel a job in the middle of a cell."""
        self.run.cluster.run("scancel", self.hung(self.cancelled))
        self.ended_as("CANCELLED", self.cancelled)

    def hung(self, name: str) -> str:
        """SLURM's id of a job, once its engine hangs; that of its next attempt will not."""
        self.until(lambda: self.run.stopped(name), f"{name}: an engine that hangs")
        self.run.release(self.run.cells(name)[1])
        (job,) = self.run.jobs(name)
        return job["JobId"]

    def ended_as(self, state: str, job: str) -> None:
        """Wait for the end of a job's first attempt, and note what it leaves."""
        self.until(lambda: self.run.jobs(job)[0]["JobState"] == state, f"{job}: {state}", pause=0.5)
        self.kept[job] = self.run.done(self.run.cells(job))

    def watch(self) -> None:
        """Note which GPUs SLURM gives each job; it says so only while the job runs."""
        while not self.over.wait(1):
            for job in self.run.jobs():
                if found := re.search(r"IDX:([\d,-]+)", job.get("GRES", "")):
                    self.devices[job["JobId"]] = found[1]


@pytest.fixture(scope="module")
def night(project: Make, tight: tuple[Project, Head]) -> Night:
    """The run of all tests that need no run of their own."""
    models = ["tiny-olmoe", "tiny-deepseek-v2", "tiny-qwen1.5-moe"]
    figure = {"fix": {"batch": 16, "input_tokens": 32, "output_tokens": 32}, "cross": {"model": models}}
    topk = [*(block(model, [1, 2, 4]) for model in models), block("tiny-mixtral", [1, 2], tp=2)]
    run = project("night", {"fig03-latency-llms": [figure], "topk": topk})
    stand_in.copy_to(run.folder, wanted=True)
    seen = Night(run, run.engine("tiny-olmoe.fp32"), run.engine("tiny-deepseek-v2.fp32"),
                 run.engine("tiny-qwen1.5-moe.fp32"),
                 run.engine("tiny-mixtral.fp32.tp2"))  # fmt: skip
    seen.victim = run.cells(seen.crashing)[-1]
    run.hold(seen.victim, run.cells(seen.hanging)[1], run.cells(seen.cancelled)[1])
    with ended(run.start(), run) as head, ThreadPoolExecutor() as pool:
        doings = [pool.submit(doing) for doing in (seen.crash, seen.hang, seen.cancel, seen.watch)]
        try:
            code = head.wait()
        finally:
            seen.over.set()
        assert code == 0, head.output[-5000:]
        for doing in doings:
            doing.result()
    run.release(seen.victim)
    return seen


# --------------------------------------------------------------------------------------------- what is asked


def test_a_machine_without_slurm_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("slurm.cluster._SBIN", "/nowhere")
    with pytest.raises(Missing, match=r"apt-get install -y .* slurmd .* munge$"):
        check()


def test_the_whole_tiny_study_is_one_job_per_engine_configuration(project: Make) -> None:
    run = project("whole", staged=False)
    assert set(run.plan["jobs"]) == set(run.plan["engines"])
    output = run.snakemake("--dry-run")
    assert rules(output)["measure"] == len(run.plan["engines"])
    asked = [line for line in output.splitlines() if "measuring=2" in line]
    assert all("gpu_model=h100," in line and "nodes=1," in line for line in asked)
    gpus = sorted(int(found[1]) for line in asked if (found := re.search(r" gpu=(\d+),", line)))
    assert gpus == sorted(job["gpus"] for job in run.plan["jobs"].values())


def test_one_job_per_engine_configuration(night: Night) -> None:
    run = night.run
    tried = Counter(job["Comment"].removeprefix("rule_measure_wildcards_") for job in run.jobs())
    more = {night.crashing: 3, night.hanging: 2, night.cancelled: 2}
    assert tried == {engine: more.get(engine, 1) for engine in run.plan["engines"]}
    assert len({job["JobName"] for job in run.jobs()}) == 1
    assert run.jobs()[0]["JobName"].startswith("moebench_")


def test_what_a_job_requests(night: Night) -> None:
    for name, planned in night.run.plan["jobs"].items():
        first = night.run.jobs(name)[0]
        assert first["TresPerJob"] == f"gres:gpu:h100:{planned['gpus']}"
        assert first["NumNodes"] == "1"
        assert first["Partition"] == "h100"
        assert first["CPUs/Task"] == str(planned["cpus"])
        assert first["MinMemoryNode"] == f"{planned['mem_mb']}M"
        if name != night.hanging:  # its limit was moved
            assert first["TimeLimit"] == clock(planned["runtime_min"])
    assert night.run.plan["jobs"][night.wide]["gpus"] == 2
    said = night.run.moebench("doctor")
    assert "squeue is used, which shows jobs for 86400 s after their end" in said
    assert re.search(r"each of the \d+ jobs finds a node in partition h100", said)


def test_a_job_sees_the_gpus_that_slurm_gave_it(night: Night) -> None:
    seen = set()
    for key in night.run.cells():
        record = night.run.record(key)
        assert record is not None, key
        job, devices = record["provenance"]["slurm"]["SLURM_JOB_ID"], record["provenance"]["cuda_visible_devices"]
        assert job in [j["JobId"] for j in night.run.jobs(record["engine"])]
        assert len(devices.split(",")) == night.run.plan["engines"][record["engine"]]["gpus"]
        if job in night.devices:  # a job of less than a second may have slipped through
            ranges = [part.partition("-") for part in night.devices[job].split(",")]  # 0-1,3
            given = [n for first, _, last in ranges for n in range(int(first), int(last or first) + 1)]
            assert devices == ",".join(map(str, given))
            seen.add(record["engine"])
    assert len(seen) == len(night.run.plan["engines"])


def test_logs_are_kept(night: Night) -> None:
    for job in night.run.jobs():
        slurm = os.path.relpath(job["StdOut"], night.run.folder)
        assert slurm.startswith("logs/slurm/rule_measure/")
        (loaded,) = set(night.run.plan["jobs"]) & {job["Comment"].removeprefix("rule_measure_wildcards_")}
        assert f"loading {loaded}" in (night.run.folder / slurm).read_text()


# --------------------------------------------------------------------------------------------- what survives


def test_a_cell_that_crashes_leaves_its_neighbours(night: Night) -> None:
    run = night.run
    records = {key: run.record(key) for key in run.cells(night.crashing)}
    statuses = Counter(record["status"] for record in records.values() if record)
    assert statuses == {"ok": len(records) - 1, "crashed": 1}
    crashed = records[night.victim]
    assert crashed is not None
    assert "SIGKILL" in crashed["reason"]
    assert crashed["attempt"] == 3
    # Retries measured what was missing, and nothing else.
    assert {key: run.history()[key] for key in records} == {key: 3 if key == night.victim else 1 for key in records}


def test_a_retry_gets_more_memory_and_time(night: Night) -> None:
    planned, tries = night.run.plan["jobs"][night.crashing], night.run.jobs(night.crashing)
    assert [job["JobState"] for job in tries] == ["FAILED", "FAILED", "COMPLETED"]
    assert [job["MinMemoryNode"] for job in tries] == [f"{int(planned['mem_mb'] * more)}M" for more in (1, 1.5, 2)]
    assert [job["TimeLimit"] for job in tries] == [clock(planned["runtime_min"] * more) for more in (1, 2, 3)]


@pytest.mark.parametrize(("what", "state"), [("hanging", "TIMEOUT"), ("cancelled", "CANCELLED")])
def test_a_job_ended_by_slurm_keeps_its_finished_cells(night: Night, what: str, state: str) -> None:
    run, name = night.run, getattr(night, what)
    first, second = run.jobs(name)
    assert (first["JobState"], second["JobState"]) == (state, "COMPLETED")
    assert night.kept[name]
    for key in run.cells(name):
        record = run.record(key)
        assert record is not None
        assert (record["status"], run.history()[key]) == ("ok", 1)  # the interrupted cell did not fail: it was not run
        job = first if key in night.kept[name] else second
        assert record["provenance"]["slurm"]["SLURM_JOB_ID"] == job["JobId"]
    assert second["TimeLimit"] == clock(2 * run.plan["jobs"][name]["runtime_min"])


def test_a_single_cell_is_rerun_by_its_path(night: Night) -> None:
    run, out = night.run, night.run.folder / "results" / "tables" / "night"
    failed = [f"{row.engine}/{row.cell}" for row in parquet.read(out, "failures").itertuples()]
    assert failed == [night.victim]
    listed = run.moebench("failures", "--profile", "profiles/slurm", expect=1)
    command = f"snakemake --profile profiles/slurm --force results/cells/{night.victim}.json"
    assert command in listed
    before, jobs = run.history(), len(run.jobs())

    run.snakemake(*command.removeprefix("snakemake --profile profiles/slurm ").split())
    (job,) = run.jobs()[jobs:]
    assert job["Comment"] == f"rule_measure_cell_wildcards_{night.victim.replace('/', '_')}"
    assert job["TresPerJob"] == "gres:gpu:h100:1"
    record = run.record(night.victim)
    assert record is not None
    assert (record["status"], record["attempt"]) == ("ok", 4)
    assert run.history() - before == {night.victim: 1}

    # The next plain call brings tables and report up to date, and measures nothing.
    report = (run.folder / "reports" / "night" / "report.html").read_text()
    assert set(rules(run.snakemake())) == {"collect", "figures", "report", "all"}
    assert len(run.jobs()) == jobs + 1
    assert len(parquet.read(out, "failures")) == 0
    assert report != (run.folder / "reports" / "night" / "report.html").read_text()
    assert "Nothing to be done" in run.snakemake()


# ------------------------------------------------------------------------------------- what ends the head process


@pytest.fixture(scope="module")
def interrupted(project: Make) -> Project:
    """Two engine configurations of three cells each."""
    run = project("interrupted", {"topk": [block("tiny-qwen3-moe", [1, 2, 4]), block("tiny-mixtral", [1, 2, 4])]})
    stand_in.copy_to(run.folder, wanted=True)
    return run


def hanging(run: Project, head: Head) -> list[int]:
    """Process ids of the engines, once those of all jobs hang."""

    def engines() -> list[int]:
        return [run.stopped(name) for name in run.plan["jobs"]]

    until(lambda: all(engines()) or head.process.poll() is not None, "an engine that hangs in each job")
    found = engines()
    assert all(found), head.output
    return found


def test_ctrl_c_leaves_no_job_and_keeps_the_records(interrupted: Project) -> None:
    run = interrupted
    run.hold(*(run.cells(engine)[1] for engine in run.plan["engines"]))
    with ended(run.start("collect"), run) as head:
        hanging(run, head)
        head.signal(signal.SIGINT)
        assert head.wait() != 0
    until(lambda: not run.queue(), "an empty queue")
    until(lambda: not run.workers(), "no engine process")
    assert {job["JobState"] for job in run.jobs()} == {"CANCELLED"}
    done = run.done(run.cells())
    assert len(run.plan["engines"]) <= len(done) < len(run.cells())
    assert run.history() == Counter(done)
    assert all(record["status"] == "ok" for key in done if (record := run.record(key)))
    assert not any(lock.holder(run.folder / "results", engine) for engine in run.plan["engines"])


def test_a_killed_head_is_started_again(interrupted: Project) -> None:
    """Jobs outlive a killed head, and the next head does not know them: it submits others beside them."""
    run = interrupted
    for engine in run.plan["engines"]:
        _, second, third = run.cells(engine)
        run.release(second)
        run.hold(third)
    with ended(run.start("collect"), run) as head:
        frozen = hanging(run, head)
        head.signal(signal.SIGKILL)
        head.wait()
        old = {name: run.jobs(name)[-1]["JobId"] for name in run.plan["jobs"]}
        assert sorted(run.queue()) == sorted(old.values())

        assert "--unlock" in run.snakemake("collect", expect=1)
        run.snakemake("--unlock")
        with ended(run.start("collect"), run) as second:
            for name, job in old.items():
                waits = f"waiting, it is being measured by SLURM job {job}"
                until(lambda name=name, waits=waits: waits in run.progress(name), f"{name}: its second job waits")
            for worker in frozen:
                os.kill(worker, signal.SIGCONT)
            assert second.wait() == 0, second.output
    assert run.history() == Counter(run.cells())  # nothing twice, nothing lost
    for name in run.plan["jobs"]:
        assert [job["JobState"] for job in run.jobs(name)] == ["CANCELLED", "COMPLETED", "COMPLETED"]
        by = {record["provenance"]["slurm"]["SLURM_JOB_ID"] for key in run.cells(name) if (record := run.record(key))}
        assert by == {run.jobs(name)[0]["JobId"], old[name]}
    assert len(parquet.read(run.folder / "results" / "tables" / "interrupted", "measurements")) == len(run.cells())


def test_a_job_out_of_memory_is_tried_again_with_more(tight: tuple[Project, Head]) -> None:
    run, head = tight
    assert head.wait() == 0, head.output
    first, second = run.jobs(run.engine("tiny-mixtral.fp32"))
    assert first["JobState"] in ("FAILED", "OUT_OF_MEMORY")
    assert second["JobState"] == "COMPLETED"
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("1000M", "1500M")
    assert "exceeded memory limit" in (run.folder / first["StdOut"]).read_text()
    assert run.history() == Counter(run.cells())


def test_the_real_engine_measures_and_one_that_refuses_is_a_result(tight: tuple[Project, Head]) -> None:
    run, head = tight
    assert head.wait() == 0, head.output
    assert {run.jobs(engine)[-1]["JobState"] for engine in run.plan["engines"]} == {"COMPLETED"}
    (measured,), (refused,) = (
        [run.record(key) for key in run.cells(run.engine(slug))]
        for slug in ("tiny-mixtral.fp32", "tiny-mixtral.fp32.dp2")
    )
    assert measured is not None and measured["status"] == "ok"
    assert measured["checks"]["experts_per_token"] == 2
    assert refused is not None and refused["status"] == "unsupported"
    assert "data parallelism" in " ".join(refused["evidence"])
