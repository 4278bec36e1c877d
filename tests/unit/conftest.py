"""What several files of unit tests share, made once in each of pytest's processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import synthetic


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Path]:
    """The study with every kind of figure, failure and gap, and its tables: plan, results folder, tables folder."""
    from moebench.claims import collect
    from moebench.plan.file import read_plan

    root = tmp_path_factory.mktemp("rich")
    path = synthetic.rich(root)
    collect.collect(path, root, root / "tables", results_name="results")
    return read_plan(path), root, root / "tables"
