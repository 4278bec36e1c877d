"""A paper's tables of numbers in the report: printed, from its formulas, from this project's cost model. No HTML
here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moebench.formats.plan import ExperimentPlan
from moebench.qs import points
from moebench.qs.paper_tables import QUANTITIES, Line, Reproduced, Value

SOURCES = "Values from the formulas that differ by more than half a unit of the last printed digit are marked."


@dataclass(frozen=True)
class Cell:
    """A value and its deviation from the printed one."""

    text: str
    aside: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Row:
    """One quantity; the first one of a row of the paper has the ``label``, which spans ``span`` lines."""

    label: str
    span: int
    quantity: str
    printed: str
    formulas: Cell
    distinct: Cell


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    id: str
    source: str
    title: str
    summary: str
    rows: list[Row]
    notes: list[str]


def tables(asked: ExperimentPlan) -> list[Table]:
    """The tables of the paper that an experiment of a plan names; none where it names no such paper."""
    return [_table(made) for made in points.reproduced(asked)]


def assumed(asked: ExperimentPlan) -> list[str]:
    """Inputs of the formulas other than the printed ones, as text."""
    printed, computed = asked.get("printed"), asked.get("computed")
    if not printed or not (given := printed["assumed"]):
        return []
    machine = computed["hardware"].get(given["hardware"]) if computed else None
    words = [f"{machine['title']}: {machine['reference']}"] if machine else []
    constants: Mapping[str, Any] = given
    return words + [
        f"{name.replace('_', ' ').capitalize()} {constant['value']:g}: {constant['reference']}"
        for name, constant in constants.items()
        if isinstance(constant, dict)
    ]


def _table(made: Reproduced) -> Table:
    right, compared = made.agreeing(lambda line: line.formulas)
    summary = (
        f"the paper's formulas reproduce {right} of {compared} printed values" if compared else "nothing to compare"
    )
    spans: dict[str, int] = {}
    for line in made.lines:
        spans[line.row] = spans.get(line.row, 0) + 1
    rows, seen = [], set()
    for line in made.lines:
        first = line.row not in seen
        seen.add(line.row)
        rows.append(
            Row(
                line.row if first else "",
                spans[line.row] if first else 0,
                QUANTITIES[line.quantity],
                line.printed or ("lost" if line.lost else ""),
                _cell(line, line.formulas, mark=True),
                _cell(line, line.distinct, mark=False),
            )
        )
    return Table(made.id, made.source, made.title, summary, rows, made.notes)


def _cell(line: Line, value: Value, mark: bool) -> Cell:
    off = line.deviation(value)
    aside = "" if off is None or line.agrees(value) else f"{off:+.0%}" if abs(off) >= 0.01 else f"{off:+.1%}"
    return Cell(text_of(value), aside, mark and line.agrees(value) is False)


def text_of(value: Value) -> str:
    """A value with enough digits to distinguish it: whole numbers in full, others with four digits."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if value == float("inf"):
        return "none"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1e4 else f"{value:.4g}"
