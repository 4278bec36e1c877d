"""Figures drawn by processes beside each other: the same bytes; one that is killed, or cannot write."""

from __future__ import annotations

import os

import pytest

from moebench import figures
from moebench.errors import StorageError, UserError


def test_bytes_are_the_same_in_processes_beside_each_other(rich, tmp_path, monkeypatch):
    plan = rich[0] | {"experiments": {name: rich[0]["experiments"][name] for name in ("latency", "parallel")}}
    here = [path for name in ("parallel", "latency") for path in figures.render(plan, rich[2], tmp_path / "here", name)]
    monkeypatch.setattr(figures, "FEW", 0)
    monkeypatch.setattr(figures.machines, "compared", lambda plan: False)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    there = figures.render_all(plan, rich[2], tmp_path / "there")
    assert sorted(p.name for p in there) == sorted(p.name for p in here)
    for path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


def die(*given):
    os._exit(9)


def test_a_killed_process_that_drew_is_one_line_and_hangs_nothing(rich, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FEW", 0)
    monkeypatch.setattr(figures, "_start", die)
    with pytest.raises(UserError, match=r"process .*killed"):
        figures.render_all(rich[0], rich[2], tmp_path)


@pytest.mark.parametrize("few", [0, 100])
def test_figures_that_cannot_be_written_are_one_line(rich, tmp_path, monkeypatch, few):
    monkeypatch.setattr(figures, "FEW", few)
    (tmp_path / "file").write_text("")
    plan = rich[0] | {"experiments": {"latency": rich[0]["experiments"]["latency"]}}
    with pytest.raises(StorageError, match="file"):
        figures.render_all(plan, rich[2], tmp_path / "file")
