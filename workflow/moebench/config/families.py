"""Families: how the ``config.json`` of a model type spells its sizes, ``config/families/NAME.yaml``."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import BaseModel, Field, model_validator

from moebench.config.base import Count, Strict
from moebench.config.models import Architecture
from moebench.errors import nearest
from moebench.formats.model import SpellingDict


class FamilySpec(Strict):
    """A family of architectures: ``config/families/NAME.yaml``."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="Name used in architecture.family of config/models")
    model_type: str = Field(description="model_type of config.json")
    also: tuple[str, ...] = Field((), description="Equivalent model types")
    engine_class: str = Field(description="architectures of config.json")
    sizes: dict[str, str] = Field(
        description="Key of config.json (several, separated by spaces: the first is written, any is read) and its "
        "place in architecture, e.g. {num_attention_heads: attention.heads}"
    )
    omitted: dict[str, Any] = Field({}, description="Value of a key that config.json omits")
    facts: dict[str, Any] = Field(
        {}, description="Facts about all models of the family that no key states, by place: {attention.sinks: true}"
    )
    shared: Literal["width", "count", "routed"] = Field(
        "width",
        description="Shared experts are given by total width or by count, or there is one as wide as a routed expert",
    )
    shared_key: str = Field("n_shared_experts", description="Key of the count")
    kinds: dict[Literal["full", "windowed", "recurrent"], str] = Field(
        {}, description="Meaning of the values of layer_types"
    )
    full_every: Count = Field(
        0, description="If no key says so: every n-th layer has full attention, the others do not"
    )
    full_every_other: Literal["windowed", "recurrent"] = Field("windowed", description="Kind of the other layers")
    section: str = Field("", description="Key of config.json that holds the text model")
    override_section: str = Field("", description="The same in the configuration object, where overrides go")
    ignored: tuple[str, ...] = Field((), description="Keys that look as if they changed sizes but do not")
    constants: dict[str, Any] | None = Field(
        None, description="Additional keys of a config.json that the project writes; without them it writes none"
    )
    reference: str = Field(description="Source of the spelling")

    @model_validator(mode="after")
    def _known_places(self) -> FamilySpec:
        for place in (*self.sizes.values(), *self.facts):
            if place not in _PLACES:
                raise ValueError(f"{place!r} is not a key of architecture{nearest(place, _PLACES)}")
        return self

    def spelling(self) -> SpellingDict:
        """As an architecture carries it: what the file says."""
        said = self.model_dump(mode="json", exclude={"name", "reference"}, exclude_defaults=True)
        return cast(SpellingDict, said)


def _places(model: type[BaseModel], before: str = "") -> set[str]:
    """Dotted names of all values below a model."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
        below = next((a for a in inner if issubclass(a, BaseModel)), None)
        found |= _places(below, f"{before}{name}.") if below else {f"{before}{name}"}
    return found


_PLACES = {p for p in _places(Architecture) if not p.startswith(("vision.", "spelling", "family"))}
