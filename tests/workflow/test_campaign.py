"""A campaign end to end: packed here, run elsewhere by another environment, cut off, resumed, imported, drawn.

Elsewhere is an empty folder and the Python of the environment ``quantize-cpu``, whose transformers is another version
than the study's.  It sees nothing of this checkout.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import studies
from moebench.campaign import bring_home, parcels
from moebench.commands import campaign as verbs
from moebench.commands import cli
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import UserError
from moebench.figures.caption import WEIGHTS
from moebench.measure import records
from moebench.tables import parquet
from project import HANG_S, QUANTIZE

ENGINE = {"name": "transformers", "version": "5.19.0", "environment": "vllm-cpu"}
FIGURE = {"id": "asked", "number": "1", "title": "Throughput", "kind": "lines", "x": "batch", "panel": "model_title",
          "y": ["throughput_total_tokens_per_s"]}  # fmt: skip
BLOCKS = [
    {"fix": {"model": "tiny-olmoe", "input_tokens": 8, "output_tokens": 8}, "cross": {"batch": [1, 2, 4]}},
    {"fix": {"model": "tiny-mixtral", "input_tokens": 8, "batch": 2}, "cross": {"output_tokens": [4, 8]}},
]
NO_PYDANTIC = "import sys\nsys.modules['pydantic'] = sys.modules['snakemake'] = None\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A configuration whose models are staged nowhere, and the campaign packed from it, unpacked in an empty folder."""
    folder = tmp_path_factory.mktemp("campaign")
    asked = {"asked": {"blocks": BLOCKS, "figures": [FIGURE]}}
    defaults = studies.TINY | {"weights": "dummy"}
    config = Config(studies.folder(folder, asked, folder / "models", engine=ENGINE, defaults=defaults))
    verbs.pack(config, ["test"], folder / "campaign.tar.gz")
    with tarfile.open(folder / "campaign.tar.gz") as packed:
        packed.extractall(folder / "there", filter="data")
    return config, folder


def start(folder, *more, minutes=20.0):
    """``sh run.sh`` in a shell that knows nothing of the project; it becomes the Python that measures."""
    site = folder / "blocked"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(NO_PYDANTIC)
    clean = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LANG")}
    clean |= {"PYTHON": str(QUANTIZE), "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["sh", "campaign/run.sh", "--minutes", str(minutes), *more]
    return subprocess.Popen(command, cwd=folder / "there", env=clean, stderr=subprocess.PIPE, text=True)


def finished(running):
    said = running.communicate(timeout=HANG_S)[1]
    return running.returncode, said


def there(folder):
    """The records there, by path."""
    cells = folder / "there/campaign/results/cells"
    return {path.relative_to(cells): path.read_bytes() for path in cells.glob("*/*.json")}


def wait_for(folder, count, running):
    """Wait until so many cells have a record; the records."""
    deadline = time.monotonic() + HANG_S
    while len(found := there(folder)) < count:
        assert running.poll() is None and time.monotonic() < deadline, finished(running)
        time.sleep(0.02)
    return found


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True).stdout
    return [int(child) for child in found.split()]


def gone(pid):
    """Whether a process ends within five minutes."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not QUANTIZE.exists(), reason="the environment quantize-cpu is not built")
def test_packed_cut_off_resumed_imported_and_drawn(home, tmp_path, capsys):
    config, folder = home

    code, said = finished(start(folder, minutes=0.5))  # a load that cannot be finished is not started
    assert code == 1 and "not started" in said and "loading" not in said and not there(folder), said

    running = start(folder)
    first = wait_for(folder, 1, running)
    workers = children(running.pid)
    running.kill()  # SIGKILL: nothing can be cleaned up
    assert finished(running)[0] == -signal.SIGKILL and workers and all(map(gone, workers)), "no engine is left behind"

    running = start(folder)
    second = wait_for(folder, len(there(folder)) + 1, running)
    running.terminate()
    code, said = finished(running)
    assert code == 130 and "interrupted SIGTERM" in said and "bring home: out/results-01.zip" in said, said
    (part,) = (folder / "there/campaign/out").glob("*.zip")
    assert len(parcels.read(part).records) == len(there(folder)) >= len(second) > len(first)

    code, said = finished(start(folder))
    last = there(folder)
    assert code == 0 and "study test: 5 of 5 cells measured" in said and len(last) == 5, said
    assert {p: last[p] for p in second} == second, "what was measured is not measured again"

    fresh = tmp_path / "fresh"  # the machine was given back: another one goes on from the files
    with tarfile.open(folder / "campaign.tar.gz") as packed:
        packed.extractall(fresh / "there", filter="data")
    code, said = finished(start(fresh, "--earlier", str(part)))
    assert code == 0 and "5 records of an earlier run" in said and "loading" not in said, said

    with pytest.raises(SystemExit) as end:
        cli.main(
            ["campaign", "import", str(part), "--config", str(config.folder), "--results", str(tmp_path), "--name", "m"]
        )
    installed = json.loads(next(iter(last.values())))["provenance"]["versions"]["transformers"]
    said = capsys.readouterr().out
    assert end.value.code == 0 and "5 new records" in said and f"transformers {installed} on " in said
    assert installed != ENGINE["version"], "the environment has the version of the study: choose another one"
    results = tmp_path / "imported/m"
    plan = make_plan(config, "test")
    for key in plan["cells"]:
        path = records.cell_path(results, *key.split("/"))
        assert path.read_bytes() == last[path.relative_to(results / "cells")], "the very record"
    made = [records.load(path) for path in sorted((results / "cells").glob("*/*.json"))]
    assert {(r["status"], r["engine_version"]["version"]) for r in made} == {("ok", installed)}
    lock = (QUANTIZE.parents[1] / ".lock-sha256").read_text().strip()
    assert {r["provenance"]["lock_sha256"] for r in made} <= {None, lock}, "never the lock of the planned environment"
    assert all(r["provenance"]["campaign"]["model_files"].startswith("config.json from the registry") for r in made)
    assert sum(r["derived_from"] is not None for r in made) == 1, "a shorter output is cut from the longer run"
    frame = parquet.read(results / "tables/test", "measurements")
    assert set(frame["weights"]) == {"dummy"}
    assert list((results / "canary").glob("*.json")), "canary runs outlive what they were made in"

    given = ["--config", str(config.folder), "--results", str(results), "--reports", str(tmp_path / "reports")]
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "--partial", *given])
    page, said = (tmp_path / "reports/test/report.html").read_text(), WEIGHTS["dummy"].removeprefix("d")
    assert end.value.code == 0 and f"{said}, transformers {installed} on" in page
    (caption,) = (path.read_text() for path in (tmp_path / "reports/test/captions").glob("asked*"))
    assert "dummy weights" in caption and "not measured" not in caption


def test_an_engine_that_is_not_there_is_said(home, tmp_path):
    _, folder = home
    with tarfile.open(folder / "campaign.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    done = subprocess.run(
        ["sh", str(tmp_path / "campaign/run.sh"), "--minutes", "9", "--out", str(tmp_path / "out")],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 1 and "transformers cannot be imported by" in done.stderr, done.stderr
    with pytest.raises(UserError, match="nothing was measured"):
        bring_home.take(list((tmp_path / "out").glob("*.zip")), {"test": {}}, tmp_path)
