"""Effects of a site's shell and file systems on a study: checked by ``moebench doctor`` and before each run."""

from __future__ import annotations

import contextlib
import locale
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from moebench.commands.findings import Finding
from moebench.errors import UserError
from moebench.storage import scratch

SKEW_S = 30
"""Clocks of this machine and of the file server that differ by more may make Snakemake see old files as new."""
LEAST_FILES = 4096
SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_MB = 1000
LONGEST_NAME = 200
"""Characters of the longest file name in a results folder: engine configuration, stamp, and what a draft adds."""
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_LIBRARIES = ("libnccl*", "libcudart*", "libcublas*", "libcudnn*", "libtorch*", "libstdc++*")


def look(results: Path) -> list[Finding]:
    """All findings; those without a problem share one line."""
    found = [*_python(), *_libraries(), *_encoding(), *_limits(), *_shared(), *_certificates(), *_folder(results)]
    if not found:
        found = [Finding("shell", True, "search paths, encoding, ulimits, certificates, clock and umask are fine")]
    return [*found, local_folder()]


def refuse() -> None:
    """Raise UserError, in one line, for a shell in which numbers or texts would not be what they seem."""
    for finding in (*_python(), *_encoding()):
        raise UserError(f"{finding.seen}; {finding.todo}")


def foreign(search_path: str) -> list[str]:
    """Folders of a ``PYTHONPATH`` with installed packages: those of another Python, before the locked ones."""
    folders = [folder for folder in search_path.split(os.pathsep) if folder]
    return [
        folder for folder in folders if any(Path(folder).glob("*.dist-info")) or any(Path(folder).glob("*.egg-info"))
    ]


def _python() -> Iterator[Finding]:
    if found := foreign(os.environ.get("PYTHONPATH", "")):
        seen = f"PYTHONPATH puts the packages in {found[0]} before those of the locked environments"
        yield Finding("shell", False, seen, "unset PYTHONPATH (`module purge`, or `conda deactivate`)")
    if home := os.environ.get("PYTHONHOME"):
        seen = f"PYTHONHOME={home} gives every Python another standard library"
        yield Finding("shell", False, seen, "unset PYTHONHOME")


def _libraries() -> Iterator[Finding]:
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        names = sorted(path.name for kind in _LIBRARIES for path in Path(folder).glob(kind)) if folder else []
        if names:
            seen = f"LD_LIBRARY_PATH puts {folder}/{names[0]} before the libraries of the locked environments"
            yield Finding("shell", None, seen, "unset LD_LIBRARY_PATH before you start snakemake (`module purge`)")
    if preload := os.environ.get("LD_PRELOAD"):
        yield Finding("shell", None, f"LD_PRELOAD={preload}", "unset LD_PRELOAD before you start snakemake")


def _encoding() -> Iterator[Finding]:
    found = locale.getpreferredencoding(False)  # utf-8 in Python's UTF-8 mode, which it chooses for the locale C
    if found.lower().replace("_", "-") not in ("utf-8", "utf8"):
        named = next(
            (f"{k}={os.environ[k]}" for k in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(k)), "the locale"
        )
        seen = f"{named}: files are read and written as {found}, but the project's files are UTF-8"
        yield Finding("shell", False, seen, "export PYTHONUTF8=1, or LC_ALL=C.UTF-8")


def _limits() -> Iterator[Finding]:
    """Limits of processes: SLURM gives those of the shell that submits to its jobs."""
    todo = ", before you start snakemake: jobs inherit it (or slurm_extra: \"'--propagate=NONE'\" in the profile)"
    none = resource.RLIM_INFINITY
    for option, what, number in (
        ("-t", "CPU time", resource.RLIMIT_CPU),
        ("-v", "address space", resource.RLIMIT_AS),
        ("-f", "file size", resource.RLIMIT_FSIZE),
    ):
        soft, _ = resource.getrlimit(number)
        if soft != none:
            seen = f"ulimit {option}: {what} is limited to {soft}"
            yield Finding("ulimit", False, seen, f"ulimit {option} unlimited{todo}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != none and hard < LEAST_FILES:
        seen = f"ulimit -n: {soft} open files, at most {hard}; engines with several GPUs need {LEAST_FILES}"
        yield Finding("ulimit", False, seen, "ask for a higher limit on open files")
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != none and soft < LEAST_FILES:
        seen = f"ulimit -u: {soft} processes and threads; engines with several GPUs need {LEAST_FILES}"
        yield Finding("ulimit", False, seen, f"ulimit -u {LEAST_FILES}{todo}")


def _shared() -> Iterator[Finding]:
    """Memory through which the ranks of an engine exchange data: containers have 64 MB of it, or none."""
    free_mb = 0.0
    with contextlib.suppress(OSError):
        room = os.statvfs(SHARED_MEMORY)
        free_mb = room.f_bavail * room.f_frsize / 1e6
    if free_mb < LEAST_SHARED_MB:
        seen = f"{SHARED_MEMORY}: {free_mb:.0f} MB free; engines with several GPUs need {LEAST_SHARED_MB}"
        yield Finding("shared memory", False, seen, "make it larger (of a container: --shm-size=8g), or free some")


def certificates() -> dict[str, str]:
    """A site's CA by the name that the hub's client and uv know it by, if the shell has another name for it."""
    named = [path for name in _CERTIFICATES if name != "SSL_CERT_DIR" and (path := os.environ.get(name))]
    return {"SSL_CERT_FILE": named[0]} if named else {}


def _certificates() -> Iterator[Finding]:
    for name in _CERTIFICATES:
        path = os.environ.get(name)
        if path and not os.access(path, os.R_OK):
            yield Finding("certificates", False, f"{name}={path} cannot be read", f"fix or unset {name}")


def _folder(results: Path) -> Iterator[Finding]:
    """Properties that the results folder needs: long file names, files replaced whole, this machine's time."""
    umask = os.umask(0o022)
    os.umask(umask)
    if umask & 0o700:
        yield Finding("umask", False, f"umask {umask:04o}: you could not read your own files", "umask 022")
    place = next(folder for folder in (results.absolute(), *results.absolute().parents) if folder.is_dir())
    if umask & 0o020 and place == results.absolute() and place.stat().st_mode & 0o020:
        seen = f"{place} is shared by a group, umask {umask:04o} keeps its other members from changing your files"
        yield Finding("umask", None, seen, "umask 002, if others are to continue with your results")
    if not os.access(place, os.W_OK):
        return  # reported elsewhere
    probe = place / f".moebench-doctor-{os.getpid()}-".ljust(LONGEST_NAME, "x")
    try:
        probe.write_bytes(b"x")
        skew = probe.stat().st_mtime - time.time()
        os.replace(probe, probe.with_suffix(".y"))
        probe.with_suffix(".y").unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink()
        seen = f"{place}: a file with a name of {LONGEST_NAME} characters cannot be written ({error.strerror})"
        yield Finding("results", False, seen, "set results in config/config.yaml to another file system")
        return
    if abs(skew) > SKEW_S:
        seen = f"the clock of the file system at {place} is {skew:+.0f} s from this machine's"
        yield Finding("clock", False, seen, "have the clocks synchronized (NTP): Snakemake compares file times")


def local_folder() -> Finding:
    """Where jobs keep temporary files, sockets and caches."""
    todo = (
        f"export {scratch.LOCAL}=FOLDER before you start snakemake: a short path on a node's own disk (docs/slurm.md)"
    )
    try:
        place = scratch.choose()
    except UserError as error:
        return Finding("local folder", False, str(error), todo)
    return Finding("local folder", None if place.problem else True, f"jobs keep caches and sockets in {place}", todo)
