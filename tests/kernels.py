"""What vLLM's CPU build runs on this CPU, asked of the engine's own environment and not of /proc/cpuinfo."""

from __future__ import annotations

import functools
import json
import subprocess
from dataclasses import dataclass

from project import ENGINE, HANG_S

NEEDS_AMX = ("int8", "gptq")
"""Precisions that are known to run where there is AMX (docs/facts.md).  The rest may run there or may not."""

ASK = """
import json, torch
from vllm.platforms import current_platform
current_platform.import_kernels()
fp8 = torch._C._dispatch_has_kernel_for_dispatch_key("_C::static_scaled_fp8_quant", "CPU")
print(json.dumps({"amx": torch.cpu._is_amx_tile_supported(), "avx512": torch.cpu._is_avx512_supported(),
                  "fp8_quant": fp8}))
"""


@dataclass(frozen=True)
class Kernels:
    """``amx``: what vLLM's quantized experts need, ``avx512``: or that, an FP8 KV cache.  ``fp8_quant``: weights can be
    rounded to FP8.
    """

    amx: bool
    avx512: bool
    fp8_quant: bool

    def statuses(self, quantization: str, kv_cache_dtype: str = "auto") -> set[str]:
        """Statuses that a cell of the precision may have: ``{"ok"}`` for ``none`` and where there is a kernel."""
        if kv_cache_dtype == "fp8" and not (self.amx or self.avx512):
            return {"unsupported"}
        if quantization == "none" or (self.amx and quantization in NEEDS_AMX):
            return {"ok"}
        return {"ok", "unsupported"} if self.amx else {"unsupported"}

    def words(self, quantization: str) -> str:
        """What vLLM says where it has no kernel for the precision; empty where the words are not known."""
        return "_C::static_scaled_fp8_quant()" if quantization == "fp8" and not (self.amx or self.fp8_quant) else ""


@functools.cache
def here() -> Kernels:
    """Those of this machine."""
    done = subprocess.run([ENGINE, "-c", ASK], capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    return Kernels(**json.loads(done.stdout.splitlines()[-1]))
