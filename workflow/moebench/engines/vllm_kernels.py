"""Default tile sizes for vLLM's fused MoE kernel, even if vLLM ships tuned ones.

vLLM reads tile sizes from a file per number of experts, width, device and data type; without a file it uses a default
that can be half as fast.  Unusual shapes (pruned ones, for example) have no file, so only the default for all makes a
comparison of shapes fair.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from moebench.formats.plan import EngineKnobsDict

SWITCH = "MOEBENCH_KERNEL_CONFIG"
"""Environment variable that leaves the tuned files unread (``default``): worker processes inherit it."""


WARNING = "Using default MoE config"
"""What vLLM logs, once per load, when it has no tuned tile sizes for the shape of the experts."""


def untuned(config: EngineKnobsDict, said: str) -> bool:
    """Whether the engine runs on default tile sizes: its log reports it, or the configuration requests it (then the log
    is silent).  ``config``: the engine configuration's knobs; ``said``: the engine's log."""
    return config["kernel_config"] == "default" or WARNING in said


def install() -> None:
    """Check the switch whenever a kernel asks for tuned tile sizes.  Idempotent."""
    from vllm.model_executor.layers.fused_moe import fused_moe

    read = fused_moe.get_moe_configs
    if getattr(read, "moebench", False):
        return

    @functools.wraps(read)
    def configs(*shape: Any, **more: Any) -> dict[int, Any] | None:
        found: dict[int, Any] | None = None if os.environ.get(SWITCH) == "default" else read(*shape, **more)
        return found

    configs.moebench = True  # type: ignore[attr-defined]
    fused_moe.get_moe_configs = configs
