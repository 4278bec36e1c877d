"""A job's folder on its node's local disk, for temporary files, sockets and files that engines compile.

On clusters ``TMPDIR`` may be so long that no socket fits into it, and caches in ``$HOME`` are on NFS, full or shared
with other jobs.  Standard library only.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from moebench.errors import UserError

LOCAL = "MOEBENCH_LOCAL"
"""Variable that names its parent folder."""
LONGEST = 48
"""Characters of the folder, so that the names of sockets in it (up to 57 more) stay within the system's 107."""
LEAST_BYTES = 2 * 10**9
NETWORK = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "cifs",
    "smb",
    "ceph",
    "panfs",
    "wekafs",
    "afs",
    "fuse",
    "9p",
    "pvfs",
    "orange",
)
"""How the types of file systems begin that are shared between nodes."""
CACHES = {
    "XDG_CACHE_HOME": "cache",
    "HF_HOME": "huggingface",
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUDA_CACHE_PATH": "cuda",
    "DG_JIT_CACHE_DIR": "deepgemm",
    "NUMBA_CACHE_DIR": "numba",
    "MPLCONFIGDIR": "matplotlib",
}
"""Variables of engines and their libraries for what they keep, with a name in the job's folder."""


@dataclass(frozen=True)
class Place:
    """A candidate parent folder, and the objection to it (empty: none)."""

    folder: Path
    problem: str
    usable: bool

    def __str__(self) -> str:
        return f"{self.folder}" + (f" ({self.problem})" if self.problem else "")


def places() -> list[Place]:
    """Candidate folders in order of preference: an explicitly named one, the scheduler's, the usual ones."""
    named = (os.environ.get(name, "") for name in (LOCAL, "SLURM_TMPDIR", "TMPDIR"))
    return [_place(Path(name)) for name in dict.fromkeys([*filter(None, named), "/tmp", "/var/tmp"])]


def choose() -> Place:
    """The first candidate without objection, otherwise the first usable one. Raises UserError if there is none."""
    found = places()
    good = [place for place in found if not place.problem] or [place for place in found if place.usable]
    if not good:
        raise UserError(
            f"no folder for temporary files and sockets: {', '.join(map(str, found))}; export {LOCAL}=FOLDER, a short "
            "path on the node's own disk"
        )
    return good[0]


def make() -> Path:
    """A new folder for this job, which is removed when this process ends.  Raises UserError."""
    folder = Path(tempfile.mkdtemp(prefix="moe-", dir=choose().folder))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def needed() -> bool:
    """Whether a job needs its own folder: under SLURM, and if the usual path is too long for sockets."""
    return "SLURM_JOB_ID" in os.environ or LOCAL in os.environ or len(tempfile.gettempdir()) > LONGEST


def environment(folder: Path) -> dict[str, str]:
    """Variables that direct all temporary files and caches of a job's processes to this folder."""
    return {"TMPDIR": str(folder)} | {name: str(folder / below) for name, below in CACHES.items()}


def _place(folder: Path) -> Place:
    if not folder.is_absolute() or not folder.is_dir():
        return Place(folder, "no such folder", False)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Place(folder, "not writable", False)
    if len(str(folder)) + len("/moe-12345678") > LONGEST:
        return Place(folder, "its path is too long for sockets", False)
    kind, options = mount(folder)
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    problems = [
        (kind.startswith(NETWORK), f"on {kind}"),
        ("noexec" in options, "mounted noexec: nothing compiled can be loaded from it"),
        (free < LEAST_BYTES, f"{free / 1e9:.1f} GB free"),
    ]
    return Place(folder, "; ".join(words for wrong, words in problems if wrong), True)


def mount(folder: Path, table: Path = Path("/proc/mounts")) -> tuple[str, list[str]]:
    """Type and options of the file system that a folder is on; ``("", [])`` if the system does not report it."""
    where, found = os.path.realpath(folder), ("", list[str]())
    try:
        lines = [line.split() for line in table.read_text(errors="replace").splitlines()]
    except OSError:
        return found
    longest = -1
    for _, point, kind, options, *_ in (line for line in lines if len(line) >= 4):
        at = point.replace("\\040", " ")
        if (where == at or where.startswith(at.rstrip("/") + "/")) and len(at) >= longest:
            longest, found = len(at), (kind, options.split(","))
    return found
