"""Processes that contend for an engine configuration, die while they hold it, or take over from one that died."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from locks import dead_pid, said_nothing, write
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


@pytest.fixture
def path(tmp_path):
    (tmp_path / "locks").mkdir()
    return tmp_path / "locks" / "e.lock"


def start_holder(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert holder.stdout.readline() == "held\n"
    return holder


def end(process):
    process.kill()
    process.communicate()


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
