"""Default tile sizes for vLLM's fused MoE kernel, also where vLLM ships tuned ones.

vLLM takes tile sizes from a file per number of experts, width, device and data type; where there is none, a default
that can be half as fast.  Shapes that no model has (pruned ones, say) have no file: with the default for all of them a
comparison of shapes is fair.
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
    """The engine runs on default tile sizes: it said so, or it was told to, and then it looks for none and says
    nothing.  ``config``: the engine configuration's knobs; ``said``: the engine's log."""
    return config["kernel_config"] == "default" or WARNING in said


def install() -> None:
    """Look for the switch whenever a kernel asks for tuned tile sizes.  Idempotent."""
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
