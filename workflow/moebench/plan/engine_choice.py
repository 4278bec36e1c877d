"""Which engine runs an engine configuration: the study's, or one of its further ``engines`` (knob ``engine_name``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from moebench.config import Endpoint, Engine, EngineKnobs, Hardware, ModelSpec, Study, WorkloadKnobs
from moebench.engines import variables
from moebench.errors import ConfigError, nearest
from moebench.formats import Knobs
from moebench.formats.plan import OPTIONAL, EndpointDict, Pinned, Runtime

_TRANSFORMERS_KERNELS = {"fused": "grouped_mm", "unfused": "eager"}
"""What stands for vLLM's two kernels there: its default, and its loop over experts."""

_OF_THE_SERVICE = (
    "dtype", "kv_cache_dtype", "tp", "pp", "dp", "ep", "kernel_config", "mla", "eager", "max_model_len",
    "max_num_seqs", "max_num_batched_tokens", "cpu_threads", "kv_cache_mb",
)  # fmt: skip
"""Hardware knobs that a hosted service sets itself, so a study's defaults do not apply."""

_NOT_OF_A_SERVICE = ("experts", "moe_ffn_size", "quantization", "pruning", "prune_ratio", "prune_by", "draft_model",
                     "draft_tokens", "expert_kernel", "weights", *OPTIONAL)  # fmt: skip
"""Knobs that change the model, which is impossible in a hosted service, so setting them is a mistake."""

_NO_IDENTITY = {"key_env", "timeout_s", "models"}
"""Settings of an endpoint that do not affect results; of ``models`` only the one in use matters."""


def of(study: Study, knobs: EngineKnobs) -> tuple[str, Engine]:
    """Name and settings of the engine that runs these knobs.  Raises ConfigError for an unknown name."""
    name = knobs.engine_name or study.engine.name
    if name == study.engine.name:
        return name, study.engine
    if name not in study.engines:
        known = [study.engine.name, *study.engines]
        raise ConfigError(f"engine_name {name!r} is not an engine of study {study.name}" + nearest(name, known))
    return name, study.engines[name]


def live_top_k(engine: Engine, knobs: EngineKnobs) -> bool:
    """Whether top-k is set in the loaded engine rather than by reloading it."""
    if engine.name == "endpoint":
        return False
    if engine.live_top_k == "auto":
        return knobs.eager or engine.name == "transformers"
    return engine.live_top_k


def plain(knobs: EngineKnobs, study: Study, engine: Engine, hardware: Hardware) -> EngineKnobs:
    """The knobs as this engine interprets them, so equivalent settings are one cell.

    ``own_process`` is a choice only for vLLM's offline engine on one device of a CPU study: on GPUs one device is
    compared with several.
    """
    own: Knobs = {"engine_name": None} if engine is study.engine else {}
    always = knobs.tp * knobs.pp * knobs.dp > 1 or hardware.kind == "gpu"
    offline = engine.name == "vllm"
    update: Knobs = {"own_process": offline and (always or knobs.own_process)}
    if engine.name == "transformers":
        update |= {"eager": True, "expert_kernel": _TRANSFORMERS_KERNELS.get(knobs.expert_kernel, knobs.expert_kernel)}
    elif engine.hosted:
        update |= {k: EngineKnobs.model_fields[k].default for k in _OF_THE_SERVICE}
    return knobs.model_copy(update=own | update)


def problems(name: str, engine: Engine, knobs: EngineKnobs, work: WorkloadKnobs, spec: ModelSpec) -> Iterator[str]:
    """Settings that this engine does not support, as messages."""
    if engine.name != "transformers" and knobs.expert_kernel in ("eager", "batched_mm", "grouped_mm"):
        yield f"expert_kernel {knobs.expert_kernel!r} is one of transformers, not of engine {name!r}"
    if not engine.hosted:
        return
    assert engine.endpoint is not None
    if spec.name not in engine.endpoint.models:
        yield f"engines.{name}.endpoint.models does not give the service's name of {spec.name}"
    for knob in _NOT_OF_A_SERVICE:
        if getattr(knobs, knob) != EngineKnobs.model_fields[knob].default:
            yield f"{knob} {getattr(knobs, knob)!r}: engine {name!r} is a hosted service; its model cannot be changed"
    trained = spec.architecture.experts.top_k if spec.architecture.experts else None
    if work.top_k not in (None, trained):
        yield f"top_k {work.top_k}: engine {name!r} is a hosted service; it runs {spec.name} with top-k {trained}"


def check_variables(study: Study, where: str) -> None:
    """Refuse variables that no engine reads, or that a knob stands for.  Raises ConfigError naming ``where``."""
    for key, engine in {"engine": study.engine, **{f"engines.{k}": e for k, e in study.engines.items()}}.items():
        for name in engine.variables:
            if knob := variables.OF_THE_PLAN.get(name):
                raise ConfigError(f"{where}: {key}.variables: {name} is set by the plan; use the knob {knob}")
            if not variables.is_read(name):
                raise ConfigError(
                    f"{where}: {key}.variables: {name} does not affect an engine, or holds a path or a secret; "
                    "leave it to the job's shell"
                )


def pinned(engine: Engine, hardware: Hardware) -> Pinned:
    """Choices that vLLM would make by the packages of a GPU node, made here; none on a CPU (docs/decisions/0033).

    ``flashinfer``: whether FlashInfer's kernels take part.  vLLM takes them if it finds `nvcc` and `ninja`.
    """
    return {"flashinfer": False} if hardware.kind == "gpu" and local_vllm(engine) else {}


def local_vllm(engine: Engine) -> bool:
    """Whether vLLM itself runs in the job: offline, or behind its own server."""
    return engine.name == "vllm" or bool(engine.endpoint and engine.endpoint.serve)


def as_json(name: str, engine: Engine, model: str) -> Runtime:
    """The plan's description of an engine for jobs; ``model`` is the registry's."""
    endpoint = engine.endpoint
    made: Runtime = {
        "name": name,
        "kind": engine.name,
        "version": engine.version,
        "environment": engine.environment,
        "hosted": engine.hosted,
        "hardware": endpoint.hardware if endpoint else None,
        "endpoint": _settings(endpoint, model) if endpoint else None,
    }
    return made | {"variables": dict(engine.variables)} if engine.variables else made


def _settings(endpoint: Endpoint, model: str) -> EndpointDict:
    settings = endpoint.model_dump(mode="json", exclude={"models"}) | {"model": endpoint.models.get(model, model)}
    return cast(EndpointDict, settings)


def identity(engine: Engine, model: str, nodes: int) -> Knobs:
    """Properties of an engine, on this number of nodes, that can affect results."""
    found: Knobs = {"name": engine.name, "version": engine.version}
    if changing := {k: v for k, v in engine.variables.items() if variables.changes(k, nodes)}:
        found["variables"] = changing
    if engine.endpoint:
        stated = engine.endpoint.model_dump(mode="json", exclude_defaults=True, exclude=_NO_IDENTITY)
        found["endpoint"] = stated | {"model": engine.endpoint.models.get(model, model)}
    return found
