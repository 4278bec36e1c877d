"""A project on the test cluster: its commands, what SLURM and the results say about it, and what can go wrong."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.measure import records
from project import ENVS, HANG_S
from slurm import stand_in
from slurm.cluster import Cluster

PYTHON = ENVS / "workflow" / "bin" / "python"

NO_ACCOUNTING = ["--slurm-no-account"]
"""What a cluster without slurmdbd needs beside the profile, to be quiet about it."""
SNAKEMAKE = [str(PYTHON), "-P", str(Path(__file__).with_name("impatient.py")), "--profile", "profiles/slurm",
             "--slurm-init-seconds-before-status-checks", "1", "--max-status-checks-per-second", "10",
             "--latency-wait", "120"]  # fmt: skip

SECRETS = {
    "HF_TOKEN": "hf_canaryOfTheHub01",
    "OPENAI_API_KEY": "sk-canaryOfAService02",
    "WANDB_KEY": "canary0123456789",
}
"""In the shell of every Snakemake: none of them may be in a file of the project."""

END_S = 60
"""Seconds until what a cancelled job leaves is killed; SLURM itself kills it after half of them."""

T = TypeVar("T")


def until(look: Callable[[], T], what: str, seconds: float = HANG_S, pause: float = 0.2) -> T:
    """The first true answer of ``look``.  Fails, naming what was waited for, when it does not come."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)
    return found


class Head:
    """A running Snakemake: the process that submits and watches the jobs."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path):
        self.process, self._output = process, output

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._output.read_text(errors="replace")

    def wait(self, seconds: float = HANG_S) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"snakemake did not end within {seconds:.0f} s:\n{self.output[-3000:]}")

    def kill(self) -> None:
        """End it and the job steps of Snakemake that it started here: all of its process group, for certain."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


class Project:
    """A copy of the working tree with a study of its own, and what SLURM and the results folder say about it."""

    def __init__(self, folder: Path, cluster: Cluster):
        self.folder, self.cluster, self.heads = folder, cluster, 0
        self.plan: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------------ set-up

    def study(self, name: str, experiments: dict[str, list[dict[str, Any]] | None] | None, **jobs: Any) -> None:
        """Write a study derived from ``tiny``, one job per engine configuration, and make it the default one.

        Experiments: blocks of a grid by name (of one that is there: its grid for ``tiny``), or None for one as it is;
        none at all are those of ``tiny``.
        """
        config = self.folder / "config"
        study = yaml.safe_load((config / "studies" / "tiny.yaml").read_text())
        experiments = experiments or dict.fromkeys(study["experiments"])
        study |= {"name": name, "experiments": list(experiments)}
        study.pop("reference")  # each Snakemake would plan a second study
        study["jobs"] |= {"pack_minutes": 0, "measure_constants": False} | jobs
        for experiment, blocks in experiments.items():
            if blocks is not None:
                path = config / "experiments" / f"{experiment}.yaml"
                if path.exists():
                    own = yaml.safe_load(path.read_text())
                else:
                    own = {"name": experiment, "title": experiment, "question": "Does it run?", "grid": {}}
                own["grid"]["tiny"] = blocks
                path.write_text(yaml.safe_dump(own))
        (config / "studies" / f"{name}.yaml").write_text(yaml.safe_dump(study))
        root = yaml.safe_load((config / "config.yaml").read_text()) | {"study": name}
        (config / "config.yaml").write_text(yaml.safe_dump(root))
        self.plan = make_plan(Config(config), name)

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands: the cluster's, and of Python the package in its folder, not the one that was copied."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        return kept | SECRETS | self.cluster.environment | {"PYTHONPATH": str(self.folder / "workflow")}

    def engine(self, slug: str) -> str:
        """The engine configuration of this slug (its id without the hash)."""
        (found,) = [str(e) for e in self.plan["engines"] if e.rpartition("-")[0] == slug]
        return found

    def cells(self, *engines: str) -> list[str]:
        """``engine/cell`` of these (default: all) engine configurations, in the order of measurement."""
        return [f"{e}/{c}" for e in engines or self.plan["engines"] for c in self.plan["engines"][e]["cells"]]

    # ---------------------------------------------------------------------------------------------- commands

    def start(self, *arguments: str, user: int | None = None) -> Head:
        """Start ``snakemake --profile profiles/slurm`` in the background.

        ``user``: another one, who may read everything (the Python of the tests may be in root's home).
        """
        self.heads += 1
        output = self.folder.with_name(f"{self.folder.name}.snakemake-{self.heads}.txt")
        command = [*SNAKEMAKE, *NO_ACCOUNTING]
        environment = self.environment
        if user is not None:
            home = self.folder.with_name(f"home-{user}")
            home.mkdir(exist_ok=True)
            os.chown(home, user, user)
            environment |= {"HOME": str(home)}
            may = "-all,+dac_read_search"
            command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", f"--inh-caps={may}",
                       f"--ambient-caps={may}", *command]  # fmt: skip
        with open(output, "wb") as file:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=self.folder,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        return Head(process, output)

    def snakemake(self, *arguments: str, expect: int = 0) -> str:
        """Run it to its end; its output."""
        head = self.start(*arguments)
        code = head.wait()
        assert code == expect, head.output[-5000:]
        return head.output

    def moebench(self, *arguments: str, expect: int = 0) -> str:
        """Standard output of a verb of the command line."""
        done = subprocess.run(
            [str(PYTHON), "-m", "moebench", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={**self.environment, "PYTHONPATH": "workflow"},
            timeout=HANG_S,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    # ------------------------------------------------------------------------------------ what is there to see

    def jobs(self, job: str | None = None) -> list[dict[str, str]]:
        """SLURM's jobs of this project (of one job of the plan), oldest first, as `scontrol show job -d` shows them."""
        found = []
        for line in self.cluster.run("scontrol", "show", "job", "-d", "-o", check=False).splitlines():
            one = dict(re.findall(r"(\S+?)=(\S*)", line))
            if one.get("WorkDir") == str(self.folder) and (job is None or one.get("Comment", "").endswith(f"_{job}")):
                found.append(one)
        return sorted(found, key=lambda one: int(one["JobId"]))

    def queue(self) -> list[str]:
        """Ids of its jobs that wait or run."""
        lines = self.cluster.run("squeue", "-h", "-o", "%i %Z").splitlines()
        return [line.split()[0] for line in lines if line.split()[1] == str(self.folder)]

    def record(self, key: str) -> dict[str, Any] | None:
        """The record of a cell, checked, or None."""
        try:
            return records.load(self.folder / "results" / "cells" / f"{key}.json")
        except FileNotFoundError:
            return None

    def done(self, keys: list[str]) -> list[str]:
        """Those cells that have a record."""
        return [key for key in keys if self.record(key)]

    def history(self) -> Counter[str]:
        """How many records each cell ever had."""
        names = (self.folder / "results" / "history").glob("*/*.json")
        return Counter(f"{p.parent.name}/{re.sub(r'[.][^.]*[.][^.]*[.]json$', '', p.name)}" for p in names)

    def progress(self, job: str) -> str:
        """The progress log of a job of the plan."""
        path = self.folder / "logs" / self.plan["study"] / f"{job}.progress.log"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """Cancel its jobs, and kill what then still runs in its folder: a job step may ignore SIGTERM."""
        for job in self.queue():
            self.cluster.run("scancel", job, check=False)
        deadline = time.monotonic() + END_S
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Ids of the processes that run in its folder, on whichever virtual node."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(process / "cwd") == str(self.folder):
                    found.append(int(process.name))
        return found

    def workers(self, job: str = "") -> list[int]:
        """Process ids of its engine processes (of one job of the plan)."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                command = (process / "cmdline").read_bytes().decode().split("\0")
                if "moebench.measure.worker" not in command or os.readlink(process / "cwd") != str(self.folder):
                    continue
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if not job or job in Path(f"/proc/{parent}/cmdline").read_bytes().decode().split("\0"):
                    found.append(int(process.name))
            except (OSError, ValueError):
                continue
        return found

    def hold(self, *cells: str) -> None:
        """Have stand-in engines stop in the middle of these cells."""
        for cell in cells:
            path = self._mark(cell)
            path.parent.mkdir(exist_ok=True)
            path.touch()

    def release(self, *cells: str) -> None:
        """Have engines that start from now on no longer stop in these cells."""
        for cell in cells:
            self._mark(cell).unlink()

    def _mark(self, cell: str) -> Path:
        return self.folder / stand_in.mark(
            self.plan["engines"][cell.partition("/")[0]], self.plan["cells"][cell]["workload"]
        )

    def stopped(self, job: str) -> int:
        """Process id of a job's engine that has stopped in a held cell, or 0."""
        for worker in self.workers(job):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                    return worker
        return 0
