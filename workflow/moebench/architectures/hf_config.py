"""Conversion between the registry's architectures and Hugging Face's ``config.json``.

Families spell the same size differently: the number of experts is ``num_local_experts``, ``num_experts`` or
``n_routed_experts``, an expert's width ``intermediate_size`` or ``moe_intermediate_size``.  The tables of
``families`` say how.  Architectures are plain dicts here (``Architecture.as_dict()``) and only the standard library is
imported, because the measurement side calls this in an engine's environment.
"""

from __future__ import annotations

from typing import Any, cast

from moebench.architectures.families import FAMILIES, UNSAID, Family, spelled
from moebench.architectures.layer_kinds import LayerKinds, layer_kinds
from moebench.architectures.unexpressed import unexpressed
from moebench.formats import Json
from moebench.formats.model import ArchitectureDict, ExpertsDict, ModelDict, VisionDict
from moebench.formats.plan import EngineKnobsDict

_MLA_ONLY = {"q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"}


def family(architecture: ArchitectureDict) -> Family:
    """The table of an architecture's family.  Raises ValueError if there is none."""
    name = architecture["family"]
    if spelling := architecture.get("spelling"):
        return spelled(name, spelling)
    if name not in FAMILIES:
        raise ValueError(f"unknown architecture family {name!r}; known: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def reshaped(
    architecture: ArchitectureDict,
    experts: int | None = None,
    moe_ffn_size: int | None = None,
    top_k: int | None = None,
) -> ArchitectureDict:
    """A copy with another expert shape.  Shared experts keep their width; top-k is at most the number of experts.

    Raises ValueError for a dense model, or if ``top_k`` exceeds the number of experts.
    """
    copy = architecture.copy()
    changes = {"count": experts, "ffn_size": moe_ffn_size, "top_k": top_k}
    changes = {key: value for key, value in changes.items() if value is not None}
    if not changes:
        return copy
    if copy["experts"] is None:
        raise ValueError("a dense model has no experts to change")
    block = cast(ExpertsDict, {**copy["experts"], **changes})
    if block["top_k"] > block["count"]:
        if top_k is not None:
            raise ValueError(f"top_k {top_k} is more than the {block['count']} experts there are")
        block["top_k"] = block["count"]
    copy["experts"] = block
    return copy


def shared_experts(architecture: ArchitectureDict, table: Family | None = None) -> int:
    """Number of shared experts, for a family that makes each as wide as a routed one.

    Raises ValueError if their total width is not a multiple of that.
    """
    experts = architecture["experts"]
    assert experts is not None
    count, rest = divmod(experts["shared_ffn_size"], experts["ffn_size"])
    if rest or ((table or family(architecture)).shared == "routed" and count > 1):
        raise ValueError(
            f"{architecture['family']} makes a shared expert as wide as a routed one: it cannot spell a shared width "
            f"of {experts['shared_ffn_size']} beside experts of {experts['ffn_size']}"
        )
    return int(count)


def to_hf_config(architecture: ArchitectureDict) -> Json:
    """A complete ``config.json``: enough to write a checkpoint, or to load dummy weights.  For a vision-language model
    it lacks the id of the image token, which comes from the tokenizer.

    Raises ValueError for a family that cannot be written, or a shape that it cannot express.
    """
    table = family(architecture)
    if table.constants is None:
        written = ", ".join(name for name, other in FAMILIES.items() if other.constants is not None)
        raise ValueError(f"no config.json is written for {architecture['family']}; written: {written}")
    config: Json = {"architectures": [table.engine_class], "model_type": table.model_type}
    vision, experts = architecture["vision"], architecture["experts"]
    if table.language:
        assert vision is not None
        text = to_hf_config({**architecture, "family": table.language})
        return config | {
            **table.constants,
            "text_config": text,
            "vision_config": _siglip(vision),
            "image_grid_pinpoints": tile_grids(vision),
            "image_seq_length": (vision["tile_size"] // vision["patch_size"]) ** 2,
            "tie_word_embeddings": architecture["tied_embeddings"],
            "dtype": "bfloat16",
        }
    config |= {size.keys[0]: size.value(architecture) for size in table.sizes}
    if table.shared == "count":
        config[table.shared_key] = shared_experts(architecture)
    if "q_lora_rank" in config:
        config["num_key_value_heads"] = architecture["attention"]["kv_heads"]
        config["q_lora_rank"] = config["q_lora_rank"] or None
    # Families with a separate width for experts also need a dense width, even if no layer uses it.
    config["intermediate_size"] = (
        config.get("intermediate_size") or architecture["dense_ffn_size"] or (experts["ffn_size"] if experts else 0)
    )
    if listed := layer_words(architecture, table):
        config["layer_types"] = listed
    if window := architecture["attention"].get("window"):
        config["sliding_window"] = window
    return config | {
        **table.constants,
        "hidden_act": "silu",
        "max_position_embeddings": architecture["max_positions"],
        "dtype": "bfloat16",
    }


def layer_words(architecture: ArchitectureDict, table: Family) -> list[str]:
    """``layer_types`` in the family's words, empty if all layers are alike.  Layers with full attention are spread
    evenly, each the last of its group."""
    recurrent, layers = architecture.get("recurrent"), architecture["layers"]
    windowed = architecture["attention"].get("windowed_layers", 0)
    other = recurrent["layers"] if recurrent else windowed
    if not other:
        return []
    word, full = table.kinds["recurrent" if recurrent else "windowed"], layers - other
    return [table.kinds["full"] if (n + 1) * full // layers > n * full // layers else word for n in range(layers)]


def tile_grids(vision: VisionDict) -> list[list[int]]:
    """Sizes, pixels, of the grids of up to nine tiles that an image may be split into, as in DeepSeek-VL2."""
    edge, most = vision["tile_size"], range(1, 10)
    return [[high * edge, wide * edge] for high in most for wide in most if high * wide <= 9]


def _siglip(vision: VisionDict) -> Json:
    """``config.json`` of a SigLIP tower."""
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": vision["hidden_size"],
        "intermediate_size": vision["ffn_size"],
        "num_hidden_layers": vision["layers"],
        "num_attention_heads": vision["heads"],
        "image_size": vision["tile_size"],
        "patch_size": vision["patch_size"],
        "vision_use_head": vision["pooling_head"],
    }


def hf_overrides(
    architecture: ArchitectureDict,
    experts: int | None = None,
    moe_ffn_size: int | None = None,
    top_k: int | None = None,
) -> Json:
    """Overrides of ``config.json`` for the engine: the family's key for each argument that is not None.

    A dense model has none.  Raises ValueError for a shape that the family cannot express.
    """
    table = family(architecture)
    wanted = {"count": experts, "ffn_size": moe_ffn_size, "top_k": top_k}
    if architecture["experts"] is None or not any(wanted.values()):
        return {}
    overrides: Json = {}
    for size in table.sizes:
        if size.path[0] == "experts" and wanted.get(size.path[-1]) is not None:
            overrides[size.keys[0]] = wanted[size.path[-1]]
    if moe_ffn_size is not None and table.shared != "width":
        count = shared_experts(reshaped(architecture, experts, moe_ffn_size, top_k))
        if table.shared == "count":
            overrides[table.shared_key] = count
    return {table.override_section: overrides} if table.override_section else overrides


def shape_overrides(model: ModelDict, config: EngineKnobsDict, top_k: int | None = None) -> Json:
    """Overrides of ``config.json`` for a model of the plan: the shape that the knobs request, unless the model has it.

    A derived checkpoint is already written in its shape; its knobs refer to its parent.
    """
    sizes = (None, None) if model.get("derived") else (config["experts"], config["moe_ffn_size"])
    return hf_overrides(model["architecture"], sizes[0], sizes[1], top_k)


def respelled(config_json: Json, before: ArchitectureDict, after: ArchitectureDict) -> Json:
    """A model's ``config.json`` with the experts of another architecture, under every key the family reads them from.

    Changes only the keys in which the two architectures differ.  Raises ValueError for what the family cannot express.
    """
    table = family(after)
    changed = {size: size.value(after) for size in table.sizes if size.value(after) != size.value(before)}
    config = dict(config_json)
    parts = [name for name in (table.section, table.override_section) if name and config.get(name)]
    sections = [dict(config[name]) for name in parts] or [config]
    for section in sections:
        for size, value in changed.items():
            section |= dict.fromkeys([key for key in size.keys if key in section] or size.keys[:1], value)
        if table.shared == "count":
            section[table.shared_key] = shared_experts(after)
    return config | dict(zip(parts, sections, strict=True)) if parts else config


def disagreements(architecture: ArchitectureDict, config_json: Json, table: Family | None = None) -> list[str]:
    """The differences between the registry and a model's ``config.json``, or the configuration that an engine resolved.

    Compares the sizes that determine weights, memory and time (not ``max_position_embeddings``), the model type, and
    which layers have a window or a state.  A missing key counts as the family's default if that is documented;
    otherwise it is not compared.  A key that changes the sizes and that the registry cannot represent is named; others
    are ignored.  ``table``: the family's, if the architecture does not carry one.
    """
    table = table or family(architecture)
    config = text_config(config_json, table)
    expected = {size.keys[0]: size.value(architecture) for size in table.sizes}
    given = given_sizes(config, table)
    if table.shared == "count":
        expected[table.shared_key] = shared_experts(architecture, table)
    if architecture["attention"]["kind"] != "mla":  # DeepSeek's files have these, unused, for plain attention too
        expected = {key: value for key, value in expected.items() if key not in _MLA_ONLY}
    if not architecture["dense_ffn_size"]:
        for size in table.sizes:
            if size.path == ("dense_ffn_size",):
                expected.pop(size.keys[0], None)
    sizes = [
        f"{key}: registry {value}, config.json {given[key]}"
        for key, value in expected.items()
        if given[key] is not UNSAID and given[key] != value
    ]
    kinds = _kinds(architecture, config, table)
    vision = bool(architecture["vision"] or architecture["vision_parameters"])
    return _model_type(table, config_json) + sizes + kinds + unexpressed(config_json, config, table, vision)


def text_config(config_json: Json, table: Family) -> Json:
    """The part of a ``config.json`` that describes the text model."""
    parts = [config_json[name] for name in (table.section, table.override_section) if config_json.get(name)]
    return {key: value for part in parts for key, value in part.items()} or config_json


def given_sizes(config: Json, table: Family) -> Json:
    """The sizes in a text model's ``config``, by the first key of each; UNSAID if neither the file nor a default of the
    family gives one.  A list with a value per layer counts as that value if all are equal."""
    given: Json = {}
    for size in table.sizes:
        key = next((k for k in size.keys if config.get(k) is not None), size.keys[0])
        given[size.keys[0]] = _given(config, key, size.keys[0], table, given)
    if table.shared == "count":
        given[table.shared_key] = _one(config.get(table.shared_key, UNSAID) or 0)
    return given


def kinds_of(config: Json, table: Family, architecture: ArchitectureDict) -> LayerKinds:
    """The layers with a window or a state in a text model's ``config``."""
    return layer_kinds(config, table, architecture["layers"], architecture["max_positions"])


def _model_type(table: Family, config_json: Json) -> list[str]:
    given = config_json.get("model_type")
    if given in (None, table.model_type, *table.also):
        return []
    return [f"model_type: registry {table.model_type}, config.json {given}"]


def _kinds(architecture: ArchitectureDict, config: Json, table: Family) -> list[str]:
    """Differences in the layers with a window or a state."""
    kinds, attention = kinds_of(config, table, architecture), architecture["attention"]
    recurrent = architecture.get("recurrent")
    with_state = recurrent["layers"] if recurrent else 0
    window, windowed = attention.get("window", 0), attention.get("windowed_layers", 0)
    found = [f"{words} is unknown to the registry" for words in kinds.unknown]
    if kinds.windowed is not None and kinds.windowed != windowed:
        found.append(f"layers with a window ({kinds.key}): registry {windowed}, config.json {kinds.windowed}")
    if kinds.window is not None and kinds.window != window:
        found.append(f"{kinds.window_key}: registry {window or 'none'}, config.json {kinds.window}")
    if kinds.recurrent is not None and kinds.recurrent != with_state:
        found.append(f"layers with a state ({kinds.key}): registry {with_state}, config.json {kinds.recurrent}")
    return found


def _one(value: Any) -> Any:
    """The common value of a list whose values are all equal; anything else unchanged."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return value[0]
    return value


def _given(config: Json, key: str, first: str, table: Family, before: Json) -> Any:
    """The value of ``key`` in ``config.json``, else the family's default, else UNSAID; ``before``: sizes read so
    far."""
    if key == "kv_lora_rank" and config.get("use_mla") is False:
        return 0
    value = _one(config.get(key, UNSAID))
    if value is None and key.endswith("_rank"):
        return 0  # DeepSeek: not compressed
    if value is not UNSAID and value is not None:
        return value
    if first in table.defaults:
        return table.defaults[first]
    heads, hidden = before.get("num_attention_heads", UNSAID), before.get("hidden_size", UNSAID)
    if key == "num_key_value_heads":
        return heads
    if key == "head_dim" and UNSAID not in (heads, hidden):
        return hidden // heads
    return UNSAID
