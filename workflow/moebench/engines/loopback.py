"""Requests to this machine's own addresses never go through a proxy.  Standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping

NAMES = ("no_proxy", "NO_PROXY")
"""Both spellings: most libraries read the first and heed the second only without it, some know only the second."""
HOSTS = ("127.0.0.1", "localhost", "::1")


def direct(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Proxy exceptions for a process that calls a server on this machine: those of both spellings, and this machine."""
    listed = [host.strip() for name in NAMES for host in variables.get(name, "").split(",")]
    everywhere = "*" in listed  # valid only on its own
    return dict.fromkeys(NAMES, "*" if everywhere else ",".join(dict.fromkeys(filter(None, [*listed, *HOSTS]))))
