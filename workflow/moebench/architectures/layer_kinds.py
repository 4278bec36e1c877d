"""Counts the layers of a ``config.json`` with full attention, with a window, and with a state instead.

Standard library only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from moebench.architectures.families import Family
from moebench.formats import Json

WORDS = {
    "full_attention": "full", "attention": "full", "global": "full", "indexed_attention": "full", "1": "full",
    "sliding_attention": "windowed", "sliding_window": "windowed", "chunked_attention": "windowed", "local": "windowed",
    "linear_attention": "recurrent", "mamba": "recurrent", "mamba2": "recurrent", "0": "recurrent",
}  # fmt: skip
"""Words of lists that name each layer's kind (MiniMax: 1 and 0), by what they mean."""
LISTS = ("layer_types", "layers_block_type", "attn_type_list")
INTERVALS = {"full_attention_interval": "recurrent", "sliding_window_pattern": "windowed"}
"""Keys by which every n-th layer attends to everything, and what the others are."""


@dataclass(frozen=True)
class LayerKinds:
    """Number of layers of each kind; None: not given in ``config.json``."""

    windowed: int | None = None
    recurrent: int | None = None
    window: int | None = None
    """Tokens; None where no layer has a window, or it is not said."""
    key: str = "layer_types"
    """The key that says how many layers have a window."""
    window_key: str = "sliding_window"
    unknown: list[str] = field(default_factory=list)
    """What it says that means nothing here, a sentence each."""


def layer_kinds(config: Json, table: Family, layers: Any, max_positions: Any) -> LayerKinds:
    """Count the layers of each kind.  ``layers``, ``max_positions``: the model's, if known.  A window that no sequence
    can exceed is ignored."""
    key, words = _words(config, table, layers)
    unknown = [f"{key}: {word!r}" for word in dict.fromkeys(words or ()) if word not in WORDS]
    if words is not None and isinstance(layers, int) and len(words) != layers:
        unknown.append(f"{key}: names {len(words)} of {layers} layers")
    count = None if words is None else Counter(WORDS.get(word) for word in words)
    window_key, window = _window(config)
    if window and isinstance(max_positions, int) and window >= max_positions:
        window = 0
    windowed: int | None
    if count is not None:
        windowed = count["windowed"] if window != 0 else 0
    elif window and isinstance(layers, int):
        windowed = layers - min(layers, config.get("max_window_layers") or 0)
        key = window_key
    else:
        windowed = 0 if window == 0 else None
    return LayerKinds(
        windowed,
        count["recurrent"] if count is not None else None,
        window if windowed else None,
        key,
        window_key,
        unknown,
    )


def _words(config: Json, table: Family, layers: Any) -> tuple[str, list[str] | None]:
    """Each layer's kind, and the key that gives it."""
    for key in LISTS:
        if isinstance(listed := config.get(key), list) and listed:
            return key, [str(word) for word in listed]
    if isinstance(listed := config.get("no_rope_layers"), list) and listed:  # Llama 4
        chunked = "chunked_attention" if config.get("attention_chunk_size") else "full_attention"
        return "no_rope_layers", [chunked if rope else "full_attention" for rope in listed]
    every, other = table.full_every, str(table.full_every_other)
    key = f"every {every}th layer"
    for name, meaning in INTERVALS.items():
        if isinstance(config.get(name), int) and config[name] > 0:
            key, every, other = name, config[name], meaning
    if not every or not isinstance(layers, int):
        return LISTS[0], None
    word = {"windowed": "sliding_attention", "recurrent": "linear_attention"}[other]
    return key, [word if (n + 1) % every else "full_attention" for n in range(layers)]


def _window(config: Json) -> tuple[str, int | None]:
    """Key and size (tokens) of the window; 0 if it is switched off, None if it is not given."""
    if config.get("attention_chunk_size"):
        return "attention_chunk_size", int(config["attention_chunk_size"])
    if "sliding_window" not in config and "attention_chunk_size" not in config:
        return "sliding_window", None
    off = config.get("use_sliding_window") is False
    return "sliding_window", 0 if off else int(config.get("sliding_window") or 0)
