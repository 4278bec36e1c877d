"""Kernels compiled inside a timed run are read off the log.  Lines are vLLM 0.32's."""

from __future__ import annotations

from moebench.engines import compiling

SPIKE = "This causes a latency spike; consider extending warmup to cover this shape/config."
LOG = f"""
INFO 11-28 08:12:30 [jit_monitor.py:88] Kernel JIT monitor activated; monitored JIT compilations during inference will \
use mode=warn.
(EngineCore_DP0 pid=71) WARNING 11-28 08:12:31 [jit_monitor.py:155] Triton kernel JIT compilation during inference: \
fused_moe_kernel. {SPIKE}
(Worker_TP1 pid=72) WARNING 11-28 08:12:31 [jit_monitor.py:152] Triton kernel JIT compilation during inference: \
_fwd_kernel.<locals>.f (constexprs={{BLOCK_M=64}}; signature={{}}; extra_compile_info={{}}; key='x'). {SPIKE}
WARNING 11-28 08:12:32 [jit_monitor.py:155] TileLang JIT compilation during inference: mhc. {SPIKE}
WARNING 11-28 08:12:32 [jit_monitor.py:155] CuTeDSL JIT compilation during inference: <unknown>. {SPIKE}
Triton autotuning for function _tuned_kernel,
with key as (64, 128, 'torch.bfloat16'),
finished after 1.24s,
WARNING 11-28 08:12:33 [jit_monitor.py:155] Triton kernel JIT compilation during inference: fused_moe_kernel. {SPIKE}
"""  # fmt: skip


def test_what_was_compiled_is_read_off_the_log():
    names = ["fused_moe_kernel", "_fwd_kernel.<locals>.f", "mhc", "<unknown>", "_tuned_kernel"]
    assert compiling.named(LOG.encode()) == names
    assert compiling.named(b"INFO [x.py:1] Using TRITON Unquantized MoE backend.\nduring inference: nothing") == []
