"""Figures of predictions show only what the cost model tells apart and what could run."""

import pandas as pd
import pytest

from moebench.figures import draw, predictions

PLAN = {"reference": {"hardware": {"title": "H100"}, "study": "paper"}}


def rows(**change):
    one = {"predicted_fits": True, "predicted_batch_fits": True, "ep": False, "pp": 1, "predicted_e2e_s": 2.0}
    return pd.DataFrame([one, one | change])


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
    assert ("Not predicted: expert and pipeline parallelism." in predictions.caption(PLAN, frame)) == said
