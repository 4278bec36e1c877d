"""A model that is already on a shared disk: its files are hashed, pinned and linked, never copied or changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from moebench.config import Source
from moebench.config.lockfile import SHARED_REVISION, ModelLock
from moebench.errors import StageError
from moebench.formats.manifest import StagedFile
from moebench.models.hubprogress import Progress, size_text
from moebench.storage import staged


def stage_shared(
    source: Source,
    folder_for: Callable[[str], Path],
    lock: ModelLock,
    progress: Progress,
    update: bool = False,
    full: bool = False,
) -> Path:
    """Link a shared model's files into ``folder_for(revision)``, with a manifest; return the folder.

    All files are hashed once, and the hash of all is pinned in the lock file; files that differ from the pinned ones
    are refused.  ``update`` pins the current files.  ``full`` also hashes files whose size is right. Raises StageError,
    one line that names the folder.
    """
    assert source.path is not None
    shared, name = Path(source.path), source.shared
    pinned = None if update else lock.commit(name, SHARED_REVISION)
    if pinned and not full and not staged.check(folder := folder_for(pinned)):
        return folder
    files = _hashed(shared, progress)
    revision = _revision(files)
    if pinned not in (None, revision):
        raise StageError(
            f"{shared}: its files differ from the pinned ones ({pinned[:12]}); restore those, or pin these: "
            "`moebench stage --update`"
        )
    lock.pin(name, SHARED_REVISION, revision, files=len(files), bytes_=sum(f["bytes"] for f in files.values()))
    folder = folder_for(revision)
    _link(shared, folder, files, name, revision)
    lock.staged(name, SHARED_REVISION)
    return folder


def _hashed(shared: Path, progress: Progress) -> dict[str, StagedFile]:
    """Sizes and checksums of the files of a shared folder."""
    try:
        if not shared.is_dir():
            raise StageError(
                f"{shared}: no such folder; correct source.path, or run this on a machine where the disk is mounted"
            )
        if not (shared / "config.json").is_file():
            raise StageError(f"{shared}: no config.json; give the folder of a checkpoint in the transformers format")
        size = sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())
        progress.note(f"{shared}: reading {size_text(size)} for checksums; nothing is copied")
        return staged.checksums(shared)
    except OSError as error:
        raise StageError(f"{error.filename or shared}: cannot be read ({error.strerror}); ask for access") from None


def _revision(files: dict[str, StagedFile]) -> str:
    """The first 40 digits of the hash of all checksums."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:40]


def _link(shared: Path, folder: Path, files: dict[str, StagedFile], source: str, revision: str) -> None:
    """Create the folder of links, completely or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name in files:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).symlink_to(shared / name)
        staged.write_manifest(new, source, revision, files=files)
        staged.publish(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
