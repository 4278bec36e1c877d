"""Report and archive of studies without cells: parameters of models, and points of the cost model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import studies
from moebench import figures
from moebench.claims import collect
from moebench.commands.planning import keep, make_plan
from moebench.config import Config
from moebench.plan.file import read_plan
from moebench.report import build
from moebench.report.archive import Rebuilt, archive, rebuild
from studies import ROOT

RESULTS, TABLES, FOLDER = Path("results"), Path("results/tables/test"), Path("reports/test")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A configuration folder, in the current one."""
    monkeypatch.chdir(tmp_path)
    folder = studies.folder(tmp_path, {})
    shutil.copytree(ROOT / "config/papers", folder / "papers")
    return folder


def made(config: Path, experiment: str) -> tuple[Path, str, Rebuilt]:
    """Plan, page, and what an archive renders again without the configuration; of an experiment, with one figure."""
    described = yaml.safe_load((ROOT / f"config/experiments/{experiment}.yaml").read_text())
    studies.write(config / f"experiments/{experiment}.yaml", described | {"figures": described["figures"][:1]})
    study = config / "studies/test.yaml"
    studies.write(study, yaml.safe_load(study.read_text()) | {"experiments": [experiment]})
    plan = make_plan(Config(config), "test")
    path = keep(plan, RESULTS)
    assert str(collect.collect(path, RESULTS, TABLES)) == "test: no cells"
    files = figures.render(plan, TABLES, FOLDER / "figures", experiment)
    assert sorted(file.suffix for file in files) == [".csv", ".svg"]
    page = build(path, TABLES, FOLDER / "figures", FOLDER / "report.html").read_text()
    packed = archive(path, RESULTS, TABLES, FOLDER, config, Path("archive.zip"))
    shutil.rmtree(config)
    return path, page, rebuild(packed, Path("again"))


def test_parameters_of_models(config):
    _, page, again = made(config, "fig01-parameters")
    assert "<p>Computed from published architectures; nothing was measured." in page
    assert "Nothing is measured yet" not in page and "Incomplete" not in page
    assert "full-size models, not those" not in page, "there are no others in this report"
    assert again.identical


def test_points_of_the_cost_model_and_a_papers_tables(config):
    path, page, again = made(config, "qs-inequality")
    for numbers in read_plan(path)["experiments"]["qs-inequality"]["printed"]["numbers"]:
        assert f'id="qs-inequality-{numbers["id"]}"' in page
        for row in numbers["rows"]:
            assert all(f">{digits}</td>" in page for k, digits in row["printed"].items()
                       if digits and (numbers["id"], k) != ("table6", "throughput_moe"))  # fmt: skip
    assert page.count('<span class="aside">illegible</span>') == 5 and "nothing was measured" in page
    assert "assumed, the paper does not say" in page, "what is assumed is said"
    assert again.identical
