"""A study with its report, and a browser, for the tests of the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import synthetic
from moebench import figures
from moebench.claims import collect, spec
from moebench.config import Config
from moebench.measure import records
from moebench.plan import parameters
from moebench.plan.file import read_plan
from moebench.report import build

BROWSER = next((p for p in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(p).exists()), None)
SCRIPT_S = 200
"""Patience with a script in the page, on a busy machine."""
DRIVER = shutil.which("chromedriver")


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
    if not BROWSER or not DRIVER:
        pytest.skip("needs a browser: apt-get install -y chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    flags = [
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        "hide-scrollbars",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(SCRIPT_S)
    yield driver
    driver.quit()
