"""Microbenchmarks of a machine: memory bandwidth from a triad, and the rate of matrix products.  Standard library and
torch.

Runs in the engine's environment: ``python -m moebench.measure.machine THREADS`` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from moebench.formats.manifest import MachineConstants, Product
from moebench.measure.plausible import better, implausible

SCHEMA = 1
REPEATS = 7
"""Timed runs of each; the best is the machine's, as in STREAM, and all are kept."""
LEAST_S = 0.005
"""A timed run is repeated until it takes that long."""
SETS_MB = (3, 12, 48, 192, 768)
"""Bytes of the three arrays of a triad together, MB: from caches to memory."""
TYPES = ("bfloat16", "float16", "float32", "int8")
"""Of the matrix products; torch's names."""
MOST_PASSES = 3
"""Maximum number of measurements: implausible ones are repeated, and the best of each counts."""
DISTURBED = 2.0
"""Products this much slower than those in float32 are not repeated: torch has no kernel for them."""
SIDES = (256, 512, 1024, 2048, 4096, 8192)
"""Matrices tried, while one product takes no longer than ``LONGEST_S``."""
LONGEST_S = 0.02


def timed(work: Callable[[], Any], wait: Callable[[], None]) -> list[float]:
    """Time of one call, s, in each repeat, after one untimed call."""
    work()
    wait()
    calls, seconds = 1, 0.0
    while True:  # find the number of calls that makes a run longer than the clock's noise
        started = time.perf_counter()
        for _ in range(calls):
            work()
        wait()
        seconds = time.perf_counter() - started
        if seconds >= LEAST_S:
            break
        calls *= 2
    runs = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(calls):
            work()
        wait()
        runs.append((time.perf_counter() - started) / calls)
    return runs


def measure(threads: int) -> MachineConstants:
    """Microbenchmarks, repeated while they are implausible."""
    constants = once(threads)
    for _ in range(MOST_PASSES - 1):
        wrong = implausible(constants)
        if not wrong:
            break
        rate = {name: product["flops_per_s"] for name, product in constants["products"].items()}
        again = [name for name in TYPES if f"product {name}" in wrong and rate[name] * DISTURBED > rate["float32"]]
        if not again and "triad" not in wrong:
            break
        constants = better(constants, once(threads, SETS_MB if "triad" in wrong else (), again))
    return constants


def once(threads: int, sets_mb: Sequence[int] = SETS_MB, types: Sequence[str] = TYPES) -> MachineConstants:
    """One pass of the microbenchmarks, with host and time; raw times in s.

    On a CPU also with half of the threads, which is faster if they saturate the memory or if threads share cores.
    """
    import torch

    from moebench.measure.worker import provenance
    from moebench.storage.atomic import stamp

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    wait: Callable[[], None] = torch.cuda.synchronize if gpu else (lambda: None)
    counts = sorted({threads, threads if gpu else max(1, threads // 2)})
    started_at = stamp()
    triad = []
    for megabytes in sets_mb:
        count = megabytes * 10**6 // 12
        a, b, c = (torch.full((count,), float(i), device=device) for i in range(3))
        tried = []
        for used in counts:
            torch.set_num_threads(used)
            tried.append(timed(lambda a=a, b=b, c=c: torch.add(b, c, alpha=3.0, out=a), wait))  # type: ignore[misc]
        runs = min(tried, key=min)
        triad.append({"bytes": 12 * count, "runs_s": runs, "bytes_per_s": 12 * count / min(runs)})
        del a, b, c
    products = {}
    for name in types:
        tried_products = []
        for used in counts:
            torch.set_num_threads(used)
            tried_products.append(product(torch, getattr(torch, name), device, wait))
        products[name] = max(filter(None, tried_products), key=lambda p: p["flops_per_s"], default=None)
    made = {
        "schema": SCHEMA,
        "started_at": started_at,
        "ended_at": stamp(),
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        **provenance(),
        "threads": threads,
        "triad": triad,
        "products": {name: found for name, found in products.items() if found},
    }
    return cast(MachineConstants, made)


def product(torch: Any, dtype: Any, device: str, wait: Callable[[], None]) -> Product | None:
    """Rate of square matrix products: the fastest among the sizes that do not take too long; None if unsupported.

    Measures both the form that engines use (``linear``: second matrix transposed) and the plain product, because for
    some types torch has a kernel for only one of them.  Products of int8 are summed in int32, by a function of torch
    without a public name.
    """
    if dtype == torch.int8:
        return fastest(torch, torch._int_mm, dtype, device, wait)
    ways = (torch.nn.functional.linear, torch.matmul)
    found = [fastest(torch, way, dtype, device, wait) for way in ways]
    return max(filter(None, found), key=lambda p: p["flops_per_s"], default=None)


def fastest(torch: Any, multiply: Any, dtype: Any, device: str, wait: Callable[[], None]) -> Product | None:
    """The fastest rate of one function among the sizes that do not take too long; None if unsupported."""
    best: Product | None = None
    for side in (SIDES[0], *SIDES):  # the first call loads libraries
        try:
            a, b = ((4 * torch.randn(side, side, device=device)).to(dtype) for _ in range(2))
            started = time.perf_counter()
            multiply(a, b)
            wait()
            if time.perf_counter() - started > LONGEST_S and side > SIDES[0]:
                break
            runs = timed(lambda a=a, b=b: multiply(a, b), wait)  # type: ignore[misc]
        except RuntimeError:
            break
        rate = 2.0 * side**3 / min(runs)
        if best is None or rate > best["flops_per_s"]:
            best = {"side": side, "runs_s": runs, "flops_per_s": rate}
    return best


if __name__ == "__main__":
    reply = os.dup(1)  # output of libraries goes to standard error
    os.dup2(2, 1)
    made = json.dumps(measure(int(sys.argv[1])))
    os.write(reply, made.encode() + b"\n")
