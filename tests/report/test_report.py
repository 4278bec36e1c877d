"""The report in a real browser: what it shows, that it asks nobody for anything, that nothing overlaps or overflows."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from moebench.errors import StorageError
from moebench.plan.file import read_plan
from moebench.report import build, scripts

WIDTHS = (1400, 400)


# --------------------------------------------------------------------------------- without a browser


class Elements(HTMLParser):
    """All elements of a page with their attributes."""

    def __init__(self, page: Path):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {k: v or "" for k, v in attrs}))

    def of(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.found if tag in tags]


@pytest.fixture(scope="module")
def elements(page) -> Elements:
    return Elements(page)


def test_every_link_is_inside_the_page(page, elements):
    """A page that was mailed has no dead link: it leads to itself only, and carries the data of its figures."""
    ids = {a["id"] for _, a in elements.found if "id" in a}
    kinds = {"anchor": 0, "data": 0}
    for link in elements.of("a"):
        href = link["href"]
        if href.startswith("#"):
            assert href[1:].partition("?")[0] in ids, href
            kinds["anchor"] += 1
        else:
            assert href.startswith("data:text/csv"), f"{href} leads out of the page"
            data = unquote_to_bytes(href.partition(",")[2])
            assert data == (page.parent / "figures" / link["download"]).read_bytes()
            kinds["data"] += 1
    assert kinds["data"] == 8 and kinds["anchor"] > 60
    text = page.read_text()
    assert "results/cells/ENGINE/CELL.json" in text and "results/tables/tiny/" in text, "files are named by their path"


def test_nothing_is_fetched(page, elements):
    assert not elements.of("iframe", "img", "object", "embed")
    assert [sorted(script) for script in elements.of("script")] == [["id", "type"], [], []]
    assert [link["href"] for link in elements.of("link")] == ["data:,"]
    (policy,) = [meta["content"] for meta in elements.of("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none';") and "http" not in policy
    text = page.read_text().replace(scripts.plot(), "")
    assert not re.search(r"url\((?!#|data:)|@import", text)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"<)]+", text)) <= namespaces
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon)\s*\(", scripts.page())


def test_identifiers_are_unique_and_references_hit(page, elements):
    ids = [a["id"] for _, a in elements.found if "id" in a]
    assert len(ids) == len(set(ids))
    text = page.read_text().replace(scripts.plot(), "")
    used = re.findall(r"url\(#([^)]+)\)", text) + [a["href"][1:] for a in elements.of("use")]
    assert used and set(used) <= set(ids)


def test_structure_is_accessible(elements):
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    ids = {a["id"] for _, a in elements.found if "id" in a}
    for svg in elements.of("svg"):
        assert svg["role"] == "img" and set(svg["aria-labelledby"].split()) <= ids
    drawn = [svg["data-name"] for svg in elements.of("svg")]
    assert len(set(drawn)) == 16 and sum(name.endswith("-narrow") for name in drawn) == 8
    assert all("scope" in th for th in elements.of("th"))
    assert len(elements.of("thead")) == len(elements.of("table"))
    assert ("html", {"lang": "en"}) in elements.found


def test_what_it_says(page):
    text = re.sub(r"\s+", " ", page.read_text())
    assert "Tiny &lt;models&gt; &amp; &#34;quotes&#34;" in text
    caveat = "Tiny models with random weights on CPU of this machine (Test CPU @ 2.0 GHz): not representative of"
    assert f"<p>{caveat} an H100 or of trained models.</p>" in text
    assert "<dd>Tiny models with random weights, vLLM 0.32.0 on CPU of this machine" in text
    assert "<strong>Incomplete.</strong> 5 of 121 cells are" in text
    assert "<strong>96 of 121</strong>" in text
    for words in ("12 out of memory: weights", "1 record damaged", "5 not measured"):
        assert re.search(rf"[>,] ?{words}[,<]", text), words
    assert "MIB-F05-01-DS" in text
    assert (
        text.count("snakemake --profile profiles/local --config study=tiny --force results/cells/") == 20 + 1
    )  # of failures; of any cell
    assert "the record cannot be used: not complete JSON" in text
    assert "contains the true median with a probability of 75%" in text
    assert "0123456789abcdef0123456789abcdef01234567" in text and "torch 2.13.0+cpu" in text


def test_models_of_a_paper_are_shown_corrected(page, elements):
    text = re.sub(r"\s+", " ", page.read_text())
    section = text[text.index('id="fig01-parameters"') : text.index('<section id="claims"')]
    assert (
        "<strong>Computed from published architectures; nothing was measured.</strong> These are the paper's" in section
    )
    assert "Table 1 of MoE-Inference-Bench, corrected" in section and "half a unit of the last printed digit" in section
    marks = re.findall(r'<td class="number">([^<]*?) <span class="printed">paper: (\S+) <a href="#(\S+)"', section)
    assert ("768", "13824", "fig01-parameters-why-b") in marks and ("6.92 B", "7.2B", "fig01-parameters-why-d") in marks
    assert {a["href"][1:] for a in elements.of("a") if "-why-" in a["href"]} == {
        a["id"] for a in elements.of("li") if "-why-" in a.get("id", "")
    }
    assert "the width of the shared expert. With the sizes in the row, the routed experts alone would" in section
    assert '<td>Mixtral-8x7B</td><td>32 MoE</td><td>Routed experts</td><td class="number">1.41 B</td>' in section
    assert '<a href="#fig01-parameters">' in text and "Table 1, Figures 1, A1" in text
    assert re.search(r"<desc [^>]*>Stacked bars of .*Mixtral-8x7B: 46.7 billion in total \(routed experts 97%", section)


def test_claims_have_a_verdict_or_say_what_was_compared_instead(page, elements):
    text = re.sub(r"\s+", " ", page.read_text())
    section = text[text.index('<section id="claims"') : text.index('<section id="failures"')]
    assert "<p>1 confirmed, 85 not measured, 1 nothing claimed.</p>" in section
    assert "<p>3 refuted, 3 not measured.</p>" in section
    rows = dict(re.findall(r'<tr id="claim-([^"]+)">(.*?)</tr>', section))
    assert len(rows) == 98
    # A record of this series is damaged, so nothing is decided.
    assert re.search(r"holds in \d+% of resamples: undecided", rows["MIB-F05-03-DS"])
    assert "1 of 16 cells not measured" in rows["MIB-F05-03-DS"]
    assert '<span class="status status-missing">not measured</span>' in rows["MIB-F05-03-DS"]
    assert "tiny stand-ins, random weights, CPU of this machine, text prompts" in rows["MIB-F05-03-DS"]
    assert '<span class="status status-failed">refuted</span>' in rows["QS-T3-01"] and "1.09" in rows["QS-T3-01"]
    assert 'contradicts <a href="#claim-MIB-F07-04">' in rows["MIB-F07-05"]
    assert "no experiment of this study decides it" in rows["MIB-F10-01"]
    experiment = text[text.index('<details class="experiment" id="batch"') :]
    assert (
        '<a href="#claim-MIB-F05-01-DS">MIB-F05-01-DS</a> <span class="status status-missing">not measured'
        in experiment
    )


def test_the_same_inputs_give_the_same_bytes(study, page):
    figures, again = page.parent / "figures", page.parent / "again.html"
    build(study / "results/plan/tiny.json", study / "results/tables/tiny", figures, again)
    assert again.read_bytes() == page.read_bytes()
    again.unlink()


def test_tables_of_another_plan_are_refused(study, tmp_path):
    plan = read_plan(study / "results/plan/tiny.json")
    plan["experiments"]["batch"]["rows"].pop()
    other = tmp_path / "plan.json"
    other.write_text(json.dumps(plan))
    with pytest.raises(StorageError, match=r"another plan.*tiny.*moebench report --partial"):
        build(other, study / "results/tables/tiny", study / "reports/tiny/figures", tmp_path / "r.html")
    plan = read_plan(study / "results/plan/tiny.json")
    plan["experiments"]["fig01-parameters"]["models"].pop()
    other.write_text(json.dumps(plan))
    with pytest.raises(StorageError, match="another plan"):
        build(other, study / "results/tables/tiny", study / "reports/tiny/figures", tmp_path / "r.html")


def test_a_missing_figure_is_one_line(study, tmp_path):
    with pytest.raises(StorageError, match=r"fig-5\.svg.*moebench figures"):
        build(study / "results/plan/tiny.json", study / "results/tables/tiny", tmp_path, tmp_path / "r.html")


# ------------------------------------------------------------------------------------ in the browser


@pytest.fixture(params=WIDTHS)
def shown(request, browser, page):
    """The page at a width, everything unfolded; the browser.  SHOTS=FOLDER keeps screenshots."""
    size = {"width": request.param, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())
    browser.execute_script("document.getElementById('unfold').click()")
    if os.environ.get("SHOTS"):
        height = browser.execute_script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": request.param, "height": height, "scale": 1}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        (Path(os.environ["SHOTS"]) / f"report-{request.param}.png").write_bytes(base64.b64decode(shot["data"]))
    return browser


def test_console_is_quiet_and_nothing_is_requested(shown, page):
    assert shown.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in shown.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}


def test_no_horizontal_overflow(shown):
    wide = shown.execute_script("""
        const limit = document.documentElement.clientWidth, scrolls = e => e.closest('.scroll, pre');
        return [document.documentElement.scrollWidth > limit ? ['page', document.documentElement.scrollWidth] : null,
                ...[...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && !scrolls(e))
                   .filter(e => e.getBoundingClientRect().right > limit + 1)
                   .map(e => [e.tagName, e.textContent.slice(0, 60)])
               ].filter(x => x)""")
    assert wide == []


def test_every_figure_has_a_size_and_readable_text(shown):
    sizes = shown.execute_script("""
        return [...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility()).map(s => {
            const b = s.getBoundingClientRect();
            const t = [...s.querySelectorAll('text')].map(e => parseFloat(getComputedStyle(e).fontSize));
            return [b.width, b.height, b.width / s.viewBox.baseVal.width * Math.min(...t), t.length] })""")
    assert len(sizes) == 8
    for width, height, smallest, count in sizes:
        assert width > 300 and height > 150 and count > 10
        assert smallest >= 8, "smallest label, CSS pixels"


# Corners of every label's box on the screen, rotation and all; two boxes are apart if an edge of one separates them.
OVERLAPS = """
const found = [];
for (const svg of document.querySelectorAll('figure svg')) {
  const boxes = [...svg.querySelectorAll('text')].filter(t => t.textContent.trim()).map(t => {
    const b = t.getBBox(), m = t.getScreenCTM(), trim = b.height * 0.18;
    const corners = [[b.x, b.y + trim], [b.x + b.width, b.y + trim], [b.x + b.width, b.y + b.height - trim],
                     [b.x, b.y + b.height - trim]].map(([x, y]) => [m.a * x + m.c * y + m.e, m.b * x + m.d * y + m.f]);
    return {text: t.textContent, corners};
  });
  const apart = (p, q) => [p, q].some(({corners: c}) => [0, 1].some(i => {
    const n = [c[i + 1][1] - c[i][1], c[i][0] - c[i + 1][0]];
    const span = ({corners}) => corners.map(([x, y]) => n[0] * x + n[1] * y);
    const a = span(p), b = span(q);
    return Math.max(...a) <= Math.min(...b) || Math.max(...b) <= Math.min(...a);
  }));
  const frame = svg.getBoundingClientRect();
  boxes.forEach((p, i) => {
    if (p.corners.some(([x, y]) => x < frame.left - 1 || x > frame.right + 1
                                   || y < frame.top - 1 || y > frame.bottom + 1))
      found.push([p.text, 'outside']);
    boxes.slice(i + 1).forEach(q => { if (!apart(p, q)) found.push([p.text, q.text]); });
  });
}
return found;
"""


def test_labels_do_not_overlap(shown):
    assert shown.execute_script(OVERLAPS) == []


def test_figures_are_set_in_the_embedded_font(shown):
    assert shown.execute_script("return [...document.fonts].map(f => [f.family.replaceAll('\"', ''), f.status])") == [
        ["DejaVu Sans", "loaded"]
    ]


def test_it_prints(shown):
    pdf = base64.b64decode(shown.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})["data"])
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert pdf.startswith(b"%PDF") and pages > 3
    if os.environ.get("SHOTS"):
        (Path(os.environ["SHOTS"]) / "report.pdf").write_bytes(pdf)
