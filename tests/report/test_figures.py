"""Figures: rows placed on axes, nothing left out silently, labels apart, the same bytes each time."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import synthetic
from moebench import figures
from moebench.claims import collect
from moebench.config import Plot
from moebench.errors import ConfigError
from moebench.figures import caption, data, draw, header, layout, style, ticks, tiles, unsupported
from moebench.tables import join

THROUGHPUT = "throughput_total_tokens_per_s"


def placed(rich, experiment: str, **plot) -> data.Data:
    plan, _, out = rich
    made = Plot.model_validate({"id": "f", "number": "1", "title": "T", "kind": "lines", "y": [THROUGHPUT]} | plot)
    cells = data.of_experiment(plan, join.with_status(out), experiment)
    return data.place(made, cells, f"experiment {experiment}, figure f")


def drawn(rich, where: data.Data, on: style.Sheet = style.PAGE):
    with style.drawing(on):
        return layout.figure(where, caption.caption(rich[0], where.rows))


def texts(made) -> list[Text]:
    """What is written; labels of ticks beyond an axis are not."""
    ticks = [(t, a.get_ylim()) for a in made.axes for t in a.yaxis.get_major_ticks()]
    beyond = {t.label1 for t, (low, high) in ticks if not low <= t.get_loc() <= high}
    return [t for t in made.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in beyond]


def touching(made) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap by more than a pixel; slanted ones must be a line apart across their slant."""
    made.draw_without_rendering()
    level = [(t.get_text(), t.get_window_extent()) for t in texts(made) if t.get_rotation() % 90 == 0]
    found = [
        (a, b)
        for (a, x), (b, y) in itertools.combinations(level, 2)
        if min(x.x1, y.x1) - max(x.x0, y.x0) > 1 and min(x.y1, y.y1) - max(x.y0, y.y0) > 1
    ]
    slanted = sorted((t.get_window_extent().x1, t) for t in texts(made) if t.get_rotation() % 90)
    for (x, a), (y, b) in itertools.pairwise(slanted):
        if (y - x) * math.sin(math.radians(a.get_rotation())) < a.get_fontsize() * made.dpi / 72:
            found.append((a.get_text(), b.get_text()))
    return found


def test_names_that_must_be_slanted_stand_in_one_line():
    """Two lines of a slanted name lie over the next name."""
    names = ["as Table 2", "memory -25%", "memory +25%", "bandwidth -25%", "bandwidth +25%", "link 448 GB/s"]
    with style.drawing(style.PHONE):
        made = Figure(figsize=(style.PHONE.width_in, 3))
        FigureCanvasAgg(made)
        axes = made.add_axes((0.2, 0.3, 0.7, 0.6))
        axes.set_xticks(range(len(names)), names)
        layout._settle(made, np.array([[axes]]), numeric=False)
        made.draw_without_rendering()
        shown = [t.get_text() for t in axes.get_xticklabels()]
        assert axes.get_xticklabels()[0].get_rotation() == layout.SLANT and shown == names


# ----------------------------------------------------------------------------------------- placing


def test_an_unknown_column_is_told_the_nearest(rich):
    with pytest.raises(ConfigError, match=r"figure f: 'bacth'.*'batch'"):
        placed(rich, "batch", x="bacth", hue="top_k", panel="model")
    with pytest.raises(ConfigError, match="y is 'batch'"):
        placed(rich, "batch", x="top_k", y=["batch"])
    with pytest.raises(ConfigError, match="no experiment 'bach'; did you mean 'batch'"):
        figures.render(rich[0], rich[2], rich[1], "bach")


def test_cells_on_one_place_are_an_error_that_names_what_tells_them_apart(rich):
    with pytest.raises(ConfigError, match=r"2 cells .*differ in model.*hue"):
        placed(rich, "batch", x="top_k", hue="batch")


def test_row_is_for_one_metric(rich):
    with pytest.raises(ConfigError, match="row is for figures with one y; this one has 2"):
        placed(rich, "parallel", x="gpus", hue="arm", row="model", y=["ttft_s", "e2e_s"])


def test_two_blocks_each_have_their_figure(tmp_path):
    """Batch at fixed length and length at fixed batch meet in one cell; each figure takes the rows that sweep its x."""
    plan = synthetic.Plan()
    plan.experiment("two")
    for batch in (1, 16, 64):
        plan.add("two", {"batch": batch}, {"batch": batch, "input_tokens": 64, "output_tokens": 64}, model="olmoe-tiny")
    for tokens in (32, 64, 128):
        work = {"batch": 16, "input_tokens": tokens, "output_tokens": tokens}
        plan.add("two", {"input_tokens = output_tokens": tokens}, work, model="olmoe-tiny")
    path = plan.write(tmp_path)
    collect.collect(path, tmp_path, tmp_path / "tables")
    rich = (plan.data, tmp_path, tmp_path / "tables")
    assert placed(rich, "two", x="batch").rows["batch"].tolist() == [1, 16, 64]
    by_length = placed(rich, "two", x="input_tokens")
    assert by_length.rows["x"].tolist() == [32, 64, 128]
    assert by_length.axes["x"].label == "Input length = output length (tokens)"


def test_an_axis_of_arms_can_be_a_hue_and_keeps_its_order(rich):
    where = placed(rich, "parallel", kind="bars", x="gpus", hue="arm", row="model")
    assert where.levels("hue") == ("TP", "TP+EP", "PP") and where.axes["hue"].label == "Arm"
    assert where.axes["row"].panel_title("OLMoE (tiny)") == "OLMoE (tiny)"


def test_numbers_are_sorted_and_named_with_their_unit(rich):
    where = placed(rich, "batch", x="top_k", hue="batch", panel="model")
    assert where.levels("hue") == (1, 16, 64, 128) and where.axes["hue"].label == "Batch size (requests)"
    shape = placed(rich, "shape", x="moe_ffn_size", hue="top_k", panel="experts")
    assert shape.axes["panel"].panel_title(8) == "Experts per layer: 8"


def test_check_finds_bad_figures_before_anything_is_measured(rich):
    figures.check(rich[0])
    broken = json.loads(json.dumps(rich[0]))
    broken["experiments"]["latency"]["figures"][0]["x"] = "modle"
    with pytest.raises(ConfigError, match=r"^mine/conf/experiments/latency\.yaml: figure fig-3: 'modle'.*'model'"):
        figures.check(broken, Path("mine/conf"))
    broken["experiments"]["latency"]["figures"][0] |= {"x": "model", "id": "fig-5"}
    with pytest.raises(ConfigError, match=r"^mine/conf/experiments/latency\.yaml: figure fig-5 .*batch"):
        figures.check(broken, Path("mine/conf"))
    with pytest.raises(ConfigError, match=r"^plan of tiny: latency: figure fig-5 .*batch"):
        figures.check(broken)  # where the plan is all that is known


# ----------------------------------------------------------------------------------------- drawing


def test_every_cell_is_drawn_as_value_or_mark(rich):
    where = placed(rich, "shape", x="moe_ffn_size", hue="top_k", panel="experts")
    made = drawn(rich, where)
    values = sum(
        pd.notna(line.get_ydata()).sum()
        for a in made.axes
        for line in a.lines
        if len(line.get_xdata()) > 1 and line.get_marker() in style.MARKERS
    )
    marks = sum(line.get_marker() == "x" for a in made.axes for line in a.lines)
    assert (values, marks) == (52, 12)
    assert {"out of memory: weights", "No value:"} <= {t.get_text() for t in texts(made)}


def test_a_line_breaks_where_a_cell_failed(tmp_path):
    plan = synthetic.Plan()
    plan.experiment("gap")
    for batch in (1, 2, 4):
        plan.add("gap", {"batch": batch}, {"batch": batch, "input_tokens": 16, "output_tokens": 8}, model="olmoe-tiny")
    synthetic.measure(plan.data, tmp_path, lambda c: {"status": "oom_kv"} if c["workload"]["batch"] == 2 else {})
    collect.collect(plan.write(tmp_path), tmp_path, tmp_path / "tables")
    rich = (plan.data, tmp_path, tmp_path / "tables")
    made = drawn(rich, placed(rich, "gap", x="batch"))
    ys = next(line.get_ydata() for line in made.axes[0].lines if len(line.get_xdata()) == 3)
    assert pd.isna(ys[1]) and ys[0] > 0 and ys[2] > 0


def test_a_bar_without_a_value_has_no_height(rich):
    """An unsupported or missing cell is a mark below the axis, not a bar that could be read."""
    made = drawn(rich, placed(rich, "latency", kind="bars", x="model", y=["ttft_s", "e2e_s"]))
    for axes in made.axes:
        bars = [p for p in axes.patches if p.get_width() < 1]
        assert len(bars) == 3 and all(p.get_height() > 0 and not p.get_hatch() for p in bars)
        marks = [line.get_marker() for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
        assert sorted(m for m in marks if m in ("d", "o")) == ["d", "o"]


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_a_metric_that_a_measured_cell_lacks_has_a_mark_of_its_own(rich, kind):
    where = placed(rich, "latency", kind=kind, x="model", y=["e2e_s"])
    first = where.rows.index[where.rows["status"] == "ok"][0]
    lacking = where.rows.assign(e2e_s=where.rows["e2e_s"].mask(where.rows.index == first))
    made = drawn(rich, dataclasses.replace(where, rows=lacking))
    assert "measured, but not this metric" in [t.get_text() for t in texts(made)]


def test_a_figure_without_any_value_still_shows_its_cells(rich):
    made = drawn(rich, placed(rich, "nothing", x="batch"))
    assert sum(line.get_marker() == "o" and line.get_markerfacecolor() == "none" for line in made.axes[0].lines) == 4
    assert "no value" in [t.get_text() for t in texts(made)]
    assert "Nothing is measured yet." in caption.caption(rich[0], placed(rich, "nothing", x="batch").rows)


def test_predictions_are_dashes_but_not_where_the_cell_cannot_fit(rich):
    where = placed(rich, "nothing", x="batch")
    where.rows[f"predicted_{THROUGHPUT}"] = [100.0, 200.0, 400.0, 800.0]
    where.rows["predicted_fits"] = [True, None, True, False]
    assert draw.predicted(where.rows, THROUGHPUT).isna().tolist() == [False, False, False, True]
    made = drawn(rich, where)
    assert "predicted (roofline)" in [t.get_text() for t in texts(made)] and made.axes[0].get_ylim()[1] > 400


def test_axes_say_unit_and_small_times_are_milliseconds(rich):
    made = drawn(rich, placed(rich, "latency", kind="bars", x="model", y=["ttft_s", "e2e_s"]))
    assert [a.get_ylabel().replace("\n", " ") for a in made.axes] == [
        "Time to first token (ms)",
        "End-to-end latency (ms)",
    ]


def test_linear_axes_start_at_zero_and_doubling_numbers_are_evenly_spaced(rich):
    axes = drawn(rich, placed(rich, "batch", x="top_k", hue="batch", panel="model")).axes[0]
    assert axes.get_xscale() == "log" and axes.get_xticks().tolist() == [1, 2, 4, 8]
    assert min(axes.get_yticks()) == 0
    assert ticks.is_doubling((1, 16, 32)) and not ticks.is_doubling((1, 2, 3, 8)) and not ticks.is_doubling((0, 1, 8))


def test_ordered_numbers_get_an_ordered_palette(rich):
    lightness = [sum(c[:3]) for c in style.palette(5, ordered=True)]
    assert lightness == sorted(lightness, reverse=True)
    assert len(set(style.palette(8, ordered=False))) == 8 and len(style.palette(12, ordered=False)) == 12


AWKWARD = {
    "long names": lambda: synthetic.figure("f", "bars", "arm", panel="model"),
    "long names, two metrics": lambda: synthetic.figure("f", "bars", "arm", "e2e_s", "ttft_s", panel="model"),
    "many panels": lambda: synthetic.figure("f", "lines", "batch", panel="arm", hue="model"),
    "many series": lambda: synthetic.figure("f", "lines", "batch", hue="arm", panel="model"),
    "many rows": lambda: synthetic.figure("f", "bars", "batch", hue="model", row="arm"),
    "logarithmic": lambda: synthetic.figure("f", "lines", "batch", hue="arm", row="model", log_y=True),
    "three metrics": lambda: synthetic.figure(
        "f", "lines", "batch", "ttft_s", "itl_p99_s", "e2e_s", hue="arm", panel="model"
    ),
}


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """Seven arms with long names, two models, five batches, one of them failed or missing in each arm."""
    root = tmp_path_factory.mktemp("awkward")
    plan = synthetic.Plan()
    plan.experiment("e")
    arms = [
        "none",
        *(f"{kind} {share}% of the experts" for kind in ("inter", "intra") for share in ("12.5", "25", "50")),
    ]
    for model, (i, arm), batch in itertools.product(
        list(synthetic.TITLES)[:2], enumerate(arms), (1, 8, 16, 1024, 2048)
    ):
        work = {"batch": batch, "input_tokens": 16, "output_tokens": 4}
        plan.add("e", {"model": model, "arm": arm, "batch": batch}, work, model=model, max_num_seqs=i + 1)
    fates = itertools.cycle([{}, {}, {"status": "oom_kv"}, {}, {"status": "unsupported"}, None, {}])
    synthetic.measure(plan.data, root, lambda _: next(fates))
    collect.collect(plan.write(root), root, root / "tables")
    return plan.data, root, root / "tables"


NARROW = ("long names, two metrics", "many series", "three metrics")


@pytest.mark.parametrize(
    ("name", "sheet"), [*((n, style.PAGE) for n in AWKWARD), *((n, style.COLUMNS[1]) for n in NARROW)]
)
def test_labels_stay_apart_and_inside(awkward, name, sheet):
    plot = {k: v for k, v in AWKWARD[name]().items() if v}
    if name.startswith("long names"):
        awkward = (awkward[0], awkward[1], awkward[2])
        frame = data.of_experiment(awkward[0], join.with_status(awkward[2]), "e")
        where = data.place(Plot.model_validate(plot), frame[frame["batch"] == 8].reset_index(drop=True), "x")
    else:
        where = placed(awkward, "e", **plot)
    made = drawn(awkward, where, sheet)
    assert touching(made) == []
    if name.startswith("long names"):
        assert {*where.axes["x"].levels} <= {" ".join(text.get_text().split()) for text in texts(made)}, (
            "bars have names"
        )
    width, height = made.canvas.get_width_height()
    for text in texts(made):
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, text.get_text()
        assert text.get_fontsize() >= 7
    assert made.get_size_inches()[0] == sheet.width_in


# ------------------------------------------------------------------------------------------- files


def test_files_hold_the_data_with_failures(rich, tmp_path):
    paths = figures.render(rich[0], rich[2], tmp_path, "latency")
    assert [p.name for p in paths] == ["fig-3.svg", "fig-3.csv"]
    assert (tmp_path / "narrow/fig-3.svg").stat().st_size > 1000
    table = pd.read_csv(paths[1])
    assert table["status"].tolist() == ["ok", "ok", "not measured", "ok", "unsupported"]
    assert {"model", "ttft_s", "ttft_s_low", "ttft_s_high", "engine", "cell", "weights"} <= set(table.columns)
    assert table["ttft_s"].iloc[0] < 1, "base units, not those of the axis"
    workload = table.loc[table["status"] == "ok", [*data.WORKLOAD]].drop(columns=["images", "image_size"])
    assert workload.notna().all().all() and set(workload["batch"]) == {64} and set(workload["n_repeats"]) == {3}
    text = paths[0].read_text()
    assert "not representative of an H100" in text and "Verdana" in text and "<dc:date>" not in text


# ----------------------------------------------------------------------------------------- caption


def test_the_caption_says_what_it_is(rich):
    rows = placed(rich, "latency", kind="bars", x="model").rows
    said = caption.caption(rich[0], rows).replace(caption.NBSP, " ")
    assert said.startswith(
        "Tiny models with random weights, vLLM 0.32.0 on CPU of this machine (Test CPU @ 2.0 GHz), text prompts: "
    )
    assert "not representative of an H100." in said
    assert "Median of 3 repeats in one load; error bars: their range (contains the true median with 75%)." in said
    assert said.endswith("5 cells: 3 measured, 1 unsupported, 1 not measured.")
    gpu = json.loads(json.dumps(rich[0])) | {"scale": "paper", "hardware": {"kind": "gpu", "title": "NVIDIA H100"}}
    assert re.match(r"Models with random weights, vLLM 0.32.0 on NVIDIA H100[^:]*\.", caption.what(gpu, rows))


def test_the_line_under_a_figure_names_its_images():
    rows = pd.DataFrame({"images": [0, 1, 3], "image_size": [None, 56, 112]}).astype("Int64")
    assert caption.images(rows[:1]) == ""
    assert caption.images(rows[1:2]) == " with 1 image of 56 px"
    assert caption.images(rows) == ", some with 1 to 3 images of 56 to 112 px"


def test_a_caption_speaks_of_medians_only_where_some_are_shown():
    rows = pd.DataFrame(
        [
            {
                "status": "ok",
                "n_repeats": 3,
                "protocol_kind": "trace",
                "unstable": False,
                "throttled": None,
                "derived_from": None,
            }
        ]
    )
    assert "Median of 3 repeats" in caption.how(rows)
    assert caption.how(rows, medians=False) == "Counted over all runs of a cell."


# ------------------------------------------------------------------------- what an engine cannot run at all


def precisions(good, refused=("INT8", "AWQ"), reason="no kernel") -> data.Data:
    """Lines over two batch sizes: series with values, and series whose cells are all unsupported."""
    rows = [
        {"x": batch, "hue": name, "status": "ok", "reason": "", THROUGHPUT: 10.0 * batch}
        for name in good
        for batch in (1, 8)
    ] + [
        {"x": batch, "hue": name, "status": "unsupported", "reason": reason, THROUGHPUT: math.nan}
        for name in refused
        for batch in (1, 8)
    ]
    plot = Plot.model_validate({"id": "f", "number": "1", "title": "T", "kind": "lines", "y": [THROUGHPUT],
                                "x": "batch", "hue": "precision"})  # fmt: skip
    axes = {"x": data.Axis("batch", "Batch", (1, 8), True),
            "hue": data.Axis("precision", "Precision", (*good, *refused), False)}  # fmt: skip
    return data.Data(plot, pd.DataFrame(rows), axes)


def test_series_that_the_engine_cannot_run_are_named_once_and_not_marked():
    whole = precisions(["BF16"])
    assert unsupported.series(whole) == {"no kernel": ["INT8", "AWQ"]}
    said = unsupported.words(whole)
    assert said.count("no kernel") == 1 and "INT8" in said and "AWQ" in said
    left = unsupported.without(whole)
    assert left.levels("hue") == ("BF16",) and draw.lacking(left.rows, THROUGHPUT).empty
    assert len(data.table(whole.__class__(whole.plot, whole.rows.assign(
        experiment="e", engine="m", cell="c", model_title="M", weights="w", n_repeats=1, unstable=False,
        throttled=None, derived_from=None), whole.axes))) == 6, "the CSV keeps every cell"  # fmt: skip
    with mpl.rc_context(style.rc()):
        made = layout.figure(left, said)
    shown = [t.get_text() for t in texts(made)]
    assert "BF16" in shown and "INT8" not in shown


def test_a_failed_cell_of_a_living_series_keeps_its_mark():
    one = precisions(["BF16", "INT8"], refused=())
    one.rows.loc[3, ["status", "reason", THROUGHPUT]] = ["unsupported", "no kernel", math.nan]
    assert unsupported.series(one) == {} and unsupported.words(one) == ""
    assert len(draw.lacking(unsupported.without(one).rows, THROUGHPUT)) == 1


def test_where_nothing_runs_or_reasons_differ_every_cell_keeps_its_mark():
    nothing = precisions([])
    assert len(draw.lacking(unsupported.without(nothing).rows, THROUGHPUT)) == 4
    differ = precisions(["BF16"], refused=("INT8",))
    differ.rows.loc[3, "reason"] = "another"
    assert len(draw.lacking(unsupported.without(differ).rows, THROUGHPUT)) == 2


# -------------------------------------------------------------------------------------- tuned and default tile sizes


def tiled(rich, kind: str, untuned) -> data.Data:
    """A figure over the experts' shape whose measured cells are untuned where the function of a row says so."""
    where = placed(rich, "shape", kind=kind, x="moe_ffn_size", hue="top_k", panel="experts")
    return dataclasses.replace(where, rows=where.rows.assign(untuned_kernel_warning=where.rows.apply(untuned, axis=1)))


def white_dots(made) -> int:
    lines = [line for axes in made.axes for line in axes.lines if line.get_color() == "white"]
    return sum(len(line.get_xdata()) for line in lines)


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_cells_on_default_tile_sizes_are_marked_among_cells_on_tuned_ones(rich, kind):
    where = tiled(rich, kind, lambda row: row["moe_ffn_size"] < 256)
    count = int(((where.rows["status"] == "ok") & (where.rows["moe_ffn_size"] < 256)).sum())
    made = drawn(rich, where)
    assert count > 3 and white_dots(made) == count
    assert tiles.WORDS in {t.get_text() for t in texts(made)}
    assert f"{count} with {tiles.WORDS}" in caption.of(rich[0], where).replace(caption.NBSP, " ")


@pytest.mark.parametrize("untuned", [lambda row: True, lambda row: False, lambda row: None])
def test_a_figure_of_one_kind_of_tile_sizes_says_nothing_of_them(rich, untuned):
    where = tiled(rich, "lines", untuned)
    made = drawn(rich, where)
    assert white_dots(made) == 0 and tiles.WORDS not in {t.get_text() for t in texts(made)}
    assert tiles.WORDS not in caption.of(rich[0], where)


# ------------------------------------------------------------------------------------------------------ stability


def unsteady(where: data.Data) -> data.Data:
    """The same with every second measured cell unstable."""
    odd = (where.rows["status"] == "ok") & (where.rows.index % 2 == 1)
    return dataclasses.replace(where, rows=where.rows.assign(unstable=odd))


def test_the_marks_of_unstable_cells_are_hollow(rich):
    where = unsteady(placed(rich, "shape", x="moe_ffn_size", hue="top_k", panel="experts"))
    made = drawn(rich, where)
    hollow = [line for a in made.axes for line in a.lines
              if line.get_markerfacecolor() == "white" and line.get_color() != "white"]  # fmt: skip
    assert sum(len(line.get_xdata()) for line in hollow) == where.rows["unstable"].sum() > 3
    assert "unstable" in {t.get_text() for t in texts(made)}
    assert "unstable (hollow;" in caption.of(rich[0], where).replace(caption.NBSP, " ")


def test_the_bars_of_unstable_cells_are_hollow(rich):
    where = unsteady(placed(rich, "latency", kind="bars", x="model", y=["e2e_s"]))
    faces = [p.get_facecolor() for p in drawn(rich, where).axes[0].patches if p.get_width() < 1]
    assert sum(face == (1, 1, 1, 1) for face in faces) == where.rows["unstable"].sum() == 2 and len(faces) == 3


def test_stable_cells_need_no_legend_of_hollow_marks(rich):
    made = drawn(rich, placed(rich, "batch", x="top_k", hue="batch", panel="model"))
    assert "unstable" not in {t.get_text() for t in texts(made)}


def test_the_caption_says_how_far_canaries_drifted(rich):
    rows = placed(rich, "batch", x="top_k", hue="batch", panel="model").rows
    told = caption.how(rows.assign(canary_drift=[0.1, 0.3] * (len(rows) // 2)))
    assert "Canary drift within a load: " in told and "Canary" not in caption.how(rows.assign(canary_drift=None))


# ------------------------------------------------------------------------------------------ what an interval is


@pytest.mark.parametrize(("repeats", "words"), [
    ([3, 3], "their range (contains the true median with 75%)"),
    ([1, 5], "their range (contains the true median with 94%)"),
    ([8, 9], "bootstrap 95% interval"),
    ([1, 3, 8], "bootstrap 95% interval with more than 5, otherwise their range (contains the true median with 75%)"),
])  # fmt: skip
def test_an_interval_is_called_what_it_is(repeats, words):
    assert caption.interval(pd.Series(repeats)) == words


# ----------------------------------------------------------------------------------------- sisters of a figure


def arms(*names: str) -> pd.DataFrame:
    labels = [json.dumps({"arm": name}) for name in names]
    return pd.DataFrame({"labels": labels})


def of_arms(*names: str) -> data.Data:
    plot = Plot.model_validate({"id": "f", "number": "1", "title": "T", "kind": "lines", "x": "batch", "hue": "arm",
                                "y": [THROUGHPUT]})  # fmt: skip
    axes = {"x": data.Axis("batch", "Batch", (1,), True), "hue": data.Axis("arm", "Arm", names, False)}
    rows = pd.DataFrame({"x": 1, "hue": list(names), "status": "ok", THROUGHPUT: 1.0})
    return data.Data(plot, rows, axes)


def test_a_label_has_one_colour_and_marker_in_all_figures_of_an_experiment():
    frames = [arms("BF16", "FP16"), arms("FP16", "FP8")]
    looks = {}
    for names in (("BF16", "FP16"), ("FP16", "FP8"), ("FP8",)):
        for level, *look in draw.series(data.with_known(of_arms(*names), frames)):
            assert looks.setdefault(level, look) == look
    assert len({str(look) for look in looks.values()}) == 3


def test_a_hue_of_numbers_keeps_its_order_and_another_grid_without_it_is_left_out(rich):
    where = placed(rich, "batch", x="top_k", hue="batch", panel="model")
    known = data.with_known(where, [where.rows, pd.DataFrame({"labels": ["{}"]})]).axes["hue"].known
    assert known == (1, 16, 64, 128)


def test_a_legend_holds_only_what_is_drawn_and_as_it_is_drawn():
    where = of_arms("measured", "foretold", "failed", "neither")
    where.rows["status"] = ["ok", draw.PREDICTED, "unsupported", draw.PREDICTED]
    where.rows[THROUGHPUT] = [1.0, None, None, None]
    where.rows[f"predicted_{THROUGHPUT}"] = [None, 2.0, None, None]
    where.rows["predicted_fits"] = True
    with mpl.rc_context(style.rc()):
        found = {h.get_label(): h for h in header.hue_handles(where)}
    assert list(found) == ["measured", "foretold", "failed"]
    assert found["measured"].get_marker() == "o" and found["foretold"].get_marker() in (None, "None", "")
    assert found["foretold"].get_linestyle() == "--" and found["failed"].get_facecolor()[3] == 0


def test_no_panel_and_no_place_is_empty(rich):
    where = placed(rich, "shape", x="moe_ffn_size", hue="top_k", panel="experts")
    gone = (where.rows["experts"] == 64) | (where.rows["x"] == 512)
    rows = where.rows.assign(status=where.rows["status"].mask(gone, draw.PREDICTED))
    rows[THROUGHPUT] = rows[THROUGHPUT].mask(gone)
    left = draw.drawn_only(dataclasses.replace(where, rows=rows))
    assert left.levels("panel") == (8, 16, 32) and left.levels("x") == (64, 128, 256)
    assert len(drawn(rich, left).axes) == 3
    assert left.rows.index.isin(where.rows.index).all(), "marks lead to rows of the CSV"


def test_a_prediction_without_neighbours_shows(rich):
    where = placed(rich, "nothing", x="batch")
    where.rows[f"predicted_{THROUGHPUT}"] = [100.0, None, None, 800.0]
    where.rows["predicted_fits"] = True
    lone = [line for line in drawn(rich, where).axes[0].lines if line.get_markersize() == 7]
    assert sum(len(line.get_xdata()) for line in lone) == 2


# ------------------------------------------------------------------------------------------ answers that mean nothing


def test_deepseek_on_a_cpu_is_warned_of_where_accuracy_is_shown(rich):
    plan = json.loads(json.dumps(rich[0]))
    rows = placed(rich, "latency", kind="bars", x="model").rows
    assert not caption.tokens_are_wrong(plan, rows)
    plan["engines"][rows["engine"].iloc[0]]["model"]["architecture"]["attention"] = {"kind": "mla"}
    assert caption.tokens_are_wrong(plan, rows)
    assert not caption.tokens_are_wrong(plan, rows.assign(engine_name="transformers"))
    assert not caption.tokens_are_wrong(plan | {"hardware": {"kind": "gpu"}}, rows)
