"""A lock per engine configuration, so that two jobs never measure the same cells at once.

The lock is a file, created exclusively, that names its holder (SLURM job, host, process) and whose modification time is
the holder's heartbeat.  The lock of a dead holder (no heartbeat, or its process on this host is gone) is taken over.
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
from typing import cast

from moebench.errors import StorageError
from moebench.formats.manifest import LockHolder

HEARTBEAT_S = 5.0
STALE_S = 60.0


def _path(results: Path, engine: str) -> Path:
    return results / "locks" / f"{engine}.lock"


def _process_start(pid: int) -> str | None:
    """Start time of a live process (clock ticks since boot), or None: distinguishes a process from a later one with the
    same id."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _place() -> LockHolder:
    """Scope of process ids: this host since its last boot, in this process namespace (container)."""
    boot, namespace = "", ""
    with contextlib.suppress(OSError):
        boot, namespace = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}


def _me() -> LockHolder:
    pid = os.getpid()
    return {
        **_place(),
        "pid": pid,
        "process_start": _process_start(pid),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "nonce": secrets.token_hex(8),
    }


def _read(path: Path) -> LockHolder | None:
    try:
        data = json.loads(path.read_text())
        return cast(LockHolder, data if isinstance(data, dict) and "nonce" in data else {"nonce": "damaged"})
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"nonce": "damaged"}


def _age(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system that holds the lock."""
    probe = path.with_name(f".clock.{os.getpid()}.{threading.get_ident()}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # nothing can be written there: fall back to this machine's clock
        now = time.time()
    try:
        return now - path.stat().st_mtime
    except OSError:
        return 0.0


def _is_dead(path: Path, holder: LockHolder) -> bool:
    here = _place()
    if here["boot"] and all(holder.get(key) == value for key, value in here.items()):
        start = _process_start(holder["pid"])
        if start is not None:
            return bool(start != holder["process_start"])
        try:
            os.kill(holder["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's process, which this system hides: go by the heartbeat
            pass
        else:
            return True  # a zombie
    return _age(path) > STALE_S


def holder(results: Path, engine: str) -> LockHolder | None:
    """The live job that is measuring this engine configuration; None if there is none."""
    path = _path(results, engine)
    found = _read(path)
    return None if found is None or _is_dead(path, found) else found


def describe(found: LockHolder) -> str:
    """A holder as text."""
    job = f"SLURM job {found['slurm_job_id']}, " if found.get("slurm_job_id") else ""
    return f"{job}process {found.get('pid')} on {found.get('host')}"


def _link(temporary: Path, path: Path) -> bool:
    """Give a file a second name; False if that name is taken.  Exactly one of several succeeds, also on NFS."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def _try(path: Path, me: LockHolder) -> LockHolder | None:
    """Take the lock; return None on success, otherwise its holder or the job that is taking it over."""
    temporary = path.with_name(f".{path.name}.{me['nonce']}")
    try:
        while True:
            found = _read(path)
            if found is not None and not _is_dead(path, found):
                return found
            temporary.write_text(json.dumps(me))
            if found is None:
                if _link(temporary, path):
                    return None
            else:
                return None if _take_over(path, found, temporary) else _read(path) or found
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _take_over(path: Path, dead: LockHolder, temporary: Path) -> bool:
    """Replace a dead holder's lock, unless somebody else does.

    The process that creates the claim named after the dead holder is its only heir; if the heir dies before it is done,
    the claim named after the heir decides.  A claim created too late, after another heir was done, is detected because
    the lock no longer belongs to the dead holder.
    """
    heir, claims = dead, []
    while True:
        claim = path.with_name(f"{path.name}.after-{heir['nonce']}")
        claims.append(claim)
        if _link(temporary, claim):
            break
        other = _read(claim)
        if other is None or not _is_dead(claim, other):
            return False
        heir = other
    mine = bool((_read(path) or {}).get("nonce") == dead["nonce"])
    if mine:
        os.replace(temporary, path)
    for claim in claims if mine else claims[-1:]:
        claim.unlink(missing_ok=True)
    return mine


@contextlib.contextmanager
def held(
    results: Path, engine: str, say: Callable[[str], None], wait_s: float = 1e9, poll_s: float = 2.0
) -> Iterator[None]:
    """Hold the lock of an engine configuration; wait while another live job holds it, and print which.

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
                raise StorageError(
                    f"{path}: still held by {describe(found)} after {wait_s:.0f} s; end that job, or "
                    "delete the file if it is gone"
                )
            time.sleep(poll_s)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot lock ({error.strerror}); is the results folder writable? Free space or fix permissions"
        ) from None
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                if (_read(path) or {}).get("nonce") == me["nonce"]:  # not once another host has taken it over
                    os.utime(path)

    threading.Thread(target=beat, name="lock heartbeat", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        if (_read(path) or {}).get("nonce") == me["nonce"]:
            with contextlib.suppress(OSError):
                path.unlink()
