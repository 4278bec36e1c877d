"""Counting routed experts over batches of a corpus (protocol ``activation``): nothing is timed.

The counts of all batches are summed per layer, phase and expert.  Where a batch's prompts do not fit into one engine
step, the requests that are read first generate while others are still read: such steps are the phase ``mixed``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moebench.engines.protocol import Engine
from moebench.storage.atomic import stamp

Layers = dict[int, dict[str, Any]]
"""What :meth:`moebench.engines.protocol.Engine.captured` returns."""


class Counts:
    """Sums of what was captured in several batches."""

    def __init__(self) -> None:
        self.experts = 0
        self._counts: dict[str, dict[int, list[int]]] = {}  # phase -> layer -> count per expert
        self._steps: dict[str, dict[int, dict[int, list[int]]]] = {}  # phase -> tokens -> layer -> [steps, distinct]

    def add(self, captured: Layers) -> None:
        """Add one batch."""
        for number, layer in captured.items():
            self.experts = len(layer["counts"])
            for phase, new in layer["phases"].items():
                old = self._counts.setdefault(phase, {}).get(number, [0] * len(new))
                self._counts[phase][number] = [a + b for a, b in zip(old, new, strict=True)]
            for (tokens, distinct), phase in zip(layer["steps"], layer["step_phases"], strict=True):
                sums = self._steps.setdefault(phase, {}).setdefault(tokens, {}).setdefault(number, [0, 0])
                sums[0] += 1
                sums[1] += distinct

    def distinct(self, tokens: int) -> list[float | None]:
        """Mean distinct experts of the decode steps of ``tokens`` tokens, per layer; None where there was none."""
        found = self._steps.get("decode", {}).get(tokens, {})
        return [found[n][1] / found[n][0] if n in found else None for n in self.layers()]

    def layers(self) -> list[int]:
        """Numbers of the layers with routed experts, ascending."""
        return sorted({n for layers in self._counts.values() for n in layers})

    def as_json(self) -> dict[str, Any]:
        """``layers``; ``counts``: phase -> per layer -> per expert; ``steps``: phase -> [tokens in the step, steps of
        that size, per layer the sum of their distinct experts].
        """
        layers = self.layers()
        return {
            "layers": layers,
            "counts": {
                phase: [found.get(n, [0] * self.experts) for n in layers] for phase, found in self._counts.items()
            },
            "steps": {
                phase: [
                    [tokens, max(steps for steps, _ in found.values()), [found.get(n, [0, 0])[1] for n in layers]]
                    for tokens, found in sorted(sizes.items())
                ]
                for phase, sizes in self._steps.items()
            },
        }


def count(
    engine: Engine, work: dict[str, Any], batches: Iterable[tuple[int, dict[str, Any]]], draft_tokens: int
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Run batches (seed, inputs of the engine) through an engine; return the counts, the checks and a run per batch.

    ``draft_tokens`` of speculation per step: rejected ones pass the layers too and are counted.  Raises
    NotImplementedError where the engine does not say which experts it chose.
    """
    total, runs = Counts(), []
    said: dict[str, int] = {"prompts": 0, "prompt_tokens": 0, "image_tokens": 0, "output_tokens": 0}
    per_token: set[float] = set()
    step = work["batch"] * (1 + draft_tokens)
    try:
        for seed, inputs in batches:
            prompts = inputs["prompts"]
            if not engine.capture(True):
                raise NotImplementedError(
                    "protocol activation is not supported here: the engine reports experts of eager MoE models only"
                )
            run: dict[str, Any] = {"seed": seed, "started_at": stamp(), "prompts": len(prompts)}
            run["prompt_tokens"] = sum(map(len, prompts))
            run |= engine.trace(output_tokens=work["output_tokens"], **inputs)
            captured = engine.captured()
            # The last token of a request is not fed back; with drafts the number is not known beforehand.
            of_images = sum(run.get("image_tokens", ()))
            passed = run["prompt_tokens"] + of_images + len(prompts) * (work["output_tokens"] - 1)
            for layer in captured.values():
                seen = sum(size for size, _ in layer["steps"])
                per_token.add(sum(layer["counts"]) / (seen if draft_tokens else passed))
            one = Counts()
            one.add(captured)
            total.add(captured)
            run["metrics"] = _metrics(one, step)
            said["prompts"] += len(prompts)
            said["prompt_tokens"] += run["prompt_tokens"]
            said["image_tokens"] += of_images
            said["output_tokens"] += len(prompts) * work["output_tokens"]
            runs.append(run)
    finally:
        engine.capture(False)
    checks = {
        "experts_per_token": per_token.pop() if len(per_token) == 1 else sorted(per_token),
        "distinct_experts": total.distinct(step),
        "moe_layers": len(total.layers()),
    }
    return said | {"batches": len(runs)} | total.as_json(), checks, runs


def _metrics(counts: Counts, tokens: int) -> dict[str, float]:
    """Distinct experts of the whole batch's decode steps, mean over steps and layers; nothing without such steps."""
    found = [value for value in counts.distinct(tokens) if value is not None]
    if not found:
        return {}
    mean = sum(found) / len(found)
    return {"distinct_experts": mean, "distinct_experts_share": mean / counts.experts}
