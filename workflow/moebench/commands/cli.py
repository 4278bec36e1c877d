"""The command ``moebench``, with one verb per step of the data flow.

Exit codes: 0 done; 1 some cells have no result yet, or a check found something; 2 user error; 3 storage failed;
130 interrupted; 141 the reader of the output has gone.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import typer

from moebench.commands import (  # noqa: F401 - they register verbs
    campaign_verbs,
    internal,
    models,
    models_verbs,
    results,
    site,
    study,
)
from moebench.commands.app import app, complain
from moebench.engines import compatibility, loopback


def main(argv: list[str] | None = None) -> None:
    """Run a verb and exit with its code; a wrong verb or option gives one line on standard error and code 2."""
    os.environ.update(loopback.direct() | site.certificates())  # for processes that a verb starts
    compatibility.put_in_front()
    try:
        code = command().main(argv, prog_name="moebench", standalone_mode=False)
    except typer.TyperException as error:
        code = error.exit_code
        if line := _one_line(error):
            complain(line)
    sys.exit(code)


@functools.cache
def command() -> Any:
    """The command of all verbs, made once in a process: typer takes 40 ms to read every verb's signature."""
    return typer.main.get_command(app)


def _one_line(error: typer.TyperException) -> str:
    """The error in the arguments and the remedy; empty if there were none and the help was printed."""
    context, close = getattr(error, "ctx", None), getattr(error, "possibilities", None)
    path = context.command_path if context else "moebench"
    said = f"{error.message}. Did you mean {' or '.join(close)}?" if close else " ".join(error.format_message().split())
    said = said.replace("Value error, ", "")  # pydantic's
    hint = "" if said.endswith("?") else f"; see `{path} --help`"
    return f"{path}: {said.rstrip('.')}{hint}" if said else ""
