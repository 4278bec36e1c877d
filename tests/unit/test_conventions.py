"""Files that contributors' tools read: they run the project's own commands, which exist."""

import re

import yaml

from studies import ROOT

TARGETS = set(re.findall(r"^(?:([a-z-]+) ?)+:", (ROOT / "Makefile").read_text(), re.M))


def commands(workflow, job="test"):
    """What the steps of a GitHub workflow's job run."""
    steps = yaml.safe_load((ROOT / ".github/workflows" / workflow).read_text())["jobs"][job]["steps"]
    return [step["run"] for step in steps if "run" in step]


def test_github_runs_what_ci_runs_and_the_long_tests_at_night():
    assert commands("ci.yml") == ["sudo tests/system-packages", ".ci/run"]
    assert commands("nightly.yml")[:2] == ["sudo tests/system-packages", "make test-all"]
    assert "make soak" in commands("nightly.yml")[2] and "soak" in TARGETS
    laptop = commands("ci.yml", "laptop")
    assert [(ROOT / path).is_file() for path in re.findall(r"\S+/\S+", " ".join(laptop))] == [True, True]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111 and "test-all" in TARGETS


def test_hooks_are_targets_of_the_makefile():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert {hook["entry"].removeprefix("make ") for hook in local["hooks"]} == {"lint", "check"} <= TARGETS


def test_issue_forms_have_what_github_requires():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 3
    for form in map(yaml.safe_load, (path.read_text() for path in forms)):
        assert form["name"] and form["description"]
        ids = [part["id"] for part in form["body"]]
        assert len(set(ids)) == len(ids) and all(part["attributes"]["label"] for part in form["body"])


def test_the_catalogue_knows_how_to_deploy():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert (ROOT / usage["mandatory-flags"]["flags"].split()[1] / "config.yaml").is_file()
    deployment = usage["software-stack-deployment"]
    assert usage["report"] and deployment["conda"] and deployment["apptainer"]
