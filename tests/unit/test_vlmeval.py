"""VLMEvalKit without an engine: plans, tables and fixtures, what is made of a run's files and what is refused."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import fulldisk
import studies
from hubserver import Faults, HubServer
from moebench import accuracy
from moebench.accuracy import driver, vlm_fixtures
from moebench.accuracy import vlmeval_results as results
from moebench.accuracy.lm_eval_results import Unsound
from moebench.commands import data_tables
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import ConfigError, StageError, StorageError
from moebench.measure import records
from moebench.plan import accuracy_cells
from moebench.storage import staged
from moebench.tables import accuracy as accuracy_rows

ROOT = Path(__file__).resolve().parents[2]
SPEED = [{"fix": {"model": "tiny-llava-moe-s", "batch": 1, "input_tokens": 8, "output_tokens": 8}}]
TASKS = ("mme", "textvqa", "ai2d", "docvqa", "mmmu", "infovqa", "realworldqa", "scienceqa")


def plan_of(where: Path, tasks: Any = TASKS, **more: Any) -> dict[str, Any]:
    block = {"tasks": list(tasks), "data": "fixtures", "fix": {"model": "tiny-llava-moe-s"}} | more
    folder = studies.folder(where, {"e": {"blocks": SPEED, "accuracy": {"test": [block]}}})
    return make_plan(Config(folder), "test")


def task(name: str) -> dict[str, Any]:
    """A task as a plan's cell has it, on fixtures."""
    spec = Config(ROOT / "config").task(name)
    data = {"id": spec.task, "source": "fixtures", "revision": "0123456789abcdef", "path": "/data"}
    return spec.model_dump() | {"data": data, "judge": "exact_matching", "harness_version": "0.0.20"}


# ---------------------------------------------------------------------------------------------- plans


def test_the_eight_data_sets_share_the_engine_configuration_of_the_speed_cells(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    part = accuracy.view(plan, "vlmeval")
    assert list(part["engines"]) == list(plan["engines"])
    assert {c["task"]["task"] for c in part["cells"].values()} == set(vlm_fixtures.NAMES)
    assert {c["task"]["judge"] for c in part["cells"].values()} == {"exact_matching"}
    assert all(Path(c["task"]["data"]["path"]).name == c["task"]["data"]["revision"] for c in part["cells"].values())


def test_an_id_changes_with_the_longest_answer_and_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ids(where: str, **more: Any) -> set[str]:
        return set(accuracy.view(plan_of(tmp_path / where, ["mme"], **more), "vlmeval")["cells"])

    first = ids("a")
    assert ids("b") == first and not ids("c", max_tokens=5) & first and not ids("d", data="hub") & first
    monkeypatch.setattr(vlm_fixtures, "EDGE", 60)
    vlm_fixtures.revision.cache_clear()
    assert not ids("e") & first
    monkeypatch.undo()
    vlm_fixtures.revision.cache_clear()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"fix": {"model": "tiny-mixtral"}}, "task mme uses images, but model tiny-mixtral has no vision part"),
        ({"fix": {"model": "tiny-llava-moe-s", "dp": 2}}, "dp 2"),
        ({"tasks": ["rte"], "max_tokens": 4, "fix": {"model": "tiny-mixtral"}}, "rte is one of lm-eval"),
        ({"tasks": ["mmee"]}, "unknown task 'mmee'; did you mean 'mme'?"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, more.pop("tasks", ["mme"]), **more)
    assert words in str(error.value) and "e.yaml" in str(error.value) and "\n" not in str(error.value)


def test_the_harness_version_is_that_of_the_lock() -> None:
    lock = (ROOT / "envs/vlmeval.lock").read_text()
    assert re.search(r"^ms-vlmeval==(\S+)", lock, re.M).group(1) == accuracy_cells.VERSIONS["vlmeval"]


# ------------------------------------------------------------------------------------------- fixtures


@pytest.mark.parametrize("name", vlm_fixtures.NAMES)
def test_fixtures_have_an_image_for_every_row_where_the_harness_looks_for_it(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "x"
    assert vlm_fixtures.write(name, folder) and not vlm_fixtures.write(name, folder)
    assert staged.check(folder, full=True) == []
    assert staged.read_manifest(folder)["revision"] == vlm_fixtures.revision(name)
    csv.field_size_limit(1 << 30)
    rows = list(csv.DictReader(io.StringIO((folder / f"{name}.tsv").read_text()), delimiter="\t"))
    assert len(rows) == (56 if name == "MME" else vlm_fixtures.ROWS)
    for row in rows:
        path = folder / "images" / name / row.get("image_path", f"{row['index']}.png")
        with Image.open(path) as image:
            assert image.size == (vlm_fixtures.EDGE, vlm_fixtures.EDGE)
        if row.get("A"):
            assert row[row["answer"]], "the right letter is one of the choices"
    (folder / f"{name}.tsv").write_text("index\n")
    assert vlm_fixtures.write(name, folder), "altered: written again"


# -------------------------------------------------------------------------------------- tables fetched

TABLE = b"index\tquestion\tanswer\timage\n" + b"".join(b"%d\tq\ta\t%s\n" % (i, b"x" * 5000) for i in range(40))


def wanted(hub: HubServer, folder: Path, md5: str = "") -> dict[str, Any]:
    hub.repo("org/tables").push({"MME.tsv": TABLE})
    url = f"{hub.endpoint}/org/tables/resolve/main/MME.tsv"
    md5 = md5 or hashlib.md5(TABLE, usedforsecurity=False).hexdigest()
    return {"id": "MME", "source": url, "revision": md5, "path": str(folder)}


@pytest.fixture
def dumped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Environments with a harness whose images are dumped by this test."""
    python = tmp_path / ".envs/vlmeval/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()

    def dump(python: Path, name: str, folder: Path) -> None:
        (folder / "images").mkdir()
        (folder / "images/0.png").write_bytes(b"image")

    monkeypatch.setattr(data_tables, "dump_images", dump)
    return tmp_path / ".envs"


def test_a_dropped_connection_is_continued_and_the_table_checked(tmp_path: Path, dumped: Path) -> None:
    folder = tmp_path / "MME"
    with HubServer() as hub:
        data = wanted(hub, folder)
        hub.repo("org/tables").faults["MME.tsv"] = Faults(drop_after=60_000)
        data_tables.fetch_table(data, dumped)
        assert (folder / "MME.tsv").read_bytes() == TABLE
        assert len(hub.asked("MME.tsv")) == 2
        assert staged.check(folder, full=True) == []
        manifest = staged.read_manifest(folder)
        assert set(manifest["files"]) == {"MME.tsv", "images/0.png"} and manifest["revision"] == data["revision"]


def test_another_table_than_the_harness_expects_is_thrown_away(tmp_path: Path, dumped: Path) -> None:
    with HubServer() as hub, pytest.raises(StageError, match="wrong MD5"):
        data_tables.fetch_table(wanted(hub, tmp_path / "MME", md5="0" * 32), dumped)
    assert staged.check(tmp_path / "MME") and not (tmp_path / "MME/MME.tsv").exists()


def test_an_address_that_does_not_answer_is_one_line(tmp_path: Path, dumped: Path) -> None:
    with HubServer() as hub:
        data = wanted(hub, tmp_path / "MME")
    with pytest.raises(StageError) as error:
        data_tables.fetch_table(data, dumped)
    assert data["source"] in str(error.value) and "\n" not in str(error.value)


def test_a_table_put_there_by_hand_is_taken_without_asking(tmp_path: Path, dumped: Path) -> None:
    folder = tmp_path / "MME"
    with HubServer() as hub:
        data = wanted(hub, folder)
    folder.mkdir()
    (folder / "MME.tsv").write_bytes(TABLE)
    data_tables.fetch_table(data, dumped)
    assert staged.check(folder, full=True) == []


def test_without_the_harness_nothing_is_fetched(tmp_path: Path) -> None:
    with HubServer() as hub, pytest.raises(StageError, match=r"python3 envs/build.py vlmeval"):
        data_tables.fetch_table(wanted(hub, tmp_path / "MME"), tmp_path / ".envs")


def half_an_image(folder: Path) -> Path:
    """An image cut off by a crash, which the harness takes for whole: it reads the header."""
    image = folder / "images" / "MME" / "0.png"
    image.parent.mkdir(parents=True)
    whole = vlm_fixtures.png(("red", "circle", (8, 8, 40, 40)))
    image.write_bytes(whole[: len(whole) // 2])
    with Image.open(image) as opened:
        assert opened.size[0] > 0
    return image


def test_images_are_dumped_anew(tmp_path: Path) -> None:
    image = half_an_image(tmp_path)
    with pytest.raises(StageError, match=r"MME: .*exit code 1"):
        data_tables.dump_images(Path(sys.executable), "MME", tmp_path)  # there is no harness in it
    assert not image.exists()


@fulldisk.ROOT_ONLY
def test_images_on_a_full_disk(tmp_path: Path) -> None:
    with fulldisk.mounted(tmp_path / "small", "64k") as folder:
        fulldisk.fill(folder)
        with pytest.raises(StorageError, match=r"small: the disk is full"):
            data_tables.dump_images(Path(sys.executable), "MME", folder)


# --------------------------------------------------------------------------------- what a run has left


def choices_run(hits: list[int], name: str = "ai2d") -> dict[str, Any]:
    """A multiple-choice run with these rows right."""
    letters = {"A": "one", "B": "two", "C": "three", "D": "four"}
    rows = [{"index": i, "question": "q", "answer": "A", "prediction": "B"} | letters for i in range(len(hits))]
    scored = [row | {"hit": hit} for row, hit in zip(rows, hits, strict=True)]
    status = {"status": "done", "judge_model": "exact_matching", "metrics": {"Overall": 0.5}}
    table = [{"split": "none", "Overall": sum(hits) / len(hits)}]
    asked = [{"index": i} for i in range(len(hits))]
    return {"status": status, "asked": asked, "predictions": rows, "scored": scored, "table": table}


def test_multiple_choice_is_a_share_with_the_error_of_its_rows_and_the_chance_of_its_choices() -> None:
    run = choices_run([1, 0, 0, 1, 1])
    for row in run["scored"][:2]:
        row["D"] = None
    (row,), samples = results.rows_of(run, task("ai2d"), None)
    assert (row["value"], row["n"], row["metric"], row["task"]) == (0.6, 5, "acc", "AI2D_TEST")
    assert row["stderr"] == pytest.approx((0.6 * 0.4 / 4) ** 0.5)
    assert row["chance"] == pytest.approx((2 / 3 + 3 / 4) / 5)
    assert [s["acc"] for s in samples] == [1, 0, 0, 1, 1] and samples[0]["prediction"] == "B"


def test_only_the_rows_of_its_split_stand_for_a_task_in_any_order() -> None:
    run = choices_run([1, 1, 0, 0, 1, 0])
    for number, row in enumerate(run["scored"]):
        row["split"] = "dev" if number < 2 else "validation"
    run["table"] = [{"split": "validation", "Overall": 0.25}, {"split": "dev", "Overall": 1.0}]
    run["scored"][5] |= {"A": "left", "B": "Other Answers", "C": None, "D": None}  # an open question
    (row,), samples = results.rows_of(run, task("mmmu"), None)
    assert (row["value"], row["n"]) == (0.25, 4) and len(samples) == 6
    assert row["chance"] == pytest.approx(3 * 0.25 / 4)
    run["table"].reverse()
    assert results.rows_of(run, task("mmmu"), None)[0] == [row]


@pytest.mark.parametrize(
    ("name", "matches", "values", "theirs"),
    [
        ("textvqa", ["[1.0, 1.0, 0.7]", [0.0, 0.3]], [0.9, 0.15], 52.5),
        ("docvqa", ["[0.2, 0.9]", [0.51]], [0.8, 0.0], 40.0),
        ("infovqa", [[0.0], [0.5]], [1.0, 0.5], 75.0),
    ],
)
def test_written_answers_are_brought_from_percent_to_a_share(
    name: str, matches: list[Any], values: list[float], theirs: float
) -> None:
    run = choices_run([0, 0])
    run["scored"] = [{"index": i, "prediction": "x", "eval_match": m} for i, m in enumerate(matches)]
    run["table"] = [{"Overall": theirs}]
    (row,), samples = results.rows_of(run, task(name), None)
    assert row["value"] == pytest.approx(theirs / 100) and row["chance"] is None
    assert [s[row["metric"]] for s in samples] == pytest.approx(values)
    run["table"] = [{"Overall": theirs / 100}]
    with pytest.raises(Unsound, match="its rows have a mean"):
        results.rows_of(run, task(name), None)


def mme_run(right: dict[str, list[int]]) -> dict[str, Any]:
    """MME with two images of each kind; ``right``: the four scores of a kind, 1 where none are given."""
    scored, table = [], {}
    for kind in (*results.PERCEPTION, *results.REASONING):
        scores = right.get(kind, [1, 1, 1, 1])
        for i, score in enumerate(scores):
            scored.append({"index": len(scored), "category": kind, "image_path": f"{kind}/{i // 2}", "score": score > 0,
                           "prediction": "Yes"})  # fmt: skip
        table[kind] = 100 * sum(scores) / 4 + 100 * (scores[0] * scores[1] + scores[2] * scores[3]) / 2
    status = {"status": "done", "judge_model": "exact_matching", "metrics": {"perception": 1.0}}
    return {"status": status, "asked": [{"index": r["index"]} for r in scored], "predictions": scored,
            "scored": scored, "table": [table]}  # fmt: skip


def test_mme_is_kept_in_points_and_as_the_share_of_2800() -> None:
    rows, _ = results.rows_of(mme_run({"OCR": [1, 1, 1, 0], "scene": [1, 0, 0, 1]}), task("mme"), None)
    by_name = {row["metric"]: row for row in rows}
    # OCR: 75 + 50 of 200, scene: 50 + 0
    assert by_name["points"]["value"] == 2800 - 75 - 150 and by_name["reasoning"]["value"] == 800
    assert by_name["perception"]["value"] == 2000 - 225
    assert by_name["share_of_points"]["value"] == pytest.approx(2575 / 2800)
    assert by_name["share_of_points"]["chance"] == pytest.approx(0.375)
    # OCR's images give 200 and 50: error of their mean 75; scene's both 50: 0
    assert by_name["points"]["stderr"] == pytest.approx(75)
    assert by_name["share_of_points"]["stderr"] == pytest.approx(75 / 2800)


def test_mme_without_a_kind_has_no_points() -> None:
    run = mme_run({})
    for part in ("scored", "asked"):
        run[part] = run[part][:-4]
    run["predictions"] = run["scored"]
    with pytest.raises(Unsound, match="lacks text_translation"):
        results.rows_of(run, task("mme"), None)


def broken(change: Any) -> dict[str, Any]:
    run = choices_run([1, 0, 1, 0])
    change(run)
    return run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["status"].update(error_message="download failed"), "failed on AI2D_TEST: download failed"),
        (lambda r: r["status"].update(skip_reason="mode_infer"), "skipped AI2D_TEST: mode_infer"),
        (lambda r: r["status"].update(status="infer"), "did not end"),
        (lambda r: r["status"].update(judge_model="gpt-4o-mini"), "by 'gpt-4o-mini', not by 'exact_matching'"),
        (lambda r: r["status"].update(metrics={}), "no metrics"),
        (lambda r: r.update(predictions=None), "wrote no answers"),
        (lambda r: r["predictions"].pop(), "answers to 3 rows of AI2D_TEST, which has 4"),
        (
            lambda r: r["predictions"][2].update(prediction="Failed to obtain answer via API. "),
            "1 of the 4 rows of AI2D_TEST have no answer, first: row 2",
        ),
        (lambda r: r["asked"].append({"index": 9}), "which has 5"),
        (lambda r: r.update(scored=None), "no scores of rows"),
        (lambda r: r["scored"].pop(), "scored 3 of the 4 rows"),
        (lambda r: r.update(table=None), "no table of scores"),
        (lambda r: r["table"][0].update(Overall=0.75), "gave 0.75 for AI2D_TEST, its rows have a mean of 0.5"),
        (lambda r: r["table"].append({"split": "dev", "Overall": 0.5}), "2 lines where one"),
    ],
)
def test_a_run_that_is_not_whole_is_refused_with_its_reason(change: Any, words: str) -> None:
    assert results.rows_of(choices_run([1, 0, 1, 0]), task("ai2d"), None)
    with pytest.raises(Unsound) as error:
        results.rows_of(broken(change), task("ai2d"), None)
    assert words in str(error.value)


def test_with_a_limit_the_first_rows_are_all_there_is() -> None:
    run = choices_run([1, 0, 1])
    run["asked"] += [{"index": i} for i in (3, 4)]
    assert results.rows_of(run, task("ai2d"), 3)[0][0]["n"] == 3
    with pytest.raises(Unsound, match="which has 5"):
        results.rows_of(run, task("ai2d"), None)


# ---------------------------------------------------------------------------------------- the driver, the table


def test_a_harness_that_is_not_built_and_data_that_differ_are_said_before_anything_starts(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ["mme"])
    one = driver.Evaluator(plan, "vlmeval", tmp_path / "r", tmp_path / "x.log", lambda _: None, str(tmp_path / "a/b/c"))
    try:
        assert one.worker_module == "moebench.accuracy.vlmeval_worker"
        (cell,) = one.plan["cells"].values()
        folder = tmp_path / "mirror"
        vlm_fixtures.write("MME", folder)
        cell["task"]["data"]["path"] = str(folder)
        assert one.data_problem(cell["task"]["data"]) is None
        one._data.clear()
        with open(folder / "MME.tsv", "a") as file:
            file.write("\n")
        assert "MME.tsv" in one.data_problem(cell["task"]["data"])["reason"]
    finally:
        one.close()


def fake_record(cell: dict[str, Any], value: float | None) -> dict[str, Any]:
    name, metrics = cell["task"]["task"], cell["task"]["metrics"]
    rows = [{"task": name, "group": None, "metric": m["name"], "filter": "none", "value": value, "stderr": 0.1, "n": 6,
             "n_shot": 0, "task_version": "tsv 1", "chance": 0.25 if m["name"] == "acc" else None}
            for m in metrics]  # fmt: skip
    return {"status": "invalid" if value is None else "ok", "reason": "2 of the 6 rows have no answer",
            "results": rows, "samples": {"file": "x", "sha256": "0"}}  # fmt: skip


def test_every_row_names_its_judge_and_the_mean_says_what_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path)
    values = {"mme": 0.5} | dict.fromkeys(TASKS[1:], 0.25)

    def load(path: Path) -> dict[str, Any]:
        key = f"{path.parent.name}/{path.stem}"
        cell = plan["accuracy"]["vlmeval"]["cells"][key]
        return fake_record(cell, values[cell["task"]["name"]])

    monkeypatch.setattr(records, "load", load)
    rows = accuracy_rows.rows(plan, tmp_path, "results", "profiles/local")
    assert {row["judge"] for row in rows} == {"exact_matching"}
    assert {row["metric"] for row in rows if row["task"] == "mme"} >= {"points", "perception", "reasoning"}
    (mean,) = [row for row in rows if row["task"] == "mean"]
    assert mean["value"] == pytest.approx((0.5 + 7 * 0.25) / 8) and mean["stderr"] == pytest.approx(0.1 / 8**0.5)
    assert "mme share_of_points" in mean["made_of"] and mean["chance"] is None
    values["ai2d"] = None
    rows = accuracy_rows.rows(copy.deepcopy(plan), tmp_path, "results", "profiles/local")
    assert not [row for row in rows if row["task"] == "mean"], "a mean without one of its tasks is none"
    assert [row["status"] for row in rows if row["task"] == "ai2d"] == ["invalid"]
