"""Prompts: text of a corpus or random ids at exact token lengths, one text for all, or a corpus's items unchanged."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from moebench.formats.plan import CorpusDict
from moebench.prompts import corpora


@functools.lru_cache(maxsize=1)
def tokenizer(model_folder: Path, trust: bool = False) -> Callable[[str], list[int]]:
    """The model's own tokenizer as a function from text to token ids (no special tokens).

    ``trust``: allow its own Python files to run.
    """
    from tokenizers import Tokenizer

    file = model_folder / "tokenizer.json"
    if file.exists():
        fast = Tokenizer.from_file(str(file))
        return lambda text: list(fast.encode(text, add_special_tokens=False).ids)
    from transformers import AutoTokenizer  # a tokenizer without tokenizer.json

    slow = AutoTokenizer.from_pretrained(model_folder, trust_remote_code=trust)
    return lambda text: list(slow(text, add_special_tokens=False)["input_ids"])


def text_tokens(model_folder: Path, corpus: CorpusDict | None = None, trust: bool = False) -> list[int]:
    """A whole corpus (None: the prose) as token ids, its items separated by blank lines."""
    return tokenizer(model_folder, trust)("\n\n".join(corpora.items(corpus)))


def items(model_folder: Path, texts: list[str], most_tokens: int, trust: bool = False) -> list[list[int]]:
    """Texts as prompts of their own lengths, each truncated to ``most_tokens`` tokens."""
    encode = tokenizer(model_folder, trust)
    return [encode(text)[:most_tokens] for text in texts]


def tokenizer_key(model_folder: Path) -> str:
    """A key by the tokenizer's content: models of one family share a tokenizer, and tokenizing the corpus is slow."""
    file = model_folder / "tokenizer.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else str(model_folder)


def make(kind: str, corpus: Sequence[int], vocab_size: int, batch: int, length: int, seed: int) -> list[list[int]]:
    """``batch`` prompts of exactly ``length`` tokens.

    ``text``: windows of the corpus at random places; ``identical``: one such window for all; ``random``: ids drawn
    uniformly from the vocabulary.  Raises ValueError if the corpus is shorter than a prompt.
    """
    rng = random.Random(seed)
    if kind == "random":
        return [[rng.randrange(vocab_size) for _ in range(length)] for _ in range(batch)]
    places, texts = len(corpus) - length + 1, batch if kind == "text" else 1
    if places < texts:
        raise ValueError(f"the prose corpus of {len(corpus)} tokens is too short for {texts} prompts of {length}")
    windows = [list(corpus[start : start + length]) for start in rng.sample(range(places), texts)]
    return windows if kind == "text" else windows * batch
