"""Telling failures apart: an engine's words to the status of a cell (DESIGN section 7, facts from running them)."""

from __future__ import annotations

import re
import signal

RULES: tuple[tuple[str, str, str], ...] = (
    # status, what the engine says, the reason in our words
    ("oom_kv", r"No available memory for the cache blocks", "no memory is left for the KV cache"),
    ("oom_kv", r"larger than the available KV cache memory", "the KV cache cannot hold one sequence of max_model_len"),
    ("oom_kv", r"on kv cache allocation is less than requested memory for kv", "the KV cache asked for is larger than the memory"),
    ("oom_weights", r"is less than desired (GPU|CPU) memory utilization", "too little memory is free at start-up"),
    ("oom_activation", r"CUDA out of memory occurred when warming up sampler", "no memory for the sampler's warm-up"),
    ("node_fault", r"uncorrectable ECC|Xid|GPU has fallen off the bus|CUDA error: unspecified launch failure"
                   r"|NVML.*(Unknown Error|GPU is lost)|device-side assert", "the device failed"),
    ("unsupported", r"No \w+ MoE backend supports|requires AMX tile support|not supported (on|for|by|with|yet)|is not supported"
                    r"|does not support|NotImplementedError|are not supported for now", "the engine does not support this"),
    ("unsupported", r"must be divisible by|is not divisible by|not a multiple of", "the engine does not support this shape"),
    ("unsupported", r"maximum context length is", "the engine refuses this length"),
)

_OOM = re.compile(r"OutOfMemoryError|can't allocate memory|CUDA out of memory|Cannot allocate memory|MemoryError")
_ROOT_CAUSE = re.compile(r"^\s*(?:\(.*?\)\s*)?(?:ERROR \S+ \S+ \[\S+\]\s*)?((?:[\w.]*Error|[\w.]*Exception)\b.*)$")


def classify(text: str, phase: str) -> tuple[str, str, list[str]]:
    """Status, reason and the decisive lines for an engine's exception or log.

    ``phase`` is ``load`` or ``run``: running out of memory while loading is the weights, later the activations.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for status, pattern, reason in RULES:
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return status, reason, found[-3:]
    found = [line for line in lines if _OOM.search(line)]
    if found:
        status = "oom_weights" if phase == "load" else "oom_activation"
        what = "the weights do not fit" if phase == "load" else "no memory for the activations of this workload"
        return status, what, found[-3:]
    return "crashed", "the engine failed: " + (root_cause(lines) or "no message"), lines[-10:]


def root_cause(lines: list[str]) -> str:
    """The last line that names an exception, without the log's decoration."""
    for line in reversed(lines):
        match = _ROOT_CAUSE.match(line)
        if match and "EngineDeadError" not in line and "See root cause" not in line:
            return match.group(1)[:300]
    return lines[-1][:300] if lines else ""


def describe_exit(code: int) -> str:
    """An engine process's end in words; negative codes are signals."""
    if code >= 0:
        return f"the engine process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
    hint = " (out of host memory, a time limit, or an operator)" if -code == signal.SIGKILL else ""
    return f"the engine process was ended by {name}{hint}"


def classify_death(code: int, log_tail: str, phase: str) -> tuple[str, str, list[str]]:
    """Status, reason and evidence for an engine process that died."""
    status, reason, evidence = classify(log_tail, phase)
    if status in ("oom_weights", "oom_activation", "node_fault"):
        return status, f"{reason}; {describe_exit(code)}", evidence
    return "crashed", describe_exit(code), [line for line in log_tail.splitlines() if line.strip()][-10:]
