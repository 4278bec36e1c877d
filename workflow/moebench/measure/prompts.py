"""Prompts of exact token lengths: prose, random ids, or one text for all."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path


def text_tokens(model_folder: Path) -> list[int]:
    """The prose corpus of the standard library, tokenized by the model's own tokenizer (no special tokens)."""
    from tokenizers import Tokenizer

    from moebench.prose import corpus

    file = model_folder / "tokenizer.json"
    if file.exists():
        return list(Tokenizer.from_file(str(file)).encode(corpus(), add_special_tokens=False).ids)
    from transformers import AutoTokenizer  # a tokenizer without tokenizer.json

    return list(AutoTokenizer.from_pretrained(model_folder)(corpus(), add_special_tokens=False)["input_ids"])


def tokenizer_key(model_folder: Path) -> str:
    """Tells tokenizers apart by content: models of one family share theirs, and tokenizing the corpus takes a while."""
    file = model_folder / "tokenizer.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else str(model_folder)


def make(kind: str, corpus: list[int], vocab_size: int, batch: int, length: int, seed: int) -> list[list[int]]:
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
    windows = [corpus[start : start + length] for start in rng.sample(range(places), texts)]
    return windows if kind == "text" else windows * batch
