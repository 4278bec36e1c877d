"""An engine configuration that spans nodes of a SLURM job: vLLM's executor on the other nodes.

vLLM's ``mp`` backend takes ``nnodes``, ``node_rank`` and ``master_addr``.  The first node holds the ``LLM``; every
other node runs an executor without an API, which this module starts through ``srun`` and ends with the engine.  Run as
a program, this module is that executor: it reads its task from standard input, and ends when that is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from moebench.formats import Knobs
from moebench.formats.plan import EngineConfig
from moebench.storage import scratch

REACH_S = 60
"""How long the other nodes have to call the first one, from the start of their executors."""
UNREACHED = "does not reach this one at"
"""What ``failures`` knows it by."""

SRUN_SAYS_WITHIN_S = 15
"""The connections of a lost executor break at once; srun, which knows that it ended, says so a little later."""


def share(spec: EngineConfig, rank: int, address: str, port: int) -> Knobs:
    """Engine arguments of a node in addition to those of a single-node engine."""
    return {
        "nnodes": spec["nodes"],
        "node_rank": rank,
        "master_addr": address,
        "master_port": port,
        "distributed_executor_backend": "mp",
    }


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def others(nodes: int) -> tuple[list[str], int]:
    """Names of the other nodes of this job, and its number of CPUs on each.

    Raises RuntimeError if it has fewer than ``nodes`` in all.
    """
    names: list[str] = []
    cpus = 0
    if job := os.environ.get("SLURM_JOB_ID"):  # all that the executor plugin leaves of SLURM's variables
        listed, total = _said("squeue", "-h", "-j", job, "-o", "%N %C").split()
        names = _said("scontrol", "show", "hostnames", listed).split()
        cpus = int(total) // len(names)
    if len(names) < nodes:
        raise RuntimeError(f"the engine configuration needs {nodes} nodes, this job has {max(1, len(names))}")
    here = os.environ["SLURMD_NODENAME"]
    return [name for name in names if name != here][: nodes - 1], cpus


def place(node: str, gpus: int, cpus: int) -> list[str]:
    """Arguments of srun for the executor of another node, which has ``gpus`` and ``cpus`` there.

    Without an explicit number of CPUs a step may get only one; and all workers of a node are in one task, so CPU
    binding must be off.
    """
    return ["--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}", f"--gpus={gpus}", f"--cpus-per-task={cpus}",
            "--cpu-bind=none"]  # fmt: skip


def own_address() -> str:
    """An address at which the other nodes reach this one: ``VLLM_HOST_IP``, SLURM's, the host name's, or vLLM's.

    vLLM uses the address of the route to the internet, which a compute node may not have.  Raises RuntimeError if there
    is none: 0.0.0.0 and 127.x do not count, because the other ranks would call themselves.
    """
    if (given := os.environ.get("VLLM_HOST_IP", "")) and given != "0.0.0.0":
        return given
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    for called in (_slurm_address(name), name):
        with contextlib.suppress(OSError):
            found = socket.gethostbyname(called)
            if not found.startswith(("127.", "0.")):
                return found
    from vllm.utils.network_utils import get_ip

    found = str(get_ip())
    if found.startswith(("127.", "0.")):
        raise RuntimeError(f"no address of this node that others reach ({name}); set VLLM_HOST_IP on the nodes")
    return found


def _slurm_address(name: str) -> str:
    """The address that SLURM uses for a node; the node's name if SLURM does not report one."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if found := re.search(r"\bNodeAddr=(\S+)", _said("scontrol", "show", "node", name)):
            return found[1]
    return name


def call(address: str, port: int) -> None:
    """Connect to the first node, as proof that it is reachable.  Raises RuntimeError if it is not."""
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    try:
        with socket.create_connection((address, port), timeout=REACH_S / 2) as connection:
            connection.sendall(f"{name}\n".encode())
    except OSError as error:
        raise RuntimeError(f"node {name} {UNREACHED} {address} ({error}); set VLLM_HOST_IP on the nodes") from None


def hear(listener: socket.socket, names: list[str]) -> None:
    """Wait until each of the other nodes has called.  Raises RuntimeError for nodes that do not within a minute."""
    silent, deadline = set(names), time.monotonic() + REACH_S
    while silent and (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection, connection.makefile() as file:
                connection.settimeout(max(0.1, left))
                silent.discard(file.readline().strip())
    if silent:
        where = listener.getsockname()[0]
        raise RuntimeError(
            f"node {', '.join(sorted(silent))} {UNREACHED} {where}, not in {REACH_S} s; set VLLM_HOST_IP on the nodes"
        )


class OtherNodes:
    """The executors of the other nodes, from ``start`` to ``close``."""

    def __init__(self, spec: EngineConfig):
        self.spec = spec
        self.closing = False
        self._executors: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> Knobs:
        """Start them; return the additional engine arguments of the first node.

        Raises RuntimeError if the job has too few nodes, or if one does not reach this one within a minute.  If one of
        them ends early, this process ends too, because the rest of the engine would wait for it forever.
        """
        names, cpus = others(self.spec["nodes"])
        address = own_address()
        os.environ["VLLM_HOST_IP"] = address  # vLLM asks again, in other places
        from vllm.utils.network_utils import get_open_port

        port = get_open_port()
        try:
            listener = socket.create_server((address, 0))
        except OSError as error:
            raise RuntimeError(f"no address of this node that others reach: {address} ({error.strerror})") from None
        heard = listener.getsockname()[1]
        for rank, name in enumerate(names, 1):
            where = place(name, self.spec["gpus"] // self.spec["nodes"], cpus)
            executor = subprocess.Popen(
                ["srun", *where, sys.executable, "-m", "moebench.engines.vllm_nodes"], stdin=subprocess.PIPE, text=True
            )
            assert executor.stdin is not None
            request = {"spec": self.spec, "share": share(self.spec, rank, address, port), "heard_at": heard}
            executor.stdin.write(json.dumps(request) + "\n")
            executor.stdin.flush()
            self._executors[name] = executor
            threading.Thread(target=self._watch, args=(name, executor), daemon=True).start()
        try:
            with listener:
                hear(listener, names)
        except RuntimeError:
            self.close()
            raise
        return share(self.spec, 0, address, port)

    def _watch(self, name: str, executor: subprocess.Popen[str]) -> None:
        code = executor.wait()
        if not self.closing:
            print(f"RuntimeError: the executor on node {name} ended with exit code {code}", file=sys.stderr, flush=True)
            os._exit(1)

    def close(self) -> None:
        """End them."""
        self.closing = True
        for executor in self._executors.values():
            with contextlib.suppress(OSError):
                assert executor.stdin is not None
                executor.stdin.close()
            try:
                executor.wait(timeout=30)
            except subprocess.TimeoutExpired:
                executor.kill()


def main() -> None:
    """Run the executor of one of the other nodes."""
    request = json.loads(sys.stdin.readline())
    folder = scratch.make()  # the first node's is not here
    os.environ |= scratch.environment(folder)

    def end_with_input() -> None:  # it closes with the engine, however that ends
        sys.stdin.read()
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    os.setpgid(0, 0)
    threading.Thread(target=end_with_input, daemon=True).start()
    print(
        f"executor of node rank {request['share']['node_rank']} on {socket.gethostname()}", file=sys.stderr, flush=True
    )
    call(request["share"]["master_addr"], request["heard_at"])
    os.environ["VLLM_HOST_IP"] = own_address()
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    from moebench.engines.vllm_arguments import arguments, switch

    switch(request["spec"])
    engine = EngineArgs(**arguments(request["spec"]), **request["share"])
    executor = MultiprocExecutor(engine.create_engine_config(headless=True), monitor_workers=False)
    executor.start_worker_monitor(inline=True)


if __name__ == "__main__":
    main()
