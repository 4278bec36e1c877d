"""Expert activation: evenness of a layer's tokens over its experts, and rows for the tables about it.

Counts of layer l are n_1 ... n_E (how often each of E experts was chosen), N = sum n_e = tokens x top-k, shares
p_e = n_e / N.  Definitions and sources: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moebench.columns import Row
from moebench.cost.roofline import distinct_experts
from moebench.formats.plan import EngineKnobsDict, Workload
from moebench.formats.record import ActivationCounts

Counts = NDArray[np.float64]

WHOLE = "all"
"""Phase of the sums over all steps."""


def _counts(values: ArrayLike) -> Counts:
    counts = np.asarray(values, dtype=float)
    if counts.ndim != 1 or not len(counts) or counts.min() < 0 or not counts.sum():
        raise ValueError("counts must be a row of numbers that are not negative, one at least above zero")
    return counts


def gini(counts: ArrayLike) -> float:
    """Gini coefficient: mean |n_i - n_j| over all E^2 pairs, divided by twice the mean.

    0 for equal counts, 1 - 1/E if one expert has all.  Counts [E], no unit.  Computed from the ordered counts as
    sum_i (2i - E - 1) n_(i) / (E N).  Source: Gini (1912), in the form of Dixon et al., Ecology 68 (1987) 1548.
    Raises ValueError without counts.
    """
    ordered = np.sort(_counts(counts))
    count = len(ordered)
    ranks = 2 * np.arange(1, count + 1) - count - 1
    return float(ranks @ ordered / (count * ordered.sum()))


def gini_by_chance(experts: int, top_k: int, tokens: float) -> float:
    """Gini coefficient that counting noise alone gives: sqrt((1 - k/E) / (pi m)), m = tokens k / E.

    If every token draws k of E experts uniformly, a count has mean m and variance m (1 - k/E); near-normal counts
    differ by 2/sqrt(pi) standard deviations in the mean, and the Gini coefficient is that over 2m.  Good for m of ten
    and more; 0 for k = E.  Neglected: that counts of one layer sum to a constant (of order 1/E).
    """
    mean = tokens * top_k / experts
    return float(np.sqrt((1 - top_k / experts) / (np.pi * mean)))


def entropy(counts: ArrayLike) -> float:
    """Shannon entropy of the shares, -sum p_e log2 p_e, bits: log2 E for equal counts, 0 if one expert has all.

    Source: Shannon, Bell System Technical Journal 27 (1948) 379.  Raises ValueError without counts.
    """
    shares = _counts(counts)
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no -0.0


def max_over_mean(counts: ArrayLike) -> float:
    """Largest count / mean count: 1 for equal counts, E if one expert has all.

    With one expert per rank it is the time of the slowest rank / that of even work.  Raises ValueError without
    counts.
    """
    found = _counts(counts)
    return float(found.max() / found.mean())


def variation(counts: ArrayLike) -> float:
    """Coefficient of variation of the counts: population standard deviation / mean.  Raises ValueError without."""
    found = _counts(counts)
    return float(found.std() / found.mean())


def evenness(counts: ArrayLike, top_k: int) -> Row:
    """Numbers of one layer: columns of the table ``activation_layers``.  Counts [E]; raises ValueError without."""
    found = _counts(counts)
    bits, most = entropy(found), np.log2(len(found))
    return {
        "gini": gini(found),
        "predicted_gini": gini_by_chance(len(found), top_k, found.sum() / top_k),
        "entropy_bits": bits,
        "entropy_share": float(bits / most) if most else None,
        "max_over_mean": max_over_mean(found),
        "activation_cv": variation(found),
        "most_activations": int(found.max()),
    }


def uniform_law(experts: int | None, work: Workload, config: EngineKnobsDict) -> Row:
    """Distinct experts that a decode step of the batch would use if tokens chose uniformly, and their share.

    E (1 - (1 - k/E)^B) for B = batch x (1 + draft tokens) tokens in the step.  Nulls for a dense model.
    """
    if not experts or not work["top_k"]:
        return {"predicted_distinct_experts": None, "predicted_distinct_experts_share": None}
    drafted = config.get("draft_tokens") or 0
    expected = float(distinct_experts(experts, work["top_k"], work["batch"] * (1 + drafted)))
    return {"predicted_distinct_experts": expected, "predicted_distinct_experts_share": expected / experts}


# ------------------------------------------------------------------------------------------ tables


def summary(counted: ActivationCounts, top_k: int) -> Row:
    """Columns of the measurement: evenness over all steps, mean over the layers (of the maximum: the largest)."""
    layers = [evenness(counts, top_k) for counts in _whole(counted)]
    mean: Row = {
        name: float(np.mean([row[name] for row in layers])) for name in layers[0] if layers[0][name] is not None
    }
    return mean | {"most_activations": max(row["most_activations"] for row in layers)}


def _whole(counted: ActivationCounts) -> Counts:
    """Counts of all phases together [layers, experts]."""
    return np.asarray(np.sum([np.array(counts) for counts in counted["counts"].values()], axis=0), dtype=float)


def tables(key: Row, counted: ActivationCounts, top_k: int) -> dict[str, list[Row]]:
    """Rows of the tables ``activation``, ``activation_layers`` and ``activation_steps`` of one record.

    ``key``: the columns that say which cell; ``counted``: the record's ``activation``.
    """
    phases = {WHOLE: _whole(counted)} | {phase: np.array(counts) for phase, counts in counted["counts"].items()}
    found: dict[str, list[Row]] = {"activation": [], "activation_layers": [], "activation_steps": []}
    for phase, by_layer in phases.items():
        for layer, counts in zip(counted["layers"], by_layer, strict=True):
            if not counts.sum():
                continue
            at = key | {"phase": phase, "layer": layer}
            found["activation"] += [at | row for row in _experts(counts)]
            whole = {"activations": int(counts.sum()), "layer_tokens": int(counts.sum()) // top_k}
            found["activation_layers"].append(at | whole | evenness(counts, top_k))
    experts = len(phases[WHOLE][0])
    for phase, sizes in counted["steps"].items():
        for tokens, steps, distinct in sizes:
            law = float(distinct_experts(experts, top_k, tokens))
            for layer, total in zip(counted["layers"], distinct, strict=True):
                step = {"step_tokens": tokens, "steps": steps, "step_distinct_experts": total / steps}
                at = key | {"phase": phase, "layer": layer}
                found["activation_steps"].append(at | step | {"step_distinct_experts_uniform": law})
    return found


def _experts(counts: Counts) -> Iterator[Row]:
    total = counts.sum()
    for expert, count in enumerate(counts.tolist()):
        share = count / total
        yield {
            "expert": expert,
            "activations": count,
            "activation_share": share,
            "relative_activation": share * len(counts),
        }
