"""Names what a ``config.json`` contains and an architecture of the registry cannot represent.

Standard library only.  If a key changes a model's parameters or memory and its family does not read the key, they would
be silently wrong.
"""

from __future__ import annotations

from moebench.architectures.families import Family
from moebench.formats import Json

PREFIXES = ("linear_", "mamba_", "ssm_", "kda_", "rwkv_", "conv_", "index_")
"""Beginnings of keys of layers that are no plain attention, and of indexers."""
STRUCTURE = (
    "attention_bias", "qkv_bias", "use_bias", "mlp_bias", "attn_output_gate", "mlp_only_layers", "n_shared_experts",
    "num_shared_experts", "num_shared_expert", "moe_num_shared_experts", "shared_expert_intermediate_size",
    "shared_intermediate_size", "first_k_dense_replace", "moe_layer_start_index", "kv_lora_rank", "q_lora_rank",
    "hybrid_override_pattern", "attn_layer_period", "attn_layer_indices", "full_attn_idxs", "block_types",
    "mixer_types", "layer_group_size", "moe_layers_enum", "moe_latent_size", "n_latent_experts", "use_moe_latent",
    "hc_mult", "compress_ratios",
)  # fmt: skip
"""Keys that change parameters or memory wherever they say more than nothing."""


def unexpressed(config_json: Json, config: Json, table: Family, vision: bool) -> list[str]:
    """Keys of the text model's ``config``, with values, that the family does not read; one sentence each.

    ``config_json``: the whole file.  ``vision``: the architecture has a vision part.
    """
    read = {key for size in table.sizes for key in size.keys} | set(table.ignored)
    read |= {key for key, value in (table.constants or {}).items() if config.get(key) == value}
    read.add(table.shared_key if table.shared == "count" else "")
    if config.get("use_mla") is False:
        read |= {key for key in config if key.endswith("_lora_rank")}
    found = [
        key
        for key, value in config.items()
        if (key.startswith(PREFIXES) or key in STRUCTURE)
        and key not in read
        and value not in (None, False, 0, [], {}, "")
    ]
    said = [f"{key}: {_short(config[key])} cannot be expressed for family {table.model_type}" for key in found]
    if config_json.get("vision_config") and not vision:
        said.append("vision_config: give vision or vision_parameters; the registry has neither")
    if config_json.get("audio_config"):
        said.append("audio_config: a part for audio cannot be expressed")
    return said


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
