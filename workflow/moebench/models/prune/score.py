"""Scores of experts and of channels: higher is more worth keeping.  One value per expert of a layer, or per channel.

Field terms: a token is *routed* to the k experts its router chose; the *weight* is the factor of each expert's output
in their sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from moebench.errors import StageError
from moebench.formats import Json
from moebench.models.prune.checkpoint import Checkpoint, expert_name

if TYPE_CHECKING:
    from moebench.models.prune.calibrate import MoELayer

_CHUNK_TOKENS = 8192
EXHAUSTIVE_SUBSETS = 500
"""Reconstruction tries every subset of experts where there are no more than this (8 experts: at most 70)."""
RECONSTRUCTION_BYTES = 1 << 30
"""Reconstruction keeps every expert's output for as many tokens as this holds."""


def frequency(layer: MoELayer) -> Any:
    """Tokens routed to each expert, [E]."""
    return layer.ids.flatten().bincount(minlength=layer.block.experts.num_experts)


def _routed(layer: MoELayer, expert: int) -> Iterator[tuple[Any, Any]]:
    """Activations h = act(gate x) * up x of the tokens routed to an expert, [n, width], and their weights, [n]."""
    experts = layer.block.experts
    token, slot = (layer.ids == expert).nonzero(as_tuple=True)
    for part, place in zip(token.split(_CHUNK_TOKENS), slot.split(_CHUNK_TOKENS), strict=True):
        yield _activations(experts, expert, layer.x[part]), layer.weights[part, place]


def _activations(experts: Any, expert: int, x: Any) -> Any:
    gate, up = (x @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
    return experts.act_fn(gate) * up


def reap(layer: MoELayer) -> Any:
    """REAP (arXiv 2510.13999): mean over the tokens routed to an expert of weight x ||output||, [E].

    Zero for an expert that no token is routed to.
    """
    import torch

    experts = layer.block.experts
    scores = torch.zeros(experts.num_experts, dtype=torch.float64)
    for expert in range(experts.num_experts):
        count, total = 0, 0.0
        for hidden, weights in _routed(layer, expert):
            norms = (hidden @ experts.down_proj[expert].T).norm(dim=-1)
            total += float((weights.float() * norms).double().sum())
            count += len(norms)
        scores[expert] = total / count if count else 0.0
    return scores


def activation(layer: MoELayer) -> Any:
    """Per channel, mean over the tokens routed to its expert of |h|, times the norm of its column of the down matrix.

    [E, width]; zeros for an expert that no token is routed to.
    """
    import torch

    experts = layer.block.experts
    count, _, width = experts.down_proj.shape
    scores = torch.zeros(count, width, dtype=torch.float64)
    for expert in range(count):
        tokens, total = 0, torch.zeros(width, dtype=torch.float64)
        for hidden, _ in _routed(layer, expert):
            total += hidden.abs().double().sum(dim=0).cpu()
            tokens += len(hidden)
        if tokens:
            scores[expert] = total / tokens * experts.down_proj[expert].norm(dim=0).double().cpu()
    return scores


def magnitude(checkpoint: Checkpoint, experts: int, width: int) -> dict[int, Any]:
    """Per channel, the norm of its row of gate, its row of up and its column of down together; [E, width] by layer."""
    import torch

    squares: dict[int, Any] = {}
    for name, tensor in checkpoint.tensors(lambda name: expert_name(name) is not None):
        expert = expert_name(name)
        assert expert is not None
        scores = squares.setdefault(expert.layer, torch.zeros(experts, width, dtype=torch.float64))
        scores[expert.expert] += tensor.double().square().sum(dim=0 if expert.role == "down" else 1)
    return {layer: scores.sqrt() for layer, scores in sorted(squares.items())}


# ------------------------------------------------------------------------------------ reconstruction


class Reconstruction:
    """The output of a layer's routed experts with some of them removed (Lu et al. 2024, arXiv 2402.14800).

    The family's own router module chooses and weighs among the kept experts.  The error of a subset is the squared
    difference to the output of all experts, summed over the first tokens, as many as fit into RECONSTRUCTION_BYTES.
    """

    def __init__(self, layer: MoELayer):
        import torch

        experts = layer.block.experts
        self.router = layer.router
        self.count, hidden, _ = experts.down_proj.shape
        self.tokens = min(len(layer.x), max(1, RECONSTRUCTION_BYTES // (4 * self.count * hidden)))
        self.x = layer.x[: self.tokens]
        self.made = torch.stack(
            [_activations(experts, e, self.x) @ experts.down_proj[e].T for e in range(self.count)]
        )  # [E, tokens, hidden]
        self.whole = self.output(range(self.count))

    def output(self, kept: Sequence[int]) -> Any:
        """Output with only ``kept`` experts, [tokens, hidden]."""
        import torch

        kept_ids = torch.tensor(list(kept), device=self.x.device)
        with _restricted(self.router, kept_ids):
            answer = self.router(self.x)
        if not isinstance(answer, tuple):
            raise StageError(
                f"reconstruction needs a router that chooses itself; {type(self.router).__name__} does not"
            )
        _, weights, ids = answer
        chosen = kept_ids[ids]
        total = torch.zeros_like(self.x)
        for slot in range(chosen.shape[1]):
            made = self.made[chosen[:, slot], torch.arange(len(self.x), device=self.x.device)]
            total += made * weights[:, slot, None].to(made.dtype)
        return total

    def error(self, kept: Sequence[int]) -> float:
        """Squared difference to the output of all experts, summed over tokens."""
        return float((self.output(kept) - self.whole).double().square().sum())


class _restricted:
    """A context in which a router has only some experts: its tensors with a row per expert keep only those rows."""

    def __init__(self, router: Any, kept: Any):
        self.router, self.kept = router, kept

    def __enter__(self) -> None:
        router = self.router
        self.saved = {key: router.__dict__.get(key) for key in ("top_k", "num_experts", "n_routed_experts")}
        count = self.saved["num_experts"] or self.saved["n_routed_experts"]
        self.tensors = [
            (holder, name, tensor)
            for holder in (router._parameters, router._buffers)
            for name, tensor in holder.items()
            if tensor is not None and tensor.shape[0] == count
        ]
        for holder, name, tensor in self.tensors:
            part = tensor[self.kept]
            holder[name] = type(tensor)(part, requires_grad=False) if holder is router._parameters else part
        for key, value in self.saved.items():
            if value is not None:
                setattr(router, key, min(value, len(self.kept)))

    def __exit__(self, *_: Any) -> None:
        for holder, name, tensor in self.tensors:
            holder[name] = tensor
        for key, value in self.saved.items():
            if value is not None:
                setattr(self.router, key, value)


def reconstruct(layer: MoELayer, kept: int, groups: list[list[int]]) -> tuple[list[int], Json]:
    """The experts to keep, and the method: the best of all subsets, or greedy removal, least loss first.

    ``groups``: groups of experts that must keep equally many.
    """
    problem = Reconstruction(layer)
    per_group = kept // len(groups)
    subsets = math.prod(math.comb(len(group), per_group) for group in groups)
    if subsets <= EXHAUSTIVE_SUBSETS:
        tried = itertools.product(*(itertools.combinations(group, per_group) for group in groups))
        best = min((sorted(itertools.chain(*parts)) for parts in tried), key=problem.error)
    else:
        best = sorted(itertools.chain(*groups))
        while len(best) > kept:
            sizes = [sum(e in group for e in best) for group in groups]
            removable = [e for group, size in zip(groups, sizes, strict=True) if size > per_group for e in group]
            candidates = [[e for e in best if e != gone] for gone in removable if gone in best]
            best = min(candidates, key=problem.error)
    power = float(problem.whole.double().square().sum())
    facts = {
        "search": "exhaustive" if subsets <= EXHAUSTIVE_SUBSETS else "greedy",
        "tokens": problem.tokens,
        "relative_error": problem.error(best) / power if power else 0.0,
    }
    return best, facts
