"""Grid points that cannot run: rows of plan and tables with the reason, and no refusal of the study.

Figure and page: tests/report."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pandas as pd
import pytest

import studies
from moebench.claims import budget
from moebench.claims.collect import collect
from moebench.commands import show
from moebench.commands.planning import keep, make_plan
from moebench.config import Config
from moebench.errors import ConfigError
from moebench.tables import join, parquet

CELL = {"model": "tiny-mixtral", "batch": 2, "input_tokens": 16, "output_tokens": 4}


def block(cross: dict[str, list[Any]], **fix: Any) -> dict[str, Any]:
    return {"fix": {k: v for k, v in (CELL | fix).items() if k not in cross}, "cross": cross}


def plan(tmp_path, *blocks: dict[str, Any], accuracy: Any = None) -> dict[str, Any]:
    more = {"blocks": list(blocks)} | ({"accuracy": {"test": accuracy}} if accuracy else {})
    return make_plan(Config(studies.folder(tmp_path, {"x": more}, models="models")), "test")


def refused(made: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    return [(row["labels"], row["reason"]) for row in made["experiments"]["x"].get("unsupported", ())]


PRUNED = [{"label": "none", "pruning": "none"}, {"label": "half", "pruning": "inter", "prune_ratio": 0.5}]
SCOUT = "the checkpoint of llama-4-scout-17b-16e has all experts of a layer in one tensor"
WIDTHS = "shared expert as wide as a routed one"


@pytest.mark.parametrize(("cross", "fix", "cells", "reasons"), [
    ({"model": ["llama-4-scout-17b-16e", "tiny-mixtral"], "pruned": PRUNED}, {}, 3, [SCOUT]),
    ({"pruned": PRUNED[1:]}, {"model": "llama-4-scout-17b-16e"}, 0, [SCOUT]),
    ({"prune_ratio": [0, 0.125, 0.5]}, {"model": "deepseek-v2-lite", "pruning": "intra"}, 2, [WIDTHS]),
    ({"prune_ratio": [0.25, 0.999]}, {"pruning": "inter"}, 1, ["removes 8, all of them"]),
    ({"prune_ratio": [0.25, 0.5]}, {"pruning": "intra", "model": "tiny-olmoe"}, 0,
     ["leaves all of them in multiples of 64", "shares"]),
    ({"model": ["tiny-mixtral", "qwen3-0.6b"]}, {"pruning": "inter", "prune_ratio": 0.5}, 1, ["dense"]),
    ({"quantization": ["none", "int8"]}, {"weights": "dummy"}, 1, ["there are no weights to quantize"]),
    ({"model": ["tiny-mixtral", "tiny-olmoe"], "top_k": [2, 16]}, {}, 3, ["top_k 16 is more than the 8 experts"]),
    ({"model": ["tiny-mixtral", "qwen3-0.6b"]}, {"top_k": 1}, 1, ["qwen3-0.6b is dense"]),
    ({"model": ["tiny-mixtral", "tiny-llava-moe-s"]}, {"images": 1, "image_size": 56}, 1, ["mixtral accepts none"]),
    ({"draft_model": ["tiny-qwen3-draft-4b", "qwen3-0.6b"]}, {"model": "tiny-qwen3-moe", "draft_tokens": 1}, 1,
     ["draft_model qwen3-0.6b has a vocabulary of"]),
])  # fmt: skip
def test_a_point_that_cannot_be_is_a_row_with_the_reason(tmp_path, cross, fix, cells, reasons) -> None:
    made = plan(tmp_path, block(cross, **fix))
    found = refused(made)
    assert len(made["cells"]) == cells
    assert len(found) == len(list(itertools.product(*cross.values()))) - len(made["experiments"]["x"]["rows"]) > 0
    assert set().union(*(labels.keys() for labels, _ in found)) == set(cross)
    for _, reason in found:
        assert any(words in reason for words in reasons), reason
        assert "\n" not in reason and str(tmp_path) not in reason


def test_a_value_that_no_point_of_its_block_has_room_for_is_a_mistake(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: top_k 16 .* 8 experts of tiny-mixtral"):
        plan(tmp_path / "one", block({"batch": [1, 2]}, top_k=16), block({"batch": [1]}))
    alone = [{"tasks": ["arc-easy"], "data": "fixtures", "fix": {"model": "tiny-mixtral", "dp": 2}}]
    with pytest.raises(ConfigError, match=r"x\.yaml: accuracy with dp 2: .*set dp: 1"):
        plan(tmp_path / "two", block({"batch": [1]}), accuracy=alone)


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """``model: all`` on a CPU, and a tag of models on a GPU, pruned and at 4 bits."""
    cross = {"model": "all", "prune_ratio": [0, 0.25, 0.5]}
    small = plan(tmp_path_factory.mktemp("small"), block(cross, pruning="inter"))
    folder = studies.folder(
        tmp_path_factory.mktemp("large"),
        {"llms": [block({"model": "llms", "precision": ["bf16", "int4"]})], "all": [block({"model": "all"})]},
        hardware="h100-sxm5-80gb",
    )
    return small, make_plan(Config(folder), "test")


def test_all_models_and_models_by_tag(every) -> None:
    small, large = every
    tiny = {"tiny-mixtral", "tiny-olmoe", "tiny-qwen1.5-moe", "tiny-qwen3-moe", "tiny-phi-3.5-moe", "tiny-deepseek-v2",
            "tiny-llava-moe-s", "tiny-llava-moe-m", "tiny-llava-moe-l", "tiny-gpt-oss", "tiny-glm-4.5",
            "tiny-qwen3-next", "tiny-granite-4.0-h"}  # fmt: skip
    assert {e["model"]["name"] for e in small["engines"].values()} == tiny, "those the project writes, with experts"
    llms = {"mixtral-8x7b", "olmoe-1b-7b", "qwen1.5-moe-a2.7b", "qwen3-30b-a3b", "phi-3.5-moe", "deepseek-v2-lite"}
    rows = large["experiments"]["llms"]["rows"]
    assert {large["engines"][r["engine"]]["model"]["name"] for r in rows} == llms
    assert {r["labels"]["precision"] for r in rows} == {"BF16", "INT4"}
    asked = {r["labels"]["model"] for r in large["experiments"]["all"]["rows"]}
    assert asked >= llms | {"deepseek-v3", "llama-4-scout-17b-16e"} and not asked & tiny and "qwen3-0.6b" not in asked


def test_models_that_no_engine_runs_are_rows_of_all(every) -> None:
    _, large = every
    found = {r["labels"]["model"]: r["reason"] for r in large["experiments"]["all"]["unsupported"]}
    assert found.keys() >= {"grok-1", "switch-c-2048"}
    assert found["grok-1"] == "grok-1 is for the cost model only (its tag cost-only); no engine runs it"


def test_a_ratio_of_nothing_is_the_model_itself(every, tmp_path) -> None:
    small, _ = every
    plain = plan(tmp_path, block({"batch": [2]}, model="tiny-olmoe"))
    mine = [r for r in small["experiments"]["x"]["rows"] if r["labels"] == {"model": "tiny-olmoe", "prune_ratio": 0}]
    assert [f"{r['engine']}/{r['cell']}" for r in mine] == list(plain["cells"])
    ratios = {e["config"]["prune_ratio"] for e in small["engines"].values() if e["model"]["name"] == "tiny-olmoe"}
    assert ratios == {0, 0.25, 0.5}
    by = plan(tmp_path / "by", block({"prune_ratio": [0]}, model="tiny-olmoe", pruning="inter", prune_by="reap"))
    assert by["cells"].keys() == plain["cells"].keys(), "how nothing is chosen changes nothing"


def test_a_misspelt_group_names_the_nearest(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: unknown model 'llmz'; did you mean 'llms'"):
        plan(tmp_path, block({"model": "llmz"}))


def test_a_ratio_without_a_kind_of_pruning_is_a_mistake(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"prune_ratio 0.25 .*inter .* or intra"):
        plan(tmp_path, block({"prune_ratio": [0, 0.25]}))


def test_a_width_that_no_group_divides(tmp_path) -> None:
    folder = studies.folder(tmp_path, {"x": [block({"model": ["odd", "tiny-mixtral"]}, quantization="awq")]})
    studies.random_model(folder, "odd", experts={"ffn_size": 80})
    ((labels, reason),) = refused(make_plan(Config(folder), "test"))
    assert labels == {"model": "odd"}
    assert reason.startswith("quantization 'awq' of odd: experts.ffn_size 80 is not a multiple")


def test_the_same_point_asked_twice_is_one_row_and_other_studies_know_nothing_of_it(tmp_path) -> None:
    cross = {"pruned": PRUNED[1:]}
    made = plan(tmp_path, *[block(cross, model="llama-4-scout-17b-16e")] * 2, block({"batch": [2]}))
    assert len(refused(made)) == 1 and len(made["cells"]) == 1
    assert "unsupported" not in studies.planned("tiny")["experiments"]["fig05-topk-batch"]


ASKED = {"tasks": ["arc-easy", "boolq"], "data": "fixtures", "fix": {"pruning": "inter"},
         "cross": {"model": ["tiny-mixtral", "qwen3-0.6b"], "prune_ratio": [0.5]}}  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A study with points that cannot be, of speed and of accuracy: its plan, folder and what is collected."""
    root = tmp_path_factory.mktemp("unsupported")
    cross = {"model": ["tiny-mixtral", "qwen3-0.6b"], "prune_ratio": [0, 0.5]}
    made = plan(root, block(cross, pruning="inter"), accuracy=[ASKED])
    found = collect(keep(made, root / "results"), root / "results", root / "results/tables/test")
    return made, root, found


def test_tables_have_it_as_a_row_with_status_and_reason(measured) -> None:
    _, root, found = measured
    tables = root / "results/tables/test"
    assert found.counts == {"not measured": 3, "unsupported": 1} and found.total == 4
    frame = join.with_status(tables)
    ((_, row),) = frame[frame["status"] == "unsupported"].iterrows()
    assert row["reason"] == "pruning 'inter': qwen3-0.6b is dense, it has no experts to prune"
    assert (row["model"], row["prune_ratio"], row["experiment"]) == ("qwen3-0.6b", 0.5, "x")
    assert pd.isna(row["job"])
    assert row["accuracy_status"] == "unsupported", "its accuracy belongs to it"
    failed = parquet.read(tables, "failures")
    assert failed["reason"].tolist() == [row["reason"]] and failed["model_title"].tolist() == ["Qwen3-0.6B"]
    answers = parquet.read(tables, "accuracy")
    assert answers[answers["status"] == "unsupported"]["task"].tolist() == ["arc-easy", "boolq"]
    assert set(answers["model"]) == {"tiny-mixtral", "qwen3-0.6b"}


def test_the_terminal_says_it(measured) -> None:
    made, root, _ = measured
    text = show.plan(made, root / "results")
    assert "points that cannot run, status unsupported:\nexperiment  points  reason\n" in text
    assert re.search(r"^x  +1  pruning 'inter': qwen3-0.6b is dense, it has no experts to prune", text, re.MULTILINE)


def test_a_plan_lists_the_commonest_reasons(measured, monkeypatch) -> None:
    made, root, *_ = measured
    (row,) = made["experiments"]["x"]["unsupported"]
    rows = [row | {"labels": {"n": n}, "reason": f"reason {n // 2}"} for n in range(5)]
    many = made | {"experiments": {"x": made["experiments"]["x"] | {"unsupported": rows, "unsupported_accuracy": []}}}
    monkeypatch.setattr(show, "MOST_REASONS", 2)
    text = show.plan(many, root / "results")
    listed = text.partition("status unsupported:")[2].splitlines()[2:5]
    assert [line.split(maxsplit=2)[1:] for line in listed] == [
        ["2", "reason 0"], ["2", "reason 1"], ["1", "1 more reason, in the table failures"]
    ]  # fmt: skip


def test_claims_and_budgets_count_only_what_can_be_measured(measured) -> None:
    made, *_ = measured
    assert len(list(budget.rows_of(made))) == len(made["cells"]) == 3
    assert {row["model"] for row in budget.answers_of(made)} == {"mixtral-8x7b"}, "by the name it stands for"


def test_nothing_is_staged_made_or_measured_for_it(measured) -> None:
    made, *_ = measured
    names = {e["model"]["name"] for e in made["engines"].values()}
    assert names == {"tiny-mixtral", "qwen3-0.6b"}, "unpruned, it is measured"
    assert [e["config"]["pruning"] for e in made["engines"].values() if e["model"]["name"] == "qwen3-0.6b"] == ["none"]
    assert {m["name"] for m in made["derived"].values()} == {"tiny-mixtral"}
    assert {e["model"]["name"] for e in made["accuracy"]["lm-eval"]["engines"].values()} == {"tiny-mixtral"}
