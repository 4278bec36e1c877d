"""Figures to files: SVG and the data as CSV, or a PDF for a paper; the same bytes for the same data."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from moebench.storage.atomic import write_atomic

_NO_DATES = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
}


def pdf(made: Figure, path: Path, said: dict[str, str]) -> Path:
    """Write a figure as a PDF that says what it is (``Title``, ``Subject``, ...).  Raises StorageError."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="pdf", metadata=_NO_DATES["pdf"] | said)
    write_atomic(path, buffer.getvalue())
    return path


def narrow(made: Figure, out: Path, name: str) -> Path:
    """Write ``narrow/NAME.svg``, for small screens.  Raises StorageError."""
    path = out / "narrow" / f"{name}.svg"
    write_atomic(path, svg(made, f"{name}-narrow").encode("utf-8"))
    return path


def svg(made: Figure, name: str) -> str:
    """A figure as SVG.  Identifiers come from a hash; the salt makes it the same in every process."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"moebench-{name}"}):
        made.savefig(text, format="svg", metadata=_NO_DATES["svg"])
    # Where DejaVu is missing, a font of the same width: labels still do not touch.
    return text.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")


def save(made: Figure, data: pd.DataFrame, out: Path, name: str) -> list[Path]:
    """Write ``NAME.svg`` and ``NAME.csv``, each by rename.  Raises StorageError."""
    write_atomic(out / f"{name}.svg", svg(made, name).encode("utf-8"))
    write_atomic(out / f"{name}.csv", data.to_csv(index=False, lineterminator="\n").encode("utf-8"))
    return [out / f"{name}.svg", out / f"{name}.csv"]
