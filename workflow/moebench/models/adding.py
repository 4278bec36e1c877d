"""Creates a file of ``config/models`` from a model's own ``config.json``, with sources, and compares it with published
numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moebench.architectures import quantization_schemes
from moebench.architectures.families import Family
from moebench.architectures.hf_config import disagreements
from moebench.architectures.reading import family_of, from_hf_config
from moebench.config import Architecture, EngineKnobs, ModelSpec, Published, parse
from moebench.cost import memory, params
from moebench.errors import ConfigError, StageError
from moebench.formats import Json
from moebench.models.hub_config import Described

MODELINE = "# yaml-language-server: $schema=../schemas/models.json\n"
TOLERANCE = 0.01
ROUNDED = 0.05
"""The same beside a number that a name rounds."""


@dataclass(frozen=True)
class Added:
    """A model that can be added."""

    spec: ModelSpec
    """As its file says; its architecture without the spelling of its family."""
    text: str
    """The file."""
    notes: list[str]
    """What is not counted, and where numbers differ."""


def described(
    found: Described, families: Mapping[str, Family], name: str | None, published: Published | None, vision: int = 0
) -> Added:
    """The file of a model.  ``vision``: number of parameters of its vision part, which ``config.json`` does not
    contain.

    Raises StageError naming each key that cannot be expressed, with the remedy.
    """
    try:
        family = family_of(found.config, families)
        architecture = dict(from_hf_config(found.config, family, families[family]))
        if vision:
            architecture["vision_parameters"] = vision
        made = Architecture.model_validate(architecture)
    except ValueError as error:  # pydantic's too
        raise StageError(f"{found.name}: {_line(error)}; {_REMEDY}") from None
    if wrong := disagreements(made.as_dict(), found.config, families[family]):
        remedy = "give --vision-parameters N" if all(w.startswith("vision_config") for w in wrong) else _REMEDY
        raise StageError(f"{found.name}: cannot be expressed: {'; '.join(wrong)}; {remedy}")
    file = name or _name(found.name)
    where = f"{found.name} at {found.revision[:12]}" if found.revision != "files" else found.name
    data: Json = {
        "name": file,
        "title": Path(found.name).name,
        "source": _source(found),
        **_quantized(found),
        "architecture": _architecture(made),
        "published": (published or _published(found, made)).model_dump(exclude_none=True),
        "reference": f"config.json of {where}",
    }
    data["published"] = data["published"] if len(data["published"]) > 1 else None
    data = {key: value for key, value in data.items() if value is not None}
    spec = parse(ModelSpec, data, f"config/models/{file}.yaml")
    return Added(spec, _yaml(data), list(_notes(found, made)))


_REMEDY = (
    "write config/families/NAME.yaml with its keys (docs/adding.md), or, where the registry has no such layers, do not "
    "use it: its parameters and memory would be wrong"
)


def facts(added: Added) -> Json:
    """Parameters computed and published, memory of cache and states in bytes, and the notes."""
    architecture, published = added.spec.architecture, added.spec.published
    knobs, active = EngineKnobs(model=added.spec.name), params.active_parameters(architecture)
    per_token = memory.memory_per_gpu(architecture, knobs).kv_bytes_per_token
    return {
        "name": added.spec.name,
        "total_parameters": params.total_parameters(architecture).total,
        "active_parameters": active.total,
        "active_without_embeddings_and_vision": active.total - active.embeddings - active.vision,
        "published": published.model_dump() if published else None,
        "kv_bytes_per_token": per_token,
        "state_bytes_per_sequence": memory.sequence_bytes(architecture, knobs, 1) - per_token,
        "notes": added.notes,
    }


def report(added: Added) -> str:
    """The facts as text."""
    known, architecture = facts(added), added.spec.architecture
    published = known["published"] or {}
    total, active = known["total_parameters"], known["active_parameters"]
    lines = [
        f"total {total / 1e9:10.2f} B   {_beside(total, published.get('total_parameters'))}",
        f"active{active / 1e9:10.2f} B   {_beside(active, published.get('active_parameters'))}"
        f"; without embeddings and vision {known['active_without_embeddings_and_vision'] / 1e9:.2f} B",
    ]
    if published:
        lines.append(f"published: {published['reference']}")
    cache = f"KV cache {known['kv_bytes_per_token'] / 1e3:.1f} kB per token"
    if window := architecture.attention.windowed_layers:
        cache += f", of {window} layers for the last {architecture.attention.window} tokens only"
    if architecture.recurrent:
        state = known["state_bytes_per_sequence"] / 1e6
        cache += f", and {state:.1f} MB of state per sequence in {architecture.recurrent.layers} layers"
    return "\n".join([*lines, cache, *added.notes])


def _beside(computed: int, published: float | None) -> str:
    if not published:
        return "published: not known"
    return f"published {published / 1e9:.4g} B ({computed / published - 1:+.1%})"


def _line(error: ValueError) -> str:
    """An error in one line; pydantic's without its URLs."""
    found = getattr(error, "errors", None)
    if found is None:
        return str(error)
    first = found()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def _name(source: str) -> str:
    """Name of the file: the repository's or folder's, in lower case.  Raises StageError if that is not a valid name."""
    name = re.sub(r"[^a-z0-9.\-]+", "-", Path(source).name.lower()).strip("-.")
    if not name:
        raise StageError(f"{source}: no name can be derived from it; give --name NAME")
    return name


def _source(found: Described) -> Json:
    if found.revision == "files":
        scheme = _scheme(found)
        return {"path": str(Path(found.name).absolute())} | ({"quantization": scheme} if scheme else {})
    return {"hub": {"hub": found.name, "revision": found.revision}}


def _scheme(found: Described) -> str | None:
    """The scheme of a quantized checkpoint.  Raises StageError if the project does not know the scheme."""
    given = found.config.get("quantization_config")
    if not given:
        return None
    for name in quantization_schemes.SCHEMES:
        if quantization_schemes.claim_problem(name, found.config) is None:
            return name
    schemes = ", ".join(quantization_schemes.SCHEMES)
    raise StageError(
        f"{found.name}: quantization_config: quant_method {given.get('quant_method')!r} is none of {schemes}; add the "
        "checkpoint that is not quantized"
    )


def _quantized(found: Described) -> Json:
    """A quantized checkpoint of the hub, for the section ``quantized``, from which it is used unchanged."""
    scheme = _scheme(found)
    if scheme is None or found.revision == "files":
        return {}
    return {"quantized": {scheme: {"hub": found.name, "revision": found.revision}}}


def _architecture(made: Architecture) -> Json:
    fields = made.model_dump(exclude_defaults=True)
    fields["attention"] = made.attention.model_dump(exclude_defaults=True)
    fields.pop("spelling", None)
    return fields


def _published(found: Described, made: Architecture) -> Published:
    """Numbers of parameters from the safetensors index, else from the repository's name (80B-A3B)."""
    name = Path(found.name).name
    total = re.search(r"(?<![A-Za-z\d.])(\d+(?:\.\d+)?)([BbTt])(?![A-Za-z])", name)
    active = re.search(r"[-_][Aa](\d+(?:\.\d+)?)[Bb](?![A-Za-z])", name)
    unit = {"b": 1e9, "t": 1e12}
    said = float(total[1]) * unit[total[2].lower()] if total else None
    where, counted = f"the name {name}", found.parameters
    if counted is None and found.weight_bytes and "quantization_config" not in found.config:
        dtype = found.config.get("dtype") or found.config.get("torch_dtype") or "bfloat16"
        counted = round(found.weight_bytes / {"float32": 4}.get(str(dtype), 2))
    if counted is not None:
        said, where = float(counted), f"safetensors of {found.name}" + (f"; {where}" if active else "")
    return Published(total_parameters=said, active_parameters=float(active[1]) * 1e9 if active else None, reference=where)


def _notes(found: Described, made: Architecture) -> Iterator[str]:
    text: Any = found.config.get("text_config") or found.config
    for key in ("num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers"):
        if text.get(key):
            yield f"not counted: the multi-token-prediction module ({key}: {text[key]})"
    if made.vision_parameters:
        yield "expressed as a number alone: the vision part, so no image is predicted"
    if made.attention.index_top_k:
        yield "not predicted: operations of the indexer of sparse attention"
    scheme = _scheme(found)
    if found.weight_bytes and scheme:
        computed = memory.weight_bytes(made, EngineKnobs(model="x", quantization=scheme))
        yield f"weights {found.weight_bytes / 1e9:.4g} GB in safetensors, {computed / 1e9:.4g} GB computed in {scheme}"
    total = params.total_parameters(made).total
    counted = _published(found, made).total_parameters
    if counted and abs(total / counted - 1) > (TOLERANCE if found.weight_bytes else ROUNDED):
        where = _published(found, made).reference
        yield f"differs by {total / counted - 1:+.1%} from {where}: look for what is not counted before you use it"


_FLOAT = "tag:yaml.org,2002:float"


def _yaml(data: Json) -> str:
    """The file's text, with short blocks on one line, as in the other files."""

    class Dumper(yaml.SafeDumper):
        pass

    class Inline(dict[str, Any]):
        pass

    Dumper.add_implicit_resolver(_FLOAT, re.compile(r"^[0-9.]+e9$"), list("0123456789"))
    Dumper.add_representer(float, lambda dumper, n: dumper.represent_scalar(_FLOAT, f"{n / 1e9:.15g}e9"))
    Dumper.add_representer(
        Inline, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=True)
    )
    shown = dict(data)
    shown["architecture"] = {
        key: Inline(value) if isinstance(value, dict) else value for key, value in data["architecture"].items()
    }
    return MODELINE + yaml.dump(shown, Dumper=Dumper, sort_keys=False, width=1000, allow_unicode=True)


def write(added: Added, folder: Path, replace: bool = False) -> Path:
    """Write the file.  Raises ConfigError if it exists already."""
    path = folder / "models" / f"{added.spec.name}.yaml"
    if path.exists() and not replace:
        raise ConfigError(f"{path}: already exists; give --replace, or another --name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(added.text, encoding="utf-8")
    return path
