"""What makes loading many small models in one process slow, and is of no use on a CPU.

Measured on two cores of an AMD EPYC, vLLM 0.32: a load of a 20 MB model took 10 s where its architecture was new to
the machine and 2.0 s otherwise, and its unload 1.6 s.  Both functions here touch time only, never what is computed.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


def inspect_models_here() -> None:
    """Have vLLM inspect a model class in this process instead of a new one, which imports all of vLLM again (8 s).

    vLLM does it apart "to avoid initializing CUDA"; a CPU build has none.  Idempotent.
    """
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda inspect: inspect()


@contextlib.contextmanager
def one_collection() -> Iterator[None]:
    """Collect garbage once, at the end, however often the code within asks for it (five times per load, 0.3 s each)."""
    collect = gc.collect
    gc.collect = lambda generation=2: 0  # type: ignore[assignment]
    try:
        yield
    finally:
        gc.collect = collect
        gc.collect()
