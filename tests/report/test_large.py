"""A study of 10,000 cells, from records through tables and figures to the page: what it costs, and that it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pages
import synthetic
from moebench.claims import collect, spec
from moebench.config import Config
from moebench.plan.file import read_plan
from project import ROOT

CELLS = 10_000
pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Plan and tables, below a results folder."""
    root: Path = tmp_path_factory.mktemp("large") / "results"
    path = synthetic.large(root, CELLS)
    plan = read_plan(path)
    plan["experiments"]["part-0"]["claims"] = ["MIB-F05-01-DS", "MIB-F05-03-DS"]
    stands_for = {"mixtral-tiny": "deepseek-v2-lite", "olmoe-tiny": "qwen1.5-moe-a2.7b"}
    plan["claims"] = spec.of_plan(Config(ROOT / "config"), plan["experiments"], []) | {"stands_for": stands_for}
    path.write_text(json.dumps(plan))
    collect.collect(path, root, root / "tables/large", results_name="results")
    return root


@pytest.fixture(scope="module")
def built(large) -> tuple[Path, float]:
    """The page, and how long two cores take for it."""
    out = large.parent / "reports/large"
    took_s = pages.build_s(large / "plan/large.json", large / "tables/large", out)
    return out / "report.html", took_s


def test_it_is_built_within_three_minutes(built):
    assert built[1] < pages.BUILD_LARGE_S


def test_the_closed_page_is_light(built, browser):
    cost = pages.cost(browser, built[0])
    assert cost.load_s < pages.LOAD_LARGE_S and cost.screens <= pages.SCREENS and cost.nodes <= pages.NODES


def test_table_and_explorer_answer(built, browser):
    pages.look(browser, built[0], "#cells?find=olmoe&sort=e2e_s:down")
    count = browser.execute_script("return document.querySelector('.count').textContent")
    assert count.startswith("1 to 25 of 5") and count.endswith(" cells")
    pages.look(browser, built[0], "#explore?e=part-7&y=e2e_s")
    assert len(browser.execute_script("return document.querySelectorAll('.chart [role=button]')")) > 200
    assert browser.get_log("browser") == []


def test_axe_finds_nothing(built, browser: Any):
    pages.look(browser, built[0])
    assert pages.violations(browser) == []
