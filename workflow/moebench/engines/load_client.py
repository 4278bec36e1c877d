"""Requests over time to a service: ``vllm bench serve`` of the locked vLLM, inside this process.

Why this client: docs/decisions/0045.  It draws prompts, lengths and arrival times from a seed, and returns the times of
every request; ``measure.load_metrics`` computes metrics from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moebench.formats.plan import Workload
from moebench.formats.record import LoadTrace

Asked = tuple[list[int] | str, int, float | None]
"""A request: prompt, tokens to generate, and when to send it, s (None: as the arguments say)."""

KEY = "OPENAI_API_KEY"
"""Where the client looks for the service's key."""


def arguments(work: Workload, url: str, model: str, tokenizer: Path, seed: int, warmup: int) -> list[str]:
    """Arguments of ``vllm bench serve`` for a workload.  ``url``: base, with ``/v1``; ``warmup``: untimed requests
    before."""
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
        **_rate(work),
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


def _rate(work: Workload) -> dict[str, Any]:
    if not (end := work.get("ramp_to")):
        return {"request-rate": work["request_rate"] or "inf"}
    start = int(work["request_rate"] or 0)
    return {"ramp-up-strategy": "linear", "ramp-up-start-rps": start, "ramp-up-end-rps": int(end)}


@contextlib.contextmanager
def imported_meanwhile() -> Iterator[None]:
    """Import the client while a server starts, since both are slow; else the first request would wait for it."""

    def imported() -> None:
        with contextlib.suppress(ImportError):  # a cell with load reports it; other cells do not need the client
            importlib.import_module("vllm.benchmarks.serve")

    importing = threading.Thread(target=imported, daemon=True)
    importing.start()
    try:
        yield
    finally:
        importing.join()


def run(options: list[str], key: str | None, requests: Sequence[Asked] | None = None) -> dict[str, Any]:
    """Run the client; return its summary, and lists with an entry per request.  ``requests``: replace those that it
    would draw.

    Raises any exception of the client before its first request is sent.
    """
    from vllm.benchmarks import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    before, draw = os.environ.get(KEY), serve.get_samples
    os.environ[KEY] = key or ""
    if requests is not None:
        options = [*options, "--dataset-name", "timed_trace", *_clock(requests)]
        serve.get_samples = lambda arguments, tokenizer: _samples(requests)
    try:
        result: dict[str, Any] = asyncio.run(serve.main_async(parser.parse_args(options)))
    finally:
        serve.get_samples = draw
        if before is None:
            del os.environ[KEY]
        else:
            os.environ[KEY] = before
    return result


def _clock(requests: Sequence[Asked]) -> list[str]:
    timed = requests[0][2] is not None
    return ["--self-timed" if timed else "--no-self-timed"]


def _samples(requests: Sequence[Asked]) -> list[Any]:
    from vllm.benchmarks.datasets.datasets import SampleRequest

    return [
        SampleRequest(
            prompt=prompt, prompt_len=len(prompt), expected_output_len=tokens, timestamp=at_s, request_id=str(number)
        )
        for number, (prompt, tokens, at_s) in enumerate(requests)
    ]


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
