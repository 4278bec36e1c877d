"""The text that a model is run on before it is pruned or quantized: a study's ``calibration``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from moebench.errors import StageError
from moebench.formats.model import CalibrationDict
from moebench.prompts import prose, text_prompts


def sequences(settings: CalibrationDict, folder: Path, vocab_size: int) -> list[list[int]]:
    """Token ids of the calibration sequences.  Raises StageError if the data is missing or too short."""
    try:
        corpus = _prose_tokens(folder) if settings["data"] == "text" else _file_tokens(settings, folder)
        return text_prompts.make(
            "text", corpus, vocab_size, settings["sequences"], settings["tokens"], settings["seed"]
        )
    except (OSError, ValueError) as error:
        words = str(error).replace("the prose corpus", f"calibration.data {settings['data']}")
        raise StageError(f"{words}; change calibration in the study") from None


_prose: dict[str, list[int]] = {}
"""The prose as token ids by tokenizer: models of one family share one."""


def _prose_tokens(folder: Path) -> list[int]:
    key = text_prompts.tokenizer_key(folder)
    if key not in _prose:
        _prose[key] = text_prompts.text_tokens(folder)
    return _prose[key]


def _file_tokens(settings: CalibrationDict, folder: Path) -> list[int]:
    from transformers import AutoTokenizer

    data = Path(settings["data"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != settings["sha256"]:
        raise ValueError(f"{settings['data']} changed after the plan was built")
    text = data.decode()
    if settings["data"].endswith(".jsonl"):
        try:
            text = "\n\n".join(json.loads(line)["text"] for line in text.splitlines() if line.strip())
        except (KeyError, TypeError) as error:
            raise ValueError(f"{settings['data']}: a line without a 'text' ({error})") from None
    return list(
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False)(text, add_special_tokens=False)["input_ids"]
    )


def source(settings: CalibrationDict) -> CalibrationDict:
    """The source of the calibration text, for the record."""
    return settings | {"sha256": prose.sha256()} if settings["data"] == "text" else settings
