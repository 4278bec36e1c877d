"""Text for a terminal: aligned tables, counts, the command that reruns a cell."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


STYLES = {
    **dict.fromkeys(("ok", "confirmed"), "green"),
    **dict.fromkeys(("MISSING", "refuted", "oom_weights", "oom_kv", "oom_activation", "invalid", "crashed"), "red"),
    **dict.fromkeys(("note", "not measured", "not decided"), "dim"),
}
"""Colours of status words that fill a table cell."""


def console() -> Console:
    """Standard output: as wide as the terminal, or as COLUMNS says; into a pipe or file, lines are never broken.

    Without a terminal, or with NO_COLOR set, there are neither colours nor other codes.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = None if terminal or os.environ.get("COLUMNS", "").isdigit() else 100_000
    plain = os.environ.get("NO_COLOR") or not terminal
    return Console(width=width, color_system=None if plain else "auto")


def table(head: list[str], rows: list[list[Any]]) -> str:
    """An aligned table, numbers to the right; cells are wrapped if the terminal is too narrow."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(head):
        numbers = bool(rows) and all(isinstance(row[i], (int, float)) for row in rows)
        made.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell), style=STYLES.get(str(cell), "")) for cell in row))
    out = console()
    with out.capture() as printed:
        out.print(made)
    return "\n".join(line.rstrip() for line in printed.get().splitlines())


def count(number: int, thing: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def rerun_command(
    key: str, results: str | Path, profile: str, study: str | None, elsewhere: str | Path | None = None
) -> str:
    """The command that measures one cell again.

    ``study`` and ``elsewhere``, the folder of all results: None if config/config.yaml names them.
    """
    given = {"study": study, "results": elsewhere}
    config = [f"{name}={value}" for name, value in given.items() if value]
    named = " ".join(["", "--config", *config]) if config else ""
    return f"snakemake --profile {profile}{named} --force {results}/cells/{key}.json"
