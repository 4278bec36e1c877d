"""Figures for a paper: PDFs of one and of two columns without titles, captions as LaTeX, data with units, metadata.

A column is 240 points wide, two are 504; no text is smaller than 7 points.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import moebench
from moebench import columns
from moebench.config import Plot
from moebench.figures import data, export, kinds, placing, residuals, style
from moebench.formats.plan import Plan
from moebench.storage.atomic import write_atomic
from moebench.tables import join, machines, parquet

METADATA = "figures.json"
SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "\N{NO-BREAK SPACE}": "~", "\N{MICRO SIGN}": r"\textmu{}",
    "\N{SUBSCRIPT TWO}": r"\textsubscript{2}", "\N{GREATER-THAN OR EQUAL TO}": r"$\ge$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\le$", "\N{MULTIPLICATION SIGN}": r"$\times$",
    **{c: f"\\{c}" for c in "{}$&#%_"},
}  # fmt: skip


@dataclass(frozen=True)
class _Figure:
    experiment: str
    plot: Plot
    caption: str
    table: pd.DataFrame
    draw: Callable[[], Any]


def write(plan: Plan, tables_dir: Path, out: Path, say: Callable[[str], None] = lambda words: None) -> list[Path]:
    """Write every figure of a study into ``out``; return the files: for each its PDFs (``ID-1.pdf``, ``ID-2.pdf``),
    caption (``ID.tex``) and data (``ID.csv``), and ``figures.json``, which describes them all.

    Raises ConfigError for a figure that its rows cannot be placed on, StorageError for missing tables or files that
    cannot be written.
    """
    paths: list[Path] = []
    about: dict[str, Any] = {}
    made_from = _made_from(plan, tables_dir)
    for figure in _all(plan, tables_dir):
        name = figure.plot.id
        said = {"Title": figure.plot.title, "Subject": figure.caption, "Creator": f"moebench {moebench.__version__}",
                "Keywords": f"study {plan['study']}, plan {plan.get('digest', '')}"}  # fmt: skip
        files = []
        for across, sheet in style.COLUMNS.items():
            with style.drawing(sheet):
                files.append(export.pdf(figure.draw(), out / f"{name}-{across}.pdf", said))
        text, shown = latex(figure.plot, figure.caption, plan["study"]), with_units(figure.table)
        for suffix, content in ((".tex", text), (".csv", shown.to_csv(index=False, lineterminator="\n"))):
            write_atomic(out / f"{name}{suffix}", content.encode("utf-8"))
            files.append(out / f"{name}{suffix}")
        about[name] = {
            "experiment": figure.experiment, "number": figure.plot.number, "title": figure.plot.title,
            "caption": figure.caption, "files": [path.name for path in files],
            "widths_pt": {f"{name}-{across}.pdf": sheet.width_pt for across, sheet in style.COLUMNS.items()},
            "columns": {new: _meaning(old) for old, new in zip(figure.table.columns, shown.columns, strict=True)},
        }  # fmt: skip
        paths += files
        say(f"figure {name}")
    write_atomic(out / METADATA, (json.dumps(made_from | {"figures": about}, indent=1) + "\n").encode("utf-8"))
    return [*paths, out / METADATA]


def _all(plan: Plan, tables_dir: Path) -> Iterator[_Figure]:
    cells = join.with_status(tables_dir)
    for name in plan["experiments"]:
        source = kinds.Source(plan, name, data.of_experiment(plan, cells, name), tables_dir)
        for figure in placing.placed(source):
            yield _Figure(name, figure.plot, figure.caption(), figure.table(), figure.figure)
    if machines.compared(plan):
        frame = residuals.of_plan(plan, tables_dir)
        if len(frame):
            said = residuals.caption(plan, frame)
            yield _Figure("", residuals.PLOT, said, residuals.table(frame), lambda: residuals.figure(plan, frame))


def _made_from(plan: Plan, tables_dir: Path) -> dict[str, Any]:
    """Origin of the numbers: study and plan, engines, machines and revisions of the code that measured."""
    measured = parquet.read(tables_dir, "measurements")
    facts = ("engine_name", "engine_version", "hardware", "device_name", "git_commit", "lock_sha256", "protocol_kind")
    return {
        "study": plan["study"], "title": plan["title"], "scale": plan["scale"], "plan": plan.get("digest"),
        "moebench": moebench.__version__,
        "measured": {name: sorted(set(measured[name].dropna().astype(str))) for name in facts},
    }  # fmt: skip


def with_units(table: pd.DataFrame) -> pd.DataFrame:
    """The table with units in its heads: ``e2e_s [s]``."""
    units = {name: columns.COLUMNS[name].unit for name in table.columns if name in columns.COLUMNS}
    return table.rename(columns={name: f"{name} [{unit}]" for name, unit in units.items() if unit})


def _meaning(name: str) -> dict[str, str]:
    known = columns.COLUMNS.get(name)
    return {"unit": known.unit, "meaning": known.description} if known else {"unit": "", "meaning": "axis of the grid"}


def latex(plot: Plot, caption: str, study: str) -> str:
    """A caption as LaTeX, for ``\\input`` inside a figure environment."""
    number = f"; the paper's Figure {plot.number}" if plot.number else ""
    title = escaped(plot.title)
    return (
        f"% {plot.id} of study {study}{number}. Written by moebench {moebench.__version__}.\n"
        f"\\caption[{title}]{{\\textbf{{{title}.}} {escaped(caption)}}}\n\\label{{fig:{plot.id}}}\n"
    )


def escaped(text: str) -> str:
    """Text without LaTeX markup."""
    return re.sub("[" + re.escape("".join(SPECIAL)) + "]", lambda found: SPECIAL[found[0]], text)
