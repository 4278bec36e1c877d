"""Parts of the page: the order of experiments, claims and failures, and the cells that its script reads."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd

from moebench.report import cells, claims, content, groups
from moebench.tables import join


def experiment(paper: str, *numbers: str, accuracy: bool = False) -> dict[str, object]:
    return {"paper": paper, "numbers": list(numbers), "accuracy": accuracy}


def test_experiments_stand_by_number_controls_and_accuracy_apart():
    ten, three = experiment("MoE-Inference-Bench", "10a", "10b"), experiment("MoE-Inference-Bench", "3")
    other, control = experiment("The qs Inequality", "Q1"), experiment("not in a paper; a control", "6 control")
    asked, both = experiment("MoE-Inference-Bench", accuracy=True), experiment("Faster MoE", "17", accuracy=True)
    made = groups.groups([asked, other, ten, control, both, three])
    assert [(anchor, below) for anchor, _, below in made] == [
        ("figures", [three, ten, both, other]),
        ("controls", [control]),
        ("accuracy", [asked]),
    ]


def test_failures_are_grouped_by_cause_most_cells_first():
    def entry(engine: str, count: int, reason: str) -> dict[str, object]:
        return {
            "status": "unsupported",
            "words": "not supported",
            "reason": reason,
            "cells": count,
            "first": f"{engine}/c",
        }

    made = content.causes([entry("a", 1, "x"), entry("b", 3, "y"), entry("c", 4, "y")])
    assert [(c["reason"], c["cells"], c["engines"], len(c["entries"])) for c in made] == [
        ("y", 7, 2, 2),
        ("x", 1, 1, 1),
    ]


def test_decided_claims_come_first():
    fields = ["place", "statement", "expected", "expected_here", "reason", "comparisons_planned", "value", "support",
              "value_low", "value_high", "evaluated_on", "comparisons", "unstable_cells", "predicted_value", "test",
              "predicted_outcome", "contradicts", "note", "quote"]  # fmt: skip
    rows = [
        dict.fromkeys(fields) | {"claim": name, "paper": "P", "verdict": verdict, "outcome": outcome}
        for name, verdict, outcome in (
            ("A", "not measured", "not measured"),
            ("B", "not measured", "agrees"),
            ("C", "refuted", "disagrees"),
        )
    ]
    (paper,) = claims.papers(pd.DataFrame(rows))
    assert [row["id"] for row in paper.decided] == ["C"] and [row["id"] for row in paper.open] == ["B", "A"]


def test_the_script_reads_every_cell_and_nothing_ends_its_element(rich):
    plan, _, tables = rich
    frame = join.with_status(tables)
    frame.loc[0, "reason"] = "</script><!-- & \u2028"
    figure = SimpleNamespace(plot=SimpleNamespace(id="fig"), cells=["none/such"], tells=[], columns=[])
    made = cells.payload(plan, frame, tables, [figure], "results")
    text = cells.script(made)
    assert "<" not in text and "&" not in text and "\u2028" not in text
    assert json.loads(text)["columns"]["reason"]["levels"][0] == "</script><!-- & \u2028"
    assert made["ids"] == (frame["engine"] + "/" + frame["cell"]).drop_duplicates().tolist()
    assert made["rerun"].endswith("--force results/cells/CELL.json") and made["figures"] == {"fig": [None]}
    assert all(len(runs) > 1 for runs in made["repeats"]["cells"].values()) and made["repeats"]["cells"]
