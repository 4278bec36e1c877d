#!/usr/bin/env python3
"""A real SLURM on this machine, for tests: munge, slurmctld and two virtual nodes with four fake H100 each.

    eval "$(python3 tests/slurm/cluster.py start)"    # sinfo, sbatch, snakemake --profile profiles/slurm ... work now
    python3 tests/slurm/cluster.py stop

Everything lies in one folder (default /tmp/moebench-slurm-UID; ``--folder``) and listens on the loopback interface
only.  /etc/slurm and a munge of the machine are not touched: clients find this cluster by the variable SLURM_CONF, and
munge has a socket and a key of its own.  ``start`` starts what does not run yet, ``stop`` ends what ``start`` started.
Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = "slurm-wlm slurmctld slurmd slurm-client munge"
GPUS = 4
HANG_S = 3600
"""Seconds after which a command of SLURM's is taken to hang."""
_SBIN = "/usr/sbin:/sbin"

SLURM_CONF = """\
ClusterName=moebench
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=30
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
# No systemd and no cgroups: memory is enforced by looking once a second.
ProctrackType=proctrack/{tracking}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
# The nodes have the cores and the memory written here, whatever this machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
GresTypes=gpu
ReturnToService=2
MinJobAge=86400
KillWait=10
MessageTimeout=100
{nodes}
PartitionName=h100 Nodes=ALL Default=YES MaxTime=UNLIMITED DefMemPerCPU=1000 State=UP
"""


class Missing(Exception):
    """This machine cannot run the cluster; ``str()`` says in one line what is missing and what to do."""


def check() -> None:
    """Raise Missing unless this machine has what the cluster needs."""
    path = f"{os.environ.get('PATH', '')}:{_SBIN}"
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol")
    lacking = [p for p in programs if shutil.which(p, path=path) is None]
    if lacking:
        raise Missing(
            f"SLURM is not installed ({lacking[0]} is missing): apt-get install -y --no-install-recommends {PACKAGES}"
        )
    if os.geteuid() != 0:
        raise Missing("a SLURM of one's own needs root (for its device files): run this with sudo, or in a container")


def alive(pid_file: Path, folder: Path) -> int | None:
    """Process id in a pid file, if that process lives and is of this cluster (its command line names the folder)."""
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if str(folder) in command and state != "Z" else None


def wait_for(condition: Callable[[], object], what: str, seconds: float = 600) -> None:
    """Wait until a condition holds.  Raises TimeoutError naming it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


class Cluster:
    """The cluster of a folder, running or not.

    Args:
        folder: everything lies below it.
        nodes: how many virtual nodes it has; each has GPUS fake GPUs.
        cpus: how many CPUs each node claims to have.
        tracking: how the processes of a job are found: ``linuxproc``, by their parents, counts all their memory, and
            leaves those behind whose parent ended first; ``pgid``, by their group, leaves none and counts the first.
    """

    def __init__(self, folder: Path, nodes: int = 2, cpus: int = 64, tracking: str = "linuxproc"):
        self.folder, self.cpus, self.tracking = folder.resolve(), cpus, tracking
        self.names = [f"node{n:02d}" for n in range(1, nodes + 1)]
        self.conf = self.folder / "etc" / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What clients need in their environment."""
        return {"SLURM_CONF": str(self.conf), "PATH": f"{self.folder}/bin:{os.environ.get('PATH', '')}:{_SBIN}"}

    def run(self, *command: str, check: bool = True) -> str:
        """Standard output of a SLURM client command.  Raises RuntimeError with its words, unless ``check`` is false."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    # ------------------------------------------------------------------------------------------------- start

    def start(self) -> Cluster:
        """Start whatever of the cluster does not run.  Raises Missing, RuntimeError or TimeoutError."""
        check()
        for name in ("bin", "etc", "state", "spool", "run", "log", "dev", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not self.pids():  # a cluster that runs keeps its configuration
            self.configure()
        self.start_munge()
        self.start_daemon("slurmctld", "slurmctld", [])
        wait_for(lambda: "UP" in self.run("scontrol", "ping", check=False), "slurmctld answers")
        for name in self.names:
            self.start_daemon(name, "slurmd", ["-N", name])
        wait_for(
            lambda: (
                len(self.run("sinfo", "-h", "-N", "-t", "idle,mixed,allocated", "-o", "%N").split()) == len(self.names)
            ),
            "all nodes are up",
        )
        return self

    def configure(self) -> None:
        """Write the configuration, and the device files that stand for the GPUs."""
        with contextlib.ExitStack() as held:  # all at once, so that no port is handed out twice
            sockets = [held.enter_context(socket.socket()) for _ in range(1 + len(self.names))]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            controller, *ports = (one.getsockname()[1] for one in sockets)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} State=UNKNOWN "
            f"Sockets=1 CoresPerSocket={self.cpus} ThreadsPerCore=1 RealMemory=512000 Gres=gpu:h100:{GPUS}"
            for name, port in zip(self.names, ports, strict=True)
        )
        self.conf.write_text(
            SLURM_CONF.format(folder=self.folder, controller_port=controller, nodes=nodes, tracking=self.tracking)
        )
        for number in range(GPUS):
            device = self.folder / "dev" / f"nvidia{number}"
            if not device.is_char_device():  # of a plain file SLURM makes an empty CUDA_VISIBLE_DEVICES
                try:
                    os.mknod(device, 0o20666, os.makedev(195, number))
                except OSError as error:
                    raise Missing(
                        f"{device}: this machine does not allow device files ({error.strerror}); use a "
                        "virtual machine or a container with CAP_MKNOD"
                    ) from None
        # The nodes share the device files: nobody opens them.
        files = f"{self.folder}/dev/nvidia[0-{GPUS - 1}]"
        (self.folder / "etc" / "gres.conf").write_text(
            "AutoDetect=off\n" + "".join(f"NodeName={n} Name=gpu Type=h100 File={files}\n" for n in self.names)
        )
        (self.folder / "etc" / "cgroup.conf").write_text("CgroupAutomount=no\n")
        # Snakemake's job step drops SLURM_CONF before it calls srun; one that brings it back comes first in PATH.
        for name in ("srun", "squeue", "scontrol"):
            program = self.folder / "bin" / name
            program.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {shutil.which(name)} "$@"\n')
            program.chmod(0o755)

    def start_munge(self) -> None:
        """Start munge, which signs SLURM's messages, with a socket and a key of its own."""
        own = self.folder / "munge"
        own.chmod(0o755)
        key = own / "key"
        if not key.exists():
            key.touch(mode=0o400)
            key.write_bytes(os.urandom(128))
        if alive(own / "pid", self.folder) is None:
            (own / "socket").unlink(missing_ok=True)
            self._launch(
                [
                    "munged",
                    f"--socket={own}/socket",
                    f"--key-file={key}",
                    f"--pid-file={own}/pid",
                    f"--log-file={own}/log",
                    f"--seed-file={own}/seed",
                    "--origin=127.0.0.1",
                    "--force",
                ]
            )
        wait_for((own / "socket").exists, "munge answers")

    def start_daemon(self, name: str, program: str, options: list[str]) -> None:
        """Start slurmctld or a slurmd, unless it runs."""
        pid_file = self.folder / "run" / f"{name}.pid"
        if alive(pid_file, self.folder) is None:
            pid_file.unlink(missing_ok=True)
            self._launch([program, *options, "-f", str(self.conf)])
            wait_for(lambda: alive(pid_file, self.folder), f"{program} {name} runs (see {self.folder}/log)")

    def _launch(self, command: list[str]) -> None:
        # The daemons go to the background by themselves; what they say before that goes to a file, not to a pipe that
        # they would hold open.
        log = self.folder / "log" / f"{command[0]}.out"
        with open(log, "ab") as out:
            done = subprocess.run(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                timeout=HANG_S,
            )
        if done.returncode:
            raise RuntimeError(f"{command[0]} did not start: {log.read_text().strip().splitlines()[-1:]}")

    # -------------------------------------------------------------------------------------------------- stop

    def pids(self) -> list[int]:
        """Processes of this cluster that live, nodes first."""
        files = [self.folder / "run" / f"{name}.pid" for name in [*self.names, "slurmctld"]]
        files.append(self.folder / "munge" / "pid")
        return [pid for file in files if (pid := alive(file, self.folder)) is not None]

    def stop(self) -> None:
        """End the cluster's jobs and then its daemons.  The folder stays, for its logs."""
        if not self.pids():
            return
        self.run("scancel", "--user=root", check=False)
        with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
            wait_for(lambda: not self.run("squeue", "-h", check=False).strip(), "all jobs have ended", 40)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: not self.pids(), "all daemons have ended", 10)
                return


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["start", "stop", "status"])
    folder = Path(f"/tmp/moebench-slurm-{os.getuid()}")
    parser.add_argument("--folder", type=Path, default=folder, help=f"where everything lies (default: {folder})")
    parser.add_argument("--nodes", type=int, default=2, help="virtual nodes (default: 2)")
    parser.add_argument("--cpus", type=int, default=64, help="CPUs a node claims to have (default: 64)")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.folder, arguments.nodes, arguments.cpus)
    try:
        if arguments.verb == "start":
            cluster.start()
            print(f'export SLURM_CONF={cluster.conf} PATH="{cluster.folder}/bin:$PATH"')
        elif arguments.verb == "stop":
            cluster.stop()
        else:
            running = cluster.pids()
            print(cluster.run("sinfo", "-N", "-o", "%N %T %c %m %G").strip() if running else "not running")
            sys.exit(0 if running else 1)
    except (Missing, RuntimeError, TimeoutError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
