"""The first screen of the report: cards, findings and states agree with the tables."""

import math

import pandas as pd
import pytest

import studies
from moebench.claims import spec
from moebench.report import summary


@pytest.fixture(scope="module")
def plan():
    return studies.planned("tiny")


def claimed(plan, outcomes):
    """Rows of the table ``claims``: claim, outcome, value, low, high, comparisons."""
    known = {claim.id: claim for paper in spec.from_plan(plan) for claim in paper.claims}
    return pd.DataFrame([
        {"claim": name, "outcome": outcome, "verdict": "not measured", "value": value, "value_low": low,
         "value_high": high, "support": None, "comparisons": comparisons, "unstable_cells": 0,
         "test": known[name].test, "statement": f"{name} varies by 70%", "expected": "0.55 to 0.85",
         "expected_here": ""}
        for name, outcome, value, low, high, comparisons in outcomes
    ])  # fmt: skip


def test_findings_are_the_decided_comparisons_one_per_family(plan):
    frame = claimed(plan, [
        ("MIB-F03-02", "disagrees", 1.67, 1.52, 1.78, 1),
        ("MIB-F05-01-DS", "disagrees", 0.28, 0.26, 0.34, 1),
        ("MIB-F05-01-QW", "agrees", 0.14, 0.13, 0.15, 4),
        ("MIB-F06-05", "undecided", -0.01, -0.02, 0.01, 2),
        ("MIB-F07-04", "not measured", None, None, None, 0),
    ])  # fmt: skip
    found = summary.findings(plan, frame)
    assert [f.claim for f in found] == ["MIB-F03-02", "MIB-F05-01-QW"], "most comparisons of a family"
    assert summary.tried(frame) == (1, 2, 1)
    assert (found[0].effect, found[0].interval) == ("gain 167%", "152% to 178%") and found[0].expected == "55% to 85%"
    assert found[0].comparisons == "1 comparison" and "interval" in found[0].drawing


def test_a_figure_and_its_prediction_show_the_same_metric(plan):
    pairs = 0
    for experiment in plan["experiments"].values():
        own = {figure["id"]: figure["y"] for figure in experiment["figures"]}
        for figure in experiment.get("predicted_figures") or ():
            sister = own[figure["id"].removesuffix("-predicted")]
            assert list(figure["y"]) == list(sister), figure["id"]
            pairs += 1
    assert pairs > 10


def test_no_more_findings_than_fit(plan):
    names = [c.id for paper in spec.from_plan(plan) for c in paper.claims if c.id.startswith("MIB")]
    frame = claimed(plan, [(name, "agrees", 1.0, 0.9, 1.1, 1) for name in names])
    assert len(summary.findings(plan, frame)) <= summary.MOST_FINDINGS


def test_a_drawing_shows_interval_and_range_where_they_are():
    text = summary._draw({"value": 2.0, "value_low": 1.0, "value_high": 3.0}, 5.0, math.inf)
    band = float(text.split('rect class="band" x="')[1].split('"')[0])
    dot = float(text.split('cx="')[1].split('"')[0])
    assert dot < band and "NaN" not in text and "inf" not in text


def test_states_count_each_cell_once():
    rows = pd.DataFrame({"status": ["ok", "ok", "unsupported", "oom_kv", "not measured"],
                         "unstable": pd.array([True, False, None, None, None], dtype="boolean")})  # fmt: skip
    found = summary.state(rows)
    assert (found.stable, found.unstable, found.unsupported, found.failed, found.missing) == (1, 1, 1, 1, 1)
    assert sum(share for _, share in found.shares) == pytest.approx(100) and "1 failed" in str(found)
    assert summary.state(rows[:0]) is None


def test_cards_say_what_is_measured_unstable_and_refused(plan):
    measured = pd.DataFrame({
        "status": ["ok", "ok", "unsupported"], "unstable": pd.array([True, False, None], dtype="boolean"),
        "canary_drift": [0.1, 0.3, None], "residual_e2e": [12.0, None, None],
        "prediction_refused": [None, "float16 is slow", None],
    })  # fmt: skip
    counted = [("ok", "measured", 2), ("unsupported", "not supported by the engine", 1)]
    frame = claimed(plan, [("MIB-F03-02", "disagrees", 1.67, 1.52, 1.78, 1)])
    cells, stability, model, claims = summary.cards(measured, counted, 4, frame, True)
    assert cells.number == "2 of 4" and "1 not supported" in cells.words
    assert stability.number == "1 of 2" and "20%" in stability.words
    assert model.number == "12x" and "1 prediction refused" in model.words
    assert claims.number == "0 of 1 decided" and "1 open" in claims.words
