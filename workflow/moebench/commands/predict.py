"""``moebench predict``: predicted values with interval and kind for a table of points."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moebench.commands import own_points
from moebench.config import Config, Hardware
from moebench.cost import calibrated as cal
from moebench.cost import cells, fit, points
from moebench.cost.inputs import Floats

BOUND = cal.Constants(
    **dict.fromkeys((*fit.PRIOR, *fit.KERNEL), 0.0)
    | dict.fromkeys((name for name in fit.KERNEL if "_bytes" in name or "_share" in name), 1.0)
    | dict.fromkeys(("dense_bytes", "prefill_reduces"), 1.0)
)
"""Ideal constants: no overhead, full bandwidth and peak."""


def run(config: Config, path: Path, bound: bool = False) -> tuple[pd.DataFrame, points.Points]:
    """The rows of a file with ``predicted``, ``low``, ``high``, ``kind`` and ``why`` (of rows without prediction).

    ``low`` to ``high`` holds 80% of left-out points: of models that were fitted on, of a model that was not, or of a
    machine that was not.  Raises UserError for a column that is missing.
    """
    known = points.read(own_points.load(path), config, str(path))
    count = len(known.frame)
    value, low, high = (np.full(count, np.nan) for _ in range(3))
    kind = np.full(count, "none", dtype=object)
    for batch in known.batches:
        hardware = batch.hardware
        if hardware.fitted is None or bound:
            value[batch.rows] = bound_values(batch)
            kind[batch.rows] = "bound"
            continue
        value[batch.rows], kind[batch.rows] = calibrated_values(batch, hardware), cells.name(hardware)
        low[batch.rows], high[batch.rows] = intervals(batch, known, value[batch.rows])
    kind[~np.isfinite(value)] = "none"
    why = [known.reasons.get(i, "" if np.isfinite(value[i]) else _unknown(known.frame, i)) for i in range(count)]
    made = known.frame.assign(predicted=value, low=low, high=high, kind=kind, why=why)
    return made, known


def _unknown(frame: pd.DataFrame, place: int) -> str:
    return f"machine {frame['machine'][place]}: a constant of its own is unknown (a link between nodes, or memory)"


def bound_values(batch: points.Batch) -> Floats:
    """Ideal values of rows: the calibrated model without overhead and with ideal collectives."""
    link = batch.hardware.link_bytes_per_s or float("nan")
    # A ring: 2 (n - 1) / n times the message over the link.
    sizes = (1.0, 1e12)
    times = {n: tuple(2 * (n - 1) / n * size / link for size in sizes) for n in (2, 4, 8)}
    return batch.predict(BOUND, cal.AllReduce(sizes, times, times, link, 0.0))


def calibrated_values(batch: points.Batch, hardware: Hardware) -> Floats:
    """Calibrated values of rows of a machine."""
    assert hardware.fitted is not None and hardware.fitted.all_reduce is not None
    reduce = cells.all_reduce_of(hardware.fitted.all_reduce, hardware)
    return batch.predict(cells.constants(hardware.fitted), reduce)


def intervals(batch: points.Batch, known: points.Points, values: Floats) -> tuple[Floats, Floats]:
    """Interval of values: times the 10th and 90th percentile of measured over predicted for left-out points."""
    low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
    engines = known.frame["engine"].astype(str) if "engine" in known.frame else None
    for i, (place, metric) in enumerate(zip(batch.rows, batch.metrics, strict=True)):
        vllm = engines is None or engines[place].lower().startswith("vllm")
        name = "tpot" if metric.name in ("e2e", "throughput") else metric.name
        if pair := cells.interval(batch.hardware, name, known.files[int(place)], vllm):
            first, last = (1 / pair[1], 1 / pair[0]) if metric.name == "throughput" else pair
            low[i], high[i] = values[i] * first, values[i] * last
    return low, high


def error_tables(rows: pd.DataFrame, columns: Iterable[str], head: str = "by ") -> list[str]:
    """Errors of rows with ``value`` and ``predicted``, one table per column, as lines."""
    text = []
    for column in columns:
        if column not in rows:
            continue
        text.append(f"{head + column:<38} points  median    p90   bias{'  inside' if 'low' in rows else ''}")
        for name, part in rows.groupby(column):
            e = fit.errors(part["value"], part["predicted"])
            shown = f"{name:g}" if isinstance(name, float) else str(name)
            text.append(f"  {shown:<36} {e['points']:>6} {e['median']:>7.1%} {e['p90']:>6.0%} {e['bias']:>+6.1%}")
            if "low" in part:
                held = part["value"].between(part["low"], part["high"])[part["low"].notna()]
                text[-1] += f" {held.mean():>7.0%}" if len(held) else "       -"
    return text


def report(made: pd.DataFrame) -> str:
    """What was skipped and why; with a column ``value`` the errors by source, machine, model, TP, batch, precision,
    and the share of values inside their intervals."""
    skipped = made[made["kind"] == "none"]
    text = [f"{len(made) - len(skipped)} of {len(made)} rows predicted"]
    text += [f"  {count} rows: {why}" for why, count in skipped["why"].value_counts().items()]
    if "value" in made:
        there = made[made["predicted"].notna() & (pd.to_numeric(made["value"], errors="coerce") > 0)]
        for metric, rows in there.groupby("metric"):
            text += ["", f"{metric}: |predicted / measured - 1|, and bias"]
            text += error_tables(rows, ("source", "machine", "engine", "model", "tp", "batch", "precision"))
    return "\n".join(text)


def as_json(made: pd.DataFrame) -> dict[str, Any]:
    """The rows, and the errors of those that were measured, by metric."""
    rows = json.loads(made.to_json(orient="records"))
    if "value" not in made:
        return {"rows": rows, "errors": {}}
    there = made[made["predicted"].notna() & (pd.to_numeric(made["value"], errors="coerce") > 0)]
    errors = {str(metric): fit.errors(part["value"], part["predicted"]) for metric, part in there.groupby("metric")}
    return {"rows": rows, "errors": errors}


def draw(frame: pd.DataFrame, by: str, path: Path) -> None:
    """Predicted against measured times, one panel per metric, coloured by a column, with a band of 15%."""
    from matplotlib.figure import Figure

    metrics = sorted(frame["metric"].map(fit.base_metric).unique())
    figure = Figure(figsize=(4.2 * len(metrics), 4.2), layout="constrained")
    for axes, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True):
        rows = frame[frame["metric"].map(fit.base_metric) == metric]
        for name, part in rows.groupby(by):
            axes.scatter(part["value"], part["predicted"], s=9, alpha=0.6, label=str(name))
        ends = np.array([rows[["value", "predicted"]].min().min(), rows[["value", "predicted"]].max().max()])
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.fill_between(ends, ends / 1.15, ends * 1.15, color="black", alpha=0.12, linewidth=0)
        unit = str(rows["unit"].iloc[0]) if "unit" in rows else "ms"
        axes.set(
            xscale="log", yscale="log", title=metric.upper(), xlabel=f"measured, {unit}", ylabel=f"predicted, {unit}"
        )
    figure.axes[0].legend(title=by.replace("_", " "), fontsize="small")
    figure.savefig(path, dpi=110)
