"""Snakemake without its line "Using profile ...", which comes before any plugin:
python -m snakemake_logger_plugin_moebench ARGUMENTS...
"""

from __future__ import annotations

from typing import Any

from snakemake import cli


def said(*words: Any, **where: Any) -> None:
    """What Snakemake's command line prints, but that line."""
    if not str(words[0]).startswith("Using "):
        print(*words, **where)


if __name__ == "__main__":
    cli.print = said
    cli.main()
