"""Results imported from several machines, beside each other: compared, and in the report of the study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import campaigns
from moebench.campaign.pack import portable
from moebench.commands import campaign as verbs
from moebench.commands import cli
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.tables import parquet


def test_several_machines_stand_side_by_side(tmp_path, capsys):
    config = Config(campaigns.folder(tmp_path))
    plan = make_plan(config, "test", choose=lambda plan: portable(plan, 1))
    for name, step_s in (("one", 2e-3), ("two", 4e-3), ("three", 8e-3)):
        files = campaigns.parcel(plan, tmp_path / name, tmp_path / f"out-{name}", device=name, step_s=step_s)
        verbs.import_files(config, files, tmp_path / "results", name)
    folder = tmp_path / "results"
    every = [str(folder / "imported" / name) for name in ("one", "two", "three")]
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", *every, "--json"])
    assert end.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert [Path(one["b"]).name for one in found] == ["two", "three"]
    assert 1.5 < found[0]["together"]["ratio"] < 2 < found[1]["together"]["ratio"]
    given = ["--config", str(config.folder), "--results", str(folder), "--reports", str(tmp_path / "reports")]
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "--partial", *given])
    assert end.value.code == 0
    page = (tmp_path / "reports/test/report.html").read_text()
    table = parquet.read(folder / "tables/test", "imported")
    assert set(table["machine"]) == {"one", "two", "three"} and len(table) == 12
    section = page[page.index('id="imported"') :].partition("<section")[0]
    assert all(f'<th scope="row">{name}</th>' in section for name in ("one", "two", "three"))
    assert section.count("4 of 6") == 3 and "dummy weights" in section
