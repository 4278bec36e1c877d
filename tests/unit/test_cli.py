"""The command line: every spelling that ever worked, help and tables that fit, JSON, completion of words.

On a terminal and in a shell: tests/workflow/test_command_process.py.
"""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path

import pytest
import typer

import studies
import synthetic
from moebench import __version__, text
from moebench.claims import coverage
from moebench.commands import cli
from moebench.commands.app import GROUPS, INTERNAL
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.measure import records
from moebench.plan import jobs
from moebench.storage import lock
from studies import ROOT

OF_STUDY = "--config=C --study=S --results=R --reports=P --models=M --data=D --environments=E"
OLD = {
    "plan": f"{OF_STUDY} --write=F --json --environment-names --cells --gpus=1 --budget=0.5 --summary",
    "stage": f"{OF_STUDY} --budget=2 --update --full --check",
    "measure": "--plan=F --results=R --job=J --cell=E/C --engine-log=L",
    "derive": "--plan=F --model=A --log=L",
    "evaluate": "--plan=F --results=R --harness=H --job=J --cell=E/C --engine-log=L",
    "collect": "--plan=F --results=R --out=O",
    "figures": "--plan=F --tables=T --out=O",
    "report": f"{OF_STUDY} --plan=F --tables=T --figures=G --out=O --partial --from=A",
    "archive": "--plan=F --results=R --tables=T --report=P --config=C --out=O",
    "failures": f"{OF_STUDY} --profile=P",
    "doctor": f"{OF_STUDY} --profile=P",
    "claims": f"{OF_STUDY} --verdict=confirmed --comparisons --json --check ONE TWO",
    "compare": "--study=S --metric=M --threshold=0.1 --adjust=holm --all --json --csv=F A B",
    "calibrate": f"{OF_STUDY} --threads=1 --residuals --json",
    "qs": "--hardware=H --context=1 --gpus=1 --quality=2 --quantization=fp8 --batch=1 --tp=1 --pp=1 --dp=1 --ep=1"
    " --kvp=1 --sensitivity --config=C --json M",
    "verify": "A",
    "columns": "",
    "schema": "--config=C --check",
}
"""Every verb and option that argparse read, in all of the history up to the change to typer."""
COMMAND = cli.command()


def parse(verb: str, *arguments: str) -> dict[str, object]:
    """What a verb gets; raises typer.TyperException for what it does not read."""
    return COMMAND.commands[verb].make_context(verb, list(arguments)).params


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of the command in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code or 0, *capsys.readouterr()


@functools.cache
def _comparisons(study: str, rows=coverage.rows) -> list[dict[str, object]]:
    return rows(studies.planned(study))


@pytest.fixture
def kept_plans(monkeypatch):
    """In the project's folder, with plans of its studies that are made once for all tests, and known to be drawable
    (test_parameters.py)."""
    monkeypatch.chdir(ROOT)
    plans = {study: studies.planned(study) for study in ("tiny", "paper")}
    monkeypatch.setattr(coverage, "rows", lambda plan: _comparisons(plan["study"]))
    monkeypatch.setattr("moebench.commands.planning.make_plan", lambda config, study, **_: plans[study])
    monkeypatch.setattr("moebench.figures.check", lambda plan, folder: None)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A study of three cells in its folder, with nothing staged or measured; its plan."""
    cells = {"input_tokens": 8, "output_tokens": 4, "model": "tiny-mixtral"}
    config = studies.folder(tmp_path, {"x": [{"fix": cells, "cross": {"batch": [1, 2, 4]}}]})
    monkeypatch.chdir(tmp_path)
    return make_plan(Config(config), "test")


# ----------------------------------------------------------------------------------------- old spellings


@pytest.mark.parametrize("verb", OLD)
def test_every_old_spelling_is_read_each_alone_and_all_together(verb):
    arguments = OLD[verb].split()
    together = parse(verb, *arguments)
    spaced = [part for one in arguments for part in one.split("=")]
    assert parse(verb, *spaced) == together
    needed = [a for a in arguments if not a.startswith("--") or _option(verb, a).required]
    bare = parse(verb, *needed)
    for argument in set(arguments) - set(needed):
        name, alone = _option(verb, argument).name, parse(verb, *needed, argument)
        assert alone == bare | {name: together[name]} and alone != bare


def _option(verb: str, argument: str):
    name = argument.partition("=")[0]
    return next(option for option in COMMAND.commands[verb].params if name in option.opts)


def test_options_may_be_cut_short_and_several_checkpoints_follow_one_option():
    assert parse("plan", "--res", "x", "--bud=3")["results_folder"] == Path("x")
    assert parse("measure", "--plan", "f", "--eng=x")["engine_log"] == Path("x")
    with pytest.raises(typer.TyperException):
        parse("plan", "--re", "x")  # --results or --reports
    made = parse("derive", "--plan", "f", "--model", "a", "b", "c", "--log", "l")
    assert [*made["model"], *made["more"]] == ["a", "b", "c"] and made["log"] == Path("l")


def test_the_rules_and_the_documentation_use_options_that_there_are():
    """Commands in the workflow's rules, the Makefile and the pages: each option belongs to its verb."""
    files = [*(ROOT / "workflow/rules").glob("*.smk"), ROOT / "Makefile", *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    found = set()
    for file in files:
        joined = re.sub(r'"\n\s*"', "", file.read_text())
        for verb, rest in re.findall(r"(?:-m |`|^|\s\()moebench ([a-z]+)\b([^`\n|#]*)", joined, re.M):
            if verb in COMMAND.commands:
                found |= {(verb, option) for option in re.findall(r"(?<!\S)--[a-z-]+", rest.partition("snakemake")[0])}
    assert len(found) > 40
    assert [(v, o) for v, o in sorted(found) if not any(o in p.opts for p in _options(COMMAND.commands[v]))] == []


def _options(command):
    """Options of a verb, or of all verbs of a group."""
    return [*command.params, *(p for one in getattr(command, "commands", {}).values() for p in one.params)]


# -------------------------------------------------------------------------------------- help and version


def test_the_first_help_is_one_screen_in_groups(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (["--help"], ["-h"], []):
        code, out, err = run(capsys, *arguments)
        lines = out.splitlines()
        assert code == (0 if arguments else 2) and err == ""
        assert len(lines) <= 23 and max(map(len, lines)) <= 80 and "\x1b" not in out  # and the prompt
        assert [line.strip() for line in lines if line.strip() in GROUPS] == [g for g in GROUPS if g != INTERNAL]
    listed = {line.split()[0] for line in lines if line.startswith("  ")}
    internal = {"measure", "evaluate", "derive", "collect", "schema", "archive"}
    assert listed == set(COMMAND.commands) - internal and set(OLD) <= set(COMMAND.commands)


@pytest.mark.parametrize("verb", sorted(COMMAND.commands))
def test_every_verb_and_option_says_what_it_does(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0 and f"Usage: moebench {verb}" in out and max(map(len, out.splitlines())) <= 80
    command = COMMAND.commands[verb]
    assert len(command.short_help) <= 67 and command.short_help.endswith((".", ")."))
    assert all(option.help and option.help.endswith(".") for option in command.params)


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"{__version__}\n", "")


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("pln", "moebench: No such command 'pln'. Did you mean 'plan'?"),
        ("frobnicate", "moebench: No such command 'frobnicate'; see `moebench --help`"),
        ("--versoin", "moebench: No such option: --versoin. Did you mean --version?"),
        ("plan --stdy x", "moebench plan: No such option: --stdy. Did you mean --study?"),
        ("plan --gpus", "moebench plan: Option '--gpus' requires an argument; see `moebench plan --help`"),
        ("plan extra", "moebench plan: Got unexpected extra argument(s) (extra); see `moebench plan --help`"),
        ("plan --gpus 0", "'0' is not a number above zero"),
        ("plan --budget nan", "'nan' is not a number above zero"),
        ("compare a b --threshold=-1", "'-1' is not a number above zero"),
        (
            "claims --verdict maybe",
            "moebench claims: Invalid value for '--verdict': 'maybe' is not one of 'con",
        ),
        ("collect --results r --out o", "moebench collect: Missing option '--plan'; see `moebench collect --help`"),
        ("measure --plan p", "give one of --job and --cell"),
        ("evaluate --plan p --job j --cell e/c", "give one of --job and --cell"),
        ("report", "moebench report: report: give --plan, --tables, --figures and --out, or --partial"),
        ("qs nothing --hardware x", "moebench qs: MODEL: unknown model 'nothing'"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(ROOT)
    code, out, err = run(capsys, *arguments.split())
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1


def test_an_interruption_keeps_its_exit_code_and_reaches_the_progress_log(capsys, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt("SIGTERM")

    plan = synthetic.Plan()
    plan.data |= {"jobs": {"j": {"engines": ["e"]}}}
    monkeypatch.setattr("moebench.measure.constants.ensure", interrupted)
    monkeypatch.setattr("moebench.measure.job_log.end_on_signals", lambda: None)
    path = plan.write(tmp_path / "results")
    code, out, err = run(capsys, "measure", "--plan", path, "--job", "j", "--engine-log", tmp_path / "j.log")
    line = "interrupted SIGTERM; what was measured is kept"
    assert (code, out) == (130, "") and f"moebench measure: {line}\n" in err
    assert line in (tmp_path / "j.progress.log").read_text()


# ------------------------------------------------------------------------------------------------ tables

ROWS = [["a-name-of-an-engine-configuration-" + "x" * 70, 3, "ok"], ["b", 12345, "words that may be broken " * 3]]


@pytest.mark.parametrize("columns", [80, 200])
def test_a_table_fits_the_terminal_and_loses_nothing(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    printed = text.table(["name", "number", "words"], ROWS)
    lines = printed.splitlines()
    assert max(map(len, lines)) <= columns and (len(lines) > 3) == (columns == 80)
    assert max(map(len, lines)) > min(columns, 190) - 20, "the width is used"
    at = lines[0].index("number") + len("number")
    numbers = [line[:at].rpartition(" ")[2] for line in lines[1:]]
    assert {"3", "12345"} <= set(numbers), "numbers end where their heading ends"
    column = "".join(line[: lines[0].index("number")].strip() for line in lines[1:])
    assert column == ROWS[0][0] + "b"


def test_a_table_in_a_pipe_has_a_line_per_row(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = text.table(["name", "number", "words"], ROWS).splitlines()
    assert len(lines) == 3 and lines[1].split("  ")[0] == ROWS[0][0] and lines[2].endswith("words that may be broken")


@pytest.mark.parametrize(
    "arguments",
    ["plan --study tiny", "claims --study paper --comparisons", "columns",
     "qs deepseek-v3 --hardware qs-reference --sensitivity"],
)  # fmt: skip
def test_tables_of_verbs_fit(capsys, monkeypatch, kept_plans, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, *arguments.split())
    prose = r"study |accuracy by|qs = |about |\d+ distinct|whether "
    table = [line for line in out.splitlines() if not re.match(prose, line)]
    assert len(table) > 5 and max(map(len, table)) <= 80 and "\x1b" not in out


def test_the_findings_of_doctor_fit(capsys, monkeypatch, small):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, run(capsys, "doctor")[1].splitlines())) <= 80


# -------------------------------------------------------------------------------------------------- JSON


def strict(printed: str):
    """JSON without NaN or infinity."""
    return json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_every_verb_has_json_but_those_that_print_no_table():
    without = {verb for verb in COMMAND.commands if not any("--json" in p.opts for p in COMMAND.commands[verb].params)}
    groups = {"campaign", "models"}
    writers = {"archive", "collect", "derive", "evaluate", "figures", "measure", "report", "schema"}
    assert without == groups | writers  # these print the files that they wrote, or progress
    nested = {(group, name): verb for group in groups for name, verb in COMMAND.commands[group].commands.items()}
    assert {name for name, verb in nested.items() if not any("--json" in p.opts for p in verb.params)} == {
        ("campaign", "run")
    }


def test_plan_and_summary_as_json(capsys, kept_plans):
    at = ["plan", "--study", "tiny", "--results", "/nowhere"]
    whole = strict(run(capsys, *at, "--json")[1])
    assert whole["digest"] == studies.planned("tiny")["digest"]
    assert strict(run(capsys, *at, "--environment-names", "--json")[1]) == jobs.environments_needed(whole)
    made, printed = strict(run(capsys, *at, "--summary", "--json")[1]), run(capsys, *at)[1]
    assert (made["cells"], made["jobs"], made["measured"]) == (len(whole["cells"]), len(whole["jobs"]), 0)
    assert {name: bool(rows) for name, rows in made["tables"].items()} == dict.fromkeys(
        ("experiments", "jobs", "derived", "derive_jobs", "accuracy_lm-eval", "accuracy_vlmeval"), True
    )
    assert set(made["tables"]["jobs"][0]) == {"job", "loads", "cells", "gpus", "memory_mb", "minutes", "measured"}
    for rows in made["tables"].values():
        for row in rows:
            assert re.search(r"^" + r"\s+".join(re.escape(str(value)) for value in row.values()) + "$", printed, re.M)


def test_doctor_and_staging_as_json(capsys, small):
    nowhere = ("--environments", "nowhere", "--models", "nowhere")
    code, out, _ = run(capsys, "doctor", "--json", *nowhere)
    found, printed = strict(out), run(capsys, "doctor", *nowhere)[1]
    assert code == 1 and [set(f) for f in found] == [{"what", "status", "seen", "remedy"}] * len(found)
    missing = [f for f in found if f["status"] == "missing"]
    assert f"{len(missing)} (marked MISSING)" in printed and printed.count("\nMISSING ") == len(missing) > 0
    assert all(f["remedy"] and f"-> {f['remedy']}" in printed for f in missing)
    code, out, _ = run(capsys, "stage", "--check", "--json", *nowhere[2:])
    listed = {entry["folder"]: entry["problem"] for entry in strict(out)}
    lines = run(capsys, "stage", "--check", *nowhere[2:])[1].splitlines()
    assert code == 1 and lines == [f"{folder}: {problem}" for folder, problem in listed.items()] != []


def test_staging_with_a_plan_takes_that_of_its_study_only(capsys, small, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(small | {"study": "another"}))
    code, _, problem = run(capsys, "stage", "--study", "test", "--plan", str(plan), "--models", "nowhere")
    assert (
        code == 2
        and problem.count("\n") == 1
        and {str(plan), "another", "test"} <= set(re.findall(r"[\w/.-]+\w", problem))
    )
    assert not (tmp_path / "nowhere").exists()


def test_failures_as_json(capsys, small):
    for key, status in zip(small["cells"], ("ok", "oom_kv", None), strict=True):
        if status:
            records.store(Path("results"), synthetic.record(small, *key.split("/"), status=status))
    code, out, _ = run(capsys, "failures", "--json")
    found, printed = strict(out), run(capsys, "failures")[1]
    (failure,) = found["failures"]
    assert (code, found["study"], found["cells"], found["not_measured"]) == (1, "test", 3, 1)
    assert printed.startswith(f"oom_kv: {failure['cell']}\n") and failure["command"] in printed.splitlines()[-3]
    assert set(failure) == {"cell", "status", "reason", "evidence", "more_cells", "command"}


def test_failed_cells_are_run_again_in_bulk(capsys, small):
    """By status and reason; nothing with --dry-run; those that run right now are left alone."""
    first, *others = small["cells"]
    for key, reason in zip(
        small["cells"], ("ok", "the engine process was ended by SIGKILL", "out of TIME"), strict=True
    ):
        status = "ok" if reason == "ok" else "crashed"
        made = synthetic.record(small, *key.split("/"), status=status) | {"reason": reason, "attempt": 3}
        records.store(Path("results"), made)
    at = ("rerun", "--status", "crashed", "--reason")

    def left():
        return [key for key in small["cells"] if records.cell_path(Path("results"), *key.split("/")).exists()]

    assert run(capsys, "rerun")[0] == 2 and run(capsys, "rerun", "--status", "ok")[0] == 2
    code, out, _ = run(capsys, *at, "", "--dry-run", "--json")
    assert (code, [c["cell"] for c in strict(out)["cells"]], left()) == (0, others, list(small["cells"]))
    assert "no such cells" in run(capsys, *at, "nothing says this")[1]
    with lock.held(Path("results"), first.partition("/")[0], print):
        assert "2 cells left alone: their engine configurations are being measured" in run(capsys, *at, "")[1]
    code, out, _ = run(capsys, *at, "time", "--profile", str(ROOT / "profiles/slurm"))
    command = f"snakemake --profile {ROOT / 'profiles/slurm'}"
    assert code == 0 and f"1 cell will be measured again by: {command}" in out
    assert left() == [first, others[0]]
    assert len(list(Path("results/history").glob("*/*.json"))) == 3
    assert records.attempts_in_a_row(Path("results"), *others[1].split("/")) == 0


def test_the_other_tables_as_json(capsys, kept_plans):
    found, printed = strict(run(capsys, "columns", "--json")[1]), run(capsys, "columns")[1].splitlines()
    assert len(found) == len(printed) - 1
    assert all(
        c["column"] == line.split()[0] and c["meaning"] in line for c, line in zip(found, printed[1:], strict=True)
    )
    found = strict(run(capsys, "claims", "--study", "paper", "--comparisons", "--json")[1])
    printed = run(capsys, "claims", "--study", "paper", "--comparisons")[1].splitlines()
    assert [row["claim"] for row in found] == [line.split()[0] for line in printed[1 : len(found) + 1]]
    state = strict(run(capsys, "watch", "--study", "tiny", "--results", "none", "--json")[1])
    assert state["study"] == "tiny" and state["done"] == 0 < state["cells"] and state["lines"][0]["cells"] > 0
    made = strict(run(capsys, "qs", "deepseek-v3", "--hardware", "qs-reference", "--sensitivity", "--json")[1])
    assert made["sensitivity"][0]["change"] == "as it is" and math.isfinite(made["qs"])


# -------------------------------------------------------------------------------------------- completion


def test_bash_completes_verbs_options_studies_and_models(capsys, monkeypatch):
    def complete(words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        return run(capsys)[1].split()

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("_MOEBENCH_COMPLETE", "complete_bash")
    assert complete("moebench co") == ["compare", "columns"]
    assert "measure" not in complete("moebench ")
    assert set(complete("moebench plan --envir")) == {"--environments", "--environment-names"}
    assert set(complete("moebench plan --study t")) == {p.stem for p in (ROOT / "config/studies").glob("t*.yaml")}
    assert "deepseek-v3" in complete("moebench qs deep")


@pytest.mark.parametrize("lock", sorted((studies.ROOT / "envs").glob("*.lock")), ids=lambda path: path.stem)
def test_every_environment_can_run_verbs(lock):
    """Jobs call verbs in the environment of their engine."""
    assert re.search(r"^typer==", lock.read_text(), re.M) and re.search(r"^rich==", lock.read_text(), re.M)
