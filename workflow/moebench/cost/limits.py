"""Checks for values that no engine runs: one line of error instead of a negative, NaN or meaningless time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from moebench.cost.inputs import Layout, Sizes
from moebench.errors import UserError


def check(sizes: Sizes, layout: Layout, batch: ArrayLike, context: ArrayLike, top_k: ArrayLike | None = None) -> None:
    """Raise UserError with the first invalid value anywhere in the arrays, and the remedy."""
    chosen = sizes.top_k if top_k is None else np.asarray(top_k, float)
    sparse, (tp, pp, dp, ep) = sizes.sparse > 0, (layout.tp, layout.pp, layout.dp, layout.ep)
    for name, value, right, remedy in (
        ("batch", batch, np.asarray(batch, float) >= 1, "give at least 1 sequence"),
        ("context", context, np.asarray(context, float) >= 0, "give 0 tokens or more"),
        (
            "top_k",
            chosen,
            ~sparse | ((chosen >= 1) & (chosen <= sizes.experts)),
            "choose between 1 and the number of experts",
        ),
        ("tp", tp, (tp >= 1) & (sizes.heads % np.maximum(tp, 1) == 0), "take a divisor of the attention heads"),
        ("pp", pp, (pp >= 1) & (pp <= sizes.layers), "take 1 to the number of layers"),
        ("dp", dp, dp >= 1, "take at least 1"),
        ("ep", ep, (ep == 1) | ((ep > 1) & (ep <= sizes.experts)), "take 1, or no more groups than experts"),
        ("ep", ep, ep <= layout.ranks, "take no more groups than GPUs of a pipeline stage"),
    ):
        if not np.all(right):
            values, right = np.broadcast_arrays(np.asarray(value, float), right)
            raise UserError(f"{name} is {values[~right].flat[0]:g}: {remedy}")
