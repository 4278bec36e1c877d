"""Claims about accuracy: what is compared, standard errors, the join with speed.  Numbers are made up for the sums."""

from __future__ import annotations

import numpy as np
import pytest

from moebench.claims import accuracy_rows
from moebench.claims import evaluate as ev
from moebench.claims.spec import Claim

FALL = {
    "id": "C-1", "place": "here", "statement": "It falls", "metric": "accuracy", "where": {"task": "mean"},
    "of": {"top_k": [1, 2]}, "to": {"top_k": 8}, "as": "difference", "test": "max", "expect": {"min": -0.005},
}  # fmt: skip
FASTER = {"metric": "throughput_output_tokens_per_s", "as": "gain", "min": 0.1}


def row(task: str, top_k: int, value: float | None, stderr: float | None = 0.01, **more):
    known = {
        "experiment": "x", "block": 0, "harness": "lm-eval", "harness_version": "1", "engine": f"e{top_k}",
        "cell": f"{task}.k{top_k}", "model": "m", "weights": "checkpoint", "hardware": "h", "engine_name": "vllm",
        "task": task, "metric": "acc", "filter": "none", "main": task != "mean", "limit": None, "data_source": "hub:d",
        "data_revision": "1", "n_shot": 0, "task_version": "1.0", "top_k": top_k, "value": value, "stderr": stderr,
        "status": "ok" if value is not None else "not measured",
    }  # fmt: skip
    return known | more


def block(top_k: int, value: float | None, stderr: float | None = 0.01, **more):
    """Two tasks and, if they have values, their mean."""
    tasks = [row(task, top_k, value, stderr, **more) for task in ("boolq", "rte")]
    mean = {"n_shot": None, "task_version": None, "cell": None, "data_source": None, "n": 2,
            "made_of": "2 tasks, all counting the same: boolq acc, rte acc"}  # fmt: skip
    return tasks + [row("mean", top_k, value, stderr, **{**more, **mean})] * (value is not None)


def outcomes(made, *blocks, speed=((), {}), logged=None):
    return accuracy_rows.evaluate(
        Claim.model_validate(made), accuracy_rows.rows((r for b in blocks for r in b), logged), speed
    )


def test_the_standard_error_of_a_difference_is_that_of_both():
    made = FALL | {"of": {"top_k": 1}, "test": "mean", "expect": {"min": -0.2, "max": 0}}
    (found,) = outcomes(made, block(1, 0.5, 0.03), block(8, 0.6, 0.04))
    assert found.value == pytest.approx(-0.1) and found.outcome == ev.UNDECIDED
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.05, rel=0.06), "sqrt(0.03^2 + 0.04^2) is 0.05"
    (found,) = outcomes(made, block(1, 0.5, 0.003), block(8, 0.6, 0.004))
    assert found.outcome == ev.AGREES
    (found,) = outcomes(made, block(1, 0.5, None), block(8, 0.6, 0.04))
    assert found.outcome == ev.UNDECIDED and "no standard error" in found.reason


def test_the_same_questions_are_compared_one_by_one():
    """Two tasks of 1000 questions; the cap loses 2 and wins 1 in each.  The standard errors alone decide nothing."""
    right = {f"q{i}": float(i % 2) for i in range(1000)}
    capped = right | {"q1": 0.0, "q3": 0.0, "q2": 1.0}

    def logged(row):
        return {f"{row['task']}/{k}": v for k, v in (right if row["top_k"] == 8 else capped).items()}

    errors = {k: float(np.std(list(s.values()), ddof=1)) / 1000**0.5 for k, s in ((8, right), (1, capped))}
    blocks = [[r | ({"stderr": errors[k] / 2**0.5} if r["task"] == "mean" else {}) for r in block(k, v, errors[k])]
              for k, v in ((8, 0.5), (1, 0.499))]  # fmt: skip
    made = FALL | {"of": {"top_k": 1}}
    (alone,), (paired,) = outcomes(made, *blocks), outcomes(made, *blocks, logged=logged)
    assert alone.value == paired.value == pytest.approx(-0.001)
    assert (alone.outcome, paired.outcome) == (ev.UNDECIDED, ev.AGREES)
    each = np.array([capped[k] - right[k] for k in right])
    assert (paired.high - paired.low) / 2 == pytest.approx(1.96 * each.std() / 2000**0.5, rel=0.1), "over both tasks"
    (other,) = outcomes(made, *blocks, logged=lambda row: logged(row) if row["task"] == "rte" else None)
    assert other.outcome == ev.UNDECIDED, "the log of one task is gone"


def test_a_value_and_its_draws():
    made = accuracy_rows.draws("key", 0.5, 0.1)
    assert made.shape == (1 + ev.RESAMPLES,) and made[0] == 0.5
    assert np.std(made[1:]) == pytest.approx(0.1, rel=0.05) and (made == accuracy_rows.draws("key", 0.5, 0.1)).all()


@pytest.mark.parametrize(
    "more", [{"weights": "random_init"}, {"limit": 10}, {"data_revision": "2"}, {"harness_version": "2"}]
)
def test_what_was_asked_of_something_else_is_never_compared(more):
    made = FALL | {"of": {"top_k": 1}, "test": "mean"}
    (found,) = outcomes(made, block(1, 0.5), block(8, 0.6, **more))
    assert (found.outcome, found.reason) == (ev.NOT_MEASURED, "no cells of this study are compared in this way")


def test_kinds_of_weights_stay_apart_where_models_are_compared():
    made = FALL | {"of": None, "to": None, "as": None, "test": "rank", "over": ["model"], "expect": {"first": "m"}}
    (found,) = outcomes(made, block(8, 0.9), block(8, 0.5, model="n", engine="f"))
    assert found.outcome == ev.AGREES
    (found,) = outcomes(made, block(8, 0.9), block(8, 0.5, model="n", engine="f", weights="random_init"))
    assert found.outcome == ev.NOT_MEASURED


@pytest.mark.parametrize("more", [{"n_shot": 5}, {"task_version": "2.0"}])
def test_what_was_asked_in_another_way_is_named(more):
    made = FALL | {"of": {"top_k": 1}, "test": "mean"}
    tasks = [r | (more if r["task"] == "rte" else {}) for r in block(8, 0.6)]
    (found,) = outcomes(made, block(1, 0.5), tasks)
    assert found.outcome == ev.NOT_DECIDED and "never compared: cells that differ in asked" in found.reason


def test_a_mean_that_lacks_a_task_waits():
    half = [row("boolq", 1, 0.5), row("rte", 1, None)]
    (found,) = outcomes(FALL | {"of": {"top_k": 1}, "test": "mean"}, half, block(8, 0.6))
    assert (found.outcome, found.reason) == (ev.NOT_MEASURED, "1 of 2 cells not measured")


def speeds(**tokens):
    """Speed cells of engine configurations e1, e2, e8 at one load, and their draws."""
    cells = [{"engine": k, "cell": "b", "model": "m", "weights": "checkpoint", "top_k": int(k[1:]), "batch": 1}
             for k in tokens]  # fmt: skip
    return cells, {i: np.full(1 + ev.RESAMPLES, float(v)) for i, v in enumerate(tokens.values())}


def test_accuracy_counts_where_the_same_engine_configuration_is_faster():
    made = FALL | {"provided": FASTER}
    blocks = block(1, 0.3, 1e-4), block(2, 0.6, 1e-4), block(8, 0.6, 1e-4)
    (found,) = outcomes(made, *blocks, speed=speeds(e1=130, e2=120, e8=100))
    assert found.value == pytest.approx(0) and found.outcome == ev.AGREES
    (found,) = outcomes(made, *blocks, speed=speeds(e1=130, e2=105, e8=100))
    assert found.value == pytest.approx(-0.3) and found.outcome == ev.DISAGREES, "the cap that is faster is worse"
    (found,) = outcomes(made, *blocks, speed=speeds(e1=101, e2=102, e8=100))
    assert (found.value, found.outcome) == (None, ev.DISAGREES) and "at no setting" in found.reason
    (found,) = outcomes(made, *blocks)
    assert found.outcome == ev.NOT_MEASURED and "no speed" in found.reason
