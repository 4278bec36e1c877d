"""The texts for prompts: the standard library's prose, a file that is staged by hand, or a staged table of questions
with images (``config/corpora``).

All prompt code gets its text here, so that a corpus is named, pinned by its checksum and read in one way.  Standard
library only: the measurement side reads it too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from moebench.formats import Knobs
from moebench.formats.plan import CorpusDict, DataSet
from moebench.prompts import image_table, prose
from moebench.storage import staged

PROSE = "prose"
"""Name of the corpus that needs no file (:mod:`moebench.prompts.prose`)."""


def items(spec: CorpusDict | None) -> list[str]:
    """The texts of a corpus in order, without empty ones; ``None``: the paragraphs of the prose.

    Raises ValueError, naming file and line, for a JSON line or row without text; OSError if it cannot be read.
    """
    if spec is None:
        return prose.corpus().split("\n\n")
    if table := spec.get("table"):
        return [text for text, _ in _questions(table, spec["field"])]
    path = _file(spec)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        found = text.replace("\r", "").split("\n\n")
    else:
        found = [_field(line, spec, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    return [item.strip() for item in found if item.strip()]


def pictures(spec: CorpusDict | None) -> list[Path]:
    """The image of each text of a corpus, in their order; none of a corpus of text.  Raises as ``items``."""
    table = spec and spec.get("table")
    return [image for _, image in _questions(table, spec["field"])] if spec and table else []


def _file(spec: CorpusDict) -> Path:
    assert spec["file"] is not None  # a corpus has a file, or else a table
    return Path(spec["file"])


def _questions(table: DataSet, field: str) -> Iterator[tuple[str, Path]]:
    return image_table.questions(Path(table["path"]), table["id"], field)


def _field(line: str, spec: CorpusDict, number: int) -> str:
    try:
        value = json.loads(line)[spec["field"]]
    except (ValueError, KeyError, TypeError):
        value = None
    if not isinstance(value, str):
        raise ValueError(f"{spec['file']}, line {number}: no JSON object with the text {spec['field']!r}")
    return value


def identity(spec: CorpusDict) -> Knobs:
    """What can change a result: a corpus's content and the part that is read, not its name or path."""
    if table := spec.get("table"):
        return {"table": table["id"], "revision": table["revision"], "field": spec["field"]}
    return {"sha256": spec["sha256"], "format": _file(spec).suffix, "field": spec["field"]}


def sha256(spec: CorpusDict) -> str:
    """SHA-256 of the file or table of a checked corpus."""
    table = spec.get("table")
    if not table:
        return str(spec["sha256"])
    manifest = staged.read_manifest(Path(table["path"]))
    assert manifest is not None
    return str(manifest["files"][f"{table['id']}.tsv"]["sha256"])


def check(spec: CorpusDict) -> str | None:
    """The problem with the file or table of a corpus and its remedy, in one line; None if it matches the pinned one."""
    if table := spec.get("table"):
        return _check_table(spec, table["path"])
    path, where = _file(spec), f"config/corpora/{spec['name']}.yaml"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path}: the text of corpus {spec['name']} cannot be read ({error.strerror}); put it there, see {where}"
    if spec["sha256"] is None:
        return f"{where}: sha256 is missing; {path} has {found}: add it there, so that records say what they read"
    if found != spec["sha256"]:
        return f"{path}: SHA-256 is {found}, {where} says {spec['sha256']}; fix whichever is wrong"
    try:
        return None if items(spec) else f"{path}: contains no text; put the texts of corpus {spec['name']} there"
    except ValueError as error:
        return f"{error}; fix it, or set field in {where}"


def _check_table(spec: CorpusDict, folder: str) -> str | None:
    """Like ``check``; compares every byte of the table and images with the staged ones."""
    if problems := staged.check(Path(folder), full=True):
        return f"{problems[0]}; download corpus {spec['name']} with `moebench stage`"
    try:
        return None if items(spec) else f"{folder}: corpus {spec['name']} has no question with an image"
    except (ValueError, OSError) as error:
        return f"{error}; fix config/corpora/{spec['name']}.yaml, or delete {folder} and stage it again"
