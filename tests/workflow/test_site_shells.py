"""Shells of sites, each set up here as it is there: what is wrong with one is said with a remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import studies

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


def test_foreign_packages_and_libraries(tmp_path):
    (tmp_path / "site" / "numpy-1.2.dist-info").mkdir(parents=True)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libnccl.so.2").touch()
    path = f"{studies.ROOT / 'workflow'}:{tmp_path / 'site'}"
    found = look(tmp_path, PYTHONPATH=path, LD_LIBRARY_PATH=f"/nowhere:{tmp_path / 'lib'}")
    assert [good for _, good, _, _ in found] == [False, None]
    assert str(tmp_path / "site") in found[0][2] and "module purge" in found[0][3]
    assert f"{tmp_path}/lib/libnccl.so.2" in found[1][2]


def test_certificates_that_are_not_there(tmp_path):
    (tmp_path / "ca.pem").touch()
    assert look(tmp_path, SSL_CERT_FILE=str(tmp_path / "ca.pem"))[0][1] is True
    ((what, good, seen, _),) = look(tmp_path, SSL_CERT_FILE=f"{tmp_path}/none.pem")
    assert (what, good) == ("certificates", False) and f"SSL_CERT_FILE={tmp_path}/none.pem" in seen


def test_a_results_folder_that_a_group_shares(tmp_path):
    tmp_path.chmod(0o2775)
    assert look(tmp_path, "umask 002")[0][1] is True
    ((what, good, seen, _),) = look(tmp_path, "umask 077")
    assert (what, good) == ("umask", None) and "umask 0077 keeps its other members from changing your files" in seen
