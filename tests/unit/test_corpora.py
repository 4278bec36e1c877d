"""Corpora: items in order, pinned by their checksum, and what is said where one is missing or wrong."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from moebench.accuracy import vlm_fixtures
from moebench.prompts import corpora, images, prose
from moebench.storage import staged


@pytest.fixture
def spec(tmp_path):
    """A corpus of two items as JSON lines, pinned."""
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": " Is it? ", "id": 1}\n\n{"question": "Or not?"}\n{"question": " "}\n')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": "q", "title": "Q", "file": str(path), "field": "question", "sha256": digest, "reference": "test"}


def test_items_of_json_lines_in_order_empty_ones_left_out(spec):
    assert corpora.items(spec) == ["Is it?", "Or not?"] and corpora.check(spec) is None


def test_items_of_text_are_its_paragraphs(spec, tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("Eins,\r\nzwei.\r\n\r\n\r\n\r\nDrei ü vier.\r\n".encode())
    assert corpora.items(spec | {"file": str(path)}) == ["Eins,\nzwei.", "Drei ü vier."]


def test_the_items_of_the_prose_are_its_paragraphs():
    items = corpora.items(None)
    assert len(items) > 5000 and "\n\n".join(items) == prose.corpus()


def test_a_file_that_is_not_there_or_another_is_refused_with_the_remedy(spec):
    assert "the text of corpus q cannot be read" in corpora.check(spec | {"file": "nowhere/q.jsonl"})
    unpinned = corpora.check(spec | {"sha256": None})
    assert "config/corpora/q.yaml: sha256 is missing" in unpinned and spec["sha256"] in unpinned
    assert "fix whichever is wrong" in corpora.check(spec | {"sha256": "0" * 64})


@pytest.mark.parametrize("line", ["not JSON", "[1]", "3", json.dumps({"text": "x"}), json.dumps({"question": 3})])
def test_a_wrong_line_is_named(spec, tmp_path, line):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "fine"}\n' + line + "\n")
    bad = spec | {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert corpora.check(bad) == (
        f"{path}, line 2: no JSON object with the text 'question'; fix it, or set field in config/corpora/q.yaml"
    )


def test_an_empty_corpus_is_refused(spec, tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("\n")
    empty = spec | {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert "contains no text" in corpora.check(empty)


def test_identity_is_content_not_place(spec):
    assert corpora.identity(spec) == corpora.identity(spec | {"file": "other/place.jsonl", "title": "Other"})
    assert corpora.identity(spec) != corpora.identity(spec | {"field": "text"})


# ---------------------------------------------------------------------------- tables of questions with images


@pytest.fixture
def table(tmp_path):
    """MME's fixtures as a corpus."""
    folder = tmp_path / "MME"
    vlm_fixtures.write("MME", folder)
    told = {"task": "mme", "id": "MME", "source": "fixtures", "revision": vlm_fixtures.revision("MME"),
            "path": str(folder)}  # fmt: skip
    return {"name": "own", "title": "T", "file": None, "sha256": None, "field": "question", "table": told}


def rewrite(spec, change):
    """Change the rows of a table, staged anew."""
    folder = Path(spec["table"]["path"])
    with open(folder / "MME.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    change(rows)
    with open(folder / "MME.tsv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    staged.write_manifest(folder, "fixtures", spec["table"]["revision"])


def test_a_table_gives_its_questions_each_with_the_image_that_was_dumped(table):
    rows, asked, shown = vlm_fixtures.rows("MME"), corpora.items(table), corpora.pictures(table)
    assert corpora.check(table) is None and asked == [row["question"] for row in rows]
    for row, path in zip(rows, shown, strict=True):
        drawn = Image.open(io.BytesIO(vlm_fixtures.png(row["shape"])))
        assert images.read(path).tobytes() == drawn.tobytes() and images.read(path).size == (56, 56)
    assert corpora.pictures(None) == []
    file = Path(table["table"]["path"]) / "MME.tsv"
    assert corpora.sha256(table) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_rows_without_an_image_are_left_out_as_the_harness_does(table):
    rewrite(table, lambda rows: rows[1].update(image=""))
    assert len(corpora.items(table)) == len(corpora.pictures(table)) == 55


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda rows: rows[2].update(question=" "),
            r"MME.tsv, row 3: no text in column 'question'; fix config/corpora/",
        ),
        (lambda rows: rows[0].update(image_path="a.png"), r"MME.tsv, row 1: its image \S*a.png is missing; fix"),
        (lambda rows: [r.update(asked=r.pop("question")) for r in rows], "MME.tsv: no column 'question'; fix"),
        (lambda rows: [r.update(image="") for r in rows], "corpus own has no question with an image"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(table, change, words):
    rewrite(table, change)
    assert re.search(words, corpora.check(table))


def test_a_table_that_is_not_as_it_was_staged_is_refused(table):
    corpora.pictures(table)[0].write_bytes(b"x" * 10)
    assert corpora.check(table).endswith("; download corpus own with `moebench stage`")
    with pytest.raises(OSError, match=r"0\.png: not an image"):
        images.read(corpora.pictures(table)[0])


def test_a_table_is_identified_by_its_revision_not_its_place(table):
    moved = table | {"table": table["table"] | {"path": "other", "source": "elsewhere"}}
    assert corpora.identity(moved) == corpora.identity(table)
    assert corpora.identity(table | {"table": table["table"] | {"revision": "b"}}) != corpora.identity(table)
