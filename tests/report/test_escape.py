"""Texts of the configuration and of records come from people and engines: none of them is markup in the report."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import synthetic
from moebench import figures
from moebench.claims import collect, spec
from moebench.config import Config
from moebench.measure import records
from moebench.plan.file import read_plan
from moebench.report import build

CANARY = "</script><img src=canary onerror=boom()>'\"&{{ 7*7 }}"


def marked(data: Any) -> Any:
    """The same data with the canary in every text of more than a word."""
    if isinstance(data, dict):
        return {key: marked(value) for key, value in data.items()}
    if isinstance(data, list):
        return [marked(value) for value in data]
    return f"{data} {CANARY}" if isinstance(data, str) and " " in data.strip() else data


class Tags(HTMLParser):
    """Elements and attributes that a browser would make of the canary."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if any(name == "onerror" or value == "canary" for name, value in attrs):
            self.found.append(f"<{tag} {attrs}>, line {self.getpos()[0]}")


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # titles of a hundred words have no room
def test_no_text_is_markup(tmp_path: Path) -> None:
    path, results = synthetic.rich(tmp_path / "results"), tmp_path / "results"
    plan = read_plan(path)
    plan["experiments"]["batch"]["claims"] = ["MIB-F05-01-DS", "MIB-F05-03-DS"]
    kept = spec.of_plan(Config(Path(__file__).parents[2] / "config"), plan["experiments"], [])
    plan["claims"] = kept | {"stands_for": {"mixtral-tiny": "deepseek-v2-lite"}}
    plan = marked(plan)
    path.write_text(json.dumps(plan))
    for key in plan["cells"]:
        file = records.cell_path(results, *key.split("/"))
        if file.exists():
            file.write_bytes(json.dumps(records.seal(marked(json.loads(file.read_bytes())))).encode())
    tables, drawn = results / "tables/tiny", tmp_path / "reports/tiny/figures"
    collect.collect(path, results, tables, results_name="results")
    for experiment in plan["experiments"]:
        figures.render(plan, tables, drawn, experiment)
    page = build(path, tables, drawn, tmp_path / "reports/tiny/report.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("canary") > 20, "the texts are in the page"
    assert "49" not in text.partition("canary")[2][:40], "no template either"
    assert Tags(text).found == []
    for svg in drawn.glob("*.svg"):
        assert Tags(svg.read_text(encoding="utf-8")).found == []
