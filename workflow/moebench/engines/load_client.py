"""Requests over time to a service: ``vllm bench serve`` of the locked vLLM, inside this process.

Why this client and not another: docs/decisions/0045.  It draws prompts, lengths and arrival times from a seed, and
gives the times of every request; what is made of them is ``measure.load_metrics``.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from moebench.formats.plan import Workload
from moebench.formats.record import LoadTrace

KEY = "OPENAI_API_KEY"
"""Where the client looks for the service's key."""


def arguments(work: Workload, url: str, model: str, tokenizer: Path, seed: int, warmup: int) -> list[str]:
    """Of ``vllm bench serve`` for a workload.  ``url``: base, with ``/v1``; ``warmup``: untimed requests before."""
    made = {
        "backend": "openai",
        "base-url": url.removesuffix("/v1"),
        "model": model,
        "tokenizer": tokenizer,
        "dataset-name": "random",
        "num-prompts": work["requests"],
        "random-input-len": work["input_tokens"],
        "random-output-len": work["output_tokens"],
        "random-range-ratio": work["length_spread"],
        "random-prefix-len": work["prefix_tokens"],
        "request-rate": work["request_rate"] or "inf",
        "burstiness": work["burstiness"],
        "max-concurrency": work["concurrency"],
        "num-warmups": warmup,
        "seed": seed,
        "temperature": 0,
        "ready-check-timeout-sec": 0,
        "percentile-metrics": "ttft,tpot,itl,e2el",
        "metric-percentiles": "50,90,99",
    }
    options = [part for name, value in made.items() if value is not None for part in (f"--{name}", str(value))]
    return [*options, "--ignore-eos", "--disable-tqdm", "--save-detailed"]


def run(options: list[str], key: str | None) -> dict[str, Any]:
    """What the client gives: its summary, and lists with an entry per request.

    Raises whatever it raises before its first request is sent.
    """
    from vllm.benchmarks import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    before = os.environ.get(KEY)
    os.environ[KEY] = key or ""
    try:
        result: dict[str, Any] = asyncio.run(serve.main_async(parser.parse_args(options)))
    finally:
        if before is None:
            del os.environ[KEY]
        else:
            os.environ[KEY] = before
    return result


def trace(result: dict[str, Any]) -> LoadTrace:
    """The requests of a result, in the order in which they were sent; times to the microsecond."""
    order = sorted(range(len(result["start_times"])), key=lambda i: result["start_times"][i])
    begin = result["start_times"][order[0]]
    return {
        "start_s": [round(result["start_times"][i] - begin, 6) for i in order],
        "ttft_s": [round(result["ttfts"][i], 6) for i in order],
        "gaps_s": [[round(gap, 6) for gap in result["itls"][i]] for i in order],
        "input_tokens": [result["input_lens"][i] for i in order],
        "output_tokens": [result["output_lens"][i] for i in order],
        "errors": [result["errors"][i].strip().splitlines()[-1] if result["errors"][i] else "" for i in order],
    }
