"""The grid language: axes, arms, knobs that move together, unions, and what is refused."""

import pytest

from moebench.config import Experiment, parse
from moebench.config.grid import expand
from moebench.errors import ConfigError
from studies import experiment

FIX = {"model": "tiny-mixtral", "batch": 4}


def rows(*blocks, scale="test"):
    return expand(parse(Experiment, experiment("x", list(blocks)), "x.yaml"), scale, "x.yaml")


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


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
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
        ([{"cross": {"zzzz": [1]}}], ["'zzzz'", "known: batch, "]),
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
