"""What the driver asks of an engine.  An engine lives in the worker process and may die there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Images = Sequence[Sequence[Any]]
"""PIL images of each request of a batch, in the order of its prompts; empty: a batch of text."""


class Engine(Protocol):
    """A loaded model that runs batches of token-id prompts."""

    def load(self) -> dict[str, Any]:
        """Load the model; return facts of the session (KV capacity, versions, ...)."""

    def set_top_k(self, top_k: int) -> None:
        """Set the active experts per token of every MoE layer in the loaded engine.

        Raises NotImplementedError where a compiled router would ignore it.
        """

    def trace(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> dict[str, Any]:
        """Run a batch; return ``step_end_s`` (s since submission) and ``requests`` (run-length coded tokens).

        With images also ``image_tokens``, how many each request's images became (a list), and ``preprocess_s``, when
        the last request's images were prepared (s since submission).

        Raises RuntimeError if a request came back with another number of tokens than asked for.
        """

    def timed(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> float:
        """Run a batch through the engine's plain interface; return its wall time, s."""

    def capture(self, on: bool) -> bool:
        """Start (or stop) counting the experts each token is routed to; False where that cannot be done."""

    def captured(self) -> dict[int, dict[str, Any]]:
        """Counts since capture began, per layer.

        ``counts`` per expert, ``phases``: the same apart by phase of the step (prefill, decode, mixed), ``steps`` as
        [tokens, distinct experts], and ``step_phases``, the phase of each.
        """

    def counters(self) -> dict[str, float]:
        """Cumulative ``preemptions`` and ``prefix_cache_hits``."""

    def close(self) -> None:
        """Free the engine's memory, so that another can be loaded in this process."""
