"""Messages between the driver and its worker process: JSON lines (``moebench.measure``)."""

from __future__ import annotations

from typing import TypedDict

from moebench.formats.plan import EngineConfig, ProtocolDict, Task, Workload
from moebench.formats.record import (
    ActivationCounts,
    Checks,
    LoadFacts,
    Metrics,
    Provenance,
    Result,
    Run,
    SampleLog,
    Searched,
    ThrownAway,
)


class Request(TypedDict, total=False):
    """``do``: load (name: kind of engine; engine), unload, run and canary (workload, protocol; image_tokens: of a
    request, as planned; seed: of the canary's first run), or evaluate (task, top_k, limit, seeds; samples: file)."""

    do: str
    name: str
    engine: EngineConfig
    workload: Workload
    protocol: ProtocolDict
    image_tokens: int | None
    seed: int
    task: Task
    top_k: int | None
    limit: int | None
    seeds: dict[str, int]
    samples: str


class Outcome(TypedDict, total=False):
    """Answer to a request, and what the driver makes of it: what happened to a cell, before it is a record.

    load: facts and provenance.  run: status, reason, warmup, repeats, thrown_away, checks, activation; the driver adds
    search.  canary:
    started_at, metrics.
    evaluate: status, reason, results, checks, samples, or storage: why the log of questions was not written.
    A failure: status, reason, evidence, provenance; cause_in_log: the exception's text does not give the cause;
    intact: refused before anything was started.  took_s: always.
    The driver adds started_at and, where the load failed, phase: load.  load, provenance, derived_from: of a cell that
    is truncated from another's runs.
    """

    status: str
    reason: str
    evidence: list[str]
    facts: LoadFacts
    provenance: Provenance
    warmup: list[Run]
    repeats: list[Run]
    thrown_away: list[ThrownAway]
    checks: Checks
    search: Searched
    activation: ActivationCounts
    started_at: str
    metrics: Metrics
    results: list[Result]
    samples: SampleLog
    storage: str
    cause_in_log: bool
    intact: bool
    took_s: float
    phase: str
    load: LoadFacts
    derived_from: str
