"""Random faults into a real SLURM run of a small study, round after round; what must hold is checked from files alone.

    make soak                                     (FAULTS=1000 SEED=1)

A round starts Snakemake on a login node, does FAULTS_IN_ROUND things to it at random moments, mends what an operator
would mend, and calls Snakemake once more: that call must end well, and then nothing may be lost, doubled, wrong or left
(``checker.py``).  A round starts from nothing, and its seed is printed: with ``--seed N --faults FAULTS_IN_ROUND`` the
same faults come in the same order, with the same pauses, to the victims in the same places of the same lists.

Engines are stand-ins that compute nothing (``stand_in.py``) but for one round in REAL_EVERY, which loads the real vLLM:
most of a round would be its imports.  Of a round with a violation everything stays: the faults with their times, what
each Snakemake printed, the logs of jobs and of SLURM, and the results.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fulldisk
from moebench.commands.slurm_commands import LOST_S
from project import HANG_S, copy
from slurm import stand_in
from slurm.checker import Checker
from slurm.cluster import Cluster, alive, wait_for
from slurm.clusterproject import Head, Project, until

FAULTS_IN_ROUND = 100
REAL_EVERY = 10
PATIENCE_S = 15
LOST_HERE_S = 15
"""After so long a job that a killed slurmctld forgot is lost: this one is started again within seconds."""
OTHER_USER = 20001
SMALL = {"input_tokens": 16, "output_tokens": 32}
STUDY = {
    "soak": [
        {"fix": SMALL | {"model": model, "tp": tp}, "cross": {"batch": [1, 2], "top_k": [1, 2]}}
        for model, tp in (("tiny-olmoe", 1), ("tiny-mixtral", 2), ("tiny-qwen3-moe", 1))
    ]
}

SACCT = """\
#!/bin/sh
# As slurmdbd answers what the plugin asks: the states of the jobs of a run.
while [ $# -gt 0 ] && [ "$1" != --name ]; do shift; done
[ $# = 0 ] || exec {squeue} --states=all --noheader --name "$2" --format='%i|%T'
"""
"""slurmdbd needs a database server; jobs that slurmctld forgot, this forgets too."""


class Round:
    """One round of faults.

    Args:
        run: the project; its results lie on a file system of their own.
        checker: of its files; it notes every record that was ever there.
        seed: of what happens, to what and when.
        log: file of what happened, with times.
        patience_s: how long a fault waits for something to happen to.
    """

    def __init__(self, run: Project, checker: Checker, seed: int, log: Path, patience_s: float = PATIENCE_S):
        self.run, self.checker, self.seed, self.log, self.patience_s = run, checker, seed, log, patience_s
        self.results = run.folder / "results"
        self.dice = random.Random(seed)
        self.heads: list[Head] = []
        self.frozen: list[int] = []
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()

    def say(self, text: str) -> None:
        """A line in the log of what happened."""
        with open(self.log, "a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    # ------------------------------------------------------------------------------------------------- faults

    def kill_worker(self) -> bool:
        """kill -9 of an engine."""
        return self._signal(self.run.workers(), signal.SIGKILL)

    def kill_engine_process(self) -> bool:
        """kill -9 of a process that an engine started (a rank, the engine core)."""
        return self._signal(self._children(self.run.workers()), signal.SIGKILL)

    def kill_driver(self) -> bool:
        """kill -9 of the process that drives an engine."""
        return self._signal(self._with("moebench", "measure"), signal.SIGKILL)

    def kill_job_step(self) -> bool:
        """kill -9 of the Snakemake inside a job."""
        heads = [head.process.pid for head in self.heads]
        return self._signal([pid for pid in self._with("snakemake") if pid not in heads], signal.SIGKILL)

    def freeze_worker(self) -> bool:
        """An engine that hangs (until the round is over, or its job is)."""
        workers = [pid for pid in self.run.workers() if pid not in self.frozen]
        if found := self._signal(workers, signal.SIGSTOP):
            self.frozen += workers
        return found

    def kill_head(self) -> bool:
        """kill -9 of Snakemake on the login node; another call of it follows, as a person would make it."""
        alive_heads = [head for head in self.heads if head.process.poll() is None]
        if not alive_heads:
            return False
        self.dice.choice(alive_heads).kill()
        self.run.snakemake("--unlock")
        self.start()
        return True

    def second_head(self) -> bool:
        """Snakemake called twice in one folder."""
        self.start()
        return True

    def second_user(self) -> bool:
        """Another user's call in the same folder: refused in a line, and nothing is changed."""
        head = self.run.start("collect", user=OTHER_USER)
        if head.wait() == 0 or "cannot write it" not in head.output:
            self.wrong.append(f"a call of another user was not refused:\n{head.output[-2000:]}")
        return True

    def interrupt_head(self) -> bool:
        """Ctrl-C, and the same call again."""
        for head in self.heads:
            if head.process.poll() is None:
                head.signal(signal.SIGINT)
                head.wait()
                self.start()
                return True
        return False

    def kill_controller(self) -> bool:
        """kill -9 of slurmctld; it is started again a little later."""
        return self._daemon("slurmctld", "slurmctld", [])

    def kill_node(self) -> bool:
        """kill -9 of a slurmd, started again a little later."""
        name = self.dice.choice(self.run.cluster.names)
        return self._daemon(name, "slurmd", ["-N", name])

    def node_down(self) -> bool:
        """A node that the operator takes down, and its jobs with it."""
        return self._node("DOWN")

    def node_drained(self) -> bool:
        """A node that takes no more jobs."""
        return self._node("DRAIN")

    def cancel(self) -> bool:
        """scancel of a job."""
        return self._job("scancel")

    def requeue(self) -> bool:
        """A job that is preempted and put back into the queue, where SLURM allows it."""
        return self._job("scontrol", "requeue")

    def time_limit(self) -> bool:
        """A job that reaches its time limit."""
        queue = self.run.queue()
        if not queue:
            return False
        self.run.cluster.run("scontrol", "update", f"JobId={self.dice.choice(queue)}", "EndTime=now+1", check=False)
        return True

    def sacct_away(self) -> bool:
        """slurmdbd does not answer for a while."""
        return self._away("sacct", "sacct: error: slurm_persist_conn_open: Connection refused")

    def squeue_away(self) -> bool:
        """Nor does slurmctld."""
        refused = "slurm_load_jobs error: Unable to contact slurm controller"
        return self._away("squeue", refused, "sacct") if self.dice.random() < 0.5 else self._away("squeue", refused)

    def full_disk(self) -> bool:
        """No room for results for a while."""
        fulldisk.fill(self.results)
        time.sleep(self.dice.uniform(0.5, 4))
        fulldisk.free(self.results)
        return True

    def read_only(self) -> bool:
        """Results that cannot be written for a while."""
        if subprocess.run(["mount", "-o", "remount,ro", self.results], capture_output=True).returncode:
            return False  # a file is open for writing
        time.sleep(self.dice.uniform(0.5, 4))
        subprocess.run(["mount", "-o", "remount,rw", self.results], check=True)
        return True

    def torn_record(self) -> bool:
        """A record that lost its end."""
        return self._record(lambda path: os.truncate(path, self.dice.randrange(path.stat().st_size)))

    def edited_record(self) -> bool:
        """A record in which a digit changed."""

        def edit(path: Path) -> None:
            data = bytearray(path.read_bytes())
            digits = [n for n, byte in enumerate(data) if 48 <= byte < 57]
            data[self.dice.choice(digits)] += 1
            path.write_bytes(data)

        return self._record(edit)

    def deleted_record(self) -> bool:
        """A record that is gone."""
        return self._record(Path.unlink)

    def future_record(self) -> bool:
        """A record of tomorrow."""
        return self._record(lambda path: os.utime(path, (time.time() + 86400,) * 2))

    def swapped_records(self) -> bool:
        """Two records that changed places."""
        paths = sorted(self.results.glob("cells/*/*.json"))
        if len(paths) < 2:
            return False
        with contextlib.suppress(FileNotFoundError):
            one, other = self.dice.sample(paths, 2)
            a, b = one.read_bytes(), other.read_bytes()
            one.write_bytes(b)
            other.write_bytes(a)
            return True
        return False

    def deleted_manifest(self) -> bool:
        """The manifest of a job that is gone."""
        paths = sorted(self.results.glob("jobs/*.json"))
        if not paths:
            return False
        self.dice.choice(paths).unlink(missing_ok=True)
        return True

    # -------------------------------------------------------------------------------------------- how it is done

    def _away(self, name: str, words: str, *others: str) -> bool:
        programs = [self.run.cluster.folder / "bin" / program for program in (name, *others)]
        whole = [program.read_text() for program in programs]
        for program in programs:
            program.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
        time.sleep(self.dice.uniform(0.5, 4))
        for program, text in zip(programs, whole, strict=True):
            program.write_text(text)
        return True

    def _signal(self, processes: list[int], number: signal.Signals) -> bool:
        if not processes:
            return False
        victim = self.dice.choice(sorted(processes))
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, number)
            self.say(f"  {number.name} to process {victim}")
            return True
        return False

    def _with(self, *words: str) -> list[int]:
        """Processes in the project's folder whose command line has all these words."""
        found = []
        for pid in self.run.processes():
            with contextlib.suppress(OSError):
                if set(words) <= set(Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")):
                    found.append(pid)
        return found

    @staticmethod
    def _children(parents: list[int]) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                if int((process / "stat").read_text().rpartition(")")[2].split()[1]) in parents:
                    found.append(int(process.name))
        return found

    def _daemon(self, name: str, program: str, options: list[str]) -> bool:
        cluster = self.run.cluster
        pid_file = cluster.folder / "run" / f"{name}.pid"
        pid = alive(pid_file, cluster.folder)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: alive(pid_file, cluster.folder) is None, f"{name} ends")
        time.sleep(self.dice.uniform(0, 4))
        cluster.start_daemon(name, program, options)
        return True

    def _node(self, state: str) -> bool:
        name = self.dice.choice(self.run.cluster.names)
        self.say(f"  {name}")
        self.run.cluster.run("scontrol", "update", f"NodeName={name}", f"State={state}", "Reason=soak", check=False)
        time.sleep(self.dice.uniform(0, 3))
        self.run.cluster.run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)
        return True

    def _job(self, *command: str) -> bool:
        queue = self.run.queue()
        if queue:
            job = self.dice.choice(queue)
            self.say(f"  job {job}")
            self.run.cluster.run(*command, job, check=False)
        return bool(queue)

    def _record(self, harm: Callable[[Path], object]) -> bool:
        path = self.results / "cells" / f"{self.dice.choice(sorted(self.run.plan['cells']))}.json"
        with contextlib.suppress(FileNotFoundError):  # or it is not there yet
            harm(path)
            self.say(f"  {path.relative_to(self.results)}")
            return True
        return False

    # ------------------------------------------------------------------------------------------------ a round

    def start(self) -> Head:
        """Call Snakemake, for all but the report."""
        manifests = [
            f"results/jobs/{job}.json" for job in self.run.plan["jobs"]
        ]  # made again only if asked for by name
        self.heads.append(self.run.start("collect", *manifests))
        return self.heads[-1]

    def play(self, faults: int) -> None:
        """Start a run and do ``faults`` things to it; a thing that finds nothing to happen to is not counted."""
        self.start()
        for number in range(30 * faults):
            if self.done.total() == faults:
                break
            self.dice = random.Random(f"{self.seed}/{number}")  # not of what other faults found to happen to
            name = self.dice.choice(KINDS)
            self.say(name)
            if self.strike(name):
                self.done[name] += 1
                self.pause()
            else:
                self.say("  (nothing to happen to)")
            if all(head.process.poll() is not None for head in self.heads):
                self.unlock()
                self.lose()
                self.start()

    def strike(self, name: str) -> bool:
        """Do a thing, as soon as there is something to do it to; whether there was while the run went on."""
        until_s, dice = time.monotonic() + self.patience_s, self.dice.getstate()
        while True:
            self.dice.setstate(dice)
            self.checker.note()
            if getattr(self, name)():
                return True
            if time.monotonic() > until_s or all(head.process.poll() is not None for head in self.heads):
                return False
            time.sleep(0.3)

    def pause(self) -> None:
        """A moment, or until something more is measured: else all faults would strike before the first record."""
        before = len(list(self.results.glob("history/*/*.json")))
        until_s = time.monotonic() + (self.dice.uniform(0.05, 1) if self.dice.random() < 0.8 else PATIENCE_S)
        while time.monotonic() < until_s and len(list(self.results.glob("history/*/*.json"))) == before:
            time.sleep(0.1)

    def forget(self) -> None:
        """Start from nothing: what a round finds must not depend on the rounds before it."""
        for path in (*self.results.iterdir(), self.run.folder / ".snakemake", self.run.folder / "logs"):
            shutil.rmtree(path, ignore_errors=True)

    def lose(self) -> None:
        """Have most jobs measure again, so that there is something to disturb."""
        for job in self.run.plan["jobs"].values():
            if self.dice.random() < 0.7:
                shutil.rmtree(self.results / "cells" / job["engines"][0], ignore_errors=True)

    def unlock(self) -> None:
        """What Snakemake tells a person to do after a kill -9."""
        if list((self.run.folder / ".snakemake" / "locks").glob("*")):
            self.run.snakemake("--unlock")

    def mend(self) -> None:
        """What an operator does: wake what hangs, bring up nodes, and wait for the runs that are left, or end them."""
        cluster = self.run.cluster
        subprocess.run(["mount", "-o", "remount,rw", self.results], check=False)  # of a round that did not end
        (self.results / fulldisk.BALLAST).unlink(missing_ok=True)
        for pid in self.frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for name in cluster.names:
            cluster.start_daemon(name, "slurmd", ["-N", name])
            cluster.run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)
        cluster.start()
        if impatient := random.Random(self.seed).random() < 0.5:
            for head in self.heads:
                if head.process.poll() is None:
                    head.signal(signal.SIGINT)
        self.say("mended; " + ("interrupted" if impatient else "waiting"))
        for head in self.heads:
            head.wait()
        for job in self.run.queue():
            cluster.run("scancel", job, check=False)
        until(lambda: not self.run.queue(), "an empty queue", pause=0.5)
        until(lambda: not self.run.workers(), "no engine process left by jobs that ended", pause=0.5)
        self.unlock()

    def given_up(self) -> list[str]:
        """Cells that failed three times in a row, and with ``moebench failures`` say how to run them again."""
        listed = subprocess.run(
            [sys.executable, "-m", "moebench", "failures", "--profile", "profiles/slurm"],
            cwd=self.run.folder, capture_output=True, text=True, env={**self.run.environment, "PYTHONPATH": "workflow"},
        ).stdout  # fmt: skip
        commands = [line.strip() for line in listed.splitlines() if "--force results/cells/" in line]
        for command in commands:
            self.run.snakemake(*command.split("profiles/slurm ")[1].split())
        return commands


NO_FAULTS = ("say", "start", "play", "strike", "pause", "forget", "lose", "unlock", "mend", "given_up")
KINDS = sorted(name for name in vars(Round) if not name.startswith("_") and name not in NO_FAULTS)


@contextlib.contextmanager
def prepared(where: Path, models: int = 3) -> Iterator[tuple[Project, Checker]]:
    """A cluster and a project on it, whose results are a file system of their own.  ``models``: of the study."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored, and all that is started
    cluster = Cluster(where / "slurm", tracking="pgid").start()
    folder = copy(where / "project")
    commands = folder / "workflow" / "moebench" / "commands" / "slurm_commands.py"
    commands.write_text(commands.read_text().replace(f"LOST_S = {LOST_S}\n", f"LOST_S = {LOST_HERE_S}\n"))
    sacct = cluster.folder / "bin" / "sacct"
    sacct.write_text(SACCT.format(squeue=f"env SLURM_CONF={cluster.conf} {shutil.which('squeue')}"))
    sacct.chmod(0o755)
    try:
        with fulldisk.mounted(folder / "results", "64m"):
            run = Project(folder, cluster)
            run.study("soak", {name: blocks[:models] for name, blocks in STUDY.items()})
            run.moebench("stage")
            try:
                yield run, Checker(folder, run.plan)
            finally:
                run.end()
    finally:
        cluster.stop()


def play(
    run: Project, checker: Checker, seed: int, faults: int = FAULTS_IN_ROUND, real: bool = False, measured: bool = True
) -> tuple[Counter[str], list[str]]:
    """One round; what was done, and what was wrong after it.  Of one with a violation everything is kept beside the
    project (``evidence``).  ``real``: with vLLM.  ``measured``: begin when all is measured, and lose most of it."""
    part = Round(run, checker, seed, run.folder.with_name(f"faults-{seed}.txt"), PATIENCE_S if measured else HANG_S)
    stand_in.copy_to(run.folder, not real)
    try:
        part.mend()  # a round before may not have ended
        part.forget()
        checker.known.clear()
        if measured:
            part.start().wait()
            part.lose()
        part.play(faults)
        part.mend()
        part.say("the next plain call")
        last = run.start() if real else part.start()
        code = last.wait()
        wrong = [] if code == 0 else [f"the next plain call ended with exit code {code}:\n{last.output[-3000:]}"]
        if not wrong:
            part.given_up()
            wrong = checker.violations()
        wrong += [*part.wrong, *(f"process {pid} is left" for pid in run.processes())]
    except (Exception, pytest.fail.Exception):  # what does not end within an hour, and the soak's own mistakes
        wrong = [f"the round did not end: {traceback.format_exc()}"]
    finally:
        for head in part.heads:
            head.kill()
    if wrong:
        part.say("\n".join(wrong))
        wrong.append(f"see {evidence(run, seed)}")
    return part.done, wrong


def evidence(run: Project, seed: int) -> Path:
    """Keep what tells why a round went wrong, before the next one changes it; where it is."""
    where = run.folder.with_name(f"violation-{seed}")
    for name in ("results", "logs", ".snakemake/log"):
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(run.folder / name, where / name, dirs_exist_ok=True)
    shutil.copytree(run.cluster.folder / "log", where / "slurm", dirs_exist_ok=True)
    for path in run.folder.parent.glob("*.txt"):
        shutil.copy(path, where)
    (where / "jobs.txt").write_text(run.cluster.run("scontrol", "show", "job", "-d", check=False))
    return where


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1000, help="how many in all (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round (default: 1)")
    parser.add_argument("--in-round", type=int, default=FAULTS_IN_ROUND, help="faults of a round")
    parser.add_argument("--keep", type=Path, help="a new folder for everything, which then stays")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends
    where = arguments.keep or Path(tempfile.mkdtemp(prefix="moebench-soak-"))
    where.mkdir(parents=True, exist_ok=True)
    done, bad, records, seed = Counter[str](), 0, 0, arguments.seed
    with prepared(where) as (run, checker):
        while done.total() < arguments.faults:
            started = time.monotonic()
            number = min(arguments.in_round, arguments.faults - done.total())
            faults, wrong = play(run, checker, seed, number, real=seed % REAL_EVERY == 0)
            done, bad, records = done + faults, bad + bool(wrong), records + len(checker.known)
            print(f"seed {seed}: {faults.total()} faults, {time.monotonic() - started:.0f} s, "
                  f"{len(wrong[:-1])} violations ({', '.join(f'{name} {n}' for name, n in sorted(faults.items()))})",
                  flush=True)  # fmt: skip
            for violation in wrong:
                print(f"  {violation}", flush=True)
            seed += 1
    print(f"{done.total()} faults ({', '.join(f'{name} {n}' for name, n in sorted(done.items()))}), {bad} rounds with "
          f"violations; records seen: {records}")  # fmt: skip
    if not bad and not arguments.keep:
        shutil.rmtree(where)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
