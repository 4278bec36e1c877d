"""The canvas that measures each text once, and imports that take time."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from moebench.figures import canvas, header, style

TEXTS = ["Batch", "Tiny Mixtral, top-k 2", "gjpqy", r"$10^{-3}$", "256 \N{MULTIPLICATION SIGN} 4"]


@pytest.mark.parametrize("dpi", [72.0, 100.0])
@pytest.mark.parametrize("text", TEXTS)
def test_sizes_are_matplotlibs(text, dpi):
    for size, weight in ((style.SMALL, "normal"), (style.LARGE, "normal"), (style.LARGE, "bold")):
        font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
        theirs = RendererAgg(300, 200, dpi).get_text_width_height_descent(text, font, "$" in text)
        assert canvas.Renderer(500, 100, dpi).get_text_width_height_descent(text, font, "$" in text) == theirs


def test_a_text_is_measured_once_for_all_figures_and_their_sizes():
    with style.drawing():
        first, second = canvas.figure(7.0), canvas.figure(3.0)
        widths = {Text(0, 0, "measured once", figure=first).get_window_extent().width}
        before = len(canvas._sizes)
        first.set_size_inches(7.0, 5.0)
        widths |= {Text(0, 0, "measured once", figure=made).get_window_extent().width for made in (first, second)}
    assert len(widths) == 1 and len(canvas._sizes) == before


@pytest.mark.parametrize("text", [*TEXTS, "two\nlines"])
@pytest.mark.parametrize("spacing", ["normal", 1.25])
def test_layouts_are_matplotlibs(text, spacing):
    with style.drawing():
        made = canvas.figure(7.0)
        for size in (style.SMALL, style.LARGE):
            written = Text(0, 0, text, fontsize=size, linespacing=spacing, rotation=30, figure=made)
            mine = written.get_window_extent(canvas.Renderer(500, 100, made.dpi)).bounds
            theirs = written.get_window_extent(RendererAgg(500, 100, made.dpi)).bounds
            assert mine == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    "words", ["i " * 120, "W " * 50, "short and averyveryverylongwordthatfitsnowhere then more", "one"]
)
def test_lines_have_as_many_words_as_fit(words):
    with style.drawing():
        made, text = canvas.figure(3.0), words.strip()
        lines = header.wrap(made, text, 100.0, style.SMALL)

        def width_pt(line):
            return Text(0, 0, line, fontsize=style.SMALL, figure=made).get_window_extent().width * 72 / made.dpi

        assert " ".join(lines) == text
        for line, following in itertools.pairwise([*lines, ""]):
            assert width_pt(line) <= 100 or " " not in line
            assert not following or width_pt(f"{line} {following.split(' ')[0]}") > 100


def test_the_report_imports_neither_seaborn_nor_scipy_stats():
    told = "import sys, moebench.report.archive; print(*({'seaborn', 'scipy.stats'} & {*sys.modules}))"
    made = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == ""
