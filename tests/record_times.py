"""Times of a complete run of ``make report``, for tests/unit/test_time_left.py.

    python tests/record_times.py CHECKOUT "MACHINE" > tests/unit/recorded/NAME.json

Contents: what the estimate of the time left reads of the plan; jobs as [phase, harness, job, begin, end]; records as
[harness, engine, cell, session, begin, end, status, derived_from].  Times in seconds from the first job.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def jobs_of(log: Path) -> list[list[Any]]:
    """Phase, harness, job, begin and end (seconds, epoch; the log's times are taken to be UTC)."""
    found: dict[str, list[Any]] = {}
    now, output = 0.0, ""
    for line in log.read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+ \w+ +\d+ [\d:]+ \d+)\]", line):
            now = datetime.strptime(match[1], "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()
        elif match := re.match(r" +output: (\S+?),?( |$)", line):
            output = match[1]
        elif (match := re.match(r" +jobid: (\d+)", line)) and output:
            harness = match2[1] if (match2 := re.search(r"accuracy/([^/]+)/jobs", output)) else ""
            phase = "accuracy" if harness else "cells" if "/jobs/" in output else ""
            found[match[1]] = [phase, harness, Path(output).stem, now, None]
            output = ""
        elif (match := re.match(r"Finished jobid: (\d+)", line)) and match[1] in found:
            found[match[1]][4] = now
    return [job for job in found.values() if job[0]]


def reduced(plan: dict[str, Any]) -> dict[str, Any]:
    """What the estimate reads of a plan, or of a harness's part of it."""
    work = ("requests", "request_rate", "batch")
    cells = {
        key: {
            "predicted": {"run_s": cell["predicted"]["run_s"]},
            "derived_from": cell["derived_from"],
            **({"task": {}} if "task" in cell else {
                "protocol": {k: cell["protocol"][k] for k in ("kind", "warmup", "repeats")},
                "workload": {k: cell["workload"].get(k) for k in work},
            }),
        }
        for key, cell in plan["cells"].items()
    }  # fmt: skip
    engines = {
        name: {
            "cells": engine["cells"],
            "gpus": engine["gpus"],
            "model": {"weights": engine["model"]["weights"]},
            "predicted": {"weight_bytes": engine["predicted"]["weight_bytes"]},
        }
        for name, engine in plan["engines"].items()
    }
    return {"jobs": {n: {"engines": j["engines"]} for n, j in plan["jobs"].items()}, "engines": engines, "cells": cells}


def records_of(results: Path, harness: str, began: float) -> list[list[Any]]:
    found = []
    for path in (results / "accuracy" / harness if harness else results).glob("cells/*/*.json"):
        record = json.loads(path.read_text())
        session = record["load"].get("session")
        times = [None if t is None else round(seconds(t) - began, 2)
                 for t in (session, record["started_at"], record["ended_at"])]  # fmt: skip
        found.append([harness, record["engine"], record["cell"], *times, record["status"], record.get("derived_from")])
    return sorted(found, key=lambda record: record[5])


def main(checkout: Path, machine: str) -> None:
    plan = json.loads((checkout / "results/plan/tiny.json").read_text())
    log = min((checkout / ".snakemake/log").glob("*.snakemake.log"))
    jobs = jobs_of(log)
    began = min(job[3] for job in jobs)
    recorded = {
        "machine": machine,
        "plan": {
            "hardware": {"kind": plan["hardware"]["kind"]},
            "jobs_settings": plan["jobs_settings"],
            **reduced(plan),
            "accuracy": {name: reduced(part) for name, part in plan["accuracy"].items()},
        },
        "jobs": [[*job[:3], job[3] - began, job[4] - began] for job in jobs],
        "records": [r for h in ("", *plan["accuracy"]) for r in records_of(checkout / "results", h, began)],
    }
    print(json.dumps(recorded, separators=(",", ":")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
