"""Settings of pruning: methods, how many experts or channels stay, and the settings that identify a derivation."""

from __future__ import annotations

import math
from collections.abc import Mapping

METHODS: Mapping[str, tuple[str, ...]] = {
    "inter": ("frequency", "random", "reap", "reconstruction"),
    "intra": ("magnitude", "activation"),
}
"""How the removed ones can be chosen; the first is what a configuration means that does not say."""

CALIBRATED = ("frequency", "reap", "reconstruction", "activation")
"""Methods that run the model on calibration text."""


def method(kind: str, by: str | None) -> str:
    """The method meant.  Raises ValueError for one that does not choose between such things."""
    if by is not None and by not in METHODS[kind]:
        chosen = {"inter": "experts", "intra": "channels"}[kind]
        raise ValueError(f"prune_by {by!r} does not choose {chosen}; pruning {kind!r} takes {', '.join(METHODS[kind])}")
    return by or METHODS[kind][0]


def kept_experts(count: int, ratio: float) -> int:
    """Experts per layer that stay: the number removed is rounded to the nearest, half up (12.5% of 60: 8, not 7.5).

    Raises ValueError if none is removed, or none stays.
    """
    removed = math.floor(ratio * count + 0.5)
    if not 0 < removed < count:
        raise ValueError(f"prune_ratio {ratio:g} of {count} experts removes {removed or 'none'}" + _ALL * (removed > 0))
    return count - removed


def kept_width(width: int, ratio: float, multiple: int) -> int:
    """Channels of an expert that stay: the nearest multiple of ``multiple`` to (1 - ratio) x width, the larger of two.

    Raises ValueError if that is none or all of them.
    """
    kept = math.floor((1 - ratio) * width / multiple + 0.5) * multiple
    if not 0 < kept < width:
        raise ValueError(
            f"prune_ratio {ratio:g} of {width} channels leaves {kept if kept < width else 'all'} of them in multiples "
            f"of {multiple}; set prune_multiple to a smaller one"
        )
    return kept


_ALL = ", all of them"


def multiple(prune_multiple: int, tp: int, quantization: str) -> int:
    """Required divisor of the width: ``prune_multiple``, split over ``tp`` GPUs, and there in blocks of 128 for
    block-wise fp8 scales."""
    return math.lcm(prune_multiple, tp * (128 if quantization == "fp8_block" else 1))
