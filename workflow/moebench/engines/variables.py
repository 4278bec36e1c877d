"""Environment variables that reach an engine: which are recorded, and which change its numbers (docs/decisions/0037).

Secrets are never recorded: neither a variable whose name indicates a secret, nor its value inside another variable.
Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from moebench.formats.plan import EngineConfig

_READ = re.compile(
    r"(VLLM|NCCL|CUDA|CUBLAS|CUBLASLT|CUDNN|NVTE|TORCH|TORCHINDUCTOR|TORCHDYNAMO|PYTORCH|TRITON|FLASHINFER|DG|ATEN|ONEDNN"
    r"|DNNL|OMP|GOMP|KMP|MKL|OPENBLAS|GLOO|UCX|MALLOC)_\w+"
    r"|NVIDIA_TF32_OVERRIDE|USE_HUB_KERNELS|LD_PRELOAD|GLIBC_TUNABLES|SAFETENSORS_FAST_GPU"
)
"""Variables that an engine, or a library beneath it, reads."""

_HARMLESS = re.compile(
    r"\w+_(CACHE_DIR|CACHE_PATH|CACHE_ROOT|EXTENSIONS_DIR|HOME|ROOT|ROOT_DIR|VERSION|INCLUDE\w*|LIB|LIBDIR|VERBOSE)"
    r"|(CUDA|CUDNN|NCCL)_(PATH|DIR|BIN\w*|INSTALL\w*|TOOLKIT\w*|PKG\w*|ARCH\w*|INC\w*)|\w+_LOGS?(_\w+)?|TORCH_TRACE"
    r"|VLLM_(CONFIG_ROOT|ASSETS_CACHE\w*|MEDIA_\w+|LOGGING_\w+|CONFIGURE_LOGGING|DEBUG_LOG_\w+|(NO_)?USAGE_\w+"
    r"|DO_NOT_TRACK|HOST_IP|PORT|RPC_\w+|DP_MASTER_\w+|NIXL_SIDE_CHANNEL_\w+|RINGBUFFER_WARNING_INTERVAL"
    r"|HTTP_TIMEOUT_KEEP_ALIVE|KEEP_ALIVE_ON_ENGINE_DEATH|\w+_TIMEOUT(_S|_SECONDS)?|SKIP_\w*(VERSION_SUFFIX|VALIDATION)|TARGET_DEVICE|BUILD_\w+"
    r"|IMAGE_TAG|DOCKER_\w+|SERVER_DEV_MODE|PROCESS_NAME_PREFIX|DEBUG_DUMP_PATH|LOOPBACK_IP)|PYTORCH_BUILD_\w+"
    r"|NCCL_(DEBUG\w*|COMM_ID|CONF_FILE|SET_THREAD_NAME|RAS_\w+)|TORCH_NCCL_(DEBUG|TRACE|DUMP|HEARTBEAT)\w*"
    r"|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|CACHE_\w+|\w*COREDUMP\w*)|TORCH_(CUDA_ARCH_LIST|SHOW_CPP_STACKTRACES)"
)
"""Those of them that name places, ports, versions, logs and time limits: neither recorded nor looked at."""

_CHANGING = re.compile(
    r"VLLM_(?!ENABLE_CUDA_COMPAT|CUDA_COMPAT|WORKER_MULTIPROC_METHOD)\w+"
    r"|(NCCL|CUBLAS|CUBLASLT|CUDNN|NVTE|TORCH|TORCHINDUCTOR|TORCHDYNAMO|PYTORCH|TRITON|FLASHINFER|DG|ATEN|ONEDNN|DNNL)_\w+"
    r"|CUDA_(LAUNCH_BLOCKING|DEVICE_MAX_\w+|(FORCE|DISABLE)_(PTX_)?JIT|AUTO_BOOST|MPS_\w+|INJECTION\w*"
    r"|SCALE_LAUNCH_QUEUES|DISABLE_PERF_BOOST)|MKL_(CBWR|ENABLE_INSTRUCTIONS|DEBUG_CPU_TYPE)"
    r"|NVIDIA_TF32_OVERRIDE|USE_HUB_KERNELS"
)
"""Those that choose kernels or how fast they run.  The rest (threads, allocators, ...) is recorded only."""

_ACROSS_NODES = re.compile(r"NCCL_(SOCKET|IB|NET|OOB|NSOCKS|CROSS_NIC|COLLNET|SHARP|PXN|GDR|GDRCOPY|DMABUF|OFI)(_\w+)?")
"""Those that say how NCCL reaches other nodes: within one they change nothing."""

CORE = "VLLM_ENABLE_V1_MULTIPROCESSING"
"""The variable by which vLLM's engine core has a process of its own ("1", its default) or not ("0")."""

OF_THE_PLAN = {
    CORE: "own_process",
    "VLLM_MLA_DISABLE": "mla",
    "VLLM_CPU_OMP_THREADS_BIND": "cpu_threads",
    "OMP_NUM_THREADS": "cpu_threads",
    "VLLM_MOE_ROUTING_SIMULATION_STRATEGY": "routing",
}
"""Variables that a knob stands for."""

_SECRET = re.compile(
    r"\w*(SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|TOKEN(?!S|IZER|_THRESHOLD))\w*"
    r"|\w*(KEY|PASS|AUTH|COOKIE)(_\w+)?"
)
_LOOKS_SECRET = re.compile(r"(?<=://)[^/@\s]+(?=@)|(?<=\?)\S+|\b(hf_|sk-|ghp_|gsk_)[\w-]{8,}")
_SECRET_IN_WORDS = re.compile(
    r"(?<=://)[^/@\s]+(?=@)|\b(hf_|sk-|ghp_|gsk_)[\w-]{8,}|(?i:(?<=[?&])\w*(token|key|sig|secret|pass)\w*=[^&\s]+)"
)
HIDDEN = "[hidden]"
_LONGEST = 300
"""Characters of a value that are kept."""


def core_is_within(spec: EngineConfig) -> bool:
    """Whether vLLM's engine core runs in the process that loads it."""
    return spec["gpus"] == 1 and not spec["config"].get("own_process")


def is_read(name: str) -> bool:
    """Whether an engine reads a variable that may affect measurements: not a path, a log setting or a secret."""
    return bool(_READ.fullmatch(name)) and not (_HARMLESS.fullmatch(name) or _SECRET.fullmatch(name))


def changes(name: str, nodes: int) -> bool:
    """Whether a variable changes the choice or the speed of kernels, in an engine on this number of nodes."""
    return is_read(name) and bool(_CHANGING.fullmatch(name)) and (nodes > 1 or not _ACROSS_NODES.fullmatch(name))


def of(shell: Mapping[str, str] = os.environ, but: Iterable[str] = ()) -> dict[str, str]:
    """The settings that an engine reads from the shell and NCCL's files, except the variables ``but``, safe to record.

    A file or folder named by a value is identified by its content.
    """
    found, secrets = _nccl_files(shell) | dict(shell), _secrets(shell)
    return {k: _clean(v, secrets) for k, v in sorted(found.items()) if is_read(k) and k not in set(but)}


def hide(words: str, shell: Mapping[str, str] = os.environ) -> str:
    """The output of an engine or a service, safe to record: secrets, and what looks like one, are removed."""
    for secret in _secrets(shell):
        words = words.replace(secret, HIDDEN)
    return _SECRET_IN_WORDS.sub(HIDDEN, words)


def _secrets(shell: Mapping[str, str]) -> list[str]:
    return [v for k, v in shell.items() if _SECRET.fullmatch(k) and len(v) >= 8]


def _clean(value: str, secrets: list[str]) -> str:
    content = _content(Path(value)) if value.startswith("/") else None
    for secret in secrets:
        value = value.replace(secret, HIDDEN)
    return _LOOKS_SECRET.sub(HIDDEN, value)[:_LONGEST] + (f" (sha256 {content})" if content else "")


def _content(path: Path) -> str | None:
    """First digits of the SHA-256 of a file, or of a folder's JSON files (tile sizes); None if it is neither."""
    try:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path] if path.is_file() else []
        parts = [file.name.encode() + b"\0" + file.read_bytes() for file in files]
    except OSError:
        return None
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12] if parts else None


def _nccl_files(shell: Mapping[str, str]) -> dict[str, str]:
    """Settings in NCCL's own files, which apply if the shell has none: the user's file before the node's."""
    user = shell.get("NCCL_CONF_FILE") or os.path.join(shell.get("HOME", "/"), ".nccl.conf")
    found: dict[str, str] = {}
    for path in ("/etc/nccl.conf", user):
        try:
            lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
        found |= {name.strip(): value.strip() for name, _, value in pairs if name.strip().startswith("NCCL_")}
    return found
