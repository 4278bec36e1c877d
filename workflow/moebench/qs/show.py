"""The output of ``moebench qs``: a model on a machine beside a dense model of equal quality."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from moebench.config import ComputedKnobs, Config, Hardware, ModelSpec
from moebench.errors import UserError
from moebench.formats import Json
from moebench.qs import inequality, versus_dense
from moebench.text import table as aligned

CHANGES: dict[str, Json] = {
    **{f"memory {100 * (f - 1):+.0f}%": {"memory_factor": f} for f in (0.75, 1.25)},
    **{f"bandwidth {100 * (f - 1):+.0f}%": {"bandwidth_factor": f} for f in (0.75, 1.25)},
    "link, half of it": {"link_factor": 0.5},
    **{f"q = {q}": {"quality": float(q)} for q in (2, 3, 5)},
}
"""Changes of the sensitivity, each applied alone."""


def compute(config: Config, model: str, hardware: str, gpus: int | None, **knobs: Any) -> Json:
    """The verb's complete output, as plain values.

    ``gpus``: default, those of the layout given, or of a node of the machine.  ``knobs``: of
    :class:`ComputedKnobs`.  Raises ConfigError for an unknown model or machine, UserError for a dense model or a layout
    of another number of devices.
    """
    spec, machine = config.model(model, "MODEL"), config.hardware(hardware, "--hardware")
    if spec.architecture.experts is None:
        raise UserError(f"{model} is a dense model; the inequality applies only to MoE models")
    if knobs.get("quantization") is None:
        knobs["quantization"] = "fp8" if "fp8" in machine.peak else "none"
    knobs = {name: value for name, value in knobs.items() if value is not None}
    given = [knobs[name] for name in ("tp", "pp", "dp", "kvp") if name in knobs]
    devices = gpus or (math.prod(given) if given else machine.devices_per_node)
    point = ComputedKnobs(model=model, hardware=hardware, gpus=devices, **knobs)
    try:
        found = versus_dense.compare(spec.architecture, machine, point)
    except ValueError as error:
        raise UserError(str(error)) from None
    return {
        "point": point.model_dump(),
        "model": spec.title,
        "hardware": machine.title,
        "sparsity": found.sparsity,
        "qs": found.qs,
        "below_one": found.qs < 1,
        "shared_over_routed": found.shared,
        "ffn_traffic_limit": float(inequality.traffic_ratio(point.quality, found.sparsity, math.inf, found.shared)),
        "ffn_traffic_eq_17": float(inequality.traffic_ratio_of_the_paper(point.quality, found.sparsity)),
        "break_even_batch": _finite(found.break_even_batch),
        "break_even_batch_without_shared": _finite(found.break_even_without_shared),
        "dense_parameters_eq_21": found.qs * found.moe.parameters,
        "moe": dataclasses.asdict(found.moe),
        "dense": dataclasses.asdict(found.dense),
        "batch_ratio": found.batch_ratio,
        "speedup_dense": found.speedup,
        "warnings": _warnings(spec, machine, point, found),
        "verdict": verdict(spec, point, found),
    }


def sensitivity(config: Config, point: Json) -> list[Json]:
    """The point as it is and with each of ``CHANGES`` that changes it: qs, largest batches, dense / MoE.

    ``point``: as :func:`compute` gives it.  Layouts that were not given are searched for each time.
    """
    base = ComputedKnobs.model_validate(point)
    spec, machine = config.model(base.model, "MODEL"), config.hardware(base.hardware, "--hardware")
    changed = {"as it is": base} | {label: base.model_copy(update=update) for label, update in CHANGES.items()}
    rows = []
    for label, one in changed.items():
        if label != "as it is" and one == base:
            continue
        found = versus_dense.compare(spec.architecture, machine, one)
        batches = {"batch_moe": found.moe.batch, "batch_dense": found.dense.batch}
        rows.append({"change": label, "qs": found.qs, **batches, "speedup_dense": found.speedup})
    return rows


def verdict(spec: ModelSpec, point: ComputedKnobs, found: versus_dense.Compared) -> str:
    """The answer in a sentence or two."""
    if math.isfinite(found.break_even_batch):
        first = (
            f"qs = {found.qs:.3g} is below 1: from a batch of {max(1, math.ceil(found.break_even_batch))} on, "
            f"{spec.title} reads more expert weights per token than the dense model."
        )
    elif found.qs < 1:
        first = (
            f"qs = {found.qs:.3g} is below 1, but with shared experts counted {spec.title} reads more than the dense "
            "model at no batch."
        )
    else:
        first = f"qs = {found.qs:.3g} is not below 1: at no batch does {spec.title} read more than the dense model."
    if found.moe.batch is None or found.dense.batch is None:
        return f"{first} Capacity and speed are unknown, because a constant of the machine is unknown."
    lacking = [(name, s) for name, s in ((spec.title, found.moe), ("the dense model", found.dense)) if not s.batch]
    if lacking:
        return f"{first} {_too_many(lacking, point)}"
    if found.speedup is None:
        return f"{first} Its speed is unknown, because a constant of the machine is unknown."
    faster = "the dense model is" if found.speedup > 1 else f"{spec.title} is"
    factor = max(found.speedup, 1 / found.speedup)
    if factor < 1.005:
        return f"{first} At the largest batches that fit, both are equally fast."
    batch = "this batch" if point.batch else "the largest batches that fit"
    return f"{first} At {batch}, {faster} {factor:.2f} times as fast."


def _too_many(lacking: list[tuple[str, versus_dense.Side]], point: ComputedKnobs) -> str:
    """The largest batches of the models that do not hold the requested one."""
    none = [name for name, side in lacking if not side.most]
    devices = f"{point.gpus} device" + "s" * (point.gpus > 1)
    said = (
        [f"{_start(' and '.join(none))} cannot hold one sequence of this context length on {devices}."] if none else []
    )
    for name, side in lacking:
        if side.most:
            said.append(f"{_start(name)} holds at most {side.most:,} sequences of this context on {devices}.")
    return " ".join(said)


def _finite(batch: float) -> float | None:
    return batch if math.isfinite(batch) else None


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _warnings(spec: ModelSpec, machine: Hardware, point: ComputedKnobs, found: versus_dense.Compared) -> list[str]:
    said = []
    if point.context_tokens > spec.architecture.max_positions:
        said.append(f"the model supports at most {spec.architecture.max_positions:,} tokens")
    for name in ("memory_bytes", "bandwidth_bytes_per_s"):
        if getattr(machine, name) is None:
            said.append(f"{name} of {machine.name} is unknown")
    if machine.bandwidth_bytes_per_s and found.moe.batch and found.moe.tokens_per_s is None:
        kind = {"none": "bfloat16"}.get(point.quantization, point.quantization)
        said.append(f"no time: {machine.name} lacks the peak rate for {kind}, or a link for these groups")
    return said


def text(made: Json) -> str:
    """The output as text."""
    point, moe, dense = made["point"], made["moe"], made["dense"]
    weights = {"none": "bfloat16"}.get(point["quantization"], point["quantization"])
    heads = ("", made["model"], f"dense, q = {point['quality']:g}")
    rows = [
        ("parameters", _big(moe["parameters"]), _big(dense["parameters"])),
        ("largest batch" if not point["batch"] else "batch", _count(moe["batch"]), _count(dense["batch"])),
        ("layout", _layout(moe), _layout(dense)),
        ("weights per device", _gb(moe["weight_bytes"]), _gb(dense["weight_bytes"])),
        ("KV cache of a sequence, per device", _gb(moe["cache_bytes"]), _gb(dense["cache_bytes"])),
        ("time of a step", _ms(moe, "step_s"), _ms(dense, "step_s")),
        ("  memory", _ms(moe, "memory_s"), _ms(dense, "memory_s")),
        ("  arithmetic", _ms(moe, "compute_s"), _ms(dense, "compute_s")),
        ("  communication", _ms(moe, "collective_s"), _ms(dense, "collective_s")),
        ("decoded tokens/s", *("" if s["batch"] == 0 else _count(s["tokens_per_s"]) for s in (moe, dense))),
    ]
    table = [heads, *rows]
    wide = [max(len(row[i]) for row in table) for i in range(3)]
    lines = [
        f"{made['model']} on {point['gpus']} x {made['hardware']}",
        f"{point['context_tokens']:,} tokens of context, {weights} weights, bfloat16 KV cache",
        "",
        f"s = k/E          {made['sparsity']:.4g}",
        f"qs               {made['qs']:.4g}",
        f"dense by q s P   {_big(made['dense_parameters_eq_21'])} parameters (eq. 21; the table has eq. 11's)",
        "",
        aligned(
            ["FFN weights, MoE over dense", "all experts", "without shared ones (eqs. 17, 18)"],
            [
                [
                    "bytes per token, large batches",
                    f"{made['ffn_traffic_limit']:.2f}",
                    f"{made['ffn_traffic_eq_17']:.2f}",
                ],
                ["break-even batch", *map(_batch, (made["break_even_batch"], made["break_even_batch_without_shared"]))],
            ],
        ),
        "",
        *(f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}".rstrip() for a, b, c in table),
        "",
        made["verdict"],
        *(f"note: {words}" for words in made["warnings"]),
    ]
    if not point["batch"] and moe["layout"] and moe["layouts"] > 1:
        lines.append(f"Layouts: the fastest of {moe['layouts']} and {dense['layouts']} (TP, PP, DP, EP, KVP).")
    lines.append("Predicted: lower bounds by bandwidths and peak rates; no communication overlaps.")
    if rows_of := made.get("sensitivity"):
        lines += ["", aligned(["change", "qs", "batch, MoE", "batch, dense", "dense over MoE"], [
            [r["change"], f"{r['qs']:.3g}", _count(r["batch_moe"]), _count(r["batch_dense"]),
             "unknown" if r["speedup_dense"] is None else f"{r['speedup_dense']:.3f}"] for r in rows_of])]  # fmt: skip
    return "\n".join(lines)


def _batch(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _layout(side: Json) -> str:
    if side["layout"] is None:
        return "unknown"
    return " x ".join(f"{k.upper()}{v}" for k, v in side["layout"].items() if v > 1) or "one device"


def _big(value: float) -> str:
    return f"{value / 1e9:.1f} B"


def _count(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}" if value else "does not fit"


def _gb(value: float | None) -> str:
    return "unknown" if value is None else f"{value / 1e9:.3g} GB"


def _ms(side: Json, name: str) -> str:
    value = side[name]
    return "" if side["batch"] == 0 else "unknown" if value is None else f"{1000 * value:.3g} ms"
