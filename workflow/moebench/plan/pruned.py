"""Pruned models in a plan: their shape and identity.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moebench.architectures.hf_config import family, reshaped, shared_experts
from moebench.config import Calibration, EngineKnobs
from moebench.errors import ConfigError, Unsupported
from moebench.formats import Knobs
from moebench.formats.model import DerivationSettings
from moebench.plan import prune_shape
from moebench.plan.derived import derive

if TYPE_CHECKING:
    from moebench.plan.model import Model

STACKED = ("llama4",)
"""Families whose checkpoints hold all experts of a layer in one tensor (``gate_up_proj`` [E, hidden, 2 x width])."""


def normal(knobs: EngineKnobs) -> Knobs:
    """Knobs of pruning that are meant otherwise than they are spelt: the method when none is named, defaults for what
    changes nothing.  With ``prune_ratio`` 0 nothing is pruned."""
    update: Knobs = {}
    if knobs.pruning != "none" and knobs.prune_ratio == 0:
        update |= {"pruning": "none", "prune_by": None}
    elif knobs.pruning != "none" and knobs.prune_by is None:
        update["prune_by"] = prune_shape.method(knobs.pruning, None)
    if knobs.pruning != "intra" or knobs.prune_ratio == 0:
        update["prune_multiple"] = EngineKnobs.model_fields["prune_multiple"].default
    return update


def pruned(parent: Model, knobs: EngineKnobs, calibration: Calibration) -> Model:
    """The model that pruning makes of ``parent``.

    Raises Unsupported for a model that cannot be pruned so, ConfigError for a method of the other kind of pruning.
    """
    name, ratio = parent.spec.name, knobs.prune_ratio
    experts = parent.architecture["experts"]
    if experts is None:
        raise Unsupported(f"pruning {knobs.pruning!r}: {name} is dense, it has no experts to prune")
    if parent.architecture["family"] in STACKED:
        raise Unsupported(
            f"pruning {knobs.pruning!r}: the checkpoint of {name} has all experts of a layer in one tensor, which "
            f"cannot be pruned; leave this model out"
        )
    if parent.weights == "dummy":
        raise Unsupported(
            f"pruning {knobs.pruning!r} of {name} with weights: dummy: all choices are equivalent; set experts or "
            f"moe_ffn_size instead"
        )
    try:
        by = prune_shape.method(knobs.pruning, knobs.prune_by)
    except ValueError as error:
        raise ConfigError(f"model {name}: {error}") from None
    try:
        settings: DerivationSettings = {"kind": knobs.pruning, "ratio": ratio, "by": by}
        if knobs.pruning == "inter":
            settings["experts"] = prune_shape.kept_experts(experts["count"], ratio)
            architecture = reshaped(parent.architecture, experts=settings["experts"])
        else:
            settings["multiple"] = prune_shape.multiple(knobs.prune_multiple, knobs.tp, knobs.quantization)
            settings["ffn_size"] = prune_shape.kept_width(experts["ffn_size"], ratio, settings["multiple"])
            architecture = reshaped(parent.architecture, moe_ffn_size=settings["ffn_size"])
            if family(architecture).shared != "width":
                shared_experts(architecture)
    except ValueError as error:
        raise Unsupported(f"pruning {knobs.pruning!r} of {name}: {error}") from None
    if by == "random":
        settings["seed"] = calibration.seed
    if by in prune_shape.CALIBRATED:
        settings["calibration"] = calibration.identity()
    return derive(parent, "prune", f"{knobs.pruning}{100 * ratio:g}-{by}", settings, architecture)
