"""Derived checkpoints in a plan: models created from another checkpoint (pruned, quantized) before they are loaded.

A derived model is a model like any other, with its own folder, revision and architecture; ``derived`` says by what,
with which settings and from which parent it is made.  A parent may be derived itself.  Pure: names and sizes, no files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from moebench.config import Architecture, EngineKnobs, Study
from moebench.config.identity import digest
from moebench.cost import memory, params
from moebench.formats.model import ArchitectureDict, Derivation, DerivationSettings, ModelDict
from moebench.formats.plan import DeriveJob, EngineConfig
from moebench.models.derive import derivation

if TYPE_CHECKING:
    from moebench.plan.model import Model

DERIVE_VERSION = 1
"""Increased whenever the same parent and settings give other weights, so derived checkpoints are created again."""

SOURCE = "derived:"
"""How the ``source`` of a derived model begins; what it is derived by follows."""

ENVIRONMENTS: Mapping[str, tuple[str, str]] = {"quantize": ("quantize-cpu", "quantize-cuda")}
"""Environments of envs/, for a CPU and for a GPU, in which a kind of derivation runs, where it is not the engine's."""


def derive(parent: Model, by: str, label: str, settings: DerivationSettings, architecture: ArchitectureDict) -> Model:
    """The model that ``by`` derives from ``parent``.

    Its revision is a hash of the parent's identity and the settings; ``label`` is a readable word of the
    folder's name, ``PARENT.LABEL-REVISION``.  ``architecture`` is the one it has then.
    """
    identity = {"version": DERIVE_VERSION, "parent": parent.identity(), "by": by, "settings": settings}
    revision = digest(identity, 12)
    stem = f"{parent.stem}.{label}"
    return dataclasses.replace(
        parent,
        architecture=architecture,
        revision=revision,
        stem=stem,
        path=f"{parent.models}/{stem}-{revision[:8]}",
        source=f"{SOURCE}{by}",
        derived={"by": by, "settings": settings, "parent": parent.as_json()},
    )


def parents(model: ModelDict) -> Iterator[ModelDict]:
    """The ancestors of a model, nearest first."""
    while derived := model.get("derived"):
        model = derived["parent"]
        yield model


def root(model: ModelDict) -> ModelDict:
    """The staged ancestor: the model itself if it is not derived."""
    return [model, *parents(model)][-1]


def models_of(engines: Iterable[EngineConfig]) -> Iterator[ModelDict]:
    """Models that engine configurations of a plan load, drafts included."""
    return (model for engine in engines for model in (engine["model"], engine["draft"]) if model)


def derived_models(engines: Mapping[str, EngineConfig]) -> dict[str, ModelDict]:
    """Every derived model of a plan once, by folder name, parents first."""
    found: dict[str, ModelDict] = {}
    for loaded in models_of(engines.values()):
        for model in reversed([loaded, *parents(loaded)]):
            if model.get("derived"):
                found.setdefault(model["path"].rpartition("/")[2], model)
    return found


def jobs(models: Mapping[str, ModelDict], study: Study, devices: int) -> dict[str, DeriveJob]:
    """Derived models to jobs: one each, or pruned ones packed up to ``pack_minutes`` of expected time.

    Each on one GPU where there are ``devices``; time and memory simply from the weight bytes of the parents.  Time: the
    parent read twice (to calibrate, to copy) and written once.  Memory: a tool that streams (prune) needs less than
    ``host_memory_mb``; one that holds the model needs one and a half times that.
    """
    settings, own, devices = study.jobs, study.engine.environment, min(devices, 1)
    packs: list[DeriveJob] = []
    for name, model in models.items():
        derived, weights = derivation(model), parent_bytes(model)
        by = derived["by"]
        environment = ENVIRONMENTS.get(by, (own, own))[devices]
        seconds = 3 * weights / settings.weights_bytes_per_s
        if by == "quantize":
            seconds += _calibration_s(derived, gpu=devices > 0)
        last = next((pack for pack in reversed(packs) if pack["by"] == by == "prune"), None)
        if last is None or last["expected_s"] + seconds > 60 * settings.pack_minutes:
            last = {
                "by": by,
                "models": [],
                "environment": environment,
                "gpus": devices,
                "cpus": settings.cpus,
                "mem_mb": settings.host_memory_mb,
                "runtime_min": 0,
                "expected_s": settings.load_s,
            }
            packs.append(last)
        last["models"].append(name)
        last["expected_s"] = round(last["expected_s"] + seconds, 1)
        last["mem_mb"] = max(last["mem_mb"], 0 if by == "prune" else math.ceil(1.5 * weights / 1e6))
    made = {}
    for pack in packs:
        names = pack["models"]
        pack["runtime_min"] = math.ceil(pack["expected_s"] * settings.time_factor / 60) + 5
        made[names[0] if len(names) == 1 else f"derive{len(names)}-{digest(names)}"] = pack
    return made


def parent_bytes(model: ModelDict) -> float:
    """Weight bytes of a derived model's parent at 16 bits."""
    architecture = Architecture.model_validate(derivation(model)["parent"]["architecture"])
    return memory.weight_bytes(architecture, EngineKnobs(model=model["name"]))


_PASSES = {"rtn": 0, "gptq": 4, "awq": 45}
"""Times that a method computes a layer: calibrating and handing on, GPTQ's Hessians; AWQ tries 20 scales twice."""
_ASSUMED_FLOPS_PER_S = {False: 2e10, True: 1e14}
"""Of a CPU core and of a GPU while calibrating: assumed low, since it only sizes the time a job asks for."""


def _calibration_s(derived: Derivation, gpu: bool) -> float:
    """Expected time to calibrate: 2 operations per weight and token, every expert on every token, times the passes."""
    settings, architecture = derived["settings"], Architecture.model_validate(derived["parent"]["architecture"])
    calibration = settings.get("calibration")
    if not calibration:
        return 0.0
    count = params.total_parameters(architecture)
    tokens = calibration["sequences"] * calibration["tokens"]
    operations: float = 2.0 * (count.total - count.embeddings) * tokens * _PASSES[settings["method"]]
    return operations / _ASSUMED_FLOPS_PER_S[gpu]
