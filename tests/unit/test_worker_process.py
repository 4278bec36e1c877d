"""The driver's end of a worker process.  The worker is a script that never answers."""

import os
import signal
import sys
import time

import pytest

from moebench.measure.process import Worker

BUSY = "import sys, time\nsys.stdin.readline()\nprint('busy', file=sys.stderr, flush=True)\ntime.sleep(60)\n"


def test_a_busy_worker_is_gone_at_once_when_its_driver_is_interrupted(tmp_path, monkeypatch):
    """A polite end would be waited for until the worker reads again: ten seconds of a campaign's last fifteen."""
    (tmp_path / "busy.py").write_text(BUSY)
    worker = Worker(sys.executable, tmp_path / "log", {**os.environ, "PYTHONPATH": str(tmp_path)}, "busy")

    def end(number, frame):
        if "busy" in worker.said():  # not while it starts
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.ask({"do": "run"}, 30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    started = time.monotonic()
    worker.close()
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
