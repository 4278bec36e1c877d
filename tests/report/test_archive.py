"""The archive: everything inside, nothing of this machine, and the same report out of it again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import archived
import synthetic
from moebench import columns
from moebench.commands import cli
from moebench.errors import StorageError
from moebench.measure import records
from moebench.plan.file import read_plan
from moebench.report import archive as module
from moebench.report.archive import archive, rebuild
from moebench.tables import parquet


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The folder of a study with report and archive."""
    root = tmp_path_factory.mktemp("project")
    before = Path.cwd()
    os.chdir(root)
    try:
        archived.make(root)
        archived.pack(root)
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def here(project, tmp_path, monkeypatch):
    """A copy of the study to spoil, as the current folder."""
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_everything_is_inside_with_relative_paths_and_checksums(project):
    with zipfile.ZipFile(project / "archive.zip") as packed:
        names = packed.namelist()
        sums = dict(reversed(line.split("  ", 1)) for line in packed.read("SHA256SUMS").decode().splitlines())
        assert set(sums) == set(names) - {"SHA256SUMS"}
        assert all(hashlib.sha256(packed.read(n)).hexdigest() == s for n, s in sums.items())
        assert {i.date_time for i in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        contents = b"".join(packed.read(n) for n in names)
    assert names == sorted(names) and not [n for n in names if n.startswith("/") or ".." in n]
    assert str(project).encode() not in contents
    wanted = {
        "reports/tiny/report.html",
        "reports/tiny/figures/fig.svg",
        "reports/tiny/figures/fig.csv",
        "archive.json",
        "results/plan/tiny.json",
        "results/tables/tiny/samples.parquet",
        "config/studies/tiny.yaml",
        "envs/workflow.lock",
        "licenses/observable-plot.txt",
        "ro-crate-metadata.json",
    }
    assert wanted <= set(names)
    assert sum(n.startswith("results/cells/") for n in names) == 3


def test_crate_describes_the_files_that_are_there(project):
    with zipfile.ZipFile(project / "archive.zip") as packed:
        crate, names = json.loads(packed.read("ro-crate-metadata.json")), packed.namelist()
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    by_id = {e["@id"]: e for e in crate["@graph"]}
    tables = {i: e["name"] for i, e in by_id.items() if i.endswith(".parquet")}
    assert len(tables) == len(columns.TABLES) and all(name.startswith("Table: ") for name in tables.values())
    assert len(by_id) == len(crate["@graph"])
    descriptor, root = by_id["ro-crate-metadata.json"], by_id["./"]
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"} and descriptor["about"] == {"@id": "./"}
    assert root["@type"] == "Dataset" and root["datePublished"] == "2026-03-01" and root["name"] and root["description"]
    for part in root["hasPart"]:
        entity = by_id[part["@id"]]
        assert entity["@type"] == "Dataset" or entity["@id"] in names, part
        assert entity["@type"] == "File" or any(n.startswith(entity["@id"]) for n in names), part
    assert by_id["#run"]["result"]["@id"] in names and by_id["#run"]["object"]["@id"] in names


def test_the_same_study_gives_the_same_bytes(here):
    assert archived.pack(here, "again.zip").read_bytes() == (here / "archive.zip").read_bytes()
    assert not list(here.glob(".archive-*")) and not list(here.glob(".again*"))


def test_the_report_comes_out_again(project, tmp_path):
    again = rebuild(project / "archive.zip", tmp_path / "out")
    assert again.identical and str(again).endswith("report.html: identical to the one in the archive")
    assert again.report.read_bytes() == (project / "reports/tiny/report.html").read_bytes()


def test_derived_checkpoints_are_told_without_their_weights(project, tmp_path):
    page = rebuild(project / "archive.zip", tmp_path / "out").report.read_text()
    assert "25.0% of 8 experts is 2; 2 are removed" in page and "1,234.5" in page
    assert not (tmp_path / "out" / "models").exists()


def test_a_report_that_does_not_follow_is_said_to_differ(project, tmp_path, monkeypatch):
    monkeypatch.setattr(module.moebench, "__version__", "9.9")
    again = rebuild(project / "archive.zip", tmp_path / "out")
    assert not again.identical and again.same_numbers
    said = "differs from the one in the archive, but the numbers are the same; that one was built by moebench 0.1.0"
    assert said in str(again)


@pytest.mark.parametrize(("factor", "same"), [(1 + 1e-12, True), (1.001, False)])
def test_numbers_that_records_do_not_give_are_found_under_good_checksums(project, tmp_path, capsys, factor, same):
    """But not the last digits, which another processor may have."""
    made = rebuild(project / "archive.zip", tmp_path / "out")
    tables = tmp_path / "out/results/tables/tiny"
    with parquet.replacing(tables) as new:
        table = pq.read_table(tables / "measurements.parquet")
        where = table.column_names.index("e2e_s")
        changed = pc.multiply(table["e2e_s"], factor)
        table = table.set_column(where, table.schema.field(where), changed)
        parquet.write(new, "measurements", table.append_column("of_a_newer_version", changed))
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    names = {path.relative_to(tmp_path / "out").as_posix(): path for path in files}
    sums = "".join(f"{module._sha256(path)}  {name}\n" for name, path in names.items())
    (tmp_path / "out/SHA256SUMS").write_text(sums)
    module._zip(names | {"SHA256SUMS": tmp_path / "out/SHA256SUMS"}, tmp_path / "forged.zip")
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", str(tmp_path / "forged.zip")])
    said = capsys.readouterr().out
    assert made.same_numbers and end.value.code == (0 if same else 1)
    assert ("report rebuilt from the records: identical" if same else "AND SO DO THE NUMBERS") in said


def test_other_folders_work_too(here, tmp_path):
    """Results and reports elsewhere: the archive still has the usual layout and relative links."""
    shutil.move(here / "results", tmp_path / "scratch")
    shutil.move(here / "reports", tmp_path / "pages")
    packed = archive(
        tmp_path / "scratch/plan/tiny.json",
        tmp_path / "scratch",
        tmp_path / "scratch/tables/tiny",
        tmp_path / "pages/tiny",
        here / "config",
        here / "elsewhere.zip",
    )
    assert packed.read_bytes() == (here / "archive.zip").read_bytes()


def test_tables_that_records_do_not_give_are_refused(here):
    plan = read_plan(Path("results/plan/tiny.json"))
    cell = next(iter(plan["cells"].values()))
    records.store(Path("results"), synthetic.record(plan, cell["engine"], cell["cell"], step_s=0.5))
    with pytest.raises(StorageError, match=r"results/tables/tiny: .*changed since"):
        archived.pack(here, "new.zip")
    assert not (here / "new.zip").exists()


def test_a_report_that_tables_do_not_give_is_refused(here):
    page = here / "reports/tiny/report.html"
    page.write_text(page.read_text().replace("measured", "guessed"))
    with pytest.raises(StorageError, match=r"report.html: does not match the tables"):
        archived.pack(here, "new.zip")


def _rewrite(source: Path, target: Path, change) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            for n, data in change(name, old.read(name)):
                new.writestr(n, data)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d: [(n, d.replace(b'"ok"', b'"no"'))], "measurements|cells/.*: changed; its checksum differs"),
        (lambda n, d: [] if n.endswith("samples.parquet") else [(n, d)], "samples.parquet: missing"),
        (lambda n, d: [(n, d), ("../evil", b"")] if n == "archive.json" else [(n, d)], "a path outside the archive"),
        (lambda n, d: [] if n == "SHA256SUMS" else [(n, d)], "not an archive of moebench"),
        (
            lambda n, d: [(n, d.replace(b'"format": 1', b'"format": 2'))],
            "archive of format 2, this version reads up to 1",
        ),
    ],
)
def test_changed_archives_are_refused(project, tmp_path, change, message):
    spoilt = _rewrite(project / "archive.zip", tmp_path / "spoilt.zip", change)
    with pytest.raises(StorageError, match=message):
        rebuild(spoilt, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt.zip"], "nothing of it stays"


def test_other_mistakes_are_one_line(project, tmp_path):
    with pytest.raises(StorageError, match="not empty; give another folder with --out"):
        rebuild(project / "archive.zip", project)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(StorageError, match=r"text.zip: cannot be read"):
        rebuild(tmp_path / "text.zip", tmp_path / "out")
    with pytest.raises(StorageError, match=r"none.zip: no such archive"):
        rebuild(tmp_path / "none.zip", tmp_path / "out")


def test_an_archive_that_is_not_there_is_a_wrong_argument(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "--from", str(tmp_path / "none.zip"), "--out", str(tmp_path / "out")])
    said = f"--from {tmp_path}/none.zip: no such file; `snakemake archive` packs one"
    assert (end.value.code, capsys.readouterr().err) == (2, f"moebench report: {said}\n")
    assert not (tmp_path / "out").exists()


def test_verify_says_of_every_file_what_was_done_to_it(project, tmp_path, capsys):
    def change(name: str, content: bytes) -> list[tuple[str, bytes]]:
        if name == "archive.json":
            return [(name, content), ("results/cells/new.json", b"{}")]
        if name.endswith(("samples.parquet", "claims.parquet")):
            return []
        return [(name, content + b" ")] if name in ("LICENSE", "config/studies/tiny.yaml") else [(name, content)]

    spoilt = _rewrite(project / "archive.zip", tmp_path / "spoilt.zip", change)
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", str(spoilt)])
    said = capsys.readouterr().out.splitlines()
    assert end.value.code == 1 and said[0] == f"{spoilt}: 5 files not as packed:"
    assert sorted(line.strip() for line in said[1:]) == [
        "LICENSE: changed; its checksum differs",
        "config/studies/tiny.yaml: changed; its checksum differs",
        "results/cells/new.json: added; SHA256SUMS does not list it",
        "results/tables/tiny/claims.parquet: missing",
        "results/tables/tiny/samples.parquet: missing",
    ]
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", "--json", str(spoilt)])
    outcome = json.loads(capsys.readouterr().out)
    assert end.value.code == 1 and outcome["same_numbers"] is None
    assert sorted(outcome["altered"]) == sorted(line.strip() for line in said[1:])


def test_a_flipped_bit_names_its_file(project, tmp_path, capsys):
    with zipfile.ZipFile(project / "archive.zip") as packed:
        entry = packed.getinfo("results/tables/tiny/measurements.parquet")
    content = bytearray((project / "archive.zip").read_bytes())
    content[entry.header_offset + 200] ^= 1
    (tmp_path / "flipped.zip").write_bytes(content)
    with pytest.raises(SystemExit):
        cli.main(["verify", str(tmp_path / "flipped.zip")])
    said = capsys.readouterr().out
    assert "1 file not as packed:" in said and "measurements.parquet: damaged; it cannot be unpacked" in said


def test_who_waits_is_told_each_step(project, tmp_path):
    steps: list[str] = []
    rebuild(project / "archive.zip", tmp_path / "out", steps.append)
    beginnings = ("checking file 1 of ", "unpacking ", "tables from the records", "figures of ", "the report")
    firsts = [next(step for step in steps if step.startswith(words)) for words in beginnings]
    assert [steps.index(step) for step in firsts] == sorted(steps.index(step) for step in firsts)
    assert any(step.startswith("figures of 1 of ") for step in steps)
