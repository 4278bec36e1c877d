"""Drawings inside the page: what takes room and says nothing goes, what is drawn and what is named stays."""

from __future__ import annotations

import re

import pytest

from moebench.errors import StorageError
from moebench.report import svg

DRAWING = """<?xml version="1.0" encoding="utf-8"?>
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" height="9pt" viewBox="0 0 9 9"
     xmlns="http://www.w3.org/2000/svg" version="1.1">
 <metadata>when and by what</metadata>
 <defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
 <g id="figure_1"><g id="mark.hue0.e2e_s.0-1">
  <defs><path id="m1" d="M 0 3.123456 \nL -1.5 0 \nz\n" style="stroke: #595959; stroke-width: 0.6"/></defs>
  <g clip-path="url(#p1)"><use xlink:href="#m1" x="1.23456" y="2" style="fill: #595959; stroke: #595959"/></g>
 </g>
 <g id="text_1"><!-- a comment --><text x="1" y="2" transform="rotate(-0 1 2)" style="font-size: 7px">a  b &lt; c</text></g>
 <g id="text_2"><text transform="rotate(-90 1.23456 2)" style="font-size: 7px">up</text></g>
 </g>
 <defs><clipPath id="p1"><rect x="0" y="0" width="9" height="9"/></clipPath></defs>
</svg>"""  # noqa: E501


@pytest.fixture
def drawn(tmp_path):
    path = tmp_path / "f.svg"
    path.write_text(DRAWING)
    return svg.inline(path, "f", "T & t", "What it shows")


def test_what_takes_room_and_says_nothing_goes(drawn):
    for gone in ("metadata", "linejoin", "figure_1", "text_1", "comment", "xlink", "rotate(-0", "23456", "<g>"):
        assert gone not in drawn
    assert 'd="M0 3.12L-1.5 0z"' in drawn and 'x="1.23"' in drawn


def test_what_is_drawn_and_named_stays(drawn):
    assert '<g id="f-mark.hue0.e2e_s.0-1">' in drawn and '<use href="#m1"' in drawn and 'id="m1"' in drawn
    assert 'clip-path="url(#p1)"' in drawn and '<clipPath id="p1">' in drawn
    assert ">a  b &lt; c</text>" in drawn and 'transform="rotate(-90 1.23 2)"' in drawn
    assert '<title id="f-title">T &amp; t</title><desc id="f-desc">What it shows</desc>' in drawn
    assert 'viewBox="0 0 9 9" role="img" data-name="f" aria-labelledby="f-title f-desc"' in drawn


def test_styles_of_all_drawings_are_written_once(drawn):
    page, rules = svg.with_shared_styles(f'<p style="width: 3%">{drawn}{drawn}</p>')
    assert page.count("style=") == 1, "only that of the drawings"
    known = dict(re.findall(r"svg \.(\w+)\{(.*)\}", rules))
    assert sorted(known.values()) == ["fill:#595959;stroke:#595959", "font-size:7px", "stroke:#595959;stroke-width:0.6"]
    assert [known[name] for name in re.findall(r'<text[^>]*class="(\w+)"', page)] == ["font-size:7px"] * 4


@pytest.mark.parametrize("text", ["<svg/>", "<html></html>", "<svg", ""])
def test_what_is_no_figure_is_one_line(tmp_path, text):
    path = tmp_path / "f.svg"
    path.write_text(text)
    with pytest.raises(StorageError, match=r"f\.svg: not an SVG figure; run `moebench figures` again"):
        svg.inline(path, "f", "", "")
