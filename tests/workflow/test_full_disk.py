"""What comes before and after the measuring, on a disk that is really full: one line, exit code 3, nothing half done.

And tables that are cut off, as a crash of the machine may leave them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import fulldisk
import synthetic
from moebench.accuracy import fixtures
from moebench.commands import cli, data_sets
from moebench.config import Config
from moebench.errors import StorageError
from moebench.storage import disk, staged
from moebench.tables import parquet
from studies import ROOT

pytestmark = fulldisk.ROOT_ONLY

PLAN, TABLES, FIGURES = "results/plan/tiny.json", "results/tables/tiny", "reports/tiny/figures"
VERBS = {
    "collect": ["--plan", PLAN, "--results", "results", "--out", TABLES],
    "figures": ["--plan", PLAN, "--tables", TABLES, "--out", FIGURES],
    "report": ["--plan", PLAN, "--tables", TABLES, "--figures", FIGURES, "--out", "reports/tiny/report.html"],
    "archive": ["--plan", PLAN, "--results", "results", "--tables", TABLES, "--report", "reports/tiny",
                "--config", "config", "--out", "archive.zip"],
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A measured study with tables, figures, report and archive, on a small file system; it is the current folder."""
    before = Path.cwd()
    with fulldisk.mounted(tmp_path_factory.mktemp("small"), "6m") as root:
        os.chdir(root)
        plan = synthetic.Plan()
        plan.experiment("e", synthetic.figure("fig", "lines", "batch"))
        for batch in (1, 2, 4):
            work = {"batch": batch, "input_tokens": 16, "output_tokens": 8}
            plan.add("e", {"batch": batch}, work, model="olmoe-tiny")
        synthetic.measure(plan.data, root / "results", lambda _: {})
        plan.write(root / "results")
        (root / "config").mkdir()
        try:
            for verb in VERBS:
                assert run(verb) == 0
            yield root
        finally:
            os.chdir(before)


def run(verb: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, *VERBS[verb]])
    return ended.value.code


def contents(root: Path) -> dict[str, bytes]:
    files = (p for p in root.rglob("*") if p.is_file() and p.name != fulldisk.BALLAST)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize(
    ("verb", "room_bytes"),
    [("collect", 0), ("collect", 65536), ("figures", 8192), ("report", 16384), ("archive", 0), ("archive", 65536),
     ("archive", 300_000), ("archive", 1_200_000)],
)  # fmt: skip
def test_a_full_disk_is_one_line_and_the_old_files_stay(project, capsys, verb, room_bytes):
    """With a little room it fills up half way: between two tables, two figures, in the zip."""
    before = contents(project)
    capsys.readouterr()
    fulldisk.fill(project, room_bytes)
    try:
        code = run(verb)
    finally:
        fulldisk.free(project)
    *progress, line = capsys.readouterr().err.splitlines()
    assert not any(told.startswith("moebench") for told in progress), "one error, in the last line"
    assert code == 3 and line.startswith(f"moebench {verb}: {VERBS[verb][-1]}")
    assert "No space left on device" in line and "free space" in line
    assert contents(project) == before, "the same files, and nothing half written beside them"


def test_with_room_again_everything_is_made(project):
    assert [run(verb) for verb in VERBS] == [0] * len(VERBS)


def test_data_sets_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    with fulldisk.mounted(tmp_path / "data", "64k") as data:
        names = ["allenai/openbookqa", "cais/mmlu"]
        wanted = {str(data / n.replace("/", "--")): {"id": n, "source": "fixtures", "task": "x"} for n in names}
        monkeypatch.setattr(data_sets, "data_of", lambda plan: wanted)
        config = Config(ROOT / "config")
        with pytest.raises(StorageError, match=r"cais--mmlu: .*No space left") as error:
            data_sets.stage_data(config, {}, update=False, full=False)
        assert "\n" not in str(error.value) and os.listdir(data) == ["allenai--openbookqa"]
        assert staged.check(data / "allenai--openbookqa", full=True) == []
        subprocess.run(["mount", "-o", "remount,size=4m", data], check=True)
        assert "(1 written, 0 fetched, 1 already there)" in data_sets.stage_data(config, {}, update=False, full=False)
        assert not fixtures.write("cais/mmlu", data / "cais--mmlu"), "there already"


def test_which_disk_is_full(tmp_path):
    with fulldisk.mounted(tmp_path / "a", "64k") as small:
        (small / "logs").mkdir()
        assert disk.full([tmp_path, small / "logs", tmp_path / "none"]) == []
        fulldisk.fill(small)
        assert disk.full([tmp_path, small / "logs", small, tmp_path / "none"]) == [small / "logs"], "once"
        died, words = "the disk is full; the engine process ended", ["cannot write /x/y: No space left on device"]
        said = disk.explain(died, words, [tmp_path, small])
        assert f"disk is full at {small}; the engine process ended" in said
        fulldisk.free(small)  # as who fails removes its temporary files
        said = disk.explain("the disk is full", words, [small])
        assert f"disk is full at {small} ({words[0]})" in said
        assert f"disk is full ({words[0]})" in disk.explain("the disk is full", words, [])


@pytest.mark.parametrize("name", ["plan", "measurements", "samples", "claims"])
def test_a_truncated_table_is_one_line_and_made_anew(project, capsys, name):
    path = Path(TABLES) / f"{name}.parquet"
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError, match=f"{name}.parquet: .*damaged"):
            parquet.read(Path(TABLES), name)
    capsys.readouterr()
    if name != "samples":  # the report reads the others
        assert run("report") == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name}.parquet: " in line and "moebench report --partial" in line
    assert run("collect") == 0 and path.read_bytes() == whole
