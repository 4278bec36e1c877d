"""The claims section of the report: rows of the table ``claims`` in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moebench.claims import evaluate as ev
from moebench.claims.show import counts, predicted, value_of
from moebench.claims.table import CONFIRMED, REFUTED
from moebench.tables import parquet

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Paper:
    """The claims of a paper: those with a verdict, the others, and the number of each verdict."""

    name: str
    decided: list[dict[str, Any]]
    open: list[dict[str, Any]]
    counts: list[tuple[str, int]]


def papers(frame: pd.DataFrame) -> list[Paper]:
    """The table ``claims`` by paper; the paper with the most verdicts comes first. Open claims that the study's cells
    agree or disagree with come first, the rest in the paper's order.
    """
    made = []
    for name, part in frame.groupby("paper", sort=False):
        rows, anchored = [], set[str]()
        for record in parquet.rows(part):
            rows.append(_row(record, record["claim"] not in anchored))
            anchored.add(record["claim"])
        decided = [row for row in rows if row["verdict"] in (CONFIRMED, REFUTED)]
        rest = [row for row in rows if row["verdict"] not in (CONFIRMED, REFUTED)]
        rest.sort(key=lambda row: row["outcome"] not in (ev.AGREES, ev.DISAGREES))
        for group in (decided, rest):
            for before, row in zip([None, *group], group, strict=False):
                row["head"] = before is None or (row["place"], row["quote"]) != (before["place"], before["quote"])
        made.append(Paper(str(name), decided, rest, list(counts(part).items())))
    return sorted(made, key=lambda paper: (-len(paper.decided), -len(paper.open)))


def _row(record: Row, first: bool) -> dict[str, Any]:
    here = record["outcome"] not in (ev.NOT_MEASURED,) or record["value"] is not None
    cells = record["comparisons_planned"]
    return {
        "id": record["claim"],
        "anchor": f"claim-{record['claim']}" if first else "",
        "place": record["place"],
        "statement": record["statement"],
        "quote": record["quote"] or "",
        "verdict": record["verdict"],
        "kind": kind(record["verdict"]),
        "reason": record["reason"] or "",
        "expected": record["expected"],
        "expected_here": record["expected_here"] if record["expected_here"] != record["expected"] else "",
        "outcome": record["outcome"] if here else "",
        "value": value_of({**record, "support": pd.NA if record["support"] is None else record["support"]}),
        "evaluated_on": record["evaluated_on"] or "",
        "comparisons": f"{record['comparisons']} of {cells} comparisons" if cells and here else "",
        "unstable": record["unstable_cells"] or 0,
        "predicted": predicted(record),
        "contradicts": (record["contradicts"] or "").split(", ") if record["contradicts"] else [],
        "note": record["note"] or "",
    }


def kind(verdict: str) -> str:
    """How a verdict's badge looks: ok, failed or missing."""
    return {CONFIRMED: "ok", REFUTED: "failed"}.get(verdict, "missing")


def of_experiment(frame: pd.DataFrame, ids: list[str]) -> list[dict[str, str]]:
    """The claims that an experiment lists, with their verdicts; those that the plan does not know have none."""
    known = dict(zip(frame["claim"], frame["verdict"], strict=True))
    return [{"id": i, "verdict": known.get(i, ""), "kind": kind(known.get(i, ""))} for i in ids]
