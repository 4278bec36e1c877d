"""Accuracy by the real harness on the real vLLM: right numbers, and failures that stay with their cell."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import fulldisk
import studies
from moebench import accuracy
from moebench.accuracy.driver import Evaluator
from moebench.measure import manifest, records
from moebench.storage import staged
from project import ENGINE, moebench, run
from project import copy as copy_project
from workflow.engine_copies import EngineCopies

HERE = Path(__file__).parent
TASKS = ["arc-easy", "boolq", "openbookqa", "winogrande"]


class Job:
    """An accuracy job in a fresh copy of the project: two engine configurations, top-k 2 and 1, set at load."""

    def __init__(self, place: Path):
        self.place = place
        block = {"tasks": TASKS, "data": "fixtures", "limit": 4, "cross": {"top_k": [2, 1]},
                 "fix": {"model": "tiny-mixtral", "dtype": "float32"}}  # fmt: skip
        speed = [{"fix": {"model": "tiny-mixtral", "batch": 1, "input_tokens": 8, "output_tokens": 8}}]
        experiments = {"a": {"blocks": speed, "accuracy": {"test": [block]}}}
        studies.folder(place, experiments, live_top_k=False, jobs={"pack_minutes": 300},
                       defaults=studies.TINY | {"max_model_len": 512, "max_num_batched_tokens": 2048})  # fmt: skip
        moebench(place, "stage", "--study", "test")
        moebench(place, "plan", "--study", "test", "--write", "plan.json")
        self.plan = json.loads((place / "plan.json").read_text())
        self.part = accuracy.view(self.plan, "lm-eval")
        (self.job,) = self.part["jobs"]
        self.folder = accuracy.folder(place / "results", "lm-eval")
        self.said: list[str] = []
        self.kill_after = 0
        self.full_after = -1

    def run(self) -> bool:
        """Run the job; kill the engine's process when ``kill_after`` cells are kept, and let the sample logs have no
        room between ``full_after`` of them and the next.
        """
        driver = Evaluator(
            self.plan, "lm-eval", Path("results"), Path("logs/a.log"), lambda text: say(text), str(ENGINE)
        )

        def say(text: str) -> None:
            self.said.append(text)
            if text.startswith("[") and driver.kept == self.full_after:
                fulldisk.fill(self.folder / "samples")
            if text.startswith("[") and driver.kept == self.full_after + 1:
                fulldisk.free(self.folder / "samples")
            if self.kill_after and driver.kept == self.kill_after and text.startswith("["):
                self.kill_after = 0
                driver.worker.kill()

        try:
            return driver.run_job(self.job)
        finally:
            driver.close()
            assert not driver.scratch.exists(), "no cache of one job is there for the next"

    def cell(self, task: str, top_k: int) -> dict[str, Any]:
        """The cell of a task and top-k."""
        (found,) = [c for c in self.part["cells"].values() if c["task"]["name"] == task and c["top_k"] == top_k]
        return found

    def record(self, cell: dict[str, Any]) -> dict[str, Any]:
        return records.load(records.cell_path(self.folder, cell["engine"], cell["cell"]))

    def order(self) -> list[dict[str, Any]]:
        """Cells in the order in which they are run."""
        return [self.part["cells"][f"{e}/{c}"] for e, engine in self.part["engines"].items() for c in engine["cells"]]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A job after a bad day: data altered, a log that cannot be written, a full disk, an engine killed half way."""
    made = Job(copy_project(tmp_path_factory.mktemp("accuracy") / "project"))
    before, root = Path.cwd(), os.geteuid() == 0
    with fulldisk.mounted(made.folder / "samples", "1m") if root else contextlib.nullcontext():
        os.chdir(made.place)
        try:
            yield made
        finally:
            os.chdir(before)


def test_failures_stay_with_their_cells_and_the_next_call_runs_only_those(job: Job) -> None:
    data = Path(job.cell("winogrande", 2)["task"]["data"]["path"])
    file = next(data.rglob("validation-*.parquet"))
    whole = file.read_bytes()
    altered = bytearray(whole)
    altered[len(altered) // 2] ^= 1
    file.write_bytes(altered)
    good = [cell for cell in job.order() if cell["task"]["name"] != "winogrande"]
    killed, unwritable = good[-1], good[1]
    blocked = job.folder / "samples" / unwritable["engine"] / f"{unwritable['cell']}.jsonl.gz"
    blocked.mkdir(parents=True)
    full = None
    if os.geteuid() == 0:  # only root can make the disk that is full
        full, job.full_after = good[2], 3  # after the first two good ones, and the one without data before them
    job.kill_after = len(job.order()) - 1  # the last; that others go on after a death is test_driver's
    assert job.run() is False, "it is to be run again"
    assert manifest.read(job.folder, job.job) is None
    status = {id(cell): job.record(cell) for cell in job.order()}
    for cell in job.order():
        record = status[id(cell)]
        if cell["task"]["name"] == "winogrande":
            assert record["status"] == "crashed" and "SHA-256" in record["reason"]
            assert "data set allenai/winogrande" in record["reason"] and "moebench stage" in record["reason"]
        elif cell is killed:
            assert record["status"] == "crashed" and "SIGKILL" in record["reason"], record["reason"]
        elif cell is unwritable:
            assert record["status"] == "crashed" and str(blocked) in record["reason"]
            assert "cannot be written" in record["reason"] and record["results"] == []
        elif cell is full:
            assert record["status"] == "crashed" and record["results"] == []
            assert (
                f"{full['cell']}.jsonl.gz: cannot be written (No space left on device); free space" in record["reason"]
            )
        else:
            assert record["status"] == "ok", record["reason"]
    kept = {f"{c['engine']}/{c['cell']}": records.cell_path(job.folder, c["engine"], c["cell"]).stat().st_mtime_ns
            for c in job.order() if status[id(c)]["status"] == "ok"}  # fmt: skip

    assert not list(job.folder.rglob(".*")), "no half file is left"
    job.full_after = -1
    file.write_bytes(whole)
    blocked.rmdir()
    assert job.run() is True
    assert manifest.read(job.folder, job.job)["digest"] == job.part["jobs"][job.job]["digest"]
    assert {job.record(cell)["status"] for cell in job.order()} == {"ok"}
    for key, when in kept.items():
        assert (job.folder / "cells" / f"{key}.json").stat().st_mtime_ns == when, "what was there is not run again"


def test_log_likelihoods_are_those_of_transformers_with_and_without_fewer_experts(
    copies: EngineCopies, job: Job
) -> None:
    parts, ours = [], []
    for top_k in (2, 1):
        cell = job.cell("arc-easy", top_k)
        record = job.record(cell)
        log = job.folder / "samples" / cell["engine"] / record["samples"]["file"]
        rows = [json.loads(line) for line in gzip.decompress(log.read_bytes()).splitlines()]
        assert len(rows) == 4 and record["checks"]["truncated_prompts"] == 0
        pairs = [pair for row in rows for pair in row["arguments"]]
        ours.append([answer[0][0] for row in rows for answer in row["resps"]])
        model = job.part["engines"][cell["engine"]]["model"]["path"]
        parts.append({"model": model, "top_k": top_k, "pairs": pairs})
    Path("pairs.json").write_text(json.dumps({"parts": parts}))
    copies.run(HERE / "accuracy_check.py", "likelihoods", "pairs.json", "reference.json", cwd=job.place)
    theirs = json.loads(Path("reference.json").read_text())
    for one, other in zip(ours, theirs, strict=True):
        assert len(one) == 16
        assert [float(value) for value in one] == pytest.approx(other, abs=0.01)
    moved = [abs(float(a) - float(b)) for a, b in zip(*ours, strict=True)]
    assert max(moved) > 0.1, "the override is really there"


def test_the_harness_reads_what_is_staged_and_knows_its_tasks(job: Job) -> None:
    """`datasets` caches a local folder by its name, not by what is in it."""
    data = job.cell("arc-easy", 2)["task"]["data"]
    first = Path(data["path"]).resolve()
    second = first.with_name("another")
    shutil.copytree(first, second)
    (second / "ARC-Easy/test-00000-of-00001.parquet").unlink()
    shutil.copy(first / "ARC-Challenge/test-00000-of-00001.parquet", second / "ARC-Easy/test-00000-of-00001.parquet")
    staged.write_manifest(second, "fixtures", "another")
    folders = [data | {"path": str(first)}, data | {"path": str(second), "revision": "another"}]
    asked = {"task": job.cell("arc-easy", 2)["task"], "data": folders}
    Path("asked.json").write_text(json.dumps(asked))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(job.place / "huggingface")}
    run(job.place, str(ENGINE), str(HERE / "accuracy_check.py"), "harness", "asked.json", "seen.json", **offline)
    seen = json.loads(Path("seen.json").read_text())
    assert len(seen["questions"][0]) == 16 and seen["questions"][0] != seen["questions"][1], "stale rows"
    assert seen["unknown"] == "lm-eval 0.4.13 has no task 'arc_esy'; did you mean 'arc_easy'?"
