"""An OpenAI-compatible service as an engine: hosted elsewhere, or ``vllm serve`` on this machine (docs/endpoints.md).

The requests of a batch are sent at once.  Times are the arrivals of chunks at this client, so they include the network.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moebench.engines import compiling, load_client, vllm, vllm_arguments, vllm_resolved, vllm_startup, waiting
from moebench.engines.client import Answer, Client, RateLimited
from moebench.engines.failures import Failure
from moebench.engines.imports import no_collection
from moebench.engines.protocol import Images, Routed
from moebench.engines.server import Server, ServerFailed, flags
from moebench.engines.trace import encode
from moebench.formats import Json
from moebench.formats.plan import EngineConfig, Workload
from moebench.formats.record import LoadFacts, LoadTrace, Seen, Trace
from moebench.text import count

MAX_WAITS, MAX_WAIT_S = 2, 60.0
"""How often a rate-limited run is started anew, and the longest Retry-After (s) that is waited for."""
DEFAULT_WAIT_S = 5.0
UNSEEN_SHARE, UNSEEN_TOKENS, UNSEEN_OF_REASONING = 0.1, 2, 12
"""Tokens that a text may have beyond what its tokenizer makes of it: a share, the one that ends it, and the marks
around reasoning, which services cut out."""

_URL = re.compile(r"https?://[^\s@?#]+")
_KEY = re.compile(r"[!-~]+")
_CACHE = re.compile(r"^vllm:cache_config_info\{(.*)\} \S+$", re.M)
_FUSE = re.compile(rb"'fuse_allreduce_rms': (True|False)")
_QUEUE = {
    "vllm:request_queue_time_seconds_sum": "queue_time_s",
    "vllm:request_queue_time_seconds_count": "queued_requests",
}
_SAMPLE = re.compile(r"^(vllm:\w+?)(?:_total)?\{([^}]*)\} (\S+)$", re.M)


class EndpointEngine:
    """An engine configuration behind a service (``engines.protocol.Engine``)."""

    def __init__(self, spec: EngineConfig):
        self.spec, self.config, self.model = spec, spec["config"], spec["model"]
        settings = spec["runtime"]["endpoint"]
        assert settings is not None
        self.settings = settings
        self.client: Client | None = None
        self.server: Server | None = None
        self.cached_tokens: float | None = None
        self._tokenizer: Any = None

    # --------------------------------------------------------------------------------------------- loading

    def load(self) -> LoadFacts:
        """Start the server (``serve``), or ask the service for its models.  Raises Failure or ServerFailed."""
        started = time.perf_counter()
        facts = self._serve() if self.settings["serve"] else self._connect()
        return {"load_s": time.perf_counter() - started, "resolved_config": None, **facts}

    def _connect(self) -> LoadFacts:
        missing = waiting.unset(self.spec["runtime"])
        if missing:
            reason = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: no service to query"
            raise Failure("no_endpoint", reason)
        address, name = self.settings["base_url_env"], self.settings["key_env"]
        url = self.settings["base_url"] or os.environ[address or ""].strip()
        key = os.environ[name].strip() if name else None
        if not _URL.fullmatch(url):
            raise Failure(
                "no_endpoint", f"{address} holds no base URL: https://HOST/v1, without user, password or query"
            )
        if key is not None and not _KEY.fullmatch(key):
            raise Failure("no_endpoint", f"{name} holds characters that no key has")
        self.client = Client(url, key, name or "no variable", self.settings["timeout_s"], proxies=True)
        try:
            listed = self.client.models()
        except RateLimited as limit:
            raise Failure("service_fault", "the service limits the rate even of simple queries", [str(limit)]) from None
        return {"model_listed": None if listed is None else self.settings["model"] in listed}

    def _serve(self) -> LoadFacts:
        if self.spec["nodes"] > 1:
            raise NotImplementedError("a server across nodes is not supported by this driver yet")
        vllm.VllmEngine(self.spec).refuse()
        environment = vllm_arguments.switches(self.spec)
        name = self.settings["model"]
        asked = [
            *flags(vllm_arguments.arguments(self.spec)),
            "--api-server-count",
            "1",
        ]  # default: one per data-parallel rank
        copied = vllm_startup.ready_to_serve(self.config["cpu_threads"])
        self.server = Server(asked, name, environment=environment, timeout_s=3600, copied=copied)
        start = compiling.mark()
        importing = contextlib.nullcontext() if copied else load_client.imported_meanwhile()
        try:
            with no_collection(), importing:
                self.server.start()
            if copied:  # now, since a process with a second thread is not forked
                with load_client.imported_meanwhile():
                    pass
        except ServerFailed as error:
            raise RuntimeError(f"{error}. See root cause in its log") from None
        self.client = Client(self.server.url, self.server.key, "the server", self.settings["timeout_s"], proxies=False)
        info = _CACHE.search(self.server.get("/metrics"))
        cache = dict(re.findall(r'(\w+)="([^"]*)"', info.group(1))) if info else {}
        log = compiling.said(start)
        return {
            "serving": vllm_resolved.serving_said(log),
            "kv_cache_tokens": vllm.kv_cache_tokens(cache, self.config["dp"]),
            "eager": self.config["eager"],
            "max_num_batched_tokens": self.config["max_num_batched_tokens"],
            "server_version": self.server.get("/version"),
            "fuse_allreduce_rms": fuse[0] == b"True" if (fuse := _FUSE.findall(log)) else None,
        }

    def set_top_k(self, top_k: int) -> None:
        """Not supported: top-k is set when a server starts, and cannot be set in a hosted service."""
        raise NotImplementedError("top-k cannot be set in a running service")

    # --------------------------------------------------------------------------------------------- running

    def body(self, prompt: list[int], output_tokens: int) -> Json:
        """The request for one prompt of token ids."""
        serve, settings = self.settings["serve"], self.settings
        asked = {"ignore_eos": True, "min_tokens": output_tokens, "return_token_ids": True}
        body: Json = {
            "model": settings["model"],
            "max_tokens": output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **{k: v for k, v in asked.items() if serve or k in settings["admits"]},
        }
        if settings["prompt"] == "ids":
            return body | {"prompt": prompt}
        text = self.tokenizer.decode(prompt, skip_special_tokens=False)
        return body | ({"prompt": text} if settings["api"] == "completions" else {"messages": [_message(text)]})

    @property
    def tokenizer(self) -> Any:
        """The staged model's tokenizer, for services that accept only text or send no token ids."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(Path(self.model["path"]) / "tokenizer.json"))
        return self._tokenizer

    def answers(self, prompts: list[list[int]], output_tokens: int) -> tuple[list[Answer], int]:
        """Run a batch; also return how often it was restarted because of a rate limit.

        One refused request invalidates the batch, so the whole batch is sent again after the wait.
        """
        assert self.client is not None
        path = "/completions" if self.settings["api"] == "completions" else "/chat/completions"
        bodies = [self.body(prompt, output_tokens) for prompt in prompts]
        for waits in range(MAX_WAITS + 1):
            gc.collect()
            try:
                return self.client.batch(path, bodies), waits
            except RateLimited as limit:
                wait_s = DEFAULT_WAIT_S if limit.wait_s is None else limit.wait_s
                if waits == MAX_WAITS or wait_s > MAX_WAIT_S:
                    reason = f"rate limited (HTTP 429) after {waits} waits; the service asks for {wait_s:g} s more"
                    raise Failure("service_fault", reason, [str(limit)]) from None
                time.sleep(wait_s)
            except Failure:
                self.watch()
                raise
        raise AssertionError("not reached")

    def watch(self) -> None:
        """Raise RuntimeError if our own server ended; the cause is in its log."""
        if self.server is None:
            return
        try:
            self.server.check()
        except ServerFailed as error:
            raise RuntimeError(f"{error}. See root cause in its log") from None

    def trace(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> Trace:
        """Run a batch; a step is an arrival of tokens.  Raises Failure."""
        if images:
            raise NotImplementedError("images through a service are not supported by this driver yet")
        answers, waits = self.answers(prompts, output_tokens)
        counted = [self.count(a, len(p), output_tokens) for a, p in zip(answers, prompts, strict=True)]
        by_ids = all(sum(answer.counts) for answer in answers)
        steps = sorted({round(t, 6) for answer in answers for t in answer.times})
        place = {t: i for i, t in enumerate(steps)}
        requests = []
        for answer, (_, tokens) in zip(answers, counted, strict=True):
            counts = answer.counts if by_ids else spread(tokens, len(answer.times))
            merged: dict[int, int] = {}
            for when, n in zip(answer.times, counts, strict=True):
                merged[place[round(when, 6)]] = merged.get(place[round(when, 6)], 0) + n
            requests.append(encode(*map(list, zip(*((s, n) for s, n in merged.items() if n), strict=True))))
        seen: Seen = {
            "counted_by": "ids" if by_ids else "usage",
            "rate_limited": waits,
            "tokens": sum(n for _, n in counted),
            "arrivals": sum(len(set(a.times)) for a in answers),
        }
        if self.settings["tokens"] == "measured":
            known = [n for n, _ in counted if n is not None]
            seen |= {"input_tokens": sum(known) / len(known)} if len(known) == len(counted) else {}
            seen["output_tokens"] = sum(n for _, n in counted) / len(counted)
        self.cached_tokens = _add(self.cached_tokens, [cached_tokens(a.usage) for a in answers])
        fingerprints = sorted({a.fingerprint for a in answers if a.fingerprint})
        return {"step_end_s": steps, "requests": requests, "seen": seen | {"fingerprints": fingerprints}}

    def count(self, answer: Answer, prompt_tokens: int, output_tokens: int) -> tuple[int | None, int]:
        """Prompt tokens (None: not reported) and generated tokens of a request.  Raises Failure for wrong numbers."""
        ids, said = sum(answer.counts), answer.usage.get("completion_tokens")
        if not ids and said is None:
            raise Failure("unsupported", "the service gives neither token ids nor usage: tokens cannot be counted")
        if ids and said not in (None, ids):
            raise Failure("invalid", f"the service sent {ids} token ids and counted {said}")
        tokens, prompt = ids or int(said or 0), answer.usage.get("prompt_tokens")
        if not tokens or not answer.times:
            raise Failure("invalid", f"a request produced no tokens (finish_reason {answer.finish})")
        if not ids:
            self.refuse_unseen(answer, tokens)
        if self.settings["tokens"] == "exact":
            if tokens != output_tokens:
                asked = f"{tokens} tokens instead of {output_tokens} (finish_reason {answer.finish})"
                raise Failure("invalid", f"a request gave {asked}; tokens: measured would allow it")
            if prompt not in (None, prompt_tokens):
                asked = f"{prompt} prompt tokens instead of {prompt_tokens}"
                raise Failure("invalid", f"the service counted {asked}; tokens: measured would allow it")
        return prompt, tokens

    def refuse_unseen(self, answer: Answer, counted: int) -> None:
        """Raise Failure if a service counted tokens that no chunk contained: their times are unknown.

        Without token ids the tokens of the text are counted with the model's own tokenizer, which is approximate.
        """
        hidden = (answer.usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        if hidden and not answer.reasoned:
            raise Failure("invalid", f"the service counted {count(hidden, 'token')} of reasoning and showed none")
        if (Path(self.model["path"]) / "tokenizer.json").exists():
            shown = len(self.tokenizer.encode(answer.text, add_special_tokens=False).ids)
        else:
            shown = len(answer.text.encode())  # a token is at least one byte
        unseen = UNSEEN_TOKENS + UNSEEN_OF_REASONING * answer.reasoned
        if counted > shown * (1 + UNSEEN_SHARE) + unseen:
            raise Failure("invalid", f"the service counted {counted} tokens and showed a text of {shown}")

    def over_time(
        self, work: Workload, seed: int, warmup: int, requests: Sequence[load_client.Asked] | None = None
    ) -> LoadTrace:
        """Send the requests of a workload over time; ``warmup``: number of untimed ones before.

        ``requests``: those to send; None: the client draws them.  Raises Failure.
        """
        assert self.client is not None
        options = load_client.arguments(
            work, self.client.url, self.settings["model"], Path(self.model["path"]), seed, warmup
        )
        if requests and self.settings["prompt"] == "text":
            requests = [(self.tokenizer.decode(ids, skip_special_tokens=False), *more) for ids, *more in requests]
        load = load_client.trace(load_client.run(options, self.client.key, requests))
        self.watch()
        if any(load["errors"]):
            self.reach()
        limited = sum("Too Many Requests" in error for error in load["errors"])
        if limited:
            asked = count(len(load["errors"]), "request")
            raise Failure("service_fault", f"rate limited (HTTP 429): {limited} of {asked}; lower the load")
        return load

    def reach(self) -> None:
        """Raise Failure if the service is gone: then the load is not why requests failed."""
        assert self.client is not None
        with contextlib.suppress(RateLimited):
            self.client.models()

    def timed(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> float:
        """Wall time of a batch, s; measured by streaming, the simplest interface."""
        return float(self.trace(prompts, output_tokens, images)["step_end_s"][-1])

    # ---------------------------------------------------------------------------------------------- checks

    def capture(self, on: bool) -> bool:
        """Not supported: a service does not expose its routing."""
        return False

    def captured(self) -> dict[int, Routed]:
        """Nothing."""
        return {}

    def counters(self) -> dict[str, float]:
        """Our own server's counters; for a hosted service the cached prompt tokens, if it reports them."""
        if self.server is None:
            return {} if self.cached_tokens is None else {"prefix_cache_hits": self.cached_tokens}
        found = dict.fromkeys(("preemptions", "prefix_cache_hits"), 0.0)
        for metric, labels, value in _SAMPLE.findall(self.server.get("/metrics")):
            name = vllm.COUNTERS.get(metric) or _QUEUE.get(metric)
            if name:
                position = re.search(r'position="(\d+)"', labels)
                key = f"{name}_{position.group(1)}" if position else name
                found[key] = found.get(key, 0.0) + float(value)
        return found

    def close(self) -> None:
        """Close the connections and end our own server."""
        if self.client is not None:
            self.client.close()
        if self.server is not None:
            self.server.stop()
        self.client = self.server = None


def _message(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _add(total: float | None, new: list[float | None]) -> float | None:
    known = [n for n in new if n is not None]
    return (total or 0.0) + sum(known) if known else total


def cached_tokens(usage: Json) -> float | None:
    """Prompt tokens that a service took from a cache; None: not reported."""
    value = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return None if value is None else float(value)


def spread(tokens: int, chunks: int) -> list[int]:
    """Tokens per chunk if only their sum is known: spread evenly, at least one in the first and in the last chunk.

    So the first and the last token have their true times; with more tokens than chunks the other times are estimates.
    """
    counts = [0] * chunks
    for token in range(tokens):
        counts[round(token * (chunks - 1) / (tokens - 1)) if tokens > 1 else 0] += 1
    return counts
