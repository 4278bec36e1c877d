"""Experiments about models: parameters by layer, corrected tables. Figures, report and archive: tests/report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import studies
from moebench import figures
from moebench.commands.cli import main
from moebench.commands.planning import make_plan
from moebench.config import Config, Experiment, Plot, parse
from moebench.cost import params
from moebench.errors import ConfigError, StorageError
from moebench.figures import parameters as drawing
from moebench.plan import parameters
from moebench.report import architectures
from studies import ROOT

CONFIG = Config(ROOT / "config")
MODELS = sorted(p.stem for p in (ROOT / "config/models").glob("*.yaml"))
FIG01 = CONFIG.experiment("fig01-parameters")
PAPER = CONFIG.paper("moe-inference-bench", "test")
CELL = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8}


@pytest.fixture
def config(tmp_path):
    """A configuration folder whose study asks for parameters only."""
    folder = studies.folder(tmp_path, {"x": [{"fix": CELL}]})
    change(folder / "studies/test.yaml", experiments=["fig01-parameters"])
    shutil.copytree(ROOT / "config/papers", folder / "papers")
    shutil.copy(ROOT / "config/experiments/fig01-parameters.yaml", folder / "experiments")
    return folder


def change(path: Path, **keys):
    studies.write(path, studies.read(path) | keys)


# ------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize("name", MODELS)
def test_layers_add_up_to_the_model(name):
    architecture = CONFIG.model(name).architecture
    layers = params.by_layer(architecture)
    assert sum(part.count for part in layers if part.kind != "outside") == architecture.layers
    assert sum(part.count * part.total.total for part in layers) == params.total_parameters(architecture).total
    assert sum(part.count * part.active.total for part in layers) == params.active_parameters(architecture).total
    rows = pd.DataFrame(parameters.of_model(architecture))
    assert rows["total_parameters"].sum() == params.total_parameters(architecture).total
    assert rows[["total_share", "active_share"]].sum().tolist() == pytest.approx([1, 1])
    inside = rows[rows["layers"].notna()]
    assert (inside["layers"] * inside["layer_total_parameters"] == inside["total_parameters"]).all()
    assert (rows["active_parameters"] <= rows["total_parameters"]).all()


def test_a_layer_by_hand():
    moe, dense, outside = params.by_layer(CONFIG.model("deepseek-v2-lite").architecture)
    assert (moe.kind, moe.count, dense.kind, dense.count, outside.kind) == ("moe", 26, "dense", 1, "outside")
    assert moe.total.routed_experts == 64 * 3 * 2048 * 1408 and moe.active.routed_experts == 6 * 3 * 2048 * 1408
    assert moe.total.shared_experts == moe.active.shared_experts == 3 * 2048 * 2816
    assert (dense.total.dense_ffn, dense.total.router) == (3 * 2048 * 10944, 0)
    assert (outside.total.embeddings, outside.total.norms, outside.total.attention) == (2 * 102400 * 2048, 2048, 0)


def test_an_input_embedding_counts_once():
    assert params.input_embedding(CONFIG.model("mixtral-8x7b").architecture) == 32000 * 4096
    assert params.input_embedding(CONFIG.model("qwen3-0.6b").architecture) == 0, "tied"


# ---------------------------------------------------------------------------------------------- plan


@pytest.mark.parametrize("study", ["tiny", "paper"])
def test_both_studies_show_the_models_of_the_paper(study):
    plan = studies.planned(study)
    asked = plan["experiments"]["fig01-parameters"]
    assert [m["name"] for m in asked["models"]] == [row.model for row in PAPER.architectures.rows]
    assert asked["rows"] == [] and asked["printed"]["architectures"]["source"] == "Table 1"
    assert plan["experiments"]["fig03-latency-llms"]["models"] == []
    figures.check(plan)


def test_a_study_without_cells_is_planned(config, capsys, monkeypatch, tmp_path):
    plan = make_plan(Config(config), "test")
    assert (plan["cells"], plan["engines"], plan["jobs"]) == ({}, {}, {})
    monkeypatch.chdir(tmp_path)
    for options in ([], ["--cells"], ["--summary"]):
        with pytest.raises(SystemExit) as end:
            main(["plan", "--config", str(config), *options])
        assert end.value.code == 0
    said = capsys.readouterr().out
    assert "fig01-parameters      0      0         0" in said
    assert "0 distinct cells, 0 engine loads, 0 jobs" in said


def test_such_an_experiment_changes_no_cell(config):
    change(config / "studies/test.yaml", experiments=["x"])
    before = make_plan(Config(config), "test")
    change(config / "studies/test.yaml", experiments=["fig01-parameters", "x"])
    after = make_plan(Config(config), "test")
    assert (after["cells"], after["engines"], after["jobs"]) == (before["cells"], before["engines"], before["jobs"])


def test_a_model_that_changes_changes_the_plan(config):
    before = make_plan(Config(config), "test")["digest"]
    path = config / "models/mixtral-8x7b.yaml"
    path.write_text(path.read_text().replace("layers: 32", "layers: 31"))
    assert make_plan(Config(config), "test")["digest"] != before


MISTAKES = {
    "unknown model": ({"models": ["mixtral-8x7"], "figures": []}, "unknown model 'mixtral-8x7'; did you mean"),
    "unknown paper": ({"printed_in": "moe-bench"}, "unknown paper 'moe-bench'; did you mean 'moe-inference-bench'"),
    "neither grid nor models": ({"models": [], "figures": []}, "grid is missing; give a grid, accuracy, computed"),
    "figure of another model": (
        {"models": ["mixtral-8x7b", "olmoe-1b-7b"]}, "figure fig01: model 'qwen1.5-moe-a2.7b' is not one of"),
    "figure of cells": (
        {"figures": [{"id": "f", "number": "1", "title": "F", "kind": "bars", "x": "batch", "y": ["e2e_s"]}]},
        "figure f of kind bars needs a grid"),
    "axis": (
        {"figures": [{"id": "f", "number": "1", "title": "F", "kind": "parameters", "x": "batch"}]},
        "x: not for a figure of kind parameters"),
    "paper without models": (
        {"models": [], "grid": {"test": [{"fix": CELL}]}, "figures": []}, "printed_in needs models"),
    "parameters without models": (
        {"models": [], "printed_in": None, "grid": {"test": [{"fix": CELL}]}}, "fig01 of kind parameters needs models"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(config, mistake):
    keys, words = MISTAKES[mistake]
    path = config / "experiments/fig01-parameters.yaml"
    change(path, **keys)
    with pytest.raises(ConfigError) as error:
        make_plan(Config(config), "test")
    assert str(error.value).startswith(str(path)) and words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "bars", "y": ["e2e_s"]}, "x is missing: a figure of kind bars needs x and y"),
        ({"kind": "lines", "x": "batch"}, "y is missing: a figure of kind lines needs x and y"),
        ({"kind": "lines", "x": "batch", "y": ["e2e_s"], "models": ["olmoe-1b-7b"]}, "models: not for a figure of"),
    ],
)
def test_figures_of_cells_need_their_axes(keys, words):
    with pytest.raises(ConfigError, match=words):
        parse(Plot, {"id": "f", "number": "1", "title": "F"} | keys, "f.yaml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("model: olmoe-1b-7b", "model: olmoe", "unknown model 'olmoe'; did you mean"),
        ("total_parameters: 7.2B", "total_parameters: 7.2", "architectures.rows.5.total_parameters is 7.2"),
        (
            "ffn_size: the width of the shared",
            "ffn_sise: the width of the shared",
            "no column 'ffn_sise'; did you mean 'ffn_size'",
        ),
    ],
)
def test_a_mistake_in_the_papers_file_is_one_line(config, old, new, words):
    path = config / "papers/moe-inference-bench.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        make_plan(Config(config), "test")
    assert str(error.value).startswith(str(path)) and words in str(error.value)


# ------------------------------------------------------------------------------------------- table 1


def corrected() -> architectures.Table:
    made = architectures.table(FIG01.model_dump() | parameters.facts(CONFIG, FIG01))
    assert made is not None
    return made


def test_what_is_marked_is_what_the_paper_has_wrong():
    """The list of facts/architectures.md, and nothing else."""
    shape = {"Layers", "Hidden size", "FFN width per expert", "Routed experts", "Active experts"}
    made = corrected()
    heads = [head for head, _ in made.heads]
    marked = {title: {h for h, c in zip(heads, cells, strict=True) if c.printed} for title, cells in made.rows}
    assert {title: columns for title, columns in marked.items() if columns} == {
        "Qwen1.5-MoE-A2.7B": {"FFN width per expert"},
        "Qwen3-30B-A3B": {"Hidden size", "FFN width per expert"},
        "OLMoE-1B-7B": {"FFN width per expert", "Parameters"},
        "DeepSeek-VL2-Tiny": shape,
        "DeepSeek-VL2-Small": shape - {"Hidden size"},
        "DeepSeek-VL2": shape,
    }


def test_every_mark_has_a_reason_and_every_reason_a_mark():
    made = corrected()
    letters = [letter for letter, _ in made.reasons]
    assert letters == sorted(set(letters)) == sorted({c.mark for _, cells in made.rows for c in cells if c.mark})
    assert not [text for _, text in made.reasons if architectures.UNKNOWN in text]
    given = sum(len(row.why) for row in PAPER.architectures.rows)
    assert given == sum(bool(c.mark) for _, cells in made.rows for c in cells), "a reason for a value that is right"


def test_true_values_stand_in_the_table():
    made = corrected()
    rows = {title: [c.text for c in cells] for title, cells in made.rows}
    assert rows["Mixtral-8x7B"] == ["Text", "32", "4096", "14336", "none", "8", "2", "46.7 B", "12.9 B"]
    assert rows["DeepSeek-VL2-Tiny"] == [
        "Text + Image", "12", "1280", "896", "1792", "64", "6", "3.37 B", "1.18 B"
    ]  # fmt: skip
    asides = {title: cells[-1].aside for title, cells in made.rows if cells[-1].aside}
    assert asides["DeepSeek-V2-Lite"] == "published 2.4 B" and "Mixtral-8x7B" not in asides
    assert any("without the input embedding" in n and "DeepSeek-V2-Lite 2.45 B" in n for n in made.notes)


def test_a_rows_own_sizes_may_refute_it():
    reasons = " ".join(text for _, text in corrected().reasons)
    experts = 48 * 128 * 3 * 5120 * 13824
    assert f"routed experts alone would have {experts / 1e9:,.0f} B parameters; the row says 30.5B in total" in reasons
    assert "active experts alone would have 3.25 B parameters; the row says 2.8B active" in reasons


def test_sizes_agree_to_half_a_unit_of_their_last_digit():
    assert architectures.agrees("47B", 46.5e9) and not architectures.agrees("47B", 46.49e9)
    assert architectures.agrees("12.9B", 12.88e9) and not architectures.agrees("12.9B", 12.96e9)
    assert architectures.agrees("1.0B", 1.05e9) and not architectures.agrees("1.0B", 1.06e9)
    assert not architectures.agrees("2.4B", None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (46.7028e9, "46.7 B"),
        (999.6e6, "1,000 M"),
        (41.94e6, "41.9 M"),
        (8192, "8.19 k"),
        (12, "12"),
        (1.3e12, "1,300 B"),
    ],
)
def test_numbers_of_parameters_are_short(value, text):
    assert architectures.billions(value) == text


def test_without_a_paper_nothing_is_marked():
    alone = parse(
        Experiment, {"name": "x", "title": "X", "question": "?", "models": ["switch-c-2048", "qwen3-8b"]}, "x"
    )
    made = architectures.table(alone.model_dump() | parameters.facts(CONFIG, alone))
    assert made is not None and not made.reasons and made.source == ""
    assert [c.text for c in made.rows[1][1]][3:6] == ["none", "none", "none"], "a dense model"
    assert architectures.table({"rows": []}) is None, "plans of older versions have no models"


def test_a_reason_that_is_not_given_is_said_to_be_unknown(config):
    path = config / "papers/moe-inference-bench.yaml"
    path.write_text(path.read_text().replace("        ffn_size: the width of the shared expert\n", "        {}\n"))
    plan = make_plan(Config(config), "test")
    made = architectures.table(plan["experiments"]["fig01-parameters"])
    assert made is not None and made.reasons[0][1].startswith(
        "Qwen1.5-MoE-A2.7B, FFN width per expert: reason unknown."
    )


def test_tables_of_another_plan_are_one_line():
    plot = FIG01.figures[0].model_copy(update={"models": ("grok-1",)})
    table = parameters.rows({"study": "s", "experiments": {FIG01.name: parameters.facts(CONFIG, FIG01)}})
    with pytest.raises(StorageError, match=r"figure f: model grok-1 .*moebench report"):
        drawing.place(plot, pd.DataFrame(table), "figure f")
