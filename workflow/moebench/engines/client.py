"""An OpenAI-compatible streaming client that sends a batch at once and records the arrival time of every chunk.

Errors become a ``failures.Failure``, whose text never contains the key.  Why aiohttp: docs/decisions/0003.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

from moebench.engines.failures import Failure
from moebench.formats import Json

WORDS = 500
"""Characters of a service's answer that are kept as evidence."""

_REASONING = ("reasoning", "reasoning_content", "thinking")
"""What services call the text that comes before an answer: vLLM 0.32 the first, earlier versions and most others the
second.  Some send it under two names at once."""


class RateLimited(Exception):
    """HTTP 429; ``wait_s`` is the wait that the service requests, if any."""

    def __init__(self, words: str, wait_s: float | None):
        super().__init__(words)
        self.wait_s = wait_s


@dataclass
class Answer:
    """One request's stream: arrival times of the chunks with tokens (s since submission), and their contents."""

    times: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """Token ids per chunk; zeros where the service gives none."""
    ids: list[int] = field(default_factory=list)
    text: str = ""
    """All that the chunks showed: answer, reasoning, calls of tools."""
    reasoned: bool = False
    usage: Json = field(default_factory=dict)
    finish: str | None = None
    fingerprint: str | None = None


class Client:
    """Connections to one service, kept open between batches so that runs do not include handshakes.

    Args:
        url: base URL, up to and with ``/v1``.
        key: sent as bearer token, if any; ``key_name`` is what messages call it.
        timeout_s: a request that is not finished by then is given up.
        proxies: honour the proxy variables of the environment.
    """

    def __init__(self, url: str, key: str | None, key_name: str, timeout_s: float, proxies: bool):
        self.url, self.key, self.key_name, self.timeout_s = url.rstrip("/"), key, key_name, timeout_s
        self.loop = asyncio.new_event_loop()
        self.session = self.loop.run_until_complete(self._open(proxies))

    async def _open(self, proxies: bool) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        return aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout, trust_env=proxies)

    def close(self) -> None:
        """Close all connections."""
        self.loop.run_until_complete(self.session.close())
        self.loop.close()

    def models(self) -> list[str] | None:
        """Models that the service lists; None if it has no such list.  Raises Failure."""
        return self.loop.run_until_complete(self._models())

    async def _models(self) -> list[str] | None:
        with self._verdicts():
            async with self.session.get(f"{self.url}/models") as response:
                if response.status in (404, 405, 501):
                    return None
                await self._admitted(response)
                listed = json.loads(await response.text())
        entries = listed.get("data") if isinstance(listed, dict) else None
        return [str(m.get("id")) for m in entries if isinstance(m, dict)] if isinstance(entries, list) else None

    def batch(self, path: str, bodies: list[Json]) -> list[Answer]:
        """Send all requests at once and read their streams to the end.  Raises Failure or RateLimited."""
        data = [json.dumps(body).encode() for body in bodies]  # before the clock starts
        return [self.read(events) for events in self.loop.run_until_complete(self._batch(path, data))]

    async def _batch(self, path: str, data: list[bytes]) -> list[list[tuple[float, bytes]]]:
        start = time.perf_counter()
        tasks = [asyncio.ensure_future(self._stream(path, body, start)) for body in data]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, path: str, body: bytes, start: float) -> list[tuple[float, bytes]]:
        """Payloads of a stream of server-sent events with their arrival times; they are parsed after the timed part."""
        events: list[tuple[float, bytes]] = []
        rest = b""
        with self._verdicts(events):
            async with self.session.post(self.url + path, data=body) as response:
                await self._admitted(response)
                async for part in response.content.iter_any():
                    now = time.perf_counter() - start
                    *lines, rest = (rest + part).split(b"\n")
                    events += [(now, line[5:].strip()) for line in lines if line.startswith(b"data:")]
        return events

    # ------------------------------------------------------------------------------------ what went wrong

    @contextlib.contextmanager
    def _verdicts(self, events: list[tuple[float, bytes]] | None = None) -> Iterator[None]:
        """Turn connection errors into failures; ``from None``, since their tracebacks would quote headers."""
        got = f" after {len(events)} chunks" if events else ""
        try:
            yield
        except TimeoutError:
            reason = f"a request was not finished within {self.timeout_s:g} s"
            raise Failure("timeout", reason, [f"{len(events or ())} chunks had come"]) from None
        except aiohttp.ClientConnectorError as error:
            words = self.clean(str(error))
            raise Failure("service_fault", "the service cannot be reached", [words]) from None
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            got = f" after {len(events)} chunks" if events else " before its first chunk"
            words = self.clean(f"{type(error).__name__}: {error}")
            raise Failure("service_fault", f"the stream broke off{got}", [words]) from None
        except aiohttp.ClientError as error:
            words = self.clean(f"{type(error).__name__}: {error}")
            raise Failure("service_fault", "the service answered with something that is not HTTP", [words]) from None

    async def _admitted(self, response: aiohttp.ClientResponse) -> None:
        """Raise Failure or RateLimited unless the service answered 200."""
        code = response.status
        if code == 200:
            return
        words = self.clean(await response.text(errors="replace"))[:WORDS]
        if code == 429:
            raise RateLimited(words, retry_after(response.headers.get("Retry-After")))
        status, reason = refusal(code, self.key_name)
        raise Failure(status, f"{reason} (HTTP {code})", [words])

    def clean(self, text: str) -> str:
        """The text without the key, which services tend to quote."""
        return text.replace(self.key, "[key]") if self.key else text

    def read(self, events: list[tuple[float, bytes]]) -> Answer:
        """Parse a stream.  Raises Failure if it contains an error or ends prematurely."""
        answer, done = Answer(), False
        for when, payload in events:
            if payload == b"[DONE]":
                done = True
                break
            try:
                chunk = json.loads(payload)
            except ValueError:
                words = self.clean(payload.decode(errors="replace"))[:WORDS]
                raise Failure("service_fault", "the service sent a chunk that is not JSON", [words]) from None
            if chunk.get("error"):
                words = self.clean(json.dumps(chunk["error"]))[:WORDS]
                raise Failure("service_fault", "the service failed in the middle of a stream", [words])
            self._take(answer, when, chunk)
        if not done and answer.finish is None:
            reason = f"the stream broke off after {len(answer.times)} chunks"
            raise Failure("service_fault", reason, ["it ended without finish_reason and [DONE]"])
        return answer

    @staticmethod
    def _take(answer: Answer, when: float, chunk: Json) -> None:
        answer.usage = chunk.get("usage") or answer.usage
        answer.fingerprint = chunk.get("system_fingerprint") or answer.fingerprint
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            reasoning = next((text for name in _REASONING if isinstance(text := delta.get(name), str) and text), "")
            text, ids = reasoning + shown(choice), choice.get("token_ids") or []
            answer.text += text
            answer.reasoned = answer.reasoned or bool(reasoning)
            if text or ids:
                answer.times.append(when)
                answer.counts.append(len(ids))
                answer.ids += ids
            answer.finish = choice.get("finish_reason") or answer.finish


def shown(choice: Json) -> str:
    """The text that a chunk adds to an answer: a completion, a message, a refusal or a tool call."""
    delta = choice.get("delta") or {}
    calls = [call.get("function") or {} for call in delta.get("tool_calls") or ()]
    calls += [delta["function_call"]] if delta.get("function_call") else []
    texts = [choice.get("text"), delta.get("content"), delta.get("refusal")]
    texts += [call.get(part) for call in calls for part in ("name", "arguments")]
    return "".join(text for text in texts if isinstance(text, str))


def refusal(code: int, key_name: str) -> tuple[str, str]:
    """Status of a cell and reason for an HTTP error status.

    An error of the service is retried; a refused key waits for a new one; a request that the service rejects is final,
    because it would be rejected again.
    """
    if code in (401, 403):
        return "no_endpoint", f"the service refuses the key in {key_name}: it is wrong, expired or lacks access"
    if code in (408, 504):
        return "timeout", "the service abandoned the request"
    if code >= 500 or 300 <= code < 400:
        return "service_fault", "the service failed"
    if code == 404:
        return "unsupported", "the service does not know the model, or has no such interface"
    return "unsupported", "the service refuses the request"


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait (a number, or a date)."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
