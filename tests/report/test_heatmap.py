"""Heat maps: a panel per cell, failed ones included, one scale, labels apart, wrong figures refused."""

from __future__ import annotations

import random

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.text import Text
from test_figures import touching

import studies
import synthetic
from moebench import figures
from moebench.claims import collect
from moebench.config import Config, Experiment, Plot, parse
from moebench.errors import ConfigError
from moebench.figures import caption, data, heatmap, style
from moebench.measure import records
from moebench.plan.file import read_plan
from moebench.tables import join, parquet
from studies import ROOT

MAPS = {"id": "maps", "number": "15", "title": "How often each expert is chosen", "kind": "heatmap", "x": "expert",
        "y": ["layer"], "value": "relative_activation", "panel": "model_title", "beside": ["gini", "max_over_mean"],
        "only": {"phase": "all", "batch": 4}}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Five models: two with maps of different sizes, one not supported, one out of memory, one not measured."""
    root, rng = tmp_path_factory.mktemp("maps"), random.Random(1)
    plan = synthetic.Plan(kind="activation", repeats=1)
    plan.experiment("maps", synthetic.figure("maps", "heatmap", "expert") | MAPS)
    for number, model in enumerate(synthetic.TITLES):
        work = {"batch": 4, "prompts": "items"}
        ids = plan.add("maps", {"model": model}, work, model=model)
        more = [{"activation": synthetic.routing(rng, 27, 64)}, {"activation": synthetic.routing(rng, 4, 8, never=2)},
                {"status": "unsupported"}, {"status": "oom_kv"}, None][number]  # fmt: skip
        if more is not None:
            repeats = [{"seed": 1, "metrics": {}}] if "activation" in more else []
            records.store(root, synthetic.record(plan.data, *ids, **{"repeats": repeats, "warmup": []} | more))
    path = plan.write(root)
    collect.collect(path, root, root / "tables")
    return read_plan(path), root / "tables"


def placed(study, **change) -> heatmap.Data:
    frame = data.of_experiment(study[0], join.with_status(study[1]), "maps")
    return heatmap.place(parse(Plot, MAPS | change, "test"), frame, study[1], "figure maps")


def drawn(study, maps):
    with mpl.rc_context(style.rc()):
        return heatmap.figure(maps, caption.caption(study[0], maps.rows, medians=False))


def words(made) -> list[str]:
    return [t.get_text() for t in made.findobj(Text) if t.get_visible()]


def test_every_cell_has_a_panel_that_shows_its_map_or_says_why_not(study):
    made = drawn(study, placed(study))
    panels, scale = made.axes[:-1], made.axes[-1]
    assert len(panels) == 5 and [len(a.collections) for a in panels] == [1, 1, 0, 0, 0]
    said = "\n".join(words(made)).replace("\n", " ")
    for text in ("not supported by the engine", "out of memory: KV cache", "not measured", "never chosen", "Mixtral"):
        assert text in said
    assert {a.collections[0].norm for a in panels[:2]} == {panels[0].collections[0].norm}, "one scale"
    assert panels[0].collections[0].get_array().shape == (27, 64)
    assert panels[1].collections[0].get_array().mask.sum() == 4 * 2, "what was never chosen has a colour of its own"
    assert scale.get_ylabel().replace("\n", " ") == "Use of an expert relative to even use"
    assert not touching(made)


def test_the_numbers_beside_are_the_tables(study):
    measured = parquet.read(study[1], "measurements").set_index("model_title")
    said = " ".join(words(drawn(study, placed(study)))).replace("\N{NO-BREAK SPACE}", " ")
    assert f"Gini {measured.loc['Mixtral (tiny)', 'gini']:.2f}" in said
    told = heatmap.described(placed(study), "Said.")
    assert f"Gini {measured.loc['OLMoE (tiny)', 'gini']:.2f}" in told and "not measured" in told


@pytest.mark.parametrize(("values", "end"), [([1.0], 1.1), ([0.9, 1.2], 1.25), ([0.3, 2.0], 4.0), ([0.0, 1.9], 2.0),
                                             ([0.01, 3.0], 16.0), ([], 1.1)])  # fmt: skip
def test_the_scale_is_symmetric_around_even_use_and_as_wide_as_needed(values, end):
    scale = heatmap.norm(pd.Series(values, dtype=float))
    assert (scale.vmin, scale.vmax) == (1 / end, end) and float(scale(1.0)) == pytest.approx(0.5)


def test_the_csv_has_every_place_and_every_failed_cell(study):
    table = heatmap.table(placed(study))
    assert len(table) == 27 * 64 + 4 * 8 + 3
    failed = table[table["status"] != "ok"]
    assert failed["expert"].isna().all() and set(failed["status"]) == {"unsupported", "oom_kv", "not measured"}
    assert {"relative_activation", "activations", "layer", "expert", "phase", "model_title"} <= set(table.columns)


def test_files_are_the_same_each_time(study, tmp_path):
    first = figures.render(study[0], study[1], tmp_path / "a", "maps")
    second = figures.render(study[0], study[1], tmp_path / "b", "maps")
    assert [p.suffix for p in first] == [".svg", ".csv"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


@pytest.mark.parametrize(("change", "text"), [
    ({"only": {"phase": "all", "batch": 5}}, "only: no row of the experiment has batch 5"),
    ({"only": {"phase": "all", "bacth": 4}}, "only: unknown column 'bacth'; did you mean 'batch'"),
    ({"only": {}}, "several values have the same position; select one of phase with only"),
    ({"panel": None}, "5 cells have the same position and differ in model"),
    ({"value": "e2e_s"}, "no table has all of expert, layer, e2e_s"),
    ({"value": "relative_activatoin"}, "unknown column 'relative_activatoin'; did you mean 'relative_activation'"),
    ({"beside": ["ginni"]}, "beside: 'ginni' is not a number of a cell; did you mean 'gini'"),
])  # fmt: skip
def test_a_figure_that_cannot_be_drawn_says_why(study, change, text):
    with pytest.raises(ConfigError, match=text):
        placed(study, **change)


@pytest.mark.parametrize(("change", "text"), [
    ({"value": None}, "a figure of kind heatmap needs value"),
    ({"hue": "batch"}, "it takes no hue"),
    ({"y": ["layer", "phase"]}, "and one y"),
    ({"kind": "lines"}, "value, beside: not for a figure of kind lines"),
    ({"kind": "parameters"}, "x, y, value, beside, only, panel: not for a figure of kind parameters"),
])  # fmt: skip
def test_keys_of_other_kinds_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        parse(Plot, MAPS | change, "file.yaml")


def test_the_figures_of_figure_15_can_be_placed_before_anything_is_measured():
    config = Config(ROOT / "config")
    assert isinstance(config.experiment("fig15-activation"), Experiment)
    for study in ("tiny", "paper"):
        plan = studies.planned(study)
        figures.check(plan | {"experiments": {"fig15-activation": plan["experiments"]["fig15-activation"]}})


def test_lines_and_bars_take_only_too(study):
    frame = data.of_experiment(study[0], join.with_status(study[1]), "maps")
    plot = {"id": "b", "number": "1", "title": "T", "kind": "bars", "x": "model_title", "y": ["gini"]}
    placed = data.place(parse(Plot, plot | {"only": {"batch": 4}}, "t"), frame, "figure b")
    assert len(placed.rows) == 5
    assert "not representative of trained models" in caption.of(study[0], placed)
    assert "Median" not in caption.of(study[0], placed)
