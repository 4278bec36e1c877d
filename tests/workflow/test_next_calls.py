"""What a user does after the first report: damaged records, one cell again, the archive, a mistake in a file.

The engine is a stand-in (tests/slurm/stand_in.py): what is looked at is what Snakemake, driver and tables do with its
records.  The real one is behind the same calls in test_pipeline.py and test_stage.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import studies
from moebench.measure import records
from moebench.tables import parquet
from project import copy, moebench, snakemake
from slurm.stand_in import copy_to
from workflow.measured import check_archive, good, measured_since, written


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One experiment of the tiny study, measured and reported in a fresh copy of the project."""
    place = copy(tmp_path_factory.mktemp("next") / "project")
    copy_to(place, True)
    models = studies.ROOT / "models"
    models.mkdir(exist_ok=True)
    (place / "models").symlink_to(models)
    file = place / "config/studies/tiny.yaml"
    study = yaml.safe_load(file.read_text())
    del study["reference"]
    study["jobs"]["measure_constants"] = False
    studies.write(file, study | {"experiments": ["fig05-topk-batch"]})
    snakemake(place)
    return place


def test_damaged_and_deleted_records_are_measured_again_and_nothing_else(project: Path) -> None:
    before = written(project)
    cut, gone, edited = good(project)[1::4]
    folder = project / "results/cells"
    whole = (folder / f"{cut}.json").read_bytes()
    (folder / f"{cut}.json").write_bytes(whole[: len(whole) // 2])
    (folder / f"{gone}.json").unlink()
    text = (folder / f"{edited}.json").read_text()
    (folder / f"{edited}.json").write_text(text.replace('"status":"ok"', '"status":"oom_kv"'))
    done = snakemake(project)
    assert "3 records changed or are gone" in done.stdout + done.stderr
    assert measured_since(project, before) == {cut, gone, edited}
    aside = {p.name.split(".json")[0] for p in (project / "results/set-aside").glob("*/*") if p.suffix != ".why"}
    assert aside == {cut.partition("/")[2], edited.partition("/")[2]}
    for key in (cut, gone, edited):
        assert records.load(folder / f"{key}.json")["status"] == "ok"
    assert "Nothing to do" in (again := snakemake(project)).stdout + again.stderr


def test_one_cell_by_its_path_and_the_tables_follow(project: Path) -> None:
    before = written(project)
    key = good(project)[5]
    table = project / "results/tables/tiny/measurements.parquet"
    stamp = table.stat().st_mtime_ns
    history = project / "results/history" / key.partition("/")[0]
    earlier = len(list(history.glob(f"{key.partition('/')[2]}.*")))
    snakemake(project, "--force", f"results/cells/{key}.json")
    assert measured_since(project, before) == {key}
    assert len(list(history.glob(f"{key.partition('/')[2]}.*"))) == earlier + 1, "the earlier record is kept"
    between = written(project)
    snakemake(project)
    assert measured_since(project, between) == set(), "the plain call measures nothing"
    assert table.stat().st_mtime_ns > stamp, "but refreshes the tables"
    frame = parquet.read(project / "results/tables/tiny", "measurements").set_index(["engine", "cell"])
    record = records.load(project / f"results/cells/{key}.json")
    assert frame.loc[tuple(key.split("/")), "started_at"] == record["started_at"]


def test_archive_holds_everything_and_renders_the_same_report(project: Path, tmp_path: Path) -> None:
    check_archive(project, tmp_path)


def test_misspelt_key_is_one_line_and_measures_nothing(project: Path) -> None:
    study, before = project / "config/studies/tiny.yaml", written(project)
    text = study.read_text()
    try:
        study.write_text(text.replace("protocol:", "protocoll:"))
        done = snakemake(project, code=1)
        said = done.stdout + done.stderr
        assert "config/studies/tiny.yaml: unknown key 'protocoll'; did you mean 'protocol'?" in said
        assert "Traceback" not in said and measured_since(project, before) == set()
        done = moebench(project, "plan", code=2)
        assert done.stderr.strip().splitlines() == [
            "moebench plan: config/studies/tiny.yaml: unknown key 'protocoll'; did you mean 'protocol'?"
        ]
    finally:
        study.write_text(text)
