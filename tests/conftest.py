"""The order of the test files: `make test` runs three at a time, and the long ones must not be left for the end.

And in CI nothing is skipped: what a test needs is there, or the test fails.  Ctrl-C works also where the tests
themselves were started in the background of a shell, which has its children ignore it.  ``rich`` is a study that the
tests of figures and of the report share.
"""

from __future__ import annotations

import gc
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import studies
import synthetic

LONGEST = (
    "test_tiny_full.py",
    "test_soak.py",
    "test_nodes.py",
    "test_pipeline.py",
    "test_slurm.py",
    "test_driver.py",
    "test_rates.py",
    "test_checkpoints.py",
    "test_telemetry_sidecar.py",
    "test_vlmeval_jobs.py",
    "test_accuracy_jobs.py",
    "test_quantize.py",
    "test_stage.py",
    "test_next_calls.py",
    "test_routing.py",
    "test_campaign.py",
)
"""Files of half a minute and more each, longest first."""


def pytest_configure() -> None:
    """Collect garbage seldom; have every process that a test starts be one that can be interrupted.

    And have tables as in a pipe, also where pytest-xdist gives its workers 80 columns.
    """
    os.environ.pop("COLUMNS", None)
    gc.set_threshold(100_000, 20, 20)  # at 700 objects, as by default, a sixth of the unit tests' time goes into it
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; then what starts engines, then the unit tests."""

    def rank(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.name
        return (LONGEST.index(name) if name in LONGEST else len(LONGEST)), item.path.parent.name == "unit"

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn a skip into a failure in CI."""
    report = yield
    if os.environ.get("CI", "").lower() == "true" and report.skipped and not hasattr(report, "wasxfail"):
        where, line, why = report.longrepr
        report.outcome, report.longrepr = "failed", f"{where}:{line}: {why}; in CI nothing is skipped"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line of JSON: seconds of tests by folder (unit, workflow, slurm, report), as `make bench` quotes them."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.split("/")[1]] += report.duration
    parts = {part: round(taken) for part, taken in sorted(seconds.items())}
    terminalreporter.write_line(f"seconds by part: {json.dumps(parts)}")


@pytest.fixture(scope="session", autouse=True)
def shared_plans(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have the workers of this run share the plans of the repository's studies."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        studies.SHARED[:] = [tmp_path_factory.getbasetemp().parent]


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Path]:
    """The study with every kind of figure, failure and gap, and its tables: plan, results folder, tables folder."""
    from moebench.claims import collect
    from moebench.plan.file import read_plan

    root = tmp_path_factory.mktemp("rich")
    path = synthetic.rich(root)
    collect.collect(path, root, root / "tables", results_name="results")
    return read_plan(path), root, root / "tables"
