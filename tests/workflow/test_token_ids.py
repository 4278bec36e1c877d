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


TRANSFORMERS = """
class AutoTokenizer:
    @classmethod
    def from_pretrained(cls, folder, trust_remote_code):
        if not trust_remote_code:
            raise ValueError(f"The repository {folder} contains custom code which must be executed.\\nPlease pass the "
                             "argument `trust_remote_code=True` to allow custom code to be run.")
        return lambda text, add_special_tokens: {"input_ids": [len(word) for word in text.split()]}
"""


def test_a_tokenizer_with_code_of_its_own_runs_only_where_the_model_file_says_so(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "transformers.py").write_text(TRANSFORMERS)
    words = corpus(folder, "one three")
    assert list(token_ids.of_corpus(folder, words, trust=True)) == [3, 5]
    with pytest.raises(
        RuntimeError, match=r"no token ids: ValueError: The repository .* contains custom code"
    ) as refused:
        token_ids.of_corpus(folder, words)
    assert "\n" not in str(refused.value)
