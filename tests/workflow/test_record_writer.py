"""A process that writes records and is killed."""

import os
import signal
import subprocess
import sys
import time

from moebench.measure import records
from studies import ROOT

WRITER = """
import sys, pathlib
from moebench.measure import records
from moebench.storage import atomic
results = pathlib.Path(sys.argv[1])
for i in range(10**9):
    records.store(results, {"schema": 1, "engine": "e-1", "cell": "c-1", "status": "ok", "attempt": i,
                            "ended_at": atomic.stamp(), "filling": str(i % 10) * 200_000})
    print(i, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_record(tmp_path):
    path = records.cell_path(tmp_path, "e-1", "c-1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    kill = leftovers = 0
    while kill < 12 or (not leftovers and kill < 200):  # it depends on the machine how often one hits
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert writer.stdout.readline().strip() == "0"
        time.sleep(0.003 * (kill % 12))
        kill += 1
        writer.send_signal(signal.SIGKILL)
        acknowledged = 1 + writer.communicate()[0].count("\n")
        found = records.load(path)  # raises if it is damaged
        assert found["attempt"] >= acknowledged - 1  # what was reported written is there
        leftovers += len(list(tmp_path.rglob(".*.tmp")))
        records.sweep(tmp_path, "e-1")
        assert os.listdir(path.parent) == ["c-1.json"]
    for kept in (tmp_path / "history" / "e-1").iterdir():
        records.load(kept)
    assert leftovers, "no kill hit the writer in mid-write: the test shows nothing"
