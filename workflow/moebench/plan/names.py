"""Canonical knobs, and the readable parts of ids."""

from __future__ import annotations

from moebench.config import EngineKnobs, ModelSpec, Protocol, WorkloadKnobs
from moebench.formats import Knobs
from moebench.plan.pruned import normal
from moebench.prompts import corpora

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def plain(knobs: EngineKnobs, spec: ModelSpec) -> EngineKnobs:
    """The knobs, with settings that change nothing at their defaults, so that both spellings are the same cell.

    A size set to the model's own value; experts spread over one rank (vLLM's ``use_ep`` needs TP x DP > 1, so PP+EP
    without TP is PP); MLA switched off in a model that has none; the method that pruning means when it names none.
    """
    experts = spec.architecture.experts
    own = {"experts": experts.count, "moe_ffn_size": experts.ffn_size} if experts else {}
    update: Knobs = {k: None for k, v in own.items() if getattr(knobs, k) == v}
    if knobs.tp * knobs.dp == 1 or experts is None:
        update["ep"] = False
    if spec.architecture.attention.kind != "mla":
        update["mla"] = True
    return knobs.model_copy(update=update | normal(knobs))


def engine_slug(knobs: EngineKnobs, top_k: int | None) -> str:
    """Readable part of an engine id: the model and what differs from the knobs' defaults."""
    parts: list[str] = [knobs.model]
    parts += [knobs.engine_name] if knobs.engine_name else []
    parts += [f"e{knobs.experts}"] if knobs.experts else []
    parts += [f"f{knobs.moe_ffn_size}"] if knobs.moe_ffn_size else []
    parts += [_DTYPES[knobs.dtype]] if knobs.dtype != "bfloat16" else []
    parts += [knobs.quantization.replace("_", "")] if knobs.quantization != "none" else []
    parts += ["kvfp8"] if knobs.kv_cache_dtype == "fp8" else []
    parts += [f"{knobs.pruning}{100 * knobs.prune_ratio:g}" + (f"-{knobs.prune_by}" if knobs.prune_by else "")] * (
        knobs.pruning != "none"
    )
    parts += [f"draft-{knobs.draft_model}x{knobs.draft_tokens}"] if knobs.draft_model else []
    parts += [f"{knobs.speculation}x{knobs.draft_tokens}"] if knobs.speculation else []
    parts += [f"{axis}{size}" for axis in ("tp", "pp", "dp") if (size := getattr(knobs, axis)) > 1]
    parts += ["ep"] if knobs.ep else []
    parts += [knobs.expert_kernel.replace("_", "")] if knobs.expert_kernel != "fused" else []
    parts += ["defaultkernels"] if knobs.kernel_config == "default" else []
    parts += [knobs.fused_kernel.replace("_", "")] if knobs.fused_kernel else []
    parts += [knobs.attention_kernel.lower().replace("_", "")] if knobs.attention_kernel else []
    parts += [knobs.all_to_all.replace("_", "")] if knobs.all_to_all else []
    parts += [f"eplb{knobs.redundant_experts or ''}"] if knobs.eplb else []
    parts += ["prefixcaching"] if knobs.prefix_caching else []
    parts += ["wholeprefill"] if knobs.chunked_prefill is False else []
    parts += ["graphs" + knobs.graph_sizes.replace(" ", "-")] if knobs.graph_sizes else []
    parts += [f"{knobs.routing}{knobs.routing_experts or ''}"] if knobs.routing else []
    parts += [f"gate{knobs.gate_share:g}"] if knobs.gate_share else []
    parts += ["loadcap" + knobs.load_cap.replace(":", "to").replace(" ", "-")] if knobs.load_cap else []
    parts += ["nomla"] if not knobs.mla else []
    parts += [f"k{top_k}"] if top_k else []
    return ".".join(parts)


def cell_slug(work: WorkloadKnobs, protocol: Protocol) -> str:
    """Readable part of a cell id."""
    text = f"b{work.batch}.i{work.input_tokens}.o{work.output_tokens}" + (f".k{work.top_k}" if work.top_k else "")
    text += f".{work.prompts}" if work.prompts != "text" else ""
    text += f".n{work.requests}" if work.requests else ""
    text += f".{work.corpus}" if work.corpus != corpora.PROSE else ""
    text += f".img{work.images}" + (f"x{work.image_size}" if work.image_size else "") if work.images else ""
    text += f".r{work.request_rate:g}" if work.request_rate else ""
    text += f"-{work.ramp_to:g}" if work.ramp_to else ""
    text += f".max{work.lowest_rate:g}-{work.highest_rate:g}" if work.find else ""
    text += f".{work.length_shape}" if work.length_shape != "uniform" else ""
    text += ".trace" if work.trace else ""
    text += f".t{work.turns}" if work.turns > 1 else ""
    text += f".c{work.concurrency}" if work.concurrency else ""
    return text + (f".{protocol.kind}" if protocol.kind != "trace" else "")
