"""Shapes and layouts that vLLM does not load: known when the plan is built, so nothing is started for them."""

from __future__ import annotations

from collections.abc import Iterator

from moebench.architectures import quantization_schemes as schemes
from moebench.config import Engine, EngineKnobs
from moebench.engines import vllm
from moebench.formats.model import ArchitectureDict
from moebench.plan.engine_choice import local_vllm
from moebench.plan.model import Model


def problem(knobs: EngineKnobs, model: Model, draft: Model | None, engine: Engine) -> str | None:
    """Why ``engine`` does not load ``model`` (and ``draft``) with these knobs, in one line; None: nothing known."""
    if not local_vllm(engine):
        return None
    loaded = [m for m in (model, draft) if m is not None]
    return next((found for m in loaded for found in _problems(knobs, m, engine)), None)


def _problems(knobs: EngineKnobs, model: Model, engine: Engine) -> Iterator[str]:
    """Settings that vLLM refuses, according to its source (docs/facts.md)."""
    shape, title = model.architecture, model.spec.title
    if why := vllm.unknown(model.as_json()):
        yield f"vLLM {engine.version} does not run {title}: {why}"
    attention, experts, tp = shape["attention"], shape["experts"], knobs.tp
    heads, kv_heads = attention["heads"], attention["kv_heads"]
    if heads % tp:
        yield f"tp {tp} does not divide the {heads} attention heads of {title}; use a divisor of {heads}"
    elif max(kv_heads, tp) % min(kv_heads, tp):
        yield f"tp {tp} neither divides the {kv_heads} KV heads of {title} nor is a multiple of them"
    if knobs.pp > shape["layers"]:
        yield f"pp {knobs.pp} is more than the {shape['layers']} layers of {title}; use fewer stages"
    ranks = tp * knobs.dp
    if experts and knobs.ep and ranks > experts["count"]:
        yield f"expert parallelism over {ranks} GPUs: {title} has only {experts['count']} experts; use fewer GPUs"
    for name, width, parts in _parts(shape, knobs):
        if width % parts:
            yield f"{name} {width} of {title} cannot be split evenly over {parts} GPUs"
    yield from _quantized(knobs, model)


def _parts(shape: ArchitectureDict, knobs: EngineKnobs) -> Iterator[tuple[str, int, int]]:
    """Widths that are split: name, width, and over how many GPUs.  Experts of all data-parallel ranks share them."""
    experts_over = 1 if knobs.ep else knobs.tp * knobs.dp
    for name, width in schemes.widths(shape).items():
        if name in schemes.SPLIT:
            yield name, width, experts_over if name == "experts.ffn_size" else knobs.tp


def _quantized(knobs: EngineKnobs, model: Model) -> Iterator[str]:
    """Scales that would be shared across GPUs.  A ready-made checkpoint chose its groups itself: nothing is known."""
    derived = model.derived
    if derived is None or derived["by"] != "quantize":
        return
    scheme = schemes.SCHEMES[knobs.quantization]
    columns = derived["settings"]["group"] if scheme.scales == "group" else schemes.BLOCK
    if scheme.scales == "row":
        return
    for name, width, parts in _parts(model.architecture, knobs):
        if parts > 1 and width % parts == 0 and width // parts % columns:
            yield (
                f"quantization {knobs.quantization}: {columns} columns share a scale, and {name} {width} of "
                f"{model.spec.title} over {parts} GPUs leaves {width // parts} on each; use fewer GPUs"
                + (" or ep: true" if name == "experts.ffn_size" else "")
            )
