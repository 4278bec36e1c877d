"""The model and hardware registry: every file parses, and its sizes add up to what the makers publish."""

from pathlib import Path

import pytest

from moebench.config import Config
from moebench.cost.params import active_parameters, input_embedding, total_parameters

CONFIG = Config(Path(__file__).parents[2] / "config")
MODELS = sorted(p.stem for p in (CONFIG.folder / "models").glob("*.yaml"))
HARDWARE = sorted(p.stem for p in (CONFIG.folder / "hardware").glob("*.yaml"))
TINY = [name for name in MODELS if name.startswith("tiny-")]
PUBLISHED = [name for name in MODELS if name not in TINY]


def test_every_model_of_the_papers_is_there():
    asked = """mixtral-8x7b qwen1.5-moe-a2.7b qwen3-30b-a3b qwen3-235b-a22b deepseek-v2-lite deepseek-v3 phi-3.5-moe
        olmoe-1b-7b deepseek-vl2-tiny deepseek-vl2-small deepseek-vl2 molmoe-1b llama-4-scout-17b-16e grok-1
        switch-c-2048 qwen3-0.6b qwen3-1.7b qwen3-4b qwen3-8b tiny-mixtral tiny-qwen1.5-moe tiny-qwen3-moe
        tiny-deepseek-v2 tiny-phi-3.5-moe tiny-olmoe"""
    assert set(asked.split()) <= set(MODELS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_computed_totals_are_the_published_ones(name):
    model = CONFIG.model(name)
    assert model.published is not None and model.published.total_parameters is not None
    assert total_parameters(model.architecture).total == pytest.approx(model.published.total_parameters, rel=0.02)


@pytest.mark.parametrize("name", [n for n in PUBLISHED if CONFIG.model(n).published.active_parameters])
def test_computed_active_parameters_are_the_published_ones(name):
    """Makers count both embedding matrices, the output one alone, or neither; the closest convention must be within 4%,
    or round to the whole billions that are published."""
    model = CONFIG.model(name)
    active = active_parameters(model.architecture)
    published = model.published.active_parameters
    conventions = [active.total, active.total - input_embedding(model.architecture), active.total - active.embeddings]
    closest = min(conventions, key=lambda count: abs(count - published))
    assert abs(closest / published - 1) < 0.04 or (published < 10e9 and round(closest / 1e9) * 1e9 == published)


def test_a_tiny_model_without_a_full_size_one_says_why():
    alone = [CONFIG.model(name) for name in TINY if CONFIG.model(name).variant_of is None]
    assert [model.name for model in alone] == [f"tiny-llava-moe-{size}" for size in "lms"]
    assert all("It is not that architecture" in model.note for model in alone)


@pytest.mark.parametrize("name", [name for name in TINY if CONFIG.model(name).variant_of])
def test_tiny_variants_keep_what_makes_their_family(name):
    tiny = CONFIG.model(name)
    full = CONFIG.model(tiny.variant_of)
    small, large = tiny.architecture, full.architecture
    assert small.family == large.family
    assert (small.experts is None) == (large.experts is None)
    if small.experts:
        assert (small.experts.count, small.experts.top_k) == (large.experts.count, large.experts.top_k)
        for field in ("shared_gate", "gated", "every"):
            assert getattr(small.experts, field) == getattr(large.experts, field)
        assert small.experts.shared_ffn_size / small.experts.ffn_size == (
            large.experts.shared_ffn_size / large.experts.ffn_size
        )
    for field in ("kind", "bias", "qk_norm", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"):
        assert getattr(small.attention, field) == getattr(large.attention, field)
    assert small.attention.heads / small.attention.kv_heads == large.attention.heads / large.attention.kv_heads
    assert small.tied_embeddings == large.tied_embeddings
    if small.experts:
        assert small.dense_layers == large.dense_layers
    else:
        assert (small.dense_layers, large.dense_layers) == (small.layers, large.layers)


@pytest.mark.parametrize("name", TINY)
def test_tiny_variants_run_on_a_laptop(name):
    tiny = CONFIG.model(name)
    assert tiny.source.random_init is not None
    assert total_parameters(tiny.architecture).total < 15e6
    assert tiny.architecture.vocab_size > 10_000, "vllm bench draws token ids below 10,000"
    assert tiny.architecture.hidden_size % 32 == 0, "the CPU kernel's condition"


@pytest.mark.parametrize("name", HARDWARE)
def test_hardware_parses_and_sources_its_peaks(name):
    hardware = CONFIG.hardware(name)
    assert all(peak.reference for peak in hardware.peak.values())


def test_peaks_are_dense():
    """Twice the dense rate, the sparse marketing figure, would show here."""
    h100 = CONFIG.hardware("h100-sxm5-80gb")
    assert h100.peak["bfloat16"].flops_per_s == 989e12
    assert h100.peak["fp8"].flops_per_s == 1979e12
    assert h100.link_bytes_per_s == 450e9, "one way"
    assert CONFIG.hardware("h200-sxm-141gb").peak == {
        name: peak.model_copy(update={"reference": peak.reference.replace("H100", "H200")})
        for name, peak in h100.peak.items()
    }


def test_nothing_is_assumed_of_the_local_cpu():
    cpu = CONFIG.hardware("local-cpu")
    assert (cpu.memory_bytes, cpu.bandwidth_bytes_per_s, cpu.link_bytes_per_s, cpu.peak) == (None, None, None, {})
