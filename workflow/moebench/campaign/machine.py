"""Checks of a machine before a campaign loads an engine: one line instead of a failed load.

Standard library only: runs where the campaign does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import cast

from moebench.errors import UserError
from moebench.formats.record import Provenance

_IMPORTS = {"vllm": "from vllm import LLM", "transformers": "import torch, transformers"}
_DEVICES = "; import json; from moebench.measure.worker import provenance; print(json.dumps(provenance()))"


def seen_by(kind: str) -> Provenance:
    """Versions and devices that an engine of this kind finds here.  Raises UserError if it cannot be imported."""
    command = [sys.executable, "-c", _IMPORTS[kind] + _DEVICES]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "killed").splitlines()[-1]
        raise UserError(f"{kind} cannot be imported by {sys.executable} ({last})")
    return cast(Provenance, json.loads(done.stdout.splitlines()[-1]))  # vLLM logs on standard output


def lacks() -> str | None:
    """What this machine lacks for Triton to start a kernel, as text; None: nothing."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "no C compiler (install gcc, or name one in CC)"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return f"no Python.h for {sys.executable} (install its development files, such as python3-dev)"
    return None
