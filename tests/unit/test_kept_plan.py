"""A call of Snakemake reads the plan that the last one made, while nothing that it was made from has changed."""

import json
from types import SimpleNamespace

import pytest

import studies
from moebench.commands import snakefile
from moebench.commands.planning import make_plan

CELL = {"model": "tiny-mixtral", "batch": 1, "input_tokens": 16, "output_tokens": 4}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A call of Snakemake in a project of one cell: its plan, and whether it was made."""
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "project"
    studies.folder(project, {"x": {"blocks": [{"fix": CELL}]}})

    def call(main=True, **config):
        made = []

        def make(*args, **given):
            made.append(make_plan(*args, **given))
            return made[-1]

        monkeypatch.setattr(snakefile, "make_plan", make)
        workflow = SimpleNamespace(is_main_process=main)
        plan = snakefile.load_plan({"study": "test", **config}, workflow, project)
        return json.loads(json.dumps(plan)), bool(made)

    call.config = project / "config"
    call.kept = tmp_path / "results" / "plan" / ".test.made.json"
    return call


def test_a_second_call_reads_the_plan_of_the_first(call):
    plan, made = call()
    assert made and call.kept.exists()
    assert call() == (plan, False)
    assert call(main=False) == (plan, False), "a job on another node reads it too"


def test_a_job_keeps_nothing(call):
    call(main=False)
    assert not call.kept.exists()


@pytest.mark.parametrize("file", ["studies/test.yaml", "hardware/local-cpu.yaml", "models/tiny-mixtral.yaml"])
def test_a_changed_file_of_the_configuration_makes_it_again(call, file):
    call()
    path = call.config / file
    path.write_text(path.read_text().replace("title: ", "title: New "))
    plan, made = call()
    assert made and "New " in json.dumps(plan)


def test_another_argument_makes_it_again(call):
    first, _ = call()
    plan, made = call(models="elsewhere")
    assert made and plan["digest"] != first["digest"]
    assert call(models="elsewhere") == (plan, False)


def test_a_changed_lock_file_of_an_environment_makes_it_again(call):
    call()
    lock = call.config.parent / "envs" / "vllm-cpu.lock"
    lock.parent.mkdir()
    lock.write_text("vllm==0.32.0\n")
    assert call()[1]


@pytest.mark.parametrize("damage", [lambda kept: kept[: len(kept) // 2], lambda kept: b"", lambda kept: b"[]"])
def test_a_damaged_file_is_made_again(call, damage):
    plan, _ = call()
    call.kept.write_bytes(damage(call.kept.read_bytes()))
    assert call() == (plan, True) and call() == (plan, False)


def test_a_plan_from_a_users_file_is_always_made_again(call, tmp_path):
    """Its contents are part of the plan, and it may lie anywhere."""
    text = tmp_path / "text.txt"
    text.write_text("One.\n\nTwo.\n")
    pruned = {"blocks": [{"fix": CELL | {"pruning": "inter", "prune_ratio": 0.5}}]}
    studies.folder(call.config.parent, {"x": pruned}, calibration={"data": str(text)})
    first, _ = call()
    assert not call.kept.exists()
    text.write_text("Three.\n")
    assert call()[0]["digest"] != first["digest"]
