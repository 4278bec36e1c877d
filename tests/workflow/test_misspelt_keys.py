"""A misspelt key of a plan, record or manifest is an error that `make lint` finds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from studies import ROOT

READS = """
from moebench.formats.manifest import Manifest
from moebench.formats.plan import Plan
from moebench.formats.record import Record

def read(plan: Plan, record: Record, manifest: Manifest) -> None:
    plan["cels"]
    plan["engines"]["e"]["config"]["quantisation"]
    plan["cells"]["e/c"]["workload"]["batch_size"]
    record["mesurements"]
    record["repeats"][0]["step_ends_s"]
    manifest["record"]
    plan["cells"], record["repeats"][0]["step_end_s"], manifest["records"]
"""


def test_mypy_finds_a_misspelt_key(tmp_path: Path) -> None:
    snippet = tmp_path / "reads.py"
    snippet.write_text(READS)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", f"--cache-dir={tmp_path}", str(snippet)],
        env={**os.environ, "MYPYPATH": str(ROOT / "workflow")},
        capture_output=True,
        text=True,
    )
    found = re.findall(r'TypedDict "(\w+)" has no key "(\w+)"', done.stdout)
    assert found == [
        ("Plan", "cels"),
        ("EngineKnobsDict", "quantisation"),
        ("Workload", "batch_size"),
        ("Record", "mesurements"),
        ("Run", "step_ends_s"),
        ("Manifest", "record"),
    ], done.stdout + done.stderr
    assert "Found 6 errors in 1 file" in done.stdout
