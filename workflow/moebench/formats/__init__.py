"""What plans, records and manifests hold, key by key (the reference behind docs/data.md).

Each is a TypedDict, so that mypy finds a misspelt key; at run time each is a plain dict, as JSON gives it.  Standard
library only: every engine's environment imports this.

A key that is ``NotRequired`` is left out where its docstring says so, or is unknown to files of earlier versions; read
it with ``get``.  ``None`` means: asked and not known, or not applicable.  Bytes are bytes, times are seconds, rates
are per second, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Any

Knobs = dict[str, Any]
"""Values by the name of a knob, a setting or a library's keyword argument: free-form, as YAML gives them."""

Json = dict[str, Any]
"""JSON of somebody else: a model's ``config.json``, a harness's results, a service's answer."""
