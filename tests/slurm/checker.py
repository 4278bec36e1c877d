"""An independent check of a study's results: it reads files and shares no code with what wrote them.

A record is sound when its seal holds, it is the plan's cell, its times agree with each other, and the job's progress
log tells of the same measurement.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from slurm.clusterproject import SECRETS

TRIES = 3
"""Failures of the machinery in a row after which a cell is given up, and says so (docs/data.md)."""


class Checker:
    """Checks a project folder again and again; remembers every record it has seen.

    Args:
        folder: the project's.
        plan: its plan.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]):
        self.folder, self.plan, self.results = folder, plan, folder / "results"
        self.known: set[str] = set()

    def note(self) -> None:
        """Remember the records there are, so that none of them may vanish later."""
        for path in self.results.glob("cells/*/*.json"):
            if (record := sealed(path)) is not None:
                self.known.add(record["sha256"])

    def violations(self) -> list[str]:
        """What is wrong, after a call of Snakemake that ended well."""
        wrong = [*self.cells(), *self.history(), *self.tables()]
        wrong += [f"{path}: a lock is left" for path in (self.results / "locks").glob("*.lock")]
        wrong += [f"{path}: half a file is left" for path in self.results.rglob(".*.tmp")]
        return wrong + self.secrets()

    def secrets(self) -> list[str]:
        """Files of the run with a secret of the shell in them."""
        canaries = [secret.encode() for secret in SECRETS.values()]
        written = (p for part in ("results", "logs", "reports", ".snakemake") for p in (self.folder / part).rglob("*"))
        return [f"{p}: has a secret" for p in written if p.is_file() and any(c in p.read_bytes() for c in canaries)]

    def cells(self) -> list[str]:
        """Cells lost, doubled or wrong."""
        wrong = []
        planned = set(self.plan["cells"])
        there = {f"{p.parent.name}/{p.stem}": p for p in self.results.glob("cells/*/*.json")}
        wrong += [f"{key}: lost" for key in planned - set(there)]
        wrong += [f"{key}: a cell that nobody planned" for key in set(there) - planned]
        for key in planned & set(there):
            wrong += [f"{key}: {fault}" for fault in self.faults(key, there[key])]
        return wrong

    def faults(self, key: str, path: Path) -> list[str]:
        """What is wrong with the record of a cell."""
        record = sealed(path)
        if record is None:
            return ["its seal is broken"]
        self.known.add(record["sha256"])
        planned = self.plan["cells"][key]
        found = []
        if f"{record['engine']}/{record['cell']}" != key:
            found.append(f"is the record of {record['engine']}/{record['cell']}")
        if record["status"] != "ok":
            if record["status"] not in ("crashed", "timeout", "node_fault") or record["attempt"] < TRIES:
                found.append(f"{record['status']} ({record['reason']}), attempt {record['attempt']}")
            return found
        if {name: record["workload"][name] for name in ("batch", "input_tokens", "output_tokens")} != {
            name: planned["workload"][name] for name in ("batch", "input_tokens", "output_tokens")
        }:
            found.append(f"measured another workload: {record['workload']}")
        if len(record["repeats"]) != planned["protocol"]["repeats"]:
            found.append(f"has {len(record['repeats'])} repeats")
        for run in record["repeats"]:
            steps = run["step_end_s"]
            if sorted(steps) != steps or len(steps) < planned["workload"]["output_tokens"]:
                found.append(f"steps out of order, or too few: {steps}")
            if not math.isclose(run["metrics"]["e2e_s"], steps[-1], rel_tol=0.05):
                found.append(f"e2e {run['metrics']['e2e_s']} s, last step at {steps[-1]} s")
        if not self.told(key, record):
            found.append("no progress log tells of this measurement")
        return found

    def told(self, key: str, record: dict[str, Any]) -> bool:
        """Whether a progress log has the line of this record: its cell, ``ok``, the numbers of its last run."""
        last = record["repeats"][-1]["metrics"]
        line = f"] {key}  ok  e2e {last['e2e_s']:.3f} s  {last['throughput_total_tokens_per_s']:,.0f} tokens/s"
        logs = (self.folder / "logs").rglob("*.progress.log")
        return any(line in path.read_text(errors="replace") for path in logs)

    def history(self) -> list[str]:
        """Records that were seen and are nowhere any more."""
        kept = Counter(
            record["sha256"] for path in self.results.glob("history/*/*.json") if (record := sealed(path)) is not None
        )
        return [f"a record seen before is gone: {digest}" for digest in self.known - set(kept)]

    def tables(self) -> list[str]:
        """Rows of the tables that are not the records, one to one."""
        import pyarrow.parquet as pq

        path = self.results / "tables" / self.plan["study"] / "measurements.parquet"
        rows = Counter(f"{row['engine']}/{row['cell']}" for row in pq.read_table(path).to_pylist())
        planned = Counter(dict.fromkeys(self.plan["cells"], 1))
        return [f"{key}: {rows[key]} rows in the table" for key in rows | planned if rows[key] != planned[key]]


def sealed(path: Path) -> dict[str, Any] | None:
    """A record whose checksum holds, or None."""
    try:
        record = json.loads(path.read_bytes())
        body = {key: value for key, value in record.items() if key != "sha256"}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return record if hashlib.sha256(text.encode()).hexdigest() == record["sha256"] else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None
