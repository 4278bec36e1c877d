"""A small file system (tmpfs) that a test mounts over a folder and really fills."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: run the tests as root")
BALLAST = "ballast"


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """The folder (made if it is not there) as a file system of ``size`` (as mount takes it, e.g. 512k)."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)  # lazily: a failed write may leave a file open


def fill(folder: Path, leave_bytes: int = 0) -> None:
    """Fill the file system of a folder, except for some bytes (whole pages)."""
    with (folder / BALLAST).open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(folder / BALLAST, (folder / BALLAST).stat().st_size - leave_bytes)


def free(folder: Path) -> None:
    """Make room again."""
    (folder / BALLAST).unlink()
