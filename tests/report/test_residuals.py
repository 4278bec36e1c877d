"""The report's figure of residuals and the constants of machines: shown, or refused with the reason."""

from __future__ import annotations

import pandas as pd
import pytest

from calibration import collected, keep, measured, slow, study
from moebench import figures
from moebench.commands.planning import make_plan
from moebench.commands.snakefile import figure_labels
from moebench.report import build


def test_the_report_shows_residuals_by_experiment_and_the_constants(tmp_path):
    plan, results = make_plan(study(tmp_path), "test"), tmp_path / "results"
    plan["jobs_settings"]["measure_constants"] = True
    for key in plan["cells"]:
        measured(results, key, plan)
    figures_dir = tmp_path / "reports" / "figures"
    for kept in (False, True):
        if kept:
            keep(results)
        collected(plan, results)
        assert list(figure_labels(plan)) == ["residuals"], "declared before anything is known"
        assert len(figures.render_all(plan, results / "tables", figures_dir)) == 2
        page = build(results / "plan.json", results / "tables", figures_dir, tmp_path / "reports" / "report.html")
        text = page.read_text()
        assert ("Figure M1" in text) == kept and ("run `moebench calibrate`" in text.lower()) == (not kept)
    assert "here: A CPU, 1 thread" in text and "memory bandwidth (triad of 48 MB)" in text and "20.0 GB/s" in text
    csv = pd.read_csv(figures_dir / "residuals.csv")
    assert len(csv) == 4 and csv["residual_e2e"].tolist() == pytest.approx(csv["e2e_s"] / csv["predicted_e2e_s"])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"triad": [slow(3, 40e9), slow(192, 5.96e9), slow(768, 17e9)]}, ["17 GB/s at 768 MB", "5.96 at 192 MB"]),
        (
            {"products": {"float32": {"side": 9, "flops_per_s": 87e9, "runs_s": [1]},
                          "bfloat16": {"side": 9, "flops_per_s": 1.27e9, "runs_s": [1]}}},
            ["bfloat16 run at 1.27 GFLOP/s", "float32 at 87"],
        ),
        ({"triad": [slow(3, 0.1e9)]}, ["4 cells faster than the least time"]),  # the cells take 0.02 s
    ],
    ids=["triad that rises", "bfloat16 slower than float32", "beaten by cells"],
)  # fmt: skip
def test_constants_that_cannot_be_right_are_refused_with_their_predictions(tmp_path, other, words):
    plan = make_plan(study(tmp_path, batch=[8, 16], output_tokens=[64, 128]), "test")
    results = tmp_path / "results"
    plan["jobs_settings"]["measure_constants"] = True
    for key in plan["cells"]:
        measured(results, key, plan)
    keep(results, **other)
    frame = collected(plan, results)
    words_only = ("predicted_with", "predicted_kind")
    predicted = [c for c in frame if c.startswith("predicted_") and "distinct" not in c and c not in words_only]
    assert set(frame["predicted_kind"]) == {"none"}
    assert frame[[*predicted, "predicted_with", "residual_e2e"]].isna().all().all()
    assert all(word in reason for reason in frame["prediction_refused"] for word in words)
    figures.render_all(plan, results / "tables", tmp_path / "figures")
    page = build(results / "plan.json", results / "tables", tmp_path / "figures", tmp_path / "report.html").read_text()
    start = page.index('id="summary"')
    assert words[0] in page[start : page.index('class="cards"', start)], "on the first screen"
    assert "4 whose machine constants are refused" in page
