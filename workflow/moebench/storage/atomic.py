"""Atomic file writes."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from moebench.errors import StorageError


def canonical_bytes(data: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def write_atomic(path: Path, data: bytes) -> None:
    """Write bytes so that ``path`` holds either the old or the new content, whatever happens.

    Raises StorageError, leaving ``path`` as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); free space or fix permissions, then run "
            "again: everything written so far is kept"
        ) from None


def stamp() -> str:
    """Now, UTC, ISO 8601 with microseconds."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
