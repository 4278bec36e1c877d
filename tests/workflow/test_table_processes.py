"""Tables made by several processes are those that one makes."""

from __future__ import annotations

import pyarrow.parquet as pq

import synthetic
from moebench.claims.collect import collect
from moebench.tables import gather


def test_two_processes_give_the_same_bytes_as_one(tmp_path, monkeypatch):
    plan = synthetic.many(tmp_path, 4)  # one of them failed
    collect(plan, tmp_path, tmp_path / "once", results_name="results")
    monkeypatch.setattr(gather, "CHUNK", 1)
    monkeypatch.setattr(gather.os, "cpu_count", lambda: 2)
    collect(plan, tmp_path, tmp_path / "parallel", results_name="results")
    for name in ("measurements", "samples", "failures"):
        once, parallel = (pq.read_table(tmp_path / folder / f"{name}.parquet") for folder in ("once", "parallel"))
        assert len(once) and parallel.equals(once)
