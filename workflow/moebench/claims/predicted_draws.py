"""Predictions for a claim's cells as draws: the value itself, then values within its interval."""

from __future__ import annotations

import functools
import zlib

import numpy as np

from moebench.claims import evaluate as ev
from moebench.columns import Row

OWN_SHARE = {"ttft_max_s": 0.82, "itl_s": 0.69}
"""Share of the variance of log(measured / predicted) of left-out models that is a configuration's own; the rest is
shared by all configurations of a model and machine.  From the fit of docs/cost-model.md: TTFT, TPOT."""
EIGHTY = 2 * 1.2816
"""Standard deviations between the ends of an interval that holds 80% of a normal variable."""
_LAYOUT = ("tp", "pp", "dp", "ep", "dtype", "quantization", "batch", "input_tokens", "output_tokens")
"""Knobs that make a separate configuration.  Along all others (top-k, pruning, widths) no points were fitted on, and
errors are taken to be shared."""


def draws(metric: str, row: Row) -> ev.Floats | None:
    """Draws of a metric of a predicted cell: one if it is a bound, ``1 + RESAMPLES`` if it is calibrated; None
    if it is unknown.

    Times are log-normal with the interval's width, TTFT and ITL independent of each other; throughputs follow.  Draws
    are seeded by model, machine and configuration, so that cells which share those are off together.
    """
    if not str(row.get("predicted_kind") or "").startswith("calibrated"):
        value = _bound(metric, row)
        return None if value is None else np.array([value])
    first, between = (_times(name, row) for name in ("ttft_max_s", "itl_s"))
    e2e = first + (row["output_tokens"] - 1) * between
    tokens = {"input": row["batch"] * row["input_tokens"], "output": row["batch"] * row["output_tokens"]}
    if metric == "itl_paper_s":
        return None if tokens["output"] < 2 else (e2e - first) / (tokens["output"] - 1)
    known = {
        "ttft_max_s": first,
        "itl_s": between,
        "e2e_s": e2e,
        "throughput_total_tokens_per_s": (tokens["input"] + tokens["output"]) / e2e,
        "throughput_output_tokens_per_s": tokens["output"] / e2e,
        "samples_per_s": row["batch"] / e2e,
    }
    return known[metric] if metric in known else _of_bound(metric, row)


def _of_bound(metric: str, row: Row) -> ev.Floats | None:
    value = _bound(metric, row)
    return None if value is None else np.full(1 + ev.RESAMPLES, value)


def _bound(metric: str, row: Row) -> float | None:
    if metric == "itl_paper_s":
        e2e, first, tokens = row["predicted_e2e_s"], row["predicted_ttft_max_s"], row["batch"] * row["output_tokens"]
        return None if e2e is None or first is None or tokens < 2 else (e2e - first) / (tokens - 1)
    value = row.get(f"predicted_{metric}")
    return None if value is None else float(value)


def _times(name: str, row: Row) -> ev.Floats:
    low, high = row[f"calibrated_{name}_low"], row[f"calibrated_{name}_high"]
    sigma, middle = np.log(high / low) / EIGHTY, np.log(low * high) / 2 - np.log(row[f"calibrated_{name}"])
    shared = f"{name}/{row.get('model')}/{row.get('hardware')}"
    own = "/".join([shared, *(str(row.get(knob)) for knob in _LAYOUT)])
    parts = zip((1 - OWN_SHARE[name], OWN_SHARE[name]), (shared, own), strict=True)
    off = sum(np.sqrt(share) * _normal(key) for share, key in parts)
    return np.asarray(row[f"calibrated_{name}"] * np.concatenate([[1.0], np.exp(middle + sigma * off)]))


@functools.lru_cache(maxsize=2048)
def _normal(key: str) -> ev.Floats:
    """The errors that all cells with this key share; not to be changed."""
    return np.random.default_rng(zlib.crc32(key.encode())).standard_normal(ev.RESAMPLES)
