"""Part of ``make bench``: what a newcomer and a developer wait for, in a fresh clone with its own environments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
Row = tuple[str, str, str]

BUDGET = {"set-up": "under 180 s (aim 120)", "measuring and drawing": "under 300 s (aim 180)"}


def clone(folder: Path) -> Path:
    """A fresh clone of the commit that is checked out here."""
    place = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True)
    return place


def clean_environment() -> dict[str, str]:
    """This process's environment without what points make to environments or packages of this checkout."""
    ours = ("MOEBENCH_", "PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ENVS", "BIN")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def follow(command: list[str], place: Path) -> tuple[list[tuple[float, str]], float, float, int]:
    """Run a command: its lines, each with the seconds when it came; its seconds; peak memory, bytes; exit code.

    Memory is the sum over all its processes of the proportional set size, looked at twice a second.
    """
    started, peak, ended = time.monotonic(), 0.0, threading.Event()
    process = subprocess.Popen(
        command, cwd=place, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

    def watch() -> None:
        nonlocal peak
        top = psutil.Process(process.pid)
        while not ended.wait(0.5):
            total = 0
            try:
                below = [top, *top.children(recursive=True)]
            except psutil.Error:
                return
            for one in below:
                try:
                    total += one.memory_full_info().pss
                except (psutil.Error, OSError):
                    continue
            peak = max(peak, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stdout is not None
    lines = [(time.monotonic() - started, line.rstrip("\n")) for line in process.stdout]
    code, seconds = process.wait(), time.monotonic() - started
    ended.set()
    watcher.join()
    return lines, seconds, peak, code


def report(folder: Path) -> list[Row]:
    """Seconds of each phase of ``make report``, engine loads, peak memory; then of a second call."""
    place = clone(folder)
    lines, whole, peak, code = follow(["make", "report"], place)
    if code:
        raise RuntimeError("make report failed: " + "\n".join(line for _, line in lines[-5:]))
    begun: dict[str, float] = {}
    rows: list[Row] = []
    set_up = next(seconds for seconds, line in lines if line.startswith("study "))
    rows.append(("make report, fresh clone: set-up", f"{set_up:.0f} s", BUDGET["set-up"]))
    built = max((seconds for seconds, line in lines if line.startswith("environment ")), default=0.0)
    rows.append(("  environments", f"{built:.0f} s", "part of the set-up"))
    for seconds, line in lines:
        if match := re.match(r"(checkpoints|cells|accuracy|figures): ", line):
            phase = match[1]
            begun.setdefault(phase, seconds)
            if ", done" in line:
                rows.append((f"  {phase}", f"{seconds - begun[phase]:.0f} s", "phases may overlap"))
    after = ("make report: measuring and drawing", f"{whole - set_up:.0f} s", BUDGET["measuring and drawing"])
    rows += [after, ("make report: peak memory", f"{peak / 1e9:.1f} GB", "under 6 GB")]
    loads = loads_of(place)
    rows.append(("make report: engine loads", f"{loads['speed']} speed, {loads['accuracy']} accuracy", "25 speed"))
    before = written(place)
    _, seconds, _, code = follow(["make", "report"], place)
    second = "failed" if code else "measured again" if written(place) != before else f"{seconds:.1f} s"
    return [*rows, ("make report, second call", second, "under 5 s, nothing measured")]


def written(place: Path) -> dict[Path, int]:
    """When each record was written."""
    return {path: path.stat().st_mtime_ns for path in place.glob("results/**/cells/*/*.json")}


def loads_of(place: Path) -> dict[str, int]:
    """Engine configurations that were loaded, by the records: each load has its time stamp."""
    found: dict[str, set[Any]] = {"speed": set(), "accuracy": set()}
    for kind, pattern in (("speed", "results/cells/*/*.json"), ("accuracy", "results/accuracy/*/cells/*/*.json")):
        for path in place.glob(pattern):
            record = json.loads(path.read_text())
            if session := record.get("load", {}).get("session"):
                found[kind].add((record["engine"], session))
    return {kind: len(sessions) for kind, sessions in found.items()}


def tests(folder: Path) -> list[Row]:
    """Seconds of ``make test``, whole and by part (several parts run at a time)."""
    place = folder / "clone"
    lines, whole, peak, code = follow(["make", "test"], place if place.exists() else clone(folder))
    parts = next((json.loads(line.split(": ", 1)[1]) for _, line in lines if line.startswith("seconds by part")), {})
    rows = [(f"  tests/{part}", f"{seconds} s", "of two workers together") for part, seconds in parts.items()]
    outcome = "" if not code else ", failed"
    return [("make test", f"{whole:.0f} s{outcome}", f"under 900 s; peak {peak / 1e9:.1f} GB"), *rows]
