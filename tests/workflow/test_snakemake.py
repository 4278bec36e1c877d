"""What Snakemake users expect of any workflow: use as a module, --report, logs, --lint, --sdm conda and apptainer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import studies
from project import DEV, copy, run

MODULE = """
module moebench:
    snakefile: "{project}/Snakefile"
    config: {{"study": "drawn"}}


use rule * from moebench as moebench_*


rule all:
    default_target: True
    input: rules.moebench_all.input


onstart:
    moebench.before_start()
"""
STAND_INS = {
    "conda": """case "$*" in
"info --json") echo '{"conda_prefix": "/nowhere", "platform": "linux-64", "conda_version": "25.1.0"}' ;;
"config --get channel_priority --json") echo '{"get": {"channel_priority": "strict"}}' ;;
--version) echo "conda 25.1.0" ;;
*) exit 1 ;;
esac""",
    "apptainer": '[ "$1" = --version ] && echo "apptainer version 1.3.6"',
}


STRANGER = """import sys
sys.path = [folder for folder in sys.path if not folder.endswith("/workflow")]
from snakemake.cli import main
main()"""
"""Snakemake of an environment that does not know the package."""


def snakemake(place: Path, *arguments: str, **extra: str):
    """Run Snakemake without a profile."""
    return run(place, str(DEV / "python"), "-c", STRANGER, *arguments, PYTHONPATH="", **extra)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with another workflow that uses this one as a module, run: a study that needs no engine."""
    root = tmp_path_factory.mktemp("module")
    project, place = copy(root / "project"), root / "elsewhere"
    study = yaml.safe_load((project / "config/studies/tiny.yaml").read_text())
    del study["reference"]
    study |= {"name": "drawn", "experiments": ["fig01-parameters", "qs-inequality"]}
    studies.write(project / "config/studies/drawn.yaml", study)
    place.mkdir()
    (place / "Snakefile").write_text(MODULE.format(project=project))
    snakemake(place, "--cores", "1")
    return place


def test_another_workflow_uses_this_one_as_a_module(elsewhere: Path) -> None:
    assert (elsewhere / "reports/drawn/report.html").stat().st_size > 100_000
    assert not list(elsewhere.parent.glob("project/re*")), "results and reports are where Snakemake was called"
    done = snakemake(elsewhere, "-n", "-p", "moebench_archive")
    assert "--config ../project/config" in done.stdout + done.stderr
    assert "localrules directive specifies" not in done.stderr, "they are named as the other workflow names them"


def test_every_job_has_a_log(elsewhere: Path) -> None:
    logs = {path.stem: path.read_text() for path in (elsewhere / "logs/drawn").glob("*.log")}
    assert logs == {"collect": "drawn: no cells\n", "figures-computed": "", "report": "reports/drawn/report.html\n"}


def test_snakemakes_report_has_every_figure_with_its_caption(elsewhere: Path) -> None:
    snakemake(elsewhere, "--report", "all.html")
    page = (elsewhere / "all.html").read_text()
    results, categories = (
        json.loads(re.search(rf"^ *var {name} = (\{{.*\}});$", page, re.M)[1]) for name in ("results", "categories")
    )
    plan = json.loads((elsewhere / "results/plan/drawn.json").read_text())
    for experiment in plan["experiments"].values():
        paths = {f"reports/drawn/figures/{figure['id']}.svg" for figure in experiment["figures"]}
        assert set(categories.pop(experiment["title"])["Other"]) == paths
        for figure in experiment["figures"]:
            shown = results.pop(f"reports/drawn/figures/{figure['id']}.svg")
            assert shown["labels"] == {"figure": figure["number"], "title": figure["title"]}
            assert figure["title"] in shown["caption"] and re.search(r"</p>\s*<p>Computed .*\.</p>", shown["caption"])
    assert not results and not categories


@pytest.mark.parametrize("study", ["tiny", "paper"])
def test_snakemake_has_nothing_to_say_about_the_rules(tmp_path: Path, study: str) -> None:
    asked, nowhere = ["--lint", "--config", f"study={study}"], "/proc/no-home"  # as on nodes that do not mount it
    project = copy(tmp_path / "project")
    done = snakemake(project, "--profile", "profiles/slurm", *asked, HOME=nowhere, XDG_CACHE_HOME="")
    assert "Congratulations" in done.stderr


@pytest.mark.parametrize(("study", "kind"), [("tiny", "cpu"), ("paper", "cuda")])
def test_environments_by_conda_and_apptainer(tmp_path: Path, study: str, kind: str) -> None:
    project, path = copy(tmp_path / "project"), tmp_path / "bin"
    path.mkdir()
    for name, script in STAND_INS.items():
        (path / name).write_text(f"#!/bin/sh\n{script}\n")
        (path / name).chmod(0o755)
    for method, folder in [("conda", "$CONDA_PREFIX/environments"), ("apptainer", "$MOEBENCH_IMAGE_ENVS")]:
        asked = ["-n", "-p", "--config", f"study={study}", "--sdm", method]
        done = snakemake(project, *asked, PATH=f"{path}:/usr/bin:/bin")
        commands = re.findall(r"Shell command: (\$.*|.*/.*)", done.stdout + done.stderr)
        assert commands and all(command.startswith(folder) for command in commands), commands
        assert any(command.startswith(f"{folder}/vllm-{kind}/bin/python -m moebench measure") for command in commands)
        if method == "conda":
            assert f"Conda environment envs/deploy/{kind}.yaml will be created." in done.stdout + done.stderr
