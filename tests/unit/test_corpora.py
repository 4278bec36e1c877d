"""Corpora: items in order, pinned by their checksum, and what is said where one is missing or wrong."""

from __future__ import annotations

import hashlib
import json

import pytest

from moebench import corpora, prose


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
    assert "mend the one that is wrong" in corpora.check(spec | {"sha256": "0" * 64})


@pytest.mark.parametrize("line", ["not JSON", "[1]", "3", json.dumps({"text": "x"}), json.dumps({"question": 3})])
def test_a_wrong_line_is_named(spec, tmp_path, line):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "fine"}\n' + line + "\n")
    bad = spec | {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert corpora.check(bad) == (
        f"{path}, line 2: no JSON object with the text 'question'; mend it, or set field in config/corpora/q.yaml"
    )


def test_an_empty_corpus_is_refused(spec, tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("\n")
    empty = spec | {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert "holds no text" in corpora.check(empty)


def test_identity_is_content_not_place(spec):
    assert corpora.identity(spec) == corpora.identity(spec | {"file": "other/place.jsonl", "title": "Other"})
    assert corpora.identity(spec) != corpora.identity(spec | {"field": "text"})
