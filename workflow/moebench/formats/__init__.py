"""What plans, records and manifests hold, key by key (the reference behind docs/data.md).

Each is a TypedDict, so that mypy finds a misspelt key; at run time each is a plain dict, as JSON gives it.  Standard
library only: every engine's environment imports this.

A key that is ``NotRequired`` is left out where its docstring says so, or is unknown to files of earlier versions; read
it with ``get``.  ``None`` means: asked and not known, or not applicable.  Bytes are bytes, times are seconds, rates
are per second, unless the name says otherwise.
"""
