"""Overrides the choice of vLLM's routers: random experts, or fewer by load or by confidence (docs/decisions/0049).

The router's own computation is unchanged; only its choice is replaced afterwards.  A slot that a budget drops gets
weight 0 and the token's first expert: no additional expert is read for it, but its row is still computed.  Nothing here
reads a value back from the device, so CUDA graphs can capture it.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moebench.formats.plan import EngineKnobsDict

if TYPE_CHECKING:
    import torch

SWITCH = "MOEBENCH_ROUTING"
"""Environment variable with the knobs below as JSON, empty for none: worker processes inherit it."""

KNOBS = ("routing", "routing_experts", "gate_share", "load_cap")

ROWS = 8192
"""Draws that are made once per layer and used in turn."""

_numbers = itertools.count()


def environment(config: EngineKnobsDict) -> dict[str, str]:
    """The switch for an engine configuration."""
    asked = {knob: config.get(knob) for knob in KNOBS if config.get(knob) is not None}
    return {SWITCH: json.dumps(asked) if asked else ""}


def budgeted(config: Mapping[str, Any] | EngineKnobsDict) -> bool:
    """Whether tokens may have fewer active experts than top-k."""
    return bool(config.get("gate_share") or config.get("load_cap"))


def cap_of(load_cap: str | None, tokens: int) -> int | None:
    """Maximum active experts per token in a step of this number of tokens; None: no cap.

    >>> cap_of("8:4 32:2", 7), cap_of("8:4 32:2", 8), cap_of("8:4 32:2", 100)
    (None, 4, 2)
    """
    steps = sorted(tuple(map(int, step.split(":"))) for step in (load_cap or "").split())
    return next((cap for least, cap in reversed(steps) if tokens >= least), None)


def draws(kind: str, experts: int, top_k: int, seed: int) -> torch.Tensor:
    """Distinct experts [ROWS, top_k] of ``experts``: ``uniform``, or ``zipf``, whose popular ones the seed chooses.

    Drawn without replacement, each with probability proportional to its weight among those left (Gumbel-top-k trick).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    rank = torch.randperm(experts, generator=generator) + 1.0
    weight = -rank.log() if kind == "zipf" else torch.zeros(experts)
    noise = -(-torch.rand(ROWS, experts, generator=generator).clamp(1e-7, 1 - 1e-7).log()).log()
    return (weight + noise).topk(top_k).indices


def gate(
    weights: torch.Tensor, ids: torch.Tensor, share: float, renormalize: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The fewest experts of each token that reach a share of its weights: weights, ids and kept slots [tokens, k].

    Takes the largest weights first.  ``renormalize``: scale the kept weights to the sum of all.
    """
    import torch

    order = weights.argsort(dim=-1, descending=True)
    weights, ids = weights.gather(-1, order), ids.gather(-1, order)
    total = weights.sum(-1, keepdim=True)
    kept = weights.cumsum(-1) - weights < share * total
    kept[:, 0] = True
    left = weights * kept
    if renormalize:
        left = left * (total / left.sum(-1, keepdim=True))
    return left, torch.where(kept, ids, ids[:, :1]), kept


@dataclass
class Steering:
    """Stands in for ``_compute_routing`` of a router.

    asked: the knobs that are set.  number: of the router in its process.  kept: slots that the last step kept, None
    for all.  used: tokens, and experts that they were sent to, in all steps (on the device; only with a budget).
    """

    router: Any
    asked: dict[str, Any]
    number: int

    def __post_init__(self) -> None:
        self.compute = self.router._compute_routing
        self.kept: torch.Tensor | None = None
        self.used: torch.Tensor | None = None
        self.table: torch.Tensor | None = None
        self.first: Any = None

    def __call__(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor, indices_type: Any, **more: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and ids [tokens, k]; under a cap, k is the cap."""
        trained, cap = self.router.top_k, cap_of(self.asked.get("load_cap"), router_logits.shape[0])
        self.router.top_k = min(trained, cap or trained)
        try:
            weights, ids = self.compute(hidden_states, router_logits, indices_type, **more)
        finally:
            self.router.top_k = trained
        if share := self.asked.get("gate_share"):
            renormalize = bool(getattr(self.router, "renormalize", False))
            weights, ids, self.kept = gate(weights, ids, share, renormalize)
        if budgeted(self.asked):
            self.count(ids)
        if kind := self.asked.get("routing"):
            ids = self.drawn(kind, ids)
        return weights, ids

    def count(self, ids: torch.Tensor) -> None:
        """Add what this step used.  In a CUDA graph, padding rows are counted, too."""
        import torch

        if self.used is None:
            self.used = torch.zeros(2, dtype=torch.long, device=ids.device)
        self.used[0].add_(ids.shape[0])
        self.used[1].add_(ids.numel() if self.kept is None else self.kept.sum())

    def drawn(self, kind: str, ids: torch.Tensor) -> torch.Tensor:
        """Experts in place of ``ids``: the next rows of the table, the same on all ranks."""
        import torch

        tokens, top_k = ids.shape
        if self.table is None or self.table.shape[1] != top_k:
            among = self.asked.get("routing_experts") or self.router.global_num_experts
            self.table = draws(kind, among, top_k, self.number).to(ids.device, ids.dtype)
            self.first = torch.zeros(1, dtype=torch.long, device=ids.device)
        rows = (self.first + torch.arange(tokens, device=ids.device)) % ROWS
        self.first.add_(tokens)
        return self.table.index_select(0, rows)


def install() -> None:
    """Make vLLM create steered routers while the switch is set; the next router counts as the first of an engine.

    Kernels that route internally, as some of FlashInfer's do, call no router: they are refused then.
    """
    from vllm.model_executor.layers.fused_moe import layer
    from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts

    global _numbers
    _numbers = itertools.count()  # an engine's draws do not depend on what its process loaded before
    make = layer.create_fused_moe_router
    if getattr(make, "moebench", False):
        return

    @functools.wraps(make)
    def made(*arguments: Any, **more: Any) -> Any:
        router = make(*arguments, **more)
        if text := os.environ.get(SWITCH):
            router._compute_routing = Steering(router, json.loads(text), next(_numbers))
        return router

    whole = RoutedExperts.forward_monolithic

    @functools.wraps(whole)
    def forward(*arguments: Any, **more: Any) -> Any:
        if os.environ.get(SWITCH):
            raise NotImplementedError(f"{', '.join(KNOBS)}: the experts kernel chosen here routes by itself")
        return whole(*arguments, **more)

    RoutedExperts.forward_monolithic = forward
    made.moebench = True  # type: ignore[attr-defined]
    layer.create_fused_moe_router = made


def kept(router: Any, ids: torch.Tensor) -> torch.Tensor:
    """The experts among ``ids`` [tokens, k] that a router's tokens are really sent to, as a flat list."""
    steering = _steering(router)
    mask = steering.kept if steering is not None else None
    return ids.reshape(-1) if mask is None else ids[mask]


def used(runners: list[Any]) -> dict[str, float]:
    """Number of tokens in all steps and layers so far, and of experts used by them; empty without a budget."""
    counts = [s.used.tolist() for r in runners if (s := _steering(r.router)) is not None and s.used is not None]
    if not counts:
        return {}
    return {"routed_tokens": float(sum(t for t, _ in counts)), "used_experts": float(sum(n for _, n in counts))}


def _steering(router: Any) -> Steering | None:
    found = getattr(router, "_compute_routing", None)
    return found if isinstance(found, Steering) else None
