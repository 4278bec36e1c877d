"""Snakemake and its SLURM plugin, as locked, against a scripted SLURM that answers as sites do."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from moebench.commands import slurm_commands
from project import ENVS, HANG_S, copy, snakemake
from scriptedslurm import ScriptedSlurm
from studies import ROOT

SNAKEFILE = """
from pathlib import Path
from moebench.commands import slurm_commands
if workflow.is_main_process:
    slurm_commands.install(Path("results"))
KEYS = config["keys"].split(",")
rule all:
    input: KEYS
rule measure:
    output: "{key}"
    wildcard_constraints: key="[a-z]+"
    resources: runtime=1, mem_mb=10
    shell: "exit 1"
"""
FAST = ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1",
        "--latency-wait", "20", "--max-status-checks-per-second", "10"]  # fmt: skip
LIMIT = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting"
)


@pytest.fixture
def slurm(tmp_path):
    """A scripted SLURM, and a workflow of jobs that make a file each."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "Snakefile").write_text(SNAKEFILE)
    return ScriptedSlurm(tmp_path / "slurm")


def start(slurm: ScriptedSlurm, keys: str) -> subprocess.Popen[str]:
    """Snakemake with the profile of this project."""
    environment = {k: v for k, v in os.environ.items() if k not in slurm_commands.OURS} | {
        "PATH": f"{slurm.folder}/bin:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT / "workflow"),
    }
    command = [ENVS / "workflow" / "bin" / "snakemake", "--profile", ROOT / "profiles" / "slurm", "--config",
               f"keys={keys}", *FAST]  # fmt: skip
    return subprocess.Popen(
        command, cwd=slurm.folder.parent / "project", env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(slurm: ScriptedSlurm, keys: str) -> str:
    head = start(slurm, keys)
    try:
        said, _ = head.communicate(timeout=HANG_S)
    finally:
        head.kill()
        head.wait()
    assert head.returncode == 0, said
    return said


def test_a_night_with_everything_that_sites_do_ends_with_every_job_once(slurm):
    """A banner with a number, a limit, states that the plugin does not know, a node that is none."""
    slurm.script(
        banner="You have 4711 core hours left",
        refuse=["", LIMIT],
        states={"b": ["CANCELLED by 0"], "c": ["PREEMPTED"], "d": ["NODE_FAIL"], "e": ["LAUNCH_FAILED"]},
        nodes="None assigned",
    )
    run(slurm, "a,b,c,d,e")
    tries = [job["key"] for job in slurm.jobs]
    assert sorted(tries) == ["a", *"bb", *"cc", *"dd", *"ee"]
    assert not any("exclude" in argument for job in slurm.jobs for argument in job["arguments"])


def test_without_sacct_for_a_moment_no_job_is_forgotten(slurm):
    """Before, five failed calls made Snakemake forget its jobs, and wait for them for ever."""
    slurm.script(sacct_down=1, squeue_down=1)
    run(slurm, "a,b")
    assert len(slurm.jobs) == 2


def test_without_accounting_squeue_tells_how_jobs_end(slurm):
    slurm.script(sacct_down=99, queue={"a": "COMPLETED", "b": "COMPLETED"})
    run(slurm, "a,b")
    assert len(slurm.jobs) == 2


def test_a_failed_node_is_left_out_of_later_jobs(slurm):
    slurm.script(states={"a": ["NODE_FAIL"]}, nodes="node[07-08]")
    run(slurm, "a")
    assert ["--exclude=node[07-08]" in job["arguments"] for job in slurm.jobs] == [False, True]


def test_an_interrupt_while_submissions_wait_leaves_no_job(slurm):
    slurm.script(refuse=[LIMIT] * 9)
    head = start(slurm, "a,b,c,d")
    deadline = time.monotonic() + HANG_S
    while not (slurm.folder.parent / "project" / slurm_commands.REFUSED_LOG).exists():
        assert time.monotonic() < deadline, "no submission was refused"
        time.sleep(0.2)
    head.send_signal(signal.SIGINT)
    try:
        said, _ = head.communicate(timeout=HANG_S)
    finally:
        head.kill()
        head.wait()
    assert head.returncode != 0, said
    assert slurm.jobs == []


def test_the_profile_asks_for_states_patiently():
    profile = yaml.safe_load((Path(ROOT) / "profiles" / "slurm" / "config.yaml").read_text())
    waits_s = profile["slurm-status-attempts"] / profile["max-status-checks-per-second"]
    assert waits_s >= 600
    command = [ENVS / "workflow" / "bin" / "snakemake", "--profile", ROOT / "profiles" / "slurm", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}).stdout
    assert all(f"--{name}" in known for name in profile), "options of the locked Snakemake and plugin"


@pytest.mark.parametrize(
    ("variables", "words"),
    [({"PYTHONPATH": "{foreign}"}, "PYTHONPATH puts the packages in {foreign} before those of the locked environments"),
     ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "files are UTF-8; export PYTHONUTF8")],
)  # fmt: skip
def test_a_shell_that_changes_what_runs_is_refused_in_one_line(tmp_path, variables, words):
    place, foreign = copy(tmp_path / "project"), tmp_path / "foreign"
    (foreign / "numpy-1.0.dist-info").mkdir(parents=True)
    variables = {name: value.format(foreign=foreign) for name, value in variables.items()}
    search = os.pathsep.join([str(place / "workflow"), *filter(None, [variables.get("PYTHONPATH")])])
    done = snakemake(place, "-n", code=1, **variables | {"PYTHONPATH": search})
    said = done.stdout + done.stderr
    assert words.format(foreign=foreign) in said and "Traceback" not in said


def test_paths_that_a_shell_reads_work_where_they_can_and_are_refused_where_not(tmp_path):
    place = copy(tmp_path / "a b's (c)")
    done = run_in(place, "-n")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_in(place, "stage", "--config", "results=my results")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "results in config/config.yaml: my results: it has characters" in said


def run_in(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Snakemake of the environments below a project, with the local profile."""
    command = [place / ".envs" / "dev" / "bin" / "python", "-m", "snakemake", "--profile", "profiles/local", *arguments]
    env = os.environ | {"PYTHONPATH": str(place / "workflow")}
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
