"""The keys of plans, records and manifests (the reference for docs/data.md).

Each is a TypedDict, so that mypy finds a misspelt key; at run time each is a plain dict, as JSON gives it.  Standard
library only: every engine's environment imports this.

A key that is ``NotRequired`` is left out where its docstring says so, or is unknown to files of earlier versions; read
it with ``get``.  ``None`` means: asked and not known, or not applicable.  Bytes are bytes, times are seconds, rates
are per second, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Any

Knobs = dict[str, Any]
"""Values by name of a knob, a setting or a library's keyword argument: free-form, as read from YAML."""

Json = dict[str, Any]
"""External JSON: a model's ``config.json``, a harness's results, a service's response."""
