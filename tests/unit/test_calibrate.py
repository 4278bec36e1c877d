"""Constants of the machine at hand: kept sealed, chosen by working set, used only where they were measured."""

from __future__ import annotations

import pytest

import studies
from moebench import calibrate
from moebench.config import Architecture, Config, EngineKnobs
from moebench.cost import memory
from moebench.errors import StageError, StorageError
from moebench.measure import records
from moebench.plan import make_plan
from moebench.predict import cell_times

TRIAD = [
    {"bytes": 3e6, "bytes_per_s": 40e9},
    {"bytes": 48e6, "bytes_per_s": 20e9},
    {"bytes": 768e6, "bytes_per_s": 9e9},
]
MADE = {
    "schema": 1, "started_at": "2026-01-01T00:00:00.000000Z", "host": "here", "threads": 1, "device_name": "A CPU",
    "triad": TRIAD, "products": {"bfloat16": {"side": 512, "flops_per_s": 50e9, "runs_s": [0.005]}},
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    cross = {"batch": [1, 4], "output_tokens": [1, 8]}
    folder = studies.folder(tmp_path, {"x": [{"fix": {"model": "tiny-mixtral", "input_tokens": 16}, "cross": cross}]})
    return Config(folder)


def keep(results, **other):
    made = records.seal(MADE | other)
    path = calibrate.path_of(results, made["host"], made["threads"])
    records.write_atomic(path, records.canonical_bytes(made))
    return path


def measured(results, engine, cell, plan, host="here", threads=1, status="ok", distinct=None):
    """A record as the driver writes it, as far as residuals read it."""
    work = plan["cells"][f"{engine}/{cell}"]["workload"]
    record = {
        "schema": records.SCHEMA, "engine": engine, "cell": cell, "status": status, "workload": work,
        "protocol": {"kind": "trace"}, "checks": {"distinct_experts": distinct},
        "provenance": {"host": host, "threads": threads, "device_name": "A CPU"},
        "repeats": [{"metrics": {"itl_s": s, "e2e_s": 10 * s}} for s in (0.001, 0.002, 0.009)],
    }  # fmt: skip
    records.write_atomic(
        records.cell_path(results, engine, cell), records.canonical_bytes(records.seal(record)) + b"\n"
    )


def test_the_bandwidth_is_that_of_the_working_set():
    assert [calibrate.bandwidth(MADE, size) for size in (1e6, 4e6, 48e6, 1e9)] == [40e9, 40e9, 20e9, 9e9]


def test_measured_constants_fill_in_unknown_ones_only(study):
    here = calibrate.hardware(study.hardware("local-cpu"), MADE, 5e6)
    assert here.bandwidth_bytes_per_s == 40e9 and here.memory_bytes is None
    assert here.peak["bfloat16"].flops_per_s == 50e9 and "measured by" in here.peak["bfloat16"].reference
    known = study.hardware("h100-sxm5-80gb")
    assert calibrate.hardware(known, MADE, 5e6) == known.model_copy(update={"peak": known.peak})


def test_residuals_are_medians_over_the_bound_of_the_same_machine(study, tmp_path):
    plan, results = make_plan(study, "test"), tmp_path / "results"
    (engine,) = plan["engines"]
    for key in plan["cells"]:
        measured(results, *key.split("/"), plan)
    assert calibrate.residuals(study, "test", results) == [], "no constants yet"
    keep(results, threads=2)
    assert calibrate.residuals(study, "test", results) == [], "of another number of threads"
    keep(results)
    (row,) = calibrate.residuals(study, "test", results)
    assert (row["engine"], row["cells"]) == (engine, 2), "cells with one output token have no time between tokens"
    spec = plan["engines"][engine]
    knobs = EngineKnobs.model_validate({k: v for k, v in spec["config"].items() if k != "top_k"})
    architecture = Architecture.model_validate(spec["model"]["architecture"])
    weights = memory.weight_bytes(architecture, knobs)
    here = calibrate.hardware(study.hardware("local-cpu"), MADE, weights)
    works = [c["workload"] for c in plan["cells"].values() if c["workload"]["output_tokens"] > 1]
    bounds = [e2e for _, _, e2e in cell_times(architecture, knobs, here, works)]
    assert row["least_e2e"] == pytest.approx(0.02 / max(bounds)) and row["most_e2e"] == pytest.approx(
        0.02 / min(bounds)
    )


def test_cells_of_another_host_and_failed_ones_have_no_residual(study, tmp_path):
    plan, results = make_plan(study, "test"), tmp_path / "results"
    keep(results)
    for number, key in enumerate(plan["cells"]):
        measured(results, *key.split("/"), plan, host="elsewhere" if number % 2 else "here", status="invalid")
    assert calibrate.residuals(study, "test", results) == []


def test_constants_changed_by_hand_are_refused(tmp_path):
    path = keep(tmp_path)
    assert calibrate.load(path)["triad"] == TRIAD
    path.write_text(path.read_text().replace("50000000000.0", "90000000000.0"))
    with pytest.raises(StorageError, match="changed by hand; delete it"):
        calibrate.load(path)
    assert calibrate.load(tmp_path / "none.json") is None


def test_without_the_engines_environment_it_says_what_to_do(study, tmp_path):
    with pytest.raises(StageError, match=r"python3 envs/build.py vllm-cpu"):
        path = study.folder / "config.yaml"
        studies.write(path, {"study": "test", "environments": str(tmp_path / "none")})
        calibrate.measure(Config(study.folder), "test", tmp_path, None)
