"""Knobs of the engine do what they say, on the real vLLM: unfused experts and speculation change speed, not tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import studies
from project import copy as copy_project
from project import moebench
from workflow.engine_copies import EngineCopies

HERE = Path(__file__).parent
WORK = {"batch": 6, "input_tokens": 24, "output_tokens": 12, "dtype": "float32"}


@pytest.fixture(scope="module")
def seen(copies: EngineCopies, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What each engine configuration gave."""
    place = copy_project(tmp_path_factory.mktemp("knobs") / "project")
    models = ("tiny-mixtral", "tiny-qwen3-moe", "tiny-qwen1.5-moe")
    kernels = [{"fix": {**WORK, "model": m}, "cross": {"expert_kernel": ["fused", "unfused"]}} for m in models]
    drafts = [{"fix": {**WORK, "model": "tiny-qwen3-moe", "draft_model": "tiny-qwen3-draft-1.7b", "draft_tokens": 3}}]
    studies.folder(place, {"knobs": kernels + drafts})
    moebench(place, "stage", "--study", "test")
    moebench(place, "plan", "--study", "test", "--write", "plan.json")
    copies.run(HERE / "knobs.py", "plan.json", "out.json", cwd=place)
    return json.loads((place / "out.json").read_text())


def one(seen: dict[str, dict], *parts: str, without: tuple[str, ...] = ()) -> dict:
    """The only engine configuration whose id has these parts."""
    (found,) = [v for k, v in seen.items() if all(p in k for p in parts) and not any(p in k for p in without)]
    return found


@pytest.mark.parametrize("model", ["tiny-mixtral", "tiny-qwen3-moe", "tiny-qwen1.5-moe"])
def test_unfused_experts_give_the_same_tokens(seen: dict[str, dict], model: str) -> None:
    fused = one(seen, model, without=("unfused", "draft"))
    unfused = one(seen, model, "unfused")
    assert len(fused["kernels"]) == len(unfused["kernels"]) == 1
    assert unfused["kernels"] == [f"Unfused{fused['kernels'][0]}"], "another kernel really ran"
    assert unfused["tokens"] == fused["tokens"]
    assert (fused["status"], unfused["status"]) == ("ok", "ok")
    assert unfused["checks"]["experts_per_token"] == fused["checks"]["experts_per_token"]


def test_speculation_gives_the_same_tokens_and_counts_its_drafts(seen: dict[str, dict]) -> None:
    plain = one(seen, "tiny-qwen3-moe", without=("unfused", "draft"))
    drafted = one(seen, "tiny-qwen3-moe", "draft-")
    assert drafted["tokens"] == plain["tokens"], "greedy speculation changes nothing but speed"
    checks = drafted["checks"]
    assert checks["draft_tokens"] == 3 * checks["drafts"] > 0
    assert checks["accepted_tokens"] == sum(checks[f"accepted_at_{i}"] for i in range(3))
    assert 0 <= checks["accepted_tokens"] <= checks["draft_tokens"]
    assert checks["experts_per_token"] == 8, "rejected tokens were routed too"
    assert "drafts" not in plain["checks"]
