"""envs/build.py with other Pythons, with none, and when it is interrupted or cannot get what it needs."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import studies

BUILD = studies.ROOT / "envs" / "build.py"
VERSIONS = [f"3.{minor}" for minor in range(6, 15)]


def python_of(version):
    """An interpreter of a version, where a machine has one: on PATH, or one that a version manager has installed."""
    manager = studies.Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    places = [shutil.which(f"python{version}"), *map(str, manager.glob(f"versions/{version}.*/bin/python{version}"))]
    for place in filter(None, places):
        asked = subprocess.run([place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True)
        if asked.stdout.decode().strip() == version:
            return place
    return None


INTERPRETERS = {version: place for version in VERSIONS if (place := python_of(version))}
INTERPRETERS |= {"{}.{}".format(*sys.version_info): sys.executable}


def build(python, *arguments, **environment):
    env = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PYTHON"))}
    return subprocess.run([str(python), str(BUILD), *arguments], capture_output=True, text=True, env=env | environment)


@pytest.mark.parametrize("version", INTERPRETERS)
def test_every_python_from_3_9_on_runs_the_builder_and_older_ones_name_the_remedy(tmp_path, version):
    done = build(INTERPRETERS[version], "nonsense", PATH=str(tmp_path), MOEBENCH_ENVS=str(tmp_path))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    if int(version[2:]) < 9:
        assert f"is Python {version}" in done.stderr and "3.9" in done.stderr and "uv" in done.stderr
    else:
        assert "nonsense" in done.stderr and "workflow" in done.stderr


def fake_uv(folder, body):
    """A uv that is new enough, and does what ``body`` says."""
    folder.mkdir()
    uv = folder / "uv"
    uv.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "uv 99.0.0"; exit; fi\n{body}\n')
    uv.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("printed", "remedy"),
    [
        ("error: No interpreter found for Python 3.11", "UV_PYTHON_INSTALL_MIRROR"),
        ("Failed to fetch: PAGE\n  cause: dns error", "UV_DEFAULT_INDEX"),
        ("Failed to fetch: PAGE\n  cause: client error (Connect)\n  cause: invalid peer certificate: UnknownIssuer",
         "SSL_CERT_FILE"),
        ("error: Failed to initialize cache at `/home/me`\n  cause: Read-only file system", "UV_CACHE_DIR"),
        ("error: No solution found\n  hint: registry packages were unavailable because the network was disabled",
         "UV_OFFLINE"),
        ("Because decord==0.6.0 has no wheels with a matching platform tag", "x86-64"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_the_tools_last_lines_and_a_remedy(tmp_path, printed, remedy):
    path = fake_uv(tmp_path / "bin", f"echo '{printed}'; exit 2")
    done = build(sys.executable, "workflow", PATH=path, MOEBENCH_ENVS=str(tmp_path / "envs"))
    assert done.returncode == 1 and not (tmp_path / "envs/workflow").exists()
    assert "workflow" in done.stderr and printed.splitlines()[0] in done.stderr
    assert remedy in done.stderr.splitlines()[-1]


def test_the_time_left_is_that_of_the_locks_packages_and_of_downloads_nothing_is_claimed(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BUILD.parent))
    builder = importlib.import_module("build")
    assert builder.packages("dev") > builder.packages("quantize-cpu") > 20
    assert builder.time_left(0, 26.4) == "about 26 s left" and builder.time_left(20, 26.4) == "about 6 s left"
    assert "left" not in builder.time_left(30, 26.4)
    left = ["vlmeval"]
    monkeypatch.setattr(builder.time, "sleep", lambda seconds: left.clear())
    builder.show_bar(left, 3, time.monotonic(), 26.4)
    said = capsys.readouterr().out
    assert "2/3" in said and "about 26 s left" in said and "vlmeval" in said


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"])
def test_a_sites_certificates_and_options_of_pip(tmp_path, monkeypatch, name):
    for other in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
        monkeypatch.delenv(other, raising=False)
    path = fake_uv(tmp_path / "bin", f"env > {tmp_path}/seen; exit 2")
    elsewhere = {"PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1", "PIP_PREFIX": "/x", "UV_EXCLUDE_NEWER": "2020-01-01"}
    elsewhere["UV_CONSTRAINT"] = "/image/constraint.txt"
    build(
        sys.executable, "workflow", PATH=path, MOEBENCH_ENVS=str(tmp_path / "e"), **elsewhere, **{name: "/site/ca.pem"}
    )
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)
    assert seen["SSL_CERT_FILE"] == "/site/ca.pem", "the only one that uv reads"
    assert (seen["PIP_USER"], seen["PIP_REQUIRE_VIRTUALENV"]) == ("0", "0")
    assert not {"PIP_PREFIX", "UV_EXCLUDE_NEWER", "UV_CONSTRAINT"} & set(seen), (
        "packages go where the builder puts them"
    )


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy_and_without_a_traceback(tmp_path):
    (tmp_path / "file").touch()
    denied = tmp_path / "file" / "envs"
    done = build(sys.executable, "workflow", PATH=fake_uv(tmp_path / "bin", "exit 2"), MOEBENCH_ENVS=str(denied))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(denied) in done.stderr and "MOEBENCH_ENVS" in done.stderr.splitlines()[-1]


def test_an_interruption_leaves_no_environment_and_no_process(tmp_path):
    path = fake_uv(
        tmp_path / "bin", f'mkdir -p "{tmp_path}/envs/.workflow.new/bin"; echo $$ > {tmp_path}/pid; exec sleep 600'
    )
    started = subprocess.Popen(
        [sys.executable, str(BUILD), "workflow"],
        env=os.environ | {"PATH": path, "MOEBENCH_ENVS": str(tmp_path / "envs")},
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    assert started.wait() == 130 and not (tmp_path / "envs/workflow").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_make_without_a_python_goes_through_uv_and_without_both_says_so(tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "make"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    call = [shutil.which("make"), "-s", "-C", str(studies.ROOT), "envs"]
    env = {"PATH": str(tmp_path / "bin"), "MOEBENCH_ENVS": str(tmp_path / "envs")}
    done = subprocess.run(call, capture_output=True, text=True, env=env)
    assert done.returncode == 2 and "python3" in done.stderr and "uv" in done.stderr
    (tmp_path / "bin" / "uv").write_text('#!/bin/sh\necho "asked: $*"\n')
    (tmp_path / "bin" / "uv").chmod(0o755)
    done = subprocess.run(call, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "--python 3.11 python envs/build.py --study" in done.stdout, done
