"""A call of Snakemake reads the plan that the last one made, while nothing that it was made from has changed."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.exceptions import WorkflowError

import moebench
import studies
from moebench.commands import kept_plan, snakefile
from moebench.commands.planning import make_plan
from moebench.errors import StorageError

CELL = {"model": "tiny-mixtral", "batch": 1, "input_tokens": 16, "output_tokens": 4}
SERVED = {"served": {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}}}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A call of Snakemake in a project of one cell: its plan, and whether it was made.

    What counts as this package is a part of it: every call hashes it.
    """
    monkeypatch.chdir(tmp_path)
    package = shutil.copytree(Path(moebench.__file__).parent / "plan", tmp_path / "moebench")
    monkeypatch.setattr(moebench, "__file__", str(package / "__init__.py"))
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

    call.config, call.package = project / "config", package
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
    assert call(models="elsewhere", data="there")[1]


def test_a_budget_is_an_argument_too(call):
    call()
    with pytest.raises(WorkflowError, match=r"0\.001"):  # no claim can be decided in it: it is planned
        call(budget_gpu_hours=0.001)


def test_a_changed_lock_file_of_an_environment_makes_it_again(call):
    call()
    lock = call.config.parent / "envs" / "vllm-cpu.lock"
    lock.parent.mkdir()
    lock.write_text("vllm==0.32.0\n")
    assert call()[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept[: len(kept) // 2],
        lambda kept: b"",
        lambda kept: b"[]",
        lambda kept: kept.replace(b'"batch":1', b'"batch":7'),
    ],
)
def test_a_damaged_file_is_made_again(call, damage):
    plan, _ = call()
    call.kept.write_bytes(damage(call.kept.read_bytes()))
    assert call() == (plan, True) and call() == (plan, False)


def test_a_change_of_this_package_makes_it_again(call):
    call()
    assert not call()[1]
    (call.package / "new.py").write_text("")
    assert call()[1]


def test_it_is_kept_in_the_order_in_which_it_was_made(call):
    """Jobs that derive are named after their place."""
    pruned = [
        {"fix": CELL | {"model": m, "pruning": "inter", "prune_ratio": 0.5}} for m in ("tiny-olmoe", "tiny-mixtral")
    ]
    blocks = {name: {"blocks": [{"fix": CELL}, *pruned]} for name in ("y", "x")}
    studies.folder(call.config.parent, blocks, jobs={"pack_minutes": 0.01})
    plan, _ = call()
    assert json.dumps(call()[0]) == json.dumps(plan) != json.dumps(plan, sort_keys=True)
    assert len(plan["derive_jobs"]) > 1


def test_a_link_to_the_configuration_has_the_lock_files_of_its_target(call, tmp_path):
    """As planning reads them."""
    real = tmp_path / "real" / "config"
    real.parent.mkdir()
    call.config.rename(real)
    call.config.symlink_to(real)
    call()
    lock = real.parent / "envs" / "vllm-cpu.lock"
    lock.parent.mkdir()
    lock.write_text("vllm==0.32.0\n")
    assert call()[1]


def test_names_of_files_may_be_any_bytes(call):
    Path(os.fsdecode(os.fsencode(call.config) + b"/caf\xe9.txt")).write_text("")
    assert call()[1] and not call()[1]


# --------------------------------------------------------------- users' files: contents are part of the plan


def pruned_with(project, text):
    pruned = {"blocks": [{"fix": CELL | {"pruning": "inter", "prune_ratio": 0.5}}]}
    studies.folder(project, {"x": pruned}, calibration={"data": str(text)})


def referring(project, text):
    """A study whose reference study prunes by a text."""
    pruned_with(project, text)
    (project / "config" / "studies" / "test.yaml").rename(project / "config" / "studies" / "other.yaml")
    other = project / "config" / "studies" / "other.yaml"
    other.write_text(other.read_text().replace("name: test", "name: other"))
    studies.folder(project, {"y": {"blocks": [{"fix": CELL}]}}, reference="other")


def replaying(project, trace):
    load = {"engine_name": "served", "model": "tiny-mixtral", "prompts": "random", "requests": 3, "trace": str(trace)}
    experiment = {"blocks": [{"fix": load}], "protocol": {"kind": "load", "warmup": 1, "repeats": 2, "seed": 1}}
    studies.folder(project, {"x": experiment}, engines=SERVED, goals={"ttft_s": 0.5})


@pytest.mark.parametrize("study", [pruned_with, referring, replaying])
def test_a_users_file_that_changed_or_is_gone_makes_it_again(call, tmp_path, study):
    line = '{"timestamp": %d, "input_length": 8, "output_length": 4}\n'
    file = tmp_path / ("trace.jsonl" if study is replaying else "text.txt")
    file.write_text("".join(line % (100 * i) for i in range(3)))
    study(call.config.parent, file)
    first, _ = call()
    assert call() == (first, False)
    file.write_text("".join(line % (200 * i) for i in range(3)))
    plan, made = call()
    assert made and plan["digest"] != first["digest"]
    assert call() == (plan, False)
    file.unlink()
    with pytest.raises(WorkflowError, match=str(file)):
        call()


def test_a_disk_that_is_full_costs_only_the_next_planning(call, monkeypatch):
    plan, _ = call()
    call.kept.unlink()
    monkeypatch.setattr(kept_plan, "write_atomic", refuse)
    assert call() == (plan, True)


def refuse(path, data):
    raise StorageError(f"{path}: cannot be written")
