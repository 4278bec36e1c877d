"""An engine that travels with a campaign: its archives, unpacked once into a folder that Python finds it in.

Standard library only: runs where the campaign does.
"""

from __future__ import annotations

import compileall
import importlib
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moebench.errors import StorageError

ARCHIVES = "engine"
"""Folder of the archives in a campaign."""
SITE = "packages"
"""Folder they are unpacked into; ``run.sh`` puts it on PYTHONPATH."""

_AS_DATA: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.11.3 and older know no filter; the archives are the project's own."""


def install(folder: Path, say: Callable[[str], None]) -> None:
    """Unpack the archives of the engine, unless they are, or there are none.  Raises StorageError."""
    archives, site = sorted((folder / ARCHIVES).glob("*.tar.xz")), folder / SITE
    whole = site / ".whole"
    if not archives or whole.exists():
        return
    say(f"unpacking the engine ({len(archives)} archives)")
    try:
        for archive in archives:
            with tarfile.open(archive) as packed:
                packed.extractall(site, **_AS_DATA)
        compileall.compile_dir(str(site), quiet=2, workers=os.cpu_count() or 1)
        whole.touch()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise StorageError(f"{site}: the engine cannot be unpacked ({error}); free space, or pack it again") from None
    sys.path.append(str(site))
    importlib.invalidate_caches()
