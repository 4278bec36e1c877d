"""Some of the changes of ``fuzz_config.py``; the long way is `python tests/fuzz_config.py`."""

import pytest

import fuzz_config


@pytest.fixture(scope="module")
def given():
    return fuzz_config.files("tiny")


@pytest.mark.parametrize("first", range(0, 20, 10))
def test_a_changed_file_is_planned_or_refused_in_a_line_that_names_it(first, given, tmp_path):
    folder = fuzz_config.prepare(tmp_path / "config")
    for seed in range(first, first + 10):
        fuzz_config.case(seed, "tiny", folder, given)
