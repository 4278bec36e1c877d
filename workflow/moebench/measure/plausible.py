"""Plausibility of measured machine constants, and the best of several measurements. Standard library only."""

from __future__ import annotations

import itertools
from typing import cast

from moebench.formats.manifest import MachineConstants

MOST_RISE = 2.0
"""A triad of larger arrays may be this much faster than one of smaller arrays, whose calls cost more; beyond, something
else ran."""


def implausible(made: MachineConstants) -> dict[str, str]:
    """Implausible constants of a machine, and why: ``triad`` or ``product DTYPE``.

    A triad must not become much faster with larger arrays.  Products in a narrower type must not be slower than in
    float32: if they are, torch has no kernel for that type on this machine, although an engine may have one.
    """
    found = {}
    triad = sorted((t["bytes"], t["bytes_per_s"]) for t in made["triad"])
    for (small, slow), (large, fast) in itertools.combinations(triad, 2):
        if fast > MOST_RISE * slow:
            found["triad"] = (
                f"memory bandwidth {fast / 1e9:.3g} GB/s at {large / 1e6:.0f} MB, "
                f"but {slow / 1e9:.3g} at {small / 1e6:.0f} MB"
            )
    full = made["products"]["float32"]["flops_per_s"] if "float32" in made["products"] else 0.0
    for name, product in made["products"].items():
        if product["flops_per_s"] < full:
            found[f"product {name}"] = (
                f"products in {name} run at {product['flops_per_s'] / 1e9:.3g} GFLOP/s, in float32 at {full / 1e9:.3g}"
            )
    return found


def refused(made: MachineConstants) -> list[str]:
    """What is not predicted on a machine, and why, a line each:
    ``cells in float16 are not predicted: products in float16 run at 26 GFLOP/s, in float32 at 116``.
    """
    lines = []
    for constant, reason in implausible(made).items():
        product = constant.removeprefix("product ")
        lines.append(f"{'cells' if product == constant else f'cells in {product}'} are not predicted: {reason}")
    return lines


def better(first: MachineConstants, second: MachineConstants) -> MachineConstants:
    """The faster of two measurements of each constant of one machine; a slowdown is a disturbance, not the machine's.

    The second may lack constants that were not measured again.
    """
    again = second["triad"] or first["triad"]
    triad = [max(pair, key=lambda t: t["bytes_per_s"]) for pair in zip(first["triad"], again, strict=True)]
    products = {
        name: max((m["products"][name] for m in (first, second) if name in m["products"]),
                  key=lambda p: p["flops_per_s"])
        for name in {**first["products"], **second["products"]}
    }  # fmt: skip
    return cast(MachineConstants, {**first, "ended_at": second["ended_at"], "triad": triad, "products": products})
