"""An architecture from a model's published ``config.json``: the inverse of ``hf_config.to_hf_config``.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from moebench.architectures.families import UNSAID, Family
from moebench.architectures.hf_config import given_sizes, kinds_of, text_config
from moebench.formats import Json
from moebench.formats.model import ArchitectureDict

_ATTENTION = {"kind": "mha", "heads": 0, "kv_heads": 0, "head_dim": 0, "kv_lora_rank": 0, "q_lora_rank": 0,
              "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "bias": False, "qk_norm": "none"}  # fmt: skip
_EXPERTS = {
    "count": 0,
    "top_k": 0,
    "ffn_size": 0,
    "shared_ffn_size": 0,
    "shared_gate": False,
    "gated": True,
    "every": 1,
}


def family_of(config_json: Json, families: Mapping[str, Family]) -> str:
    """The family that a ``config.json`` belongs to, by its ``model_type``.

    Raises ValueError, listing the known ones, if there is none.
    """
    model_type = config_json.get("model_type")
    for own in (True, False):
        for name, table in families.items():
            if model_type == table.model_type if own else model_type in table.also:
                return name
    known = ", ".join(sorted({table.model_type for table in families.values()}))
    raise ValueError(f"model_type {model_type!r} belongs to no family; known: {known}")


def from_hf_config(config_json: Json, name: str, table: Family) -> ArchitectureDict:
    """The architecture, as far as the family's keys define it.

    Raises ValueError naming the keys that are missing.
    """
    config = text_config(config_json, table)
    given = given_sizes(config, table)
    made: Json = {"family": name, "dense_layers": 0, "dense_ffn_size": 0, "attention": dict(_ATTENTION)}
    missing = []
    for size in table.sizes:
        value = given[size.keys[0]]
        if value is UNSAID:
            missing.append(size.keys[0])
        else:
            _put(made, size.path, value * size.divisor if size.divisor != 1 else value)
    positions = config.get("max_position_embeddings", config.get("max_sequence_length"))
    if positions is None:
        missing.append("max_position_embeddings")
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}")
    for place, value in table.facts.items():
        _put(made, tuple(place.split(".")), value)
    made["max_positions"] = positions
    made.setdefault("tied_embeddings", False)
    attention = made["attention"]
    attention["head_dim"] = attention["head_dim"] or made["hidden_size"] // attention["heads"]
    if attention["kv_lora_rank"]:
        attention["kind"] = "mla"
        attention["kv_heads"] = attention["heads"]
    else:
        attention["kind"] = "mha" if attention["kv_heads"] == attention["heads"] else "gqa"
        for key in ("q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"):
            attention[key] = 0
    if config.get("use_qk_norm") and "attention.qk_norm" not in table.facts:
        attention["qk_norm"] = "head"
    if made.get("experts"):
        made["experts"] = {**_EXPERTS, **made["experts"]}
        _share(made, given, table)
        if not made["dense_layers"] and made["experts"]["every"] == 1:
            made["dense_ffn_size"] = 0
    kinds = kinds_of(config, table, cast(ArchitectureDict, made))
    if kinds.windowed and kinds.window:
        attention |= {"window": kinds.window, "windowed_layers": kinds.windowed}
    if "recurrent" in made:
        made["recurrent"] = {"state_dtype": "auto", **made["recurrent"], "layers": kinds.recurrent or 0}
        if not kinds.recurrent:
            del made["recurrent"]
    return cast(ArchitectureDict, made)


def _share(made: Json, given: Json, table: Family) -> None:
    experts = made["experts"]
    if table.shared == "count":
        experts["shared_ffn_size"] = int(given[table.shared_key] or 0) * experts["ffn_size"]
    if table.shared == "routed":
        experts["shared_ffn_size"] = experts["ffn_size"]


def _put(made: Json, path: tuple[str, ...], value: Any) -> None:
    for step in path[:-1]:
        made = made.setdefault(step, {})
    made[path[-1]] = value
