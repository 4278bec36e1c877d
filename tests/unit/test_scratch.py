"""A job's folder on its node's disk: where it is made, what is in it, and that it is gone afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import UserError
from moebench.measure.driver import Driver
from moebench.storage import scratch

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
home:/x /home nfs4 rw,vers=4.2 0 0
tmpfs /tmp tmpfs rw,noexec,nosuid 0 0
fs@tcp:/w /scratch\\040one lustre rw 0 0
"""


@pytest.fixture
def base(monkeypatch):
    """A short folder that is asked for first."""
    for name in (scratch.LOCAL, "SLURM_TMPDIR", "TMPDIR", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        monkeypatch.setenv(scratch.LOCAL, folder)
        yield Path(folder)


@pytest.mark.parametrize(
    ("folder", "kind", "options"),
    [("/home/me", "nfs4", "vers=4.2"), ("/tmp", "tmpfs", "noexec"), ("/tmpfoo", "ext4", "relatime"),
     ("/scratch one/me", "lustre", "rw")],
)  # fmt: skip
def test_the_file_system_of_a_folder(tmp_path, folder, kind, options):
    (tmp_path / "mounts").write_text(MOUNTS)
    found = scratch.mount(Path(folder), tmp_path / "mounts")
    assert found[0] == kind and options in found[1]


def test_a_long_tmpdir_and_caches_on_a_network_are_passed_over(base, monkeypatch, tmp_path):
    long = base / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv(scratch.LOCAL, str(long))
    monkeypatch.setenv("SLURM_TMPDIR", "/nowhere")
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setattr(scratch, "mount", lambda folder: ("nfs4" if folder == base else "ext4", []))
    seen = {str(place.folder): place.problem for place in scratch.places()}
    assert seen[str(long)] == "its path is too long for sockets" and seen["/nowhere"] == "no such folder"
    assert seen[str(base)] == "on nfs4"
    assert scratch.choose().folder == Path("/tmp")
    monkeypatch.setattr(scratch, "mount", lambda folder: ("ext4", ["noexec"]))
    assert scratch.choose().folder == base, "better than nothing"
    monkeypatch.setattr(scratch, "_place", lambda folder: scratch.Place(folder, "not writable", False))
    with pytest.raises(UserError, match=r"export MOEBENCH_LOCAL=FOLDER"):
        scratch.choose()


def test_sockets_of_an_engine_fit_into_it(base):
    folder = scratch.make()
    assert folder.parent == base and len(str(folder)) <= scratch.LONGEST
    with socket.socket(socket.AF_UNIX) as made:  # vLLM's have a UUID for a name, Python's a folder too
        made.bind(f"{folder}/pymp-12345678/listener-12345678"[: len(str(folder)) + 1] + "u" * 57)
    assert folder.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("job", ["7", ""])
def test_under_slurm_everything_that_an_engine_keeps_goes_there(base, monkeypatch, tmp_path, job):
    monkeypatch.delenv(scratch.LOCAL)
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setenv("TRITON_CACHE_DIR", "/home/me/.triton")
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    block = {"fix": {"model": "tiny-mixtral", "input_tokens": 4, "output_tokens": 4, "batch": 1}}
    plan = make_plan(Config(studies.folder(tmp_path, {"one": [block]})), "test")
    driver = Driver(plan, tmp_path, tmp_path / "log", print)
    (spec,) = plan["engines"].values()
    variables = driver.environment(spec)
    if not job:
        assert (variables["TMPDIR"], variables["TRITON_CACHE_DIR"]) == (str(base), "/home/me/.triton")
        return
    assert driver.local is not None and driver.local.parent == base and driver.local in driver.written()
    assert variables["TMPDIR"] == str(driver.local)
    assert all(variables[name].startswith(f"{driver.local}/") for name in scratch.CACHES)


def test_it_is_gone_when_the_job_is(base):
    code = "from moebench.storage import scratch; print(scratch.make()); raise KeyboardInterrupt"
    env = os.environ | {"PYTHONPATH": str(studies.ROOT / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.startswith(str(base)) and list(base.iterdir()) == []
