"""Accuracy beside speed: which value belongs to which cell, the frontier, and figures that say what they lack."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from moebench.config import Plot
from moebench.errors import ConfigError
from moebench.figures import caption, data, header, layout, pareto, style
from moebench.tables import join
from moebench.tables.join import beside_speed

THROUGHPUT = "throughput_total_tokens_per_s"


@pytest.fixture(scope="module")
def speed(rich: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """A plan, and the cells of an experiment with two models, several top-k and batches; no accuracy asked for."""
    plan, _, folder = rich
    return plan, data.of_experiment(plan, join.with_status(folder), "batch")


def answers(frame: pd.DataFrame, **changed: Any) -> pd.DataFrame:
    """The table ``accuracy`` for every engine configuration and top-k: two tasks and their mean, 0.5 + top-k / 100."""
    rows = []
    for (engine, k), cells in frame.groupby(["engine", "top_k"], sort=False):
        shared = {"experiment": cells["experiment"].iloc[0], "engine": engine, "top_k": k, "block": 0, "unit": "share",
                  "status": "ok", "stderr": 0.04, "chance": 0.25}  # fmt: skip
        value = 0.5 + k / 100
        rows += [shared | {"task": t, "metric": "acc", "main": True, "value": value} for t in ("arc", "rte")]
        made_of = {"made_of": "2 tasks, all counting the same: arc acc, rte acc"}
        rows.append(shared | {"task": "mean", "metric": "mean", "main": False, "value": value} | made_of)
    return pd.DataFrame(rows).assign(**changed)


def joined(frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    own = [c for c in frame.columns if c.startswith("accuracy") or c == "perplexity"]
    return beside_speed(frame.drop(columns=own), table)


def plot(**more: Any) -> Plot:
    given = {"id": "f", "number": "17", "title": "T", "kind": "pareto", "x": "accuracy", "y": [THROUGHPUT, "e2e_s"],
             "hue": "top_k", "panel": "model", "only": {"batch": 16}}  # fmt: skip
    return Plot.model_validate(given | more)


# ------------------------------------------------------------------------------------------------ join


def test_a_cell_gets_the_accuracy_of_its_engine_configuration_and_top_k(speed: Any) -> None:
    _, frame = speed
    assert frame["accuracy_status"].isna().all() and frame["accuracy"].isna().all(), "none was asked for"
    found = joined(frame, answers(frame))
    assert len(found) == len(frame)
    assert np.allclose(found["accuracy"], 0.5 + found["top_k"].astype(float) / 100)
    assert np.allclose(found["accuracy_high"] - found["accuracy"], 1.96 * 0.04)
    assert set(found["accuracy_status"]) == {"ok"}


def test_only_the_experiments_own_answers_count(speed: Any) -> None:
    _, frame = speed
    assert joined(frame, answers(frame, experiment="another"))["accuracy_status"].isna().all()


def test_without_a_mean_the_task_that_failed_says_why(speed: Any) -> None:
    _, frame = speed
    table = answers(frame)
    first = frame["engine"].iloc[0]
    mine = (table["engine"] == first) & (table["top_k"] == frame["top_k"].iloc[0])
    table.loc[mine & (table["task"] == "rte"), "status"] = "invalid"
    found = joined(frame, table[~(mine & (table["task"] == "mean"))])
    here = (found["engine"] == first) & (found["top_k"] == frame["top_k"].iloc[0])
    assert set(found[here]["accuracy_status"]) == {"invalid"} and found[here]["accuracy"].isna().all()
    assert set(found[~here]["accuracy_status"]) == {"ok"}


def test_two_blocks_that_ask_the_same_are_refused(speed: Any) -> None:
    _, frame = speed
    twice = pd.concat([answers(frame), answers(frame, block=1)])
    with pytest.raises(ConfigError, match="is not one number: several blocks measure it"):
        pareto.place(plot(), joined(frame, twice), "figure f")


def test_a_single_task_stands_for_itself(speed: Any) -> None:
    _, frame = speed
    table = answers(frame)
    found = joined(frame, table[table["task"] == "arc"])
    assert set(found["accuracy_of"]) == {"arc acc"} and found["accuracy"].notna().all()


def test_perplexity_is_a_number_of_its_own_beside_a_mean_and_beside_a_single_task(speed: Any) -> None:
    _, frame = speed
    table = answers(frame)
    text = table[table["task"] == "arc"].assign(task="wikitext", metric="word_perplexity", unit="perplexity", value=9.5)
    for tasks in (table, table[table["task"] == "arc"]):
        found = joined(frame, pd.concat([tasks, text]))
        assert set(found["perplexity"]) == {9.5} and set(found["accuracy_status"]) == {"ok"}
        assert np.allclose(found["accuracy"], 0.5 + found["top_k"].astype(float) / 100)
    assert joined(frame, table)["perplexity"].isna().all()


# -------------------------------------------------------------------------------------------- frontier


@pytest.mark.parametrize(
    ("y_up", "expected"),
    [(True, [3, 1, 0]), (False, [4, 0])],
)
def test_the_frontier_is_what_no_other_point_beats(y_up: bool, expected: list[int]) -> None:
    x = np.array([0.9, 0.7, 0.7, 0.5, 0.6])
    y = np.array([10.0, 20.0, 15.0, 30.0, 5.0])
    assert pareto.frontier(x, y, True, y_up) == expected


def test_equal_points_beat_nobody_and_are_both_kept() -> None:
    assert pareto.frontier(np.array([0.5, 0.5]), np.array([3.0, 3.0]), True, True) == [0, 1]
    assert pareto.frontier(np.array([]), np.array([]), True, True) == []


def test_a_figure_of_what_is_neither_good_nor_bad_is_refused(speed: Any) -> None:
    _, frame = speed
    with pytest.raises(ConfigError, match="neither high nor low values of 'distinct_experts' are better"):
        pareto.place(plot(y=["distinct_experts"]), joined(frame, answers(frame)), "figure f")


# --------------------------------------------------------------------------------------------- figures


def test_a_figure_has_intervals_both_ways_and_its_frontier_and_says_what_it_is_of(speed: Any) -> None:
    plan, frame = speed
    placed = pareto.place(plot(), joined(frame, answers(frame, stderr=0.001)), "figure f")
    said = caption.of(plan, placed)
    assert "mean of 2 tasks (arc, rte)" in said and "Ringed: points that no other point beats" in said
    assert "chance level (0.25)" in said
    with mpl.rc_context(style.rc()):
        made = layout.figure(placed, said)
    axes = [a for a in made.axes if a.axison]
    assert len(axes) == 2 * len(placed.levels("panel"))
    good = pareto.complete(placed.rows, "accuracy", THROUGHPUT)
    bars = [c for a in axes for c in a.containers]
    assert sum(len(c.lines[0].get_xdata()) for c in bars) == 2 * len(good)
    rings = [line for a in axes for line in a.lines if line.get_markersize() > 8]
    assert len(rings) == len(axes) and all(len(line.get_xdata()) for line in rings), "a frontier of one point shows"
    assert all(c.has_xerr and c.has_yerr for c in bars)
    table = pareto.table(placed)
    assert set(table["model"]) == set(placed.levels("panel")), "which point is which"
    assert table[f"frontier_{THROUGHPUT}"].any() and table["frontier_e2e_s"].any()
    for panel in placed.levels("panel"):
        mine = table[(placed.rows["panel"] == panel) & (table["status"] == "ok")]
        best = mine[mine[f"frontier_{THROUGHPUT}"]]
        assert mine[THROUGHPUT].max() == best[THROUGHPUT].max() and mine["accuracy"].max() == best["accuracy"].max()


def test_nothing_is_ringed_where_accuracies_cannot_be_told_from_noise(speed: Any) -> None:
    plan, frame = speed
    placed = pareto.place(plot(), joined(frame, answers(frame)), "figure f")  # 0.51 to 0.58, each within 0.08
    said = caption.of(plan, placed)
    assert "No Pareto frontier" in said and "Ringed" not in said
    with style.drawing():
        made = layout.figure(placed, said)
    assert not [line for a in made.axes for line in a.lines if line.get_markersize() > 8]
    table = pareto.table(placed)
    assert not table[f"frontier_{THROUGHPUT}"].any() and not table["frontier_e2e_s"].any()


USER, DEVICE = "output_tokens_per_s_per_user", "output_tokens_per_s_per_device"


def front(**more: Any) -> Plot:
    return plot(
        **{"x": USER, "y": [DEVICE], "hue": "top_k", "beside": ["accuracy"], "only": {}, "marker": "batch"} | more
    )


def test_the_front_of_users_and_devices_says_how_accurate_its_points_are(speed: Any) -> None:
    plan, frame = speed
    ends = {f"{name}_{end}": frame[name] for name in (USER, DEVICE) for end in ("low", "high")}
    placed = pareto.place(front(), joined(frame, answers(frame)).assign(**ends), "figure f")
    assert len(placed.rows) == len(frame), "a cell needs no accuracy to be there"
    said = caption.of(plan, placed)
    assert "Ringed: points" in said and "Numbers beside points on the frontier: their accuracy." in said
    assert "mean of 2 tasks (arc, rte)" in said and "Error bars of accuracy" not in said
    with style.drawing():
        made = layout.figure(placed, said)
    written = [text.get_text() for axes in made.axes for text in axes.texts]
    table = pareto.table(placed)
    best = table[table[f"frontier_{DEVICE}"]]
    assert len(best) and sorted(w for w in written if w) == sorted(f"{a:.3g}" for a in best["accuracy"])
    assert {USER, DEVICE, "accuracy"} <= set(table.columns)


def test_without_accuracy_a_front_has_no_numbers(speed: Any) -> None:
    plan, frame = speed
    placed = pareto.place(front(beside=[]), frame, "figure f")
    assert "ccuracy" not in caption.of(plan, placed)
    with pytest.raises(ConfigError, match="beside: cells have no column 'layer'"):
        pareto.place(front(beside=["layer"]), frame, "figure f")
    with pytest.raises(ValueError, match="value, beside: not for a figure of kind lines"):
        front(kind="lines", marker=None)


def test_a_figure_of_costs_says_the_price_or_that_there_is_none(speed: Any) -> None:
    plan, frame = speed
    shape = plot(kind="lines", x="batch", y=["usd_per_million_output_tokens", "joules_per_output_token"], only={})
    placed = data.place(shape, frame, "figure f")
    said = caption.of(plan, placed)
    assert "No cost: config/hardware/local-cpu.yaml has no price; enter yours." in said
    assert "No energy: the power of the devices was not read" in said
    with style.drawing():
        layout.figure(placed, said)
    price = {"usd_per_hour": 3.99, "source": "a page", "date": "2026-09-20"}
    priced = {**plan, "hardware": plan["hardware"] | {"price": price}}
    known = data.place(shape, frame.assign(usd_per_million_output_tokens=1.0, joules_per_output_token=1.0), "figure f")
    said = caption.of(priced, known)
    assert "At 3.99 USD per device and hour (a page, read 2026-09-20): config/hardware/local-cpu.yaml." in said
    assert "No energy" not in said and "No cost" not in said


def test_values_are_told_apart_by_their_intervals() -> None:
    rows = pd.DataFrame({"a": [1.0, 2.0], "a_low": [0.9, 1.4], "a_high": [1.5, 2.1]})
    assert not pareto.told_apart(rows, "a") and pareto.told_apart(rows.assign(a_low=[0.9, 1.6]), "a")
    assert pareto.told_apart(rows[["a"]], "a") and not pareto.told_apart(rows[["a"]].iloc[:1], "a")


def test_what_lacks_a_value_is_named(speed: Any) -> None:
    plan, frame = speed
    table = answers(frame)
    table = table[table["task"] != "mean"].assign(status="invalid")
    placed = pareto.place(plot(), joined(frame, table), "figure f")
    assert "No accuracy is measured yet." in caption.of(plan, placed)
    good = answers(frame)
    lost = good["engine"] == frame["engine"].iloc[0]
    good = good[~(lost & (good["task"] == "mean"))].copy()
    good.loc[good["engine"] == frame["engine"].iloc[0], "status"] = "invalid"
    placed = pareto.place(plot(), joined(frame, good), "figure f")
    title = frame["model_title"].iloc[0]
    assert f"{title} (accuracy: failed a sanity check)" in caption.of(plan, placed)


def test_lines_show_accuracy_beside_speed_with_its_own_failures(speed: Any) -> None:
    _, frame = speed
    table = answers(frame)
    k = sorted(frame["top_k"].unique())[0]
    table = table[(table["top_k"] != k) | (table["task"] != "mean")].copy()
    table.loc[table["top_k"] == k, "status"] = "timeout"
    shape = plot(kind="lines", x="top_k", y=[THROUGHPUT, "accuracy"], hue=None)
    placed = data.place(shape, joined(frame, table), "figure f")
    words = {h.get_label() for h in header.status_handles(placed)}
    assert "timeout" in words
    with mpl.rc_context(style.rc()):
        assert layout.figure(placed, "said").axes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": "acuracy"}, "unknown column 'acuracy'"),
        ({"y": ["batch"]}, "'batch' is not a measured metric"),
        ({"hue": None}, "have the same position"),
    ],
)
def test_a_mistake_is_one_line(speed: Any, change: dict[str, Any], words: str) -> None:
    _, frame = speed
    with pytest.raises(ConfigError, match=words):
        pareto.place(plot(**change), joined(frame, answers(frame)), "figure f")


def test_a_figure_of_accuracy_that_nobody_asks_for_is_refused(speed: Any) -> None:
    _, frame = speed
    with pytest.raises(ConfigError, match=r"no cell .*accuracy"):
        pareto.place(plot(), frame, "figure f")
    with pytest.raises(ConfigError, match="with accuracy tasks"):
        data.place(plot(kind="lines", x="top_k", y=["accuracy"], hue=None), frame, "figure f")
