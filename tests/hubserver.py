"""A small Hugging Face hub on loopback, for tests: real HTTP, the part of the API that staging a model uses.

Model info with ``?blobs=true`` (sizes, blob ids, LFS checksums), the tree of a commit, ``resolve`` with its redirects
(small files to ``/api/resolve-cache`` as the hub does, LFS files to a second server of another origin, as its CDN is),
ETag, X-Repo-Commit, X-Linked-Etag and X-Linked-Size, byte ranges, and refusals with X-Error-Code.  Xet is not offered.

>>> with HubServer() as hub:
...     repo = hub.repo("org/name")
...     commit = repo.push({"config.json": b"{}", "model.safetensors": b"..."})
...     print(hub.endpoint)          # for HF_ENDPOINT or endpoint=

``Faults`` of a file switch what goes wrong; ``hub.requests`` and ``hub.served(path)`` tell what was asked and sent.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".model")
_BLOCK_BYTES = 16 * 1024


def git_sha1(content: bytes) -> str:
    """The blob id git gives this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(content: bytes) -> bytes:
    """What git itself stores of an LFS file."""
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


@dataclass
class Faults:
    """What goes wrong with one file.  Numbers of bytes count the body of one answer."""

    drop_after: int | None = None  # close the connection after so many bytes...
    drops: int = 1  # ...so many times
    corrupt: int = 0  # so many answers have one byte flipped
    ignore_range: bool = False  # send the whole file with status 200
    fail_status: int | None = None  # answer with this status...
    fails: int = 0  # ...so many times
    after_bytes: int | None = None  # call `hook` once, after so many bytes
    hook: Callable[[], None] = lambda: None
    block_delay_s: float = 0.0  # wait between blocks of 16 KiB


@dataclass
class Seen:
    """A request as it came, what was answered, and the bytes of a file sent for it."""

    method: str
    path: str
    range: str | None
    token: str | None
    status: int
    sent: int = 0


@dataclass
class Repo:
    """A model repository: commits with their files, branches that name commits."""

    name: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    members: set[str] = field(default_factory=set)  # tokens that accepted the licence
    private: bool = False
    faults: dict[str, Faults] = field(default_factory=dict)

    def push(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a commit and move ``branch`` to it; returns the commit."""
        text = json.dumps([len(self.commits), {name: git_sha1(content) for name, content in files.items()}])
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


class HubServer:
    """The hub and its CDN, each on a free port of 127.0.0.1, from ``__enter__`` to ``__exit__``."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens: set[str] = set()  # tokens the hub knows; any other one is refused everywhere
        self.html = False  # answer every request with a login page, as a captive portal does
        self.refuse_tree = False  # refuse to list the files of a commit
        self.echo_token = False  # quote a refused token in the answer
        self.requests: list[Seen] = []

    def __enter__(self) -> Self:
        self._servers = [_serve(self, _HubHandler), _serve(self, _CdnHandler)]
        self.endpoint, self.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def repo(self, name: str) -> Repo:
        """The repository of this name, made if there is none."""
        return self.repos.setdefault(name, Repo(name))

    def served(self, path: str) -> int:
        """Bytes of this file's body sent so far, all answers together."""
        return sum(seen.sent for seen in self.asked(path))

    def asked(self, path: str, method: str = "GET") -> list[Seen]:
        """Requests that were for the content of this file (not the redirect to it)."""
        mine = [seen for seen in self.requests if seen.method == method and seen.path.endswith(f"/{path}")]
        return [seen for seen in mine if seen.status in (200, 206)]

    def forget(self) -> None:
        """Start counting anew."""
        self.requests = []


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in the middle are what the tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _serve(hub: HubServer, handler: type[_Handler]) -> ThreadingHTTPServer:
    server = _Server(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output clean."""

    @property
    def token(self) -> str | None:
        header = self.headers.get("Authorization")
        return header.removeprefix("Bearer ") if header else None

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        """Send a whole answer; underscores in header names stand for dashes."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_response(self, code: int, message: str | None = None) -> None:
        path = unquote(urlsplit(self.path).path)
        self.seen = Seen(self.command, path, self.headers.get("Range"), self.token, code)
        self.hub.requests.append(self.seen)
        super().send_response(code, message)

    def refuse(self, status: int, message: str, code: str | None = None) -> None:
        """Refuse as the hub does: the reason in headers and in the body."""
        headers = {"Content_Type": "application/json", "X_Error_Message": message}
        if code:
            headers["X_Error_Code"] = code
        self.answer(status, json.dumps({"error": message}).encode(), **headers)

    def send_file(self, content: bytes, faults: Faults, **headers: str) -> None:
        """Send a file's content or the range asked for, with the faults that are switched on."""
        if self.command != "HEAD" and faults.fails > 0 and faults.fail_status:
            faults.fails -= 1
            return self.refuse(faults.fail_status, "switched to fail")
        asked = None if faults.ignore_range else self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start and start >= len(content):
            return self.answer(416, Content_Range=f"bytes */{len(content)}")
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in {"Accept_Ranges": "bytes", "Content_Length": str(len(content) - start), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(content[start:], faults)

    def _send_body(self, body: bytes, faults: Faults) -> None:
        if faults.corrupt > 0 and body:
            faults.corrupt -= 1
            body = bytes([body[0] ^ 0xFF]) + body[1:]
        end = len(body)
        if faults.drop_after is not None and faults.drops > 0:
            faults.drops -= 1
            end = min(end, faults.drop_after)
        sent = 0
        pause = threading.Event()
        while sent < end:
            block = body[sent : min(sent + _BLOCK_BYTES, end)]
            try:
                self.wfile.write(block)
            except OSError:  # the client is gone
                self.close_connection = True
                return
            sent += len(block)
            self.seen.sent += len(block)
            if faults.after_bytes is not None and sent >= faults.after_bytes:
                faults.after_bytes = None
                faults.hook()
            if faults.block_delay_s:
                pause.wait(faults.block_delay_s)
        if end < len(body):
            self.close_connection = True


class _HubHandler(_Handler):
    """``/api/models/...``, ``/ORG/NAME/resolve/...`` and ``/api/resolve-cache/...``.

    Data sets the same with ``datasets`` in the place of ``models``, and before ORG; they are repositories
    ``datasets/ORG/NAME`` here.
    """

    def do_GET(self) -> None:
        """Route a request."""
        if self.hub.html:
            return self.answer(200, b"<html>Log in to the network</html>", Content_Type="text/html")
        if self.token is not None and self.token not in self.hub.tokens:
            echo = f" {self.token}" if self.hub.echo_token else ""
            return self.refuse(401, f"Invalid credentials in Authorization header{echo}")
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        prefix = {"models": "", "datasets": "datasets/"}
        if parts[0] == "api" and parts[1] in prefix and (len(parts) == 4 or parts[4:5] == ["revision"]):
            return self._info(prefix[parts[1]] + "/".join(parts[2:4]), parts[5] if len(parts) == 6 else "main")
        if parts[0] == "api" and len(parts) == 6 and parts[4] == "tree":
            return self._tree(prefix[parts[1]] + "/".join(parts[2:4]), parts[5])
        if parts[:2] == ["api", "resolve-cache"]:
            name = prefix[parts[2]] + "/".join(parts[3:5])
            return self._resolve(name, parts[5], "/".join(parts[6:]), cached=True)
        if parts[0] == "datasets":
            parts[:2] = ["/".join(parts[:2])]
        if len(parts) > 4 and parts[2] == "resolve":
            return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), cached=False)
        return self.refuse(404, f"no route {self.path}")

    do_HEAD = do_GET

    def _find(self, name: str, revision: str) -> tuple[Repo, str] | None:
        """The repository and the commit, or None after a refusal was sent."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token not in repo.members):
            if self.token is None:  # the hub does not tell strangers what is missing and what is private
                self.refuse(401, "Invalid username or password.")
            else:
                self.refuse(404, "Repository not found", "RepoNotFound")
            return None
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return None
        return repo, commit

    def _info(self, name: str, revision: str) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        repo, commit = found
        blobs = parse_qs(urlsplit(self.path).query).get("blobs", ["false"])[0].lower() == "true"
        siblings = [_sibling(path, content, blobs) for path, content in repo.commits[commit].items()]
        info = {
            "_id": "0", "id": name.removeprefix("datasets/"), "modelId": name, "author": name.split("/")[-2],
            "sha": commit, "tags": [],
            "private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False,
            "lastModified": "2026-01-02T03:04:05.000Z", "createdAt": "2026-01-01T00:00:00.000Z", "siblings": siblings,
        }  # fmt: skip
        self.answer(200, json.dumps(info).encode(), Content_Type="application/json; charset=utf-8")

    def _tree(self, name: str, revision: str) -> None:
        if self.hub.refuse_tree:
            return self.refuse(403, "switched to refuse")
        found = self._find(name, revision)
        if found is None:
            return
        repo, commit = found
        entries = []
        for path, content in repo.commits[commit].items():
            entry = _sibling(path, content, True)
            lfs = {"lfs": {"oid": entry["lfs"].pop("sha256")} | entry["lfs"]} if "lfs" in entry else {}
            entries.append({"type": "file", "path": path, "size": len(content), "oid": entry["blobId"]} | lfs)
        self.answer(200, json.dumps(entries).encode(), Content_Type="application/json; charset=utf-8")

    def _resolve(self, name: str, revision: str, path: str, *, cached: bool) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        repo, commit = found
        if repo.gated and self.token not in repo.members:
            words = f"Access to model {name} is restricted"
            if self.token is None:
                return self.refuse(401, f"{words}. You must have access to it and be authenticated.", "GatedRepo")
            return self.refuse(403, f"{words} and you are not in the authorized list.", "GatedRepo")
        content = repo.commits[commit].get(path)
        if content is None:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        if path.endswith(LFS_SUFFIXES):
            oid = hashlib.sha256(content).hexdigest()
            place = f"{self.hub.cdn}/{commit}/{name}/{quote(path)}?Signature=once"
            size = str(len(content))
            return self.answer(302, X_Repo_Commit=commit, Location=place, X_Linked_Etag=f'"{oid}"', X_Linked_Size=size)
        if not cached:
            kind = name if name.startswith("datasets/") else f"models/{name}"
            place = f"/api/resolve-cache/{kind}/{commit}/{quote(path)}"
            return self.answer(307, X_Repo_Commit=commit, Location=place)
        faults = repo.faults.setdefault(path, Faults())
        self.send_file(content, faults, X_Repo_Commit=commit, ETag=f'"{git_sha1(content)}"')


class _CdnHandler(_Handler):
    """``/COMMIT/ORG/NAME/PATH``: whoever has the signed address is served; a token must never come here."""

    def do_GET(self) -> None:
        """Serve an LFS file."""
        commit, org, name, *rest = urlsplit(self.path).path.strip("/").split("/")
        if org == "datasets":
            org, name, *rest = f"{org}/{name}", *rest
        path = unquote("/".join(rest))
        if self.token is not None:
            return self.refuse(400, "a token was sent to the CDN")
        repo = self.hub.repos[f"{org}/{name}"]
        self.send_file(repo.commits[commit][path], repo.faults.setdefault(path, Faults()))

    do_HEAD = do_GET


def _sibling(path: str, content: bytes, blobs: bool) -> dict[str, Any]:
    """A file as model info lists it."""
    if not blobs:
        return {"rfilename": path}
    if not path.endswith(LFS_SUFFIXES):
        return {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
    pointer = lfs_pointer(content)
    lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": len(pointer)}
    return {"rfilename": path, "size": len(content), "blobId": git_sha1(pointer), "lfs": lfs}
