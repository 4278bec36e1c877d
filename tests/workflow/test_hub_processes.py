"""Staging from the hub in a process that is killed or interrupted, and what the next one makes of what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hubbench
from hubbench import FILES, MB, NAME, WEIGHTS, Bench, assert_whole
from hubserver import Faults, HubServer, Repo
from moebench.storage import staged
from project import HANG_S


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    with hubbench.environment(tmp_path), HubServer() as running:
        yield running


@pytest.fixture
def repo(server: HubServer) -> Repo:
    made = server.repo(NAME)
    made.push(FILES)
    return made


@pytest.fixture
def bench(tmp_path: Path, server: HubServer) -> Bench:
    root = tmp_path / "checkout"
    root.mkdir()
    return Bench(root, server)


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_S
    while not reached():
        assert time.monotonic() < deadline, "the download did not get that far"
        time.sleep(0.01)


CHILD = """
import sys
from pathlib import Path
from moebench.config import Config, HubSource
from moebench.models.hub import stage_hub
from moebench.models.hubprogress import Progress
from moebench.config.lockfile import ModelLock
root = Path(sys.argv[1])
lock = ModelLock(root / "config" / "models.lock.yaml")
stage_hub(HubSource(hub="org/moe"), lambda commit: root / "models" / f"moe-{commit[:7]}", lock, Progress(sys.stderr))
"""


def child(bench: Bench, endpoint: str, **environment: str) -> subprocess.Popen[str]:
    """A process of its own that stages; its endpoint and token come from the environment alone."""
    variables = os.environ | {"HF_ENDPOINT": endpoint, "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(bench.root)], env=variables, stderr=subprocess.PIPE, text=True
    )


def test_killed_in_the_middle_it_goes_on_with_the_files_that_are_not_whole(
    bench: Bench, server: HubServer, repo: Repo
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        reached.set()
        go_on.wait(HANG_S)

    repo.faults[WEIGHTS] = Faults(after_bytes=1_200_000, hook=hang)
    process = child(bench, server.endpoint)
    folder = bench.folder(repo.branches["main"])
    try:
        wait_until(lambda: reached.is_set() and (folder / "config.json").is_file())
        process.send_signal(signal.SIGKILL)
        assert process.wait(HANG_S) == -signal.SIGKILL
    finally:
        go_on.set()
        process.kill()
        process.communicate()
    assert not (folder / staged.MANIFEST).exists() and not (folder / WEIGHTS).exists()
    assert list(folder.rglob("*.incomplete"))
    server.forget()
    second = child(bench, server.endpoint)
    _, output = second.communicate(timeout=HANG_S)
    assert second.returncode == 0, output
    assert_whole(folder, FILES)
    assert (server.served("config.json"), server.served(WEIGHTS)) == (0, 2 * MB)


def test_control_c_stops_at_once(bench: Bench, server: HubServer, repo: Repo) -> None:
    repo.faults[WEIGHTS] = Faults(block_delay_s=0.2)  # 25 s for the file, which the library would wait for
    process = child(bench, server.endpoint)
    try:
        wait_until(lambda: server.served(WEIGHTS) > 50_000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HANG_S)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert server.served(WEIGHTS) < MB
    repo.faults.clear()
    assert_whole(bench.stage().folder, FILES)
