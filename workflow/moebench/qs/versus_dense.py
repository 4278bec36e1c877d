"""A mixture beside a dense model of equal quality on one machine, for ``moebench qs`` and experiments."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from moebench.config import Architecture, ComputedKnobs, EngineKnobs, Hardware
from moebench.cost import memory
from moebench.cost.inputs import Formats, Layout, Machine, Sizes
from moebench.qs import inequality, layout_search


@dataclass(frozen=True)
class Side:
    """One of the two models, decoding at its batch; None if a constant of the machine is unknown."""

    parameters: float
    layout: dict[str, int] | None
    """TP, PP, DP, EP, KVP."""
    layouts: int
    """Layouts tried; 1 if it was given."""
    batch: int | None
    """0: it does not fit."""
    most: int | None
    """Sequences that fit at most, in any of the layouts."""
    weight_bytes: float | None
    cache_bytes: float | None
    """Of one sequence on a GPU."""
    step_s: float | None
    memory_s: float | None
    compute_s: float | None
    collective_s: float | None
    tokens_per_s: float | None

    @property
    def words(self) -> str:
        """The layout as people write it: ``TP8 x KVP8``."""
        named = [f"{k.upper()}{v}" for k, v in (self.layout or {}).items() if v > 1]
        return " x ".join(named) or "one device"


@dataclass(frozen=True)
class Compared:
    """Both models and the result of the inequality."""

    sparsity: float
    qs: float
    break_even_batch: float
    """Infinite: at no batch."""
    break_even_without_shared: float
    """The same as if there were no shared experts, as the paper's equations 17 and 18 have it."""
    shared: float
    """Parameters of the shared experts over those of the active routed ones."""
    moe: Side
    dense: Side

    @property
    def speedup(self) -> float | None:
        """Throughput of the dense model / the MoE's; None: unknown, or one of them does not fit."""
        return _ratio(self.dense.tokens_per_s, self.moe.tokens_per_s)

    @property
    def batch_ratio(self) -> float | None:
        """Batch of the dense model / the MoE's."""
        return _ratio(self.dense.batch, self.moe.batch)

    @property
    def hbm_ratio(self) -> float | None:
        """Memory time per token, MoE / dense."""
        sides = [_ratio(side.memory_s, side.batch) for side in (self.moe, self.dense)]
        return _ratio(*sides)


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over and under else None


def compare(architecture: Architecture, hardware: Hardware, point: ComputedKnobs) -> Compared:
    """Compute a point.  ``architecture`` must have experts.

    Memory for weights and KV cache: usable memory of a device less the reserve.  KV cache in bfloat16.
    """
    block = architecture.experts
    assert block is not None
    sizes = Sizes.of(architecture)
    sparsity, shared = block.top_k / block.count, float(inequality.shared_over_routed(sizes))
    return Compared(
        sparsity=sparsity,
        qs=point.quality * sparsity,
        break_even_batch=float(inequality.break_even_batch(point.quality, sparsity, shared)),
        break_even_without_shared=float(inequality.break_even_batch(point.quality, sparsity)),
        shared=shared,
        moe=_side(sizes, architecture, hardware, point),
        dense=_side(inequality.dense_equivalent(sizes, point.quality), architecture, hardware, point),
    )


def machine_of(hardware: Hardware, point: ComputedKnobs) -> Hardware:
    """The machine type with the point's factors on its memory and bandwidths."""

    def times(value: float | None, factor: float) -> float | None:
        return None if value is None else value * factor

    return hardware.model_copy(
        update={
            "memory_bytes": times(hardware.memory_bytes, point.memory_factor),
            "bandwidth_bytes_per_s": times(hardware.bandwidth_bytes_per_s, point.bandwidth_factor),
            "link_bytes_per_s": times(hardware.link_bytes_per_s, point.link_factor),
            "inter_node_bytes_per_s": times(hardware.inter_node_bytes_per_s, point.link_factor),
        }
    )


def given_layout(architecture: Architecture, point: ComputedKnobs) -> Layout | None:
    """The layout that a point gives; None if it gives none.

    Raises ValueError if it is not one of its devices, or the model cannot be spread this way.
    """
    given = {name: getattr(point, name) for name in ("tp", "pp", "dp", "ep", "kvp")}
    if all(value is None for value in given.values()):
        return None
    layout = Layout(**{name: value or 1 for name, value in given.items()})
    if int(layout.gpus) != point.gpus:
        raise ValueError(f"tp x pp x dp x kvp is {int(layout.gpus)}, but gpus is {point.gpus}")
    if int(layout.ranks) % int(layout.ep):
        raise ValueError(f"ep {int(layout.ep)} does not divide the {int(layout.ranks)} devices of a stage")
    heads, layers, experts = architecture.attention.heads, architecture.layers, architecture.experts
    if heads % int(layout.tp):
        raise ValueError(f"tp {int(layout.tp)} does not divide the {heads} attention heads; use a divisor of {heads}")
    if int(layout.pp) > layers:
        raise ValueError(f"pp {int(layout.pp)} is more than the {layers} layers; use fewer stages")
    if experts and int(layout.ep) > experts.count:
        raise ValueError(f"ep {int(layout.ep)} is more than the {experts.count} experts; use fewer groups")
    return layout


def _side(sizes: Sizes, architecture: Architecture, hardware: Hardware, point: ComputedKnobs) -> Side:
    engine = EngineKnobs(model=point.model, quantization=point.quantization)
    machine, formats = machine_of(hardware, point), Formats.of(architecture, engine)
    constants = Machine.of(machine, engine)
    usable = float("nan")
    if machine.memory_bytes is not None:
        usable = machine.memory_bytes * machine.usable_memory_fraction - memory.RESERVE_BYTES
    layout, tried, most = given_layout(architecture, point), 1, None
    if layout is None:
        if np.isnan(usable):
            return Side(float(inequality.parameters(sizes)), None, 0, *(None,) * 9)
        heads = architecture.attention.heads
        found = layout_search.search(
            sizes, formats, constants, usable, point.context_tokens, point.gpus, heads, point.batch
        )
        tried, most = found.count, int(found.served.most.max())
        layout = Layout(**{f.name: getattr(found.layouts, f.name)[0] for f in fields(Layout)})
    served = inequality.serve(sizes, formats, layout, constants, usable, point.context_tokens, point.batch)

    def number(value: object) -> float | None:
        known = float(value)  # type: ignore[arg-type]
        return None if np.isnan(known) else known

    batch = number(served.batch)
    if most is None and not np.isnan(served.most):
        most = int(served.most)
    return Side(
        parameters=float(inequality.parameters(sizes)),
        layout={f.name: int(getattr(layout, f.name)) for f in fields(Layout)},
        layouts=tried,
        batch=None if batch is None else int(batch),
        most=most,
        weight_bytes=number(served.weight_bytes),
        cache_bytes=number(served.cache_bytes),
        step_s=number(served.step_s) if batch else None,
        memory_s=number(served.memory_s) if batch else None,
        compute_s=number(served.compute_s) if batch else None,
        collective_s=number(served.collective_s) if batch else None,
        tokens_per_s=number(served.tokens_per_s) if batch else None,
    )
