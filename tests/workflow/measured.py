"""What is seen of the study ``tiny`` after it was measured in a copy of the project; any study may be called so."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from moebench.measure import records
from project import moebench, run, snakemake


def plan_of(place: Path) -> dict:
    return json.loads((place / "results/plan/tiny.json").read_text())


def statuses(place: Path) -> dict[str, str]:
    """Status of every cell."""
    return {key: records.load(place / "results/cells" / f"{key}.json")["status"] for key in plan_of(place)["cells"]}


def good(place: Path) -> list[str]:
    """Measured cells of the largest job, in alphabetical order."""
    plan, found = plan_of(place), statuses(place)
    job = max(plan["jobs"].values(), key=lambda job: job["cells"])
    return sorted(key for key in found if found[key] == "ok" and key.partition("/")[0] in job["engines"])


def written(place: Path) -> dict[str, int]:
    """Modification time of every record, by cell."""
    found = (place / "results/cells").glob("*/*.json")
    return {f"{p.parent.name}/{p.stem}": p.stat().st_mtime_ns for p in found}


def measured_since(place: Path, before: dict[str, int]) -> set[str]:
    return {key for key, when in written(place).items() if before.get(key) != when}


def check_archive(project: Path, tmp_path: Path) -> None:
    """Fail unless the archive of the study holds everything, whole, and renders the same report."""
    snakemake(project, "archive")
    archive = project / "reports/tiny/archive.zip"
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        assert file.testzip() is None
    assert all(not n.startswith("/") and ".." not in n for n in names)
    assert sum(bool(re.search(r"^results/cells/.*\.json$", n)) for n in names) == len(plan_of(project)["cells"])
    for wanted in ("report.html", "fig05.svg", "measurements.parquet", "vllm-cpu.lock", "ro-crate-metadata.json",
                   "SHA256SUMS", "tiny.yaml"):  # fmt: skip
        assert any(n.endswith(wanted) for n in names), wanted
    moebench(project, "report", "--from", str(archive), "--out", str(tmp_path / "again"))
    again = next((tmp_path / "again").rglob("report.html")).read_bytes()
    with zipfile.ZipFile(archive) as file:
        packed = file.read(next(n for n in names if n.endswith("report.html")))
    assert again == packed
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "whole")
    (sums,) = (tmp_path / "whole").rglob("SHA256SUMS")
    run(sums.parent, "sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS")
