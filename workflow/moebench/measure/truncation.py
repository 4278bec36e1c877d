"""Records of cells with shorter outputs, from the traces of a longer run."""

from __future__ import annotations

from moebench.formats.messages import Outcome
from moebench.formats.plan import Workload
from moebench.formats.record import Record
from moebench.measure import metrics
from moebench.measure.telemetry import window


def truncate_to_output(parent: Record, work: Workload) -> Outcome | None:
    """The outcome of a cell with fewer output tokens than its parent, from the parent's traces.

    None if the shorter runs would have been different: if requests end before the last one begins, the others run in
    smaller steps.
    """
    output, warm = work["output_tokens"], len(parent["warmup"])
    runs = [metrics.truncate(run, output) for run in (*parent["warmup"], *parent["repeats"])]
    if not all(metrics.overlap(run) for run in runs):
        return None
    for run in runs:
        run["metrics"] = metrics.trace_metrics(run, work["input_tokens"], output)
        if "telemetry" in run:
            run["telemetry"] = window.of_part(run["telemetry"])
    return {
        "status": "ok",
        "reason": "",
        "evidence": [],
        "derived_from": parent["cell"],
        "checks": parent["checks"],
        "started_at": parent["started_at"],
        "load": parent["load"],
        "provenance": parent["provenance"],
        "warmup": runs[:warm],
        "repeats": runs[warm:],
    }
