"""The prose corpus: the same in every process, English, enough of it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from moebench.prompts import prose

WORKFLOW = Path(__file__).parents[2] / "workflow"


def test_is_the_same_in_another_process_and_order_of_hashes():
    env = {**os.environ, "PYTHONPATH": str(WORKFLOW), "PYTHONHASHSEED": "12345"}
    code = "from moebench.prompts import prose; print(prose.sha256())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == prose.sha256()


def test_a_stored_text_is_read_unless_it_was_changed(tmp_path, monkeypatch):
    """The first call writes the text; a later one reads it, or collects it again if the file is damaged."""
    collected = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(prose, "_collected", lambda: collected.append(1) or "a b\n\nc ü")
    assert [prose.corpus.__wrapped__() for _ in range(2)] == ["a b\n\nc ü"] * 2
    assert len(collected) == 1
    (stored,) = (tmp_path / "moebench").iterdir()
    stored.write_text(stored.read_text(encoding="utf-8")[:-1], encoding="utf-8")
    assert [prose.corpus.__wrapped__() for _ in range(2)] == ["a b\n\nc ü"] * 2
    assert len(collected) == 2


def test_the_text_is_the_same_where_none_can_be_stored(tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    monkeypatch.setattr(prose, "_collected", lambda: "text")
    assert prose.corpus.__wrapped__() == "text"


def test_is_long_enough_for_the_largest_tiny_vocabulary_and_has_no_repeats():
    paragraphs = prose.corpus().split("\n\n")
    assert len(prose.corpus().split()) > 100_000
    assert len(set(paragraphs)) == len(paragraphs)


def test_is_prose():
    paragraphs = prose.corpus().split("\n\n")
    assert all(len(p.split()) >= 12 for p in paragraphs)
    assert not any(mark in prose.corpus() for mark in (">>>", "::=", "def "))
    words = prose.corpus().lower().split()
    assert words.count("the") / len(words) > 0.04  # of English prose every 20th word or so


def test_does_not_depend_on_installed_packages():
    assert not any("site-packages" in str(path) for path in prose._sources())
    names = {path.name for path in prose._sources()}
    assert {"argparse.py", "heapq.py"} <= names


NESTED = """
try:
    def a(): "x"
except E:
    def b(): "x"
else:
    def c(): "x"
finally:
    match v:
        case 1:
            def d(): "x"
with k:
    class F:
        "x"
        async def g(): return lambda: 1
"""


def test_docstrings_are_in_the_order_of_ast_walk():
    """The corpus and its hash depend on it."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(NESTED)
    found = [node for node in prose._statements(tree) if isinstance(node, documented)]
    assert len(found) == 7 and found == [node for node in ast.walk(tree) if isinstance(node, documented)]
