"""The canvas that measures each text once, and imports that take time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from moebench.figures import canvas, style

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


def test_the_report_imports_neither_seaborn_nor_scipy_stats():
    told = "import sys, moebench.report.archive; print(*({'seaborn', 'scipy.stats'} & {*sys.modules}))"
    made = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == ""
