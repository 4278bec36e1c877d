"""Two jobs never measure the same engine configuration at once, and a dead holder does not stop anybody."""

import contextlib
import json
import os
import subprocess
import time

import pytest

from locks import dead_pid, said_nothing, write
from moebench.errors import StorageError
from moebench.storage import lock
from project import HANG_S


@pytest.fixture
def path(tmp_path):
    (tmp_path / "locks").mkdir()
    return tmp_path / "locks" / "e.lock"


# --------------------------------------------------------------------------------------------- one holder


def test_held_and_let_go(tmp_path, path):
    assert lock.holder(tmp_path, "e") is None
    with lock.held(tmp_path, "e", said_nothing):
        assert lock.holder(tmp_path, "e")["pid"] == os.getpid()
        with lock.held(tmp_path, "other", said_nothing):
            pass
    assert lock.holder(tmp_path, "e") is None and os.listdir(path.parent) == []


def test_let_go_after_an_exception(tmp_path, path):
    with pytest.raises(KeyError), lock.held(tmp_path, "e", said_nothing):
        raise KeyError
    assert os.listdir(path.parent) == []


# ------------------------------------------------------------------------------------ who counts as dead

ELSEWHERE = {"host": "another-node", "boot": "another-boot"}


@pytest.mark.parametrize(
    ("age_s", "changes", "alive"),
    [
        (0, {}, True),
        (1e6, {}, True),  # it lives on this host: the heartbeat may be late
        (0, {"pid": "dead"}, False),
        (0, {"process_start": "12345"}, False),  # the process id was given to another process since
        (0, {"boot": "an earlier boot"}, True),
        (lock.STALE_S + 5, {"boot": "an earlier boot"}, False),
        (0, {"pid": "dead", "namespace": "pid:[1]"}, True),  # another container: its process ids say nothing here
        (0, {"pid": "dead"} | ELSEWHERE, True),
        (lock.STALE_S - 5, ELSEWHERE, True),
        (lock.STALE_S + 5, ELSEWHERE, False),
    ],
)
def test_who_counts_as_alive(tmp_path, path, age_s, changes, alive):
    if changes.get("pid") == "dead":
        changes = changes | {"pid": dead_pid()}
    write(path, age_s, **changes)
    assert (lock.holder(tmp_path, "e") is not None) == alive
    taken = lock._try(path, lock._me()) is None
    assert taken != alive


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"host": "x"}'])
def test_a_damaged_lock_counts_by_its_heartbeat(tmp_path, path, text):
    path.write_text(text)
    assert lock.holder(tmp_path, "e") is not None
    os.utime(path, (1, 1))
    with lock.held(tmp_path, "e", said_nothing):
        assert lock.holder(tmp_path, "e")["pid"] == os.getpid()


def test_another_users_hidden_process_counts_by_its_heartbeat(tmp_path, path, monkeypatch):
    """Systems that hide processes of others (hidepid) show nothing of them in /proc, and forbid signals."""

    def forbidden(pid, number):
        raise PermissionError

    monkeypatch.setattr(lock, "_process_start", lambda pid: None)
    monkeypatch.setattr(os, "kill", forbidden)
    write(path)
    assert lock.holder(tmp_path, "e") is not None
    write(path, lock.STALE_S + 5)
    assert lock.holder(tmp_path, "e") is None


def test_the_heartbeat_tells_other_hosts_that_the_holder_lives(tmp_path, path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.05)
    with lock.held(tmp_path, "e", said_nothing):
        os.utime(path, (1, 1))
        end_of_wait = time.monotonic() + HANG_S
        while lock._age(path) > lock.STALE_S and time.monotonic() < end_of_wait:
            time.sleep(0.01)
        assert lock._age(path) < lock.STALE_S


def test_a_lock_lost_to_another_host_is_neither_kept_alive_nor_removed(tmp_path, path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)
    with lock.held(tmp_path, "e", said_nothing):
        write(path, 1000, **ELSEWHERE)
        before = path.stat().st_mtime_ns
        time.sleep(0.2)
        assert path.stat().st_mtime_ns == before
    assert json.loads(path.read_text())["host"] == "another-node"


def test_the_age_is_by_the_file_systems_clock(path, monkeypatch):
    write(path)
    monkeypatch.setattr(time, "time", lambda: 1e10)  # this node's clock is wrong
    assert lock._age(path) < 60


# ------------------------------------------------------------------------------------------------ storage


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "locks").write_text("a file where the folder should be")
    words = r"e\.lock: cannot lock .*is the results folder writable"
    with pytest.raises(StorageError, match=words), lock.held(tmp_path, "e", said_nothing):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_and_a_read_only_one(tmp_path):
    results = tmp_path / "small"
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", results], check=True)
    try:
        (results / "locks").mkdir()
        write(results / "locks" / "e.lock", pid=dead_pid())
        with contextlib.suppress(OSError):
            (results / "filling").write_bytes(bytes(1 << 20))
        for words in ("No space left", "Read-only"):
            with pytest.raises(StorageError, match=words), lock.held(results, "e", said_nothing):
                pass
            assert os.listdir(results / "locks") == ["e.lock"]
            assert lock.holder(results, "e") is None  # asking writes nothing, and fails nowhere
            subprocess.run(["mount", "-o", "remount,ro", results], check=True)
    finally:
        subprocess.run(["umount", results], check=True)
