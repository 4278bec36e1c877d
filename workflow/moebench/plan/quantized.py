"""Quantized models in a plan: derived from another checkpoint, or ready-made.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moebench.architectures import quantization_schemes
from moebench.config import Calibration, EngineKnobs, HubSource, ModelSpec
from moebench.errors import Unsupported
from moebench.formats.model import DerivationSettings
from moebench.plan.derived import derive

if TYPE_CHECKING:
    from moebench.plan.model import Model


def ready_made(spec: ModelSpec, knobs: EngineKnobs) -> HubSource | None:
    """The hub checkpoint that a model's file names for the scheme asked for.  A pruned model has none: it is quantized
    after pruning."""
    return spec.quantized.get(knobs.quantization) if knobs.pruning == "none" else None


def quantized(parent: Model, knobs: EngineKnobs, calibration: Calibration) -> Model:
    """The model to load for the knob ``quantization``: ``parent`` itself if the engine quantizes while loading, or
    if it is ready-made, else the model derived from it.

    Raises Unsupported for a model that cannot be quantized this way.
    """
    name, model = knobs.quantization, parent.spec.name
    if name == "none" or name in quantization_schemes.WHILE_LOADING or ready_made(parent.spec, knobs) is not None:
        return parent
    if parent.spec.source.quantization == name and knobs.pruning == "none":
        return parent
    if name in quantization_schemes.EXPERTS_ONLY:
        raise Unsupported(
            f"quantization {name!r} of {model}: the project cannot create such checkpoints; name a published one "
            f"(quantized.{name} in its file), or another scheme"
        )
    if parent.weights == "dummy":
        raise Unsupported(
            f"quantization {name!r} of {model} with weights: dummy: there are no weights to quantize; use weights: "
            f"checkpoint or random_init, or name a ready-made checkpoint (quantized.{name} in its file)"
        )
    scheme = quantization_schemes.SCHEMES[name]
    settings: DerivationSettings = {"scheme": name, "method": scheme.method, "tool": quantization_schemes.TOOL}
    if scheme.scales == "group":
        try:
            settings["group"] = quantization_schemes.group_size(parent.architecture)
        except ValueError as error:
            raise Unsupported(f"quantization {name!r} of {model}: {error}") from None
    if scheme.method != "rtn":
        settings["calibration"] = calibration.identity()
    return derive(parent, "quantize", name.replace("_", ""), settings, parent.architecture)
