"""Figures drawn by processes beside each other: the same bytes; one that is killed, or cannot write."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

import fulldisk
import studies
from moebench import figures
from moebench.claims.collect import collect
from moebench.commands.snakefile import computed_figures
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


def test_what_needs_no_measurement_is_drawn_from_the_plan_alone_in_the_same_bytes(tmp_path):
    whole = studies.planned("tiny")
    (tmp_path / "plan.json").write_text(json.dumps(whole))
    collect(tmp_path / "plan.json", tmp_path / "results", tmp_path / "tables")
    kept = ("fig01-parameters", "qs-inequality", "fig13-parallelism")
    plan = whole | {"experiments": {name: whole["experiments"][name] for name in kept}}
    every = figures.render_all(plan, tmp_path / "tables", tmp_path / "every")
    early = figures.render_computed(plan, tmp_path / "parts")
    late = figures.render_all(plan, tmp_path / "tables", tmp_path / "parts", computed=False)
    assert sorted(p.name for p in (*early, *late)) == sorted(p.name for p in every)
    assert {p.stem for p in early} == computed_figures(plan) and {"fig13", "residuals"} == {p.stem for p in late}
    for path in filter(Path.is_file, (tmp_path / "every").rglob("*")):
        assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "every")).read_bytes(), path.name


@fulldisk.ROOT_ONLY
def test_a_full_disk_for_temporary_files_is_one_line_that_names_it(tmp_path, monkeypatch):
    with fulldisk.mounted(tmp_path / "small", "64k") as small:
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        with pytest.raises(StorageError, match=f"{small}.*: cannot be written .*space"):
            figures.render_computed(studies.planned("tiny"), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


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
