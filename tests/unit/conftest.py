"""Unit tests make hundreds of nearly equal configuration folders: they share files, and what is read from them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import studies
from moebench.config import loading


@pytest.fixture(scope="package", autouse=True)
def shared_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Link new configuration folders to shared copies, and parse each text once.

    Only here: other tests pack, move and mount their folders.
    """
    parsed: dict[str, bytes] = {}
    read_yaml = loading.read_yaml

    def read(path: Path) -> Any:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return read_yaml(path)  # says what is wrong
        if text not in parsed:
            parsed[text] = pickle.dumps(read_yaml(path))
        return pickle.loads(parsed[text])

    studies.LINKS[:] = [tmp_path_factory.mktemp("copies")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "read_yaml", read)
        yield
    studies.LINKS.clear()
