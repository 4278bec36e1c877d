"""An OpenAI-compatible service that misbehaves as asked: the name of the model says how.  Real HTTP, no model."""

from __future__ import annotations

import contextlib
import email.utils
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-aKeyThatMustNotBeWritten"


class Handler(BaseHTTPRequestHandler):
    """Streams ``max_tokens`` tokens unless the model's name says otherwise."""

    disable_nagle_algorithm = True  # as real servers: otherwise a delayed ACK holds a stream back for 40 ms

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if self.server.dead:
            self.close_connection = True
        elif self.authorized():
            self.say(200, {"data": [{"id": "good"}]})

    def authorized(self):
        given = self.headers.get("Authorization", "")
        if given == f"Bearer {self.server.key}":
            return True
        self.say(401, {"error": {"message": f"Incorrect API key provided: {given.removeprefix('Bearer ')}"}})
        return False

    def say(self, code, body, **headers):
        data = json.dumps(body).encode()
        self.send_response(code)
        for name, value in (headers | {"Content-Type": "application/json", "Content-Length": str(len(data))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.guard:
            self.server.asked.append((self.path, asked))
            inside = self.server.inside[asked["model"]] = self.server.inside.get(asked["model"], 0) + 1
            self.server.most_inside[asked["model"]] = max(inside, self.server.most_inside.get(asked["model"], 0))
        try:
            if self.authorized():
                fault = asked["model"].replace("-", "_")
                with contextlib.suppress(OSError):
                    getattr(self, fault, self.good)(asked)
        finally:
            with self.server.guard:
                self.server.inside[asked["model"]] -= 1

    def wait_for_the_others(self, model):
        """Until as many streams have begun as ``together`` says: however busy the machine is, they overlap."""
        with self.server.begins:
            self.server.begun[model] = self.server.begun.get(model, 0) + 1
            self.server.begins.notify_all()
            self.server.begins.wait_for(lambda: self.server.begun[model] >= self.server.together.get(model, 0))

    def chunk(self, payload):
        data = payload if isinstance(payload, bytes) else b"data: " + json.dumps(payload).encode() + b"\n\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def good(self, asked, tokens=None, per_chunk=1, ids=True, usage=True, done=True, cached=None, prompt=None):
        tokens = asked["max_tokens"] if tokens is None else tokens
        ids = ids and asked.get("return_token_ids")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for first in range(0, tokens, per_chunk):
            n = min(per_chunk, tokens - first)
            last = first + n == tokens
            if last:
                self.wait_for_the_others(asked["model"])
            finish = ("length" if tokens == asked["max_tokens"] else "stop") if last and done else None
            choice = {"index": 0, "text": "word " * n, "finish_reason": finish}
            if asked.get("messages"):
                choice = {"index": 0, "delta": {"content": choice["text"]}, "finish_reason": finish}
            self.chunk({"choices": [choice | ({"token_ids": list(range(first, first + n))} if ids else {})]})
            time.sleep(0.01)
        if usage:
            given = asked.get("prompt") or [0] * 99
            given = given.split() if isinstance(given, str) else given
            sizes = {"completion_tokens": tokens, "prompt_tokens": prompt or len(given)}
            details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
            self.chunk({"choices": [], "usage": sizes | details, "system_fingerprint": "fp-1"})
        if done:
            self.chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

    def deltas(self, kinds, seen=8, details=None):
        """A chat answer of a delta per word, the second half 0.5 s after the first; ``seen``: tokens it counts."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk({"choices": [{"delta": {"role": "assistant", "content": ""}}]})  # vLLM's first, before any token
        for number, delta in enumerate(kinds):
            time.sleep(0.5 if number == len(kinds) // 2 else 0.01)
            self.chunk({"choices": [{"delta": delta, "finish_reason": None}]})
        self.chunk({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        sizes = {"completion_tokens": seen, "prompt_tokens": 99, "completion_tokens_details": details}
        self.chunk({"choices": [], "usage": sizes})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def reasoning(self, asked):
        self.deltas([{"reasoning": "word "}] * 4 + [{"content": "word "}] * 4, details={"reasoning_tokens": 4})

    def reasoning_content(self, asked):
        self.deltas([{"reasoning_content": "word "}] * 4 + [{"content": "word "}] * 4)

    def reasoning_twice(self, asked):
        self.deltas([{"reasoning": "word ", "reasoning_content": "word "}] * 4 + [{"content": "word "}] * 4)

    def tools(self, asked):
        calls = [{"tool_calls": [{"index": 0, "function": {part: "word "}}]} for part in ("name", *["arguments"] * 3)]
        self.deltas([*calls, *[{"refusal": "word "}] * 4])

    def hidden(self, asked):
        self.deltas([{"content": "word "}] * 4, seen=104)

    def hidden_and_told(self, asked):
        self.deltas([{"content": "word "}] * 8, details={"reasoning_tokens": 1})

    def in_pairs(self, asked):
        self.good(asked, per_chunk=2)

    def no_ids(self, asked):
        self.good(asked, per_chunk=3, ids=False)

    def uncounted(self, asked):
        self.good(asked, ids=False, usage=False)

    def short(self, asked):
        self.good(asked, tokens=3)

    def longer_prompt(self, asked):
        self.good(asked, prompt=17)

    def cached(self, asked):
        self.good(asked, cached=16)

    def limited(self, asked):
        self.say(429, {"error": "slow down"}, Retry_After="600")

    def limited_once(self, asked):
        with self.server.guard:
            self.server.limits += 1
            refuse = self.server.limits == 1
        if refuse:
            later = email.utils.formatdate(time.time() + 1, usegmt=True)  # a date, not seconds
            self.say(429, {"error": "slow down"}, Retry_After=later)
        else:
            self.good(asked)

    def failing(self, asked):
        self.say(503, {"error": "overloaded"})

    def unknown(self, asked):
        self.say(404, {"error": {"message": "The model `unknown` does not exist."}})

    def refusing(self, asked):
        self.say(400, {"error": {"message": "context too long"}})

    def forbidden(self, asked):
        self.say(403, {"error": f"no access for {KEY}"})

    def half_way(self):
        """Whether a load has come so far that a fault in the middle of it is due."""
        with self.server.guard:
            return sum(asked["model"] == self.server.asked[-1][1]["model"] for _, asked in self.server.asked) > 50

    def throttled(self, asked):
        if self.half_way():
            self.say(429, {"error": "slow down"})
        else:
            self.good(asked)

    def slower(self, asked):
        time.sleep(2.5 * self.half_way())
        self.good(asked)

    def mortal(self, asked):
        if self.half_way():
            self.server.dead = True
            self.server.shutdown()
            self.server.server_close()
            self.close_connection = True
        else:
            self.good(asked)

    def slow(self, asked):
        time.sleep(3)
        self.good(asked)

    def stuck(self, asked):
        self.good(asked, tokens=2, usage=False, done=False)
        time.sleep(3)

    def dropped(self, asked):
        self.good(asked, tokens=2, usage=False, done=False)
        self.close_connection = True
        self.connection.close()

    def hung_up(self, asked):
        self.connection.close()
        self.close_connection = True

    def ends_early(self, asked):
        """Ends as HTTP should, but in the middle of the answer."""
        self.good(asked, tokens=2, usage=False, done=False)
        self.wfile.write(b"0\r\n\r\n")

    def error_inside(self, asked):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk({"choices": [{"text": "a", "finish_reason": None}]})
        self.chunk({"error": {"message": f"engine died, key {KEY}"}})
        self.wfile.write(b"0\r\n\r\n")

    def garbage(self, asked):
        self.send_response(200)
        self.send_header("Content-Length", "17")
        self.end_headers()
        self.wfile.write(b"data: not JSON\n\n\n")


@contextlib.contextmanager
def service(key=KEY):
    """The service at a free port; it has ``url``, ``asked``, ``most_inside`` (at once, by model) and ``together`` (how
    many streams wait for each other, by model)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.key, server.guard = True, key, threading.Lock()
    server.asked, server.limits, server.inside, server.most_inside = [], 0, {}, {}
    server.begins, server.begun, server.together = threading.Condition(), {}, {}
    server.dead = False
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
