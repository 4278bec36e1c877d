"""Identity by content: canonical JSON and its hash (docs/decisions/0001).  Standard library and pydantic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from moebench.formats import Knobs


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces: the text that is hashed."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(data: Any, length: int = 6) -> str:
    """First hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:length]


def stated(model: type[BaseModel], data: Mapping[str, Any]) -> Knobs:
    """The fields that differ from a model's defaults, so a knob added later does not change identities of old cells."""
    return model.model_validate(data).model_dump(exclude_defaults=True)
