"""The command ``moebench``: a verb per arrow of the data's way.

Exit codes: 0 done; 1 some cells have no result yet, or a check found something; 2 a user's mistake; 3 storage failed;
130 interrupted; 141 nobody reads the output any more.
"""

from __future__ import annotations

import os
import sys

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
    """Run a verb and exit with its code; a wrong verb or option is one line on standard error, and code 2."""
    os.environ.update(loopback.direct() | site.certificates())  # for whatever a verb starts
    compatibility.put_in_front()
    try:
        code = typer.main.get_command(app).main(argv, prog_name="moebench", standalone_mode=False)
    except typer.TyperException as error:
        code = error.exit_code
        if line := _one_line(error):
            complain(line)
    sys.exit(code)


def _one_line(error: typer.TyperException) -> str:
    """What is wrong with the arguments, and what helps; empty where there were none and the help was the answer."""
    context, close = getattr(error, "ctx", None), getattr(error, "possibilities", None)
    path = context.command_path if context else "moebench"
    said = f"{error.message}. Did you mean {' or '.join(close)}?" if close else " ".join(error.format_message().split())
    said = said.replace("Value error, ", "")  # pydantic's
    hint = "" if said.endswith("?") else f"; see `{path} --help`"
    return f"{path}: {said.rstrip('.')}{hint}" if said else ""
