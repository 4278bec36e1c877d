"""Imports of large libraries in less time.  Standard library only."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection within the context: it is a quarter of the 7 s of CPU time that importing vLLM takes."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def model_classes() -> Iterator[None]:
    """Import model classes of transformers within the context, without scikit-learn, scipy and pandas (2 of 7 s).

    Its assisted generation uses them, if they are there; here, models only run forward or are written.
    """
    with no_collection():
        from transformers import utils

        utils.is_sklearn_available = lambda: False
        yield
