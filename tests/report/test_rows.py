"""Marks that are not cells: places of a heat map, computed points, parts of a model say the values of the tables."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pandas as pd
import pytest

import studies
import synthetic
from moebench import columns, figures
from moebench.claims import collect
from moebench.config import Config
from moebench.measure import records
from moebench.plan import parameters
from moebench.plan.file import read_plan
from moebench.report import build, content
from moebench.tables import parquet

MAPS = synthetic.figure("maps", "heatmap", "expert", "layer", number="15", value="relative_activation",
                        panel="model_title", beside=[], only={"phase": "all"})  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """Tables of a study with maps of two cells, computed points and the models of Table 1; the page is beside them."""
    root, rng = tmp_path_factory.mktemp("rows"), random.Random(1)
    plan = synthetic.Plan(kind="activation", repeats=1)
    plan.experiment("maps", MAPS)
    for model, layers, experts in (("mixtral-tiny", 3, 8), ("olmoe-tiny", 2, 16)):
        ids = plan.add("maps", {"model": model}, {"batch": 4, "prompts": "items"}, model=model)
        counted = {"repeats": [{"seed": 1, "metrics": {}}], "warmup": [],
                   "activation": synthetic.routing(rng, layers, experts, never=1)}  # fmt: skip
        records.store(root / "results", synthetic.record(plan.data, *ids, **counted))
    computed = studies.planned("tiny")["experiments"]["qs-inequality"]
    kept = [figure for figure in computed["figures"] if figure["id"] in ("qs-speedup", "qs-traffic")]
    plan.data["experiments"]["computed"] = computed | {"figures": kept, "claims": []}
    config = Config(studies.ROOT / "config")
    models = config.experiment("fig01-parameters")
    plan.data["experiments"][models.name] = models.model_dump() | parameters.facts(config, models) | {"rows": []}
    path, made = plan.write(root / "results"), root / "results/tables/tiny"
    collect.collect(path, root / "results", made, results_name="results")
    for name in read_plan(path)["experiments"]:
        figures.render(read_plan(path), made, root / "figures", name)
    build(path, made, root / "figures", root / "report.html")
    return made


@pytest.fixture(scope="module")
def told(browser, tables):
    """Of each figure: what its marks say when they have the focus, and where they are."""
    size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tables.parents[2] / "report.html").as_uri())
    browser.execute_script("document.getElementById('unfold').click()")
    return browser.execute_script("""
        const found = {};
        for (const mark of document.querySelectorAll('figure svg [tabindex]')) {
          if (mark.getAttribute('aria-pressed') || !mark.checkVisibility()) continue;
          mark.focus();
          const box = mark.getBoundingClientRect(), lines = [...document.querySelectorAll('#tip > *')];
          (found[mark.closest('figure').id] ||= []).push([...lines.map(line => line.textContent), box.x, box.y]);
        }
        return found""")


def numbers(values: pd.Series, metric: str) -> list[str]:
    unit = columns.COLUMNS[metric].unit
    return sorted(f"{content.number(v)} {unit}".strip() for v in values.dropna())


def test_every_place_of_a_map_says_its_value(told, tables):
    table = parquet.read(tables, "activation").query("phase == 'all'")
    assert len(told["maps"]) == len(table) == 3 * 8 + 2 * 16
    titles = {"Mixtral (tiny)": "mixtral-tiny", "OLMoE (tiny)": "olmoe-tiny"}
    places = {}
    for where, said, x, y in told["maps"]:
        model, layer, expert = re.fullmatch(r"(.*), Layer (\d+), Expert (\d+)", where).groups()
        mine = table[table["engine"].str.startswith(titles[model])]
        (row,) = mine[(mine["layer"] == int(layer)) & (mine["expert"] == int(expert))].to_dict("records")
        assert said.endswith(f": {content.number(row['relative_activation'])}")
        places[model, int(layer), int(expert)] = (x, y)
    for (model, layer, expert), (x, y) in places.items():
        if (right := places.get((model, layer, expert + 1))) and (below := places.get((model, layer + 1, expert))):
            assert right[0] > x + 2 and abs(right[1] - y) < 1 and below[1] > y + 2 and abs(below[0] - x) < 1


def test_a_click_on_a_place_opens_the_record_of_its_cell(told, browser, tables):
    cell = parquet.read(tables, "measurements").iloc[1]
    opened = browser.execute_script("""
        const marks = document.querySelectorAll('#maps svg [data-cell]');
        marks[marks.length / 2 - 1].dispatchEvent(new MouseEvent('click', {bubbles: true}));
        const text = document.querySelector('dialog[open] .cell').textContent;
        document.querySelector('dialog').close();
        return text""")
    assert opened == f"{cell['engine']}/{cell['cell']}"


def test_computed_points_say_what_the_table_has(told, tables):
    table = parquet.read(tables, "computed")
    for figure, metric in (("qs-speedup", "speedup_dense"), ("qs-traffic", "ffn_traffic_ratio")):
        drawn = pd.read_csv(tables.parents[2] / f"figures/{figure}.csv")
        said = [line.rpartition(": ")[2] for _, line, _, _ in told[figure]]
        assert sorted(said) == numbers(drawn[metric], metric) and len(said) > 20
        assert set(said) <= set(numbers(table[metric], metric))
        for model in set(drawn["model_title"]):
            mine = [line.rpartition(": ")[2] for where, line, _, _ in told[figure] if model in where.split(", ")]
            assert sorted(mine) == numbers(drawn.loc[drawn["model_title"] == model, metric], metric)


def test_parts_of_models_say_what_the_table_has(told, tables):
    table = parquet.read(tables, "parameters")
    marks = [(where, line) for where, line, _, _ in told["fig01"]]
    assert len(marks) > 40
    for metric in ("total_share", "active_share", "total_parameters", "active_parameters"):
        summed = table.groupby(["model_title", "component"])[metric].sum()
        heading, unit = columns.COLUMNS[metric].heading, columns.COLUMNS[metric].unit
        for where, line in marks:
            name, _, value = line.rpartition(": ")
            if name == heading:
                model, component = where.split(", ")
                wanted = summed[model, component.replace(" ", "_")]
                assert value == f"{content.number(wanted)} {unit}".strip()
