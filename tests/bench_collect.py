"""Time `collect` on many records: python tests/bench_collect.py [CELLS] [FOLDER] (PYTHONPATH=workflow).

The records are those of tests/synthetic.py: 128 output tokens, one warm-up and three repeats, about 13 kB each.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import synthetic
from moebench.claims import collect
from moebench.tables import gather


def main(count: int, root: Path) -> None:
    """Write the records unless they are there, collect them, print time and memory."""
    plan = root / "plan" / "many.json"
    if not plan.exists():
        synthetic.many(root, count)
    start = time.perf_counter()
    print(collect.collect(plan, root, root / "tables"))
    wall = time.perf_counter() - start
    parent, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = parent.ru_utime + parent.ru_stime + workers.ru_utime + workers.ru_stime
    memory = (parent.ru_maxrss + gather.WORKERS * workers.ru_maxrss) / 1e6
    print(f"{wall:.1f} s wall, {cpu:.1f} s CPU, at most {memory:.2f} GB in all processes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, Path(sys.argv[2] if len(sys.argv) > 2 else temporary))
