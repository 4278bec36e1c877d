"""The wheel in an empty environment: what a co-author has, without a checkout, Snakemake or an engine.

Linux only stands for macOS here: what Python has on Linux alone is taken away from the commands.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import archived
import moebench
from moebench.commands.planning import make_plan
from moebench.config import Config
from project import ROOT

NOT_ON_MACOS = """
import os, signal, sys
for module, names in (
    (os, "sched_getaffinity sched_setaffinity posix_fadvise posix_fallocate memfd_create pidfd_open eventfd pipe2"),
    (signal, "SIGRTMIN SIGRTMAX sigtimedwait sigwaitinfo pidfd_send_signal"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "not on macOS", arguments[0])
    if event == "ctypes.dlsym" and arguments[1] == "prctl":
        raise AttributeError("prctl is not on macOS")

sys.addaudithook(refuse)
"""
"""A ``sitecustomize`` of the environment, which every Python in it runs first."""


class Laptop:
    """An empty environment with the wheel, and an empty folder as the current one."""

    def __init__(self, root: Path):
        self.home, self.env = root / "home", root / "env"
        builder = runpy.run_path(str(ROOT / "envs" / "build.py"))
        for index in builder["pip_option"]("index-url"):
            os.environ.setdefault("UV_DEFAULT_INDEX", index)
        uv, lock = builder["uv_command"](), ROOT / "envs" / "workflow.lock"
        self.uv, self.lock = uv, lock
        builder["run"](uv, "build", "--wheel", "--out-dir", root, ROOT)
        builder["run"](uv, "venv", "--no-project", "--python", sys.executable, self.env)
        (self.wheel,) = root.glob("*.whl")
        # The locked versions: those that made the archive, and within pyproject's ranges, or this fails.
        builder["run"](uv, "pip", "install", "--python", self.env, "--constraint", lock, self.wheel)
        (site,) = self.env.glob("lib/python*/site-packages")
        (site / "sitecustomize.py").write_text(NOT_ON_MACOS)
        self.home.mkdir()

    def run(self, command: str, *arguments: str, code: int = 0) -> str:
        """What a command of the environment prints (to standard error, where it should fail)."""
        variables = {"HOME": str(self.home), "PATH": f"{self.env / 'bin'}:/usr/bin:/bin", "MPLBACKEND": "agg"}
        done = subprocess.run(
            [self.env / "bin" / command, *arguments], cwd=self.home, env=variables, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return done.stderr if code == 2 else done.stdout


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    return Laptop(tmp_path_factory.mktemp("laptop"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The archive of a small study."""
    root, before = tmp_path_factory.mktemp("study"), Path.cwd()
    os.chdir(root)
    try:
        archived.make(root)
        return archived.pack(root)
    finally:
        os.chdir(before)


def test_the_environment_has_nothing_of_a_checkout_an_engine_or_linux(laptop):
    assert laptop.run("moebench", "--version").strip() == moebench.__version__
    assert laptop.wheel.name == f"moebench-{moebench.__version__}-py3-none-any.whl"
    about = "from importlib.metadata import *; import json; print(json.dumps([d.name for d in distributions()]))"
    there = set(json.loads(laptop.run("python", "-c", about)))
    assert "moebench" in there and not there & {"snakemake", "torch", "vllm", "transformers", "pip"}
    assert laptop.run("python", "-c", "from moebench.storage import project; print(project.INSTALLED)") == "True\n"
    read = "try: open('/proc/stat')\nexcept OSError as error: print(error)"
    assert "not on macOS" in laptop.run("python", "-c", read)


@pytest.mark.parametrize("platform", ["aarch64-apple-darwin", "x86_64-apple-darwin", "aarch64-unknown-linux-gnu"])
def test_every_dependency_has_a_wheel_for_other_platforms(laptop, platform):
    """In the locked version: nothing is compiled on a co-author's laptop."""
    wheels = ("--only-binary", ":all:", "--python-version", "3.11", "--python-platform", platform)
    command = [laptop.uv, "pip", "compile", "--quiet", "--no-annotate", *wheels, "--constraint", laptop.lock]
    done = subprocess.run([*command, ROOT / "pyproject.toml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"numpy", "pandas", "pyarrow", "matplotlib"} <= set(re.findall(r"^([a-z0-9-]+)==", done.stdout, re.M))


def test_the_plan_is_the_checkouts(laptop):
    made = make_plan(Config(ROOT / "config"), "tiny")
    assert laptop.run("moebench", "plan", "--study", "tiny", "--json") == json.dumps(made, indent=1) + "\n"


def test_models_and_machines_are_known(laptop):
    made = json.loads(laptop.run("moebench", "qs", "mixtral-8x7b", "--hardware", "h100-sxm5-80gb", "--json"))
    assert made["point"]
    said = laptop.run("moebench", "qs", "mixtral-8x7", "--hardware", "h100-sxm5-80gb", code=2)
    assert said == "moebench qs: MODEL: unknown model 'mixtral-8x7'; did you mean 'mixtral-8x7b'?\n"


def test_an_archive_is_verified_and_its_report_made_again(laptop, archive):
    said = laptop.run("moebench", "verify", str(archive))
    assert said.endswith("report rebuilt from the records: identical to the one in the archive\n")
    said = laptop.run("moebench", "report", "--from", str(archive), "--out", "again")
    assert said == "again/reports/tiny/report.html: identical to the one in the archive\n"
    claims = laptop.run("moebench", "claims", "--study", "tiny", "--results", "again/results")
    assert "study tiny: 0 claims" in claims
    assert "2 same" in laptop.run("moebench", "compare", str(archive), "again/results")


def test_what_needs_a_checkout_says_so(laptop):
    for verb in (["stage"], ["doctor"], ["schema", "--check"]):
        said = laptop.run("moebench", *verb, code=2)
        assert said.endswith("; run this in the project's folder, or give --config FOLDER\n")
        assert said.count("\n") == 1


def test_dependencies_are_those_of_the_workflow_without_snakemake():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = re.compile(r"^[\w.-]+", re.M)
    locked = set(name.findall((ROOT / "envs" / "workflow.in").read_text()))
    assert {name.match(line)[0] for line in project["dependencies"]} == {
        package for package in locked if not package.startswith("snakemake")
    }


def test_the_version_is_in_one_place():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1]
    assert cited == moebench.__version__
