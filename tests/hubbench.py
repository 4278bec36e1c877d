"""A checkout that stages a repository of the local hub, for tests of ``moebench.models.hub``."""

from __future__ import annotations

import contextlib
import io
import random
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from hubserver import HubServer
from moebench.config import HubSource
from moebench.config.lockfile import ModelLock
from moebench.errors import StageError
from moebench.models import hub
from moebench.models.hubprogress import Progress
from moebench.storage import staged

WEIGHTS = "model.safetensors"
MB = 1_000_000
NAME = "org/moe"


def noise(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


FILES = {"config.json": b'{"a": 1}\n', "vocab.txt": b"", "README.md": b"not wanted", WEIGHTS: noise(2 * MB)}


UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Of every client here, since none speaks TLS: to read the certificates of all authorities takes 40 ms each time."""


@contextlib.contextmanager
def environment(folder: Path) -> Iterator[None]:
    """No token, cache or proxy of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("HF_HOME", str(folder / "hf"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "hf" / "token"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(ssl, "create_default_context", lambda *_, **__: UNUSED)
        close_session()
        yield
        close_session()


class Bench:
    """One checkout with a models folder: stages ``org/moe`` into it."""

    def __init__(self, root: Path, server: HubServer | None = None):
        self.root, self.server = root, server
        self.lock = ModelLock(root / "config" / "models.lock.yaml")
        self.log = io.StringIO()

    def folder(self, commit: str) -> Path:
        return self.root / "models" / f"moe-{commit[:7]}"

    def stage(
        self, revision: str = "main", *, name: str = NAME, endpoint: str | None = None, **options: Any
    ) -> hub.Staged:
        if endpoint is None and self.server:
            endpoint = self.server.endpoint
        source = HubSource(hub=name, revision=revision, **options.pop("source", {}))
        options.setdefault("retry_waits_s", (0.01, 0.01, 0.01))
        progress = Progress(self.log)
        return hub.stage_hub(source, self.folder, self.lock, progress, endpoint=endpoint, **options)

    def refused(self, *arguments: str, **options: Any) -> str:
        """The message of the StageError, checked for what every one promises."""
        with pytest.raises(StageError) as caught:
            self.stage(*arguments, **options)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{options.get('name', NAME)}: ")
        return message

    def written(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


def assert_whole(folder: Path, files: dict[str, bytes]) -> None:
    wanted = {name: content for name, content in files.items() if name != "README.md"}
    assert {name: (folder / name).read_bytes() for name in wanted} == wanted
    assert staged.check(folder, full=True) == []
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {*wanted, staged.MANIFEST}
