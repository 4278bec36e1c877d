"""Calibration: the inputs of every layer's experts, on real text, with one layer's weights in memory.

The model is transformers' own, built without weights.  Its embedding and each decoder layer are loaded from the files,
run over all sequences and freed again, so a layer has the same inputs as in the whole model (in float32).  Memory: one
layer, and two copies of all hidden states.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moebench.engines.imports import model_classes
from moebench.errors import StageError
from moebench.models.prune.checkpoint import Checkpoint, expert_name


@dataclass
class MoELayer:
    """A layer's MoE block and its inputs from the calibration sequences, concatenated."""

    index: int
    block: Any
    """The family's module, with its ``experts`` (``gate_up_proj`` [E, 2 x width, hidden], ``down_proj`` [E, hidden,
    width], ``act_fn``)."""
    x: Any
    """Hidden states that entered the experts, [tokens, hidden]."""
    ids: Any
    """Chosen experts, [tokens, k]."""
    weights: Any
    """Their weights, [tokens, k]."""

    @property
    def router(self) -> Any:
        """The family's router module."""
        return self.block.gate if hasattr(self.block, "gate") else self.block.router


def moe_layers(checkpoint: Checkpoint, tokens: list[list[int]]) -> Iterator[MoELayer]:
    """Run the model over sequences of one length, layer by layer; yield each layer with routed experts.

    Raises StageError for a family whose model transformers lacks or implements in another form.
    """
    with model_classes():
        import torch
        from torch import nn
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging

    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(config, dtype=torch.float32, experts_implementation="eager").eval()
        layers = list(model.layers)
        rotary = type(model.rotary_emb)(config).to(device)
    except (ValueError, AttributeError, KeyError) as error:
        raise StageError(
            f"{checkpoint.folder}: transformers cannot run it layer by layer for calibration ({error})"
        ) from None
    model.rotary_emb, model.norm = rotary, nn.Identity()
    model.layers = nn.ModuleList(_catcher() for _ in layers)
    with torch.no_grad():
        model.embed_tokens = nn.Embedding.from_pretrained(_embedding(checkpoint).float()).to(device)
        hidden = [model(torch.tensor([ids], device=device), use_cache=False).last_hidden_state for ids in tokens]
        arguments = [catcher.arguments for catcher in model.layers]
        model.embed_tokens = model.layers = None
        for index, layer in enumerate(layers):
            _load(layer, checkpoint, index, device)
            seen: list[tuple[Any, Any, Any]] = []
            experts = getattr(getattr(layer, "mlp", None), "experts", None)
            if experts is not None:
                experts.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given))
            for number, state in enumerate(hidden):
                hidden[number] = layer(state, **arguments[index])
            if seen:
                x, ids, weights = (torch.cat(parts) for parts in zip(*seen, strict=True))
                yielded = MoELayer(index, layer.mlp, x, ids, weights)
                del x, ids, weights
                yield yielded
                yielded.block = yielded.x = None  # the consumer may still hold it while the next is loaded
            layers[index] = None
            del layer, seen, experts


def _catcher() -> Any:
    from torch import nn

    class Catcher(nn.Module):  # type: ignore[misc]
        """Replaces a layer: stores its arguments other than the hidden states, and returns the hidden states."""

        def forward(self, hidden_states: Any, **arguments: Any) -> Any:
            self.arguments = arguments
            return hidden_states

    return Catcher()


def _embedding(checkpoint: Checkpoint) -> Any:
    found = [tensor for _, tensor in checkpoint.tensors(lambda name: name.endswith("embed_tokens.weight"))]
    if len(found) != 1:
        raise StageError(f"{checkpoint.folder}: {len(found)} tensors are called embed_tokens.weight")
    return found[0]


def _load(layer: Any, checkpoint: Checkpoint, index: int, device: str) -> None:
    """Fill a decoder layer from the files, in float32: experts stacked as the module has them, gate above up.

    Raises StageError if a parameter gets no values or a tensor has no place.
    """
    import torch

    layer.to_empty(device=device)
    own = dict(layer.named_parameters()) | dict(layer.named_buffers())
    left = dict.fromkeys(own, 0)
    start = re.compile(rf".*\blayers\.{index}\.")
    for name, tensor in checkpoint.tensors(lambda name: start.match(name) is not None):
        expert = expert_name(name)
        if expert is not None:
            stacked = "mlp.experts.down_proj" if expert.role == "down" else "mlp.experts.gate_up_proj"
            target = own[stacked][expert.expert]
            if expert.role != "down":
                width = tensor.shape[0]
                target = target[:width] if expert.role == "gate" else target[width:]
        else:
            stacked = start.sub("", name).replace("block_sparse_moe.", "mlp.")
            if stacked not in own:
                stacked = stacked.replace("mlp.gate.", "mlp.router.")
            target = own.get(stacked)
        if target is None or target.shape != tensor.shape:
            raise StageError(f"{checkpoint.folder}: {name} has no counterpart in transformers' {type(layer).__name__}")
        target.copy_(tensor.to(torch.float32))
        left[stacked] += tensor.numel()
    empty = [name for name, count in left.items() if count != own[name].numel()]
    if empty:
        raise StageError(f"{checkpoint.folder}: no values for {empty[0]} of layer {index}")
