"""Figures for a paper: their widths, what is not in them, captions as LaTeX, data with units, metadata."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from matplotlib.text import Text

from moebench.config import Plot
from moebench.figures import data, kinds, paper, placing, style
from moebench.tables import join


@pytest.fixture(scope="module")
def written(rich, tmp_path_factory):
    """Two experiments of the rich study, for a paper."""
    plan, _, tables = rich
    kept = {name: plan["experiments"][name] for name in ("latency", "parallel")}
    out = tmp_path_factory.mktemp("paper")
    steps: list[str] = []
    paths = paper.write(
        plan | {"experiments": kept, "digest": "d1", "measure_constants": False}, tables, out, steps.append
    )
    return out, paths, steps


def test_every_figure_has_both_widths_caption_and_data(written):
    out, paths, steps = written
    names = {path.name for path in paths}
    for figure in ("fig-3", "fig-13"):
        assert {f"{figure}-1.pdf", f"{figure}-2.pdf", f"{figure}.tex", f"{figure}.csv"} <= names
    assert paths[-1].name == paper.METADATA and "figure fig-3" in steps
    assert {path.name for path in out.iterdir()} == names


@pytest.mark.parametrize(("across", "points"), [(1, 240), (2, 504)])
def test_a_pdf_is_as_wide_as_its_columns_and_says_what_it_is(written, across, points):
    page = (written[0] / f"fig-3-{across}.pdf").read_bytes()
    left, bottom, right, top = map(float, re.search(rb"/MediaBox \[ ([\d. ]+) \]", page)[1].split())
    assert (left, bottom, round(right, 6)) == (0, 0, points) and top > 100
    assert b"/Title (Latency of five models)" in page and b"/Keywords (study tiny, plan d1)" in page
    assert b"/CreationDate" not in page, "the same data give the same bytes"


@pytest.mark.parametrize("across", [1, 2])
def test_no_title_is_drawn_and_no_text_is_small(rich, across):
    plan, _, tables = rich
    source = kinds.Source(plan, "latency", data.of_experiment(plan, join.with_status(tables), "latency"), tables)
    (figure,) = placing.placed(source)
    with style.drawing(style.COLUMNS[across]):
        made = figure.figure()
        made.draw_without_rendering()
    shown = [t for t in made.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert shown and min(t.get_fontsize() for t in shown) >= 7
    words = " ".join(t.get_text() for t in shown)
    assert figure.plot.title not in words and "random weights" not in words and "Figure" not in words
    assert not any("$" in t.get_text() for t in shown), "superscripts would be smaller"


def test_the_data_have_units_and_the_whole_workload(written):
    table = pd.read_csv(written[0] / "fig-3.csv")
    wanted = {"batch [requests]", "input_tokens [tokens]", "output_tokens [tokens]", "top_k", "gpus", "device_name",
              "engine_version", "n_repeats", "ttft_s [s]", "e2e_s_low [s]", "status", "unstable"}  # fmt: skip
    assert wanted <= set(table.columns) and len(table) == 5


def test_the_metadata_explain_every_column(written):
    about = json.loads((written[0] / paper.METADATA).read_text())
    assert about["plan"] == "d1" and about["measured"]["engine_version"] == ["0.32.0"]
    figure = about["figures"]["fig-3"]
    assert set(figure["columns"]) == set(pd.read_csv(written[0] / "fig-3.csv").columns)
    assert figure["columns"]["e2e_s [s]"]["unit"] == "s" and "last token" in figure["columns"]["e2e_s [s]"]["meaning"]
    assert figure["widths_pt"] == {"fig-3-1.pdf": 240, "fig-3-2.pdf": 504}
    assert figure["caption"].startswith("Tiny models with random weights")


def test_a_caption_is_latex():
    plot = Plot.model_construct(id="fig9", number="9", title="50% of $x_1$ & more", kind="lines")
    text = paper.latex(plot, "A~B\N{NO-BREAK SPACE}c {d} #1 ^ \\ 3 \N{GREATER-THAN OR EQUAL TO} 2 <", "tiny")
    assert r"\caption[50\% of \$x\_1\$ \& more]" in text and r"\label{fig:fig9}" in text
    assert r"A\textasciitilde{}B~c \{d\} \#1 \textasciicircum{} \textbackslash{} 3 $\ge$ 2 \textless{}" in text


def test_captions_name_workload_and_repeats(written):
    text = (written[0] / "fig-13.tex").read_text()
    for words in ("Batch 16, 64 input and 32 output tokens", "Median of 3 repeats", "CPU of this machine"):
        assert words in text
