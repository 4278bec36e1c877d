"""Small files other than records: manifests of jobs, staged folders and archives, locks, constants of a machine."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from moebench.formats import Json
from moebench.formats.record import CanaryRun


class RecordEntry(TypedDict):
    """A record file at the end of its job."""

    bytes: int
    mtime_ns: int
    sha256: str


class Manifest(TypedDict):
    """A finished job: ``results/jobs/JOB.json``.

    digest: of the job in the plan.  records: by ``ENGINE/CELL``.  waiting: of these, the cells that wait for a
    service's variables.
    """

    schema: int
    job: str
    digest: str
    written_at: str
    records: dict[str, RecordEntry]
    canary: list[CanaryRun]
    waiting: NotRequired[list[str]]


class StagedFile(TypedDict):
    """Size and checksum of a staged file."""

    bytes: int
    sha256: str


class StageManifest(TypedDict):
    """A staged folder: ``moebench-stage.json``.

    source: ``hub:ORG/NAME``, ``random_init``, ``derived:BY`` or an address.  files: by path in the folder.
    facts: how a derived checkpoint came about (settings, rounding, calibration, took_s, by_layer, ...).
    """

    schema: int
    source: str
    revision: str
    files: dict[str, StagedFile]
    facts: NotRequired[Json]


class ArchiveAbout(TypedDict):
    """Description of an archive: ``archive.json``.  moebench, git_commit, git_dirty: of the code that wrote it."""

    format: int
    study: str
    moebench: str
    git_commit: NotRequired[str | None]
    git_dirty: NotRequired[bool | None]


class LockHolder(TypedDict, total=False):
    """The holder of the lock of an engine configuration: ``results/locks/ENGINE.lock``.

    The scope of process ids: host, its boot and the process namespace.  process_start: clock ticks since boot,
    which tell a process from a later one of its id.  nonce: tells holders apart; ``damaged`` and nothing else for a
    file that cannot be read.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    process_start: str | None
    slurm_job_id: str | None
    nonce: str


class Triad(TypedDict):
    """Memory bandwidth at a size of three arrays together, bytes: times of all runs, and the best rate."""

    bytes: int
    runs_s: list[float]
    bytes_per_s: float


class Product(TypedDict):
    """Rate of products of square matrices of that side."""

    side: int
    runs_s: list[float]
    flops_per_s: float


class MachineConstants(TypedDict):
    """``results/machines/HOST.threadsN.json``: measured constants; products by data type.  Sealed like a record.

    Versions, device and threads as in ``formats.record.Provenance``.
    """

    schema: int
    started_at: str
    ended_at: str
    host: str
    cpus: int | None
    versions: dict[str, str]
    python: str
    kernel: str
    device_name: str
    driver: str | None
    cuda: str | None
    device_count: int
    threads: int
    triad: list[Triad]
    products: dict[str, Product]
    sha256: NotRequired[str]
