"""The whole grid, for nightly runs: the study ``tiny-full`` end to end, by the same commands as a user's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pages
from moebench.measure import records
from moebench.tables import parquet
from project import copy, snakemake
from workflow.test_pipeline import allowed

pytestmark = pytest.mark.nightly


def test_every_cell_of_the_whole_grid_has_a_result_and_every_figure_is_drawn(tmp_path: Path) -> None:
    place = copy(tmp_path / "project")
    snakemake(place, "--config", "study=tiny-full")
    plan = json.loads((place / "results/plan/tiny-full.json").read_text())
    assert len(plan["cells"]) > 300
    for key in plan["cells"]:
        record = records.load(place / "results/cells" / f"{key}.json")
        assert record["status"] in allowed(record["engine_config"]), (key, record["reason"])
        assert bool(record["evidence"]) == (record["status"] == "unsupported"), key
    assert 100_000 < (place / "reports/tiny-full/report.html").stat().st_size <= pages.BYTES_FULL
    for figure in (f["id"] for e in plan["experiments"].values() for f in e["figures"]):
        assert (place / f"reports/tiny-full/figures/{figure}.svg").stat().st_size > 500
    answers = parquet.read(place / "results/tables/tiny-full", "accuracy")
    mmlu = answers[(answers["task"] == "mmlu") & (answers["model"] == "tiny-mixtral")]
    assert mmlu["subtask"].str.startswith("mmlu_").sum() == 57 + 4, "subjects, and their four groups"
