"""What shells and file systems of sites do, each set up here as it is there: said with a remedy, or of no effect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import studies
from moebench.commands import site
from moebench.errors import UserError
from moebench.storage import scratch

LOOK = """
import json, sys
from pathlib import Path
from moebench.commands import site
print(json.dumps([[f.what, f.good, f.seen, f.todo] for f in site.look(Path(sys.argv[1]))]))
"""


def look(results: Path, before: str = "", **environment: str) -> list[list]:
    """Findings of a process in a shell that ran ``before``; those about the shell alone."""
    env = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "LD_PRELOAD")}
    env |= {"PYTHONPATH": str(studies.ROOT / "workflow")} | environment
    command = ["bash", "-c", f'{before}\nexec "$0" "$@"', sys.executable, "-c", LOOK, str(results)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert not done.returncode, done.stderr
    return [f for f in json.loads(done.stdout) if f[0] != "local folder"]


def test_a_plain_shell_is_one_line(tmp_path):
    ((what, good, _, todo),) = look(tmp_path)
    assert (what, good, todo) == ("shell", True, "")


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "nowhere.ISO-8859-1"])
def test_locales_in_which_python_reads_utf8(tmp_path, locale):
    ((_, good, _, _),) = look(tmp_path, LC_ALL=locale)
    assert good is True


def test_another_encoding_is_refused(tmp_path):
    ((_, good, seen, todo),) = look(tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert good is False and seen.startswith("LC_ALL=C: files are read and written as") and "PYTHONUTF8=1" in todo


@pytest.mark.parametrize(
    ("before", "words"),
    [("ulimit -t 1800", "ulimit -t: CPU time is limited to 1800"),
     ("ulimit -v 80000000", "ulimit -v: address space is limited"),
     ("ulimit -f 1000000", "ulimit -f: file size is limited"),
     ("ulimit -n 1024", "ulimit -n: 1024 open files, at most 1024"),
     ("umask 0777", "umask 0777: you could not read your own files")],
)  # fmt: skip
def test_limits_that_jobs_inherit_are_said(tmp_path, before, words):
    found = look(tmp_path, before)
    assert [(good, seen.startswith(words), bool(todo)) for _, good, seen, todo in found] == [(False, True, True)], found


@pytest.mark.parametrize(("kind", "free"), [("small", 67), ("none", 0)])
def test_shared_memory_of_a_container(tmp_path, monkeypatch, kind, free):
    monkeypatch.setattr(site, "SHARED_MEMORY", tmp_path / kind)
    if kind == "small":
        monkeypatch.setattr(site.os, "statvfs", lambda path: SimpleNamespace(f_bavail=2**14, f_frsize=2**12))
    (found,) = [f for f in site.look(tmp_path) if f.what == "shared memory"]
    assert found.good is False and "--shm-size" in found.todo
    assert found.seen.startswith(f"{tmp_path / kind}: {free} MB free")


def test_foreign_packages_and_libraries(tmp_path):
    (tmp_path / "site" / "numpy-1.2.dist-info").mkdir(parents=True)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libnccl.so.2").touch()
    path = f"{studies.ROOT / 'workflow'}:{tmp_path / 'site'}"
    found = look(tmp_path, PYTHONPATH=path, LD_LIBRARY_PATH=f"/nowhere:{tmp_path / 'lib'}")
    assert [good for _, good, _, _ in found] == [False, None]
    assert str(tmp_path / "site") in found[0][2] and "module purge" in found[0][3]
    assert f"{tmp_path}/lib/libnccl.so.2" in found[1][2]


def test_what_would_change_numbers_is_refused_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "numpy-1.2.dist-info").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{studies.ROOT / 'workflow'}")
    site.refuse()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=rf"^PYTHONPATH puts the packages in {tmp_path} before .*; unset PYTHONPATH"):
        site.refuse()


def test_certificates_that_are_not_there(tmp_path):
    (tmp_path / "ca.pem").touch()
    assert look(tmp_path, SSL_CERT_FILE=str(tmp_path / "ca.pem"))[0][1] is True
    ((what, good, seen, _),) = look(tmp_path, SSL_CERT_FILE=f"{tmp_path}/none.pem")
    assert (what, good) == ("certificates", False) and f"SSL_CERT_FILE={tmp_path}/none.pem" in seen


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, {}), ({"REQUESTS_CA_BUNDLE": "/site.pem"}, {"SSL_CERT_FILE": "/site.pem"}),
     ({"CURL_CA_BUNDLE": "/site.pem"}, {"SSL_CERT_FILE": "/site.pem"}),
     ({"SSL_CERT_FILE": "/own.pem", "CURL_CA_BUNDLE": "/site.pem"}, {"SSL_CERT_FILE": "/own.pem"}),
     ({"SSL_CERT_DIR": "/certs"}, {})],
)  # fmt: skip
def test_a_sites_ca_has_the_name_that_the_hubs_client_reads(monkeypatch, given, found):
    for name in site._CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    for name, path in given.items():
        monkeypatch.setenv(name, path)
    assert site.certificates() == found


def test_a_clock_of_the_file_server_that_is_wrong(tmp_path, monkeypatch):
    now = site.time.time()
    monkeypatch.setattr(site.time, "time", lambda: now - 3600)
    found = [f for f in site.look(tmp_path) if f.what == "clock"]
    assert len(found) == 1 and "+3600 s from this machine's" in found[0].seen
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_long_names(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "LONGEST_NAME", 300)
    (found,) = [f for f in site.look(tmp_path) if f.what == "results"]
    assert found.good is False and "File name too long" in found.seen


def test_a_results_folder_that_a_group_shares(tmp_path):
    tmp_path.chmod(0o2775)
    assert look(tmp_path, "umask 002")[0][1] is True
    ((what, good, seen, _),) = look(tmp_path, "umask 077")
    assert (what, good) == ("umask", None) and "umask 0077 keeps its other members from changing your files" in seen


@pytest.mark.parametrize(("problem", "good"), [("", True), ("on nfs4", None)])
def test_where_jobs_keep_their_caches(monkeypatch, problem, good):
    monkeypatch.setattr(scratch, "choose", lambda: scratch.Place(Path("/x"), problem, True))
    found = site.local_folder()
    assert found.good is good and "/x" in found.seen and "MOEBENCH_LOCAL" in found.todo
