"""Models crossed with precisions, layouts and shares pruned: the shipped experiment, and the figures that show it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_hex, to_rgb

import studies
from moebench import figures
from moebench.commands.cli import main
from moebench.config import Plot, parse
from moebench.errors import ConfigError
from moebench.figures import draw, layout, pareto, style
from moebench.figures.kinds import KINDS, Source

THROUGHPUT = "throughput_total_tokens_per_s"
LLMS = {"mixtral-8x7b", "olmoe-1b-7b", "qwen1.5-moe-a2.7b", "qwen3-30b-a3b", "phi-3.5-moe", "deepseek-v2-lite"}


def alone(study: str) -> dict[str, Any]:
    """The plan of a study with no experiment but this."""
    plan = studies.planned(study)
    return plan | {"experiments": {"matrix": plan["experiments"]["matrix"]}}


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    return alone("paper")


def points(plan: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Model, precision, GPUs and share of every point, whether it can be or not."""
    asked = plan["experiments"]["matrix"]
    engines = [plan["engines"][row["engine"]] for row in asked["rows"]]
    configs = [(e["model"]["name"], e["config"]) for e in engines]
    configs += [(row["model"]["name"], row["config"]) for row in asked.get("unsupported", ())]
    rows = [*asked["rows"], *asked.get("unsupported", ())]
    return [
        (model, row["labels"]["precision"], config["tp"], config["prune_ratio"])
        for row, (model, config) in zip(rows, configs, strict=True)
    ]


def test_the_papers_models_are_crossed_with_everything(paper) -> None:
    every = set(itertools.product(LLMS, ["BF16", "FP8", "INT4"], [1, 2, 4], [0, 0.25, 0.5]))
    assert len(every) == 162 and sorted(points(paper)) == sorted(every), "each once, none left out"
    schemes = {(p[1], c) for p, c in zip(points(paper), quantizations(paper), strict=True)}
    assert schemes == {("BF16", "none"), ("FP8", "fp8"), ("INT4", "gptq")}


def quantizations(plan: dict[str, Any]) -> list[str]:
    asked = plan["experiments"]["matrix"]
    made = [plan["engines"][row["engine"]]["config"]["quantization"] for row in asked["rows"]]
    return made + [row["config"]["quantization"] for row in asked.get("unsupported", ())]


@pytest.mark.parametrize("study", ["tiny", "tiny-full", "paper"])
def test_accuracy_is_asked_where_speed_is_measured(study: str) -> None:
    asked = studies.planned(study)["experiments"]["matrix"]
    speed, answered = ({r["engine"] for r in asked[key]} for key in ("rows", "accuracy"))
    assert answered <= speed
    assert answered == speed or study == "tiny"
    if asked.get("unsupported") and study != "tiny":
        assert {r["engine"] for r in asked["unsupported_accuracy"]} == {r["engine"] for r in asked["unsupported"]}


def test_the_small_study_shares_engine_configurations_and_shows_points_that_cannot_be() -> None:
    plan = studies.planned("tiny")
    asked = plan["experiments"]["matrix"]
    mine = {row["engine"] for row in asked["rows"]}
    others = {r["engine"] for name, e in plan["experiments"].items() if name != "matrix" for r in e["rows"]}
    assert len(mine) == 6 and len(mine - others) == 1, "few more loads"
    crossed = {(p[0], p[1], p[3]) for p in points(alone("tiny")) if p[2] == 1}
    pruned = [("tiny-mixtral", "BF16"), ("tiny-olmoe", "FP32")]
    assert crossed == {("tiny-mixtral", "FP32", 0), *((*pair, share) for pair in pruned for share in (0, 0.5))}
    refused = [(row["config"]["tp"], row["reason"]) for row in asked["unsupported"]]
    assert refused == [(3, "tp 3 does not divide the 8 attention heads of Tiny Mixtral; use a divisor of 8")]


# --------------------------------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def answered(paper) -> Source:
    """Every cell of the experiment with a made-up speed and accuracy: fewer bits and more GPUs are faster."""
    (source,) = figures._planned(paper)
    frame = source.cells
    good = frame["predicted_fits"].fillna(False).astype(bool)
    speed = 1000.0 * frame["tp"].astype(float) * (16 / frame["weight_bits"].astype(float)) * (1 + frame["prune_ratio"])
    share = 0.7 - 0.2 * frame["prune_ratio"].astype(float) - 0.002 * (16 - frame["weight_bits"].astype(float))
    frame["status"] = np.where(good, "ok", "oom_weights")
    for name, values, wide in ((THROUGHPUT, speed, 10.0), ("accuracy", share, 0.001)):
        for end, shift in (("", 0), ("_low", -wide), ("_high", wide)):
            frame[name + end] = (values + shift).where(good).astype(float)
    frame["accuracy_status"] = frame["status"]
    frame["accuracy_of"] = "2 tasks, all counting the same: a acc, b acc"
    return frame_of(source, frame)


def frame_of(source: Source, frame: pd.DataFrame) -> Source:
    filled = frame.assign(n_repeats=5, unstable=False, throttled=False, accuracy_chance=0.4)
    return Source(source.plan, "matrix", filled)


def plot(source: Source, name: str, **changed: Any) -> Plot:
    (found,) = (p for p in figures.plots(source.plan, "matrix") if p.id == name)
    return parse(Plot, found.model_dump() | changed, "x.yaml")


def place(source: Source, name: str, **changed: Any) -> Any:
    chosen = plot(source, name, **changed)
    return KINDS[chosen.kind].place(chosen, source, "figure f")


def test_one_figure_each_of_speed_accuracy_and_the_front_shows_all_four_knobs(answered) -> None:
    for name, roles in (("matrix-speed", 4), ("matrix-accuracy", 4), ("matrix-pareto", 3)):
        placed = place(answered, name).placed
        axes = {role: axis.name for role, axis in placed.axes.items() if axis.name not in ("accuracy",)}
        assert len(axes) == roles
        assert {part for column in axes.values() for part in column.split(" + ")} == {
            "precision", "prune_ratio", "tp", "model_title"
        }  # fmt: skip
        assert len(placed.rows) == len(answered.cells), "no cell is left out"


def test_a_row_has_no_panel_for_a_size_that_its_grid_lacks() -> None:
    plan = studies.planned("tiny")
    (source,) = (s for s in figures._planned(plan) if s.experiment == "matrix")
    values = dict.fromkeys((THROUGHPUT, f"{THROUGHPUT}_low", f"{THROUGHPUT}_high"), 1.0)
    source = frame_of(source, source.cells.assign(status="ok", **values))
    with style.drawing():
        made = layout.figure(place(source, "matrix-speed").placed, "Caption.")
    shown = {(a.get_subplotspec().rowspan.start, a.get_subplotspec().colspan.start) for a in made.axes if a.axison}
    assert shown == {(0, 0), (0, 1), (0, 2), (1, 0)}, "Mixtral at TP 1, 2 and 3, OLMoE at TP 1"


def test_a_hue_of_two_knobs_has_a_colour_for_the_first_and_shades_for_the_second(answered) -> None:
    placed = place(answered, "matrix-pareto").placed
    assert placed.axes["hue"].label == "Precision, Share pruned"
    assert placed.levels("hue") == tuple(f"{p} · {r}" for p in ("BF16", "FP8", "INT4") for r in ("0", "0.25", "0.5"))
    colours = [np.array(to_rgb(colour)) for _, colour, _ in draw.series(placed)]
    for i in (0, 3, 6):
        assert to_hex(colours[i]).upper() == style.CATEGORIES[i // 3]
        assert colours[i].sum() < colours[i + 1].sum() < colours[i + 2].sum() < 3, "paler, and not white"
    turned = place(answered, "matrix-pareto", hue="prune_ratio + precision").placed
    assert turned.levels("hue")[:4] == ("0 · BF16", "0 · FP8", "0 · INT4", "0.25 · BF16")


def test_the_marker_is_the_third_knob_and_each_panel_has_its_front(answered) -> None:
    figure = place(answered, "matrix-pareto")
    said = figure.caption()
    with style.drawing():
        made = layout.figure(figure.placed, said)
    axes = [a for a in made.axes if a.axison]
    assert len(axes) == len(LLMS)
    drawn = {(bars.lines[0].get_marker(), to_hex(bars.lines[0].get_color())) for a in axes for bars in a.containers}
    assert {marker for marker, _ in drawn} == set(style.MARKERS[:3]) and len(drawn) == 27
    legend = [text.get_text() for part in made.legends for text in part.get_texts()]
    assert [t for t in legend if t in ("1", "2", "4")] == ["1", "2", "4"]
    assert "one marker for each Tensor parallel size: 1, 2, 4" in figure.alt_text()
    table = figure.table()
    best = table[table[f"frontier_{THROUGHPUT}"]]
    assert set(best["model_title"]) == set(table["model_title"]) and set(best["tp"]) == {4}, "more GPUs are faster"
    fronts = best.groupby("model_title")["precision + prune_ratio"].agg(set)
    assert fronts["OLMoE-1B-7B"] == {"BF16 · 0", "FP8 · 0", "INT4 · 0", "INT4 · 0.25", "INT4 · 0.5"}
    assert not any("INT4" in point for point in fronts["DeepSeek-V2-Lite"]), "no kernel takes its width on 4 GPUs"


def test_a_width_that_no_kernel_takes_is_a_row_in_the_papers_cross(paper) -> None:
    refused = {(row["labels"]["precision"], row["labels"]["tp"], row["labels"]["model"], row["reason"])
               for row in paper["experiments"]["matrix"]["unsupported"]}  # fmt: skip
    ((precision, tp, model, reason),) = refused
    assert (precision, tp, model) == ("INT4", 4, "deepseek-v2-lite") and "dense_ffn_size 10944" in reason
    assert len(paper["experiments"]["matrix"]["unsupported"]) == 3, "at every share pruned"


def test_points_have_rows_of_panels_each_with_a_front_of_its_own(answered) -> None:
    figure = place(answered, "matrix-pareto", row="model_title", panel="tp", marker=None)
    assert len(layout.grid(figure.placed)) == len(LLMS) and len(layout.grid(figure.placed)[0]) == 3
    table = figure.table().assign(row=figure.placed.rows["row"], panel=figure.placed.rows["panel"])
    fronts = table[table[f"frontier_{THROUGHPUT}"]].groupby(["row", "panel"]).size()
    assert len(fronts) == 18, "one in each panel"
    assert pareto.has_frontier(figure.placed)


@pytest.mark.parametrize(("change", "words"), [
    ({"y": [THROUGHPUT, "e2e_s"], "row": "tp"}, "row is for figures with one y; this one has 2"),
    ({"marker": None}, "3 cells have the same position and differ in tp"),
    ({"hue": ["precision", "prune_ration"]}, "'prune_ration' is neither a column .* did you mean 'prune_ratio'"),
    ({"marker": "tpp"}, "'tpp' is neither"),
    ({"log_x": True}, "log_x: not for a figure of kind pareto"),
    ({"hue": ["precision", "tp", "model"]}, "hue is .*hue takes one column or two"),
    ({"hue": [1, 2]}, "hue takes one column or two"),
    ({"kind": "lines", "x": "tp", "y": [THROUGHPUT]}, "marker: only for a figure of kind pareto"),
])  # fmt: skip
def test_a_mistake_in_it_is_one_line(answered, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        place(answered, "matrix-pareto", **change)
    assert "\n" not in str(error.value)


def test_an_error_of_a_figure_names_the_file_that_was_given(tmp_path: Path, capsys) -> None:
    bad = {"id": "f", "number": "1", "title": "F", "kind": "lines", "x": "bacth", "y": ["e2e_s"]}
    block = {"fix": {"model": "tiny-mixtral"}, "cross": {"batch": [1, 2]}}
    folder = studies.folder(tmp_path / "mine", {"own": {"blocks": [block], "figures": [bad]}}, models="models")
    with pytest.raises(SystemExit):
        main(["plan", "--config", str(folder), "--results", str(tmp_path / "results")])
    assert f"{folder}/experiments/own.yaml: figure f: 'bacth'" in capsys.readouterr().err
    text = yaml.safe_load((folder / "experiments/own.yaml").read_text())
    text["figures"][0]["kind"] = "pie"
    studies.write(folder / "experiments/own.yaml", text)
    with pytest.raises(SystemExit):
        main(["plan", "--config", str(folder), "--results", str(tmp_path / "results")])
    assert f"{folder}/experiments/own.yaml: figures.0.kind is 'pie'" in capsys.readouterr().err
