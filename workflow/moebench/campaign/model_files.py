"""The small files of a model that a campaign carries: its configuration and tokenizer, never full-size weights.

A staged model gives its own files.  Where none is staged (a campaign may be packed without internet), an engine
configuration with dummy weights takes ``config.json`` as the registry spells the architecture, and a stand-in tokenizer
whose tokens are words; every record says so (``provenance.campaign.model_files``).
"""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections import Counter
from pathlib import Path

from moebench.architectures.hf_config import to_hf_config
from moebench.errors import StageError
from moebench.formats import Json
from moebench.formats.model import ModelDict
from moebench.formats.plan import Plan
from moebench.models.derive import how_to_make
from moebench.prompts import prose
from moebench.storage import staged

MOST_WEIGHT_BYTES = 64 * 2**20
"""Weights that are carried: those of small random models."""
_UNKNOWN = "[UNK]"


def put(model: ModelDict, source: Path, folder: Path, plan: Plan) -> bool:
    """Put the files of a model of a plan into ``folder``; return whether they are stand-ins.

    ``source``: where it is staged, if it is.  Raises StageError if it is not and its weights are needed, or if they are
    too large to carry.
    """
    dummy = model["weights"] == "dummy"
    if problems := staged.check(source):
        if not dummy:
            raise StageError(f"{problems[0]}; {how_to_make(model, plan)}")
        try:
            config = to_hf_config(model["architecture"])
        except ValueError as error:
            raise StageError(f"{problems[0]}, and {error}; {how_to_make(model, plan)}") from None
        _stand_in(model, config, folder)
        return True
    manifest = staged.read_manifest(source)
    assert manifest is not None
    names = [name for name in manifest["files"] if not (dummy and name.endswith((".safetensors", ".bin")))]
    if sum(manifest["files"][name]["bytes"] for name in names) > MOST_WEIGHT_BYTES:
        raise StageError(f"{source}: too large to pack; give the study dummy weights (defaults: {{weights: dummy}})")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    staged.write_manifest(folder, manifest["source"], manifest["revision"])
    return False


def _stand_in(model: ModelDict, config: Json, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=1, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    words = json.dumps(word_tokenizer(model["architecture"]["vocab_size"]))
    (folder / "tokenizer.json").write_text(words + "\n", encoding="utf-8")
    staged.write_manifest(folder, "registry", model["revision"])


@functools.cache
def _words() -> list[str]:
    """The words of the prose, the most frequent first."""
    counted = Counter(re.findall(r"\w+|[^\w\s]+", prose.corpus()))
    return [word for word, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def word_tokenizer(vocab_size: int) -> Json:
    """``tokenizer.json`` of a tokenizer whose tokens are the words of the prose, the most frequent first."""
    vocabulary = {word: number for number, word in enumerate([_UNKNOWN, *_words()[: vocab_size - 1]])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": _UNKNOWN},
    }
