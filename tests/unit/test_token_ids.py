"""Corpora are tokenized outside the process that holds the engine: what a tokenizer leaves behind slows each step."""

import os
import sys

import pytest

from moebench.prompts import text_prompts, token_ids

TOKENIZERS = '''
import os
class Tokenizer:
    """A token per word: its length; first the process that it runs in."""
    ids = property(lambda self: self.found)
    @classmethod
    def from_file(cls, file):
        return cls()
    def encode(self, text, add_special_tokens):
        if "no such word" in text:
            raise ValueError("no such word")
        made = Tokenizer()
        made.found = [os.getpid(), *map(len, text.split())]
        return made
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model's folder, and a tokenizers library that tells where it runs."""
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizers.py").write_text(TOKENIZERS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path


def corpus(folder, text):
    (folder / "corpus.txt").write_text(text)
    return {"name": "own", "file": str(folder / "corpus.txt"), "field": "text"}


def test_a_corpus_is_tokenized_whole_in_another_process(folder):
    there, *ids = token_ids.of_corpus(folder, corpus(folder, "one three\n\nfive"))
    assert ids == [3, 5, 4] and there != os.getpid()
    assert "tokenizers" not in sys.modules
    made = text_prompts.make("text", token_ids.of_corpus(folder, corpus(folder, "a bb ccc dddd")), 0, 2, 3, seed=1)
    assert all(isinstance(prompt, list) and len(prompt) == 3 for prompt in made)


def test_without_a_corpus_it_is_the_prose(folder):
    assert len(token_ids.of_corpus(folder, None)) > 100_000


def test_items_are_cut_and_counted(folder):
    spec = corpus(folder, "one three five\n\n\n\neleven\n\nnot asked for")
    first, second = token_ids.of_items(folder, spec, most_tokens=3, count=2)
    assert first[1:] == [3, 5] and second[1:] == [6]
    assert len(token_ids.of_items(folder, spec, most_tokens=3, count=9)) == 3


def test_what_goes_wrong_is_said_in_the_tokenizers_words(folder):
    with pytest.raises(RuntimeError, match=rf"{folder}: no token ids: ValueError: no such word"):
        token_ids.of_corpus(folder, corpus(folder, "no such word"))
