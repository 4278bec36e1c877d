"""What happens to samples: energy of a run or none, means and extremes; RAPL's counters; columns of the tables."""

from __future__ import annotations

import itertools
import math

import pytest

from moebench.config import Hardware
from moebench.measure.telemetry import nvml, window
from moebench.measure.telemetry.rapl import Rapl
from moebench.tables import cell_rows, efficiency


def sampled(power, seconds, update_s=0.02, period_s=0.1, start=100.0):
    """Samples of a device whose counter is written every ``update_s``; ``power``: W at a time, s after the start."""
    fine = 1e-3
    total, counter = 0.0, [0.0]
    for i in range(round(seconds / fine)):
        total += power(i * fine) * fine
        counter.append(total)
    steps = range(round(seconds / period_s))
    return [
        (start + i * period_s, [{"energy_j": counter[int(i * period_s // update_s * update_s / fine)]}]) for i in steps
    ]


@pytest.mark.parametrize("update_s", [0.02, 0.1])
@pytest.mark.parametrize("begin", [3.0, 3.04, 3.09])
@pytest.mark.parametrize("lasts", [2.0, 5.03])
def test_energy_of_a_run_between_idle_times_is_nearly_right(update_s, begin, lasts):
    samples = sampled(lambda t: 700 if begin <= t < begin + lasts else 100, 12, update_s)
    found = window.reduce(samples, 100 + begin, 100 + begin + lasts)
    assert found["energy_j"] == pytest.approx(700 * lasts, rel=0.065 * 2 / lasts) and "no_energy" not in found


@pytest.mark.parametrize(
    ("samples", "begin", "end", "why"),
    [
        (sampled(lambda t: 500, 6), 102, 103.9, "shorter than 2 s"),
        (sampled(lambda t: 500, 6, update_s=1.0), 101, 105, "only 3 times"),
        (sampled(lambda t: 500, 6), 103, 107, "no samples around"),
        (sampled(lambda t: 500, 6), 99, 103, "no samples around"),
        (sampled(lambda t: 500, 6, period_s=0.5), 101.1, 103.9, "no sample close"),
        ([(t, [{"energy_j": None}]) for t, _ in sampled(lambda t: 500, 6)], 101, 104, "no counter"),
        ([(t, [{"energy_j": -t}]) for t, _ in sampled(lambda t: 500, 6)], 101, 104, "was reset"),
        ([], 101, 104, "no samples"),
    ],
)
def test_energy_that_cannot_be_told_is_none_and_says_why(samples, begin, end, why):
    found = window.reduce(samples, begin, end)
    assert found["energy_j"] is None and why in found["no_energy"]


def test_one_device_without_energy_leaves_the_run_without():
    good = sampled(lambda t: 500, 6)
    both = [(t, [reading, {"energy_j": None}]) for t, (reading,) in good]
    assert window.reduce(good, 101, 104)["energy_j"] == pytest.approx(1500, rel=0.01)
    found = window.reduce(both, 101, 104)
    assert found["energy_j"] is None and found["devices"] == 2


def test_samples_outside_a_run_count_for_nothing_but_its_ends():
    def reading(i, device):
        hot = i in (0, 9)
        return {"sm_clock_mhz": 1000 + 100 * device, "temperature_c": 90 if hot else 60 + i, "memory_bytes": i,
                "throttle_reasons": ["sw_power_cap"] if hot else ["gpu_idle"] if i == 4 else []}  # fmt: skip

    samples = [(float(i), [reading(i, 0), reading(i, 1)]) for i in range(10)]
    found = window.reduce(samples, 0.5, 8.5)
    assert (found["samples"], found["devices"], found["sm_clock_mhz"], found["sm_clock_min_mhz"]) == (8, 2, 1050, 1000)
    assert (found["temperature_c"], found["memory_peak_bytes"], found["throttle_reasons"]) == (68, 8, ["gpu_idle"])
    assert found["utilization"] is None and found["power_max_w"] is None
    assert window.reduce(samples, 2.1, 2.2)["throttle_reasons"] is None, "no sample within: not told"


def test_reasons_are_named_by_their_bits():
    assert nvml.reason_names(0) == [] and nvml.reason_names(0x1 | 0x4 | 0x40) == [
        "gpu_idle",
        "sw_power_cap",
        "hw_thermal_slowdown",
    ]
    assert nvml.reason_names(0x8000) == ["0x8000"] and set(nvml.REASONS.values()) > nvml.LIMITING


# ------------------------------------------------------------------------------------------------- RAPL


def zone(folder, number, name, energy, most=1000):
    made = folder / f"intel-rapl:{number}"
    made.mkdir()
    for what, value in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", most)):
        (made / what).write_text(f"{value}\n")
    return made / "energy_uj"


def test_rapl_counters_come_round(tmp_path):
    counter = zone(tmp_path, "0", "package-0", 900)
    zone(tmp_path, "0:0", "core", 1)
    zone(tmp_path, "0:1", "dram", 5)
    zone(tmp_path, "1", "psys", 7)
    found = Rapl(tmp_path)
    assert [z.name for z in found.zones] == ["package-0", "dram"] and not found.nothing
    seen = []
    for value in (900, 950, 20, 500, 10):
        counter.write_text(str(value))
        seen.append(found.read()[0]["energy_j"])
    assert [round(b - a, 9) for a, b in itertools.pairwise(seen)] == [50e-6, 70e-6, 480e-6, 510e-6]
    counter.unlink()
    assert found.read() == [{"energy_j": None}, {"energy_j": pytest.approx(5e-6)}]


def test_a_machine_without_readable_counters_says_so(tmp_path):
    assert Rapl(tmp_path / "none").nothing and Rapl(tmp_path).nothing
    (zone(tmp_path, "0", "package-0", 900).parent / "energy_uj").unlink()
    assert Rapl(tmp_path).nothing == "no readable RAPL counter"


# ------------------------------------------------------------------------------------------------ tables


def record(*runs, devices=({"uuid": "GPU-a", "mig": False, "power_cap_w": 700.0, "power_default_w": 700.0},), **more):
    return {"status": "ok", "hardware": "x", "repeats": list(runs), "checks": {}, "provenance": {
        "telemetry": {"source": "nvml", "driver": "580", "devices": list(devices), "links": {}}}, **more}  # fmt: skip


def run(reasons, **seen):
    return {"telemetry": {"throttle_reasons": reasons, "temperature_c": 60} | seen}


@pytest.mark.parametrize(
    ("runs", "cap", "throttled", "reasons"),
    [
        ([run([]), run(["gpu_idle"])], 700.0, False, "gpu_idle"),
        ([run([]), run(["hw_thermal_slowdown"])], 700.0, True, "hw_thermal_slowdown"),
        ([run(["application_clocks"]), run([])], 700.0, False, "application_clocks"),
        ([run([])], 500.0, True, "power_cap_below_default"),
        ([run([])], None, False, ""),
        ([run(None)], 700.0, None, None),
        ([{}], 700.0, None, None),
    ],
)
def test_a_cell_is_throttled_by_power_heat_or_a_lowered_limit(runs, cap, throttled, reasons):
    device = {"uuid": "GPU-a", "mig": False, "power_cap_w": cap, "power_default_w": 700.0}
    row = efficiency.of_cell(record(*runs, devices=[device]))
    assert (row["throttled"], row["throttle_reasons"], row["power_cap_w"]) == (throttled, reasons, cap)


def test_energy_is_given_per_token_and_per_time():
    work = {"batch": 4, "input_tokens": 60, "output_tokens": 40}
    measured = {"metrics": {"e2e_s": 2.5}, "telemetry": {"energy_j": 1600.0, "window_s": 2.5}}
    made = efficiency.metrics(measured, work, efficiency.utilization.NOTHING)
    assert made == {"energy_j": 1600, "power_w": 640, "joules_per_output_token": 10, "joules_per_total_token": 4}
    assert efficiency.metrics({"metrics": {}}, work, efficiency.utilization.NOTHING) == {}
    short = {"metrics": {}, "telemetry": {"energy_j": None, "window_s": 0.1, "no_energy": "too short"}}
    assert efficiency.metrics(short, work, efficiency.utilization.NOTHING) == {}
    assert efficiency.of_run(short)["no_energy"] == "too short"


def test_records_without_telemetry_give_empty_columns():
    row = efficiency.of_cell({"repeats": [{"metrics": {}}], "provenance": {}, "load": None})
    assert set(row.values()) == {None}
    assert efficiency.of_run({"metrics": {}}) == {}


def test_kernels_are_named_most_layers_first():
    backends = {
        "attention": {"FLASH_ATTN 3": 1, "FLASHINFER": 4},
        "moe": {},
        "linear": {"X": 2},
        "cudagraph_mode": "FULL",
    }
    row = efficiency.of_cell(record(load={"backends": backends, "capture_sizes": [1, 2, 4]}))
    assert (row["attention_backend"], row["moe_backend"]) == ("FLASHINFER, FLASH_ATTN 3", None)
    assert (row["linear_backend"], row["cuda_graph_mode"], row["cuda_graph_sizes"]) == ("X", "FULL", "[1,2,4]")


def test_a_metric_that_no_run_has_is_empty_and_the_others_are_as_before():
    runs = [{"e2e_s": value, "itl_s": value / 10} for value in (1.0, 2.0, 4.0)]
    found = cell_rows._summarised([{}], [runs]).to_pylist()[0]
    assert (found["e2e_s"], found["e2e_s_low"], found["itl_s"]) == (2.0, 1.0, pytest.approx(0.2))
    assert found["energy_j"] is None and found["mfu_low"] is None
    with_energy = cell_rows._summarised([{}], [[r | {"energy_j": 5.0} for r in runs]]).to_pylist()[0]
    assert with_energy["energy_j"] == 5.0 and {k: v for k, v in with_energy.items() if "energy_j" not in k} == {
        k: v for k, v in found.items() if "energy_j" not in k
    }


def test_utilization_is_of_the_study_s_own_machine():
    sheet = Hardware.model_construct(name="h100")
    assert efficiency.ideal(record(run([])), sheet) == (efficiency.utilization.NOTHING, None)
    assert efficiency.ideal(record(run([])), None) == (efficiency.utilization.NOTHING, None)
    assert math.isclose(efficiency.utilization.Ideal(0.5, 0.25).mfu(1.0) or 0, 0.5)
