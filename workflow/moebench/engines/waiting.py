"""Environment variables that a service needs from the user: their names, never their values."""

from __future__ import annotations

import os

from moebench.formats.plan import Runtime


def unset(runtime: Runtime) -> list[str]:
    """Variables that an engine's service needs but that are not set (``engines.*.runtime`` of a plan)."""
    endpoint = runtime["endpoint"]
    wanted = [endpoint.get("base_url_env"), endpoint.get("key_env")] if endpoint else []
    return [name for name in wanted if name and not os.environ.get(name, "").strip()]
