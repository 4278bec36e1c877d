"""Measuring this machine, for real: a few seconds of triads and matrix products."""

from __future__ import annotations

import json
import sys

import pytest

from moebench.commands.cli import main
from moebench.measure import constants
from project import ENGINE, ROOT


@pytest.mark.skipif(not ENGINE.exists(), reason="the engine's environment is not built")
def test_the_verb_measures_this_machine(tmp_path, capsys, monkeypatch):
    """The real thing, a few seconds: plausible, ordered, kept with all its runs."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        main(["calibrate", "--results", str(tmp_path), "--threads", "1"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    (path,) = (tmp_path / "machines").iterdir()
    made = constants.load(path)
    assert str(path) in said and made["threads"] == 1 and made["versions"]["torch"] and sys.platform == "linux"
    assert [t["bytes"] for t in made["triad"]] == sorted(t["bytes"] for t in made["triad"])
    assert all(1e8 < t["bytes_per_s"] < 1e13 for t in made["triad"])
    assert all(
        found["flops_per_s"] == 2 * found["side"] ** 3 / min(found["runs_s"]) for found in made["products"].values()
    )
    assert {"bfloat16", "float16", "float32", "int8"} <= set(made["products"])
    assert json.loads(path.read_text())["sha256"]
