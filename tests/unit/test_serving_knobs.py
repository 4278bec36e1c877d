"""Knobs of serving as vLLM's arguments, offline and for its server, and what other engines say to them."""

from __future__ import annotations

from typing import Any

import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.engines import vllm_arguments, vllm_resolved, vllm_routing
from moebench.engines.server import flags
from moebench.errors import ConfigError
from moebench.measure import worker

KNOBS = {
    "chunked_prefill": False, "attention_kernel": "FLASH_ATTN", "fused_kernel": "triton", "all_to_all": "nixl_ep",
    "eplb": True, "redundant_experts": 4, "eplb_steps": 50, "graph_sizes": "1 2 8",
}  # fmt: skip


def test_knobs_of_serving_are_vllms_arguments() -> None:
    assert vllm_arguments.serving(KNOBS) == {
        "enable_chunked_prefill": False, "attention_backend": "FLASH_ATTN", "moe_backend": "triton",
        "all2all_backend": "nixl_ep", "enable_eplb": True, "cudagraph_capture_sizes": [1, 2, 8],
        "eplb_config": {"num_redundant_experts": 4, "window_size": 50, "step_interval": 50},
    }  # fmt: skip
    assert set(vllm_arguments.serving({}).values()) == {None}, "what is not asked for is vLLM's choice"


def test_a_server_is_told_the_same() -> None:
    given = {"model": "m", **vllm_arguments.serving(KNOBS), "enable_prefix_caching": True}
    line = " ".join(flags(given))
    assert "--no-enable-chunked-prefill" in line and "--enable-prefix-caching" in line
    assert "--cudagraph-capture-sizes 1 2 8" in line and "--enable-eplb" in line
    assert '--eplb-config {"num_redundant_experts": 4, "window_size": 50, "step_interval": 50}' in line


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"speculation": "ngram"}, {"method": "ngram"}),
        ({"speculation": "mtp"}, {"method": "mtp"}),
        ({"speculation": "eagle3"}, {"method": "eagle3", "model": "head", "draft_tensor_parallel_size": 2}),
        ({}, {"method": "draft_model", "model": "head", "draft_tensor_parallel_size": 2}),
    ],
)
def test_speculation_is_by_the_method_asked_for(knobs: dict[str, str], expected: dict[str, Any]) -> None:
    draft = {"path": "head"} if "model" in expected else None
    spec: Any = {"config": {"draft_tokens": 3, "tp": 2, **knobs}, "draft": draft}
    assert vllm_arguments.speculation(spec) == expected | {"num_speculative_tokens": 3}


def test_routers_are_left_alone_unless_asked() -> None:
    assert vllm_routing.environment({"eplb": True}) == {vllm_routing.SWITCH: ""}
    made = vllm_routing.environment({"routing": "zipf", "routing_experts": 8})
    assert made == {vllm_routing.SWITCH: '{"routing": "zipf", "routing_experts": 8}'}


@pytest.mark.parametrize(("tokens", "cap"), [(1, None), (7, None), (8, 4), (31, 4), (32, 2), (5000, 2)])
def test_a_cap_by_load_holds_from_its_number_of_tokens_on(tokens: int, cap: int | None) -> None:
    assert vllm_routing.cap_of("8:4 32:2", tokens) == vllm_routing.cap_of("32:2 8:4", tokens) == cap
    assert vllm_routing.cap_of(None, tokens) is None


def test_a_hosted_service_has_none_of_them(tmp_path: Any) -> None:
    hosted = {"name": "endpoint", "version": "unstated", "environment": "vllm-cpu",
              "endpoint": {"base_url": "https://example.org/v1", "models": {"tiny-mixtral": "m"},
                           "hardware": "theirs"}}  # fmt: skip
    fix = {"model": "tiny-mixtral", "engine_name": "theirs", "prefix_caching": True}
    config = studies.folder(tmp_path, {"x": [{"fix": fix}]}, engines={"theirs": hosted})
    with pytest.raises(ConfigError, match="prefix_caching True: engine 'theirs' is a hosted service"):
        make_plan(Config(config), "test")


def test_drawn_experts_are_not_asked_questions(tmp_path: Any) -> None:
    block = {"tasks": ["arc-easy"], "data": "fixtures", "fix": {"model": "tiny-mixtral", "routing": "uniform"}}
    experiment = {"blocks": [{"fix": {"model": "tiny-mixtral"}}], "accuracy": {"test": [block]}}
    config = studies.folder(tmp_path, {"x": experiment})
    with pytest.raises(ConfigError, match="accuracy with routing uniform: "):
        make_plan(Config(config), "test")


LAYER = {  # two requests of three tokens, of which a cache held one each, and two decode steps
    "counts": [5, 3, 2], "phases": {"prefill": [4, 2, 2], "decode": [1, 1, 0]},
    "steps": [[4, 3], [2, 2], [2, 1]], "step_phases": ["prefill", "decode", "decode"],
}  # fmt: skip
WORK: Any = {"batch": 2, "input_tokens": 3, "output_tokens": 3, "top_k": 2}


def test_tokens_that_a_cache_holds_pass_no_layer() -> None:
    captured: Any = {0: LAYER | {"counts": [8, 4, 4]}}
    assert worker.routing(captured, WORK, True)["experts_per_token"] == 2, "16 choices of the 8 tokens that passed"
    assert worker.routing(captured, WORK, False)["experts_per_token"] == 1.6


def test_active_experts_of_decode_steps_are_counted_per_layer() -> None:
    captured: Any = {1: LAYER, 0: LAYER | {"phases": {"prefill": [0, 0, 0], "decode": [4, 4, 0]}}}
    assert worker.active_experts(captured) == {"active_experts_decode": [2.0, 0.5]}
    none: Any = {0: LAYER | {"step_phases": ["prefill", "mixed", "mixed"]}}
    assert worker.active_experts(none) == {}


@pytest.mark.parametrize(
    ("config", "checks", "words"),
    [
        ({}, {"prefix_cache_hits": 5.0}, "came from the prefix cache"),
        ({"prefix_caching": True}, {"prefix_cache_hits": 5.0}, None),
        ({}, {"experts_per_token": 1.5}, "chose 1.5 experts per token, not 2"),
        ({"gate_share": 0.5}, {"experts_per_token": 1.5}, None),
        ({"load_cap": "2:1"}, {"experts_per_token": [1.0, 1.1]}, None),
        ({"routing": "zipf"}, {"experts_per_token": 1.5}, "not 2"),
    ],
)
def test_what_was_asked_for_is_no_fault(config: dict[str, Any], checks: dict[str, Any], words: str | None) -> None:
    given: Any = {"experts_per_token": 2, "image_tokens": None} | checks
    found = worker.insane(WORK, given, [], {"max_num_batched_tokens": 100} | config)
    assert found is None if words is None else words in found


def test_a_servers_log_tells_what_it_took() -> None:
    log = (
        b"INFO [core.py:1] Initializing a V1 LLM engine with config: model='m', enable_prefix_caching=True, "
        b"enable_chunked_prefill=False, pooler_config=None\nINFO Using AgRsAll2AllManager all2all manager.\n"
    )
    told = {"prefix_caching": True, "chunked_prefill": False, "all_to_all": "AgRsAll2AllManager"}
    assert vllm_resolved.serving_said(log) == told
    assert vllm_resolved.serving_said(b"nothing of it") == {}
