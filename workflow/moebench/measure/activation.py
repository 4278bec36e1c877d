"""Counting routed experts over batches of a corpus (protocol ``activation``): nothing is timed.

The counts of all batches are summed per layer, phase and expert.  If a batch's prompts do not fit into one engine step,
the first requests decode while others are still in prefill: such steps are the phase ``mixed``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from moebench.engines.protocol import Batch, Engine, Routed
from moebench.formats.plan import Workload
from moebench.formats.record import ActivationCounts, Checks, LayerCounts, Metrics, Run
from moebench.storage.atomic import stamp


class Counts:
    """Sums of the counts captured in several batches."""

    def __init__(self) -> None:
        self.experts = 0
        self._counts: dict[str, dict[int, list[int]]] = {}  # phase -> layer -> count per expert
        self._steps: dict[str, dict[int, dict[int, list[int]]]] = {}  # phase -> tokens -> layer -> [steps, distinct]

    def add(self, captured: dict[int, Routed]) -> None:
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
        """Mean distinct experts of the decode steps of ``tokens`` tokens, per layer; None if there are none."""
        found = self._steps.get("decode", {}).get(tokens, {})
        return [found[n][1] / found[n][0] if n in found else None for n in self.layers()]

    def layers(self) -> list[int]:
        """Numbers of the layers with routed experts, ascending."""
        return sorted({n for layers in self._counts.values() for n in layers})

    def as_json(self) -> LayerCounts:
        """The counts in the form stored in a record."""
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
    engine: Engine, work: Workload, batches: Iterable[tuple[int, Batch]], draft_tokens: int, unsaid: bool = False
) -> tuple[ActivationCounts, Checks, list[Run]]:
    """Run batches (seed, inputs of the engine) through an engine; return the counts, the checks and a run per batch.

    Each run has its image tokens by request.  ``draft_tokens``: speculated tokens per step; rejected ones pass the
    layers too and are counted.  ``unsaid``: fewer tokens than the prompts have may pass the layers.  Raises
    NotImplementedError if the engine cannot report the experts that it chose.
    """
    total, runs = Counts(), list[Run]()
    said = {"prompts": 0, "prompt_tokens": 0, "image_tokens": 0, "output_tokens": 0}
    per_token: set[float] = set()
    step = work["batch"] * (1 + draft_tokens)
    try:
        for seed, inputs in batches:
            prompts = inputs["prompts"]
            if not engine.capture(True):
                raise NotImplementedError(
                    "protocol activation is not supported here: the engine reports experts of eager MoE models only"
                )
            started_at, text_tokens = stamp(), sum(map(len, prompts))
            trace = engine.trace(output_tokens=work["output_tokens"], **inputs)
            captured = engine.captured()
            # The last token of a request is not fed back; with drafts the number is not known in advance.
            of_images = sum(trace.get("image_tokens", ()))
            passed = text_tokens + of_images + len(prompts) * (work["output_tokens"] - 1)
            for layer in captured.values():
                seen = sum(size for size, _ in layer["steps"])
                per_token.add(sum(layer["counts"]) / (seen if draft_tokens or unsaid else passed))
            one = Counts()
            one.add(captured)
            total.add(captured)
            said["prompts"] += len(prompts)
            said["prompt_tokens"] += text_tokens
            said["image_tokens"] += of_images
            said["output_tokens"] += len(prompts) * work["output_tokens"]
            about = {"prompts": len(prompts), "prompt_tokens": text_tokens, "metrics": _metrics(one, step)}
            runs.append(cast(Run, {"seed": seed, "started_at": started_at, **about, **trace}))
    finally:
        engine.capture(False)
    checks: Checks = {
        "experts_per_token": per_token.pop() if len(per_token) == 1 else sorted(per_token),
        "distinct_experts": total.distinct(step),
        "moe_layers": len(total.layers()),
    }
    return cast(ActivationCounts, {**said, "batches": len(runs), **total.as_json()}), checks, runs


def _metrics(counts: Counts, tokens: int) -> Metrics:
    """Distinct experts of the whole batch's decode steps, mean over steps and layers; empty without such steps."""
    found = [value for value in counts.distinct(tokens) if value is not None]
    if not found:
        return {}
    mean = sum(found) / len(found)
    return {"distinct_experts": mean, "distinct_experts_share": mean / counts.experts}
