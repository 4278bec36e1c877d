"""Rows about derived checkpoints: what the manifest says, what is not known, what an archive carries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moebench.commands import show
from moebench.storage import staged
from moebench.tables import derived_checkpoints

PRUNED = {"by": "prune", "settings": {
    "kind": "inter", "ratio": 0.125, "by": "frequency", "experts": 52,
    "calibration": {"data": "text", "sequences": 8, "tokens": 128, "seed": 0},
}}  # fmt: skip
QUANTIZED = {"by": "quantize", "settings": {
    "scheme": "int8", "method": "gptq", "tool": "llmcompressor 1.0",
    "calibration": {"data": "mine.txt", "sha256": "f" * 64, "sequences": 4, "tokens": 256, "seed": 0},
}}  # fmt: skip


@pytest.fixture
def plan(tmp_path):
    def model(name, derived):
        parent = {"path": str(tmp_path / "models/parent-1"), "derived": None}
        return {"path": str(tmp_path / "models" / name), "title": "M", "revision": "r1", "source": "derived:x",
                "derived": derived | {"parent": parent}}  # fmt: skip

    models = {"m.pruned-r1": model("m.pruned-r1", PRUNED), "m.int8-r1": model("m.int8-r1", QUANTIZED)}
    return {"study": "s", "derived": models}


def make(plan, name, facts, revision="r1"):
    folder = Path(plan["derived"][name]["path"])
    folder.mkdir(parents=True, exist_ok=True)
    staged.write_manifest(folder, "derived:x", revision, facts)


FACTS = {
    "rounding": "12.5% of 60 experts is 7.5; 8 are removed", "removed_share": 8 / 60, "took_s": 1.5,
    "calibration": {"data": "text", "sha256": "abcdef0123456789"},
    "by_layer": {"0": {"counts": [9, 4, 7]}, "1": {"counts": [5, 0, 0]}},
}  # fmt: skip


def test_a_pruned_and_a_quantized_checkpoint(plan, tmp_path):
    make(plan, "m.pruned-r1", FACTS)
    make(plan, "m.int8-r1", {"tokens_per_expert_min": 1024, "experts_without_routed_token": 3, "took_s": 18.2})
    pruned, quantized = derived_checkpoints.rows(plan, tmp_path)
    assert (pruned["ratio_asked"], pruned["ratio_reached"]) == (0.125, 8 / 60)
    assert pruned["rounding"] == FACTS["rounding"] and pruned["parent"] == "parent-1"
    assert pruned["recipe"] == "experts removed by frequency; 52 stay"
    assert pruned["calibration_text"] == "prose of the Python standard library (abcdef012345)"
    assert (pruned["calibration_tokens"], pruned["tokens_per_expert_min"], pruned["experts_without_tokens"]) == (
        1024, 0, 2)  # fmt: skip
    assert (
        quantized["recipe"] == "int8: W8A8 int; llmcompressor 1.0"
        and quantized["calibration_text"] == "mine.txt (ffffffffffff)"
    )
    assert (quantized["tokens_per_expert_min"], quantized["experts_without_tokens"], quantized["took_s"]) == (
        1024, 3, 18.2)  # fmt: skip
    assert pruned["made"] and quantized["made"] and quantized["ratio_asked"] is None


def test_what_is_not_made_or_of_another_revision_has_only_what_was_asked_for(plan, tmp_path):
    make(plan, "m.pruned-r1", FACTS, revision="r0")
    for row in derived_checkpoints.rows(plan, tmp_path):
        assert not row["made"] and row["took_s"] is None and row["calibration_tokens"] == 1024
        assert row["ratio_reached"] is None and row["tokens_per_expert_min"] is None


def test_facts_travel_without_the_checkpoints(plan, tmp_path):
    make(plan, "m.pruned-r1", FACTS)
    there = list(derived_checkpoints.rows(plan, tmp_path))
    kept = derived_checkpoints.keep(plan, tmp_path / "archive")
    assert list(kept) == ["m.pruned-r1"] and json.loads(kept["m.pruned-r1"].read_text())["facts"] == FACTS
    (tmp_path / "models").rename(tmp_path / "gone")
    assert list(derived_checkpoints.rows(plan, tmp_path / "archive")) == there
    assert not any(row["made"] for row in derived_checkpoints.rows(plan, tmp_path))


def test_the_summary_counts_derived_checkpoints_that_are_made(plan, tmp_path):
    make(plan, "m.pruned-r1", FACTS)
    whole = plan | {"cells": {}, "engines": {}, "jobs": {}}
    assert "; 2 derived checkpoints, 1 made; no report yet" in show.summary(show.progress(whole, tmp_path, tmp_path))
