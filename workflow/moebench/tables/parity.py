"""The accuracy canary: engine configurations that must give the same answers, since they differ only in the
distribution of work.

Tensor, pipeline and expert parallelism, the experts kernel and CUDA graphs change the order of additions, nothing else.
Cells of one task on such arms are compared question by question, with that on the fewest devices.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist

from moebench.columns import Row
from moebench.formats import Knobs
from moebench.formats.plan import AccuracyCell, AccuracyPart
from moebench.formats.record import AccuracyRecord

ARM_KNOBS = ("tp", "pp", "dp", "ep", "expert_kernel", "kernel_config", "eager", "max_num_seqs",
             "max_num_batched_tokens", "cpu_threads", "kv_cache_mb", "own_process", "fused_kernel", "attention_kernel",
             "all_to_all", "eplb", "redundant_experts", "eplb_steps", "prefix_caching", "chunked_prefill",
             "graph_sizes")  # fmt: skip
"""Knobs that may not change an answer beyond rounding."""
FALSE_ALARM = 0.01
"""Probability of at least one false alarm in all comparisons of a harness together (Bonferroni)."""


def compare(part: AccuracyPart, found: Mapping[str, AccuracyRecord], folder: Path) -> dict[str, Row]:
    """By cell: ``arm_of``, ``arm_difference`` and ``arm_differs``, for every cell that has another arm to compare with.

    ``found``: records by cell.
    """
    groups: dict[str, list[str]] = {}
    for key, cell in part["cells"].items():
        if found[key]["status"] == "ok":
            engine = part["engines"][cell["engine"]]
            config: Knobs = {k: v for k, v in engine["config"].items() if k not in ARM_KNOBS and k != "top_k"}
            model = [engine["model"]["name"], engine["model"]["revision"], engine["model"]["weights"]]
            same = [
                config,
                model,
                engine["draft"],
                cell["task"]["name"],
                cell["task"]["data"],
                cell["top_k"],
                cell["limit"],
            ]
            groups.setdefault(json.dumps(same, sort_keys=True), []).append(key)
    made, comparisons = {}, sum(len(keys) - 1 for keys in groups.values())
    for keys in groups.values():
        first, *others = sorted(keys, key=lambda k: (part["engines"][part["cells"][k]["engine"]]["gpus"], k))
        for other in others:
            a, b = (scores(folder, part["cells"][k], found[k]) for k in (first, other))
            made[other] = {"arm_of": part["cells"][first]["engine"]} | difference(a, b, comparisons)
    return made


def difference(first: dict[str, float] | None, other: dict[str, float] | None, comparisons: int = 1) -> Row:
    """Mean of the questions' differences, and whether it is beyond noise (paired), as one of several comparisons."""
    if not first or not other or first.keys() != other.keys():
        return {"arm_difference": None, "arm_differs": None}
    each = [other[key] - first[key] for key in first]
    mean, n = sum(each) / len(each), len(each)
    spread = math.sqrt(sum((d - mean) ** 2 for d in each) / (n - 1)) if n > 1 else math.inf
    z = NormalDist().inv_cdf(1 - FALSE_ALARM / comparisons / 2)
    # All questions differing alike has no spread: then any difference is one.
    return {"arm_difference": mean, "arm_differs": abs(mean) > z * spread / math.sqrt(n)}


def scores(folder: Path, cell: AccuracyCell, record: AccuracyRecord) -> dict[str, float] | None:
    """The main metric of every question, from the cell's sample log; None if the log is missing, altered or without
    it."""
    metric, samples = cell["task"]["metrics"][0], record["samples"]
    assert samples is not None
    path = folder / "samples" / cell["engine"] / samples["file"]
    return logged(path, samples["sha256"], metric["name"], metric["filter"])


def logged(path: Path, sha256: str, metric: str, filter_: str) -> dict[str, float] | None:
    """A metric of every question of a sample log; None if the log is missing, altered or without it."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        return None
    values = {}
    for line in gzip.decompress(data).decode().splitlines():
        row = json.loads(line)
        if row.get("filter", "none") == filter_ and isinstance(row.get(metric), (int, float)):
            values[f"{row['task']}/{row['doc_id']}"] = float(row[metric])
    return values or None
