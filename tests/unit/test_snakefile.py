"""What is refused before Snakemake starts a job, which models a cell waits for, and the commands that are printed."""

import hashlib
import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import WorkflowError

import studies
import synthetic
from moebench import text
from moebench.commands import cli, show
from moebench.commands.planning import make_plan
from moebench.commands.snakefile import engines_of, planned_job, refuse_unbuilt
from moebench.config import Config
from moebench.measure import records
from moebench.plan.jobs import environments_needed

CELL = {"batch": 1, "input_tokens": 16, "output_tokens": 4}
TASK = {"fix": {"model": "tiny-mixtral"}, "tasks": ["rte"], "data": "fixtures"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Two models in one job, and a task."""
    blocks = [{"fix": CELL, "cross": {"model": ["tiny-mixtral", "tiny-olmoe"]}}]
    config = studies.folder(tmp_path_factory.mktemp("plan"), {"x": {"blocks": blocks, "accuracy": {"test": [TASK]}}})
    return json.loads(json.dumps(make_plan(Config(config), "test")))


def job(name="measure", output="results/jobs/j.json", python=None, **wildcards):
    """What is read of a job of Snakemake."""
    return SimpleNamespace(name=name, output=[output], params={"python": python}, wildcards=wildcards)


# -------------------------------------------------------------------------------------------- refusals


def test_what_is_asked_for_by_path_must_be_of_the_study(plan):
    key = next(iter(plan["cells"]))
    engine, cell = key.split("/")
    ((answer, asked),) = (key.split("/") for key in plan["accuracy"]["lm-eval"]["cells"])
    ((name, whole),) = plan["jobs"].items()
    harness = {"harness": "lm-eval"}
    for good in ({"job": name}, {"engine": engine, "cell": cell}):
        assert planned_job(plan, SimpleNamespace(**good)) == whole
    assert planned_job(plan, SimpleNamespace(engine=answer, cell=asked, **harness))["engines"] == [answer]
    for wrong, words in [
        ({"engine": engine, "cell": cell[:-1]}, f"no cell '{cell[:-1]}'; did you mean '{cell}'?"),
        ({"engine": engine[:-1], "cell": cell}, f"no engine configuration '{engine[:-1]}'; did you mean '{engine}'?"),
        ({"job": "qwertz"}, "no job 'qwertz' (for another study, add `--config study=NAME`)"),
        ({"engine": engine, "cell": cell, "harness": "lm-evil"}, "no harness 'lm-evil'; did you mean 'lm-eval'?"),
        ({"engine": answer, "cell": cell, **harness}, f"no cell '{cell}'"),
    ]:
        with pytest.raises(WorkflowError) as refused:
            planned_job(plan, SimpleNamespace(**wrong))
        assert str(refused.value).startswith("study test has no") and words in str(refused.value)


@pytest.mark.parametrize(
    ("needs", "wanted"),
    [
        (job(python="ENVS/vllm-cpu/bin/python"), "vllm-cpu"),
        (job("derive_0", "models/tiny.int8/moebench-stage.json", "ENVS/quantize-cpu/bin/python"), "quantize-cpu"),
        (job("evaluate", python="ENVS/workflow/bin/python", harness="vlmeval"), "vlmeval"),
        (job("stage", "models/tiny/moebench-stage.json"), "vllm-cpu"),
    ],
)
def test_an_environment_that_is_not_built_is_named_before_anything_runs(tmp_path, plan, needs, wanted):
    plan = json.loads(json.dumps(plan).replace(str(studies.ROOT / "models"), str(tmp_path / "nowhere")))
    if needs.params["python"]:
        needs.params["python"] = needs.params["python"].replace("ENVS", str(tmp_path))
    for name in {"workflow", "vllm-cpu", "quantize-cpu", "vlmeval"} - {wanted}:
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "python").touch()
    config = {"environments": str(tmp_path)}
    remedy = rf"{wanted} is not built, but {needs.output[0]} needs it; run `python3 envs/build.py {wanted}`"
    with pytest.raises(WorkflowError, match=remedy):
        refuse_unbuilt(plan, config, [job("collect"), needs])
    (tmp_path / wanted / "bin").mkdir(parents=True)
    (tmp_path / wanted / "bin" / "python").touch()
    refuse_unbuilt(plan, config, [job("collect"), needs])


def test_a_cell_waits_for_its_own_engine_and_a_job_for_all(plan):
    (packed,) = plan["jobs"].values()
    assert engines_of(packed, SimpleNamespace(engine=packed["engines"][1], cell="c")) == [packed["engines"][1]]
    assert engines_of(packed, SimpleNamespace(job="j")) == packed["engines"] and len(packed["engines"]) == 2


def test_a_plan_needs_the_environments_of_what_it_runs_and_no_others(plan):
    assert environments_needed(plan) == ["workflow", "vllm-cpu"]
    more = plan | {"derive_jobs": {"d": {"environment": "quantize-cpu"}}, "accuracy": {"vlmeval": {}}}
    assert environments_needed(more) == ["workflow", "vllm-cpu", "quantize-cpu", "vlmeval"]


@pytest.fixture
def build(monkeypatch):
    """envs/build.py as a module."""
    spec = importlib.util.spec_from_file_location("build_envs", studies.ROOT / "envs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_environment_that_was_moved_is_built_again_and_one_that_is_linked_is_not(tmp_path, build):
    (tmp_path / "here/bin").mkdir(parents=True)
    (tmp_path / "here/lib/python3.11/site-packages").mkdir(parents=True)
    assert build.was_moved(tmp_path / "here"), "without its command it is not whole"
    build.install_package(tmp_path / "here", "")
    (tmp_path / "link").symlink_to("here")
    assert not build.was_moved(tmp_path / "here") and not build.was_moved(tmp_path / "link")
    (tmp_path / "here").rename(tmp_path / "there")
    assert build.was_moved(tmp_path / "there")


def test_the_command_can_be_imported_by_processes_that_it_starts(tmp_path, build):
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python3.11/site-packages").mkdir(parents=True)
    build.install_package(tmp_path, "")
    runpy.run_path(str(tmp_path / "bin" / "moebench"), run_name="__mp_main__")  # as multiprocessing does
    with pytest.raises(SystemExit):
        runpy.run_path(str(tmp_path / "bin" / "moebench"), run_name="__main__")


def test_the_command_runs_in_a_folder_whose_name_has_a_blank(tmp_path, build):
    place = tmp_path / "with a blank"
    (place / "bin").mkdir(parents=True)
    (place / "lib/python3.11/site-packages").mkdir(parents=True)
    (place / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (place / "bin/python").chmod(0o755)
    build.install_package(place, "")
    assert not build.was_moved(place)
    done = subprocess.run([place / "bin/moebench", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "moebench" in done.stdout, done.stderr


def test_what_a_study_needs_is_known_also_where_it_cannot_be_kept(tmp_path, build, monkeypatch):
    (tmp_path / ".study").symlink_to(tmp_path / "no folder" / "file")
    monkeypatch.setattr(build, "TARGET", tmp_path)
    monkeypatch.setattr(build, "run", lambda *command, **environment: "vllm-cpu\nvlmeval\n")
    assert build.of_the_study("") == ["vllm-cpu", "vlmeval"]


def test_an_environment_from_before_the_modules_moved_gets_the_command_anew(tmp_path, build, monkeypatch):
    place = tmp_path / "dev"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / "lib/python3.11/site-packages").mkdir(parents=True)
    (place / ".lock-sha256").write_text(hashlib.sha256(build.lock_of("dev").encode()).hexdigest())
    (place / "bin" / "moebench").write_text(f"#!{place}/bin/python\nfrom moebench.cli import main\n")
    monkeypatch.setattr(build, "TARGET", tmp_path)
    assert build.up_to_date("dev")
    with pytest.raises(SystemExit):
        runpy.run_path(str(place / "bin" / "moebench"), run_name="__main__")


# ------------------------------------------------------------------------------------------ what is said


def failures(plan, *arguments):
    """What is said of failed and unmeasured cells, and how many cells these are."""
    found = show.failures(plan, *arguments)
    same = sum(1 + len(failure["more_cells"]) for failure in found["failures"])
    return show.failures_text(found), found["not_measured"] + same


def test_failures_says_what_is_not_measured_and_names_another_study(tmp_path, plan):
    text, number = failures(plan, tmp_path, "profiles/local", "test")
    assert text.startswith("study test: 3 of 3 cells not measured") and "logs/test/" in text and number == 3
    for key in plan["cells"]:
        engine, cell = key.split("/")
        records.store(tmp_path, synthetic.record(plan, engine, cell, status="oom_kv"))
    text, number = failures(plan, tmp_path, "profiles/local", "test")
    assert number == 3 and "1 of 3 cells not measured" in text
    assert f"snakemake --profile profiles/local --force {tmp_path}/cells/{key}.json" in text
    text, _ = failures(plan, tmp_path, "profiles/local", "other")
    assert f"snakemake --profile profiles/local --config study=test --force {tmp_path}/cells/{key}.json" in text


def test_unsupported_cells_of_an_engine_configuration_are_one_entry_for_each_reason(tmp_path):
    config = studies.folder(tmp_path, {"x": [{"fix": CELL | {"model": "tiny-mixtral"}, "cross": {"top_k": [1, 2, 4]}}]})
    made, results = make_plan(Config(config), "test"), tmp_path / "results"
    for key in made["cells"]:
        records.store(results, synthetic.record(made, *key.split("/"), status="unsupported"))
    text, number = failures(made, results, "profiles/local", "test")
    assert number == 3 and text.count("unsupported: ") == 1
    records.store(results, synthetic.record(made, *key.split("/"), status="unsupported", reason="another"))
    text, number = failures(made, results, "profiles/local", "test")
    assert number == 3 and text.count("unsupported: ") == 2


@pytest.mark.parametrize(
    ("given", "config"),
    [("results", ""), ("./results", ""), ("other", " --config results=other"), ("HERE/o", " --config results=HERE/o")],
)
def test_a_cell_of_another_results_folder_is_run_again_there(tmp_path, plan, monkeypatch, capsys, given, config):
    studies.folder(tmp_path, {"x": [{"fix": CELL | {"model": "tiny-mixtral"}}]})
    monkeypatch.chdir(tmp_path)
    made = make_plan(Config(Path("config")), "test")
    given, config = (text.replace("HERE", str(tmp_path)) for text in (given, config))
    for key in made["cells"]:
        records.store(Path(given), synthetic.record(made, *key.split("/"), status="oom_kv"))
    with pytest.raises(SystemExit):
        cli.main(["failures", "--results", given])
    command = f"snakemake --profile profiles/local{config} --force {Path(given)}/cells/{key}.json"
    assert command in capsys.readouterr().out


def test_the_folder_of_an_accuracy_harness_is_not_the_results_folder():
    command = text.rerun_command("e/c", "other/accuracy/lm-eval", "p", "s", "other")
    assert (
        command == "snakemake --profile p --config study=s results=other --force other/accuracy/lm-eval/cells/e/c.json"
    )


@pytest.mark.parametrize("verb", ["failures", "doctor"])
def test_a_profile_that_is_not_there_is_a_wrong_argument(tmp_path, monkeypatch, capsys, verb):
    studies.folder(tmp_path, {"x": [{"fix": CELL | {"model": "tiny-mixtral"}}]})
    studies.write(tmp_path / "profiles" / "slurm" / "config.yaml", {"executor": "slurm"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--profile", "profiles/slrum"])
    assert end.value.code == 2
    said = "no profile there, profiles/slrum/config.yaml is missing; did you mean 'profiles/slurm'?"
    assert capsys.readouterr().err == f"moebench {verb}: --profile profiles/slrum: {said}\n"


def test_the_default_profile_need_not_be_there(tmp_path, monkeypatch):
    studies.folder(tmp_path, {"x": [{"fix": CELL | {"model": "tiny-mixtral"}}]})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["failures"])
    assert end.value.code == 1, "nothing is measured"
