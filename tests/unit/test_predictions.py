"""Figures of predictions show only what the cost model distinguishes and what could run."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from moebench.config import Plot
from moebench.figures import data, draw, foreseen, predictions

PLAN = {"reference": {"hardware": {"title": "H100"}, "study": "paper"}}


def rows(**change):
    one = {"predicted_fits": True, "predicted_batch_fits": True, "ep": False, "pp": 1, "predicted_e2e_s": 2.0}
    work = {"batch": 1, "input_tokens": 8, "output_tokens": 8, "protocol_kind": "trace"}
    return pd.DataFrame([one | work, one | work | change])


@pytest.mark.parametrize(
    ("change", "status", "drawn", "said"),
    [
        ({}, draw.PREDICTED, True, False),
        ({"predicted_fits": False}, "infeasible", False, False),
        ({"predicted_batch_fits": False}, "infeasible", False, False),
        ({"predicted_batch_fits": None}, draw.PREDICTED, True, False),
        ({"ep": True}, draw.PREDICTED, False, True),
        ({"pp": 2}, draw.PREDICTED, False, True),
    ],
)
def test_what_is_drawn_of_a_prediction(change, status, drawn, said):
    frame = predictions.frame(rows(**change))
    assert frame["status"].tolist() == [draw.PREDICTED, status]
    assert draw.predicted(frame, "e2e_s").notna().tolist() == [True, drawn]
    assert ("Not predicted: expert and pipeline parallelism." in predictions.caption(PLAN, placed(frame))) == said


CALIBRATED = {
    "calibrated_e2e_s": 4.0, "calibrated_e2e_s_low": 3.0, "calibrated_e2e_s_high": 5.0,
    "predicted_kind": "calibrated (h100-sxm5-80gb, 2026-11-28)",
}  # fmt: skip


def placed(frame):
    plot = Plot.model_validate({"id": "f", "number": "1", "title": "T", "kind": "lines", "x": "batch", "y": ["e2e_s"]})
    return data.Data(plot, frame, {})


def test_calibrated_values_are_dashed_with_a_band_and_the_bound_is_a_thin_line():
    frame = predictions.frame(rows(**CALIBRATED).assign(**CALIBRATED, ep=True))
    assert draw.predicted(frame, "e2e_s").tolist() == [4.0, 4.0], "expert parallelism too: its imbalance is modelled"
    figure = Figure()
    axes = figure.subplots()
    foreseen.line(axes, [1, 2], frame.assign(predicted_e2e_s=[2.0, 2.5]), "e2e_s", 1000.0, "red")
    (band,), (thin,) = axes.collections, axes.lines
    assert band.get_paths()[0].get_extents().intervaly.tolist() == [3000, 5000]
    assert list(thin.get_ydata()) == [2000, 2500] and thin.get_linewidth() < 0.9
    words = predictions.caption(PLAN, placed(frame))
    assert "calibrated (h100-sxm5-80gb, 2026-11-28), with the interval" in words and "Not predicted" not in words


def test_where_nothing_is_calibrated_the_dashes_are_the_bound():
    frame = predictions.frame(rows())
    axes = Figure().subplots()
    foreseen.line(axes, [1, 2], frame, "e2e_s", 1.0, "red")
    foreseen.marks(axes, [1, 2], 0.4, frame, "e2e_s", 1.0, "red")
    assert not axes.lines and not axes.collections and not axes.patches
    assert foreseen.words(frame, ["e2e_s"]) == [foreseen.BOUND]


@pytest.mark.parametrize(("kind", "column"), [(CALIBRATED, "calibrated_e2e_s"), ({}, "predicted_e2e_s")])
def test_a_pointer_finds_the_value_of_a_prediction_by_its_row(kind, column):
    frame = predictions.frame(rows(**kind).assign(**kind))
    axes = Figure().subplots()
    values = draw.predicted(frame, "e2e_s").to_numpy()
    draw._point_at_predictions(axes, np.array([1.0, 2.0]), values, 3, frame, "e2e_s")
    (line,) = axes.lines
    assert line.get_gid() == f"mark.hue3.{column}.0-1" and list(line.get_ydata()) == list(values)
    assert foreseen.column(frame, "e2e_s") == column and frame[column].tolist() == list(values)
    measured = frame.assign(status="ok")
    draw._point_at_predictions(axes, np.array([1.0, 2.0]), values, 3, measured, "e2e_s")
    assert len(axes.lines) == 1, "a measured cell has a mark of its own"
