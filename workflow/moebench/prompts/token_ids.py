"""Corpora as token ids, tokenized in a separate process.

A tokenizer that has processed a megabyte of text fragments the memory of its process so much that each later step of a
small model takes up to 8% longer (docs/facts.md), so it must not run in the engine's process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

from moebench.formats import Json
from moebench.formats.plan import CorpusDict
from moebench.prompts import corpora, text_prompts


def of_corpus(model_folder: Path, corpus: CorpusDict | None, trust: bool = False) -> array[int]:
    """A whole corpus (None: the prose) as token ids.  ``trust``: allow a tokenizer's own Python files to run.

    Raises RuntimeError with the tokenizer's message.
    """
    return array("q", _apart({"folder": str(model_folder), "corpus": corpus, "trust": trust}))


def of_items(
    model_folder: Path, corpus: CorpusDict | None, most_tokens: int, count: int, trust: bool = False
) -> list[list[int]]:
    """The first ``count`` items of a corpus as token ids, truncated to ``most_tokens``.  Raises as ``of_corpus``."""
    asked = {"folder": str(model_folder), "corpus": corpus, "most_tokens": most_tokens, "count": count, "trust": trust}
    ids: list[list[int]] = _apart(asked)
    return ids


def _apart(asked: Json) -> Any:
    command = [sys.executable, "-m", "moebench.prompts.token_ids"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{asked['folder']}: no token ids: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
    return json.loads(done.stdout)


def main() -> None:
    """Answer one request: JSON on standard input and output.  A failure is one line on standard error."""
    asked = json.load(sys.stdin)
    folder, corpus, trust = Path(asked["folder"]), asked["corpus"], asked["trust"]
    try:
        if "count" in asked:
            texts = corpora.items(corpus)[: asked["count"]]
            ids: Any = text_prompts.items(folder, texts, asked["most_tokens"], trust)
        else:
            ids = text_prompts.text_tokens(folder, corpus, trust)
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
    json.dump(ids, sys.stdout)


if __name__ == "__main__":
    main()
