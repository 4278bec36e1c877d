"""One process with vLLM imported, for all tests of a pytest-xdist worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from project import ENGINE
from workflow.engine_copies import EngineCopies


@pytest.fixture(scope="session")
def copies() -> Iterator[EngineCopies]:
    """Runs scripts in the engine's environment."""
    made = EngineCopies(ENGINE)
    yield made
    made.close()
