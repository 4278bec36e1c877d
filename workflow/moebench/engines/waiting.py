"""What a service needs from the environment of whoever runs it: names of variables, never their values."""

from __future__ import annotations

import os
from typing import Any


def unset(runtime: dict[str, Any]) -> list[str]:
    """Variables that an engine's service needs and that are not set here (``engines.*.runtime`` of a plan)."""
    endpoint = runtime["endpoint"] or {}
    wanted = [endpoint.get("base_url_env"), endpoint.get("key_env")]
    return [name for name in wanted if name and not os.environ.get(name, "").strip()]
