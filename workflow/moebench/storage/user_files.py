"""Users' files whose contents are part of a plan, wherever they are: texts for calibration, and traces.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

hashed: dict[str, str] = {}
"""SHA-256 of the files that this process has read for its plans, by absolute path."""


def sha256(path: Path) -> str:
    """SHA-256 of a file, which is remembered in ``hashed``.  Raises OSError."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    hashed[os.path.abspath(path)] = found
    return found
