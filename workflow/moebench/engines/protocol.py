"""The interface between the driver and an engine.  An engine lives in the worker process and may die there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, Protocol, TypedDict

from moebench.formats.record import LoadFacts, Trace

Images = Sequence[Sequence[Any]]
"""PIL images of each request of a batch, in the order of its prompts; empty: a batch of text."""


class Batch(TypedDict):
    """The input of an engine: prompts as token ids and, if the workload has them, images."""

    prompts: list[list[int]]
    images: NotRequired[Images]


class Routed(TypedDict):
    """The experts that a layer's router chose.

    counts: tokens per expert. phases: the same by phase of the step (prefill, decode, mixed).  steps: [tokens, distinct
    experts] of each step; step_phases: its phase.
    """

    counts: list[int]
    phases: dict[str, list[int]]
    steps: list[list[int]]
    step_phases: list[str]


class Engine(Protocol):
    """A loaded model that runs batches of token-id prompts."""

    def load(self) -> LoadFacts:
        """Load the model; return facts of the session (KV capacity, versions, ...)."""

    def set_top_k(self, top_k: int) -> None:
        """Set the active experts per token of every MoE layer in the loaded engine.

        Raises NotImplementedError if a compiled router would ignore it.
        """

    def trace(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> Trace:
        """Run a batch, recording the end of every step.

        Raises RuntimeError if a request did not generate the requested number of tokens.
        """

    def timed(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> float:
        """Run a batch through the engine's normal interface; return its wall time, s."""

    def capture(self, on: bool) -> bool:
        """Start (or stop) counting the experts that each token is routed to; return False if the engine cannot."""

    def captured(self) -> dict[int, Routed]:
        """Counts since capture began, by layer number."""

    def counters(self) -> dict[str, float]:
        """Cumulative ``preemptions`` and ``prefix_cache_hits``."""

    def close(self) -> None:
        """Free the engine's memory, so that another can be loaded in this process."""
