"""A lock per engine configuration, so that two jobs never measure the same cells at once.

The lock is a file, created exclusively, that names its holder (SLURM job, host, process) and whose modification time
is the holder's heartbeat.  A holder that is gone (no heartbeat, or its process on this host is gone) is taken over.
Works on a shared file system without flock; the heartbeat's age is measured with the file system's own clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moebench.errors import StorageError

HEARTBEAT_S = 5.0
STALE_S = 60.0


def _path(results: Path, engine: str) -> Path:
    return results / "locks" / f"{engine}.lock"


def _process_start(pid: int) -> str | None:
    """Start time of a live process (clock ticks since boot), or None: tells a process from a later one of its id."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "process_start": _process_start(pid),
            "slurm_job_id": os.environ.get("SLURM_JOB_ID"), "nonce": secrets.token_hex(8)}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
        return data if isinstance(data, dict) and "nonce" in data else {"nonce": "damaged"}
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"nonce": "damaged"}


def _age(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system that holds the lock."""
    probe = path.with_name(f".clock.{os.getpid()}.{threading.get_ident()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _is_dead(path: Path, holder: dict[str, Any]) -> bool:
    if holder.get("host") == socket.gethostname() and holder.get("boot") == _boot():
        return _process_start(holder.get("pid", -1)) != holder.get("process_start")
    return _age(path) > STALE_S


def holder(results: Path, engine: str) -> dict[str, Any] | None:
    """Who measures this engine configuration right now; None if nobody alive does."""
    path = _path(results, engine)
    found = _read(path)
    return None if found is None or _is_dead(path, found) else found


def describe(found: dict[str, Any]) -> str:
    """A holder in words."""
    job = f"SLURM job {found['slurm_job_id']}, " if found.get("slurm_job_id") else ""
    return f"{job}process {found.get('pid')} on {found.get('host')}"


def _try(path: Path, me: dict[str, Any]) -> dict[str, Any] | None:
    """Take the lock; return None on success, else the live holder."""
    found = _read(path)
    if found is not None and not _is_dead(path, found):
        return found
    temporary = path.with_name(f".{path.name}.{me['nonce']}")
    temporary.write_text(json.dumps(me))
    try:
        if found is None:
            os.link(temporary, path)  # fails if somebody was faster
            return None
        # One claimant per dead holder: the claim's name is the dead one's nonce.
        claim = path.with_name(f"{path.name}.after-{found['nonce']}")
        if claim.exists() and _age(claim) > STALE_S:  # its claimant died in between
            claim.unlink(missing_ok=True)
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, path)
        claim.unlink()
        return None
    except FileExistsError:
        return _read(path) or found
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def held(results: Path, engine: str, say: Callable[[str], None], wait_s: float = 1e9, poll_s: float = 2.0) -> Iterator[None]:
    """Hold the lock of an engine configuration; wait while another live job holds it, saying who.

    Raises StorageError if the folder cannot be written or ``wait_s`` seconds passed.
    """
    path, me, started, said = _path(results, engine), _me(), time.monotonic(), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while (found := _try(path, me)) is not None:
            if found.get("nonce") != said:
                say(f"{engine}: waiting, it is being measured by {describe(found)}")
                said = found.get("nonce")
            if time.monotonic() - started > wait_s:
                raise StorageError(f"{path}: still held by {describe(found)} after {wait_s:.0f} s; end that job, or "
                                   "delete the file if it is gone")
            time.sleep(poll_s)
    except OSError as error:
        raise StorageError(f"{path}: cannot lock ({error.strerror}); is the results folder writable?") from None
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=beat, name="lock heartbeat", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        if (_read(path) or {}).get("nonce") == me["nonce"]:
            with contextlib.suppress(OSError):
                path.unlink()
