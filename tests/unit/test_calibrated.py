"""The calibrated cost model: every term against a hand count, its limits, and the shipped constants."""

import dataclasses

import numpy as np
import pytest

from moebench.config import Config, EngineKnobs, WorkloadKnobs
from moebench.cost import calibrated as cal
from moebench.cost import cells, fit, limits, points, predict, roofline
from moebench.cost.inputs import Layout, Machine, Sizes, stack
from moebench.errors import UserError
from studies import ROOT

CONFIG = Config(ROOT / "config")
H100 = CONFIG.hardware("h100-sxm5-80gb")
MIXTRAL = CONFIG.model("mixtral-8x7b").architecture
LLAMA = CONFIG.shapes()["llama-3.1-70b"].architecture
MACHINE = Machine(bandwidth=1e12, packed_peak=1e14, plain_peak=1e14, link=1e11, node=8, far_link=1e10)
NOTHING = dict.fromkeys((f.name for f in dataclasses.fields(cal.Constants)), 0.0)
SHARES = [name for name in NOTHING if "share" in name and name != "opening_share"]
IDEAL = NOTHING | dict.fromkeys(SHARES, 1e9)
"""No overhead and endless arithmetic; bytes are free, too, unless a test counts some."""
TABLE = cal.AllReduce((1e3, 1e6), {2: (5e-6, 9e-6), 8: (6e-6, 20e-6)}, {2: (2e-5, 3e-5), 8: (2e-5, 4e-5)}, 1e11, 1e-5)
FREE = cal.AllReduce((1.0, 1e12), {8: (1e-15, 1e-15)}, {8: (1e-15, 1e-15)}, 1e11)


ALONE, PLAIN = Layout(), cal.Traits()


def with_window(tokens, layers):
    """Mixtral with a sliding window in so many layers."""
    attention = MIXTRAL.attention.model_copy(update={"window": tokens, "windowed_layers": layers})
    return MIXTRAL.model_copy(update={"attention": attention})


def setup(architecture=MIXTRAL, precision="bf16", table=TABLE, traits=PLAIN, layout=ALONE, **constants):
    width = points.precision(precision, architecture, H100)
    return cal.Setup(Sizes.of(architecture), width, layout, MACHINE, cal.Constants(**IDEAL | constants), table, traits)


# -------------------------------------------------------------------------------------------- terms


@pytest.mark.parametrize(
    ("name", "value", "times"),
    [("layer_s", 1e-5, 32), ("moe_layer_s", 1e-5, 32), ("sequence_s", 1e-6, 7), ("step_s", 1e-3, 1)],
)
def test_overheads_of_a_step_count_layers_sequences_and_steps(name, value, times):
    assert cal.step_s(setup(**{name: value}), 7, 100) == pytest.approx(value * times)


def test_dense_bytes_are_attention_router_and_output_over_bandwidth():
    weights = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024) + 32 * 8 * 4096 + 32000 * 4096
    assert cal.step_s(setup(dense_bytes=1.5), 1, 0) == pytest.approx(1.5 * 2 * weights / 1e12)
    assert cal.step_s(setup(dense_bytes=1.5), 64, 0) == pytest.approx(1.5 * 2 * weights / 1e12), "read once"


def test_experts_are_those_that_are_read():
    distinct = 8 * (1 - 0.75**4)
    expected = 1.2 * 32 * distinct * 3 * 4096 * 14336 * 2 / 1e12
    assert cal.step_s(setup(expert_bytes=1.2), 4, 0) == pytest.approx(expected)
    assert cal.step_s(setup(expert_bytes=1.2), 4, 0, distinct=distinct / 2) == pytest.approx(expected / 2)
    assert cal.step_s(setup(expert_bytes=1.2, layout=Layout(tp=4), table=FREE), 4, 0) == pytest.approx(expected / 4)


def test_operations_of_experts_fill_half_a_tile_each():
    distinct = 8 * (1 - 0.75**4)
    made = cal.step_s(setup(expert_share=0.5, tile_tokens=64.0), 4, 0)
    assert made == pytest.approx(32 * 3 * 4096 * 14336 * 2 * (4 * 2 + 32 * distinct) / (0.5 * 989e12))


def test_bytes_and_operations_of_an_operator_overlap_in_part():
    bytes_, operations = {"expert_bytes": 1.0}, {"expert_share": 0.5, "tile_tokens": 64.0}
    both = cal.step_s(setup(**bytes_ | operations), 4, 0)
    alone = cal.step_s(setup(**bytes_), 4, 0), cal.step_s(setup(**operations), 4, 0)
    assert both == pytest.approx(np.hypot(*alone))


def test_cache_is_read_once_per_sequence_and_windowed_layers_read_the_window():
    per_token = 2 * 8 * 128 * 2
    assert cal.step_s(setup(cache_bytes=1.3), 5, 99) == pytest.approx(1.3 * 5 * 32 * 100 * per_token / 1e12)
    windowed = setup(with_window(10, 16), cache_bytes=1.3)
    assert cal.step_s(windowed, 5, 99) == pytest.approx(1.3 * 5 * 16 * (100 + 10) * per_token / 1e12)


def test_attention_of_a_prefill_counts_half_the_prompt_or_the_window():
    operations = 4 * 32 * 128
    made = cal.prefill_s(setup(attention_share=0.5), 2, 1000)
    assert made == pytest.approx(32 * 2000 * 500 * operations / (0.5 * 989e12))
    windowed = setup(with_window(100, 32), attention_share=0.5)
    seen = np.minimum(np.arange(1000), 100).mean()
    assert cal.prefill_s(windowed, 2, 1000) == pytest.approx(32 * 2000 * seen * operations / (0.5 * 989e12), rel=0.01)


def test_four_bit_experts_stand_beside_plain_attention():
    oss = CONFIG.model("gpt-oss-120b").architecture
    width = points.precision("fp4", oss, H100)
    assert (width.attention, width.experts) == (2.0, 0.5 + 1 / 32)
    assert (width.attention_peak, width.experts_peak) == (989e12, 989e12), "an H100 has no 4-bit arithmetic"
    b200 = points.precision("fp4", oss, CONFIG.hardware("b200-sxm-180gb"))
    assert (b200.attention_peak, b200.experts_peak) == (2.25e15, 9e15)
    dense = points.precision("fp4", LLAMA, H100)
    assert dense.attention == dense.blocks == 0.5 + 1 / 32


def test_quantized_matrices_take_longer_to_start():
    """Four in a dense layer; two in one of experts, whose kernels have their own."""
    assert cal.step_s(setup(LLAMA, "fp8", low_matrix_s=1e-6), 1, 0) == pytest.approx(4 * 80e-6)
    assert cal.step_s(setup(MIXTRAL, "fp8", low_matrix_s=1e-6), 1, 0) == pytest.approx(2 * 32e-6)
    assert cal.step_s(setup(LLAMA, "bf16", low_matrix_s=1e-6), 1, 0) == pytest.approx(0)


def test_block_scaled_products_are_started_by_the_host_where_no_graph_does():
    minimax = CONFIG.model("minimax-m2").architecture
    slow = setup(minimax, "fp8", scaled_matrix_s=1e-4)
    assert cal.prefill_s(slow, 1, 1000) == pytest.approx(62 * 2 * 1e-4) and cal.prefill_s(slow, 1, 512) < 1e-9
    assert points.precision("fp8_block", MIXTRAL, H100).scaled and not points.precision("fp8", MIXTRAL, H100).scaled
    assert cal.prefill_s(setup(minimax, scaled_matrix_s=1e-4), 1, 1000) < 1e-9, "not in bf16"


def test_passes_over_activations_do_not_gain_from_bandwidth():
    wide = dataclasses.replace(MACHINE, bandwidth=9e12)
    for name, values in (("layer_passes", 32 * 4096), ("expert_passes", 32 * 2 * (2 * 4096 + 3 * 14336))):
        one = setup(**{name: 2.0})
        assert cal.prefill_s(one, 1, 1000) == pytest.approx(2 * 1000 * values * 2 / (132 * 25e9))
        assert cal.prefill_s(dataclasses.replace(one, machine=wide), 1, 1000) == cal.prefill_s(one, 1, 1000)
    a100 = cells.ideal(CONFIG.hardware("a100-sxm4-80gb"))
    assert a100.processors == 108


def test_experts_of_four_bits_are_unpacked_at_a_share_of_their_own():
    constants = {"expert_share": 0.5, "expert_share_low": 0.4, "expert_share_packed": 0.25, "tile_tokens_packed": 20.0}
    routed, distinct = 2 * 4000, 8.0

    def at(precision, hardware=H100):
        width = points.precision(precision, MIXTRAL, hardware)
        return cal.step_s(dataclasses.replace(setup(**constants), precision=width), 4000, 0)

    ops = 2 * 32 * 3 * 4096 * 14336
    assert at("int4") == pytest.approx(ops * (routed + distinct * 10) / 0.25 / 989e12)
    assert at("bf16") == pytest.approx(ops * routed / 0.5 / 989e12)
    b200 = CONFIG.hardware("b200-sxm-180gb")
    assert at("fp4", b200) == pytest.approx(ops * routed / 0.4 / 9e15), "a B200 computes in 4 bits"


def test_prefill_is_cut_into_chunks_and_pipelined():
    overhead = {"prefill_layer_s": 1e-4, "step_s": 1e-3}
    one = cal.prefill_s(setup(**overhead), 1, 8000)
    assert one == pytest.approx(32e-4 + 1e-3)
    assert cal.prefill_s(setup(**overhead), 4, 8000, step_tokens=8000) == pytest.approx(4 * one)
    stages = setup(**overhead, layout=Layout(pp=2), table=FREE)
    assert cal.prefill_s(stages, 4, 8000, step_tokens=8000) == pytest.approx(one * (1 + 3 / 2))


def test_serving_adds_the_others_prefills_to_steps_and_waits():
    host = {"request_s": 0.01, "prompt_token_s": 1e-6, "waited_steps": 2.0, "sequence_s": 1e-5}
    made = cal.serving(setup(prefill_layer_s=3e-4, layer_s=1e-4, **host), 21, 1000, 100)
    step, mixed = 32e-4 + 21e-5, 96e-4 + 20e-5
    assert made.tpot_s == pytest.approx(step + 20 / 100 * (mixed - step)), "a step with a prefill is a step, too"
    assert made.ttft_s == pytest.approx(0.01 + 1e-3 + 2 * made.tpot_s + mixed), "it comes while two are scheduled"
    assert made.e2e_s == pytest.approx(made.ttft_s + 99 * made.tpot_s)
    opening = cal.serving(setup(prefill_layer_s=1e-4, opening_share=0.2), 17, 1000, 100)
    waited = np.ceil(17 * 1000 / 8192) * (1 + 8192 / 17000) / 2
    assert opening.ttft_s == pytest.approx(32e-4 * (1 + 0.2 * (waited - 1))), "half of the steps and half a step"
    queue = cal.serving(setup(prompt_token_s=1e-6, opening_share=0.2), 17, 1000, 100)
    assert queue.ttft_s == pytest.approx(1e-3 * (1 + 0.2 * 16 / 2)), "the host reads the first 17 one after another"
    few = cal.serving(setup(prefill_layer_s=1e-4, layer_s=1e-4, opening_share=0.2), 8, 1000, 100)
    assert few.ttft_s == pytest.approx(32e-4), "8 of 1,000 tokens are one step"


def test_a_step_with_a_prefill_reads_the_caches_of_those_that_decode():
    per_token = 32 * 2 * 8 * 128 * 2
    alone, beside = (cal.prefill_s(setup(cache_bytes=1.3), 1, 1000, beside=n, context=499) for n in (0, 7))
    assert beside - alone == pytest.approx(1.3 * 7 * 500 * per_token / 1e12)
    more = setup(moe_token_s=1e-8)
    assert cal.prefill_s(more, 1, 1000, beside=24) == pytest.approx(32 * 1024 * 1e-8), "and their tokens are in it"


def test_short_prefills_are_replayed_graphs():
    starts = {"prefill_layer_s": 3e-4, "layer_s": 1e-4}
    assert cal.prefill_s(setup(**starts), 1, [512, 513]) == pytest.approx([32e-4, 96e-4])
    longer = dataclasses.replace(setup(**starts), graph_tokens=2048.0)
    assert cal.prefill_s(longer, 1, 2048) == pytest.approx(32e-4)


def test_graphs_cut_at_attention_and_blocks_cost_their_starts():
    cut = dataclasses.replace(setup(piecewise_layer_s=1e-5), piecewise=1.0)
    assert cal.step_s(cut, 1, 0) == pytest.approx(32e-5) and cal.step_s(setup(piecewise_layer_s=1e-5), 1, 0) < 1e-9
    assert cal.step_s(setup(LLAMA, matrix_s=5e-6), 1, 0) == pytest.approx(80e-5), "a dense block has two"
    assert cal.step_s(setup(matrix_s=5e-6), 1, 0) < 1e-9, "Mixtral has none beyond attention's two"
    scout = CONFIG.model("llama-4-scout-17b-16e").architecture
    assert cal.step_s(setup(scout, matrix_s=5e-6), 1, 0) == pytest.approx(48e-5), "shared experts are a block"
    v3 = CONFIG.model("deepseek-v3").architecture
    assert cal.step_s(setup(v3, traits=cal.Traits.of(v3), matrix_s=1e-6), 1, 0) == pytest.approx(61 * (2 + 3) * 1e-6)


def test_experts_dealt_to_ranks_start_later():
    one, dealt = (setup(deal_layer_s=1e-5, table=FREE, layout=Layout(tp=2, ep=ep)) for ep in (1, 2))
    assert cal.step_s(dealt, 1, 0) - cal.step_s(one, 1, 0) == pytest.approx(32e-5)


def test_fp8_caches_have_bytes_of_their_own():
    narrow = dataclasses.replace(setup(cache_bytes_low=1.5), precision=points.precision("bf16", MIXTRAL, H100, "fp8"))
    assert cal.step_s(narrow, 5, 99) == pytest.approx(1.5 * 5 * 32 * 100 * 2 * 8 * 128 / 1e12)


def test_small_kernels_of_routers_take_every_token():
    assert cal.prefill_s(setup(moe_token_s=1e-8), 2, 1000) == pytest.approx(32 * 2000 * 1e-8)
    assert cal.prefill_s(setup(LLAMA, moe_token_s=1e-8), 2, 1000) < 1e-9, "a dense model has no router"


def test_a_full_cache_runs_fewer_requests_and_the_others_wait():
    free = cal.serving(setup(sequence_s=1e-3), 8, 1000, 1000)
    full = cal.serving(setup(sequence_s=1e-3), 8, 1000, 1000, capacity_tokens=4 * 1500)
    assert full.tpot_s == pytest.approx(free.tpot_s / 2)
    alone = cal.serving(setup(sequence_s=1e-3), 4, 1000, 1000)
    assert full.ttft_s == pytest.approx(alone.ttft_s + alone.e2e_s)


# ------------------------------------------------------------------------------------- collectives


def test_all_reduce_takes_the_table_between_its_sizes_and_groups():
    def at(size, ranks, **options):
        return TABLE.time_s(size, ranks, MACHINE, **options)

    assert at(1e3, 2) == pytest.approx(5e-6) and at(1e6, 8) == pytest.approx(20e-6)
    assert at(10**4.5, 2) == pytest.approx(np.sqrt(5e-6 * 9e-6)), "log-log"
    assert at(1e3, 4) == pytest.approx(6e-6), "the next larger group"
    assert at(1e6, 2, eager=True) == pytest.approx(3e-5)
    assert at(2e6, 2) == pytest.approx(18e-6), "beyond the table as its bytes"
    assert at(1e3, 1) == 0
    np.testing.assert_allclose(at([1e3, 1e6, 1e3], [1, 8, 2]), [0, 20e-6, 5e-6])


def test_between_nodes_a_ring_is_added_and_an_unknown_link_is_unknown():
    assert TABLE.time_s(1e6, 16, MACHINE) == pytest.approx(20e-6 + 2 * (1e-5 + 1e6 / (2 * 8 * 1e10)))
    unknown = dataclasses.replace(MACHINE, far_link=np.nan)
    assert np.isnan(TABLE.time_s(1e6, 16, unknown)) and TABLE.time_s(1e6, 8, unknown) == pytest.approx(20e-6)


def test_on_another_link_only_what_the_message_adds_scales():
    faster = dataclasses.replace(MACHINE, link=2e11)
    assert TABLE.time_s(1e6, 2, faster) == pytest.approx(5e-6 + 4e-6 / 2)


def test_norms_over_all_heads_cost_two_more_small_reduces():
    plain, normed = (setup(layout=Layout(tp=2), traits=cal.Traits(whole_norms=w)) for w in (False, True))
    more = cal.step_s(normed, 1, 0) - cal.step_s(plain, 1, 0)
    assert more == pytest.approx(2 * 32 * TABLE.time_s(4, 2, MACHINE))


# ----------------------------------------------------------------------------------- fullest rank


def simulated(score, top_k, groups):
    """Distinct experts and routed tokens of the fullest rank, mean over batches; scores by batch, token and expert."""
    chosen = np.zeros(score.shape, dtype=bool)
    np.put_along_axis(chosen, np.argpartition(score, -top_k)[..., -top_k:], True, axis=-1)
    count = chosen.sum(1).reshape(len(score), groups, -1)
    return (count > 0).sum(2).max(1).mean(), count.sum(2).max(1).mean()


@pytest.mark.parametrize(("experts", "top_k"), [(256, 8), (128, 4), (64, 6)])
@pytest.mark.parametrize(
    ("groups", "tokens", "within"), [(2, 1, 0.1), (4, 4, 0.07), (8, 2, 0.1), (8, 64, 0.04), (32, 64, 0.1)]
)
def test_the_fullest_rank_is_what_simulated_routing_gives(experts, top_k, groups, tokens, within):
    score = np.random.default_rng(7).random((min(400, 6400 // tokens), tokens, experts))
    made = cal.fullest_rank(experts, top_k, tokens, groups)
    assert made == pytest.approx(simulated(score, top_k, groups), rel=within)


@pytest.mark.parametrize("spread", [0.3, 1.0])
@pytest.mark.parametrize(("groups", "tokens", "within"), [(1, 4, 0.06), (1, 64, 0.06), (4, 16, 0.1), (8, 64, 0.12)])
def test_popular_experts_are_shared_and_fill_a_rank(spread, groups, tokens, within):
    """Simulated: each expert's popularity is drawn from a gamma distribution of that variance over mean squared."""
    random, batches = np.random.default_rng(7), min(400, 6400 // tokens)
    score = np.log(random.gamma(1 / spread, spread, (batches, 1, 64))) + random.gumbel(size=(batches, tokens, 64))
    made = cal.fullest_rank(64, 6, tokens, groups, spread)
    assert made == pytest.approx(simulated(score, 6, groups), rel=within)
    assert made[0] < cal.fullest_rank(64, 6, tokens, groups)[0] or groups > 1


def test_correlated_choices_matter_more_among_many_experts():
    """Of 8 experts a popular one is hardly more popular than the others: the variance is at most p (1 - p)."""
    few, many = MIXTRAL, CONFIG.model("qwen3-30b-a3b").architecture
    ratio = []
    for architecture in (few, many):
        block = architecture.experts
        made = [cal.step_s(setup(architecture, expert_bytes=1.0, expert_correlation=r), 16, 0) for r in (0.05, 0.0)]
        ratio.append(made[0] / made[1])
        spread = 0.05 * (block.count / block.top_k - 1)
        law = [cal.fullest_rank(block.count, block.top_k, 16, 1, v)[0] for v in (spread, 0.0)]
        assert ratio[-1] == pytest.approx(law[0] / law[1])
    assert 0.9 < ratio[0] < 1 and ratio[1] < ratio[0]


def test_measured_distinct_experts_replace_the_law_where_there_are_any():
    spread = setup(expert_bytes=1.2, expert_correlation=0.1)
    made = cal.step_s(spread, 4, 0, distinct=[np.nan, 2.0])
    assert made[0] == cal.step_s(spread, 4, 0)
    assert made[1] == pytest.approx(1.2 * 32 * 2 * 3 * 4096 * 14336 * 2 / 1e12)


def test_one_group_is_the_uniform_law():
    distinct, routed = cal.fullest_rank(64, 6, 10, 1)
    assert distinct == pytest.approx(roofline.distinct_experts(64, 6, 10)) and routed == 60


# -------------------------------------------------------------------------------- arrays and limits


def test_many_cells_at_once_are_the_same_as_one_by_one():
    sizes = stack([Sizes.of(MIXTRAL), Sizes.of(LLAMA)])
    width = stack([points.precision("bf16", a, H100) for a in (MIXTRAL, LLAMA)])
    constants = cal.Constants()
    both = cal.Setup(sizes, width, Layout(tp=[1, 4]), MACHINE, constants, TABLE)
    made = cal.serving(both, [4, 64], 1000, 100)
    for i, (architecture, tp, batch) in enumerate(((MIXTRAL, 1, 4), (LLAMA, 4, 64))):
        one = cal.Setup(
            Sizes.of(architecture),
            points.precision("bf16", architecture, H100),
            Layout(tp=tp),
            MACHINE,
            constants,
            TABLE,
        )
        alone = cal.serving(one, batch, 1000, 100)
        assert (made.ttft_s[i], made.tpot_s[i]) == pytest.approx((float(alone.ttft_s), float(alone.tpot_s)))


@pytest.mark.parametrize("times", [cal.static, cal.serving])
def test_a_second_of_one_core_is_enough_for_a_million_cells(times):
    import time

    whole = cells.setup(MIXTRAL, EngineKnobs(model="mixtral-8x7b", tp=4), H100)
    batch, prompt = np.tile([1.0, 4.0, 16.0, 64.0], 4096), np.full(16384, 1024.0)

    def seconds():
        started = time.process_time()
        times(whole, batch, prompt, 512.0)
        return time.process_time() - started

    assert any(len(batch) / seconds() > 1e6 for _ in range(10))


@pytest.mark.parametrize(("knobs", "work"), [({"tp": 3}, {}), ({}, {"top_k": 9}), ({"tp": 16, "ep": True}, {})])
def test_the_roofline_of_a_cell_refuses_them_too(knobs, work):
    with pytest.raises(UserError, match=r"^(tp is 3|top_k is 9|ep is 16): "):
        roofline.cell_time(MIXTRAL, H100, EngineKnobs(model="mixtral-8x7b", **knobs), WorkloadKnobs(**work))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"batch": 0}, "batch is 0"), ({"batch": -3}, "batch is -3"), ({"batch": np.nan}, "batch is nan"),
     ({"context": -1}, "context is -1"), ({"top_k": 9}, "top_k is 9"), ({"top_k": 0}, "top_k is 0"),
     ({"layout": Layout(tp=3)}, "tp is 3"), ({"layout": Layout(tp=0)}, "tp is 0"),
     ({"layout": Layout(pp=33)}, "pp is 33"),
     ({"layout": Layout(tp=16, ep=16)}, "ep is 16"), ({"layout": Layout(tp=2, ep=4)}, "ep is 4"),
     ({"layout": Layout(dp=0)}, "dp is 0")],
)  # fmt: skip
def test_what_no_engine_runs_is_refused_in_one_line(wrong, said):
    asked = {"layout": Layout(), "batch": 1, "context": 10} | wrong
    with pytest.raises(UserError, match=f"^{said}: [^\n]*$"):
        limits.check(Sizes.of(MIXTRAL), **asked)


def test_one_wrong_value_among_many_is_found():
    with pytest.raises(UserError, match="batch is -2"):
        cal.static(setup(), [1, -2, 3], 100, 10)


# ------------------------------------------------------------------------------------------ plans

WORK = {"batch": 4, "input_tokens": 1000, "output_tokens": 100, "prompts": "distinct"}


def test_a_stated_acceptance_gives_speculation_times_in_plans():
    target, draft = (CONFIG.model(name).architecture for name in ("qwen3-30b-a3b", "qwen3-0.6b"))
    knobs = EngineKnobs(model="qwen3-30b-a3b", draft_model="qwen3-0.6b", draft_tokens=4)
    engine = {"runtime": {"kind": "vllm"}, "model": {"name": "qwen3-30b-a3b"}, "draft": {"architecture": draft}}
    engine["draft"]["architecture"] = draft.as_dict()

    def times(acceptance):
        return predict.expected_times(target, knobs, H100, engine, [WORK], acceptance)

    why, (none,) = times(None)
    assert none is None and "jobs.draft_acceptance" in why
    poor, good = (times(share)[1][0] for share in (0.0, 0.75))
    assert poor["itl_s"] == pytest.approx(4 * good["itl_s"]), "one token a step, or four"
    assert good["kind"].endswith("; draft acceptance 0.75 as stated)")
    plain = EngineKnobs(model="qwen3-30b-a3b")
    (alone,) = predict.expected_times(target, plain, H100, engine | {"draft": None}, [WORK], 0.75)[1]
    assert poor["itl_s"] > alone["itl_s"] and good["ttft_max_s"] > alone["ttft_max_s"], "the draft works, too"
    assert good["itl_s_low"] < good["itl_s"] < good["itl_s_high"]


def test_identical_prompts_choose_the_same_experts_and_take_less():
    knobs = EngineKnobs(model="qwen3-30b-a3b")
    works = [WORK, WORK | {"prompts": "identical"}]
    far, same = cells.times(CONFIG.model("qwen3-30b-a3b").architecture, knobs, H100, works, "qwen3-30b-a3b")
    assert same["itl_s"] < far["itl_s"]


# ------------------------------------------------------------------------------- shipped constants


def test_shipped_constants_are_those_of_the_model_with_units_and_sources():
    for name in ("h100-sxm5-80gb", "h200-sxm-141gb"):
        fitted = CONFIG.hardware(name).fitted
        assert set(fitted.constants) == set(NOTHING)
        assert all(figure.source for figure in fitted.constants.values())
        assert {n: figure.unit for n, figure in fitted.constants.items()} == {n: fit.UNITS.get(n, "1") for n in NOTHING}


@pytest.mark.parametrize("name", ["a100-sxm4-40gb", "a100-sxm4-80gb", "b200-sxm-180gb"])
def test_machines_without_data_say_whose_constants_they_have(name):
    fitted = CONFIG.hardware(name).fitted
    assert fitted.like == "h100-sxm5-80gb" and fitted.constants == H100.fitted.constants
    assert fitted.all_reduce.link_bytes_per_s == H100.link_bytes_per_s, "times scale with the own link"
    assert cells.name(CONFIG.hardware(name)).startswith(f"calibrated (h100-sxm5-80gb, peaks of {name}, 20")


def test_plans_do_not_carry_the_fit():
    assert H100.fitted is not None and "fitted" not in H100.model_dump()


MOE_US = {  # machine, dtype, tokens, (hidden, width, k, E), TP: us
    ("H100", "fp8_block", 4, (3072, 1536, 8, 256), 4): 73,
    ("H100", "fp8_block", 64, (3072, 1536, 8, 256), 4): 289,
    ("H200", "fp8_block", 64, (3072, 1536, 8, 256), 4): 223,
    ("H200", "fp8_block", 8192, (3072, 1536, 8, 256), 4): 1491,
    ("H100", "bfloat16", 16, (2048, 768, 8, 128), 4): 80,
    ("H100", "bfloat16", 128, (4096, 14336, 2, 8), 4): 296,
    ("H100", "bfloat16", 4096, (4096, 14336, 2, 8), 4): 1361,
    ("H100", "int4_wo", 128, (7168, 2048, 8, 384), 8): 436,
    ("H200", "int4_wo", 64, (7168, 2048, 8, 384), 4): 550,
    ("H100", "w4a16_mxfp4", 8192, (3584, 3072, 16, 896), 8): 7132,
}
"""Kernel times of vLLM 0.24.0, ai-dynamo/aiconfigurator (Apache-2.0), commit 095f58a, rounded to 1 us."""


def test_quoted_kernel_times_are_met_as_well_as_the_table():
    """The shipped kernel constants; the whole table they were fitted on is met within 7% (median)."""
    import pandas as pd

    columns = ("machine", "moe_dtype", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size")
    rows = pd.DataFrame([(*key[:3], *key[3], key[4]) for key in MOE_US], columns=columns).assign(moe_ep_size=1)
    machines = {"H100": H100, "H200": CONFIG.hardware("h200-sxm-141gb")}
    constants = {name: figure.value for name, figure in H100.fitted.constants.items()}
    off = np.abs(fit.moe_s(rows, constants, machines) * 1e6 / np.array(list(MOE_US.values())) - 1)
    assert np.median(off) < 0.10 and off.max() < 0.35
