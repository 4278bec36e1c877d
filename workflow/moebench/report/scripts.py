"""The page's scripts: Observable Plot as bundled, and the page's own script."""

from __future__ import annotations

import hashlib
from pathlib import Path

from moebench.errors import StorageError

_HERE = Path(__file__).parent
PLOT = _HERE / "plot" / "plot.js"
LICENSES = _HERE / "plot" / "LICENSES.txt"
PLOT_SHA256 = "f1217ec3542480d7d561add62c27291bab4a31ddb0419ad40e5a84865de326ce"
"""Of ``plot.js``; `make plot` makes the same file from the locked packages."""
PARTS = ("data", "state", "fold", "rows", "marks", "record", "table", "explore", "page")
"""Files of ``script/`` in the order in which they run; they share one scope."""


def plot() -> str:
    """Observable Plot, as text of a ``script`` element.  Raises StorageError if the file is not the pinned one."""
    made = PLOT.read_bytes()
    if hashlib.sha256(made).hexdigest() != PLOT_SHA256:
        raise StorageError(f"{PLOT}: is not the pinned file (SHA-256 {PLOT_SHA256[:12]}...); run `make plot`")
    return made.decode("utf-8")


def page() -> str:
    """The page's own script, as text of a ``script`` element."""
    parts = [(_HERE / "script" / f"{name}.js").read_text(encoding="utf-8") for name in PARTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();"
