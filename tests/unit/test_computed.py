"""Experiments that compute points of the cost model: plan, table and figures (report and archive: tests/report)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import studies
from moebench import figures
from moebench.claims import collect
from moebench.commands.planning import keep, make_plan
from moebench.config import Architecture, ComputedKnobs, Config, Hardware, Plot
from moebench.errors import ConfigError
from moebench.figures import curves
from moebench.qs import points, versus_dense
from studies import ROOT

CELL = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8}


@pytest.fixture
def config(tmp_path):
    """A configuration folder whose study asks for the qs inequality only."""
    folder = studies.folder(tmp_path, {"x": [{"fix": CELL}]})
    path = folder / "studies/test.yaml"
    studies.write(path, studies.read(path) | {"experiments": ["qs-inequality"]})
    shutil.copytree(ROOT / "config/papers", folder / "papers")
    shutil.copy(ROOT / "config/experiments/qs-inequality.yaml", folder / "experiments")
    return folder


def change(config: Path, **keys):
    path = config / "experiments/qs-inequality.yaml"
    studies.write(path, studies.read(path) | keys)


POINT = {"model": "mixtral-8x7b", "hardware": "h100-sxm5-80gb", "gpus": 4}
FIGURE = {"id": "f", "number": "1", "title": "F", "kind": "computed", "x": "context_tokens", "y": ["speedup_dense"]}
MISTAKES = {
    "model": ({"computed": [{"fix": POINT | {"model": "mixtral-8x7"}}]}, "unknown model 'mixtral-8x7'; did you mean"),
    "machine": ({"computed": [{"fix": POINT | {"hardware": "h10"}}]}, "unknown hardware 'h10'"),
    "knob": ({"computed": [{"fix": POINT | {"qualty": 3}}]}, "unknown knob 'qualty'; did you mean 'quality'?"),
    "dense": ({"computed": [{"fix": POINT | {"model": "qwen3-8b"}}]}, "qwen3-8b is a dense model"),
    "layout": ({"computed": [{"fix": POINT | {"tp": 2}}]}, "tp x pp x dp x kvp is 2, but gpus is 4"),
    "value": ({"computed": [{"fix": POINT | {"quality": -1}}]}, "quality is -1"),
    "column": (
        {"computed": [{"fix": POINT}], "figures": [FIGURE | {"hue": "modle"}]},
        "no column 'modle'; did you mean 'model'?"),
    "figure without points": ({"computed": [], "figures": [FIGURE]}, "figure f of kind computed needs computed"),
    "level of cells": (
        {"figures": [{"id": "f", "number": "1", "title": "F", "kind": "parameters", "level": 1}]},
        "level: only for a figure of kind computed"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(config, mistake):
    keys, words = MISTAKES[mistake]
    change(config, **keys)
    with pytest.raises(ConfigError) as error:
        figures.check(make_plan(Config(config), "test"))
    assert words in str(error.value) and "\n" not in str(error.value)
    assert "qs-inequality" in str(error.value)


def test_rows_are_what_the_model_computes_and_what_the_paper_prints(config):
    change(config, computed=[{"fix": POINT, "cross": {"context_tokens": [1024, 4096], "batch": [1, 64]}}])
    plan = make_plan(Config(config), "test")
    rows = list(points.rows(plan))
    ours = [row for row in rows if row["by"] == "distinct"]
    assert len(ours) == 4 and {row["model_title"] for row in ours} == {"Mixtral-8x7B"}
    asked = plan["experiments"]["qs-inequality"]["computed"]
    for row, point in zip(ours, asked["points"], strict=True):
        found = versus_dense.compare(
            Architecture.model_validate(asked["models"]["mixtral-8x7b"]["architecture"]),
            Hardware.model_validate(asked["hardware"]["h100-sxm5-80gb"]),
            ComputedKnobs.model_validate(point["settings"]),
        )
        assert row["throughput_moe"] == found.moe.tokens_per_s and row["batch_moe"] == row["batch"]
        assert row["speedup_dense"] == pytest.approx(row["throughput_dense"] / row["throughput_moe"])
    printed = {
        (r["model"], r["quality"], r["context_tokens"]): r["speedup_dense"] for r in rows if r["by"] == "printed"
    }
    assert printed["deepseek-v3", 5, 131072] in (4.5, 4.6) and printed["grok-1", 2, 131072] == 2.28


def test_a_plan_computes_nothing_and_carries_all(config, tmp_path):
    """The table of a plan alone, without the configuration it was made from."""
    change(config, computed=[{"fix": POINT}, {"fix": POINT | {"model": "deepseek-v3"}}])
    plan = json.loads(json.dumps(make_plan(Config(config), "test")))
    before = list(points.rows(plan))
    shutil.rmtree(config)
    assert list(points.rows(plan)) == before
    assert {row["model"] for row in before if row["by"] == "distinct"} == {"mixtral-8x7b", "deepseek-v3"}
    assert "printed" in {row["by"] for row in before}
    assert plan["experiments"]["qs-inequality"]["rows"] == [] and plan["cells"] == {}


def test_points_on_one_place_are_refused_and_named(config, tmp_path):
    change(config, computed=[{"fix": POINT, "cross": {"context_tokens": [1024, 4096], "quality": [3, 5]}}], figures=[])
    plan = make_plan(Config(config), "test")
    collect.collect(keep(plan, tmp_path), tmp_path, tmp_path / "t")
    frame = curves.of_experiment(tmp_path / "t", "qs-inequality")
    plot = Plot.model_validate(FIGURE | {"only": {"by": "distinct"}})
    with pytest.raises(ConfigError, match="and differ in quality; use only or hue"):
        curves.place(plot, frame, "figure f")
    hue = curves.place(plot.model_copy(update={"hue": "quality"}), frame, "figure f")
    assert hue.levels("hue") == (3.0, 5.0) and len(hue.rows) == 4
    with pytest.raises(ConfigError, match="no computed point has"):
        curves.place(plot.model_copy(update={"only": {"model": "grok-1", "by": "distinct"}}), frame, "figure f")


def test_without_a_value_means_the_rows_that_have_none(config, tmp_path):
    arms = [{"label": "less", "memory_factor": 0.8}]
    change(config, computed=[{"fix": POINT}, {"fix": POINT, "cross": {"change": arms}}], figures=[], printed_in=None)
    plan = make_plan(Config(config), "test")
    collect.collect(keep(plan, tmp_path), tmp_path, tmp_path / "t")
    frame = curves.of_experiment(tmp_path / "t", "qs-inequality")
    batches = {}
    for wanted in (None, "less", [None, "less"]):
        plot = Plot.model_validate(FIGURE | {"hue": "batch_moe", "only": {"by": "distinct", "variant": wanted}})
        batches[str(wanted)] = curves.place(plot, frame, "figure f").rows["batch_moe"].tolist()
    assert len(batches["None"]) == len(batches["less"]) == 1 and batches["less"] < batches["None"]
    assert sorted(batches["[None, 'less']"]) == sorted(batches["less"] + batches["None"])


@pytest.mark.parametrize(
    ("change_row", "words"),
    [
        (lambda n: n["rows"][0]["printed"].update(speed="3"), "unknown quantity 'speed'; did you mean 'speedup'?"),
        (lambda n: n["rows"][0]["given"].pop("gpus"), "gpus is missing"),
        (lambda n: n["rows"][0].pop("model"), "model is missing"),
        (lambda n: n.update(id="table44"), "no formulas for the table 'table44'; did you mean 'table4'?"),
    ],
)
def test_a_mistake_in_what_a_paper_prints_is_one_line(config, change_row, words):
    path = config / "papers/qs-inequality.yaml"
    paper = studies.read(path)
    change_row(next(n for n in paper["numbers"] if n["id"] == "table4"))
    studies.write(path, paper)
    with pytest.raises(ConfigError) as error:
        make_plan(Config(config), "test")
    assert words in str(error.value) and "qs-inequality.yaml" in str(error.value)
