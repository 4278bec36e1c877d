"""The cost model against hand counts, published measurements and its own limits."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from moebench.config import Architecture, Config, EngineKnobs, Hardware, Peak, WorkloadKnobs
from moebench.cost import collectives, memory, params, roofline
from moebench.cost.inputs import Formats, Layout, Machine, Sizes, attention_ops, stack

CONFIG = Config(Path(__file__).parents[2] / "config")
H100 = CONFIG.hardware("h100-sxm5-80gb")


def architecture(name: str) -> Architecture:
    return CONFIG.model(name).architecture


def engine(model: str = "mixtral-8x7b", **knobs) -> EngineKnobs:
    return EngineKnobs(model=model, **knobs)


MIXTRAL = architecture("mixtral-8x7b")
LITE = architecture("deepseek-v2-lite")
QWEN3 = architecture("qwen3-30b-a3b")

# ---------------------------------------------------------------------------------------- parameters


def test_mixtral_by_hand():
    count = params.total_parameters(MIXTRAL)
    assert count.embeddings == 2 * 32000 * 4096
    assert count.attention == 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024)
    assert count.router == 32 * 8 * 4096
    assert count.routed_experts == 32 * 8 * 3 * 4096 * 14336
    assert count.norms == (2 * 32 + 1) * 4096
    assert (count.shared_experts, count.dense_ffn, count.vision) == (0, 0, 0)
    assert params.active_parameters(MIXTRAL).routed_experts * 4 == count.routed_experts
    assert params.active_parameters(MIXTRAL, top_k=8) == count


@pytest.mark.parametrize(
    ("name", "total"),
    [("mixtral-8x7b", 46_702_792_704), ("qwen1.5-moe-a2.7b", 14_315_784_192), ("qwen3-30b-a3b", 30_532_122_624),
     ("deepseek-v2-lite", 15_706_484_224), ("olmoe-1b-7b", 6_919_161_856), ("qwen3-0.6b", 596_049_920)],
)  # fmt: skip
def test_totals_are_those_of_the_checkpoints(name, total):
    """To the last norm and bias: what transformers counts in the model of the published config.json."""
    assert params.total_parameters(architecture(name)).total == total


def test_mla_and_shared_experts_by_hand():
    count = params.total_parameters(LITE)
    attention = 2048 * 16 * 192 + 2048 * 576 + 512 * 16 * 256 + 16 * 128 * 2048
    assert count.attention == 27 * attention
    assert count.routed_experts == 26 * 64 * 3 * 2048 * 1408
    assert count.shared_experts == 26 * 3 * 2048 * 2816
    assert count.dense_ffn == 3 * 2048 * 10944
    compressed = params.attention_layer(architecture("deepseek-v3").attention, 7168)
    assert compressed == 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168


def test_dense_tied_and_ungated_models():
    draft = params.total_parameters(architecture("qwen3-0.6b"))
    assert (draft.routed_experts, draft.router) == (0, 0)
    assert draft.embeddings == 151936 * 1024
    assert draft.dense_ffn == 28 * 3 * 1024 * 3072
    switch = architecture("switch-c-2048")
    assert params.total_parameters(switch).routed_experts == 30 * 2048 * 2 * 2080 * 6144


def test_experts_in_every_second_layer():
    half = MIXTRAL.model_copy(
        update={"experts": MIXTRAL.experts.model_copy(update={"every": 2}), "dense_ffn_size": 100}
    )
    count = params.total_parameters(half)
    assert count.routed_experts == params.total_parameters(MIXTRAL).routed_experts // 2
    assert count.dense_ffn == 16 * 3 * 4096 * 100


def test_reshape_is_validated():
    assert params.reshape(MIXTRAL, experts=16, moe_ffn_size=7168, top_k=4).experts.model_dump() == {
        **MIXTRAL.experts.model_dump(), "count": 16, "ffn_size": 7168, "top_k": 4
    }  # fmt: skip
    with pytest.raises(ValueError):
        params.reshape(MIXTRAL, experts=0)


# -------------------------------------------------------------------------------------------- memory


def test_kv_cache_by_hand():
    def cached(model, **knobs):
        return memory.memory_per_gpu(model, engine(**knobs)).kv_bytes_per_token

    assert cached(MIXTRAL) == 32 * 2 * 8 * 128 * 2  # 128 KiB
    assert cached(architecture("qwen1.5-moe-a2.7b")) == 192 * 1024
    assert cached(LITE) == 27 * 576 * 2
    assert cached(LITE, kv_cache_dtype="fp8") == 27 * 576
    assert cached(LITE, mla=False) == 27 * 2 * 16 * 192 * 2
    assert cached(MIXTRAL, mla=False) == cached(MIXTRAL)


def test_kv_heads_are_split_then_replicated_and_the_latent_always_replicated():
    tp = Layout(tp=[1, 2, 4, 8])
    assert memory.kv_values_per_token(Sizes.of(QWEN3), tp).tolist() == [1024, 512, 256, 256]  # 4 KV heads
    assert memory.kv_values_per_token(Sizes.of(LITE), tp).tolist() == [576] * 4
    assert memory.kv_values_per_token(Sizes.of(LITE, latent_cache=False), tp).tolist() == [6144, 3072, 1536, 768]
    shared = Layout(tp=[1, 4, 8], kvp=[8, 2, 1])
    assert memory.kv_values_per_token(Sizes.of(QWEN3), shared).tolist() == [128, 128, 256]
    assert memory.kv_values_per_token(Sizes.of(LITE), shared).tolist() == [72, 288, 576]


def test_attention_weights_per_gpu():
    q, kv = 32 * 128 * 2048, 4 * 128 * 2048
    assert memory.attention_per_gpu(Sizes.of(QWEN3), Layout(tp=4)) == (2 * q + 2 * kv) / 4
    assert memory.attention_per_gpu(Sizes.of(QWEN3), Layout(tp=8)) == 2 * q / 8 + 2 * kv / 4  # a KV head on each of 8
    heads = 2048 * 16 * 192 + 512 * 16 * 256 + 16 * 128 * 2048
    assert memory.attention_per_gpu(Sizes.of(LITE), Layout(tp=4)) == 2048 * 576 + heads / 4


@pytest.mark.parametrize(
    "name", ["mixtral-8x7b", "deepseek-v2-lite", "qwen1.5-moe-a2.7b", "deepseek-vl2", "qwen3-0.6b"]
)
def test_one_gpu_holds_the_whole_model(name):
    """Counted by layer and stage it is what is counted by component (final and head norms apart)."""
    model = architecture(name)
    assert memory.memory_per_gpu(model, engine(name)).weight_bytes == pytest.approx(
        memory.weight_bytes(model, engine(name)), rel=2e-5
    )


def test_weights_per_gpu_under_parallelism():
    count = params.total_parameters(MIXTRAL)
    everywhere = 2 * (count.router + count.norms)
    for knobs in ({"tp": 4}, {"tp": 4, "ep": True}):
        expected = (2 * count.total - everywhere) / 4 + everywhere
        assert memory.memory_per_gpu(MIXTRAL, engine(**knobs)).weight_bytes == pytest.approx(expected, rel=1e-6)
    # DP repeats all but the experts, which are spread over TP x DP.
    dp = memory.memory_per_gpu(MIXTRAL, engine(dp=4, ep=True)).weight_bytes
    assert dp == pytest.approx(2 * (count.total - count.routed_experts) + 2 * count.routed_experts / 4, rel=1e-6)
    # 60 experts on 8 GPUs: the fullest holds 8, not 7.5.
    qwen = architecture("qwen1.5-moe-a2.7b")
    by_width = memory.memory_per_gpu(qwen, engine(tp=8)).weight_bytes
    by_count = memory.memory_per_gpu(qwen, engine(tp=8, ep=True)).weight_bytes
    assert by_count - by_width == pytest.approx(24 * 0.5 * 3 * 2048 * 1408 * 2)


def test_pipeline_stages_add_up_and_the_fullest_counts():
    two = memory.memory_per_gpu(MIXTRAL, engine(pp=2))
    assert 2 * two.weight_bytes == pytest.approx(memory.weight_bytes(MIXTRAL, engine()), rel=1e-5)
    assert two.kv_bytes_per_token == memory.memory_per_gpu(MIXTRAL, engine()).kv_bytes_per_token / 2
    lite = memory.memory_per_gpu(LITE, engine(pp=4))  # 27 layers: 7, 7, 7, 6
    assert lite.kv_bytes_per_token == 7 * 576 * 2
    expert_layer = 64 * params.expert(LITE) * 2
    assert 7 * expert_layer < lite.weight_bytes < 8 * expert_layer


def test_the_last_stage_is_spared_left_over_layers_and_the_first_has_the_vision_tower():
    olmoe = architecture("olmoe-1b-7b")
    count = params.total_parameters(olmoe)
    layer = 2 * (count.total - count.embeddings) / 16
    three = memory.memory_per_gpu(olmoe, engine(pp=3)).weight_bytes  # 5 + input, 6, 5 + output
    assert three == pytest.approx(6 * layer, rel=1e-4) and three > 5 * layer + count.embeddings
    vlm = architecture("deepseek-vl2-tiny")
    count = params.total_parameters(vlm)
    sparse = count.routed_experts + count.shared_experts + count.router
    first = count.embeddings / 2 + count.vision + count.attention / 2 + count.dense_ffn + sparse * 5 / 11
    assert memory.memory_per_gpu(vlm, engine(pp=2)).weight_bytes == pytest.approx(2 * first, rel=1e-4)


def test_quantization_covers_matrices_only():
    count = params.total_parameters(MIXTRAL)
    kept = 2 * (count.embeddings + count.router + count.norms)
    whole = memory.weight_bytes(MIXTRAL, engine())
    assert whole == 2 * count.total
    assert memory.weight_bytes(MIXTRAL, engine(quantization="fp8")) == kept + (whole - kept) / 2
    four_bit = memory.weight_bytes(MIXTRAL, engine(quantization="awq"))
    assert kept + (whole - kept) / 4 < four_bit < kept + (whole - kept) / 3.8
    assert memory.weight_bytes(MIXTRAL, engine(dtype="float32")) == 2 * whole


def test_exactly_twelve_of_the_64_cells_of_figures_7_to_9_do_not_fit():
    failed = set()
    for width, experts, top_k in itertools.product((1792, 3584, 7168, 14336), (8, 16, 32, 64), (1, 2, 4, 8)):
        shape = params.reshape(MIXTRAL, experts, width, top_k)
        if not memory.fits(shape, H100, engine(tp=4)).fits:
            failed.add((width, experts, top_k))
    assert failed == {(f, e, k) for f, e in ((7168, 64), (14336, 32), (14336, 64)) for k in (1, 2, 4, 8)}


def test_fit_is_decided_by_memory_and_says_why():
    fit = memory.fits(MIXTRAL, H100, engine(tp=2))
    assert fit.fits and fit.usable_bytes == pytest.approx(0.9 * 84.9e9), "79.11 GiB, what CUDA reports of an H100"
    left = fit.usable_bytes - fit.weight_bytes - fit.reserve_bytes
    assert fit.kv_capacity_tokens == int(left // (64 * 1024))
    assert fit.sequence_bytes == 4096 * 64 * 1024
    assert not memory.fits(MIXTRAL, H100, engine(tp=2), sequence_tokens=fit.kv_capacity_tokens + 1).fits
    assert memory.fits(MIXTRAL, H100, engine(tp=2), sequence_tokens=fit.kv_capacity_tokens).fits
    alone = memory.fits(MIXTRAL, H100, engine())  # 93.4 GB on one 80 GB GPU
    assert alone.fits is False and alone.kv_capacity_tokens == 0
    assert memory.fits(MIXTRAL, CONFIG.hardware("h200-sxm-141gb"), engine()).fits


def test_unknown_memory_is_no_verdict():
    fit = memory.fits(MIXTRAL, CONFIG.hardware("local-cpu"), engine())
    assert (fit.fits, fit.usable_bytes, fit.kv_capacity_tokens) == (None, None, None)
    assert fit.weight_bytes > 93e9


# ------------------------------------------------------------------------------------------ roofline


def test_distinct_experts_by_enumeration():
    """Every way that 3 tokens can choose 2 of 4 experts, all equally likely."""
    choices = list(itertools.combinations(range(4), 2))
    for tokens in (1, 2, 3):
        ways = list(itertools.product(choices, repeat=tokens))
        mean = sum(len(set().union(*way)) for way in ways) / len(ways)
        assert roofline.distinct_experts(4, 2, tokens) == pytest.approx(mean)


def test_distinct_experts_explain_measured_kernel_times():
    """Fused-MoE kernel on an H100, E = 8, k = 2, hidden 4096, N = 7168, bf16, us (vLLM pull request 24700)."""
    measured = {1: 144.03, 2: 229.28, 4: 351.10, 8: 434.98, 16: 471.49, 24: 478.27, 32: 487.35, 64: 483.14, 128: 491.39}
    times = np.array(list(measured.values()))
    expert_bytes = 3 * 4096 * 7168 * 2
    known = H100.calibration.values()
    rate = H100.bandwidth_bytes_per_s * known["bandwidth_share"]
    predicted = known["moe_layer_s"] + roofline.distinct_experts(8, 2, list(measured)) * expert_bytes / rate
    assert np.abs(predicted / (times * 1e-6) - 1).max() < 0.03
    # The constants are the least squares that their reference in the hardware file says, and nothing else.
    slope, offset = np.polyfit(roofline.distinct_experts(8, 2, list(measured)), times, 1)
    assert known["moe_layer_s"] == pytest.approx(offset * 1e-6, rel=2e-3)
    assert rate == pytest.approx(expert_bytes / (slope * 1e-6), rel=1e-3)
    assert set(known) == {"moe_layer_s", "bandwidth_share"}
    # Were all experts read whatever the batch, the smallest batch would take as long as the largest.
    assert times[0] < 0.3 * times[-1]


def test_decode_step_by_hand_memory_bound():
    step = roofline.step_s(MIXTRAL, H100, engine(), sequences=1, new_tokens=1, context_tokens=1000)
    count = params.active_parameters(MIXTRAL)
    read = 2 * (count.total - count.embeddings / 2) + 1000 * 128 * 1024
    assert step == pytest.approx(read / 3.35e12)


def test_prefill_step_by_hand_compute_bound():
    step = roofline.step_s(MIXTRAL, H100, engine(), sequences=4, new_tokens=2048, context_tokens=1024)
    count = params.active_parameters(MIXTRAL)
    tokens = 4 * 2048
    operations = 2 * (count.total - count.embeddings) * tokens + 2 * 32000 * 4096 * 4
    operations += tokens * 1024 * 32 * 4 * 32 * 128
    assert step == pytest.approx(operations / 989e12)


def test_collectives_by_hand():
    """What 4 GPUs lose to collectives: two all-reduces of the hidden states per layer."""
    alone = roofline.step_s(MIXTRAL, H100, engine(), 16, 1, 0)
    four = roofline.step_s(MIXTRAL, H100, engine(tp=4), 16, 1, 0)
    count = params.total_parameters(MIXTRAL)
    everywhere = 2 * (count.router + count.norms) / 3.35e12
    message = 16 * 4096 * 2
    assert four == pytest.approx((alone - everywhere) / 4 + everywhere + 32 * 2 * 2 * 3 / 4 * message / 450e9)


def test_data_parallel_replicas_share_the_experts_only():
    """3 sequences on 2 replicas: the fuller one has 2; all 3 choose among experts spread over both."""
    step = roofline.step_s(MIXTRAL, H100, engine(dp=2, ep=True), 3, 1, 1000)
    count = params.active_parameters(MIXTRAL)
    always = 2 * (count.total - count.routed_experts - count.embeddings / 2)
    experts = 32 * float(roofline.distinct_experts(8, 2, 3)) * 3 * 4096 * 14336 * 2 / 2
    collective = 32 * (2 * 1 / 2 * 3 * 4096 * 2) / 450e9
    assert step == pytest.approx((always + experts + 2 * 1000 * 128 * 1024) / 3.35e12 + collective)


def test_quantized_matrices_run_at_their_own_peak():
    step = roofline.step_s(MIXTRAL, H100, engine(quantization="fp8"), 4, 2048, 1024)
    count = params.active_parameters(MIXTRAL)
    matrices = 2 * (count.total - count.embeddings) * 4 * 2048
    rest = 4 * 2048 * 1024 * 32 * 4 * 32 * 128 + 2 * 32000 * 4096 * 4
    assert step == pytest.approx(matrices / 1979e12 + rest / 989e12)


def test_identical_prompts_choose_alike_in_prefill_too():
    work = WorkloadKnobs(batch=16, input_tokens=4, output_tokens=1, prompts="identical")
    cell = roofline.cell_time(MIXTRAL, H100, engine(), work)
    assert cell.ttft_s == roofline.step_s(MIXTRAL, H100, engine(), 16, 4, 2, routed_tokens=4)
    assert cell.ttft_s < roofline.step_s(MIXTRAL, H100, engine(), 16, 4, 2)


def test_identical_prompts_read_k_experts_and_independent_ones_more():
    same = roofline.step_s(MIXTRAL, H100, engine(), 16, 1, 0, routed_tokens=1)
    apart = roofline.step_s(MIXTRAL, H100, engine(), 16, 1, 0)
    expert = 32 * 3 * 4096 * 14336 * 2 / 3.35e12
    assert apart - same == pytest.approx((float(roofline.distinct_experts(8, 2, 16)) - 2) * expert)


def test_absorbed_mla_trades_operations_for_memory():
    assert attention_ops(LITE, absorbed=True) == 2 * 16 * (512 + 64 + 512)
    assert attention_ops(LITE, absorbed=False) == 2 * 16 * (192 + 128)
    assert attention_ops(MIXTRAL, absorbed=True) == attention_ops(MIXTRAL, absorbed=False)
    assert roofline.step_s(LITE, H100, engine(), 64, 1, 2048) < roofline.step_s(
        LITE, H100, engine(mla=False), 64, 1, 2048
    )


def test_cell_time_is_prefill_and_decode_steps():
    work = WorkloadKnobs(batch=16, input_tokens=2048, output_tokens=3)
    cell = roofline.cell_time(MIXTRAL, H100, engine(tp=4), work)
    prefill = 4 * roofline.step_s(MIXTRAL, H100, engine(tp=4), 16, 512, 1024)  # 32768 tokens in chunks of 8192
    decode = [roofline.step_s(MIXTRAL, H100, engine(tp=4), 16, 1, 2048 + n) for n in (1, 2)]
    assert cell.ttft_s == pytest.approx(prefill)
    assert cell.itl_s == pytest.approx(np.mean(decode))
    assert cell.e2e_s == pytest.approx(prefill + sum(decode))
    one = roofline.cell_time(MIXTRAL, H100, engine(tp=4), work.model_copy(update={"output_tokens": 1}))
    assert one.e2e_s == one.ttft_s == cell.ttft_s


def test_more_active_experts_and_longer_prompts_cost_more():
    def e2e(**knobs):
        work = WorkloadKnobs(**({"batch": 16, "input_tokens": 512, "output_tokens": 64} | knobs))
        return roofline.cell_time(MIXTRAL, H100, engine(tp=4), work).e2e_s

    assert e2e(top_k=1) < e2e(top_k=2) == e2e() < e2e(top_k=8)
    assert e2e(prompts="identical") < e2e()
    assert e2e() < e2e(input_tokens=1024) and e2e() < e2e(output_tokens=65) and e2e() < e2e(batch=32)


def test_fp8_halves_weight_traffic_but_not_the_output_matrix():
    half = roofline.step_s(MIXTRAL, H100, engine(quantization="fp8"), 1, 1, 0)
    whole = roofline.step_s(MIXTRAL, H100, engine(), 1, 1, 0)
    count = params.total_parameters(MIXTRAL)
    kept = 2 * (32000 * 4096 + count.router + count.norms)
    assert half == pytest.approx((whole + kept / 3.35e12) / 2)


@pytest.mark.parametrize(
    "missing", [{"bandwidth_bytes_per_s": None}, {"peak": {}}, {"link_bytes_per_s": None}, {"peak": {"fp8": Peak(
        flops_per_s=1.0, reference="")}}]
)  # fmt: skip
def test_unknown_constants_give_no_time(missing):
    hardware: Hardware = H100.model_copy(update=missing)
    assert roofline.cell_time(MIXTRAL, hardware, engine(tp=4), WorkloadKnobs()) is None
    assert roofline.cell_time(MIXTRAL, CONFIG.hardware("local-cpu"), engine(), WorkloadKnobs()) is None


def test_one_gpu_needs_no_link():
    hardware = H100.model_copy(update={"link_bytes_per_s": None})
    assert roofline.cell_time(MIXTRAL, hardware, engine(), WorkloadKnobs()) is not None


# --------------------------------------------------------------------------------- many cells at once

MODELS = [CONFIG.model(p.stem).architecture for p in sorted((CONFIG.folder / "models").glob("*.yaml"))]


def many(count: int, seed: int):
    """Random cells of all models of the registry: sizes, formats, layouts, machine, work."""
    draw = np.random.default_rng(seed)
    sizes = stack([Sizes.of(MODELS[i]) for i in draw.integers(0, len(MODELS), count)])
    layout = Layout(
        tp=draw.choice([1, 2, 4, 8], count), pp=draw.choice([1, 2, 4], count), kvp=draw.choice([1, 2], count),
        dp=draw.choice([1, 2], count),
    )  # fmt: skip
    work = roofline.Work(
        batch=draw.integers(1, 257, count), input_tokens=draw.integers(1, 4096, count),
        output_tokens=draw.integers(1, 4096, count), identical=draw.integers(0, 2, count),
    )  # fmt: skip
    machine = Machine.of(H100.model_copy(update={"inter_node_bytes_per_s": 50e9}), engine())
    return sizes, Formats.of(MIXTRAL, engine()), layout, machine, work


def test_many_cells_are_what_single_ones_are():
    sizes, formats, layout, machine, work = many(64, 1)
    at_once = roofline.times(sizes, formats, layout, machine, work)
    for i in range(64):
        one = [type(p)(**{k: v[i] if np.ndim(v) else v for k, v in vars(p).items()}) for p in (sizes, layout, work)]
        for together, alone in zip(at_once, roofline.times(one[0], formats, one[1], machine, one[2]), strict=True):
            assert together[i] == pytest.approx(float(alone), rel=1e-12)


def test_chunks_change_nothing(monkeypatch):
    cells = many(1000, 2)
    at_once = roofline.times(*cells)
    monkeypatch.setattr(roofline, "CHUNK", 77)
    for together, apart in zip(at_once, roofline.times_of_many(*cells), strict=True):
        assert np.array_equal(together, apart) and np.isfinite(apart).all() and (apart > 0).all()


@pytest.mark.parametrize("knob", ["batch", "input_tokens", "output_tokens"])
def test_more_work_never_takes_less_time(knob):
    sizes, formats, layout, machine, work = many(2000, 3)
    # Whole batches of the replicas, so that a request more is work for the fullest; and without a chunk more or less.
    work = dataclasses.replace(work, step_tokens=1e9)
    more = dataclasses.replace(work, **{knob: getattr(work, knob) * 2})
    for less_s, more_s in zip(
        roofline.times(sizes, formats, layout, machine, work)[::2],
        roofline.times(sizes, formats, layout, machine, more)[::2],
        strict=True,
    ):
        assert (more_s >= less_s * (1 - 1e-12)).all()


def test_all_experts_active_equals_a_dense_model():
    """A dense feed-forward block as wide as all experts together; the router's weights are added to its norms."""
    for model in (m for m in MODELS if m.experts and not m.dense_layers and m.experts.every == 1):
        moe = Sizes.of(model)
        moe = dataclasses.replace(moe, top_k=moe.experts)
        dense = Sizes.of(model.model_copy(update={"experts": None}))
        dense = dataclasses.replace(
            dense, dense_ffn=moe.experts * moe.expert + moe.shared, norms=moe.norms + moe.router
        )  # fmt: skip
        for layout in (Layout(), Layout(tp=4), Layout(tp=4, kvp=2), Layout(pp=2)):
            for formats in (Formats.of(MIXTRAL, engine()), Formats(packed=2, plain=2, cache=1)):
                at = (formats, layout, Machine.of(H100, engine()))
                for tokens in (1, 64, 4096):
                    times = [float(roofline.step(sizes, *at, tokens).at(1000)) for sizes in (moe, dense)]
                    assert times[0] == pytest.approx(times[1], rel=1e-12)
                held = [[float(v) for v in memory.gpu_bytes(sizes, formats, layout)] for sizes in (moe, dense)]
                assert held[0] == pytest.approx(held[1], rel=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.family}-{m.hidden_size}")
def test_tensor_parallel_ranks_together_hold_one_copy(model):
    """TP x the bytes of a rank = the bytes of one GPU + (TP - 1) x what every rank repeats."""
    sizes, formats = Sizes.of(model), Formats.of(MIXTRAL, engine())
    alone, cache = memory.gpu_bytes(sizes, formats, Layout())
    for tp in (t for t in (2, 4) if model.attention.kv_heads % t == 0):
        each, each_cache = memory.gpu_bytes(sizes, formats, Layout(tp=tp))
        repeated = sizes.layers * (sizes.attention_latent + sizes.norms) + sizes.sparse * sizes.router + sizes.hidden
        repeated = repeated + sizes.vision
        assert float(tp * each) == pytest.approx(float(alone + (tp - 1) * 2 * repeated), rel=1e-12)
        assert float(each_cache) == float(cache) / (1 if model.attention.kind == "mla" else tp)


def test_the_mean_over_growing_contexts_is_exact():
    draw = np.random.default_rng(4)
    for _ in range(300):
        m, m1, c, c1 = draw.choice([0.0, 1.0, 2.5, 1e3], 4) * draw.random(4)
        one = roofline.Step(*(np.asarray(v) for v in (m, m1, c, c1, 0.25, 0.5)))
        first, count = int(draw.integers(0, 50)), int(draw.integers(1, 60))
        each = [float(one.at(x)) for x in range(first, first + count)]
        assert float(one.mean(first, count)) == pytest.approx(np.mean(each), rel=1e-9)


def test_measured_activations_instead_of_the_uniform_law():
    batch = np.array([1, 4, 64])
    assert roofline.distinct_from_shares(np.full(8, 0.25), batch) == pytest.approx(
        roofline.distinct_experts(8, 2, batch)
    )
    skewed = np.array([0.9, 0.5, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])  # adds up to 2
    fewer = roofline.distinct_from_shares(skewed, batch)
    assert fewer[0] == pytest.approx(2) and (fewer[1:] < roofline.distinct_experts(8, 2, batch[1:])).all()
    work = WorkloadKnobs(batch=4, input_tokens=16, output_tokens=16)
    free = roofline.cell_time(MIXTRAL, H100, engine(), work)
    measured = roofline.cell_time(MIXTRAL, H100, engine(), work, distinct=float(fewer[1]))
    gap = 32 * 3 * 4096 * 14336 * 2 * (roofline.distinct_experts(8, 2, 4) - fewer[1]) / 3.35e12
    assert free.itl_s - measured.itl_s == pytest.approx(float(gap)) and free.ttft_s == measured.ttft_s


# -------------------------------------------------------------------------------------- collectives


def test_ring_collectives_by_hand():
    gather = collectives.all_gather_s(8e6, [1, 2, 4], 1e9, 1e-6)
    assert gather.tolist() == pytest.approx([0, 1e-6 + 4e-3, 3e-6 + 6e-3])
    assert collectives.all_reduce_s(8e6, 4, 1e9, 1e-6) == pytest.approx(2 * gather[2])
    assert collectives.all_to_all_s(8e6, 4, 1e9) == pytest.approx(6e-3)
    assert collectives.exposed_s([5.0, 1.0], 4.0, 0.5).tolist() == [3.0, 0.0]


def test_a_group_larger_than_a_node_uses_the_link_between_nodes():
    wide = engine(tp=16)
    assert roofline.step_s(MIXTRAL, H100, wide, 1, 1, 0) is None, "the link between nodes is unknown"
    far = H100.model_copy(update={"inter_node_bytes_per_s": 50e9})
    near = H100.model_copy(update={"devices_per_node": 16})
    message = 2 * 32 * 2 * 15 / 16 * 4096 * 2
    difference = roofline.step_s(MIXTRAL, far, wide, 1, 1, 0) - roofline.step_s(MIXTRAL, near, wide, 1, 1, 0)
    assert difference == pytest.approx(message * (1 / 50e9 - 1 / 450e9))


def test_calibrated_times_use_the_hardware_files_constants():
    plain = roofline.step_s(MIXTRAL, H100, engine(), 1, 1, 0)
    slower = roofline.step_s(MIXTRAL, H100, engine(), 1, 1, 0, calibrated=True)
    known = H100.calibration.values()
    assert slower == pytest.approx(plain / known["bandwidth_share"] + 32 * known["moe_layer_s"])
