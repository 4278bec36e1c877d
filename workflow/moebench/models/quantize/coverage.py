"""Calibration tokens per expert: an expert without any is rounded from its weights alone.

Counts come from hooks while llm-compressor calibrates.  Its passes over a layer (to calibrate, then to compute the next
inputs) count equally for a layer and its experts, so shares are exact for any number of passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moebench.errors import UserError
from moebench.formats import Json


@dataclass
class Layer:
    """Rows that went through one layer's experts."""

    experts: int
    tokens: int = 0
    seen: list[int] = field(default_factory=list)
    """Tokens each expert was calibrated on."""
    routed: list[int] = field(default_factory=list)
    """Tokens the router sent to each expert."""

    def __post_init__(self) -> None:
        self.seen, self.routed = [0] * self.experts, [0] * self.experts


class Coverage:
    """Counts of a model's MoE layers, which ``llmcompressor`` has split into one module per expert."""

    def __init__(self, layers: list[tuple[str, Any]]):
        self.layers = {name: Layer(module.num_experts) for name, module in layers}
        self._handles = []
        for name, module in layers:
            self._handles.append(module.register_forward_pre_hook(self._of_layer(self.layers[name])))
            for index in range(module.num_experts):
                hook = self._of_expert(self.layers[name], index)
                self._handles.append(module[index].register_forward_pre_hook(hook))

    @staticmethod
    def _of_layer(layer: Layer) -> Callable[..., None]:
        def hook(_: Any, inputs: tuple[Any, ...]) -> None:
            hidden, chosen = inputs[0], inputs[1]
            layer.tokens += hidden.shape[0]
            for index, count in enumerate(chosen.flatten().bincount(minlength=layer.experts).tolist()):
                layer.routed[index] += count

        return hook

    @staticmethod
    def _of_expert(layer: Layer, index: int) -> Callable[..., None]:
        def hook(_: Any, inputs: tuple[Any, ...]) -> None:
            layer.seen[index] += inputs[0].shape[0]

        return hook

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


def checked(layers: dict[str, Layer], tokens: int) -> Json:
    """Facts for the manifest.  Raises UserError, naming layer and expert, if an expert got no token.

    ``tokens``: calibration tokens of the model, sequences x length.
    """
    for name, layer in layers.items():
        for index, count in enumerate(layer.seen):
            if count == 0:
                raise UserError(
                    f"expert {index} of {name} got none of the {tokens} calibration tokens, so its rounding would not "
                    "be calibrated; raise calibration.sequences or calibration.tokens of the study"
                )
    shares = [min(layer.seen) / layer.tokens for layer in layers.values()]
    return {
        "moe_layers": len(layers),
        "experts": sum(layer.experts for layer in layers.values()),
        "tokens": tokens,
        "tokens_per_expert_min": round(tokens * min(shares)) if shares else None,
        "experts_without_routed_token": sum(layer.routed.count(0) for layer in layers.values()),
    }
