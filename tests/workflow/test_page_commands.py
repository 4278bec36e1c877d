"""Commands on the pages that change nothing run, for the small study and for the paper's."""

from __future__ import annotations

import functools
import re

import pytest

import studies
from moebench.commands.cli import main
from moebench.commands.planning import make_plan
from moebench.config import Config
from studies import ROOT

STUDIES = ("tiny", "paper")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SAFE = {"plan", "columns", "failures", "claims", "qs"}
"""Verbs that only read; of the last two, the verb alone is a mention, not a command."""
FILLED = {
    "NAME": "{study}", "paper": "{study}", "HOURS": "5", "MODEL": "mixtral-8x7b", "MACHINE": "h100-sxm5-80gb",
    "L": "4096", "N": "8",
}  # fmt: skip
"""What stands for the placeholders of the pages."""


def written() -> list[str]:
    """Commands with their placeholders, as on the pages, each once; without a study, the study is named."""
    found = set()
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        blocks = "\n".join(re.findall(r"```(?:bash|console)\n(.*?)```", text, re.S))
        lines = re.findall(r"(?:^|; |&& )moebench ([^;#&\n]*)", blocks, re.M) + re.findall(r"`moebench ([^`]+)`", text)
        found |= {" ".join(line.split()) for line in lines}
    return sorted(command for command in found - {"claims", "qs"} if command.split()[0] in SAFE)


def filled(command: str, study: str) -> str:
    """The command for a study, without results; equal for commands that differ in their placeholders alone."""
    verb, *arguments = command.split()
    words = [FILLED.get(word, word).format(study=study) for word in arguments]
    if words and words[-1] == "--budget":
        words.append("5")
    if verb in ("plan", "claims", "failures") and "--study" not in words:
        words = ["--study", study, *words]
    return " ".join([verb, *words])


COMMANDS = written()
FILLED_COMMANDS = sorted({filled(command, study) for command in COMMANDS for study in STUDIES})


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """In the project, with no results, and plans of its studies that are made once, but for those within a budget."""
    whole = {study: studies.planned(study) for study in STUDIES}

    def plan(config, study, *_, budget_gpu_hours=None, **__):
        return within(study, budget_gpu_hours) if budget_gpu_hours else whole[study]

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("moebench.commands.planning.make_plan", plan)
    return tmp_path


@functools.cache
def within(study: str, hours: float) -> dict:
    return make_plan(Config(ROOT / "config"), study, budget_gpu_hours=hours)


def test_the_pages_have_commands_of_every_safe_verb():
    assert {command.split()[0] for command in COMMANDS} == SAFE and "plan --study paper --cells" in COMMANDS


@pytest.mark.parametrize("command", FILLED_COMMANDS)
def test_a_command_of_the_pages_runs(command, fresh, capsys):
    verb, *words = command.split()
    if verb in ("plan", "claims", "failures"):
        words += ["--results", str(fresh / "none")]
    with pytest.raises(SystemExit) as end:
        main([verb, *words])
    out, err = capsys.readouterr()
    assert end.value.code in ((1,) if verb == "failures" else (0, None)), err
    assert out.strip() and "Traceback" not in err
