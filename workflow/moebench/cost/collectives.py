"""Times of ring collectives: (n - 1) steps of a start-up time and 1/n of the message each.

``message_bytes`` is what one rank holds before (all-to-all, all-reduce) or after (all-gather).  Thakur, Rabenseifner,
Gropp 2005; Patarasuk, Yuan 2009.  Everything broadcasts; one rank takes no time, whatever the link.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from moebench.cost.inputs import Floats, Machine


def all_gather_s(message_bytes: ArrayLike, ranks: ArrayLike, link: ArrayLike, hop_s: ArrayLike = 0.0) -> Floats:
    """Ring all-gather: (n-1) a + (n-1)/n S / bandwidth.  ``link`` in bytes/s one way, ``hop_s`` = a."""
    n, size, rate = np.asarray(ranks, float), np.asarray(message_bytes, float), np.asarray(link, float)
    return np.asarray(np.where(n > 1, (n - 1) * np.asarray(hop_s, float) + (n - 1) / n * size / rate, 0.0))


def all_to_all_s(message_bytes: ArrayLike, ranks: ArrayLike, link: ArrayLike, hop_s: ArrayLike = 0.0) -> Floats:
    """All-to-all: (n-1) a + (n-1)/n S / bandwidth; a rank keeps 1/n of what it holds."""
    return all_gather_s(message_bytes, ranks, link, hop_s)


def all_reduce_s(message_bytes: ArrayLike, ranks: ArrayLike, link: ArrayLike, hop_s: ArrayLike = 0.0) -> Floats:
    """Ring all-reduce: a reduce-scatter and an all-gather, 2 (n-1) a + 2 (n-1)/n S / bandwidth."""
    return 2.0 * all_gather_s(message_bytes, ranks, link, hop_s)


def exposed_s(collective_s: ArrayLike, window_s: ArrayLike, overlap: ArrayLike) -> Floats:
    """Time of a collective that other work does not hide: max(0, t - overlap x window)."""
    hidden_s = np.asarray(overlap, float) * np.asarray(window_s, float)
    return np.asarray(np.maximum(0.0, np.asarray(collective_s, float) - hidden_s))


def link_of(machine: Machine, ranks: ArrayLike) -> Floats:
    """Bytes/s one way in a group of ``ranks``: the node's link if the group fits a node, else the one between nodes."""
    return np.asarray(np.where(np.asarray(ranks, float) <= machine.node, machine.link, machine.far_link))
