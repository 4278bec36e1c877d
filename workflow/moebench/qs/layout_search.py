"""The best way to spread a model over GPUs for decoding: every layout tried, the fastest that fits.

As in section 4.4 of the qs paper (arXiv 2603.08960): tensor, pipeline, expert, data and KV parallelism; feasibility
first; the same search for dense models and mixtures.  Link groups follow ``collectives.link_of``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numpy as np

from moebench.cost.inputs import Floats, Formats, Layout, Machine, Sizes
from moebench.qs import inequality


@dataclass(frozen=True)
class Found:
    """Layouts that were tried, the best first: feasible before infeasible, then by tokens/s."""

    layouts: Layout
    served: inequality.Served

    @property
    def count(self) -> int:
        """Layouts tried."""
        return len(self.served.batch)

    @property
    def feasible(self) -> int:
        """Those that hold at least one sequence."""
        return int((self.served.batch > 0).sum())


def divisors(number: int) -> list[int]:
    """Divisors in ascending order."""
    return [n for n in range(1, number + 1) if number % n == 0]


def layouts(gpus: int, heads: int, layers: int, experts: int) -> Layout:
    """Every layout of ``gpus``: TP divides the heads, PP is at most the layers, EP divides ranks and is at most E."""
    made = []
    for tp, pp, dp in itertools.product(divisors(gpus), repeat=3):
        if gpus % (tp * pp * dp) or heads % tp or pp > layers:
            continue
        ranks = gpus // pp
        made += [(tp, pp, dp, ep, ranks // (tp * dp)) for ep in divisors(ranks) if ep <= experts]
    table = np.array(made, dtype=float).T
    return Layout(**{f.name: row for f, row in zip(fields(Layout), table, strict=True)})


def search(
    sizes: Sizes,
    formats: Formats,
    machine: Machine,
    usable_bytes: float,
    context: float,
    gpus: int,
    heads: int,
    batch: float | None = None,
) -> Found:
    """All layouts of one model on ``gpus`` GPUs at their largest feasible batch (or a given one), the fastest first.

    Of two that are equally fast, the one with fewer kinds of parallelism, then less tensor parallelism, comes first.
    """
    tried = layouts(gpus, heads, int(sizes.layers), int(sizes.experts))
    served = inequality.serve(sizes, formats, tried, machine, usable_bytes, context, batch)
    kinds = sum((getattr(tried, f.name) > 1).astype(int) for f in fields(Layout))
    speed = np.where(served.batch > 0, served.tokens_per_s, -1.0)
    order = np.lexsort((tried.tp, kinds, -np.round(speed, 6)))
    return Found(
        Layout(**{f.name: getattr(tried, f.name)[order] for f in fields(Layout)}),
        inequality.Served(**{f.name: _at(getattr(served, f.name), order) for f in fields(inequality.Served)}),
    )


def _at(values: Floats, order: np.ndarray) -> Floats:
    return np.asarray(np.broadcast_to(values, order.shape)[order])
