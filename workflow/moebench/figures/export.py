"""Figures to files: SVG, PDF, PNG and the data as CSV, the same bytes for the same data."""

from __future__ import annotations

import io
import os
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from moebench.errors import StorageError
from moebench.storage.atomic import write_atomic

_NO_DATES = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: figures cannot be written ({error.strerror}); free space, run again") from None
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
    """Write ``name``.svg, .pdf, .png (300 dpi) and .csv, each by rename.  Raises StorageError."""
    paths = [out / f"{name}.{kind}" for kind in ("svg", "pdf", "png", "csv")]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in paths:
            kind = path.suffix[1:]
            draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
            try:
                if kind == "csv":
                    data.to_csv(draft, index=False, lineterminator="\n", encoding="utf-8")
                elif kind == "svg":
                    draft.write_text(svg(made, name), encoding="utf-8")
                else:
                    made.savefig(draft, format=kind, metadata=_NO_DATES[kind])
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{out}: figures cannot be written ({error.strerror or error}); free space, run again"
        ) from None
    return paths
