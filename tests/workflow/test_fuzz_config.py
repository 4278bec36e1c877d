"""Some of the changes of ``fuzz_config.py``; the long way is `make test-all`, or `python tests/fuzz_config.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

import fuzz_config

QUICK, LONG = 15, 500


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """What the study reads."""
    return fuzz_config.files("tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration to change; each change is undone."""
    return fuzz_config.prepare(tmp_path_factory.mktemp("fuzz") / "config")


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.nightly) for n in range(20, 200, 20))])
def test_a_changed_file_is_planned_or_refused_in_a_line_that_names_it(
    first: int, files: list[Path], folder: Path
) -> None:
    for seed in range(first, first + 20):
        fuzz_config.case(seed, "tiny", folder, files)


@pytest.mark.parametrize("examples", [QUICK, pytest.param(LONG, marks=pytest.mark.nightly)])
def test_so_is_whatever_a_schema_allows(examples: int, files: list[Path], folder: Path) -> None:
    contents = {folder / path.parent.name / path.name: yaml.safe_load(path.read_bytes()) for path in files}
    slow = settings(max_examples=examples, deadline=None, derandomize=True, database=None,
                    suppress_health_check=list(HealthCheck))  # fmt: skip

    @slow
    @given(fuzz_config.allowed(contents))
    def one(changed: tuple[Path, Any, str]) -> None:
        path, tree, change = changed
        fuzz_config.tried("tiny", folder, path, tree, f"{path.relative_to(folder)} {change}")

    one()
