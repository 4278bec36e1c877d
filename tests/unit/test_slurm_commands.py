"""What Snakemake gets of SLURM's commands, whatever a site's print: each answer here was reported from some cluster."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import scriptedslurm
from moebench.commands import slurm_commands
from scriptedslurm import ScriptedSlurm

BATCH = ["--parsable", "--job-name", "run1", "--comment", "rule_measure_wildcards_x", "--wrap", "true"]
STATUS = ["-X", "--parsable2", "--noheader", "--format=JobIdRaw,State", "--name", "run1"]
LIMIT = (
    "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
    "policy (job submit limit, user's size and/or time limits)"
)
VIOLATES = LIMIT.partition("\n")[2]
SILENT = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
LOST = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A scripted SLURM in PATH, which starts no process but a test's own scripts; commands do not sleep."""
    made = ScriptedSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{slurm_commands.FOLDER}:{made.folder}/bin:/usr/bin:/bin")
    start = subprocess.run

    def run(command, **given):
        if scriptedslurm.__file__.encode() in Path(command[0]).read_bytes():
            return made.answer(Path(command[0]).name, command[1:])
        return start(command, **given)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm_commands, "PAUSES_S", (0,))
    for name in slurm_commands.OURS:
        monkeypatch.delenv(name, raising=False)
    return made


def run(capsys, *arguments):
    """Exit code and standard output of a command."""
    code = slurm_commands.main(list(arguments))
    return code, capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ submitting


@pytest.mark.parametrize("refusals", [[LIMIT] * 3, [SILENT], [LOST], [VIOLATES], [SILENT, LIMIT, LOST]])
def test_a_refused_submission_waits(slurm, capsys, refusals):
    slurm.script(refuse=refusals, queued=["77"])
    assert run(capsys, "sbatch", *BATCH) == (0, "1000\n")
    assert len(slurm.jobs) == 1
    assert "rule_measure_wildcards_x waits: sbatch: error" in slurm_commands.REFUSED_LOG.read_text()


@pytest.mark.parametrize(
    "words",
    ["sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
     "sbatch: error: QOSMaxWallDurationPerJobLimit\n" + VIOLATES, VIOLATES],
)  # fmt: skip
def test_what_does_not_pass_is_refused_at_once(slurm, capsys, words):
    """The last could be a limit on the number of jobs, but this user has none."""
    slurm.script(refuse=[words] * 99)
    code, _ = run(capsys, "sbatch", *BATCH)
    assert code == 1 and len([call for call in slurm.calls if call[0] == "sbatch"]) == 1


def test_a_submission_whose_answer_was_lost_is_not_made_twice(slurm, capsys):
    slurm_commands.main(["sbatch", *BATCH])
    jobs = slurm.jobs
    slurm.script(refuse=[LOST] * 99)
    (slurm.folder / "seen.json").write_text(json.dumps({"jobs": jobs, "calls": []}))
    capsys.readouterr()
    assert run(capsys, "sbatch", *BATCH) == (0, "1000\n")
    assert len(slurm.jobs) == 1


@pytest.mark.parametrize(
    "banner",
    ["", "Your project has 4711 core hours left\n3 files will be purged on 2026-12-01",
     "sbatch: lua: submitted to partition h100, 2 GPUs", "-" * 40 + "\n 10 % of 5000 GB used"],
)  # fmt: skip
@pytest.mark.parametrize("mute", [False, True])
def test_of_what_sbatch_prints_only_the_id_is_left(slurm, capsys, banner, mute):
    slurm.script(banner=banner, mute=mute)
    assert run(capsys, "sbatch", *BATCH) == (0, "1000\n")


def test_one_exclude_of_all_faulty_nodes(slurm, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MOEBENCH_RESULTS", str(tmp_path))
    monkeypatch.setenv("MOEBENCH_STARTED", "2026-01-02")
    faults = [("faults", "n1", "2026-01-01"), ("faults", "n2", "2026-01-03"), ("faults", "n4;rm", "2026-01-03")]
    for place, node, at in [*faults, ("accuracy/lm-eval/faults", "n3", "2026-01-03")]:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / f"{node}.json").write_text(json.dumps({"node": node, "at": at}))
    run(capsys, "sbatch", "--exclude=n9", "--exclude", "n[5-6]", *BATCH)
    (job,) = slurm.jobs
    assert [a for a in job["arguments"] if "exclude" in a] == ["--exclude=n9,n[5-6],n2,n3"]


def test_without_another_node_a_faulty_one_is_tried_again(slurm, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MOEBENCH_RESULTS", str(tmp_path))
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "n2.json").write_text(json.dumps({"node": "n2", "at": "2026-01-03"}))
    slurm.script(refuse=["sbatch: error: Batch job submission failed: Requested node configuration is not available"])
    assert run(capsys, "sbatch", *BATCH)[0] == 0
    assert not any("exclude" in argument for argument in slurm.jobs[0]["arguments"])


def test_after_an_interrupt_nothing_is_submitted(slurm, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MOEBENCH_INTERRUPTED", str(tmp_path / "interrupted"))
    slurm.script(refuse=[LIMIT] * 99)
    asked = slurm_commands.call

    def call(name, arguments, text=None):
        done = asked(name, arguments, text)
        if len(slurm.calls) == 3:
            (tmp_path / "interrupted").touch()
        return done

    monkeypatch.setattr(slurm_commands, "call", call)
    assert run(capsys, "sbatch", *BATCH)[0] == 1 and len(slurm.calls) == 3
    assert run(capsys, "sbatch", *BATCH)[0] == 1 and len(slurm.calls) == 3, "nor begun"


def test_a_submission_does_not_outlive_snakemake(slurm, capsys, monkeypatch):
    monkeypatch.setenv("MOEBENCH_HEAD", "99999999")
    assert run(capsys, "sbatch", *BATCH)[0] == 1 and not slurm.calls


def test_a_script_on_standard_input_is_sent_with_every_attempt(slurm, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("#!/bin/sh\n"))
    slurm.script(refuse=[SILENT])
    sent, asked = [], slurm_commands.call
    monkeypatch.setattr(slurm_commands, "call", lambda n, a, text=None: sent.append((n, text)) or asked(n, a, text))
    run(capsys, "sbatch", *BATCH[:-2], "/dev/stdin")
    assert [text for name, text in sent if name == "sbatch"] == ["#!/bin/sh\n"] * 2


def test_a_job_inherits_nothing_of_these_commands(slurm, tmp_path, monkeypatch):
    (slurm.folder / "bin" / "sbatch").write_text("#!/bin/sh\necho $PATH $MOEBENCH_PYTHON$MOEBENCH_HEAD\n")
    monkeypatch.setenv("MOEBENCH_PYTHON", "x")
    monkeypatch.setenv("MOEBENCH_HEAD", "1")
    assert slurm_commands.call("sbatch", []).stdout == f"{slurm.folder}/bin:/usr/bin:/bin\n"


# ---------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("state", "queue", "seen"),
    [
        ("COMPLETED", None, "COMPLETED"),
        ("CANCELLED by 30000", None, "CANCELLED"),
        ("CANCELLED+", None, "CANCELLED"),
        ("OUT_OF_MEMORY", None, "OUT_OF_MEMORY"),
        ("PREEMPTED", None, "CANCELLED"),
        ("PREEMPTED", "PENDING", "PENDING"),
        ("PREEMPTED", "PREEMPTED", "CANCELLED"),
        ("REQUEUED", "RUNNING", "RUNNING"),
        ("REQUEUED", "REQUEUED", "REQUEUED"),
        ("REQUEUED", None, "CANCELLED"),
        ("NODE_FAIL", "PENDING", "PENDING"),
        ("NODE_FAIL", None, "NODE_FAIL"),
        ("LAUNCH_FAILED", None, "FAILED"),
        ("RECONFIG_FAIL", None, "FAILED"),
    ],
)
def test_states_are_words_that_the_plugin_knows(slurm, capsys, state, queue, seen):
    slurm.script(states={"x": [state]}, queue={"x": queue} if queue else {})
    run(capsys, "sbatch", *BATCH)
    assert run(capsys, "sacct", *STATUS) == (0, f"1000|{seen}\n")


def test_lines_of_a_site_and_revoked_siblings_are_no_states():
    text = "*** maintenance on 12|01 ***\n12|RUNNING\n12|REVOKED\n\n13|\nJobIDRaw|State\n14_3|PENDING\n"
    assert slurm_commands.rows(text) == {"12": "RUNNING", "14_3": "PENDING"}


def test_without_sacct_squeue_answers_and_without_both_nobody(slurm, capsys):
    slurm.script(sacct_down=2, squeue_down=1, queue={"x": "COMPLETED"})
    run(capsys, "sbatch", *BATCH)
    assert run(capsys, "sacct", *STATUS) == (0, ""), "no job is lost: the plugin asks again"
    assert run(capsys, "sacct", *STATUS) == (0, "1000|COMPLETED\n")
    (slurm.folder / "bin" / "sacct").unlink()
    assert run(capsys, "sacct", *STATUS) == (0, "1000|COMPLETED\n"), "a cluster without accounting"


def test_a_job_that_slurm_forgot_has_failed_and_none_is_lost_while_it_is_silent(slurm, capsys):
    """slurmctld, killed seconds after a submission, does not know of it when it is back; Snakemake waited for ever."""
    run(capsys, "sbatch", *BATCH)
    slurm.script(squeue_down=1)  # forgotten
    known = slurm_commands.JOBS / "run1" / "1000"
    assert run(capsys, "sacct", *STATUS) == (0, ""), "slurmdbd may hear of it later"
    long_ago = time.time() - slurm_commands.LOST_S - 1
    os.utime(known, (long_ago, long_ago))
    assert run(capsys, "sacct", *STATUS) == (0, ""), "nobody answers"
    assert run(capsys, "sacct", *STATUS) == (0, "1000|FAILED\n")
    assert run(capsys, "squeue", "--name", "run1", "--format=%i|%T") == (0, "1000|FAILED\n")
    assert run(capsys, "sacct", *STATUS[:-1], "run2") == (0, ""), "of another run"


def test_a_job_that_slurm_knows_is_not_lost_however_long_it_takes(slurm, capsys):
    slurm.script(states={"x": ["RUNNING"]})
    run(capsys, "sbatch", *BATCH)
    known = slurm_commands.JOBS / "run1" / "1000"
    for _ in range(2):
        os.utime(known, (0, 0))
        assert run(capsys, "sacct", *STATUS) == (0, "1000|RUNNING\n")
        assert known.stat().st_mtime > 0


HELD = """#!/bin/sh
case "$*" in
  *%r*) printf '7|launch failed requeued held\\n8|Resources\\n9|launch_failed_requeued_held\\n*** banner\\n' ;;
  *) printf '7|PENDING\\n8|PENDING\\n9|PENDING\\n' ;;
esac
"""


def test_a_job_that_slurm_put_back_and_holds_has_failed(slurm, capsys):
    """`launch failed requeued held`: it would wait for ever, and Snakemake with it."""
    for name, script in (("squeue", HELD), ("scancel", f"#!/bin/sh\necho $* >> {slurm.folder}/cancelled\n")):
        (slurm.folder / "bin" / name).write_text(script)
        (slurm.folder / "bin" / name).chmod(0o755)
    assert run(capsys, "squeue", "--name", "run1", "--format=%i|%T") == (0, "7|FAILED\n8|PENDING\n9|FAILED\n")
    assert (slurm.folder / "cancelled").read_text() == "7 9\n"


@pytest.mark.parametrize(
    ("printed", "nodes"),
    [("None assigned", ""), ("node7   ", "node7"), ("gpu[01-04,7],login-1.site", "gpu[01-04,7],login-1.site"),
     ("(null)", ""), ("", ""), ("Unknown", ""), ("node7\nNone assigned", "node7")],
)  # fmt: skip
def test_nodes_of_a_job_that_never_had_one(slurm, capsys, printed, nodes):
    slurm.script(nodes=printed)
    assert run(capsys, "sacct", "-j", "1", "-n", "-X", "-o", "nodelist%-256") == (0, nodes + "\n")


def test_accounts_that_nobody_can_list_are_left_to_sbatch(slurm, capsys):
    assert run(capsys, "sacctmgr", "-n", "-s", "list", "user", "me") == (0, "")
    assert run(capsys, "sshare", "-U") == (0, "")
    assert run(capsys, "sinfo", "-o", "%P") == (0, "PARTITION\nh100*\n")


def test_every_command_in_front_is_there_and_runs(slurm, capfd, monkeypatch):
    monkeypatch.setenv("MOEBENCH_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(slurm_commands.FOLDER.parent))
    for command in sorted(slurm_commands.FOLDER.iterdir()):
        assert os.access(command, os.X_OK), command
        assert (slurm.folder / "bin" / command.name).exists(), "the scripted SLURM has it too"
    assert os.system("sbatch " + " ".join(BATCH)) == 0
    assert capfd.readouterr().out == "1000\n"
