"""Text for a terminal: aligned tables, counts, the command that measures a cell again."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Columns aligned, numbers to the right."""
    cells = [[str(c) for c in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(isinstance(row[i], (int, float)) for row in rows) if rows else False for i in range(len(head))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def count(number: int, thing: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def rerun_command(
    key: str, results: str | Path, profile: str, study: str | None, elsewhere: str | Path | None = None
) -> str:
    """The command that measures one cell again.

    ``study`` and ``elsewhere``, the folder of all results: None where config/config.yaml names them.
    """
    given = {"study": study, "results": elsewhere}
    config = [f"{name}={value}" for name, value in given.items() if value]
    named = " ".join(["", "--config", *config]) if config else ""
    return f"snakemake --profile {profile}{named} --force {results}/cells/{key}.json"
