"""Constants of this machine: kept sealed, chosen by working set, used only where they were measured."""

from __future__ import annotations

import types

import pandas as pd
import pytest

import calibration
import studies
from calibration import MADE, TRIAD, collected, keep, measured, slow
from moebench.commands import calibrate
from moebench.commands.planning import make_plan
from moebench.config import Architecture, Config, EngineKnobs
from moebench.cost import memory
from moebench.cost.predict import cell_times
from moebench.errors import StageError, StorageError
from moebench.measure import constants, machine, plausible
from moebench.tables import machines, parquet


@pytest.fixture
def study(tmp_path):
    return calibration.study(tmp_path)


def test_the_bandwidth_is_that_of_the_working_set():
    assert [machines.bandwidth(MADE, size) for size in (1e6, 4e6, 48e6, 1e9)] == [40e9, 40e9, 20e9, 9e9]


def test_measured_constants_fill_in_unknown_ones_only(study):
    here = machines.hardware(study.hardware("local-cpu"), MADE, 5e6)
    assert here.bandwidth_bytes_per_s == 40e9 and here.memory_bytes is None
    assert here.peak["bfloat16"].flops_per_s == 50e9 and "measured by" in here.peak["bfloat16"].reference
    known = study.hardware("h100-sxm5-80gb")
    assert machines.hardware(known, MADE, 5e6) == known.model_copy(update={"peak": known.peak})


def test_predictions_and_residuals_are_of_the_machine_that_measured(study, tmp_path):
    plan, results = make_plan(study, "test"), tmp_path / "results"
    ((engine, spec),) = plan["engines"].items()
    for key in plan["cells"]:
        measured(results, key, plan)
    for other in ({}, {"threads": 2}, {"device_name": "Another CPU"}):  # none, or of another machine
        if other:
            keep(results, **other)
        frame = collected(plan, results)
        assert frame["predicted_e2e_s"].isna().all() and frame["predicted_with"].isna().all()
        assert calibrate.residuals(study, "test", results) == []
    keep(results)
    frame = collected(plan, results)
    assert set(frame["predicted_with"]) == {"measured constants"}
    assert (frame["predicted_least_e2e_s"] <= frame["predicted_e2e_s"]).all()
    knobs = EngineKnobs.model_validate({k: v for k, v in spec["config"].items() if k != "top_k"})
    architecture = Architecture.model_validate(spec["model"]["architecture"])
    here = machines.hardware(study.hardware("local-cpu"), MADE, memory.weight_bytes(architecture, knobs))
    for cell, row in frame.iterrows():
        ((ttft, itl, e2e),) = cell_times(architecture, knobs, here, [plan["cells"][f"{engine}/{cell}"]["workload"]])
        assert row["residual_e2e"] == pytest.approx(0.02 / e2e) and row["predicted_ttft_max_s"] == ttft
        if row["output_tokens"] > 1:
            assert row["residual_itl"] == pytest.approx(0.002 / itl)
        else:
            assert pd.isna(row["residual_itl"]), "no time between tokens"
        total = row["batch"] * (row["input_tokens"] + row["output_tokens"]) / e2e
        assert row["predicted_throughput_total_tokens_per_s"] == pytest.approx(total)
    (row,) = calibrate.residuals(study, "test", results)
    assert (row["engine"], row["cells"]) == (engine, 4)
    assert (row["least_e2e"], row["most_e2e"]) == (frame["residual_e2e"].min(), frame["residual_e2e"].max())
    table = parquet.read(results / "tables", "machines")
    assert list(table["constant"]) == ["triad"] * 3 + ["product bfloat16"] and set(table["host"]) == {"here"}


def test_what_larger_arrays_reach_smaller_ones_reach_too():
    triad = [slow(3, 75e9), slow(12, 118e9), slow(48, 62e9), slow(192, 28e9), slow(768, 33e9)]
    made = MADE | {"triad": triad}
    assert machines.implausible(made) == {}, "small arrays: a call costs a part of the time"
    assert [machines.bandwidth(made, mb * 1e6) for mb in (1, 3, 12, 50, 200, 900)] == [
        118e9,
        118e9,
        118e9,
        62e9,
        33e9,
        33e9,
    ]


def test_a_slower_triad_of_larger_arrays_and_a_faster_narrow_product_are_plausible():
    assert (
        machines.implausible(MADE | {"products": {"float32": {"flops_per_s": 40e9}, "int8": {"flops_per_s": 90e9}}})
        == {}
    )


def test_a_slow_product_costs_only_the_predictions_of_its_precision():
    made = MADE | {"products": {"float32": {"flops_per_s": 116e9}, "float16": {"flops_per_s": 26.4e9}}}
    (line,) = plausible.refused(made)
    assert line.startswith("cells in float16 are not predicted: ") and "26.4" in line and "116" in line


def test_implausible_measurements_are_taken_again_and_the_best_of_each_counts(monkeypatch):
    """The times of an AMD EPYC: 5.96 GB/s at 192 MB and 17.0 at 768 MB, bfloat16 1.27 GFLOP/s beside float32 at 87.

    A disturbance does not make a product that much slower: it is not measured again.
    """

    def one(triad, bfloat16):
        rates = {"bfloat16": bfloat16, "float32": 87e9}
        products = {name: {"side": 9, "flops_per_s": rate, "runs_s": [1]} for name, rate in rates.items()}
        return MADE | {"ended_at": "later", "triad": triad, "products": products}

    noisy = one([slow(192, 5.96e9), slow(768, 17e9)], 90e9)
    bare, busy = (one([slow(192, 18e9), slow(768, 16e9)], rate) for rate in (1.27e9, 50e9))
    left = [noisy, bare, noisy]
    asked = []

    def once(threads, sets_mb=machine.SETS_MB, types=machine.TYPES):
        asked.append((sets_mb, types))
        taken = left.pop(0)
        return taken | {
            "triad": taken["triad"] if sets_mb else [],
            "products": {name: p for name, p in taken["products"].items() if name in types},
        }

    monkeypatch.setattr(machine, "once", once)
    made = machine.measure(1)
    assert left == [noisy] and machines.implausible(made) == {}, "two are enough"
    assert [t["bytes_per_s"] for t in made["triad"]] == [18e9, 17e9]
    assert made["products"]["bfloat16"]["flops_per_s"] == 90e9 and made["ended_at"] == "later"
    assert asked[1] == (machine.SETS_MB, []), "what was right is not measured again"
    left[:] = [busy, one(bare["triad"], 95e9)]
    made = machine.measure(1)
    assert asked[3] == ((), ["bfloat16"]) and made["products"]["bfloat16"]["flops_per_s"] == 95e9
    assert made["triad"] == bare["triad"]
    left[:] = [bare, noisy]
    assert set(machines.implausible(machine.measure(1))) == {"product bfloat16"} and left == [noisy]
    left[:] = [noisy] * 4
    assert set(machines.implausible(machine.measure(1))) == {"triad"} and len(left) == 1, "three times at most"
    text = calibrate.text("x.json", noisy | {"device_name": "A CPU"})
    assert "cells are not predicted: memory bandwidth 17 GB/s" in text


def test_products_are_tried_as_engines_call_them_and_plain():
    """A torch whose bfloat16 has a kernel for ``linear`` alone."""
    calls = []

    def work(name, seconds):
        def multiply(a, b):
            calls.append(name)
            clock[0] += seconds

        return multiply

    clock = [0.0]
    matrix = types.SimpleNamespace(to=lambda dtype: None)
    torch = types.SimpleNamespace(
        int8="int8", _int_mm=work("int", 1e-3), matmul=work("matmul", 2e-2), randn=lambda *a, device: Number(matrix),
        nn=types.SimpleNamespace(functional=types.SimpleNamespace(linear=work("linear", 1e-3))),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine.time, "perf_counter", lambda: clock[0])
        made = machine.product(torch, "bfloat16", "cpu", lambda: None)
    assert {"linear", "matmul"} == set(calls) and made["flops_per_s"] == pytest.approx(2 * 8192**3 / 1e-3)


class Number:
    """4 x a matrix is the matrix."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __rmul__(self, other):
        return self.matrix


def test_what_the_roofline_does_not_know_has_no_prediction(tmp_path):
    arms = [{"label": "drafts", "draft_model": "tiny-qwen3-draft-0.6b", "draft_tokens": 1}, {"label": "two", "tp": 2}]
    fix = {"model": "tiny-qwen3-moe", "input_tokens": 16, "output_tokens": 8}
    folder = studies.folder(tmp_path, {"x": [{"fix": fix, "cross": {"arm": arms}}]})
    plan, results = make_plan(Config(folder), "test"), tmp_path / "results"
    for key in plan["cells"]:
        measured(results, key, plan)
    keep(results)
    frame = collected(plan, results)
    assert frame.loc[frame["draft_model"].notna(), "predicted_e2e_s"].isna().all()
    assert frame.loc[frame["tp"] == 2, "residual_e2e"].notna().all(), "two processes: their exchange counts nothing"


def test_constants_are_measured_once_by_the_jobs_of_a_study_that_asks(study, tmp_path, monkeypatch):
    plan, said, taken = make_plan(study, "test"), [], []
    (engine,) = plan["engines"]
    monkeypatch.setattr(constants.socket, "gethostname", lambda: "here")

    def take(python, results, threads):
        if len(taken) == 0:
            taken.append("failed")
            raise StageError("no torch")
        taken.append(threads)
        path = keep(results, triad=[slow(192, 5.96e9), slow(768, 17e9)])
        return path, constants.load(path)

    monkeypatch.setattr(constants, "take", take)
    constants.ensure(plan, engine, tmp_path, "python", said.append)
    assert taken == [], "the study does not ask for it"
    plan["jobs_settings"]["measure_constants"] = True
    for _ in range(3):
        constants.ensure(plan, engine, tmp_path, "python", said.append)
    assert taken == ["failed", 1] and "no constants of this machine: no torch" in said
    assert said[-1].startswith("cells are not predicted: ") and "17 GB/s at 768 MB" in said[-1]
    plan["engines"][engine]["runtime"]["hosted"] = True
    constants.path_of(tmp_path, "here", 1).unlink()
    constants.ensure(plan, engine, tmp_path, "python", said.append)
    assert taken == ["failed", 1], "a service elsewhere is another machine"


def test_cells_of_another_host_and_failed_ones_have_no_residual(study, tmp_path):
    plan, results = make_plan(study, "test"), tmp_path / "results"
    keep(results)
    for number, key in enumerate(plan["cells"]):
        measured(results, key, plan, host="elsewhere" if number % 2 else "here", status="invalid")
    assert calibrate.residuals(study, "test", results) == []


def test_constants_changed_by_hand_are_refused(tmp_path):
    path = keep(tmp_path)
    assert constants.load(path)["triad"] == TRIAD
    path.write_text(path.read_text().replace("50000000000.0", "90000000000.0"))
    with pytest.raises(StorageError, match="changed by hand; delete it"):
        constants.load(path)
    assert constants.load(tmp_path / "none.json") is None


def test_without_the_engines_environment_it_says_what_to_do(study, tmp_path):
    with pytest.raises(StageError, match=r"python3 envs/build.py vllm-cpu"):
        path = study.folder / "config.yaml"
        studies.write(path, {"study": "test", "environments": str(tmp_path / "none")})
        calibrate.measure(Config(study.folder), "test", tmp_path, None)
