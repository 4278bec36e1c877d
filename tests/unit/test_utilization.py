"""MFU and MBU against sums by hand."""

from __future__ import annotations

import pytest

from moebench.config import Config, EngineKnobs
from moebench.cost import roofline, utilization
from studies import ROOT

CONFIG = Config(ROOT / "config")
H100 = CONFIG.hardware("h100-sxm5-80gb")
MIXTRAL = CONFIG.model("mixtral-8x7b").architecture
WORK = {"batch": 16, "input_tokens": 512, "output_tokens": 128, "top_k": 2, "prompts": "text", "images": 0}
PEAK, BANDWIDTH = 989e12, 3.35e12
# Mixtral-8x7B: 32 layers, hidden 4096, 32 heads of 128, 8 KV heads, 8 experts of width 14336, vocabulary 32000.
ATTENTION = 4096 * 4096 * 2 + 4096 * 1024 * 2
EXPERT, ROUTER, NORMS, OUTPUT = 3 * 4096 * 14336, 4096 * 8, 2 * 4096, 32000 * 4096


def knobs(**changed):
    return EngineKnobs.model_validate({"model": "mixtral-8x7b"} | changed)


def operations():
    """Of a run: 2 per weight and token, the output matrix once per sampled token; attention 4 x hidden x context."""
    tokens = 16 * (512 + 127)
    weights = 2 * tokens * (32 * (ATTENTION + 2 * EXPERT + ROUTER + NORMS) + 4096)
    context = 512 * 256 + sum(range(513, 513 + 127))
    return weights + 2 * 16 * 128 * OUTPUT + 32 * 4 * 4096 * 16 * context


def bytes_of_a_step(distinct):
    """Of the mean decode step: weights once, of the experts those that it uses; the cache of every sequence."""
    weights = 32 * (ATTENTION + distinct * EXPERT + ROUTER + NORMS) + 4096 + OUTPUT
    return 2 * weights + 2 * 32 * 2 * 1024 * 16 * (513 + 63)


def test_the_sums_are_those_by_hand():
    found = utilization.ideal(MIXTRAL, knobs(), H100, WORK, distinct=6.5)
    assert found.run_compute_s == pytest.approx(operations() / PEAK, rel=1e-9)
    assert found.step_memory_s == pytest.approx(bytes_of_a_step(6.5) / BANDWIDTH, rel=1e-9)
    assert found.mfu(2.0) == pytest.approx(operations() / PEAK / 2) and found.mfu(None) is None
    assert found.mbu(0.02) == pytest.approx(bytes_of_a_step(6.5) / BANDWIDTH / 0.02) and found.mbu(None) is None


def test_without_measured_experts_the_law_of_uniform_routing_counts():
    law = float(roofline.distinct_experts(8, 2, 16))
    assert utilization.ideal(MIXTRAL, knobs(), H100, WORK) == utilization.ideal(MIXTRAL, knobs(), H100, WORK, law)
    alike = utilization.ideal(MIXTRAL, knobs(), H100, WORK | {"prompts": "identical"})
    assert alike.step_memory_s == pytest.approx(bytes_of_a_step(2) / BANDWIDTH)


@pytest.mark.parametrize("changed", [{"tp": 4}, {"dp": 4}, {"dp": 4, "ep": True}, {"pp": 4}])
def test_more_devices_share_the_operations(changed):
    one, four = (utilization.ideal(MIXTRAL, knobs(**k), H100, WORK) for k in ({}, changed))
    assert four.run_compute_s == pytest.approx(one.run_compute_s / 4, rel=2e-3)  # every rank has the router


def test_replicas_without_work_do_none():
    one = utilization.ideal(MIXTRAL, knobs(), H100, WORK | {"batch": 1})
    eight = utilization.ideal(MIXTRAL, knobs(dp=8), H100, WORK | {"batch": 1})
    assert eight.run_compute_s == pytest.approx(one.run_compute_s / 8, rel=1e-9)


def test_no_run_at_the_roofline_is_above_its_peaks():
    for batch in (1, 16, 256):
        work = WORK | {"batch": batch}
        found = utilization.ideal(MIXTRAL, knobs(), H100, work)
        time = roofline.cell_time(MIXTRAL, H100, knobs(), _knobs_of(work))
        assert found.mfu(time.e2e_s) <= 1 and found.mbu(time.itl_s) <= 1 + 1e-9
    assert found.mfu(time.e2e_s) > 0.1


def _knobs_of(work):
    from moebench.config import WorkloadKnobs

    return WorkloadKnobs.model_validate(work)


@pytest.mark.parametrize(
    ("changed", "work"),
    [({"draft_model": "qwen3-0.6b", "draft_tokens": 3}, {}), ({}, {"images": 1, "image_size": 336})],
)
def test_what_the_cost_model_does_not_know_is_none(changed, work):
    assert utilization.ideal(MIXTRAL, knobs(**changed), H100, WORK | work) == utilization.NOTHING


def test_stages_have_no_mbu_nor_has_one_token():
    assert utilization.ideal(MIXTRAL, knobs(pp=2), H100, WORK).step_memory_s is None
    assert utilization.ideal(MIXTRAL, knobs(), H100, WORK | {"output_tokens": 1}).step_memory_s is None


def test_a_machine_without_a_data_sheet_has_neither():
    cpu = CONFIG.hardware("local-cpu")
    assert utilization.ideal(MIXTRAL, knobs(), cpu, WORK) == utilization.NOTHING
