"""Texts that prompts are made of: the standard library's prose, or a file that is staged by hand (``config/corpora``).

Everything that makes prompts asks here for its text, so that a corpus is named, pinned by its checksum and read in one
way.  Standard library only: the measurement side reads it too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from moebench import prose

PROSE = "prose"
"""Name of the corpus that needs no file (:mod:`moebench.prose`)."""

Spec = dict[str, Any]
"""A corpus of the plan: ``name``, ``title``, ``file``, ``field``, ``sha256`` (None: not pinned), ``reference``."""


def items(spec: Spec | None) -> list[str]:
    """The texts of a corpus in order, empty ones left out; ``None``: the paragraphs of the prose.

    Raises ValueError naming file and line of a JSON line without the text, OSError if it cannot be read.
    """
    if spec is None:
        return prose.corpus().split("\n\n")
    path = Path(spec["file"])
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        found = text.replace("\r", "").split("\n\n")
    else:
        found = [_field(line, spec, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    return [item.strip() for item in found if item.strip()]


def _field(line: str, spec: Spec, number: int) -> str:
    try:
        value = json.loads(line)[spec["field"]]
    except (ValueError, KeyError, TypeError):
        value = None
    if not isinstance(value, str):
        raise ValueError(f"{spec['file']}, line {number}: no JSON object with the text {spec['field']!r}")
    return value


def identity(spec: Spec) -> dict[str, Any]:
    """What of a corpus can change a number: its content and which part of it is read, not its name or place."""
    return {"sha256": spec["sha256"], "format": Path(spec["file"]).suffix, "field": spec["field"]}


def check(spec: Spec) -> str | None:
    """What is wrong with the file of a corpus, and what to do, in one line; None if it is the one that was pinned."""
    path, where = Path(spec["file"]), f"config/corpora/{spec['name']}.yaml"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path}: the text of corpus {spec['name']} cannot be read ({error.strerror}); put it there, see {where}"
    if spec["sha256"] is None:
        return f"{where}: sha256 is missing; {path} has {found}: write that there, so that records say what they read"
    if found != spec["sha256"]:
        return f"{path}: SHA-256 is {found}, {where} says {spec['sha256']}; mend the one that is wrong"
    try:
        return None if items(spec) else f"{path}: holds no text; put the texts of corpus {spec['name']} there"
    except ValueError as error:
        return f"{error}; mend it, or set field in {where}"
