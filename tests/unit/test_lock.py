"""Two jobs never measure the same engine configuration at once, and a dead holder does not stop anybody."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from moebench.errors import StorageError
from moebench.storage import lock
from project import HANG_S
from studies import ROOT

FORK = multiprocessing.get_context("fork")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}

HOLD = """
import pathlib, sys, time
from moebench.storage import lock
with lock.held(pathlib.Path(sys.argv[1]), "e", print):
    print("held", flush=True)
    time.sleep(60)
"""

CONTEND = """
import os, pathlib, random, sys, time
from moebench.storage import lock
results, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
for _ in range(rounds):
    with lock.held(results, "e", lambda text: None, poll_s=0.002):
        os.close(os.open(results / "inside", os.O_CREAT | os.O_EXCL))  # fails if another one is inside
        time.sleep(random.random() * 0.004)
        (results / "inside").unlink()
"""


def said_nothing(text):
    raise AssertionError(f"waited: {text}")


@pytest.fixture
def path(tmp_path):
    (tmp_path / "locks").mkdir()
    return tmp_path / "locks" / "e.lock"


def write(path, age_s=0.0, **changes):
    """A lock file of a holder like this process but for the changes, with a heartbeat so long ago."""
    path.write_text(json.dumps(lock._me() | changes))
    then = time.time() - age_s
    os.utime(path, (then, then))


def dead_pid():
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def start_holder(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert holder.stdout.readline() == "held\n"
    return holder


def end(process):
    process.kill()
    process.communicate()


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


def test_processes_that_contend_are_never_inside_together(tmp_path):
    tmp_path.joinpath("locks").mkdir()
    contenders = [
        subprocess.Popen([sys.executable, "-c", CONTEND, str(tmp_path), "25"], stderr=subprocess.PIPE, env=ENVIRONMENT)
        for _ in range(4)
    ]
    for contender in contenders:
        assert contender.communicate()[1] == b"" and contender.returncode == 0
    assert os.listdir(tmp_path / "locks") == []


def test_a_live_holder_is_waited_for_and_named(tmp_path):
    holder = start_holder(tmp_path)
    said = []
    try:
        words = rf"still held by process {holder.pid} on .* end that job"
        with (
            pytest.raises(StorageError, match=words),
            lock.held(tmp_path, "e", said.append, wait_s=0.3, poll_s=0.05),
        ):
            pass
        assert said == [f"e: waiting, it is being measured by process {holder.pid} on {os.uname().nodename}"]
    finally:
        end(holder)


def test_a_killed_holder_is_taken_over_at_once(tmp_path, path):
    holder = start_holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert path.exists() and lock.holder(tmp_path, "e") is None
    with lock.held(tmp_path, "e", said_nothing):
        assert lock.holder(tmp_path, "e")["pid"] == os.getpid()
    assert os.listdir(path.parent) == []


def test_a_holder_killed_but_not_yet_buried_is_dead(tmp_path):
    holder = start_holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert lock.holder(tmp_path, "e") is None
    holder.communicate()


def test_a_killed_holder_is_taken_over_while_others_wait(tmp_path):
    holder = start_holder(tmp_path)
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        assert waiting.stdout.readline() == (
            f"e: waiting, it is being measured by process {holder.pid} on {os.uname().nodename}\n"
        )
        end(holder)
        assert waiting.stdout.readline() == "held\n"
    finally:
        end(waiting)


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


# ---------------------------------------------------------------------------------------- many contenders


ROUNDS = 4


def contend(path, barrier, wins, seed):
    """Try to take a dead holder's lock once a round, with the pauses of a slow file system between all steps."""
    rng = random.Random(seed)

    def slowed(function):
        def slow(*args, **more):
            time.sleep(rng.choice((0, 0, 0.001, 0.01)))
            return function(*args, **more)

        return slow

    for module, name in ((lock, "_read"), (lock, "_is_dead"), (os, "link"), (os, "replace")):
        setattr(module, name, slowed(getattr(module, name)))
    for _ in range(ROUNDS):
        me = lock._me()
        barrier.wait()
        if lock._try(path, me) is None:
            wins.put(me["nonce"])
        barrier.wait()  # all have tried, and the winner lives


@pytest.mark.parametrize("heirs", [0, 1, 2])
def test_exactly_one_of_many_takes_over(path, heirs):
    """Also where earlier heirs died between claiming the lock and taking it."""
    dead = dead_pid()
    barrier, wins = FORK.Barrier(9, timeout=HANG_S), FORK.SimpleQueue()  # what is put there is there at once
    contenders = [FORK.Process(target=contend, args=(path, barrier, wins, seed)) for seed in range(8)]
    for contender in contenders:
        contender.start()
    for _ in range(ROUNDS):
        write(path, pid=dead, nonce="d0")
        for n in range(heirs):
            write(path.with_name(f"e.lock.after-d{n}"), pid=dead, nonce=f"d{n + 1}")
        barrier.wait()
        barrier.wait()
        assert not wins.empty()
        winner = wins.get()
        assert wins.empty()
        assert json.loads(path.read_text())["nonce"] == winner
        assert os.listdir(path.parent) == ["e.lock"]
    for contender in contenders:
        contender.join()
        assert contender.exitcode == 0
    wins.close()


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
