"""A study with its report, and a browser, for the tests of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import pages
import synthetic
from moebench import figures
from moebench.claims import collect, spec
from moebench.config import Config
from moebench.measure import records
from moebench.plan import parameters
from moebench.plan.file import read_plan
from moebench.report import build


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """The rich study with a damaged record and the models of Table 1, drawn and reported; its root folder."""
    root = tmp_path_factory.mktemp("study")
    path = synthetic.rich(root / "results")
    plan = read_plan(path)
    plan["title"] = 'Tiny <models> & "quotes"'
    plan["experiments"]["batch"]["claims"] = ["MIB-F05-01-DS", "MIB-F05-03-DS"]
    config = Config(Path(__file__).parents[2] / "config")
    models = config.experiment("fig01-parameters")
    plan["experiments"][models.name] = models.model_dump() | parameters.facts(config, models) | {"rows": []}
    kept = spec.of_plan(config, plan["experiments"], [])
    plan["claims"] = kept | {"stands_for": {"mixtral-tiny": "deepseek-v2-lite", "olmoe-tiny": "qwen1.5-moe-a2.7b"}}
    path.write_text(json.dumps(plan))
    cell = next(c for c in plan["cells"].values() if c["workload"]["batch"] == 64)
    records.cell_path(root / "results", cell["engine"], cell["cell"]).write_text("{")
    collect.collect(path, root / "results", root / "results/tables/tiny", results_name="results")
    for experiment in plan["experiments"]:
        figures.render(plan, root / "results/tables/tiny", root / "reports/tiny/figures", experiment)
    build_report(root)
    return root


def build_report(root: Path, name: str = "report.html") -> Path:
    reports = root / "reports/tiny"
    return build(root / "results/plan/tiny.json", root / "results/tables/tiny", reports / "figures", reports / name)


@pytest.fixture(scope="session")
def page(study) -> Path:
    return study / "reports/tiny/report.html"


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator:
    """A headless Chromium that logs console and network."""
    with pages.browsing(tmp_path_factory.mktemp("profile")) as driver:
        yield driver
