"""What the page's script does, in a real browser: marks, table, records, explorer, search, theme; and what it costs."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pages
from moebench import columns
from moebench.plan.file import read_plan
from moebench.report import archive, content, scripts
from moebench.tables import join, parquet
from project import ROOT

THROUGHPUT = "throughput_total_tokens_per_s"


@pytest.fixture(scope="module")
def cells(study) -> pd.DataFrame:
    """The cells of the study, a row for each, as the Parquet files have them; by ``ENGINE/CELL``."""
    frame = join.with_status(study / "results/tables/tiny").drop_duplicates(["engine", "cell"])
    return frame.set_index(frame["engine"] + "/" + frame["cell"])


@pytest.fixture
def show(browser, page) -> Callable[..., Any]:
    """Opens the page at an anchor: ``show(hash, width=, dark=, file=)``; returns the browser."""

    def opened(anchor: str = "", width: int = 1400, dark: bool = False, file: Path = page) -> Any:
        pages.look(browser, file, anchor, width, dark)
        return browser

    return opened


def rows(browser: Any) -> list[str]:
    """``ENGINE/CELL`` of the rows of the table, in order."""
    script = "return [...document.querySelectorAll('.all-cells tbody tr')].map(row => row.dataset.cell)"
    return list(browser.execute_script(script))


# ----------------------------------------------------------------------------------------- budgets


def test_the_closed_page_is_light(browser, page):
    cost = pages.cost(browser, page)
    assert cost.load_s < pages.LOAD_S and cost.screens <= pages.SCREENS and cost.nodes <= pages.NODES
    assert cost.bytes <= 1_200_000, "eight figures; the study tiny: tests/workflow/test_pipeline.py"


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1400, True), (400, False)])
def test_the_first_screens_say_what_was_found(show, width, dark):
    """Caveat and cards, then a finding: on the first screen of a desk, within three of a phone."""
    tops = show(width=width, dark=dark).execute_script("""
        const top = selector => document.querySelector(selector).getBoundingClientRect().bottom;
        return ['h1', '.banner p', '.cards li:nth-child(4)', '.findings tbody tr'].map(top)""")
    assert tops == sorted(tops) and tops[0] > 0 and tops[-1] < pages.SCREEN_PX * (1 if width == 1400 else 3)


def parts(page: Path) -> tuple[str, dict[str, Any], str]:
    """The page before its data, the data, and the rest."""
    head, data, tail = re.split(r'(?<=id="cells-data">)(.*?)(?=</script>)', page.read_text(), maxsplit=1, flags=re.S)
    return head, json.loads(data), tail


def test_ten_thousand_cells(browser, page, tmp_path):
    """The page of a small study with the data of a large one; one that is really built: test_large.py."""
    head, made, tail = parts(page)
    times = -(-10_000 // len(made["ids"]))
    made["ids"] = [f"{name}.{n}" for n in range(times) for name in made["ids"]]
    for name, column in made["columns"].items():
        made["columns"][name] = column * times if isinstance(column, list) else column | {"at": column["at"] * times}
    step = len(made["ids"]) // times
    for experiment in made["experiments"]:
        experiment["rows"] = [[row[0] + n * step, *row[1:]] for n in range(times) for row in experiment["rows"]]
    large = tmp_path / "large.html"
    large.write_text(head + json.dumps(made, separators=(",", ":")) + tail)
    cost = pages.cost(browser, large)
    assert cost.load_s < pages.LOAD_LARGE_S and cost.nodes <= pages.NODES
    count = browser.execute_script("return document.querySelector('.count').textContent")
    assert count == f"1 to 25 of {len(made['ids'])} cells"


def test_no_request_whatever_the_reader_does(show, page):
    browser = show("#fig-5")
    browser.execute_script("""
        document.getElementById('unfold').click();
        document.querySelector('.all-cells tbody button').click();
        document.querySelector('dialog button').click();
        document.querySelector('[data-key=log]').click();
        document.getElementById('theme').click()""")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url.partition("#")[0] for url in asked if not url.startswith("data:")} <= {page.as_uri(), "about:blank"}
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("unfolded", [False, True], ids=["closed", "open"])
def test_axe_finds_nothing(show, dark, unfolded):
    browser = show(dark=dark)
    if unfolded:
        browser.execute_script("document.getElementById('unfold').click()")
    assert pages.violations(browser) == []
    if unfolded:
        browser.execute_script("document.querySelector('.all-cells tbody button').click()")
        assert pages.violations(browser, "dialog") == []
    else:
        browser.execute_script("""
            const box = document.getElementById('search');
            box.value = 'fig'; box.dispatchEvent(new Event('input', {bubbles: true}))""")
        assert pages.violations(browser, "#contents") == []


def test_without_a_script_nothing_is_lost(show, browser, cells, study):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show()
        root = browser.execute_cdp_cmd("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        shown = browser.execute_cdp_cmd("DOM.getOuterHTML", {"nodeId": root})["outerHTML"]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert not re.search(r"<noscript[^>]*>[^<]*&lt;", shown), "what waits is elements here, not text"
    assert len(re.findall(r"<figure ", shown)) == len(re.findall(r"<figcaption", shown)) == 8
    assert len(re.findall(r'<tr id="claim-', shown)) == 98
    tables = re.findall(r"<caption>(Batch [^<]*)</caption>", shown)
    assert len(tables) == 5, "batch, lengths, device and repeats stand over every table of cells"
    assert all(
        re.match(r"Batch .* input and .* output tokens\. On CPU of this machine\. Median over", t) for t in tables
    )
    unsupported = cells["status"].eq("unsupported")
    for name, cell in cells[~unsupported].iterrows():
        assert f'<td class="cell">{name}</td>' in shown
        if cell["status"] == "ok":
            assert content.number(cell["e2e_s"]) in shown
    runs = parquet.read(study / "results/tables/tiny", "samples")
    assert all(content.number(took_s) in shown for took_s in runs["e2e_s"])


# ------------------------------------------------------------------------------------------- marks

MARKS = """
const found = [];
for (const mark of document.querySelectorAll('figure svg [tabindex]')) {
  if (!mark.dataset.cell || !mark.checkVisibility()) continue;  // others: test_rows.py
  mark.focus();
  const told = [...document.querySelectorAll('#tip > *')].map(line => line.textContent);
  const box = mark.getBoundingClientRect();
  const id = mark.dataset.cell;
  const owner = mark.closest('[id*="mark."],[id*="lacks."]').id;
  const over = mark.closest('svg').getBoundingClientRect().top;
  const y = (mark.matches('use') ? box.top + box.height / 2 : box.top) - over;
  found.push({figure: mark.closest('figure').id, id, told, owner, y});
}
return found;
"""


def test_every_mark_says_its_value_and_leads_to_its_cell(show, cells):
    """On focus as on hover: the value of the Parquet file.  And the mark stands as high as the value says."""
    browser = show()
    browser.execute_script("document.getElementById('unfold').click()")
    marks = browser.execute_script(MARKS)
    assert {mark["figure"] for mark in marks} >= {"fig-5", "fig-3"} and len(marks) > 60
    valued: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for mark in marks:
        metric = re.search(r"\.hue\d+\.(\w+)\.", mark["owner"]).group(1)
        cell = cells.loc[mark["id"]]
        assert cell["model_title"] in mark["told"][0] and f"batch {cell['batch']}" in mark["told"][0]
        if "-mark." in mark["owner"]:
            low, high = (content.number(cell[f"{metric}_{end}"]) for end in ("low", "high"))
            column = columns.COLUMNS[metric]
            value = f"{content.number(cell[metric])} ({low} to {high})" if low != high else content.number(cell[metric])
            assert mark["told"][1] == f"{column.heading}: {value} {column.unit}".strip()
            valued.setdefault((mark["figure"], metric), []).append((cell[metric], mark["y"]))
        else:
            assert mark["told"][1].startswith(content.status_words(cell["status"]))
    values, heights = np.array(valued["fig-5", THROUGHPUT]).T
    assert len(values) > 20 and abs(np.corrcoef(values, heights)[0, 1]) > 0.9999


def test_the_mouse_finds_the_nearest_mark(show, cells):
    browser = show("#fig-5")
    told, hidden = browser.execute_script("""
        const svg = document.querySelector('#fig-5 svg'), mark = svg.querySelector('[id*="mark."] use');
        const box = mark.getBoundingClientRect(), at = {clientX: box.right + 6, clientY: box.top, bubbles: true};
        svg.dispatchEvent(new PointerEvent('pointermove', at));
        const told = document.getElementById('tip').textContent, label = mark.getAttribute('aria-label');
        svg.dispatchEvent(new PointerEvent('pointerleave', {}));
        return [[told, label], document.getElementById('tip').hidden]""")
    assert told[0] == told[1].replace("; ", "") or told[0].replace(" ", "") == told[1].replace("; ", "").replace(
        " ", ""
    )
    assert hidden


def test_a_click_on_a_mark_opens_the_record_of_its_cell(show):
    found = show("#fig-5").execute_script("""
        const marks = [...document.querySelectorAll('#fig-5 svg [data-cell]')].slice(0, 24), wanted = [], opened = [];
        for (const mark of marks.filter(mark => mark.checkVisibility())) {
          const key = new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}), odd = wanted.length % 2;
          mark.dispatchEvent(odd ? key : new MouseEvent('click', {bubbles: true}));
          wanted.push(mark.dataset.cell);
          opened.push(document.querySelector('dialog[open] .cell').textContent);
          document.querySelector('dialog').close();
        }
        return [wanted, opened]""")
    assert found[0] == found[1] and len(found[0]) > 10


def test_an_entry_of_the_legend_hides_its_series(show):
    browser = show("#fig-5")
    states = browser.execute_script("""
        const drawn = '#fig-5 svg[data-name="fig-5"]';
        const entry = document.querySelector(`${drawn} [aria-pressed]`), hue = /hue\\d+/.exec(entry.id)[0];
        const shown = name => [...document.querySelectorAll(`${drawn} [id*="mark.${name}."]`)].map(m =>
            getComputedStyle(m).display !== 'none');
        const all = () => [shown(hue), [...document.querySelectorAll(`${drawn} [id*="mark."]`)].filter(m =>
            !m.id.includes(`.${hue}.`)).map(m => getComputedStyle(m).display !== 'none')], before = all();
        entry.dispatchEvent(new MouseEvent('click', {bubbles: true}));
        const off = all(), pressed = entry.getAttribute('aria-pressed');
        entry.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}));
        return [before, off, pressed, all()]""")
    before, off, pressed, after = states
    assert before == after and all(before[0]) and pressed == "false"
    assert before[0] and not any(off[0]) and off[1] and all(off[1]), "only its own series goes"


STYLES = """
return [...document.querySelector(arguments[0]).querySelectorAll('path, use, text, rect')].map(e => {
  const s = getComputedStyle(e);
  return [e.tagName, s.fill, s.stroke, s.strokeWidth, s.fontSize, s.textAnchor, s.strokeLinejoin, s.opacity]; })"""


def test_a_saved_drawing_looks_as_in_the_page(show, browser, tmp_path):
    """The page writes the styles of all drawings once; a drawing that leaves it takes its own along."""
    show("#fig-5")
    inside = browser.execute_script(STYLES, "#fig-5 svg")
    text = browser.execute_async_script("""
        const done = arguments[0];
        URL.createObjectURL = blob => { blob.text().then(done); return '#'; };
        document.querySelector('#fig-5 button.save-svg').click()""")
    saved = tmp_path / "saved.svg"
    saved.write_text(text)
    browser.get(saved.as_uri())
    assert browser.execute_script(STYLES, "svg") == inside
    assert len({tuple(look) for look in inside}) > 10


# ------------------------------------------------------------------------------- table and records


def test_sort_and_filter_as_the_address_says(show, cells):
    browser = show()
    browser.execute_script("""
        const find = document.querySelector('#cells-table input[type=search]');
        find.value = 'olmoe'; find.dispatchEvent(new Event('input', {bubbles: true}));
        document.querySelector('[data-column=e2e_s]').click(); document.querySelector('[data-column=e2e_s]').click()""")
    wanted = cells[cells["model_title"].str.contains("OLMoE") & cells["e2e_s"].notna()]
    ordered = wanted.sort_values("e2e_s", ascending=False, kind="stable")["e2e_s"].tolist()[:25]
    shown = rows(browser)
    assert cells.loc[shown, "e2e_s"].dropna().tolist() == ordered and len(ordered) > 5
    assert browser.execute_script("return document.querySelector('[data-column=e2e_s]').parentElement.ariaSort") == (
        "descending"
    )
    address = browser.execute_script("return location.hash")
    assert "find=olmoe" in address and "sort=e2e_s%3Adown" in address
    assert rows(show(address)) == shown, "the address brings the same table back"


def test_a_link_to_a_cell_opens_its_record(show, cells, study):
    name = cells.index[cells["status"] == "ok"][3]
    cell = cells.loc[name]
    browser = show(f"#cells?cell={name.replace('/', '%2F')}")
    text = browser.execute_script("return document.querySelector('dialog[open]').innerText")
    assert content.number(cell["e2e_s"]) in text and f"--force results/cells/{name}.json" in text
    runs = parquet.read(study / "results/tables/tiny", "samples")
    mine = runs[(runs["engine"] + "/" + runs["cell"]) == name]
    assert len(mine) > 1 and all(content.number(took_s) in text for took_s in mine["e2e_s"])
    address = browser.execute_async_script("""
        const dialog = document.querySelector('dialog'), done = arguments[0];
        dialog.addEventListener('close', () => setTimeout(() => done(location.hash)));
        dialog.querySelector('button').click()""")
    assert "cell=" not in address


def test_a_failed_cell_shows_its_evidence(show, cells):
    name = cells.index[cells["status"] == "oom_weights"][0]
    text = show(f"#cells?cell={name}").execute_script("return document.querySelector('dialog[open]').innerText")
    assert "out of memory: weights" in text and "ValueError: To serve at least one request" in text


def test_the_table_is_copied_as_csv(show, cells):
    browser = show("#cells?find=qwen3")
    text = browser.execute_async_script("""
        const done = arguments[arguments.length - 1];
        navigator.clipboard.writeText = async text => done(text);
        [...document.querySelectorAll('#cells-table button')].find(b => b.textContent === 'Copy as CSV').click()""")
    copied = list(csv.DictReader(io.StringIO(text)))
    wanted = cells[cells["model_title"].str.contains("Qwen3")]
    assert {f"{row['engine']}/{row['cell']}" for row in copied} == set(wanted.index) and copied
    for row in copied:
        cell = wanted.loc[f"{row['engine']}/{row['cell']}"]
        for name in ("e2e_s", "ttft_s", THROUGHPUT):
            assert row[name] == "" if pd.isna(cell[name]) else float(row[name]) == pytest.approx(cell[name], rel=1e-6)


# ----------------------------------------------------------------------------------------- explorer

POINTS = """
return [...document.querySelectorAll('.chart [role=button]')].map(mark => { mark.focus();
  return [...document.querySelectorAll('#tip > *')].map(line => line.textContent); })"""


def chosen(browser: Any) -> dict[str, str]:
    """What the controls of the explorer say."""
    script = "return Object.fromEntries([...document.querySelectorAll('#explore [data-key]')].map(b => [b.dataset.key, b.type === 'checkbox' ? String(b.checked) : b.value]))"  # noqa: E501
    return dict(browser.execute_script(script))


def choose(browser: Any, key: str, value: str) -> None:
    browser.execute_script(
        "const box = document.querySelector(`#explore [data-key=${arguments[0]}]`); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change', {bubbles: true}))", key, value)  # fmt: skip


def test_the_explorer_draws_any_metric_with_the_values_of_the_tables(show, cells, study):
    browser = show()
    choose(browser, "e", "batch")
    choose(browser, "y", "e2e_s")
    rows = read_plan(study / "results/plan/tiny.json")["experiments"]["batch"]["rows"]
    mine = cells.loc[[f"{row['engine']}/{row['cell']}" for row in rows]]
    wanted = sorted(content.number(v) for v in mine["e2e_s"].dropna())
    points = browser.execute_script(POINTS)
    assert sorted(re.search(r": (\S+) \(", point[1]).group(1) for point in points) == wanted and len(wanted) > 10
    address = browser.execute_script("return location.hash")
    before = chosen(browser)
    assert before["e"] == "batch" and before["y"] == "e2e_s"
    again = show(address)
    assert chosen(again) == before and again.execute_script(POINTS) == points


def test_relative_to_an_arm(show, cells):
    browser = show("#explore?e=batch&y=e2e_s")
    arm = browser.execute_script("return document.querySelector('#explore [data-key=rel]').options[1].value")
    choose(browser, "rel", arm)
    told = [point[-1] for point in browser.execute_script(POINTS)]
    ratios = [float(text.rpartition(": ")[2].replace(",", "")) for text in told]
    assert ratios.count(1.0) >= 2 and len(set(ratios)) > 2 and all("relative to" in text for text in told)


def test_unstable_cells_can_be_hidden(show, cells, page, tmp_path):
    head, made, tail = parts(page)
    batch = next(e for e in made["experiments"] if e["name"] == "batch")
    measured = [row[0] for row in batch["rows"] if made["columns"][THROUGHPUT][row[0]] is not None]
    made["columns"]["unstable"] = [i in measured[:3] for i in range(len(made["ids"]))]
    file = tmp_path / "unstable.html"
    file.write_text(head + json.dumps(made) + tail)
    anchor = f"#explore?e=batch&y={THROUGHPUT}"
    hollow = "return document.querySelector('.said').textContent"
    browser = show(anchor, file=file)
    assert len(browser.execute_script(POINTS)) == len(measured) > 10
    assert "3 of them unstable (hollow)" in browser.execute_script(hollow)
    browser = show(f"{anchor}&stable=1", file=file)
    assert len(browser.execute_script(POINTS)) == len(measured) - 3
    assert "3 unstable cells hidden" in browser.execute_script(hollow)


def test_another_report_is_run_b(show, page):
    browser = show("#explore?e=batch&y=e2e_s")
    before = len(browser.execute_script(POINTS))
    browser.find_element("css selector", "#explore input[type=file]").send_keys(str(page))
    for _ in range(100):
        points = browser.execute_script(POINTS)
        if points and "/ this run" in points[0][-1]:
            break
        time.sleep(0.05)
    assert len(points) == before and all(point[-1].endswith("/ this run: 1.000") for point in points)


# ------------------------------------------------------------------------------ contents and theme


def test_slash_searches_the_page(show):
    browser = show()
    found = browser.execute_script("""
        document.dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true, cancelable: true}));
        const box = document.activeElement;
        box.value = 'MIB-F05-03'; box.dispatchEvent(new Event('input', {bubbles: true}));
        const links = [...document.querySelectorAll('#found a')].map(a => a.getAttribute('href'));
        box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}));
        return [box.id, links]""")
    assert found[0] == "search" and "#claim-MIB-F05-03-DS" in found[1]
    time.sleep(0.2)
    seen = browser.execute_script(
        "return [location.hash, document.getElementById(location.hash.slice(1)).checkVisibility()]"
    )
    assert seen[0].startswith("#claim-MIB-F05-03") and seen[1], "the folded part it is in was unfolded"


def test_the_theme_is_in_the_address(show):
    background = "return getComputedStyle(document.body).backgroundColor"
    light, dark = show().execute_script(background), show(dark=True).execute_script(background)
    assert light != dark
    browser = show()
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(background) == dark
    assert show(browser.execute_script("return location.hash")).execute_script(background) == dark


def test_print_unfolds_the_figures(show):
    browser = show()
    count = "return [...document.querySelectorAll('main figure')].filter(f => f.checkVisibility()).length"
    before = browser.execute_script(count)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(count) == 8
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(count) == before


# ---------------------------------------------------------------------------------- Observable Plot


def test_plot_is_the_pinned_file(monkeypatch, tmp_path):
    assert scripts.plot().startswith("/* @observablehq/plot 0.6.17,")
    changed = tmp_path / "plot.js"
    changed.write_text(scripts.plot() + " ")
    monkeypatch.setattr(scripts, "PLOT", changed)
    with pytest.raises(archive.StorageError, match=r"not the pinned file.*make plot"):
        scripts.plot()


@pytest.mark.nightly
def test_plot_is_built_again_to_the_byte(tmp_path):
    place = tmp_path / "workflow/moebench/report/plot"
    shutil.copytree(
        scripts.PLOT.parent, place, ignore=shutil.ignore_patterns("node_modules", "plot.js", "LICENSES.txt")
    )
    (tmp_path / "tests/report").mkdir(parents=True)
    for command in (["npm", "ci"], ["npm", "run", "build"]):
        subprocess.run(command, cwd=place, check=True, capture_output=True)
    for made in ("workflow/moebench/report/plot/plot.js", "workflow/moebench/report/plot/LICENSES.txt",
                 "tests/report/axe.min.js"):  # fmt: skip
        assert (tmp_path / made).read_bytes() == (ROOT / made).read_bytes(), made
