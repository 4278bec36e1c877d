"""Latency and throughput of one run, from the timestamps of its tokens.  Definitions: docs/metrics.md."""

from __future__ import annotations

import itertools
import math

from moebench.engines.trace import Runs
from moebench.formats.record import Metrics, Run, Trace


def token_times(step_end_s: list[float], runs: Runs) -> list[float]:
    """Time of each token of a request, s since submission."""
    return [step_end_s[first + i] for first, steps, count in runs for i in range(steps) for _ in range(count)]


def truncate(run: Run, output_tokens: int) -> Run:
    """The run up to ``output_tokens`` tokens of each request."""
    requests = []
    for runs in run["requests"]:
        left, kept = output_tokens, []
        for first, steps, count in runs:
            whole = min(steps, left // count)
            if whole:
                kept.append([first, whole, count])
            left -= whole * count
            if left and whole < steps:
                kept.append([first + whole, 1, left])
                left = 0
            if not left:
                break
        requests.append(kept)
    last = max(first + steps for runs in requests for first, steps, _ in runs)
    return run | {"requests": requests, "step_end_s": run["step_end_s"][:last]}


def throughputs(batch: int, input_tokens: float, output_tokens: float, e2e_s: float) -> Metrics:
    """Rates of a batch: tokens/s including the prompt's text tokens (the paper's eq. 2), generated tokens/s, and
    samples/s, where a sample is a text with its images (its section 3.2 d)."""
    return {
        "throughput_total_tokens_per_s": batch * (input_tokens + output_tokens) / e2e_s,
        "throughput_output_tokens_per_s": batch * output_tokens / e2e_s,
        "samples_per_s": batch / e2e_s,
    }


def percentile(ordered: list[float], share: float) -> float:
    """Percentile of an ascending list, nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def trace_metrics(run: Trace | Run, input_tokens: float, output_tokens: float) -> Metrics:
    """Metrics of a traced run.  ITL and TPOT need two output tokens and are left out with one.

    If all tokens of a request reached a service's client at once, neither the time of the first token nor any gap
    is known: TTFT is left out too.

    Numbers of tokens are per request, a mean if a service may end requests early.  If only the service's count is known
    (``seen.counted_by`` is ``usage``), tokens are spread over the chunks: sums and means of gaps are valid; percentiles
    would not be, and are left out.
    """
    step_end_s, requests = run["step_end_s"], run["requests"]
    first, last, tpot, gaps = [], [], [], []
    for runs in requests:
        times = token_times(step_end_s, runs)
        first.append(times[0])
        last.append(times[-1])
        if len(times) > 1:
            tpot.append((times[-1] - times[0]) / (len(times) - 1))
            gaps += [b - a for a, b in itertools.pairwise(times)]
    batch, e2e = len(requests), max(last)
    all_at_once = "seen" in run and bool(tpot) and not all(tpot)
    metrics = {} if all_at_once else {"ttft_s": sum(first) / batch, "ttft_max_s": max(first)}
    metrics["e2e_s"] = e2e
    metrics |= throughputs(batch, input_tokens, output_tokens, e2e)
    if "preprocess_s" in run:
        metrics["preprocess_s"] = run["preprocess_s"]
    if gaps and not all_at_once:
        gaps.sort()
        metrics |= {
            "itl_s": sum(gaps) / len(gaps),
            "itl_p99_s": percentile(gaps, 0.99),
            "tpot_s": sum(tpot) / len(tpot),
            "itl_paper_s": (e2e - max(first)) / (batch * output_tokens - 1),
        }
        if "seen" in run and run["seen"]["counted_by"] == "usage":
            del metrics["itl_p99_s"]
    return metrics


def paper_metrics(
    first_token_run_s: float, full_run_s: float, batch: int, input_tokens: int, output_tokens: int
) -> Metrics:
    """Metrics as MoE-Inference-Bench defines them (section 3.2): TTFT is a separate run with one output token."""
    metrics = {"ttft_max_s": first_token_run_s, "e2e_s": full_run_s}
    metrics |= throughputs(batch, input_tokens, output_tokens, full_run_s)
    if batch * output_tokens > 1:
        metrics["itl_paper_s"] = (full_run_s - first_token_run_s) / (batch * output_tokens - 1)
    return metrics


def overlap(run: Trace | Run) -> bool:
    """Whether all requests were in flight together: the latest first token came before the earliest last token."""
    requests = run["requests"]
    starts = [runs[0][0] for runs in requests]
    ends = [runs[-1][0] + runs[-1][1] - 1 for runs in requests]
    return max(starts) <= min(ends)
