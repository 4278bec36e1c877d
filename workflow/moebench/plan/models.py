"""Weights of an engine configuration and their location."""

from __future__ import annotations

from collections.abc import Callable

from moebench.architectures.hf_config import family, reshaped
from moebench.config import Architecture, Calibration, EngineKnobs, ModelSpec
from moebench.config.identity import digest, stated
from moebench.config.lockfile import SHARED_REVISION
from moebench.errors import ConfigError
from moebench.formats.model import ArchitectureDict
from moebench.plan.model import Model
from moebench.plan.pruned import pruned
from moebench.plan.quantized import quantized, ready_made

RECIPE_VERSION = 1
"""Increased whenever other weights or another tokenizer are written for the same architecture and seed."""


def recipe_revision(architecture: ArchitectureDict, seed: int) -> str:
    """Revision of a checkpoint that the project writes: a hash of what determines it."""
    return digest({"recipe": RECIPE_VERSION, "architecture": stated(Architecture, architecture), "seed": seed}, 12)


def hub_folder(models: str, hub: str, revision: str) -> str:
    """Folder of a hub model at a revision; a commit is shortened, an unpinned branch is used as it is."""
    return f"{models}/{hub.replace('/', '--')}/{revision[:12] if len(revision) == 40 else revision}"


def shared_folder(models: str, name: str, revision: str) -> str:
    """Folder with the links to a shared model's files."""
    return f"{models}/{name}--{revision[:12]}"


def resolve_model(
    spec: ModelSpec,
    knobs: EngineKnobs,
    models: str,
    commit: Callable[[str, str], str | None],
    calibration: Calibration | None = None,
) -> Model:
    """The model that an engine configuration reads: a staged one, or one derived from it.  Raises ConfigError for an
    impossible shape or derivation.
    """
    model = staged_model(spec, knobs, models, commit)
    if knobs.pruning != "none":
        model = pruned(model, knobs, calibration or Calibration())
    return quantized(model, knobs, calibration or Calibration())


def staged_model(spec: ModelSpec, knobs: EngineKnobs, models: str, commit: Callable[[str, str], str | None]) -> Model:
    """The model as it is staged, before any derivation.

    A checkpoint the project writes is written in the shape asked for; a hub checkpoint keeps its shape, so other
    expert counts or FFN sizes need ``weights: dummy`` (the engine fills the overridden shape itself).
    """
    changed = {"experts": knobs.experts, "moe_ffn_size": knobs.moe_ffn_size}
    try:
        architecture = spec.architecture.as_dict()
        family(architecture)
        shape = reshaped(architecture, **changed)
    except ValueError as error:
        raise ConfigError(f"model {spec.name}: {error}") from None
    if spec.source.random_init is not None:
        seed = spec.source.random_init.seed
        revision = recipe_revision(shape, seed)
        suffix = "".join(f".{k.removeprefix('moe_')[0]}{size}" for k, size in changed.items() if size)
        weights = knobs.weights or "random_init"
        if weights == "checkpoint":
            raise ConfigError(f"model {spec.name} has no trained checkpoint; use weights: random_init")
        stem = f"{spec.name}{suffix}"
        return Model(spec, shape, weights, revision, f"{models}/{stem}-{revision[:8]}", "random_init", models, stem)
    weights = knobs.weights or "checkpoint"
    if weights == "random_init":
        raise ConfigError(f"model {spec.name} is a trained checkpoint; use weights: checkpoint or dummy")
    if any(changed.values()) and weights != "dummy":
        raise ConfigError(
            f"model {spec.name}: experts or moe_ffn_size cannot change in a trained checkpoint; set weights: dummy"
        )
    if spec.source.path is not None:
        own = spec.source.quantization
        if own not in ("none", knobs.quantization):
            raise ConfigError(f"model {spec.name}: {spec.source.path} is quantized; set quantization: {own}")
        revision = commit(spec.source.shared, SHARED_REVISION) or SHARED_REVISION
        path = shared_folder(models, spec.name, revision)
        return Model(spec, shape, weights, revision, path, spec.source.shared, models, spec.name)
    hub = ready_made(spec, knobs) or spec.source.hub
    assert hub is not None
    revision = commit(hub.hub, hub.revision) or hub.revision
    path = hub_folder(models, hub.hub, revision)
    return Model(spec, shape, weights, revision, path, f"hub:{hub.hub}", models, spec.name)
