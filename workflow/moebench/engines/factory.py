"""The engine of an engine configuration, by its name."""

from __future__ import annotations

from moebench.engines.protocol import Engine
from moebench.formats.plan import EngineConfig


def make(name: str, spec: EngineConfig) -> Engine:
    """The engine called ``name`` for an engine configuration of the plan.

    ``spec``: ``config`` (knobs), ``model``, ``draft`` (a model or null) and ``memory_fraction``, the share of the
    device's memory the engine may use.
    """
    if name == "vllm":
        from moebench.engines.vllm import VllmEngine

        return VllmEngine(spec)
    if name == "transformers":
        from moebench.engines.transformers import TransformersEngine

        return TransformersEngine(spec)
    if name == "endpoint":
        from moebench.engines.endpoint import EndpointEngine

        return EndpointEngine(spec)
    raise ValueError(f"there is no engine {name!r}")
