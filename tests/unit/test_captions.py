"""Captions survive what Snakemake does with them: Jinja, then reStructuredText."""

import re

import jinja2
from docutils.core import publish_parts

from moebench.config import Plot
from moebench.report import captions


def test_a_caption_comes_through_snakemakes_report_as_it_is(tmp_path):
    said = r"Median of *8* `runs`, tp_ x|y, {{ a }}, {% b %}, {# c #}, 5% <0.1 and C:\dir."
    plot = Plot.model_construct(id="fig9", number="9", title="Time * of_ everything", kind="lines")
    captions.write([(plot, said)], tmp_path)
    text = jinja2.Environment(trim_blocks=True).from_string((tmp_path / "fig9.rst").read_text()).render()
    body = publish_parts(text, writer="html", settings_overrides={"report_level": 1, "halt_level": 1})["body"]
    shown = re.sub(r"<.*?>", "", body).replace("&lt;", "<").strip()
    assert shown == f"Figure 9. Time * of_ everything\n{said}"
