"""SLURM's commands as Snakemake gets them: ``workflow/slurm`` is first in its PATH, and calls this.

The executor plugin takes one refused submission for a failed job, forgets all jobs when ``sacct`` does not answer, and
waits forever for a job whose state it does not know.  Here a refusal waits, ``sacct`` that does not answer is replaced
by ``squeue``, states are those that the plugin knows, and of what ``sbatch`` prints only the job's id is left.  What is
not one of the plugin's own calls goes through as it is.  Standard library only: each call is a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

from moebench.storage.atomic import stamp

FOLDER = Path(__file__).resolve().parents[2] / "slurm"
"""Where the commands lie that call this module."""
OURS = ("MOEBENCH_HEAD", "MOEBENCH_INTERRUPTED", "MOEBENCH_PYTHON", "MOEBENCH_RESULTS", "MOEBENCH_STARTED")
"""Variables from Snakemake to these commands."""
REFUSED_LOG = Path("logs/slurm/refused.log")
"""Submissions that wait, and why."""
JOBS = Path(".snakemake/moebench-jobs")
"""A file per submitted job, ``RUN/ID``; its time is when SLURM last knew of the job."""
LOST_S = 180
"""After so long a job that SLURM, which answers, does not know is lost: slurmctld forgets what it was given seconds
before it was killed."""
JOBS_KEPT_S = 30 * 24 * 3600

LIMIT = re.compile(r"Submit\w*Limit|MaxSubmit\w*|temporarily unable to accept job|MaxJobCount", re.IGNORECASE)
"""Too many jobs are queued: some other has to end first."""
PERHAPS_LIMIT = re.compile(r"Job violates accounting/QOS policy")
"""The same words for too many jobs and for a job that is too large."""
SILENT = re.compile(
    r"Unable to contact slurm (controller|database)|Controller is not responding|backup controller in standby"
    r"|[Cc]onnect(ion)? failure|Connection (refused|reset|timed out)|Socket timed out"
    r"|Zero Bytes were transmitted|(Message|Msg) (receive|send) failure|Transport endpoint is not connected"
    r"|Resource temporarily unavailable|Insane message length|rate.?limit|Unexpected message received"
    r"|slurm_persist_conn|Protocol authentication error|[Mm]unge"
)
"""The controller does not answer, or not yet."""
NO_SUCH_NODES = re.compile(r"Requested node configuration is not available|Invalid node name")
PATIENCE_S = 24 * 3600
"""How long a controller may be silent.  For a limit on queued jobs there is none."""
PAUSES_S = (2, 5, 10, 20, 30)
"""Between attempts; the last goes on."""

NODE_LIST = re.compile(r"[\w.-]+(\[[\d,-]+\])?[\w.-]*(,[\w.-]+(\[[\d,-]+\])?[\w.-]*)*")
_NOBODY = ("none", "(null)", "n/a", "unknown", "")
_RETURNS = {"PREEMPTED", "REQUEUED", "NODE_FAIL", "BOOT_FAIL"}
"""States of a job that SLURM may have put back into the queue: then squeue knows it."""
_REQUEUED_AND_HELD = re.compile(r"requeued[ _]held|JobHoldMaxRequeue", re.IGNORECASE)
"""Reasons of a job that waits for somebody who releases it."""
_ENDED = {"PREEMPTED": "CANCELLED", "EXPIRED": "CANCELLED", "LAUNCH_FAILED": "FAILED", "RECONFIG_FAIL": "FAILED"}
"""Ends that the plugin would take for a running job, as one that it knows."""


def install(results: Path) -> None:
    """Put these commands in front of SLURM's in PATH, for this process (Snakemake's) and what it starts.

    An interrupt is left as a file too, since submissions that wait for their turn do not get the signal.
    """
    interrupted = Path(f".snakemake/moebench-interrupted-{os.getpid()}").absolute()
    interrupted.unlink(missing_ok=True)
    before = signal.getsignal(signal.SIGINT)

    def note_and_pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            interrupted.touch()
        if callable(before):
            before(number, frame)

    if threading.current_thread() is threading.main_thread() and callable(before):
        signal.signal(signal.SIGINT, note_and_pass_on)
    for folder in JOBS.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > JOBS_KEPT_S:
                shutil.rmtree(folder)
    os.environ |= {
        "MOEBENCH_HEAD": str(os.getpid()),
        "MOEBENCH_INTERRUPTED": str(interrupted),
        "MOEBENCH_PYTHON": sys.executable,
        "MOEBENCH_RESULTS": str(results.absolute()),
        "MOEBENCH_STARTED": stamp(),
        "PATH": os.pathsep.join([str(FOLDER), os.environ.get("PATH", "")]),
    }


def main(arguments: list[str]) -> int:
    """Act as one of SLURM's commands; return its exit code."""
    name, *rest = arguments
    if name == "sbatch":
        return submit(rest)
    if name == "sinfo":
        return _print(patient(name, rest))
    if name in ("sacct", "squeue") and (run := value_of(rest, "--name")):
        print("".join(f"{job}|{state}\n" for job, state in states(name, rest, run).items()), end="")
        return 0
    done = call(name, rest)
    if name == "sacct" and any("nodelist" in argument.lower() for argument in rest):
        print(node_list(done.stdout))
        return done.returncode
    if name in ("sacctmgr", "sshare") and done.returncode:  # the accounts are unknown here; sbatch knows them
        return 0
    return _print(done)


def call(name: str, arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run SLURM's own command, in an environment without what stands in front of it; 127 if it is not there."""
    path = os.pathsep.join(p for p in os.environ.get("PATH", "").split(os.pathsep) if p and Path(p).resolve() != FOLDER)
    environment = {k: v for k, v in os.environ.items() if k not in OURS} | {"PATH": path}  # jobs inherit sbatch's
    program = shutil.which(name, path=path)
    if program is None:
        return subprocess.CompletedProcess([name], 127, "", f"{name}: not installed\n")
    command = [program, *arguments]
    return subprocess.run(  # without text its standard input is empty
        command, capture_output=True, encoding="utf-8", errors="replace", env=environment, input=text or ""
    )


def value_of(arguments: list[str], option: str) -> str:
    """The value of an option given as ``--x y`` or ``--x=y``; empty if it is not given."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == option:
            return following
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return ""


def _print(done: subprocess.CompletedProcess[str]) -> int:
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


# ------------------------------------------------------------------------------------------------ submitting


def submit(arguments: list[str]) -> int:
    """``sbatch``: waits while submissions are refused; prints the job's id and nothing else."""
    if ended():
        sys.stderr.write("not submitted: Snakemake was interrupted\n")
        return 1
    script = sys.stdin.read() if "/dev/stdin" in arguments else None
    faulty = faulty_nodes()
    done = patient("sbatch", excluding(arguments, faulty), script, lambda: queued(arguments))
    if done.returncode and faulty and NO_SUCH_NODES.search(done.stderr):  # no other node is left
        done = patient("sbatch", excluding(arguments, []), script, lambda: queued(arguments))
    if done.returncode:
        return _print(done)
    if job := job_id(done.stdout) or queued(arguments):
        _known(value_of(arguments, "--job-name"), [job])
        print(job)
        return 0
    return _print(done)


def job_id(text: str) -> str:
    """The id in what ``sbatch --parsable`` printed, whatever a site prints around it; empty if there is none."""
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if re.fullmatch(r"\d+(;[\w.-]+)?", line)]
    found += re.findall(r"Submitted batch job (\d+)", text)
    return found[-1].partition(";")[0] if found else ""


def queued(arguments: list[str]) -> str:
    """The id of this job if SLURM has it: an answer may have been lost, or be a banner and no more."""
    name, comment = value_of(arguments, "--job-name"), value_of(arguments, "--comment")
    if not name:
        return ""
    done = call("squeue", ["--noheader", "--name", name, "--format=%i|%k"])
    found = [line.strip().partition("|")[::2] for line in done.stdout.splitlines()]
    return next((job for job, its in found if its == comment and job.isdigit()), "")


def excluding(arguments: list[str], nodes: list[str]) -> list[str]:
    """Arguments of sbatch with one ``--exclude``, of these nodes and of those given; of several it takes the last."""
    kept: list[str] = []
    given: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--exclude", "-x"):
            given.append(next(rest, ""))
        elif argument.startswith("--exclude="):
            given.append(argument.partition("=")[2])
        else:
            kept.append(argument)
    named = list(dict.fromkeys(filter(None, (*given, *nodes))))
    return [f"--exclude={','.join(named)}", *kept] if named else kept


def faulty_nodes() -> list[str]:
    """Nodes whose fault lost a load or a cell since this Snakemake began (``measure/faults.py``)."""
    results, started = os.environ.get("MOEBENCH_RESULTS"), os.environ.get("MOEBENCH_STARTED", "")
    found = []
    for path in (
        [*Path(results).glob("faults/*.json"), *Path(results).glob("accuracy/*/faults/*.json")] if results else []
    ):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            fault = json.loads(path.read_bytes())
            if fault["at"] >= started and NODE_LIST.fullmatch(fault["node"]):
                found.append(fault["node"])
    return sorted(set(found))


def patient(
    name: str, arguments: list[str], text: str | None = None, sent: Callable[[], str] = lambda: ""
) -> subprocess.CompletedProcess[str]:
    """Run a command until it is not refused for a reason that passes.

    ``sent``: what it would have printed, if a command whose answer was lost had its effect.
    """
    began, said = time.monotonic(), ""
    for pause in _pauses():
        done = call(name, arguments, text)
        words = (done.stderr or done.stdout).strip()
        silent = SILENT.search(words) and time.monotonic() - began < PATIENCE_S
        limit = LIMIT.search(words) or (PERHAPS_LIMIT.search(words) and _any_queued())
        if not done.returncode or not (silent or limit) or ended():
            break
        if silent and (there := sent()):
            return subprocess.CompletedProcess(done.args, 0, f"{there}\n", "")
        if words != said:
            said = words
            _note(f"{value_of(arguments, '--comment') or name} waits: {' / '.join(words.splitlines())}")
        until = time.monotonic() + pause
        while time.monotonic() < until and not ended():
            time.sleep(0.5)
    return done


def _pauses() -> Iterator[float]:
    yield from PAUSES_S
    while True:
        yield PAUSES_S[-1]


def _any_queued() -> bool:
    """Whether this user has jobs in the queue, so that a limit on their number may pass."""
    return bool(call("squeue", ["--noheader", "--user", str(os.getuid()), "--format=%i"]).stdout.strip())


def ended() -> bool:
    """Whether Snakemake was interrupted or is gone: then nothing more is submitted."""
    head, interrupted = os.environ.get("MOEBENCH_HEAD", ""), os.environ.get("MOEBENCH_INTERRUPTED")
    return (bool(interrupted) and Path(str(interrupted)).exists()) or (
        head.isdigit() and not Path(f"/proc/{head}").exists()
    )


def _note(line: str) -> None:
    with contextlib.suppress(OSError):
        REFUSED_LOG.parent.mkdir(parents=True, exist_ok=True)
        with open(REFUSED_LOG, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


# ---------------------------------------------------------------------------------------------------- states


def states(name: str, arguments: list[str], run: str) -> dict[str, str]:
    """States of a run's jobs by id, as the plugin names them; unknown ones are left out.

    The plugin takes a job that is left out for one that still runs.
    """
    asked = call(name, arguments)
    found = rows(asked.stdout) if asked.returncode == 0 else None
    queue: dict[str, str] | None = found if name == "squeue" else None
    if name == "sacct" and (found is None or any(state in _RETURNS for state in found.values())):
        done = call("squeue", ["--states=all", "--noheader", "--name", run, "--format=%i|%T"])
        queue = rows(done.stdout) if done.returncode == 0 else None
        if found is None:
            found = queue
    made = {}
    for job, state in (found or {}).items():
        if name == "sacct" and state in _RETURNS:
            if queue is None:  # it may be back in the queue
                continue
            state = queue.get(job, "CANCELLED" if state == "REQUEUED" else state)
        made[job] = _ENDED.get(state, state)
    if "PENDING" in made.values():
        made |= dict.fromkeys(given_up(run) & made.keys(), "FAILED")
    _known(run, found or {})
    return made | dict.fromkeys(lost(run, queue), "FAILED")


def lost(run: str, queue: dict[str, str] | None) -> list[str]:
    """Jobs of a run that SLURM has not known for a while; none while it is silent.

    The plugin would wait for them forever, as for jobs that SLURM does not list yet.  ``queue``: squeue's answer.
    """
    missing = []
    for path in (JOBS / run).glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LOST_S:
                missing.append(path.name)
    if missing and queue is None:
        done = call("squeue", ["--states=all", "--noheader", "--name", run, "--format=%i|%T"])
        if done.returncode:
            return []
        queue = rows(done.stdout)
    _known(run, queue or {})
    return [job for job in missing if job not in (queue or {})]


def _known(run: str, jobs: Iterable[str]) -> None:
    for job in jobs:
        with contextlib.suppress(OSError):
            (JOBS / run).mkdir(parents=True, exist_ok=True)
            (JOBS / run / job).touch()


def given_up(run: str) -> set[str]:
    """Jobs that SLURM put back and holds, as after a failed launch; cancelled here, as nobody releases them."""
    done = call("squeue", ["--noheader", "--states=PENDING", "--name", run, "--format=%i|%r"])
    found = [line.strip().partition("|")[::2] for line in done.stdout.splitlines()]
    held = {job for job, reason in found if job.isdigit() and _REQUEUED_AND_HELD.search(reason)}
    if held:
        call("scancel", sorted(held))
    return held


def rows(text: str) -> dict[str, str]:
    """``id|STATE`` lines: states as one word (of ``CANCELLED by 1000``, ``CANCELLED+``); other lines are a site's own.

    A sibling of a job in another cluster that was revoked says nothing of the job.
    """
    found = {}
    for line in text.splitlines():
        job, bar, state = line.strip().partition("|")
        words = state.split()
        if bar and re.fullmatch(r"\d+(_\d+)?", job) and words and words[0] != "REVOKED":
            found[job] = words[0].rstrip("+")
    return found


def node_list(text: str) -> str:
    """Nodes of a job as sacct printed them; empty where it names none (``None assigned``)."""
    lines = [line.strip() for line in text.splitlines()]
    return ",".join(line for line in lines if line.lower() not in _NOBODY and NODE_LIST.fullmatch(line))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
