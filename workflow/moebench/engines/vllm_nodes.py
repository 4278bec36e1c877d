"""An engine configuration that spans nodes of a SLURM job: vLLM's executor on the others.

vLLM's ``mp`` backend takes ``nnodes``, ``node_rank`` and ``master_addr``.  The first node holds the ``LLM``; on every
other one an executor without an API runs, which this module starts through ``srun`` and ends with the engine.  As a
program it is that executor: it reads what to run from standard input, and ends when that is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

from moebench.formats import Knobs
from moebench.formats.plan import EngineConfig

SRUN_SAYS_WITHIN_S = 15
"""The connections of a lost executor break at once; srun, which knows that it ended, says so a little later."""


def share(spec: EngineConfig, rank: int, address: str, port: int) -> Knobs:
    """What a node's engine arguments have beside those of one node."""
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
    """Names of the other nodes of this job, and how many CPUs it has on each.

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

    Without a number of CPUs a step may get a single one, whatever its job has; and all workers of a node are in one
    task, so that nothing may be bound.
    """
    return ["--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}", f"--gpus={gpus}", f"--cpus-per-task={cpus}",
            "--cpu-bind=none"]  # fmt: skip


def reachable(address: str) -> str:
    """An address of this node that the others reach: ``address``, or, where vLLM found none, that of the node's name.

    Raises RuntimeError if there is none: 0.0.0.0 is nobody's address, and the other ranks would call themselves.
    """
    if address != "0.0.0.0":
        return address
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    with contextlib.suppress(OSError):
        found = socket.gethostbyname(name)
        if not found.startswith(("127.", "0.")):
            return found
    raise RuntimeError(f"no address of this node that others reach ({name}); set VLLM_HOST_IP on the nodes")


class OtherNodes:
    """The executors of the other nodes, from ``start`` to ``close``."""

    def __init__(self, spec: EngineConfig):
        self.spec = spec
        self.closing = False
        self._executors: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> Knobs:
        """Start them; return what the first node's engine arguments have in addition.

        Raises RuntimeError if the job has too few nodes.  Should one of them end early, this process ends too: what is
        left of the engine would wait for it for ever.
        """
        from vllm.utils.network_utils import get_ip, get_open_port

        names, cpus = others(self.spec["nodes"])
        address, port = reachable(get_ip()), get_open_port()
        for rank, name in enumerate(names, 1):
            where = place(name, self.spec["gpus"] // self.spec["nodes"], cpus)
            executor = subprocess.Popen(
                ["srun", *where, sys.executable, "-m", "moebench.engines.vllm_nodes"], stdin=subprocess.PIPE, text=True
            )
            assert executor.stdin is not None
            executor.stdin.write(json.dumps({"spec": self.spec, "share": share(self.spec, rank, address, port)}) + "\n")
            executor.stdin.flush()
            self._executors[name] = executor
            threading.Thread(target=self._watch, args=(name, executor), daemon=True).start()
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
    """Be the executor of one of the other nodes."""
    request = json.loads(sys.stdin.readline())

    def end_with_input() -> None:  # it closes with the engine, however that ends
        sys.stdin.read()
        os.killpg(0, signal.SIGKILL)

    os.setpgid(0, 0)
    threading.Thread(target=end_with_input, daemon=True).start()
    print(
        f"executor of node rank {request['share']['node_rank']} on {socket.gethostname()}", file=sys.stderr, flush=True
    )
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    from moebench.engines.vllm_arguments import arguments, switch

    switch(request["spec"])
    engine = EngineArgs(**arguments(request["spec"]), **request["share"])
    executor = MultiprocExecutor(engine.create_engine_config(headless=True), monitor_workers=False)
    executor.start_worker_monitor(inline=True)


if __name__ == "__main__":
    main()
