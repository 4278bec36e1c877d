"""Claims: what the files may say, which cells are compared, values and verdicts.  Numbers are made up for the sums."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml

import studies
import synthetic
from moebench.claims import accuracy_rows, budget, collect, coverage, select, show, spec, table
from moebench.claims import evaluate as ev
from moebench.claims.spec import Claim, Expect
from moebench.commands import cli
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import ConfigError
from moebench.qs import points
from moebench.tables import accuracy as accuracy_table
from moebench.tables import cell_rows, parquet
from studies import ROOT

CONFIG = Config(ROOT / "config")
DROP = {"of": {"top_k": 8}, "to": {"top_k": 1}, "as": "drop", "test": "mean", "expect": {"min": 0.4, "max": 0.6}}


@pytest.fixture(scope="module")
def files() -> list[spec.ClaimFile]:
    return spec.load(CONFIG)


@pytest.fixture(scope="module")
def paper_plan():
    return studies.with_claimed_points(studies.planned("paper"))


def claim(**more) -> Claim:
    return Claim.model_validate(
        {"id": "C-1", "place": "here", "statement": "It falls", "metric": "e2e_s", "test": "mean", "expect": None}
        | more
    )


def row(number: int, **more):
    """A row as the tables give it; cells differ in ``more``."""
    plain = {"engine": "e", "cell": f"c{number}", "model": "m", "weights": "checkpoint", "prompts": "text",
             "eager": False, "hardware": "h", "status": "ok", "top_k": 1, "batch": 1, "experiment": "x"}  # fmt: skip
    return plain | more


def evaluate(made: Claim, rows, values, repeats: int | None = 5) -> list[ev.Outcome]:
    """Evaluate with values that hardly spread: a value per row, None for a cell without one."""
    given = {i: np.full(11, float(v)) for i, v in enumerate(values) if v is not None}
    return ev.evaluate(made, rows, given, None if repeats is None else dict.fromkeys(given, repeats))


# --------------------------------------------------------------------------------------------- files


def test_the_claims_of_three_papers(files):
    counts = {made.name: len(made.claims) for made in files}
    assert counts == {"moe-inference-bench": 87, "faster-moe": 5, "qs-inequality": 6}
    for made in files:
        for one in made.claims:
            assert one.place and one.statement.strip() == one.statement and not one.statement.endswith(".")
    quoted = {c.id for made in files for c in made.claims if c.quote}
    unquoted = {c.id for made in files for c in made.claims} - quoted
    assert {i for i in unquoted if i.startswith("MIB")} == {"MIB-F12-11"}, "the control is the project's own"


def test_contradictions_go_both_ways(files):
    contradicts = {c.id: set(c.contradicts) for made in files for c in made.claims}
    pairs = {(a, b) for a, others in contradicts.items() for b in others}
    assert {("MIB-F05-05", "MIB-F06-01-De"), ("MIB-F07-05", "MIB-F07-04"), ("MIB-F09-01", "MIB-F09-02")} <= pairs
    assert all((b, a) in pairs for a, b in pairs)


def test_each_claim_selects_something_of_the_experiments_that_list_it(files, paper_plan, tmp_path):
    listing = {i: [n for n, e in paper_plan["experiments"].items() if i in e["claims"]] for f in files
               for i in (c.id for c in f.claims)}  # fmt: skip
    cells, computed = list(budget.rows_of(paper_plan)), list(points.rows(paper_plan))
    asked = accuracy_rows.rows(
        cell_rows.table("accuracy", accuracy_table.rows(paper_plan, tmp_path, "results", "p")).to_pylist()
    )
    for one in (c for made in files for c in made.claims):
        assert listing[one.id], f"no experiment lists {one.id}"
        if one.test == "computed":
            assert ev.computed(one, [p for p in computed if p["experiment"] in listing[one.id]]), one.id
        elif one.metric == "accuracy":
            mine = [r for r in asked if r["experiment"] in listing[one.id]]
            chosen = select.select(one, mine)
            assert chosen.rows, f"{one.id} selects no accuracy of {listing[one.id]}"
            assert one.id != "FMOE-04" or len(chosen.pairs) == 3, "pools of 56, 48 and 32 experts"
        elif one.test in spec.OF_CELLS:
            mine = [r for r in cells if r["experiment"] in listing[one.id]]
            assert one.undecidable or select.select(one, mine).rows, f"{one.id} selects nothing of {listing[one.id]}"


@pytest.fixture(scope="module")
def covered(paper_plan):
    return {r["claim"]: r for r in coverage.rows(paper_plan)}


def test_cells_that_fit_decide_each_claim_about_cells(files, covered):
    about_cells = {c.id for made in files for c in made.claims if c.test in spec.OF_CELLS}
    undecidable = {c.id for made in files for c in made.claims if c.undecidable}
    decided = {c for c, row in covered.items() if not row["why_not"]}
    assert about_cells - undecidable <= decided and undecidable == {"MIB-F15-01", "MIB-F15-02"}


def test_how_many_comparisons_each_claim_has(covered, files):
    assert list(covered) == [c.id for one in files for c in one.claims]
    silent = {i for i, r in covered.items() if not r["fit"] and not r["why_not"]}
    assert silent == {"MIB-F01-01", "QS-T3-01", "QS-T4-01", "QS-T5-01"}, "from architectures and printed numbers"
    assert (covered["MIB-F06-06"]["planned"], covered["MIB-F06-06"]["fit"]) == (25, 22), "three do not fit one GPU"
    assert "MolmoE-1B" in covered["MIB-F15-02"]["why_not"]
    told = coverage.text(list(covered.values()), "paper")
    assert "98 claims, 93 that the study can decide" in told and "2; batch 64, 128" in told


def test_a_study_without_the_cells_of_a_claim_says_so(paper_plan):
    nothing = {"scale": "tiny", "experiments": {}, "cells": {}, "accuracy": {}}
    made = {r["claim"]: r for r in coverage.rows(paper_plan | nothing)}
    assert made["FMOE-05"]["why_not"] == "it has no counterpart in the grid of this study"


def test_experiments_list_claims_that_there_are(tmp_path):
    listed = {"blocks": [{"fix": {"model": "tiny-mixtral"}}], "claims": ["MIB-F05-01-DX"]}
    config = studies.folder(tmp_path, {"x": listed})
    studies.write(
        config / "claims" / "p.yaml",
        {"name": "p", "title": "P", "reference": "R", "claims": [_plain("MIB-F05-01-DS")]},
    )
    with pytest.raises(ConfigError, match=r"x\.yaml: claims: .*'MIB-F05-01-DX'.*'MIB-F05-01-DS'"):
        make_plan(Config(config), "test")


def _plain(name: str, **more):
    return {"id": name, "place": "p", "statement": "s", "metric": "e2e_s", "where": {}} | DROP | more


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "e2e"}, r"metric: unknown 'e2e'; did you mean 'e2e_s'"),
        ({"as": None}, "of, to and as: give all three or none"),
        ({"test": "trend"}, "test trend needs over"),
        ({"over": ["batch"]}, "over: not for test mean"),
        ({"expect": {"direction": "falling"}}, "expect: test mean needs min or max"),
        ({"may_differ": ["prompts"]}, "may_differ: 'prompts' is none of tp"),
        ({"printed": {"divide": [1]}}, "give divide and by, or contexts and batches"),
        ({"printed": {"contexts": [1, 2], "batches": [[1]]}}, "batches: give one per context"),
        ({"at": {"tiny": {"expect": {"order": [1]}}}}, "expect: test mean needs min or max"),
        ({"whre": {}}, "unknown key 'whre'"),
        ({"contradicts": ["C-9"]}, "C-1 contradicts C-9, unknown"),
    ],
)
def test_a_wrong_claim_is_refused_in_one_line(tmp_path, change, words):
    path = tmp_path / "claims" / "p.yaml"
    path.parent.mkdir()
    one = {"name": "p", "title": "P", "reference": "R", "claims": [_plain("C-1") | change]}
    path.write_text(yaml.safe_dump(one))
    with pytest.raises(ConfigError, match=words) as error:
        spec.load(Config(tmp_path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_another_scale_replaces_what_differs():
    made = claim(
        **DROP, where={"model": "m", "batch": [64]}, at={"tiny": {"where": {"batch": [16]}, "expect": None}, "no": None}
    )
    assert made.at_scale("paper") is made and made.at_scale("no") is None
    tiny = made.at_scale("tiny")
    assert tiny.where == {"model": "m", "batch": [16]} and tiny.expect is None and tiny.to == {"top_k": 1}
    again = Claim.model_validate(made.model_dump(mode="json", by_alias=True, exclude_unset=True))
    assert again.at_scale("tiny").expect is None, "null survives the plan file"


# ----------------------------------------------------------------------------------------- selection


def test_cells_are_paired_if_all_but_what_is_compared_is_equal():
    rows = [
        row(0, top_k=8),
        row(1, top_k=1),
        row(2, top_k=8, batch=4),
        row(3, top_k=1, batch=4),
        row(4, top_k=8, batch=9),
    ]
    chosen = select.select(claim(**DROP), rows)
    assert [p.members for p in chosen.pairs] == [(0, 1), (2, 3)] and chosen.rows == (0, 1, 2, 3)


@pytest.mark.parametrize("knob", ["prompts", "weights", "eager", "kernel_config", "hardware", "quantization", "dtype"])
def test_unlike_cells_are_never_compared(knob):
    rows = [row(0, top_k=8, **{knob: "a"}), row(1, top_k=1, **{knob: "b"})]
    assert select.select(claim(**DROP), rows).pairs == ()
    (found,) = evaluate(claim(**DROP), rows, [2, 1])
    assert found.outcome == ev.NOT_MEASURED and found.value is None


@pytest.mark.parametrize("name", select.MEASURED_GUARDS)
def test_cells_that_turn_out_unlike_are_not_compared_and_it_is_said(name):
    rows = [row(0, top_k=8, **{name: True}), row(1, top_k=1, **{name: False})]
    (found,) = evaluate(claim(**DROP), rows, [1, 2])
    said = f"never compared: cells that differ in {name}: 1 of 1 comparisons; too few comparisons"
    assert (found.outcome, found.value, found.reason) == (ev.NOT_DECIDED, None, said)
    rows += [row(2, top_k=8, batch=2, **{name: True}), row(3, top_k=1, batch=2, **{name: True})]
    (found,) = evaluate(claim(**DROP), rows, [1, 2, 1, 2])
    assert (found.outcome, found.comparisons, found.planned) == (ev.AGREES, 1, 2)
    assert found.reason == f"never compared: cells that differ in {name}: 1 of 2 comparisons (batch 1)"


def test_a_claim_that_varies_the_kernel_compares_tuned_and_untuned_ones():
    rows = [row(0, top_k=8, untuned_kernel_warning=True), row(1, top_k=1, untuned_kernel_warning=False)]
    (found,) = evaluate(claim(**DROP, may_differ=["untuned_kernel_warning"]), rows, [1, 2])
    assert (found.outcome, found.reason) == (ev.AGREES, "compared although they differ in untuned_kernel_warning")


@pytest.mark.parametrize(
    ("needs", "outcome", "reason"),
    [
        ({"points": 2}, ev.AGREES, ""),
        ({"points": 3}, ev.NOT_DECIDED, "needs 3 comparisons, has 2"),
        ({"points": 2, "cover": {"batch": [1, 4]}}, ev.AGREES, ""),
        ({"points": 2, "cover": {"batch": [1, 9]}}, ev.NOT_DECIDED, "needs batch 9"),
    ],
)
def test_too_few_comparisons_decide_nothing_whatever_they_show(needs, outcome, reason):
    rows = [row(2 * i + j, top_k=k, batch=b) for i, b in enumerate((1, 4, 9)) for j, k in enumerate((8, 1))]
    rows[4]["status"] = "oom_kv"
    (found,) = evaluate(claim(**DROP, needs=needs), rows, [1, 2, 1, 2, None, 2])
    assert (found.outcome, found.value, found.comparisons) == (outcome, 0.5, 2)
    lost = "1 of 6 cells have no value: 1 oom_kv (batch 9; top_k 8)"
    assert found.reason == "; ".join(filter(None, [lost, reason]))
    rows[4]["status"] = ev.NOT_MEASURED
    assert evaluate(claim(**DROP, needs=needs), rows, [1, 2, 1, 2, None, 2])[0].outcome == ev.UNDECIDED, "it may come"


def test_short_series_are_left_out():
    rows = [
        row(4 * i + j, experts=e, moe_ffn_size=f) for i, e in enumerate((8, 64)) for j, f in enumerate((1, 2, 4, 8))
    ]
    made = claim(metric="throughput_total_tokens_per_s", test="steepest", over=["moe_ffn_size"], expect={"first": 1},
                 needs={"points": 4, "series": 1})  # fmt: skip
    (found,) = evaluate(made, rows, [9, 4, 3, 2, 9, 9, 4, None])
    assert (found.outcome, found.comparisons, found.planned) == (ev.AGREES, 1, 2)
    assert "1 series of too few points left out" in found.reason
    (found,) = evaluate(made.model_copy(update={"needs": None}), rows[:2], [9, 4])
    assert (found.outcome, found.value) == (ev.NOT_DECIDED, None), "of two points the steepest step is the only one"


def test_needs_are_those_of_the_papers_grid():
    made = claim(**DROP, needs={"points": 9})
    assert made.at_scale("paper") is made and made.at_scale("tiny").needs is None


@pytest.mark.parametrize(
    ("gains", "outcome"),
    [((0.21, 0.22, 0.24), ev.AGREES), ((-0.3, 0.0, 0.72), ev.DISAGREES), ((0.21, 0.22, 0.26), ev.DISAGREES)],
)
def test_every_is_not_a_mean(gains, outcome):
    rows = [row(2 * i + j, batch=i, top_k=2 - j) for i in range(3) for j in range(2)]
    made = claim(metric="throughput_total_tokens_per_s", of={"top_k": 2}, to={"top_k": 1}, test="every",
                 expect={"min": 0.2, "max": 0.25}, **{"as": "gain"})  # fmt: skip
    (found,) = evaluate(made, rows, [v for gain in gains for v in (1 + gain, 1)])
    assert found.outcome == outcome
    against = max(gains, key=lambda g: max(0.2 - g, g - 0.25))
    assert found.value == pytest.approx(against), "the one that speaks most against it"


def test_exponent():
    rows = [row(i, batch=b) for i, b in enumerate((1, 2, 8))]
    made = claim(test="exponent", over=["batch"], expect={"min": 0.9, "max": 1.1})
    assert evaluate(made, rows, [3, 6, 24])[0].value == pytest.approx(1)
    assert evaluate(made, rows, [3, 3, 3])[0].outcome == ev.DISAGREES


def test_each_kind_of_prompt_has_its_own_outcome():
    rows = [
        row(i, top_k=k, prompts=p)
        for i, (p, k) in enumerate([("text", 8), ("text", 1), ("identical", 8), ("identical", 1)])
    ]
    text, identical = evaluate(claim(**DROP), rows, [1, 2, 2, 2])
    assert (text.outcome, text.value, dict(text.context)["prompts"]) == (ev.AGREES, 0.5, "text")
    assert (identical.outcome, identical.value, dict(identical.context)["prompts"]) == (ev.DISAGREES, 0.0, "identical")


def test_models_may_differ_in_their_own_sizes_only():
    compared = claim(of={"model": "a"}, to={"model": "b"}, **{"as": "gain"}, test="mean", expect={"min": 0})
    rows = [row(0, model="a", experts=8, top_k=2), row(1, model="b", experts=64, top_k=6)]
    assert len(select.select(compared, rows).pairs) == 1
    rows[1]["tp"] = 2
    assert not select.select(compared, rows).pairs
    assert not select.select(compared, [rows[0], rows[1] | {"tp": None, "weights": "dummy"}]).pairs, "kind of weights"
    assert len(select.select(compared.model_copy(update={"may_differ": ("tp",)}), rows).pairs) == 1


def test_a_cell_with_two_partners_is_refused():
    rows = [row(0, top_k=8), row(1, top_k=1), row(2, top_k=1)]
    with pytest.raises(ConfigError, match=r"C-1: .*2 cells \(e/c1, e/c2\)"):
        select.select(claim(**DROP), rows)


def test_columns_must_exist():
    with pytest.raises(ConfigError, match=r"study s: claim C-1: .*'bach'.*'batch'"):
        select.check_columns(claim(**DROP, where={"bach": 1}), row(0), "study s")


def test_the_same_cell_under_two_labels_counts_once():
    rows = [row(0, top_k=8, arm="TP"), row(1, top_k=1), row(0, top_k=8, arm="PP")]
    assert len(select.select(claim(**DROP), rows).pairs) == 1
    ranked = claim(test="rank", over=["arm"], expect={"first": "TP"})
    assert len(select.select(ranked, [rows[0], rows[2]]).rows) == 2


# ------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(("how", "value"), [("ratio", 0.25), ("gain", -0.75), ("drop", 0.75)])
def test_ratio_gain_drop(how, value):
    made = claim(**DROP | {"as": how, "expect": {"min": value, "max": value}})
    (found,) = evaluate(made, [row(0, top_k=8), row(1, top_k=1)], [1, 4])
    assert (found.value, found.low, found.high, found.outcome) == (value, value, value, ev.AGREES)


@pytest.mark.parametrize(("test", "value"), [("mean", 0.5), ("max", 0.75), ("min", 0.25)])
def test_over_all_pairs(test, value):
    rows = [row(0, top_k=8), row(1, top_k=1), row(2, top_k=8, batch=4), row(3, top_k=1, batch=4)]
    (found,) = evaluate(claim(**DROP | {"test": test}), rows, [1, 4, 3, 4])
    assert found.value == value


@pytest.mark.parametrize(
    ("metric", "best"), [("e2e_s", 2.0), ("throughput_total_tokens_per_s", 6.0)], ids=["lowest", "highest"]
)
def test_the_best_of_the_others(metric, best):
    made = claim(
        metric=metric, of={"model": "a"}, to="best", **{"as": "ratio"}, expect={"min": 1 / best, "max": 1 / best}
    )
    rows = [row(i, model=m) for i, m in enumerate("abc")]
    (found,) = evaluate(made, rows, [1, 2, 6])
    assert found.value == 1 / best
    (found,) = evaluate(made, rows, [1, 2, None])
    assert found.outcome == ev.NOT_DECIDED, "the best of some is not the best"


@pytest.mark.parametrize("test", [{"test": "rank", "expect": {"first": "a"}}, {"test": "rank", "expect": {"last": "c"}},
                                  {"test": "spread", "expect": {"min": 1}}])  # fmt: skip
def test_a_claim_about_all_models_needs_all_of_them(test):
    made = claim(over=["model"], **test)
    rows = [row(i, model=m, status=s) for i, (m, s) in enumerate([("a", "ok"), ("b", "crashed"), ("c", "ok")])]
    (found,) = evaluate(made, rows, [1, 2, 3])
    assert found.outcome == ev.AGREES
    (found,) = evaluate(made, rows, [1, None, 3])
    said = "1 of 3 cells have no value: 1 crashed (model b); too few cells along the axis"
    assert (found.outcome, found.value, found.reason) == (ev.NOT_DECIDED, None, said)


def test_who_loses_most_is_said_of_all_or_of_none():
    rows = [row(2 * i + j, moe_ffn_size=f, top_k=k) for i, k in enumerate([1, 4, 8]) for j, f in enumerate([1, 2])]
    made = claim(of={"moe_ffn_size": 2}, to={"moe_ffn_size": 1}, test="rank", over=["top_k"], expect={"first": 8},
                 **{"as": "drop"}, metric="throughput_total_tokens_per_s")  # fmt: skip
    assert evaluate(made, rows, [9, 8, 9, 7, 9, 6])[0].outcome == ev.AGREES
    assert evaluate(made, rows, [9, 8, 9, None, 9, 6])[0].outcome == ev.NOT_DECIDED


def test_a_tie_satisfies_any_order_whatever_the_order_of_the_rows():
    """PP and PP+EP are one cell in vLLM."""
    made = claim(metric="throughput_total_tokens_per_s", test="rank", over=["arm"],
                 expect={"order": ["TP", "PP+EP", "PP"]})  # fmt: skip
    for arms in (["TP", "PP", "PP+EP"], ["PP+EP", "PP", "TP"], ["PP", "PP+EP", "TP"]):
        rows = [row(0 if a == "TP" else 1, arm=a) for a in arms]
        assert evaluate(made, rows, [2 if a == "TP" else 1 for a in arms])[0].outcome == ev.AGREES, arms
        assert evaluate(made, rows, [1 if a == "TP" else 2 for a in arms])[0].outcome == ev.DISAGREES, arms


def test_trend_is_the_slope_per_doubling():
    rows = [row(i, top_k=k, batch=b) for i, (b, k) in enumerate([(1, 8), (1, 1), (2, 8), (2, 1), (4, 8), (4, 1)])]
    made = claim(**DROP | {"test": "trend", "over": ["batch"], "expect": {"min": 0}})
    (found,) = evaluate(made, rows, [0.9, 1, 0.8, 1, 0.7, 1])
    assert found.value == pytest.approx(0.1) and found.outcome == ev.AGREES
    (found,) = evaluate(made, rows[:2], [0.9, 1])  # one point
    assert (found.outcome, found.reason.partition("; ")[2]) == (ev.NOT_DECIDED, "too few cells along the axis")


def test_spread_of_values_and_of_comparisons():
    rows = [row(i, model=m) for i, m in enumerate("abc")]
    (found,) = evaluate(claim(test="spread", over=["model"], expect={"min": 1, "max": 1}), rows, [2, 3, 4])
    assert (found.value, found.outcome) == (1.0, ev.AGREES)
    rows = [row(i, top_k=k, experts=e) for i, (e, k) in enumerate([(8, 8), (8, 1), (64, 8), (64, 1)])]
    (found,) = evaluate(claim(**DROP | {"test": "spread", "over": ["experts"]}), rows, [0.9, 1, 0.6, 1])
    assert found.value == pytest.approx(0.3)


def test_bend_compares_slopes():
    rows = [row(i, input_tokens=n, output_tokens=n) for i, n in enumerate([128, 1024, 2048])]
    made = claim(test="bend", over=["input_tokens", "output_tokens"], expect={"min": 1.2, "first": 1024})
    (found,) = evaluate(made, rows, [0, 896, 896 + 3 * 1024])
    assert (found.value, found.outcome) == (3.0, ev.AGREES)


@pytest.mark.parametrize(
    ("test", "expect", "values", "holds"),
    [
        ("monotone", {"direction": "falling"}, [3, 2, 2], True),
        ("monotone", {"direction": "falling"}, [3, 2, 2.1], False),
        ("monotone", {"direction": "rising"}, [1, 2, 3], True),
        ("steepest", {"first": 1}, [9, 3, 2], True),
        ("steepest", {"first": 1}, [9, 8, 2], False),
        ("rank", {"first": 1}, [1, 2, 3], True),  # times: the least is best
        ("rank", {"last": 1}, [1, 2, 3], False),
        ("rank", {"order": [4, 2, 1]}, [3, 2, 1], True),
        ("rank", {"top": [2, 4]}, [9, 2, 3], True),
        ("rank", {"top": [2, 1]}, [9, 2, 3], False),
    ],
)
def test_yes_or_no(test, expect, values, holds):
    rows = [row(i, top_k=k) for i, k in enumerate([1, 2, 4])]
    (found,) = evaluate(claim(test=test, over=["top_k"], expect=expect), rows, values)
    assert (found.value, found.support) == (float(holds), float(holds))
    assert found.outcome == (ev.AGREES if holds else ev.DISAGREES)


def test_yes_or_no_must_hold_in_every_group():
    rows = [row(i, top_k=k, batch=b) for i, (b, k) in enumerate([(1, 1), (1, 2), (4, 1), (4, 2)])]
    made = claim(test="monotone", over=["top_k"], expect={"direction": "falling"})
    assert evaluate(made, rows, [2, 1, 2, 1])[0].outcome == ev.AGREES
    assert evaluate(made, rows, [2, 1, 1, 2])[0].outcome == ev.DISAGREES


def test_what_does_not_fit():
    made = claim(metric="status", test="infeasible", over=["moe_ffn_size", "experts"], expect={"cells": [[2, 64]]})
    rows = [
        row(i, moe_ffn_size=f, experts=e, status="ok") for i, (f, e) in enumerate([(1, 8), (1, 64), (2, 8), (2, 64)])
    ]
    assert evaluate(made, rows, [None] * 4)[0].outcome == ev.DISAGREES
    rows[3]["status"] = "oom_weights"
    found = evaluate(made, rows, [None] * 4)[0]
    assert (found.outcome, found.value) == (ev.AGREES, 1)
    rows[2]["status"] = "oom_kv"
    assert "different: (2, 8)" in evaluate(made, rows, [None] * 4)[0].reason
    rows[2]["status"] = ev.NOT_MEASURED
    assert evaluate(made, rows, [None] * 4)[0].outcome == ev.UNDECIDED


@pytest.mark.parametrize(
    ("others", "large", "outcome"),
    [
        ("ok", ("oom_weights", "oom_weights"), ev.AGREES),
        ("ok", ("infeasible", "infeasible"), ev.UNDECIDED),  # predicted, not tried: it would confirm itself
        ("ok", ("ok", "oom_weights"), ev.DISAGREES),  # with fewer active experts it fits
        ("crashed", ("oom_weights", "oom_weights"), ev.UNDECIDED),
        ("timeout", ("oom_weights", "oom_weights"), ev.UNDECIDED),
        ("invalid", ("oom_weights", "oom_weights"), ev.AGREES),  # it ran, so it fitted
    ],
)
def test_only_what_was_tried_says_what_does_not_fit(others, large, outcome):
    made = claim(metric="status", test="infeasible", over=["moe_ffn_size", "experts"], expect={"cells": [[2, 64]]})
    rows = [row(i, moe_ffn_size=f, experts=64, top_k=k, status=s) for i, (f, k, s) in enumerate(
        [(1, 1, others), (1, 8, others), (2, 1, large[0]), (2, 8, large[1])])]  # fmt: skip
    assert evaluate(made, rows, [None] * 4)[0].outcome == outcome
    if "infeasible" in large:
        assert evaluate(made, rows, [None] * 4, repeats=None)[0].outcome == ev.AGREES, "a prediction may say so"


@pytest.mark.parametrize(
    ("more", "value", "agrees"),
    [
        ({"expect": {"min": 1}, "where": {"by": "distinct"}}, 0.5, False),  # the point most against it
        ({"expect": {"max": 9}, "where": {"by": "distinct"}}, 4.0, True),
        ({"expect": {"min": 1, "max": 9}, "where": {"by": "distinct", "gpus": 64}}, 4.0, True),
        (
            {"expect": {"min": 0.9, "max": 1.1}, "of": {"by": "distinct"}, "to": {"by": "printed"}, "as": "ratio"},
            2,
            False,
        ),
    ],
)
def test_claims_about_computed_points(more, value, agrees):
    points = [
        {"model": "m", "gpus": 32, "quality": 5, "by": "distinct", "speedup_dense": 0.5},
        {"model": "m", "gpus": 64, "quality": 5, "by": "distinct", "speedup_dense": 4.0},
        {"model": "m", "gpus": 64, "quality": 5, "by": "printed", "speedup_dense": 2.0},
        {"model": "m", "gpus": 64, "quality": 3, "by": "distinct", "speedup_dense": None},
    ]
    found = ev.computed(claim(metric="speedup_dense", test="computed", **more), points)
    assert (found.value, found.outcome) == (value, ev.AGREES if agrees else ev.DISAGREES)


def test_pruned_models_differ_in_shape_from_whole_ones_and_are_compared():
    made = claim(of={"pruning": "inter"}, to={"pruning": "none"}, **{"as": "ratio"})
    rows = [row(0, pruning="inter", prune_ratio=0.5, experts=4), row(1, pruning="none", prune_ratio=0, experts=8),
            row(2, pruning="inter", prune_ratio=0.5, experts=4, tp=2)]  # fmt: skip
    assert select.select(made, rows).pairs == (select.Pair(0, (1,)),)


# ---------------------------------------------------------------------------------------- intervals


def test_draws_are_medians_of_resamples_and_the_same_every_time():
    made = ev.draws("e/c", [1.0, 2.0, 9.0])
    assert made.shape == (1 + ev.RESAMPLES,) and made[0] == 2.0
    assert set(made) == {1.0, 2.0, 9.0} and (ev.draws("e/c", [1.0, 2.0, 9.0]) == made).all()
    assert (ev.draws("e/other", [1.0, 2.0, 9.0]) != made).any()
    # Of all 27 resamples of three values, 7 have the smallest as their median.
    assert np.mean(made == 1.0) == pytest.approx(7 / 27, abs=0.03)


def test_the_interval_of_a_ratio_covers_both_sides():
    rows = [row(0, top_k=8), row(1, top_k=1)]
    values = {0: ev.draws("a", [0.9, 1.0, 1.1]), 1: ev.draws("b", [2.0, 2.0, 2.0])}
    (found,) = ev.evaluate(claim(**DROP), rows, values, {0: 3, 1: 3})
    assert (found.low, found.high) == pytest.approx((0.45, 0.55)) and found.outcome == ev.AGREES
    narrow = claim(**DROP | {"expect": {"min": 0.5}})
    (found,) = ev.evaluate(narrow, rows, values, {0: 3, 1: 3})
    assert found.outcome == ev.UNDECIDED and "both sides" in found.reason


@pytest.mark.parametrize(
    ("how", "expect", "truth", "one", "outcome"),
    [
        ({"as": "ratio", "test": "min"}, {"max": 1.0}, 1.02, 1.02, ev.UNDECIDED),  # pruning always helps a little
        ({"as": "ratio", "test": "min"}, {"max": 1.0}, 1.02, 0.90, ev.AGREES),  # one setting hurts
        ({"as": "gain", "test": "max"}, {"min": 0.1}, 1.08, 1.08, ev.UNDECIDED),  # no cap brings 10%
        ({"as": "gain", "test": "max"}, {"min": 0.1}, 1.08, 1.30, ev.AGREES),  # one does
        ({"as": "ratio", "test": "min"}, {"min": 1.0}, 1.10, 0.80, ev.DISAGREES),  # FP8 is slower somewhere
    ],
)
def test_noise_in_many_cells_is_no_best_and_no_worst_case(how, expect, truth, one, outcome):
    """48 settings, five repeats that spread by 2%: the smallest of 48 ratios is below 1 by chance."""
    made = claim(metric="throughput_total_tokens_per_s", of={"top_k": 2}, to={"top_k": 1}, expect=expect, **how)
    for seed in range(3):
        random, rows, values = np.random.default_rng(seed), [], {}
        for n in range(96):
            middle = 1 if n % 2 else one if n == 0 else truth
            rows.append(row(n, batch=n // 2, top_k=2 - n % 2))
            values[n] = ev.draws(f"{seed}/{n}", random.normal(middle, 0.02 * middle, 5))
        (found,) = ev.evaluate(made, rows, values, dict.fromkeys(values, 5))
        assert found.outcome == outcome and found.low <= found.value <= found.high


def test_one_repeat_decides_nothing():
    (found,) = evaluate(claim(**DROP), [row(0, top_k=8), row(1, top_k=1)], [1, 2], repeats=1)
    assert (found.outcome, found.value, found.low) == (ev.UNDECIDED, 0.5, None) and "one run" in found.reason


def test_missing_cells_leave_it_undecided_and_failed_ones_are_named():
    rows = [
        row(0, top_k=8),
        row(1, top_k=1),
        row(2, top_k=8, batch=4),
        row(3, top_k=1, batch=4, status=ev.NOT_MEASURED),
    ]
    (found,) = evaluate(claim(**DROP), rows, [1, 2, 1, None])
    assert (found.outcome, found.value) == (ev.UNDECIDED, 0.5) and found.reason == "1 of 4 cells not measured"
    rows[3]["status"] = "oom_kv"
    (found,) = evaluate(claim(**DROP), rows, [1, 2, 1, None])
    assert found.outcome == ev.AGREES and found.reason == "1 of 4 cells have no value: 1 oom_kv (batch 4; top_k 1)"


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.4, 0.6, "agrees"), (0.3, 0.39, "disagrees"), (0.61, 2, "disagrees"), (0.3, 0.5, "undecided")],
)
def test_place(low, high, outcome):
    assert ev.place(low, high, Expect(min=0.4, max=0.6)) == outcome


def test_printed_numbers_refute_themselves(files):
    known = {c.id: c for made in files for c in made.claims}
    assert ev.printed(known["QS-T3-01"]).value == pytest.approx(267 / 244)
    assert ev.printed(known["QS-T5-01"]).value == pytest.approx(456 / 77)
    assert ev.printed(known["QS-T4-01"]).value == pytest.approx(13 / 14)
    assert {ev.printed(known[i]).outcome for i in ("QS-T3-01", "QS-T4-01", "QS-T5-01")} == {ev.DISAGREES}


# -------------------------------------------------------------------------------------------- table


CLAIM = _plain("C-1", of={"top_k": 2}, to={"top_k": 1}, expect={"min": -1.2, "max": -0.5})


def claims_of(*claims, stands_for=None):
    """What a plan says of the claims of one paper."""
    paper = {"name": "p", "title": "P", "reference": "R", "hardware": ["h100-sxm"], "claims": list(claims)}
    return {"papers": [paper], "stands_for": stands_for or {}}


def study(where, outcome):
    """Plan, results and tables of a made-up study with one claim: top-k 2 against 1 at two batch sizes."""
    plan = synthetic.Plan(hardware="gpu", repeats=3)
    plan.experiment("x", claims=["C-1"])
    for batch in (1, 4):
        for k in (1, 2):
            work = {"batch": batch, "input_tokens": 16, "output_tokens": 8, "top_k": k}
            plan.add("x", {"batch": batch, "top_k": k}, work, model="mixtral-tiny")
    plan.data |= {"scale": "paper", "claims": claims_of(CLAIM)}
    results, tables = where / "results", where / "results" / "tables" / "tiny"
    synthetic.measure(plan.data, results, outcome)
    collect.collect(plan.write(results), results, tables)
    return plan.data, results, tables


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return study(tmp_path_factory.mktemp("measured"), lambda c: {"step_s": 1e-3 * c["workload"]["top_k"]})


def rows_if(measured, **other):
    """The rows of claims if the study were another one in some respects."""
    plan, results, tables = measured
    return table.rows(plan | other, tables, results)


def test_a_verdict_on_the_papers_models_and_machine(measured):
    (found,) = parquet.read(measured[2], "claims").to_dict("records")
    assert (found["claim"], found["verdict"], found["outcome"]) == ("C-1", "confirmed", "agrees")
    assert -1.2 < found["value_low"] <= found["value"] <= found["value_high"] < -0.5
    assert (found["comparisons"], found["comparisons_planned"], found["unstable_cells"]) == (2, 2, 0)
    assert (
        found["evaluated_on"].startswith("the paper's models, random weights, NVIDIA H100")
        and found["expected"] == "-1.2 to -0.5"
    )


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"hardware": synthetic.Plan(hardware="cpu").data["hardware"]}, "CPU of this machine, not h100-sxm"),
        ({"claims": claims_of(CLAIM, stands_for={"mixtral-tiny": "mixtral-8x7b"})},
         "paper stand-ins, not the paper's models"),
        ({"scale": "half"}, "half models, not the paper's models"),  # with random weights, that stand for none
    ],
)  # fmt: skip
def test_anything_else_gives_no_verdict_but_the_comparison(measured, other, reason):
    (found,) = rows_if(measured, **other)
    assert (found["verdict"], found["outcome"], found["reason"]) == ("not measured", "agrees", reason)


def test_a_study_without_measurements_has_claims_without_values(tmp_path):
    (found,) = parquet.read(study(tmp_path, lambda c: None)[2], "claims").to_dict("records")
    assert (found["verdict"], found["outcome"], found["reason"]) == (
        "not measured", "not measured", "4 of 4 cells not measured")  # fmt: skip


def test_claims_about_accuracy_need_an_experiment_that_asks_for_it(measured):
    one = _plain("C-1", metric="accuracy", test="rank", over=["model"], of=None, to=None, expect={"first": "m"}) | {
        "as": None
    }
    (found,) = rows_if(measured, claims=claims_of(one))
    assert (found["verdict"], found["reason"]) == ("not measured", "no experiment of this study decides it")


def test_counts_of_a_data_set_are_compared_without_interval():
    made = claim(
        metric="most_activations", of={"model": "a"}, to="best", expect={"min": 3, "max": 4}, **{"as": "ratio"}
    )
    rows = [row(i, model=m, most_activations=n) for i, (m, n) in enumerate([("a", 7), ("b", 2), ("c", 1)])]
    (found,) = table._counted(made, rows)
    assert (found.value, found.low, found.high, found.outcome) == (3.5, None, None, ev.AGREES)
    rows[2] |= {"status": ev.NOT_MEASURED, "most_activations": None}
    assert table._counted(made, rows)[0].outcome == ev.NOT_MEASURED


PREDICTED = ("fig01-parameters", "fig03-latency-llms", "fig05-topk-batch", "fig07-09-hyperparameters",
             "fig12-speculation", "fig13-parallelism", "fig14-fused", "control-shapes", "qs-inequality")  # fmt: skip
"""The experiments that list a claim whose prediction is tested."""


def test_what_the_cost_model_predicts_for_the_papers_cells(paper_plan, tmp_path):
    path = tmp_path / "results/plan/paper.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(paper_plan | {"experiments": {n: paper_plan["experiments"][n] for n in PREDICTED}}))
    collect.collect(path, tmp_path / "results", tmp_path / "tables")
    found = parquet.read(tmp_path / "tables", "claims").drop_duplicates("claim").set_index("claim")
    # The paper: DeepSeek's TTFT is 70% above OLMoE's.  The roofline says 105%.
    first = found.loc["MIB-F03-02"]
    assert first["predicted_low"] < first["predicted_value"] < first["predicted_high"]
    assert first["predicted_value"] == pytest.approx(0.7, abs=0.1)
    assert first["predicted_kind"].startswith("calibrated (h100-sxm5-80gb, 20")
    assert 0 < found.loc["MIB-F07-01", "predicted_value"] < 1
    assert (found.loc["MIB-F08-03", "predicted_value"], found.loc["MIB-F08-03", "predicted_outcome"]) == (12, "agrees")
    assert found.loc["MIB-F05-01-DS", "predicted_outcome"] == "disagrees"
    analytic = found.loc[["QS-T4-02", "QS-T6-01", "QS-E18-01"]]
    assert set(analytic["verdict"]) == {"not measured"} and analytic["value"].isna().all()
    assert found.loc["QS-T4-02", "predicted_value"] == pytest.approx(1.07, abs=0.01)
    assert found.loc["QS-T6-01", "predicted_value"] < 0.5
    both_ways = found.loc["QS-E18-01"]  # 5 models, 3 q, 5 batches; qs is 1.25 for Mixtral with q = 5
    assert both_ways["predicted_outcome"] == "disagrees" and both_ways["reason"].endswith(
        "54 of 75 computed points are as claimed"
    )
    for unknown in ("MIB-F12-01", "MIB-F14-01"):
        assert np.isnan(found.loc[unknown, "predicted_value"]), "speculation, unfused experts are not modelled"
        assert found.loc[unknown, "predicted_kind"] == "none"
    for layout in ("MIB-F13-01", "MIB-F13-02", "MIB-F13-03", "MIB-F13-04", "MIB-F13-05"):
        assert not np.isnan(found.loc[layout, "predicted_value"]), "TP, EP and PP are"
    assert set(found["verdict"]) == {"not measured", "confirmed", "refuted", "nothing claimed"}
    assert set(found.index[found["verdict"] == "confirmed"]) == {"MIB-F01-01"}, "computed, not measured"


def test_a_claim_that_holds_for_some_prompts_only_counts_as_neither():
    frame = pd.DataFrame(
        [("A", "confirmed"), ("A", "refuted"), ("B", "refuted"), ("B", "not measured"), ("C", "confirmed")],
        columns=["claim", "verdict"],
    )
    assert show.counts(frame) == {"confirmed": 1, "refuted": 1, "different by context": 1}


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["claims", *map(str, arguments)])
    return end.value.code


def test_the_command(measured, capsys):
    where = ["--study", "tiny", "--results", measured[1], "--config", ROOT / "config"]
    assert run(*where) == 0
    out = capsys.readouterr().out
    assert "study tiny: 1 claim: 1 confirmed" in out and "decides nothing" in out
    assert run("C-1", *where) == 0 and "    statement: s" in capsys.readouterr().out
    assert run("--json", *where) == 0 and json.loads(capsys.readouterr().out)[0]["claim"] == "C-1"
    assert run("C-2", *where) == 2 and "claim 'C-2': no such claim; did you mean 'C-1'?" in capsys.readouterr().err
    assert run("--check", *where) == 0


def test_the_command_says_that_a_study_is_unknown_before_it_looks_for_tables(tmp_path, capsys):
    assert run("--study", "tinny", "--results", tmp_path, "--config", ROOT / "config") == 2
    said = "moebench claims: --study: unknown study 'tinny'; did you mean 'tiny'?\n"
    assert capsys.readouterr().err == said


def test_check_fails_where_a_measured_claim_is_refuted(measured, tmp_path):
    rows = rows_if(measured, claims=claims_of(CLAIM | {"expect": {"min": 0.5}}))
    (tmp_path / "tables" / "tiny").mkdir(parents=True)
    parquet.write(tmp_path / "tables" / "tiny", "claims", cell_rows.table("claims", rows))
    where = ["--study", "tiny", "--results", tmp_path, "--config", ROOT / "config"]
    assert (run(*where), run("--check", *where)) == (0, 1)


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ({"min": 0.15, "max": 0.2}, "0.15 to 0.2"),
        ({"min": 8}, "at least 8"),
        ({"max": 1.0}, "at most 1"),
        ({"direction": "falling"}, "falling"),
        ({"order": ["a", "b"]}, "order: a, b"),
        ({"cells": [[1, 2]]}, "exactly (1, 2)"),
    ],
)
def test_expectations_in_words(expect, words):
    assert table.said(Expect.model_validate(expect)) == words
