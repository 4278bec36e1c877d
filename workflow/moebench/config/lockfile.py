"""The lock file of hub models: which commit a branch was resolved to, once.

``config/models.lock.yaml`` maps ``ORG/NAME@revision`` to the commit, and ``path:FOLDER@files`` to the hash of a shared
folder's files; when it was first staged whole, and how many files and bytes that is.  It belongs under version control:
with it a colleague stages the same weights.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import yaml
from filelock import FileLock
from pydantic import Field

from moebench.config import Count, Strict, parse, read_yaml
from moebench.errors import StorageError

COMMIT = re.compile(r"^[0-9a-f]{40}$")
SHARED_REVISION = "files"
"""Revision of a folder on a shared disk, which is pinned to the hash of its files."""

HEADER = """\
# Written by `moebench stage`: the commit each hub model was resolved to. Keep it under version control.
# `moebench stage --update` resolves branches anew. staged_at: first time it was whole on a disk; null: not yet.
"""


class Pin(Strict):
    """What one ``ORG/NAME@revision`` was resolved to."""

    commit: Annotated[str, Field(pattern=COMMIT.pattern)]
    staged_at: str | None = None
    files: Count
    bytes: Count


class ModelLock:
    """The lock file at ``path``; a file that is not there is an empty one.

    >>> lock = ModelLock(Path("config/models.lock.yaml"))
    >>> lock.pin("org/name", "main", "0" * 40, files=2, bytes_=100)
    >>> lock.commit("org/name", "main")
    '0000000000000000000000000000000000000000'
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def read(self) -> dict[str, Pin]:
        """All pins by ``ORG/NAME@revision``.  Raises ConfigError naming the file if it is not a lock file."""
        if not self.path.exists():
            return {}
        data = read_yaml(self.path) or {}
        if not isinstance(data, dict):
            data = {"(top level)": data}
        return {str(key): parse(Pin, value, f"{self.path}: {key}") for key, value in data.items()}

    def commit(self, hub: str, revision: str) -> str | None:
        """The pinned commit; a revision that is a whole commit id is its own; None: not resolved yet."""
        pin = self.read().get(f"{hub}@{revision}")
        if pin is not None:
            return pin.commit
        return revision if COMMIT.match(revision) else None

    def pin(self, hub: str, revision: str, commit: str, *, files: int, bytes_: int) -> None:
        """Pin ``revision`` to ``commit``; ``staged_at`` is kept if the commit is the same.

        Raises StorageError if the file cannot be written.
        """
        self._set(hub, revision, Pin(commit=commit, files=files, bytes=bytes_))

    def staged(self, hub: str, revision: str) -> None:
        """Note that the pinned commit is whole on disk; later calls do not change the file."""
        pin = self.read()[f"{hub}@{revision}"]
        if pin.staged_at is None:
            now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            self._set(hub, revision, pin.model_copy(update={"staged_at": now}))

    def _set(self, hub: str, revision: str, pin: Pin) -> None:
        """Read, change, write under a lock: two stagings at once must not lose each other's pins."""
        key = f"{hub}@{revision}"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            guard = self.path.with_name(f".{self.path.name}.lock")
            with FileLock(guard, timeout=30):
                pins = self.read()
                old = pins.get(key)
                if old and old.commit == pin.commit and pin.staged_at is None:
                    pin = pin.model_copy(update={"staged_at": old.staged_at})
                if old != pin:
                    _write(self.path, pins | {key: pin})
                guard.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written ({error.strerror or error})") from error


def _write(path: Path, pins: dict[str, Pin]) -> None:
    """Write all pins sorted by key, by rename: a reader sees the old file or the new one."""
    tree = {key: pins[key].model_dump() for key in sorted(pins)}
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(HEADER + (yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=1000) if tree else ""))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


class _Dumper(yaml.SafeDumper):
    """YAML with values in quotes: a commit such as 12...e34... would be read back as a number."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if COMMIT.match(text) or ":" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)
