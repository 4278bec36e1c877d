"""What engines say when they fail, and the status it means.  CPU texts were seen, CUDA texts are from vLLM's source."""

import signal

import pytest

from moebench.engines import failures
from moebench.measure import records

IN_PROCESS = [
    # text of the exception, phase, status
    ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "load", "oom_kv"),
    ("ValueError: To serve at least one request with the model's max seq len (4096), (0.0 GiB KV cache is needed, which "
     "is larger than the available KV cache memory (0.0 GiB). Based on the available memory, ...", "load", "oom_kv"),
    ("ValueError: Available memory on node 0 (7.87/9.09 GiB) on kv cache allocation is less than requested memory for kv"
     " (9313.23 GiB). Decrease --kv-cache-memory-bytes, ...", "load", "oom_kv"),
    ("ValueError: Available memory on node 0 (3.1/9.1 GiB) on startup is less than desired CPU memory utilization (0.92,"
     " 8.4 GiB).", "load", "oom_weights"),
    ("ValueError: Free memory on device cuda:0 (20.1/79.1 GiB) on startup is less than desired GPU memory utilization"
     " (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce ...", "load", "node_fault"),
    ("RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
     " to allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)", "load", "oom_weights"),
    ("RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory", "run",
     "oom_activation"),
    ("OutOfMemoryError: CUDA out of memory. Tried to allocate 3.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which"
     " 1.2 GiB is free.", "load", "oom_weights"),
    ("OutOfMemoryError: CUDA out of memory. Tried to allocate 3.50 GiB.", "run", "oom_activation"),
    ("RuntimeError: CUDA error: out of memory", "run", "oom_activation"),
    ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "run",
     "oom_activation"),
    ("RuntimeError: CUDA out of memory occurred when warming up sampler with 128 dummy requests. Please try lowering"
     " `max_num_seqs` or `gpu_memory_utilization`", "load", "oom_activation"),
    ("RuntimeError: ScratchPadManager: aligned_alloc failed for size 101330944", "run", "oom_activation"),
    ("MemoryError: ", "run", "oom_activation"),
    ("MemoryError", "load", "oom_weights"),
    ("OSError: [Errno 12] Cannot allocate memory", "load", "oom_weights"),
    ("NotImplementedError: No Unquantized MoE backend supports the deployment configuration.", "load", "unsupported"),
    ("NotImplementedError: No Int8 MoE backend supports the deployment configuration.", "load", "unsupported"),
    ("RuntimeError: CPU fp8 linear requires AMX tile support", "load", "unsupported"),
    ("ValueError: LLM(data_parallel_size=2) is not supported for single-process usage and may hang.", "load",
     "unsupported"),
    ("ValidationError: 1 validation error for VllmConfig\n  Value error, Cannot find the config file for awq"
     " [type=value_error, input_value=ArgsKwargs(())]\n    For further information visit https://errors.pydantic.dev",
     "load", "unsupported"),
    ("RuntimeError: _C::static_scaled_fp8_quant() expected at most 0 argument(s) but received 4 argument(s). Declaration:"
     " _C::static_scaled_fp8_quant() -> ()", "load", "unsupported"),
    ("AttributeError: '_OpNamespace' '_moe_C' object has no attribute 'topk_softmax'", "run", "unsupported"),
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "load", "unsupported"),
    ("ValidationError: 1 validation error for VllmConfig\n  Value error, Total number of attention heads (32) must be"
     " divisible by tensor parallel size (3).", "load", "unsupported"),
    ("VLLMValidationError: This model's maximum context length is 256 tokens. However, you requested 300", "run",
     "unsupported"),
    ("ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified max_model_len (8192) is greater"
     " than the derived max_model_len (max_position_embeddings=4096)", "load", "unsupported"),
    ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "run", "node_fault"),
    ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set triton.knobs.build",
     "load", "node_fault"),
    ("CalledProcessError: Command '['/usr/bin/gcc', '/tmp/x/main.c', '-O3', '-lcuda']' returned non-zero exit status 1.",
     "load", "node_fault"),
    ("OSError: [Errno 30] Read-only file system: '/home/me/.triton/cache'", "load", "node_fault"),
    ("PermissionError: [Errno 13] Permission denied: '/home/me/.cache/vllm'", "load", "node_fault"),
    ("OSError: [Errno 116] Stale file handle", "run", "node_fault"),
    ("OSError: [Errno 5] Input/output error: 'models/x/model-00001.safetensors'", "load", "node_fault"),
    ("OSError: [Errno 24] Too many open files", "run", "node_fault"),
    ("RuntimeError: can't start new thread", "load", "node_fault"),
    ("OSError: AF_UNIX path too long", "load", "node_fault"),
    ("zmq.error.ZMQError: ipc path \"/scratch/x\" is longer than 107 characters (sizeof(sockaddr_un.sun_path)).", "load",
     "node_fault"),
    ("ImportError: /lib64/libm.so.6: version `GLIBC_2.29' not found (required by /x/_C.abi3.so)", "load", "node_fault"),
    ("ImportError: libcudart.so.13: cannot open shared object file: No such file or directory", "load", "node_fault"),
    ("RuntimeError: node n2 does not reach this one at 10.0.0.1:4000", "load", "node_fault"),
    ("zmq.error.Again: Resource temporarily unavailable", "run", "crashed"),
    ("OSError: [Errno 28] No space left on device", "load", "node_fault"),
    ("OSError: Not enough disk space. Needed: 1.1 GiB (download: 0, generated: 1.1 GiB, post-processed: 0)", "run",
     "node_fault"),
    ("OSError: [Errno 122] Disk quota exceeded: '/home/me/.cache/vllm/x'", "run", "node_fault"),
    ("SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)", "run", "node_fault"),
    ("RuntimeError: unable to write to file </torch_81_3>: No space left on device (28)", "run", "node_fault"),
    ("RuntimeError: CUDA error: unspecified launch failure", "run", "node_fault"),
    ("RuntimeError: No CUDA GPUs are available", "load", "node_fault"),
    ("RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`", "load",
     "node_fault"),
    ("RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable: device(s) is/are busy", "load",
     "node_fault"),
    # torch/csrc/cuda, c10/cuda/CUDAFunctions.cpp; the driver's own words
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver by"
     " downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx", "load",
     "node_fault"),
    ("AcceleratorError: CUDA error: CUDA driver version is insufficient for CUDA runtime version", "load", "node_fault"),
    ("RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling"
     " NumCudaDevices() that might have already set an error? Error 803: system has unsupported display driver / cuda"
     " driver combination", "load", "node_fault"),
    ("AcceleratorError: CUDA error: the provided PTX was compiled with an unsupported toolchain.", "load", "node_fault"),
    ("RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling"
     " NumCudaDevices() that might have already set an error? Error 802: system not yet initialized", "load",
     "node_fault"),  # the fabric manager of NVLink switches does not run
    ("RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"
     " from http://www.nvidia.com/Download/index.aspx", "load", "node_fault"),
    ("ImportError: libcuda.so.1: cannot open shared object file: No such file or directory", "load", "node_fault"),
    # vllm/config/parallel.py, vllm/v1/worker/gpu_worker.py
    ("AssertionError: Error in memory profiling. Initial free memory 70.1 GiB, current free memory 71.2 GiB. This happens"
     " when other processes sharing the same container release GPU memory while vLLM is profiling during"
     " initialization.", "load", "node_fault"),
    ("ValidationError: 1 validation error for ParallelConfig\n  Value error, World size (4) is larger than the number of"
     " available GPUs (2) in this node. If this is intentional and you are using:\n- ray, set"
     " '--distributed-executor-backend ray'.\n- multiprocessing, set '--nnodes' appropriately.", "load", "node_fault"),
    ("AssertionError: DP adjusted local rank 2 is out of bounds for 2 devices.", "load", "node_fault"),
    ("AcceleratorError: CUDA error: invalid device ordinal", "load", "node_fault"),
    # vllm/distributed/device_communicators/pynccl_wrapper.py; torch/csrc/distributed/c10d/NCCLUtils.hpp
    ("RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)", "load", "node_fault"),
    ("RuntimeError: NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)", "load", "node_fault"),
    ("RuntimeError: NCCL error: remote process exited or there was a network error", "run", "node_fault"),
    ("torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:3690,"
     " unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.29.7\nncclSystemError: System call"
     " (e.g. socket, malloc) or external library call failed or device error.", "load", "node_fault"),
    ("torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled cuda"
     " error, NCCL version 2.29.7\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2"
     " 'out of memory'", "load", "oom_weights"),
    ("torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:94, invalid usage,"
     " NCCL version 2.29.7\nncclInvalidUsage: This usually reflects invalid usage of NCCL library.", "load", "crashed"),
    ("RuntimeError: NCCL error: invalid usage (run with NCCL_WARN=1 for details)", "load", "crashed"),  # ours, not theirs
    ("RuntimeError: no address of this node that others reach (n1); set VLLM_HOST_IP on the nodes", "load", "node_fault"),
    # vllm/distributed/device_communicators/all2all.py, vllm/utils/deep_gemm.py, triton/runtime/errors.py
    ("AssertionError: DeepEP kernels not found. Please follow https://github.com/vllm-project/vllm/blob/main/tools/"
     "ep_kernels/README.md to install DeepEP kernels.", "load", "unsupported"),
    ("AssertionError: flashinfer all2all module not found. Please install/check flashinfer", "load", "unsupported"),
    ("RuntimeError: DeepGEMM is not available", "run", "unsupported"),
    ("triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 262144, Hardware limit: 232448."
     " Reducing block sizes or `num_stages` may help.", "run", "unsupported"),
    ("ValueError: Expert parallelism load balancing is only supported on CUDA devices or ROCm devices or XPU devices now.",
     "load", "unsupported"),
    ("ValueError: Following weights were not initialized from checkpoint: {'model.layers.2.enorm.weight',"
     " 'model.layers.2.eh_proj.weight'}", "load", "unsupported"),
    ("Refused: MolmoE-1B is not supported by vLLM: its MolmoForCausalLM reads no experts", "load", "unsupported"),
    ("AcceleratorError: CUDA error: device-side assert triggered", "run", "crashed"),  # a wrong index, not the device
    ("RuntimeError: CUDA error: an illegal memory access was encountered", "run", "crashed"),
    ("RuntimeError: a request gave 7 tokens instead of 8", "run", "crashed"),
    ("KeyError: 'model.layers.0'", "load", "crashed"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "phase", "status"), IN_PROCESS, ids=[t[0][:60] for t in IN_PROCESS])
def test_an_exception_means_a_status_and_the_engines_words_are_kept(text, phase, status):
    found, reason, evidence = failures.classify(text, phase)
    assert found == status and found in records.FINAL + records.INFRASTRUCTURE
    assert reason and "\n" not in reason and evidence and all(line in text for line in evidence)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("NotImplementedError: No WNA16 MoE backend supports the deployment configuration.", True),
        ("NotImplementedError: No W4A8 Int8 MoE backend supports the deployment configuration.", True),
        ("NotImplementedError: FP8 KV cache on CPU requires x86 with AVX-512 or AMX.", True),
        ("RuntimeError: _C::static_scaled_fp8_quant() expected at most 0 argument(s) but received 4 argument(s)."
         " Declaration: _C::static_scaled_fp8_quant() -> ()", True),
        ("AttributeError: '_OpNamespace' '_moe_C' object has no attribute 'topk_softmax'", True),
        ("AssertionError: Only top-2 routing is supported", False),
        ("VLLMValidationError: This model's maximum context length is 256 tokens. However, you requested 300", False),
        ("NotImplementedError: images in transformers are not supported by this driver yet", False),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", False),
        ("KeyError: 'model.layers.0'", False),
    ],
)  # fmt: skip
def test_a_missing_kernel_is_of_the_configuration_and_other_failures_are_of_the_workload(text, whole):
    status, reason, _ = failures.classify(text, "run")
    assert failures.of_configuration({"status": status, "reason": reason}) is whole


def test_an_unknown_failure_is_called_by_its_exception():
    text = "KeyError: 'model.layers.0'"
    assert failures.classify(text, "run") == ("crashed", f"the engine failed: {text}", [text])
    pydantic = "ValidationError: 1 validation error for VllmConfig\n  Value error, Nobody knows [type=value_error]\nFor"
    assert failures.classify(pydantic, "load")[1] == (
        "the engine failed: ValidationError: 1 validation error for VllmConfig: Value error, Nobody knows"
        " [type=value_error]"
    )
    assert failures.classify("", "load") == ("crashed", "the engine failed: no message", [])


OOM = "OutOfMemoryError: CUDA out of memory. Tried to allocate 3.50 GiB."


@pytest.mark.parametrize(
    ("functions", "phase", "status"),
    [
        (["load_model", "create_weights"], "load", "oom_weights"),
        (
            ["_initialize_kv_caches", "determine_available_memory", "profile_run", "_dummy_run"],
            "load",
            "oom_activation",
        ),
        (["_initialize_kv_caches", "compile_or_warm_up_model", "capture_model"], "load", "oom_activation"),
        (["_initialize_kv_caches", "initialize_kv_cache", "initialize_kv_cache_tensors"], "load", "oom_kv"),
        (["_initialize_kv_caches", "initialize_kv_cache"], "run", "oom_activation"),
    ],
)
def test_running_out_of_memory_while_loading_is_told_apart_by_the_traceback(functions, phase, status):
    trace = "\n".join(f'  File "vllm/x.py", line {i}, in {name}\n    y()' for i, name in enumerate(functions))
    assert failures.classify(OOM, phase, trace)[0] == status


# --------------------------------------------------------------------------- engines in separate processes

KV_OF_TP2 = """\
(EngineCore pid=6545) INFO 11-22 09:26:12 [kv_cache_utils.py:900] fp8 KV cache is not supported by this path, so not used
(EngineCore pid=6545) ERROR 11-22 09:26:12 [core.py:1510] EngineCore failed to start.
(EngineCore pid=6545) ERROR 11-22 09:26:12 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=6545) ERROR 11-22 09:26:12 [core.py:1510]     raise ValueError(
(EngineCore pid=6545) ERROR 11-22 09:26:12 [core.py:1510] ValueError: To serve at least one request with the model's \
max seq len (4096), (0.0 GiB KV cache is needed, which is larger than the available KV cache memory (0.0 GiB).
(EngineCore pid=6545) ERROR 11-22 09:26:13 [multiproc_executor.py:315] Worker proc VllmWorker-1 died unexpectedly \
(exit code: 0), shutting down executor.
Traceback (most recent call last):
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
WEIGHTS_OF_TP2 = """\
(Worker_TP1 pid=10913) ERROR 11-22 09:31:20 [multiproc_executor.py:953] RuntimeError: [enforce fail at \
alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 549755813888 bytes.
(EngineCore pid=10803) ERROR 11-22 09:31:23 [core.py:1510] Exception: WorkerProc initialization failed due to an \
exception in a background process. See stack trace for root cause.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
SEGFAULT_OF_EP = """\
(EngineCore pid=7241) ERROR 11-22 09:27:17 [multiproc_executor.py:315] Worker proc VllmWorker-0 died unexpectedly \
(exit code: -11), shutting down executor.
(EngineCore pid=7241) ERROR 11-22 09:27:17 [core.py:1512] RuntimeError: cancelled
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
"""
UNSEEN_DEATH = SEGFAULT_OF_EP.replace("-11", "None")  # vLLM asked before the kernel had told
ASSERTION_OF_PP = """\
(Worker_PP1 pid=10064) ERROR 11-22 09:30:34 [multiproc_executor.py:1063]     assert self.intermediate_tensors is not None
(Worker_PP1 pid=10064) ERROR 11-22 09:30:34 [multiproc_executor.py:1063]            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
(Worker_PP1 pid=10064) ERROR 11-22 09:30:34 [multiproc_executor.py:1063] AssertionError
(EngineCore pid=9930) ERROR 11-22 09:30:34 [core.py:1512] KeyError: 'r0-b4f84fac'
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
"""


@pytest.mark.parametrize(
    ("log", "status", "words"),
    [
        (KV_OF_TP2, "oom_kv", "cannot hold one sequence"),
        (WEIGHTS_OF_TP2, "oom_weights", "the weights do not fit"),
        (SEGFAULT_OF_EP, "crashed", "VllmWorker-0: the engine process was ended by SIGSEGV"),
        (UNSEEN_DEATH, "crashed", "VllmWorker-0: the engine process ended unexpectedly, its exit code was not seen"),
        (ASSERTION_OF_PP, "crashed", "AssertionError at: assert self.intermediate_tensors is not None"),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n", "oom_weights", "do not fit"),
        ("all is well\n", "crashed", "no message"),
    ],
)
def test_the_cause_is_found_in_the_log(log, status, words):
    found, reason, evidence = failures.classify_log(log, "load")
    assert found == status and words in reason
    assert not [line for line in evidence if "root cause" in line or "EngineDeadError" in line]


def test_warnings_in_a_log_decide_nothing():
    log = (
        "WARNING [x.py:1] flashinfer is not supported on this device\nINFO does not support\nINFO out of memory soon\n"
    )
    assert failures.classify_log(log, "load")[0] == "crashed"


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}", True),
        ("EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.", True),
        ("ValueError: No available memory for the cache blocks.", False),
    ],
)
def test_exceptions_that_only_point_to_the_log(text, elsewhere):
    assert failures.points_elsewhere(text) == elsewhere


# ---------------------------------------------------------------------------------------------- dead processes


def test_a_death_keeps_signal_and_last_lines():
    status, reason, evidence = failures.classify_death(-signal.SIGKILL, "one\n\ntwo\n", "run")
    assert (status, evidence) == ("crashed", ["one", "two"])
    assert reason.startswith("the engine process was ended by SIGKILL (out of host memory")
    assert failures.classify_death(-signal.SIGSEGV, "", "run")[1] == "the engine process was ended by SIGSEGV"
    assert failures.classify_death(3, "", "run")[1] == "the engine process ended with exit code 3"
    assert failures.classify_death(-99, "", "run")[1] == "the engine process was ended by signal 99"


@pytest.mark.parametrize(
    ("log", "phase", "status"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.\n", "load", "oom_weights"),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n", "run",
         "oom_activation"),
        ("terminate called after throwing an instance of 'c10::AcceleratorError'\n  what():  CUDA error: uncorrectable"
         " ECC error encountered\n", "run", "node_fault"),
        ("NotImplementedError: something harmless that was caught\n", "run", "crashed"),
    ],
)  # fmt: skip
def test_a_death_for_lack_of_memory_is_a_result(log, phase, status):
    found, reason, evidence = failures.classify_death(-signal.SIGABRT, log, phase)
    assert found == status and "SIGABRT" in reason and evidence


@pytest.mark.parametrize(
    ("text", "host"),
    [("RuntimeError: Failed to find C compiler.", True), ("uncorrectable ECC error encountered", True),
     ("CUDA error: unspecified launch failure", False), ("NCCL error: unhandled cuda error", False),
     ("the executor on node n2 ended with exit code 1", False), ("No space left on device", False),
     ("RuntimeError: something else", False)],
)  # fmt: skip
def test_faults_of_the_host_are_told_from_those_that_an_engine_may_cause(text, host):
    status, reason, _ = failures.classify(text, "load")
    assert failures.of_host({"status": status, "reason": f"{reason}; the engine process ended"}) == host


# --------------------------------------------------------------------------- models that an engine cannot have

NO_ARCHITECTURE = "the engine does not support this architecture"
OWN_CODE = "trust_remote_code: true in its file in config/models allows it"
NO_TOKENIZER = "the model has no tokenizer that can be loaded"
CANNOT = [
    # vLLM 0.32 and transformers 5.19, seen on a CPU unless said otherwise
    ("ValidationError: 1 validation error for ModelConfig\n  Value error, The checkpoint you are trying to load has model"
     " type `foomoe` but Transformers does not recognize this architecture. This could be because of an issue with the"
     " checkpoint, or because your version of Transformers is out of date.", NO_ARCHITECTURE),
    ("ValidationError: 1 validation error for ModelConfig\n  Value error, Model architectures ['FooForCausalLM'] are not"
     " supported for now. Supported architectures: dict_keys([", NO_ARCHITECTURE),
    ("ValueError: Unrecognized model in /models/x. Should have a `model_type` key in its config.json.", NO_ARCHITECTURE),
    ("ValueError: Unrecognized configuration class <class 'FooConfig'> for this kind of AutoModel:"
     " AutoModelForCausalLM.", NO_ARCHITECTURE),  # from its source
    ("ValueError: FooForCausalLM has no vLLM implementation and the Transformers implementation is not compatible with"
     " vLLM.", NO_ARCHITECTURE),  # from its source
    ("ValueError: The repository /models/x contains custom code which must be executed to correctly load the model. You"
     " can inspect the repository content at /models/x .\n You can inspect the repository content at https://hf.co/x.\n"
     "Please pass the argument `trust_remote_code=True` to allow custom code to be run.", OWN_CODE),
    ("RuntimeError: Failed to load the model config. If the model is a custom model not yet available in the HuggingFace"
     " transformers library, consider setting `trust_remote_code=True` in LLM or using the `--trust-remote-code` flag in"
     " the CLI.", OWN_CODE),  # from its source
    ("ImportError: This modeling file requires the following packages that were not found in your environment:"
     " not_there_pkg. Run `pip install not_there_pkg`", "the model's own code needs packages"),
    ("RuntimeError: /models/x: no token ids: ValueError: Couldn't instantiate the backend tokenizer from one of: (1) a"
     " `tokenizers` library serialization file, (2) a slow tokenizer instance", NO_TOKENIZER),
    ("RuntimeError: /models/x: no token ids: OSError: Can't load tokenizer for '/models/x'. If you were trying to load"
     " it from 'https://huggingface.co/models'", NO_TOKENIZER),  # from its source
    ("RuntimeError: /models/x: no token ids: ValueError: Tokenizer class FooTokenizer does not exist or is not currently"
     " imported.", NO_TOKENIZER),  # from its source
    ("RuntimeError: /models/x: no token ids: ValueError: The repository /models/x contains custom code which must be"
     " executed to correctly load the model.", OWN_CODE),
]  # fmt: skip


@pytest.mark.parametrize(("said", "why"), CANNOT)
def test_a_model_that_an_engine_cannot_have_is_unsupported_at_once(said, why):
    status, reason, _ = failures.classify(said, "load")
    assert (status, why in reason) == ("unsupported", True), (status, reason)
    assert status in records.FINAL, "not tried three times"
    served = "\n".join(
        f"(APIServer pid=12) {line}" for line in ["Traceback (most recent call last):", *said.split("\n")]
    )
    assert failures.classify_log(served, "load")[:2] == (status, reason), "nor behind vLLM's server"


def test_a_tokenizer_that_was_killed_is_not_a_missing_one():
    assert failures.classify("RuntimeError: /models/x: no token ids: killed", "load")[0] == "crashed"
