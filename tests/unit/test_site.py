"""What shells and file systems of sites do, said with a remedy or of no effect; real shells: test_site_shells.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import studies
from moebench.commands import site
from moebench.errors import UserError
from moebench.storage import scratch


@pytest.mark.parametrize(("kind", "free"), [("small", 67), ("none", 0)])
def test_shared_memory_of_a_container(tmp_path, monkeypatch, kind, free):
    monkeypatch.setattr(site, "SHARED_MEMORY", tmp_path / kind)
    if kind == "small":
        monkeypatch.setattr(site.os, "statvfs", lambda path: SimpleNamespace(f_bavail=2**14, f_frsize=2**12))
    (found,) = [f for f in site.look(tmp_path) if f.what == "shared memory"]
    assert found.good is False and "--shm-size" in found.todo
    assert found.seen.startswith(f"{tmp_path / kind}: {free} MB free")


def test_what_would_change_numbers_is_refused_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "numpy-1.2.dist-info").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{studies.ROOT / 'workflow'}")
    site.refuse()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=rf"^PYTHONPATH puts the packages in {tmp_path} before .*; unset PYTHONPATH"):
        site.refuse()


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


@pytest.mark.parametrize(("problem", "good"), [("", True), ("on nfs4", None)])
def test_where_jobs_keep_their_caches(monkeypatch, problem, good):
    monkeypatch.setattr(scratch, "choose", lambda: scratch.Place(Path("/x"), problem, True))
    found = site.local_folder()
    assert found.good is good and "/x" in found.seen and "MOEBENCH_LOCAL" in found.todo
