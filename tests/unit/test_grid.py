"""The grid language: axes, arms, knobs that move together, unions, and what is refused."""

from typing import get_args

import pytest

from moebench.config import Experiment, parse
from moebench.config.base import Quantization
from moebench.config.grid import PRECISIONS, expand
from moebench.errors import ConfigError
from studies import experiment

FIX = {"model": "tiny-mixtral", "batch": 4}


GROUPS = {"pair": ("tiny-mixtral", "tiny-olmoe"), "none": ()}


def rows(*blocks, scale="test"):
    return expand(parse(Experiment, experiment("x", list(blocks)), "x.yaml"), scale, "x.yaml", GROUPS.get)


def settings(*blocks):
    return [row.settings for row in rows(*blocks)]


def test_axes_are_crossed_in_the_order_of_the_file_and_label_their_rows():
    found = rows({"fix": FIX, "cross": {"top_k": [1, 2], "input_tokens": [8, 16, 32]}})
    assert [(r.settings["top_k"], r.settings["input_tokens"]) for r in found] == [
        (1, 8), (1, 16), (1, 32), (2, 8), (2, 16), (2, 32)
    ]  # fmt: skip
    assert found[4].settings == {"model": "tiny-mixtral", "batch": 4, "top_k": 2, "input_tokens": 16}
    assert found[4].labels == {"top_k": 2, "input_tokens": 16}


@pytest.mark.parametrize("axis", ["input_tokens = output_tokens", "input_tokens=output_tokens"])
def test_knobs_of_one_axis_move_together(axis):
    found = rows({"fix": FIX, "cross": {axis: [8, 16]}})
    assert [(r.settings["input_tokens"], r.settings["output_tokens"]) for r in found] == [(8, 8), (16, 16)]
    assert [r.labels for r in found] == [{axis: 8}, {axis: 16}]


def test_an_arm_sets_several_knobs_under_its_label():
    arms = [{"label": "TP2", "tp": 2}, {"label": "TP2+EP", "tp": 2, "ep": True}, {"label": "none"}]
    found = rows({"fix": FIX, "cross": {"layout": arms}})
    assert [r.settings for r in found] == [FIX | {"tp": 2}, FIX | {"tp": 2, "ep": True}, FIX]
    assert [r.labels["layout"] for r in found] == ["TP2", "TP2+EP", "none"]


def test_an_arm_without_a_label_is_called_after_its_first_value():
    found = rows({"cross": {"model": [{"model": "tiny-mixtral", "tp": 2}, {"model": "tiny-olmoe"}]}})
    assert [r.labels["model"] for r in found] == ["tiny-mixtral", "tiny-olmoe"]


def test_blocks_are_a_union():
    two = settings({"fix": FIX, "cross": {"batch": [1]}} | {"fix": {"model": "tiny-mixtral"}}, {"fix": FIX})
    assert two == [{"model": "tiny-mixtral", "batch": 1}, FIX]


def test_a_block_may_fix_everything():
    assert settings({"fix": FIX}) == [FIX]


BF16 = {"dtype": "bfloat16", "quantization": "none"}


@pytest.mark.parametrize(
    ("word", "label", "knobs"),
    [
        ("bf16", "BF16", BF16),
        ("FP16", "FP16", {"dtype": "float16", "quantization": "none"}),
        ("fp32", "FP32", {"dtype": "float32", "quantization": "none"}),
        ("fp8", "FP8", {"quantization": "fp8"}),
        ("fp8_block", "FP8 blocks", {"quantization": "fp8_block"}),
        ("int8", "INT8", {"quantization": "int8"}),
        ("int4", "INT4", {"quantization": "gptq"}),
        ("awq", "AWQ", {"quantization": "awq"}),
    ],
)
def test_a_precision_is_a_data_type_or_a_scheme(word, label, knobs):
    ((found),) = rows({"fix": FIX, "cross": {"precision": [word]}})
    assert found.settings == FIX | knobs and found.labels == {"precision": label}
    assert settings({"fix": FIX | {"precision": word}}) == [FIX | knobs]
    assert settings({"fix": FIX, "cross": {"arm": [{"label": "a", "precision": word, "tp": 2}]}}) == [
        FIX | knobs | {"tp": 2}
    ]


def test_every_scheme_is_a_precision():
    schemes = {s for _, knobs in PRECISIONS.values() for s in [knobs["quantization"]]}
    assert schemes == set(get_args(Quantization)) - {"mxfp4"}, "that is of published weights only"


def test_arms_under_the_name_precision_stay_arms():
    arms = [{"label": "KV FP8", "kv_cache_dtype": "fp8"}, {"label": "INT4", "precision": "int4"}]
    found = rows({"fix": FIX, "cross": {"precision": arms}})
    assert [(r.labels["precision"], r.settings) for r in found] == [
        ("KV FP8", FIX | {"kv_cache_dtype": "fp8"}), ("INT4", FIX | {"quantization": "gptq"})
    ]  # fmt: skip


@pytest.mark.parametrize("given", ["pair", ["pair"]])
def test_a_group_is_each_of_its_models(given):
    found = rows({"fix": {"batch": 1}, "cross": {"model": given, "top_k": [1, 2]}})
    assert [(r.labels["model"], r.settings["model"], r.settings["top_k"]) for r in found] == [
        (m, m, k) for m in ("tiny-mixtral", "tiny-olmoe") for k in (1, 2)
    ]


def test_a_group_in_arms_and_beside_models():
    arms = [{"model": "pair", "tp": 2}, {"label": "one", "model": "pair"}, "tiny-phi-3.5-moe"]
    found = rows({"cross": {"model": arms}})
    assert [(r.labels["model"], r.settings["model"], r.settings.get("tp")) for r in found] == [
        ("tiny-mixtral", "tiny-mixtral", 2), ("tiny-olmoe", "tiny-olmoe", 2),
        ("one", "tiny-mixtral", None), ("one", "tiny-olmoe", None), ("tiny-phi-3.5-moe", "tiny-phi-3.5-moe", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([{"fix": {"model": "pair"}}], ["grid.test[0]: fix: model is pair", "one value", "put it under cross"]),
        ([{"cross": {"model": ["none"]}}], ["model none: this group has no model", "name models"]),
        ([{"fix": {"precision": "int5"}}], ["fix: unknown precision 'int5'", "did you mean 'int"]),
        ([{"fix": FIX, "cross": {"precision": [4]}}], ["grid.test[0]: unknown precision 4", "known: awq, bf16"]),
        ([{"fix": {"precision": "bf16", "dtype": "float16"}}], ["fix: knob 'dtype' is set twice"]),
        ([{"fix": {"quantization": "fp8"}, "cross": {"precision": ["int4"]}}], ["'quantization' is set twice"]),
        ([], ["grid.test", "is empty", "at least one block"]),
        ([{"fix": FIX, "cross": {"top_k": []}}], ["grid.test[0]", "'top_k'", "no values"]),
        ([{"fix": FIX}, {"fix": FIX, "cross": {"batch": [1]}}], ["grid.test[1]", "'batch' is set twice", "keep one"]),
        ([{"cross": {"batch": [1], "load": [{"label": "a", "batch": 2}]}}], ["'batch' is set twice", "axis 'load'"]),
        ([{"cross": {"batch": [1], "batch ": [2]}}], ["'batch' is set twice"]),
        ([{"cross": {"load": [{"label": [None], "batch": 2}]}}], ["grid.test[0]", "axis 'load'", "label", "a word"]),
        ([{"fix": {"bach": 4}}], ["grid.test[0]: fix", "'bach'", "did you mean 'batch'?"]),
        ([{"cross": {"topk": [1]}}], ["'topk'", "did you mean 'top_k'?"]),
        ([{"cross": {"arm": [{"label": "a", "expert_parallel": True}]}}], ["'expert_parallel'"]),
        ([{"cross": {"input_tokens = outptu_tokens": [1]}}], ["'outptu_tokens'", "did you mean 'output_tokens'?"]),
        ([{"cross": {"zzzz": [1]}}], ["'zzzz'", "known: all_to_all, "]),
    ],
)
def test_refused_with_file_place_and_remedy(blocks, words):
    with pytest.raises(ConfigError) as error:
        rows(*blocks)
    text = str(error.value)
    assert text.startswith("x.yaml: ") and "\n" not in text
    assert [w for w in words if w not in text] == [], text


def test_an_unknown_scale_names_the_nearest():
    with pytest.raises(ConfigError, match=r"x\.yaml: .*'tset'.*'test'"):
        rows({"fix": FIX}, scale="tset")
