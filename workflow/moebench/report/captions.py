"""Captions of figures as reStructuredText, one file each, for ``snakemake --report``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from moebench.config import Plot
from moebench.storage.atomic import write_atomic


def write(captioned: Iterable[tuple[Plot, str]], folder: Path) -> None:
    """Write ``folder/ID.rst`` for figures and their captions.  Raises StorageError if one cannot be written."""
    for plot, caption in captioned:
        write_atomic(folder / f"{plot.id}.rst", text(plot, caption).encode("utf-8"))


def text(plot: Plot, caption: str) -> str:
    """Number and title in bold, then the caption."""
    number = f"Figure {plot.number}. " if plot.number else ""
    return f"**{_literal(number + plot.title)}**\n\n{_literal(caption)}\n"


def _literal(text: str) -> str:
    """Text without markup: for reStructuredText, and for the Jinja that Snakemake applies before."""
    escaped = re.sub(r"([\\*`_|<>])", r"\\\1", text)
    return re.sub(r"([{}%#])(?=[{}%#])", r"\1\\ ", escaped)
