"""Calibrated times of a plan's cells, with the interval that left-out points give, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from moebench.config import AllReduceTable, Architecture, EngineKnobs, Hardware
from moebench.config.hardware import Fitted
from moebench.cost import calibrated as cal
from moebench.cost.inputs import Formats, Layout, Machine, Sizes
from moebench.cost.vision import image_tokens, tiles
from moebench.errors import UserError
from moebench.formats.plan import CalibratedTimes, Workload

Pair = tuple[float, float]


def name(hardware: Hardware) -> str:
    """Label of calibrated values of a machine type: ``calibrated (MACHINE, DATE)``, and whose peaks they have
    where nothing is measured on it.  Raises ValueError for one without constants."""
    if hardware.fitted is None:
        raise ValueError(f"{hardware.name} has no constants")
    like = hardware.fitted.like
    return f"calibrated ({f'{like}, peaks of ' if like else ''}{hardware.name}, {hardware.fitted.date})"


def constants(fitted: Fitted) -> cal.Constants:
    """The constants of a machine's file.  Raises UserError for one that the model does not have, or lacks."""
    names = {f.name for f in fields(cal.Constants)}
    if wrong := sorted(names ^ set(fitted.constants)):
        raise UserError(
            f"config/hardware: fitted.constants of {fitted.date}: {wrong[0]} is "
            f"{'missing' if wrong[0] in names else 'unknown'}; fit them again (moebench calibrate --fit)"
        )
    return cal.Constants(**{key: figure.value for key, figure in fitted.constants.items()})


def ideal(hardware: Hardware) -> Machine:
    """The data sheet of a machine type, with the assumed link between nodes where its file has none."""
    far = hardware.inter_node_bytes_per_s
    if far is None and hardware.fitted and hardware.fitted.far_link:
        far = hardware.fitted.far_link.value
    nan = float("nan")
    return Machine(
        bandwidth=hardware.bandwidth_bytes_per_s or nan,
        packed_peak=nan,
        plain_peak=nan,
        link=hardware.link_bytes_per_s or nan,
        node=hardware.devices_per_node,
        far_link=far or nan,
        processors=hardware.multiprocessors or Machine.processors,
    )


def all_reduce_of(table: AllReduceTable, hardware: Hardware) -> cal.AllReduce:
    """Measured all-reduces as the model of a machine type takes them."""
    hop = hardware.fitted.far_hop if hardware.fitted else None
    return cal.AllReduce(
        table.message_bytes,
        {n: tuple(t * 1e-6 for t in times) for n, times in table.graph_us.items()},
        {n: tuple(t * 1e-6 for t in times) for n, times in table.eager_us.items()},
        table.link_bytes_per_s or hardware.link_bytes_per_s or float("nan"),
        hop.value if hop else cal.AllReduce.far_hop_s,
    )


def interval(hardware: Hardware, metric: str, model: str, vllm: bool = True) -> Pair | None:
    """Factors on a value that held 80% of left-out points, the widest that apply: of a model that was fitted on, or one
    that was not; for another machine also of a machine that was not; for another engine of all.  ``metric``: tpot or
    ttft.  None without any."""
    fitted = hardware.fitted
    if fitted is None:
        return None
    known = fitted.factors.get(metric, {})
    kinds = ["seen" if model in fitted.models else "model"] + ["machine"] * bool(fitted.like)
    kinds += [] if vllm else ["source", "machine", "model"]
    pairs = [pair for kind in kinds if (pair := known.get(kind))] or list(known.values())  # type: ignore[call-overload]
    return (min(low for low, _ in pairs), max(high for _, high in pairs)) if pairs else None


def why_not(
    architecture: Architecture, knobs: EngineKnobs, hardware: Hardware, runtime: str, acceptance: float | None = None
) -> str | None:
    """Why an engine configuration has no calibrated times, in one line; None if it can have some."""
    if hardware.fitted is None:
        return f"no constants are fitted for {hardware.name}"
    if any(interval(hardware, metric, "") is None for metric in ("ttft", "tpot")):
        return f"no left-out points give the error of {hardware.name}'s constants; fit them with more models"
    if runtime not in ("vllm", "endpoint"):
        return f"the constants are for vLLM, but the engine is {runtime}"
    if knobs.draft_tokens and acceptance is None:
        return "speculative decoding: the share of accepted draft tokens is not given (jobs.draft_acceptance)"
    if knobs.speculation is not None:
        return f"speculation by {knobs.speculation}: only draft models are predicted"
    if knobs.budgeted:
        return "a budget of active experts: how many tokens use is not known beforehand"
    if knobs.routing or knobs.prefix_caching:
        return "the constants are for the router's own choices and for prompts that are not cached"
    if knobs.expert_kernel != "fused":
        return f"the constants are for fused experts, not {knobs.expert_kernel} ones"
    if knobs.eager:
        return "the constants are for CUDA graphs, but the engine runs without"
    if knobs.dtype == "float32":
        return "the constants are for 16-bit arithmetic, but the engine computes in float32"
    if knobs.pp > 1 and architecture.vision is not None:
        return "a vision tower in a pipeline"
    return None


def setup(architecture: Architecture, knobs: EngineKnobs, hardware: Hardware) -> cal.Setup:
    """The calibrated model of an engine configuration.  The machine must have constants."""
    fitted = hardware.fitted
    assert fitted is not None and fitted.all_reduce is not None
    formats, machine = Formats.of(architecture, knobs), Machine.of(hardware, knobs)
    packed = np.where(np.isnan(machine.packed_peak), machine.plain_peak, machine.packed_peak)
    others = np.where(formats.expert_ratio == 1, packed, machine.plain_peak)
    precision = cal.Precision(
        attention=formats.packed, blocks=formats.packed, experts=formats.packed * formats.expert_ratio,
        plain=formats.plain, cache=formats.cache, attention_peak=others, blocks_peak=others, experts_peak=packed,
        plain_peak=machine.plain_peak, scaled=knobs.quantization == "fp8_block",
    )  # fmt: skip
    return cal.Setup(
        Sizes.of(architecture, knobs.mla), precision, Layout.of(knobs), ideal(hardware), constants(fitted),
        all_reduce_of(fitted.all_reduce, hardware), cal.Traits.of(architecture),
    )  # fmt: skip


def speculation(
    draft: Architecture | None, knobs: EngineKnobs, hardware: Hardware, acceptance: float | None
) -> cal.Speculation | None:
    """Speculative decoding of an engine configuration; None without a draft model."""
    if draft is None:
        return None
    alone = knobs.model_copy(update={"quantization": "none", "ep": False})
    return cal.Speculation(setup(draft, alone, hardware), knobs.draft_tokens, acceptance)


def times(
    architecture: Architecture,
    knobs: EngineKnobs,
    hardware: Hardware,
    works: Sequence[Workload],
    model: str,
    draft: Architecture | None = None,
    acceptance: float | None = None,
) -> list[CalibratedTimes | None]:
    """Calibrated times of an engine's workloads, in which a batch starts together; None if a size or a constant is
    unknown.  ``acceptance``: stated share of the tokens drafted by ``draft`` that is accepted.  What :func:`why_not`
    names must not be asked for."""
    shown = [tiles(architecture, w.get("images") or 0, w.get("image_size")) for w in works]
    seen = [image_tokens(architecture, w.get("images") or 0, w.get("image_size")) or 0 for w in works]
    model_of = setup(architecture, knobs, hardware)
    batch, out = (np.array([w[key] for w in works], float) for key in ("batch", "output_tokens"))
    prompt = np.array([w["input_tokens"] + n for w, n in zip(works, seen, strict=True)], float)
    top_k = np.array([w.get("top_k") or float(model_of.sizes.top_k) for w in works])
    alike = np.array([w["prompts"] == "identical" for w in works])
    pictures = np.array([tile or 0 for tile in shown], float)
    first = cal.prefill_s(model_of, batch, prompt, knobs.max_num_batched_tokens, top_k, pictures)
    kind, drafts = name(hardware), speculation(draft, knobs, hardware, acceptance)
    if drafts:
        first = first + cal.prefill_s(drafts.draft, batch, prompt, knobs.max_num_batched_tokens)
        kind = f"{kind[:-1]}; draft acceptance {acceptance:g} as stated)"
    between = cal.token_s(model_of, batch, prompt + out / 2, drafts, top_k, np.where(alike, top_k, np.nan))
    factors = [interval(hardware, metric, model) or (np.nan, np.nan) for metric in ("ttft", "tpot")]
    made: list[CalibratedTimes | None] = []
    for i, tile in enumerate(shown):
        ttft, itl = float(first[i]), float(between[i])
        if tile is None or np.isnan(ttft + itl):
            made.append(None)
            continue
        ttft_low, ttft_high = (ttft * factor for factor in factors[0])
        itl_low, itl_high = (itl * factor for factor in factors[1])
        more = float(out[i]) - 1
        made.append({
            "kind": kind,
            "ttft_max_s": ttft, "ttft_max_s_low": ttft_low, "ttft_max_s_high": ttft_high,
            "itl_s": itl, "itl_s_low": itl_low, "itl_s_high": itl_high,
            "e2e_s": ttft + more * itl,
            "e2e_s_low": ttft_low + more * itl_low,
            "e2e_s_high": ttft_high + more * itl_high,
        })  # fmt: skip
    return made
