"""Environment variables that reach an engine: recorded, never a secret; those that change numbers are declared or
refused (docs/decisions/0037)."""

from __future__ import annotations

import json

import pytest

import studies
from moebench.commands import doctor
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.engines import variables
from moebench.errors import ConfigError, UserError
from moebench.measure.driver import Driver

CELL = {"model": "tiny-mixtral", "input_tokens": 4, "output_tokens": 4}
BIG = {"model": "mixtral-8x7b", "input_tokens": 4, "output_tokens": 4}
CPU = {"name": "vllm", "version": "0.32.0", "environment": "vllm-cpu"}
GPU = CPU | {"environment": "vllm-cuda"}


@pytest.mark.parametrize(
    "name",
    ["VLLM_TUNED_CONFIG_FOLDER", "VLLM_USE_DEEP_GEMM", "VLLM_SKIP_P2P_CHECK", "VLLM_NCCL_SO_PATH",
     "VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD", "NCCL_ALGO", "NCCL_P2P_DISABLE", "NCCL_NVLS_ENABLE",
     "CUDA_LAUNCH_BLOCKING", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
     "TORCHINDUCTOR_MAX_AUTOTUNE", "TORCH_COMPILE_DISABLE",
     "TORCHDYNAMO_DISABLE", "PYTORCH_CUDA_ALLOC_CONF", "TRITON_PTXAS_PATH", "DG_JIT_USE_NVRTC",
     "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "FLASHINFER_DISABLE_VERSION_CHECK"],
)  # fmt: skip
def test_what_chooses_kernels_changes_numbers(name):
    assert variables.changes(name, nodes=1)


@pytest.mark.parametrize(
    ("name", "recorded"),
    [("OMP_NUM_THREADS", True), ("KMP_AFFINITY", True), ("LD_PRELOAD", True), ("MALLOC_ARENA_MAX", True),
     ("CUDA_MODULE_LOADING", True), ("UCX_TLS", True), ("VLLM_WORKER_MULTIPROC_METHOD", True),
     ("CUDA_HOME", False), ("CUDA_VISIBLE_DEVICES", False), ("NCCL_DEBUG", False), ("NCCL_VERSION", False),
     ("VLLM_CACHE_ROOT", False), ("TRITON_CACHE_DIR", False), ("TORCHINDUCTOR_CACHE_DIR", False), ("VLLM_PORT", False),
     ("VLLM_HOST_IP", False), ("VLLM_LOGGING_LEVEL", False), ("VLLM_API_KEY", False), ("NVIDIA_VISIBLE_DEVICES", False),
     ("PATH", False), ("HF_TOKEN", False), ("SLURM_JOB_ID", False), ("TORCH_NCCL_TRACE_BUFFER_SIZE", False)],
)  # fmt: skip
def test_the_rest_is_recorded_or_left_alone(name, recorded):
    assert (variables.is_read(name), variables.changes(name, nodes=2)) == (recorded, False)


@pytest.mark.parametrize("name", ["NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "NCCL_NET_GDR_LEVEL", "NCCL_CROSS_NIC"])
def test_what_leads_to_other_nodes_changes_numbers_across_nodes_only(name):
    assert variables.is_read(name) and [variables.changes(name, n) for n in (1, 2)] == [False, True]


def test_no_secret_is_written_down():
    shell = {
        "VLLM_API_KEY": "canary-one-1", "HF_TOKEN": "canary-two-2", "MY_PASSWORD": "canary-three-3",
        "NCCL_AUTH_TOKEN": "canary-four-4", "VLLM_PLUGINS": "a,canary-two-2",
        "VLLM_RUST_FRONTEND_PATH": "https://me:canary-five-5@host/x?sig=canary-six-6", "NCCL_ALGO": "Ring",
        "VLLM_NIC_SELECTION_VARS": "hf_canary78901",
    }  # fmt: skip
    found = variables.of(shell)
    assert "canary" not in json.dumps(found) and found["NCCL_ALGO"] == "Ring"
    assert found["VLLM_PLUGINS"] == "a,[hidden]" and "NCCL_AUTH_TOKEN" not in found
    assert found["VLLM_RUST_FRONTEND_PATH"] == "https://[hidden]@host/x?[hidden]"


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("401: Bearer canary-two-2 refused", "401: Bearer [hidden] refused"),
        ("GET https://me:canary@host/v1?x=1&api_key=canary&y=2", "GET https://[hidden]@host/v1?x=1&[hidden]&y=2"),
        ("Invalid key sk-canary0123456789", "Invalid key [hidden]"),
        ("did you mean top_k? key error: 'x'", "did you mean top_k? key error: 'x'"),
        ("tokens/s 12, KeyError: 'w1'", "tokens/s 12, KeyError: 'w1'"),
    ],
)
def test_no_secret_in_an_engines_words(words, kept):
    assert variables.hide(words, {"HF_TOKEN": "canary-two-2", "MAX_TOKENS": "tokens/s", "A_KEY": "short"}) == kept


def test_a_record_has_no_secret_that_an_engine_said(tmp_path, monkeypatch):
    """Records go into tables, report and archive."""
    monkeypatch.setenv("SERVICE_API_KEY", "canary-0123456789")
    plan = studies.planned("tiny")
    driver = Driver(plan, tmp_path / "results", tmp_path / "log", lambda text: said.append(text))
    said: list[str] = []
    words = {"reason": "refused: canary-0123456789", "evidence": ["header: canary-0123456789", "https://me:canary@x"]}
    key = next(iter(plan["cells"]))
    driver.keep(*key.split("/"), words | {"status": "crashed", "started_at": "2026"})
    written = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(written) == 2 and "canary" not in "".join([*written, *said])


def test_what_a_variable_points_at_is_told_by_its_content(tmp_path):
    def seen():
        return variables.of({"VLLM_TUNED_CONFIG_FOLDER": str(tmp_path)})["VLLM_TUNED_CONFIG_FOLDER"]

    assert seen() == str(tmp_path), "nothing is there"
    (tmp_path / "E=8,N=3584,device_name=x.json").write_text("{}")
    one = seen()
    assert one.startswith(f"{tmp_path} (sha256 ")
    (tmp_path / "E=8,N=3584,device_name=x.json").write_text('{"1": {}}')
    assert seen() != one


def test_nccls_own_files_count_where_the_shell_says_nothing(tmp_path):
    (tmp_path / ".nccl.conf").write_text("# of the site\nNCCL_ALGO=Ring\nNCCL_PROTO = LL\nVLLM_PLUGINS=x\n")
    shell = {"HOME": str(tmp_path), "NCCL_PROTO": "Simple"}
    assert variables.of(shell) == {"NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple"}
    (tmp_path / "other").write_text("NCCL_ALGO=Tree\n")
    assert variables.of({"NCCL_CONF_FILE": str(tmp_path / "other")}) == {"NCCL_ALGO": "Tree"}


# ----------------------------------------------------------------------------------------------- plan


def planned(where, engine, block=None, **study):
    return make_plan(
        Config(studies.folder(where, {"x": [{"fix": CELL, **(block or {})}]}, engine=engine, **study)), "test"
    )


def with_gpus(where, tp, **declared):
    config = studies.folder(where, {"x": [{"fix": BIG | {"tp": tp}}]}, hardware="h100-sxm5-80gb",
                            engine=GPU | {"variables": declared})  # fmt: skip
    (found,) = make_plan(Config(config), "test")["engines"].values()
    return found


def test_a_declared_variable_is_another_engine_configuration_and_none_leaves_ids_as_they_are(tmp_path):
    def engine_id(**declared):
        return list(planned(tmp_path, CPU | ({"variables": declared} if declared else {}))["engines"])

    plain = engine_id()
    ring, tree = engine_id(NCCL_ALGO="Ring"), engine_id(NCCL_ALGO="Tree")
    assert len({*plain, *ring, *tree}) == 3
    assert engine_id(OMP_PROC_BIND="close") == plain, "recorded, not identity"
    (made,) = planned(tmp_path, CPU)["engines"].values()
    assert "variables" not in made["runtime"]


def test_the_way_to_other_nodes_is_identity_only_of_what_runs_on_several(tmp_path):
    one, two = ({n: with_gpus(tmp_path, tp, **d)["id"] for n, d in (("none", {}), ("ib", {"NCCL_IB_HCA": "mlx5"}))}
                for tp in (8, 16))  # fmt: skip
    assert one["none"] == one["ib"] and two["none"] != two["ib"]


def test_engines_of_other_variables_share_no_process(tmp_path):
    engines = {"ring": CPU | {"variables": {"NCCL_ALGO": "Ring"}}}
    plan = planned(
        tmp_path, CPU, {"cross": {"engine_name": ["vllm", "ring"]}}, engines=engines, jobs={"pack_minutes": 60}
    )
    assert len(plan["engines"]) == len(plan["jobs"]) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("OMP_NUM_THREADS", "OMP_NUM_THREADS is set by the plan; use the knob cpu_threads"),
        ("VLLM_API_KEY", "VLLM_API_KEY does not affect an engine, or holds a path or a secret"),
        ("PATH", "PATH does not affect an engine"),
    ],
)
def test_only_what_an_engine_reads_can_be_declared(tmp_path, name, words):
    with pytest.raises(ConfigError, match=r"studies/test\.yaml: engine\.variables: ") as refused:
        planned(tmp_path, CPU | {"variables": {name: "1"}})
    assert words in str(refused.value)


def test_a_hosted_service_has_no_variables(tmp_path):
    endpoint = {"base_url_env": "URL", "models": {"tiny-mixtral": "m"}, "hardware": "H"}
    away = {"name": "endpoint", "version": "1", "environment": "vllm-cpu", "endpoint": endpoint}
    with pytest.raises(ConfigError, match=r"variables: .* engine"):
        planned(tmp_path, CPU, engines={"away": away | {"variables": {"NCCL_ALGO": "Ring"}}})


# ----------------------------------------------------------------------------------------------- job


def driver_of(plan, tmp_path, monkeypatch):
    driver = Driver(plan, tmp_path / "results", tmp_path / "log", lambda text: None)
    monkeypatch.setattr(driver, "check_staged", lambda engines: None)
    return driver


def test_a_shell_that_changes_numbers_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    plan = planned(tmp_path, CPU)
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    driver = driver_of(plan, tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"^CUDA_LAUNCH_BLOCKING=1: set in this job's shell.*unset it, or declare"):
        driver.run_job(next(iter(plan["jobs"])))
    with pytest.raises(UserError, match="CUDA_LAUNCH_BLOCKING=1"):
        driver.run_cell(*next(iter(plan["cells"])).split("/"))
    assert not (tmp_path / "results").exists()


def test_a_declared_variable_reaches_the_engine_and_the_record(tmp_path, monkeypatch):
    plan = planned(tmp_path, CPU | {"variables": {"NCCL_ALGO": "Ring"}})
    monkeypatch.setenv("NCCL_ALGO", "Tree")
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    monkeypatch.setenv("VLLM_API_KEY", "canary")
    driver = driver_of(plan, tmp_path, monkeypatch)
    (engine_id,) = plan["engines"]
    driver.check_shell([engine_id])
    spec = plan["engines"][engine_id]
    assert driver.environment(spec)["NCCL_ALGO"] == "Ring", "the study's word, whatever the shell says"
    found = driver.origin(spec)["variables"]
    assert {k: found[k] for k in ("NCCL_ALGO", "OMP_PROC_BIND")} == {"NCCL_ALGO": "Ring", "OMP_PROC_BIND": "close"}
    assert not {"VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL", "VLLM_API_KEY"} & set(found)


def test_doctor_says_it_before_a_job_is_sent(tmp_path, monkeypatch):
    plan = planned(tmp_path, CPU)
    assert doctor.shell(plan) == []
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    (found,) = doctor.shell(plan)
    assert found.good is False and found.seen.startswith("NCCL_ALGO=Ring")
    assert doctor.shell(planned(tmp_path, CPU | {"variables": {"NCCL_ALGO": "Ring"}})) == []
