"""Unit tests' configuration folders link to shared files instead of copying 85 each time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import studies


@pytest.fixture(scope="package", autouse=True)
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Only here: other tests pack, move and mount theirs."""
    studies.LINKS[:] = [tmp_path_factory.mktemp("copies")]
    yield
    studies.LINKS.clear()
