"""Accuracy without an engine: plans, fixtures, what is made of a harness's results, means and arms."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import studies
from moebench import accuracy
from moebench.accuracy import fixtures, lm_eval_harness, lm_eval_results
from moebench.claims import collect
from moebench.claims import table as claims
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import ConfigError
from moebench.measure import records
from moebench.plan import accuracy_cells
from moebench.report import accuracy as accuracy_report
from moebench.storage import atomic, staged
from moebench.tables import accuracy as accuracy_rows
from moebench.tables import parity, parquet

ROOT = Path(__file__).resolve().parents[2]
SPEED = [{"fix": {"model": "tiny-mixtral", "batch": 1, "input_tokens": 8, "output_tokens": 8}}]


def study(where: Path, blocks: list[dict[str, Any]], **more: Any) -> Path:
    """A configuration folder with a speed cell of tiny Mixtral and accuracy blocks."""
    return studies.folder(where, {"e": {"blocks": SPEED, "accuracy": {"test": blocks}}}, **more)


def block(tasks: list[str], **more: Any) -> dict[str, Any]:
    return {"tasks": tasks, "data": "fixtures", "fix": {"model": "tiny-mixtral"}} | more


def plan_of(where: Path, blocks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return make_plan(Config(study(where, blocks, **more)), "test")


# ------------------------------------------------------------------------------------------- plan


def test_accuracy_shares_the_engine_configuration_of_the_speed_cells(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [block(["boolq", "rte"])])
    part = accuracy.view(plan, "lm-eval")
    assert list(part["engines"]) == list(plan["engines"]), "same id: the tables join on it"
    assert len(part["cells"]) == 2 and not set(part["cells"]) & set(plan["cells"])
    (job,) = part["jobs"].values()
    assert job["cells"] == 2
    assert {r["harness"] for r in plan["experiments"]["e"]["accuracy"]} == {"lm-eval"}


@pytest.mark.parametrize(("live", "engines"), [("auto", 1), (False, 2)])
def test_top_k_is_set_live_or_at_load_as_for_speed(tmp_path: Path, live: Any, engines: int) -> None:
    part = accuracy.view(plan_of(tmp_path, [block(["rte"], cross={"top_k": [1, 2]})], live_top_k=live), "lm-eval")
    assert sorted(cell["top_k"] for cell in part["cells"].values()) == [1, 2]
    assert len(part["engines"]) == engines


def test_an_id_changes_with_what_can_change_a_number_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ids(folder: str, **more: Any) -> set[str]:
        return set(accuracy.view(plan_of(tmp_path / folder, [block(["rte"], **more)]), "lm-eval")["cells"])

    first = ids("a")
    assert ids("b") == first
    assert not ids("c", limit=3) & first
    monkeypatch.setattr(fixtures, "revision", lambda name: "0" * 12)
    assert not ids("d") & first, "other data"
    monkeypatch.undo()
    monkeypatch.setitem(accuracy_cells.VERSIONS, "lm-eval", "9.9")
    assert not ids("e") & first, "another harness"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (block(["wino-grande"]), "unknown task 'wino-grande'; did you mean 'winogrande'?"),
        (block(["rte"], cross={"batch": [1, 2]}), "knob 'batch' is for speed cells only"),
        (block(["rte"], cross={"topk": [1]}), "unknown knob 'topk'; did you mean 'top_k'?"),
        (block(["rte"], fix={"model": "tiny-mixtral", "dp": 2, "ep": True}), "dp 2 and ep: lm-eval would start 2"),
        (block(["rte"], fix={"model": "tiny-mixtral", "dp": 2}), "with dp 2: lm-eval would start 2"),
        (block(["rte"], fix={"model": "tiny-mixtral", "top_k": 9}), "top_k 9 is more than the 8 experts"),
        (block([]), "tasks"),
        (block(["rte"], limits=3), "unknown key 'limits'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, [given])
    assert words in str(error.value) and "e.yaml" in str(error.value) and "\n" not in str(error.value)


def test_the_harness_version_is_that_of_the_locks() -> None:
    for name in ("vllm-cpu", "vllm-cuda"):
        lock = (ROOT / "envs" / f"{name}.lock").read_text()
        assert re.search(r"^lm-eval==(\S+)", lock, re.M).group(1) == accuracy_cells.VERSIONS["lm-eval"]


def test_every_task_of_the_papers_is_there_and_can_be_asked_of_fixtures(tmp_path: Path) -> None:
    names = sorted(p.stem for p in (ROOT / "config/tasks").glob("*.yaml"))
    asked = {"arc-challenge", "arc-easy", "boolq", "hellaswag", "mmlu", "openbookqa", "rte", "winogrande"}
    assert asked | {"wikitext", "gsm8k"} <= set(names)
    part = accuracy.view(plan_of(tmp_path, [block(sorted(asked | {"wikitext", "gsm8k"}))]), "lm-eval")
    assert len(part["cells"]) == 10
    assert {c["task"]["name"] for c in part["cells"].values() if c["task"]["in_mean"]} == asked


# --------------------------------------------------------------------------------------- fixtures


@pytest.mark.parametrize("name", fixtures.NAMES)
def test_fixtures_are_whole_and_the_same_every_time(tmp_path: Path, name: str) -> None:
    if name == "cais/mmlu":
        assert len(fixtures.SUBJECTS) == len(set(fixtures.SUBJECTS)) == 57
    assert fixtures.write(name, tmp_path / "a" / "x") and fixtures.write(name, tmp_path / "b" / "x")
    one, two = (staged.read_manifest(tmp_path / part / "x") for part in ("a", "b"))
    assert one == two and one["revision"] == fixtures.revision(name)


def test_fixtures_are_written_anew_only_where_they_were_altered(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    assert fixtures.write("aps/super_glue", folder) and not fixtures.write("aps/super_glue", folder), "there already"
    file = next(folder.rglob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert staged.check(folder) == [], "its size is the same"
    assert "SHA-256" in staged.check(folder, full=True)[0]
    assert fixtures.write("aps/super_glue", folder), "altered files are written anew"


def test_right_answers_of_fixtures_are_not_at_one_place(tmp_path: Path) -> None:
    fixtures.write("allenai/ai2_arc", tmp_path / "arc")
    table = pq.read_table(tmp_path / "arc/ARC-Easy/test-00000-of-00001.parquet").to_pylist()
    right = [row["choices"]["label"].index(row["answerKey"]) for row in table]
    assert len(table) == fixtures.TEST_ROWS and set(right) == {0, 1, 2, 3}
    for name, file in (("aps/super_glue", "boolq/validation"), ("nyu-mll/glue", "rte/validation")):
        fixtures.write(name, tmp_path / "two")
        labels = pq.read_table(tmp_path / f"two/{file}-00000-of-00001.parquet")["label"].to_pylist()
        assert 4 <= sum(labels) <= 12, (name, labels)


# ---------------------------------------------------------------------------------------- results

TASK = {"task": "group", "metrics": [{"name": "acc", "filter": "none"}]}


def found() -> dict[str, Any]:
    """What lm-eval returns for a group of two tasks with 3 and 1 questions."""
    sample = {"resps": [[[-1.5, False]], [[-2.0, False]]], "filter": "none"}
    return {
        "results": {
            "a": {"alias": "a", "acc,none": 1 / 3, "acc_stderr,none": 0.3},
            "b": {"alias": "b", "acc,none": 1.0, "acc_stderr,none": "N/A"},
            "group": {"alias": "group", "acc,none": 0.5, "acc_stderr,none": 0.2},
        },
        "groups": {"group": {"alias": "group", "acc,none": 0.5, "acc_stderr,none": 0.2}},
        "group_subtasks": {"group": ["a", "b"]},
        "n-shot": {"a": 5, "b": 5},
        "n-samples": {"a": {"original": 9, "effective": 3}, "b": {"original": 1, "effective": 1}},
        "versions": {"a": 1.0, "b": 1.0, "group": 2},
        "samples": {"a": [sample | {"doc_id": i, "acc": float(i == 0)} for i in range(3)],
                    "b": [sample | {"doc_id": 0, "acc": 1.0}]},
    }  # fmt: skip


def test_results_become_rows_and_a_group_is_the_mean_by_size() -> None:
    rows = {row["task"]: row for row in lm_eval_results.rows_of(found(), TASK)}
    assert (rows["group"]["value"], rows["group"]["n"], rows["group"]["n_shot"]) == (0.5, 4, 5)
    assert (rows["a"]["group"], rows["a"]["n"], rows["a"]["n_shot"], rows["a"]["task_version"]) == (
        "group",
        3,
        5,
        "1.0",
    )
    assert rows["b"]["stderr"] is None, '"N/A" is no number'


def broken(change: str) -> dict[str, Any]:
    data = copy.deepcopy(found())
    if change == "plain mean":
        data["groups"]["group"]["acc,none"] = data["results"]["group"]["acc,none"] = 2 / 3
    elif change == "no group":
        del data["results"]["group"], data["groups"]
    elif change == "not a number":
        data["results"]["a"]["acc,none"] = float("nan")
    elif change == "none":
        data["results"]["a"]["acc,none"] = None
    elif change == "a question less":
        data["samples"]["a"].pop()
    elif change == "no answer":
        data["samples"]["a"][1]["resps"] = [[[-1.5, False]], []]
    elif change == "no likelihood":
        data["samples"]["b"][0]["resps"] = [[[float("-inf"), False]]]
    elif change == "nothing asked":
        data["n-samples"]["b"]["effective"], data["samples"]["b"] = 0, []
    return data


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("plain mean", "its 2 tasks have a mean of 0.5"),
        ("no group", "gave no acc (none) for group"),
        ("not a number", "gave nan for a acc,none"),
        ("none", "gave None for a acc,none"),
        ("a question less", "has 2 of the 3 questions of a"),
        ("no answer", "question 1 of a has no answer"),
        ("no likelihood", "question 0 of b has no answer"),
        ("nothing asked", "asked no question of b"),
    ],
)
def test_results_that_cannot_be_kept_are_refused(change: str, words: str) -> None:
    with pytest.raises(lm_eval_results.Unsound, match=re.escape(words)):
        lm_eval_results.rows_of(broken(change), TASK)


# ------------------------------------------------------------------------------------------- arms


def test_arms_are_compared_question_by_question() -> None:
    base = {f"q{i}": float(i % 2) for i in range(100)}
    assert parity.difference(base, base) == {"arm_difference": 0.0, "arm_differs": False}
    other = base | {"q0": 1.0, "q1": 0.0}  # one won, one lost
    assert parity.difference(base, other) == {"arm_difference": 0.0, "arm_differs": False}
    worse = base | {f"q{i}": 0.0 for i in range(1, 30, 2)}  # 15 of 100 lost, none won: no noise
    verdict = parity.difference(base, worse)
    assert verdict["arm_difference"] == pytest.approx(-0.15) and verdict["arm_differs"] is True
    a_little = base | {f"q{i}": 0.0 for i in range(1, 16, 2)}  # 8 of 100 lost: 2.9 standard errors
    assert parity.difference(base, a_little)["arm_differs"] is True
    assert parity.difference(base, a_little, comparisons=20)["arm_differs"] is False, "one of twenty is so by chance"
    assert parity.difference(base, {"q0": 1.0})["arm_differs"] is None, "not the same questions"
    assert parity.difference(base, dict.fromkeys(base, 2.0))["arm_differs"] is True


# ---------------------------------------------------------------------------- tables, from records

VALUES = {"boolq": (0.5, 0.1), "rte": (0.75, 0.2)}


def stored(place: Path, plan: dict[str, Any], without: tuple[str, ...] = ()) -> Path:
    """Records of a plan's accuracy cells, as the driver writes them; those of ``without`` failed."""
    results = place / "results"
    for harness, part, folder in accuracy.views(plan, results):
        for key, cell in part["cells"].items():
            name = cell["task"]["name"]
            value, stderr = VALUES[name]
            result = {"task": cell["task"]["task"], "group": None, "metric": "acc", "filter": "none", "value": value,
                      "stderr": stderr, "n": 4, "n_shot": 0, "task_version": "1.0"}  # fmt: skip
            right = [int(i < 4 * value) for i in range(4)]
            lines = [json.dumps({"task": cell["task"]["task"], "doc_id": i, "acc": r}) for i, r in enumerate(right)]
            log = gzip.compress("\n".join(lines).encode())
            path = folder / "samples" / f"{key}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(log)
            good = name not in without
            record = {
                "schema": records.SCHEMA, "engine": cell["engine"], "cell": cell["cell"], "attempt": 1,
                "status": "ok" if good else "crashed", "reason": "" if good else "it died", "evidence": [],
                "started_at": atomic.stamp(), "ended_at": atomic.stamp(), "task": cell["task"],
                "results": [result] if good else [], "checks": {"truncated_prompts": 2}, "provenance": {"host": "h"},
                "samples": {"file": path.name, "sha256": hashlib.sha256(log).hexdigest()},
            }  # fmt: skip
            records.store(folder, record)
        assert harness == "lm-eval"
    return results


def test_rows_have_chance_level_and_means_say_how_they_were_made(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [block(["boolq", "rte"])])
    rows = accuracy_rows.rows(plan, stored(tmp_path, plan), "results", "profiles/local")
    by_task = {row["task"]: row for row in rows}
    assert (
        by_task["boolq"]["value"] == 0.5 and by_task["boolq"]["chance"] == 0.5 and by_task["boolq"]["unit"] == "share"
    )
    assert by_task["boolq"]["weights"] == "random_init" and by_task["boolq"]["truncated_prompts"] == 2
    mean = by_task["mean"]
    assert mean["value"] == pytest.approx(0.625) and mean["stderr"] == pytest.approx((0.1**2 + 0.2**2) ** 0.5 / 2)
    assert mean["made_of"] == "2 tasks, all counting the same: boolq acc, rte acc" and mean["n"] == 2


def test_a_failed_task_is_a_row_and_its_block_has_no_mean(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [block(["boolq", "rte"])])
    rows = accuracy_rows.rows(plan, stored(tmp_path, plan, without=("rte",)), "results", "profiles/local")
    assert {row["task"] for row in rows} == {"boolq", "rte"}, "no mean of half the tasks"
    bad = next(row for row in rows if row["task"] == "rte")
    assert (bad["status"], bad["reason"]) == ("crashed", "it died") and "value" not in bad
    assert bad["rerun"].startswith(
        "snakemake --profile profiles/local --config study=test --force results/accuracy/lm-eval/cells/tiny-mixtral"
    )


def test_arms_meet_in_the_table_and_an_altered_log_is_not_believed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [block(["rte"], cross={"expert_kernel": ["fused", "unfused"]})])
    results = stored(tmp_path, plan)
    rows = accuracy_rows.rows(plan, results, "results", "profiles/local")
    assert sorted(row.get("arm_differs") is None for row in rows) == [False, True], "one is compared with the other"
    compared = next(row for row in rows if row.get("arm_of"))
    assert compared["arm_difference"] == 0 and compared["arm_differs"] is False
    assert sorted(claims._logged(results, compared).values()) == [0.0, 1.0, 1.0, 1.0], "claims pair by it too"
    log = next((accuracy.folder(results, "lm-eval") / "samples" / compared["engine"]).glob("*.gz"))
    log.write_bytes(gzip.compress(b""))
    again = next(r for r in accuracy_rows.rows(plan, results, "results", "profiles/local") if r.get("arm_of"))
    assert again["arm_differs"] is None and claims._logged(results, again) is None


def test_the_report_says_that_random_weights_are_at_chance(tmp_path: Path) -> None:

    plan = plan_of(tmp_path, [block(["boolq", "rte"])])
    results = stored(tmp_path, plan)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    collect.collect(file, results, tmp_path / "tables")
    (table,) = accuracy_report.tables(plan, parquet.read(tmp_path / "tables", "accuracy"), "e")
    assert [head for head, _ in table.heads] == ["BoolQ", "RTE", "Mean of 2 tasks"]
    assert table.chance == ["0.500", "0.500", "0.500"]
    assert table.rows == [("Tiny Mixtral", [("0.500", "0.100", ""), ("0.750", "0.200", ""), ("0.625", "0.112", "")])]
    text = " ".join(table.notes)
    assert "are at chance level" in text and "2 of 2 values are within 3 standard errors of guessing" in text
    assert "no value here is a result on those" in text and "2 tasks, all counting the same" in text


@pytest.fixture
def fresh():
    cached = lm_eval_harness.folder, lm_eval_harness._definitions
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_the_folder_of_a_task_is_found_and_groups_are_in_none(tmp_path, monkeypatch):
    """Groups may be of several folders: the harness's own index of all knows them."""
    for path, text in (
        ("arc/arc_easy.yaml", "tag:\n  - ai2_arc\ntask: arc_easy\n"),
        ("glue/rte/default.yaml", 'task: "rte"\n'),
        ("mmlu/all.yaml", "group: mmlu\ntask:\n  - task: stem\n"),
        ("few.yaml", "task: [a, b]\n"),
        ("wsc/wsc.yaml", "task: wsc273\n"),
        ("other/all.yaml", "task: wsc\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    tasks = types.ModuleType("lm_eval.tasks")
    tasks.__file__ = str(tmp_path / "__init__.py")
    package = types.ModuleType("lm_eval")
    package.tasks = tasks
    monkeypatch.setitem(sys.modules, "lm_eval", package)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", tasks)
    found = {task: lm_eval_harness.folder(task) for task in ("arc_easy", "rte", "mmlu", "stem", "a", "wsc", "wsc273")}
    single = {"arc_easy": "arc", "rte": "glue/rte", "wsc": "other", "wsc273": "wsc"}
    assert found == dict.fromkeys(("mmlu", "stem", "a")) | {task: tmp_path / place for task, place in single.items()}
