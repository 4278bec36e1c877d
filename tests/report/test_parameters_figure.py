"""Figures of models' parameters: whole bars, labels apart, every number in the files."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.text import Text

import studies
from moebench import figures
from moebench.claims import collect
from moebench.commands.planning import keep
from moebench.config import Config, Experiment, Plot, parse
from moebench.figures import parameters as drawing
from moebench.figures import style
from moebench.plan import parameters
from studies import ROOT

CONFIG = Config(ROOT / "config")
FIG01 = CONFIG.experiment("fig01-parameters")


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """The tables of the tiny study, nothing measured."""
    root = tmp_path_factory.mktemp("counted")
    path = keep(studies.planned("tiny"), root)
    collect.collect(path, root, root / "tables", results_name="results")
    return root / "tables"


@pytest.mark.parametrize("plot", FIG01.figures, ids=lambda plot: plot.id)
def test_bars_are_whole_and_labels_stand_apart(counted, plot):
    frame = drawing.place(plot, drawing.of_experiment(counted, FIG01.name), "f")
    with mpl.rc_context(style.RC):
        made = drawing.figure(plot, frame)
    made.draw_without_rendering()
    models = list(dict.fromkeys(frame["model_title"]))
    assert models == [CONFIG.model(name).title for name in plot.models or FIG01.models]
    shares, numbers = made.axes
    by_bar: dict[float, float] = {}
    for bar in shares.patches:
        by_bar[bar.get_y()] = by_bar.get(bar.get_y(), 0.0) + bar.get_width()
    assert len(by_bar) == 2 * len(models) and list(by_bar.values()) == pytest.approx([100] * len(by_bar))
    assert sum(bar.get_width() for bar in numbers.patches) * 1e9 == pytest.approx(
        frame["total_parameters"].sum() + frame["active_parameters"].sum()
    )
    texts = [t for t in made.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    touching = [
        (a, b)
        for (a, x), (b, y) in itertools.combinations(boxes, 2)
        if min(x.x1, y.x1) - max(x.x0, y.x0) > 1 and min(x.y1, y.y1) - max(x.y0, y.y0) > 1
    ]
    assert touching == []
    width, height = made.canvas.get_width_height()
    assert all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= width + 1 and b.y1 <= height + 1 for _, b in boxes)
    assert min(t.get_fontsize() for t in texts) >= 7
    said = {t.get_text() for t in texts}
    assert {"97%", "88%", "46.7", "12.9", "Router (up to 0.2%)" if plot.models else "Router (up to 0.4%)"} <= said


def test_files_hold_every_number(counted, tmp_path):
    files = figures.render(studies.planned("tiny"), counted, tmp_path, FIG01.name)
    assert [p.name for p in files][:2] == ["fig01.svg", "fig01.csv"]
    table = pd.read_csv(tmp_path / "fig01.csv")
    mixtral = table[table["model"] == "mixtral-8x7b"]
    assert mixtral["total_parameters"].sum() == 46_702_792_704
    assert set(table["layer_kind"]) == {"moe", "outside"}
    assert "nothing was measured" in (tmp_path / "fig01.svg").read_text()
    assert "H100" not in (tmp_path / "fig01.svg").read_text()


def test_tiny_models_are_counted_in_millions(tmp_path):
    asked = {"name": "x", "title": "X", "question": "?", "models": ["tiny-olmoe", "qwen3-0.6b"]}
    experiment = parse(Experiment, asked, "x")
    plan = {"study": "s", "experiments": {"x": parameters.facts(CONFIG, experiment)}}
    frame = pd.DataFrame(parameters.rows(plan))
    plot = Plot(id="f", number="1", title="T", kind="parameters")
    with mpl.rc_context(style.RC):
        made = drawing.figure(plot, drawing.place(plot, frame, "f"))
    assert made.axes[1].get_xlabel() == "Parameters (million)"
    assert "596" in [t.get_text() for t in made.axes[1].texts]
