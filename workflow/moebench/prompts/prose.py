"""English prose from the Python installation: prompts and tokenizer training text without a data set.

The text is the language reference shipped as help topics (``pydoc_data.topics``) and the docstrings of the standard
library's own modules.  It depends only on the Python version, not on installed packages; :func:`sha256` is recorded in
the provenance of its users.  Standard library only.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import os
import socket
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# Packages that some distributions leave out or patch, so that the corpus is the same with and without them.
_LEFT_OUT = {
    "antigravity",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "this",
    "tkinter",
    "turtle",
    "turtledemo",
    "venv",
}
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
"""Fields of a syntax tree that contain statements, in the order of ``ast.walk``."""
_CODE = (">>>", "::=", "|", "def ", "@", "{", "...")
_MIN_WORDS = 12
_MIN_LETTERS = 0.75


def _sources() -> Iterator[Path]:
    """Files of the standard library's public pure Python modules, in the order of their names."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        if name.startswith("_"):
            continue
        if (library / f"{name}.py").is_file():
            yield library / f"{name}.py"
        elif (library / name / "__init__.py").is_file():
            files = (library / name).rglob("*.py")
            yield from sorted(f for f in files if not {"test", "tests", "__pycache__"} & set(f.parts))


def _docstrings(source: str) -> Iterator[str]:
    """Docstrings of a module, its classes and functions, in the order of ``ast.walk``."""
    for node in _statements(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=True)
            if text:
                yield text


def _statements(module: ast.Module) -> Iterator[ast.AST]:
    """A module and its statements as ``ast.walk`` has them, without expressions, which are most of the tree."""
    nodes: list[ast.AST] = [module]
    for node in nodes:  # grows meanwhile
        for block in _BLOCKS:
            nodes += getattr(node, block, ())
        yield node


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs that are sentences: no grammar productions, tables, code or headings."""
    for block in text.replace("\r", "").split("\n\n"):
        if block.startswith("    ") or block.count("=") > 1 or any(mark in block for mark in _CODE):
            continue
        words = block.split()
        paragraph = " ".join(words)
        letters = sum(c.isalpha() or c == " " for c in paragraph)
        if len(words) >= _MIN_WORDS and letters >= _MIN_LETTERS * len(paragraph):
            yield paragraph


@functools.cache
def corpus() -> str:
    """The whole text: paragraphs separated by blank lines, each once, always in the same order.

    Parsing the library takes over a second, and a study needs the text in twenty processes: it is stored in the user's
    cache, and read from there while neither the library's files nor this module change.
    """
    try:
        return _stored()
    except (OSError, RuntimeError):  # a home that cannot be written to, or none
        return _collected()


def _stored() -> str:
    """The text from the user's cache, where it is written first if need be.  Raises OSError or RuntimeError."""
    files = [(str(path), (seen := path.stat()).st_size, seen.st_mtime_ns) for path in _sources()]
    version = [sys.version, hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), files]
    name = f"prose-{hashlib.sha256(repr(version).encode()).hexdigest()[:16]}"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moebench"
    with contextlib.suppress(FileNotFoundError, ValueError):
        seal, _, text = (folder / name).read_text(encoding="utf-8").partition("\n")
        if seal == hashlib.sha256(text.encode("utf-8")).hexdigest():
            return text
    text = _collected()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{name}.{socket.gethostname()}.{os.getpid()}.tmp"
    try:
        temporary.write_text(f"{hashlib.sha256(text.encode('utf-8')).hexdigest()}\n{text}", encoding="utf-8")
        temporary.replace(folder / name)
    except OSError:  # on a full disk, nothing half written stays
        temporary.unlink(missing_ok=True)
    return text


def _collected() -> str:
    topics = importlib.import_module("pydoc_data.topics").topics
    texts = [topics[name] for name in sorted(topics)]
    for path in _sources():
        texts += _docstrings(path.read_text(encoding="utf-8"))
    return "\n\n".join(dict.fromkeys(p for text in texts for p in _paragraphs(text)))


@functools.cache
def sha256() -> str:
    """SHA-256 of :func:`corpus`, for provenance."""
    return hashlib.sha256(corpus().encode("utf-8")).hexdigest()
