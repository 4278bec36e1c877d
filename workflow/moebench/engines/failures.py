"""Classifies failures: from an engine's message to the status of a cell (DESIGN section 7; patterns come from real
runs)."""

from __future__ import annotations

import re
import signal

from moebench.errors import FULL_DISK
from moebench.formats.messages import Outcome
from moebench.formats.record import RecordHead
from moebench.storage.disk import DISK


class Failure(Exception):
    """A failure whose status is known when it is raised, without parsing an engine's messages.

    ``str()`` is the reason; ``evidence`` contains lines from a service or a log.
    """

    def __init__(self, status: str, reason: str, evidence: list[str] | None = None):
        super().__init__(reason)
        self.status, self.evidence = status, evidence or []


class Refused(NotImplementedError):
    """An engine configuration was refused before anything was started, so the process can load another."""


NO_KERNEL = "this build of the engine has no kernel for it on this machine"
"""The reason where no workload of the engine configuration can run."""

ANOTHER_NODE = "another node failed"
KERNEL = "a kernel failed on the device"
"""Reasons of a node fault that an engine's own mistake has too, so that its cells are tried out."""

RULES: tuple[tuple[str, str, str], ...] = (
    # status, pattern of the engine's message, our reason
    ("node_fault", FULL_DISK, DISK),
    ("oom_kv", r"No available memory for the cache blocks", "no memory is left for the KV cache"),
    ("oom_kv", r"larger than the available KV cache memory", "the KV cache cannot hold one sequence of max_model_len"),
    ("oom_kv", r"on kv cache allocation is less than requested memory for kv",
     "the requested KV cache is larger than the memory"),
    ("oom_weights", r"is less than desired CPU memory utilization", "too little memory is free at start-up"),
    ("oom_activation", r"CUDA out of memory occurred when warming up sampler", "no memory for the sampler's warm-up"),
    ("node_fault", r"is less than desired GPU memory utilization|is less than the engine's budget"
                   r"|release GPU memory while vLLM is profiling",
     "another process holds the device's memory"),
    ("node_fault", r"uncorrectable (ECC|NVLink)|ECC_UNCORRECTABLE|GPU has fallen off the bus|GPU is lost"
                   r"|NVML.*Unknown Error|no CUDA-capable device|is/are busy|CUDA error: unknown error"
                   r"|No CUDA GPUs are available|Failed to infer device type"
                   r"|CUDA driver initialization failed|Driver/library version mismatch"
                   r"|system not yet initialized", "the device failed"),
    ("node_fault", r"\bXid\b|CUDA error: unspecified launch failure", KERNEL),
    ("node_fault", r"NVIDIA driver on your system is too old|CUDA driver version is insufficient"
                   r"|unsupported display driver|PTX was compiled with an unsupported toolchain"
                   r"|forward compatibility was attempted on non supported HW",
     "the node's driver is too old for the environment's CUDA"),
    ("node_fault", r"libcuda\.so(\.\d+)?: cannot open shared object|Found no NVIDIA driver", "the node has no driver"),
    ("node_fault", r"larger than the number of available GPUs|is out of bounds for \d+ devices|invalid device ordinal",
     "the job has fewer devices than the engine configuration needs"),
    ("node_fault", r"Failed to find C compiler|Command '\[?'?\S*\b(gcc|cc|clang)\b.*returned non-zero exit status"
                   r"|fatal error: Python\.h|ld: cannot find -l",
     "the node has no working compiler, which Triton needs"),
    ("node_fault", r"Read-only file system|\[Errno 30\]|\(os error 30\)",
     "a folder that the engine writes to is read-only"),
    ("node_fault", r"PermissionError: \[Errno 13\]|EACCES|\(os error 13\)", "the engine may not read or write a file"),
    ("node_fault", r"Stale (NFS )?file handle|Input/output error|\[Errno (5|116)\]|\(os error (5|116)\)"
                   r"|Transport endpoint is not connected", "a file system failed"),
    ("node_fault", r"Too many open files|\[Errno 24\]|\(os error 24\)",
     "the limit on open files is too low (ulimit -n)"),
    ("node_fault", r"can't start new thread|pthread_create failed|BlockingIOError: \[Errno 11\]",
     "the limit on processes is too low (ulimit -u)"),
    ("node_fault", r"AF_UNIX path too long|is longer than 107 characters|ipc path.* too long",
     "the path of the folder for temporary files is too long"),
    ("node_fault", r"version `GLIBC\w*_[\d.]+' not found|lib\S+\.so[.\d]*: cannot open shared object file",
     "the node lacks a library that the environment needs"),
    ("node_fault", r"no address of this node that others reach|does not reach this one at", "the node has no address"),
    ("node_fault", r"needs \d+ nodes, this job has", "too few nodes"),
    ("node_fault", r"the executor on node \S+ ended", ANOTHER_NODE),
    ("unsupported", r"No [\w ]+ MoE backend supports|requires AMX tile support|requires x86 with AVX"
                    r"|Declaration: _\w+::\w+\(\) -> \(\)|_OpNamespace|no kernel image is available", NO_KERNEL),
    ("unsupported", r"(kernels|module) not found\. Please (follow|install)"
                    r"|\b(DeepEP|DeepGEMM|FlashInfer|FlashMLA)\b.*(is|are) not available",
     "the environment lacks the kernels for this"),
    ("unsupported", r"does not recognize this architecture|Unrecognized model in |Unrecognized configuration class"
                    r"|Model architectures .* are not supported for now|Cannot find model module"
                    r"|has no vLLM implementation",
     "the engine does not support this architecture"),
    ("unsupported", r"trust_remote_code=True|custom code (which must be executed|contained in)",
     "the model needs code of its own; trust_remote_code: true in its file in config/models allows it"),
    ("unsupported", r"packages that were not found in your environment",
     "the model's own code needs packages that the environment does not have"),
    ("unsupported", r"no token ids: .*(Can't load tokenizer|Couldn't instantiate the backend tokenizer"
                    r"|Tokenizer class \S+ does not exist|Unrecognized (model|processing class)"
                    r"|not a string|NoneType)", "the model has no tokenizer that can be loaded"),
    ("unsupported", r"not supported (on|for|by|with|yet)|is not supported|does not support|NotImplementedError"
                    r"|\bRefused:|are not supported for now|is only supported on|Cannot find the config file for",
     "the engine does not support this"),
    ("unsupported", r"weights were not initialized from checkpoint: .*\.(eh_proj|enorm|mtp_block)\b",
     "the checkpoint has no layers for MTP"),
    ("unsupported", r"must be divisible by|is not divisible by|not a multiple of|Only top-\d+ routing is supported"
                    r"|OutOfResources: out of resource",
     "the engine does not support this shape"),
    ("unsupported", r"maximum context length is|is greater than the derived max_model_len",
     "the engine refuses this length"),
)  # fmt: skip

HOST_FAULTS = tuple(
    reason for status, _, reason in RULES if status == "node_fault" and reason not in (DISK, KERNEL, ANOTHER_NODE)
)
"""Reasons that tell of a node or of what is installed there, and nothing of a cell: somebody fixes that."""

_NCCL = re.compile(
    r"NCCL error(?: in: [^,]+,|:) (unhandled|internal|remote|network)|nccl(System|Remote|Internal)Error:"
)
"""Devices that do not reach each other.  Looked for last: NCCL also fails for lack of memory, and says that too."""
_OOM = re.compile(
    r"OutOfMemoryError|[Oo]ut of memory|can't allocate memory|Cannot allocate memory|MemoryError|bad_alloc"
    r"|_ALLOC_FAILED|aligned_alloc failed"
)
_OOM_STATUS = {
    "load": ("oom_weights", "the weights do not fit"),
    "kv": ("oom_kv", "no memory for the KV cache"),
    "run": ("oom_activation", "no memory for the activations of this workload"),
}
# Functions of vLLM that run while it loads: if memory runs out in them, the weights are not the cause.
_ACTIVATIONS = re.compile(
    r"\bin (determine_available_memory|profile_run|_dummy_run|_dummy_sampler_run|capture_model"
    r"|compile_or_warm_up_model)\b"
)
_KV_CACHE = re.compile(r"\bin (initialize_kv_cache|initialize_kv_cache_tensors|_allocate_kv_cache\w*)\b")

_DECORATION = re.compile(r"^\s*(?:\(.*?\)\s*)?(?:ERROR \S+ \S+ \[\S+\]\s*)?")
_EXCEPTION = re.compile(r"(?:[\w.]*Error|[\w.]*Exception)\b.*$")
_FOLLOWS = re.compile(r"See root cause|See stack trace|EngineDeadError|background process|RuntimeError: cancelled$")
_NATIVE = re.compile(r"terminate called|^\s*what\(\):|CUDA error|Cuda failure|\bXid\b|Fatal Python error")
_DIED = re.compile(r"(\S+) died unexpectedly \(exit code: (None|-?[1-9]\d*)\)")


def classify(text: str, phase: str, trace: str = "") -> tuple[str, str, list[str]]:
    """Status, reason and the decisive lines for an engine's exception.

    ``phase`` is ``load`` or ``run``: if memory runs out while loading, the cause is the weights, unless the traceback
    shows otherwise; later it is the activations.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for status, pattern, reason in RULES:
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return status, reason, found[-3:]
    found = [line for line in lines if _OOM.search(line)]
    if found:
        status, reason = _OOM_STATUS[_where(phase, trace)]
        return status, reason, found[-3:]
    found = [line for line in lines if _NCCL.search(line)]
    if found:
        return "node_fault", "the devices do not reach each other", found[-3:]
    return "crashed", "the engine failed: " + (root_cause(lines) or "no message"), lines[-10:]


def of_configuration(outcome: Outcome) -> bool:
    """Whether a cell's failure shows that no cell of its engine configuration can run, whatever its workload."""
    return (outcome.get("status"), outcome.get("reason")) == ("unsupported", NO_KERNEL)


def of_host(outcome: Outcome | RecordHead) -> bool:
    """Whether a cell failed because of its node, so the failure says nothing about the cell."""
    return outcome.get("status") == "node_fault" and outcome.get("reason", "").startswith(HOST_FAULTS)


def _where(phase: str, trace: str) -> str:
    if phase == "load" and _ACTIVATIONS.search(trace):
        return "run"
    return "kv" if phase == "load" and _KV_CACHE.search(trace) else phase


def root_cause(lines: list[str]) -> str:
    """The first line that names an exception; for pydantic's with the next line, which has the problem."""
    for number, line in enumerate(lines):
        if _EXCEPTION.match(line):
            more = lines[number + 1 : number + 2] if "validation error" in line else []
            return ": ".join([line, *more])[:300]
    return lines[-1][:300] if lines else ""


def points_elsewhere(text: str) -> bool:
    """Whether an exception only reports that another process of the engine failed; the cause is then in the log."""
    return _FOLLOWS.search(text) is not None


def decisive(log: str) -> list[str]:
    """Lines of an engine's log that report its failure, without log prefixes and without mere consequences.

    An engine that runs in separate processes reports the cause only there.
    """
    found, before = [], ""
    for raw in log.splitlines():
        line = _DECORATION.sub("", raw, count=1).rstrip()
        died = _DIED.search(line)
        if _EXCEPTION.match(line) and not _FOLLOWS.search(line):
            found.append(line if ":" in line else f"{line} at: {before}")
        elif died:
            found.append(f"{died.group(1)}: {describe_exit(None if died.group(2) == 'None' else int(died.group(2)))}")
        elif _NATIVE.search(line) or line.startswith("Value error, "):  # the second: the detail of a ValidationError
            found.append(line)
        if line.strip("^~ "):
            before = line
    return list(dict.fromkeys(found))


def classify_log(log: str, phase: str) -> tuple[str, str, list[str]]:
    """Status, reason and evidence from the log of an engine that runs in separate processes."""
    lines = decisive(log)
    status, reason, evidence = classify("\n".join(lines), phase, log)
    if status == "crashed" and lines:
        return status, f"the engine failed: {lines[0][:300]}", lines[:10]
    return status, reason, evidence


def describe_exit(code: int | None) -> str:
    """Describe how an engine process ended; negative codes are signals, None: unknown."""
    if code is None:
        return "the engine process ended unexpectedly, its exit code was not seen"
    if code >= 0:
        return f"the engine process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
    hint = " (out of host memory, a time limit, or an operator)" if -code == signal.SIGKILL else ""
    return f"the engine process was ended by {name}{hint}"


def classify_death(code: int, log: str, phase: str) -> tuple[str, str, list[str]]:
    """Status, reason and evidence for an engine process that died."""
    status, reason, evidence = classify_log(log, phase)
    if status in ("oom_weights", "oom_kv", "oom_activation", "node_fault"):
        return status, f"{reason}; {describe_exit(code)}", evidence
    return "crashed", describe_exit(code), [line for line in log.splitlines() if line.strip()][-10:]
