"""A copy of this process behaves as a new one would: session, streams, variables, exit code, end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moebench.engines.copied import Copy
from moebench.engines.parent import die_with

HANG_S = 20


def copy(run, log: Path, **variables: str) -> Copy:
    def with_streams():  # those of a real process: pytest's own do not follow file descriptors
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        run()

    with open(log, "ab") as file:
        return Copy(with_streams, file.fileno(), variables)


def fail():
    raise ValueError("no such model")


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        (lambda: print("done"), 0, "done\n"),
        (lambda: sys.exit(3), 3, ""),
        (lambda: sys.exit(None), 0, ""),
        (lambda: sys.exit("in words"), 1, ""),
        (fail, 1, "ValueError: no such model"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -9, ""),
    ],
)
def test_its_end_is_told_and_its_output_is_in_the_log(tmp_path, run, code, said):
    made = copy(run, tmp_path / "log")
    assert made.wait(HANG_S) == code == made.poll()
    assert said in (tmp_path / "log").read_text()
    made.send_signal(signal.SIGTERM)  # it ended: nobody else may get it


def test_it_has_a_session_no_input_and_only_the_variables_given(tmp_path):
    def look():
        told = subprocess.check_output([sys.executable, "-c", "import os; print(os.environ['ONLY'])"], text=True)
        print(os.getsid(0) == os.getpid(), os.read(0, 1), dict(os.environ), told.strip())

    assert copy(look, tmp_path / "log", ONLY="this").wait(HANG_S) == 0
    assert (tmp_path / "log").read_text() == "True b'' {'ONLY': 'this'} this\n"


def test_it_is_waited_for_no_longer_than_asked_and_can_be_ended(tmp_path):
    made = copy(lambda: time.sleep(HANG_S), tmp_path / "log")
    with pytest.raises(subprocess.TimeoutExpired):
        made.wait(0.1)
    assert made.poll() is None
    made.send_signal(signal.SIGTERM)
    assert made.wait(HANG_S) == -15


def test_it_ends_with_this_process_and_what_it_started_too(tmp_path):
    log = tmp_path / "log"

    def serve(parent: int) -> None:
        die_with(parent)
        print(os.getpid(), subprocess.Popen(["sleep", str(HANG_S)]).pid, flush=True)
        time.sleep(HANG_S)

    def start():
        parent = os.getpid()
        copy(lambda: serve(parent), log)
        while len(log.read_text().split()) < 2:
            time.sleep(0.05)
        os.kill(parent, signal.SIGKILL)

    log.touch()
    assert copy(start, tmp_path / "of the parent").wait(HANG_S) == -9
    end = time.monotonic() + HANG_S
    while left := [pid for pid in log.read_text().split() if running(int(pid))]:
        assert time.monotonic() < end, f"{left} outlived the process that started it"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
