"""A search for the highest request rate that meets the goals: its tries, the stored data of each, and its result.

Every try is written to a journal at once, so a restarted job continues there and tries no rate twice.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

from moebench.engines import failures, rate_search
from moebench.formats.messages import Outcome
from moebench.formats.plan import Workload
from moebench.formats.record import Checks, Metrics, Run, Searched, Try
from moebench.measure import load_metrics, records
from moebench.storage.atomic import canonical_bytes, stamp, write_atomic

SENT = 0.9
"""Share of a rate that the client must have sent; less says nothing about the server."""


class Journal:
    """A file with the tries of an unfinished search, and the runs and checks at the highest rate that met the goals."""

    def __init__(self, results: Path, engine: str, cell: str):
        self.path = records.tries_path(results, engine, cell)
        self.tries: list[Try] = []
        self.repeats: list[Run] = []
        self.checks: Checks = {}
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):  # damaged entries are tried again
            found = json.loads(self.path.read_bytes())
            if found == records.seal(found):
                self.tries, self.repeats, self.checks = found["tries"], found["repeats"], found["checks"]

    def add(self, tried: Try, runs: list[Run], checks: Checks) -> None:
        """Store a try, and its runs if no higher rate met the goals.  Raises StorageError."""
        self.tries.append(tried)
        if tried["verdict"] == rate_search.KEPT:
            self.repeats, self.checks = runs, checks
        about = {"tries": self.tries, "repeats": self.repeats, "checks": self.checks}
        write_atomic(self.path, canonical_bytes(records.seal(about)) + b"\n")


def search(work: Workload, journal: Journal, ask: Callable[[Workload], Outcome], say: Callable[[str], None]) -> Outcome:
    """Try rates until the search is over; ``ask`` measures the workload at a rate.

    An infrastructure failure ends it for now; finished tries remain.  Raises StorageError.
    """
    while (rate := rate_search.next_rate(work, journal.tries)) is not None:
        started = stamp()
        reply = ask(work | {"request_rate": rate, "requests": rate_search.requests(work, rate)})
        runs = [run for run in reply.get("repeats", []) if "load" in run]
        if reply["status"] not in ("ok", "invalid") or not runs:
            if reply["status"] in records.INFRASTRUCTURE and not failures.of_host(reply):
                reply["reason"] += f" (at {rate:g} requests/s; {so_far(journal.tries)})"
            return reply | {"repeats": [], "search": result(journal.tries)}
        tried = judged(rate, started, runs, work)
        if tried["verdict"] == rate_search.KEPT and reply["status"] != "ok":
            tried |= {"verdict": rate_search.MISSED, "why": reply["reason"]}
        journal.add(tried, runs, reply.get("checks", {}))
        say(f"  {rate:g} requests/s: {tried['verdict'].replace('_', ' ')}" + f" ({tried['why']})" * bool(tried["why"]))
    return ended(work, journal)


def judged(rate: float, started: str, runs: list[Run], work: Workload) -> Try:
    """Judge a rate by its runs."""
    goals, counted, met, rates, why = work["goals"], 0, 0.0, [], ""
    for run in runs:
        load = run["load"]
        part = load_metrics.steady(load, None)
        failed = sum(map(bool, load["errors"]))
        counted += len(part.requests) + failed
        if part.requests:
            met += len(part.requests) * load_metrics.goodput(load, part, 0.0, goals)["goals_met_share"]
        why = why or load_metrics.problem(load, part) or ""
        rates.append(load_metrics.arrival_rate(load))
    share, sent = met / counted if counted else 0.0, fmean(rates)
    verdict = rate_search.KEPT if share >= work["goals_share"] - 1e-9 else rate_search.MISSED
    if verdict == rate_search.MISSED:
        why = why or f"{100 * share:.3g}% of {counted} requests met the goals"
    elif sent < SENT * rate:
        verdict, why = rate_search.NOT_SENT, f"the client sent only {sent:.3g} requests/s, its limit"
    return {
        "request_rate": rate,
        "started_at": started,
        "requests": counted,
        "share": share,
        "arrival_rate": sent,
        "verdict": verdict,
        "why": why if verdict != rate_search.KEPT else "",
        "metrics": _medians([run["metrics"] for run in runs if run["metrics"]]),
    }


def _medians(found: list[Metrics]) -> Metrics:
    names = [name for name in (found[0] if found else ()) if all(name in metrics for metrics in found)]
    return {name: median(metrics[name] for metrics in found) for name in names}


def result(tries: list[Try]) -> Searched:
    """The bracket after the given tries."""
    kept, other = rate_search.bracket(tries)
    missed = [t["request_rate"] for t in tries if t["verdict"] == rate_search.MISSED]
    return {"max_rate": kept, "missed_rate": other if other in missed else None, "tries": tries}


def so_far(tries: list[Try]) -> str:
    """Summary of unfinished tries."""
    kept, other = rate_search.bracket(tries)
    parts = [f"{rate:g} {what}" for rate, what in ((kept, "meets the goals"), (other, "does not")) if rate is not None]
    return ", ".join(parts) or "no rate was tried before"


def ended(work: Workload, journal: Journal) -> Outcome:
    """Result of a finished search."""
    found, last = result(journal.tries), journal.tries[-1]
    status, reason = "ok", ""
    if found["max_rate"] is None:
        missed = last["verdict"] == rate_search.MISSED
        status, lowest = (
            "goals_missed" if missed else "invalid",
            f"the lowest rate, {last['request_rate']:g} requests/s",
        )
        reason = f"{lowest}, misses the goals: {last['why']}" if missed else f"{lowest}: {last['why']}"
    elif found["missed_rate"] is None:
        limit = [t["why"] for t in journal.tries if t["verdict"] == rate_search.NOT_SENT]
        why = limit[0] if limit else f"highest_rate {work['highest_rate']:g} meets the goals"
        reason = f"max_rate is {found['max_rate']:g} requests/s or more: {why}"
    return {
        "status": status,
        "reason": reason,
        "repeats": journal.repeats,
        "checks": journal.checks | {"rates_tried": len(journal.tries)},
        "search": found,
    }
