"""Puts the tools of an engine's environment before those of the node.  Standard library only.

Whatever an engine compiles while it loads is compiled by the locked compiler or not at all: for example, DeepGEMM's
kernels (FP8 in blocks) by ``nvcc``, which it looks for in ``CUDA_HOME``.
"""

from __future__ import annotations

import os
from pathlib import Path

_TOOLKIT = "lib/python3*/site-packages/nvidia/cu*"
"""Where the packages of the lock put the CUDA toolkit."""


def environment(python: Path, path: str) -> dict[str, str]:
    """Environment variables for a process of the interpreter ``python``; ``path``: the node's PATH.

    Includes ``CUDA_HOME`` and ``CUDA_PATH`` only if the environment has a toolkit with a compiler.
    """
    own = python.parent
    found = {"PATH": os.pathsep.join(filter(None, [str(own), path]))}
    homes = [home for home in own.parent.glob(_TOOLKIT) if (home / "bin" / "nvcc").exists()]
    return found | ({"CUDA_HOME": str(max(homes)), "CUDA_PATH": str(max(homes))} if homes else {})
