"""Staging a model or a data set from the Hugging Face hub: on the login node, at a pinned commit, checked file by file.

A branch is resolved once and pinned in the lock file.  huggingface_hub downloads the files; each is then hashed and
compared with what the hub lists.  A folder counts as staged only if it has a manifest, which is written last.
"""

from __future__ import annotations

import contextlib
import glob
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import httpx2
from huggingface_hub import snapshot_download

from moebench.config import HubSource
from moebench.config.lockfile import ModelLock
from moebench.errors import StageError
from moebench.formats.manifest import StageManifest
from moebench.models.huberrors import Asked, explain, passing_reason
from moebench.models.hublisting import Hub, Listing, RemoteFile, check_access, connect, inside, is_whole, list_files
from moebench.models.hubprogress import Progress, feeding, size_text
from moebench.storage import staged

RETRY_WAITS_S = (5.0, 30.0, 120.0)
"""Waits before the missing files are asked for again, where the connection or the hub failed."""

DOWNLOADS = Path(".cache") / "huggingface"
"""Where huggingface_hub keeps unfinished files, below a model's folder."""


@dataclass(frozen=True)
class Staged:
    """A complete model on disk; ``bytes`` is the size of all its files, ``fetched_files`` the number downloaded now."""

    folder: Path
    commit: str
    files: int
    bytes: int
    fetched_files: int


def stage_hub(
    source: HubSource,
    folder_for: Callable[[str], Path],
    lock: ModelLock,
    progress: Progress,
    *,
    update: bool = False,
    full: bool = False,
    endpoint: str | None = None,
    retry_waits_s: tuple[float, ...] = RETRY_WAITS_S,
    repo_type: str = "model",
) -> Staged:
    """Download the model (``repo_type``: or ``dataset``) to ``folder_for(commit)`` completely; return its folder and
    facts.

    ``update`` resolves the branch anew.  ``full`` hashes the files on disk, so that an altered one is detected and
    downloaded again; otherwise a file in the manifest is checked only by its size.  ``endpoint``: instead of
    HF_ENDPOINT. If the hub cannot be reached but the pinned commit is complete on disk, a note is printed and that is
    used.

    Raises StageError, one line that names the repository; ConfigError or StorageError naming the lock file.
    """
    hub = connect(endpoint, repo_type)
    pinned = None if update else lock.commit(source.hub, source.revision)
    asked = Asked(source.hub, source.revision, pinned, hub.endpoint, hub.token, repo_type)
    try:
        listing = list_files(hub, source, pinned or source.revision)
    except (StageError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, KeyError, TypeError) as error:
        reason = explain(error, asked)
        if pinned and (kept := _kept(source, folder_for(pinned), pinned, full, progress, reason)):
            return kept
        raise reason from None
    folder = folder_for(listing.commit)
    try:
        return _Staging(hub, source, listing, folder, lock, progress).run(full, retry_waits_s)
    except (StageError, httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise explain(error, asked, folder) from None


def _kept(
    source: HubSource, folder: Path, commit: str, full: bool, progress: Progress, reason: StageError
) -> Staged | None:
    """The existing folder, if it contains the complete pinned commit; otherwise its problems are printed."""
    if not _has_manifest(source, folder, commit):
        return None
    problems = staged.check(folder, full=full)
    for problem in problems:
        progress.note(f"{source.hub}: {problem}")
    if problems:
        return None
    progress.note(f"{reason}; using {folder}, which is complete")
    sizes = list(_manifest_sizes(folder).values())
    return Staged(folder, commit, len(sizes), sum(sizes), 0)


def _has_manifest(source: HubSource, folder: Path, commit: str) -> bool:
    """Whether the folder has a manifest of this commit."""
    manifest = _manifest(folder)
    return manifest is not None and (manifest["source"], manifest["revision"]) == (f"hub:{source.hub}", commit)


def _manifest_sizes(folder: Path) -> dict[str, int]:
    """Bytes by file name, from the manifest."""
    manifest = _manifest(folder)
    return {name: entry["bytes"] for name, entry in manifest["files"].items()} if manifest else {}


def _manifest(folder: Path) -> StageManifest | None:
    """The folder's manifest; None if it is missing or damaged."""
    try:
        return staged.read_manifest(folder)
    except ValueError:
        return None


@dataclass(frozen=True)
class _Staging:
    """One repository on its way to its folder."""

    hub: Hub
    source: HubSource
    listing: Listing
    folder: Path
    lock: ModelLock
    progress: Progress

    def run(self, full: bool, waits_s: tuple[float, ...]) -> Staged:
        """See ``stage_hub``.  Nothing is written until space and access are checked."""
        listing = self.listing
        known = _has_manifest(self.source, self.folder, listing.commit)
        missing = self._missing(trusted=self._by_size() if known and not full else frozenset())
        self._check_room(missing)
        if missing:
            check_access(self.hub, self.source, listing.commit, missing[0])
        self._pin()
        if missing or not known:
            with self._alone():
                self._drop_old(known)
                self._fetch(missing, waits_s)
                self._finish()
        self.lock.staged(self.source.hub, self.source.revision)
        return Staged(self.folder, listing.commit, len(listing.files), listing.bytes, len(missing))

    def _by_size(self) -> frozenset[str]:
        """Names of the files that are in the manifest and have the right size."""
        sizes = _manifest_sizes(self.folder)
        return frozenset(
            file.name
            for file in self.listing.files
            if sizes.get(file.name) == file.size and (self.folder / file.name).is_file()
            if (self.folder / file.name).stat().st_size == file.size
        )

    def _missing(self, trusted: frozenset[str]) -> list[RemoteFile]:
        """Files that are missing or differ from the hub's; all but the ``trusted`` ones are hashed."""
        unsure = [file for file in self.listing.files if file.name not in trusted]
        wrong = self._wrong(unsure)
        for file in wrong:
            self.progress.note(f"{file.name}: differs from the hub; it will be downloaded again")
        return [file for file in unsure if file in wrong or not (self.folder / file.name).is_file()]

    def _wrong(self, files: list[RemoteFile]) -> list[RemoteFile]:
        """Existing files whose size or checksum differs from the hub's list."""
        there = [file for file in files if (self.folder / file.name).is_file()]
        if not there:
            return []
        with self.progress.bar(f"{self.source.hub}: checking", sum(file.size for file in there)) as bar:
            return [file for file in there if not is_whole(file, self.folder / file.name, bar.update)]

    def _check_room(self, missing: list[RemoteFile]) -> None:
        """Print the required and the free space; raise StageError if it does not fit."""
        place = self.folder
        while not place.exists():
            place = place.parent
        need = sum(file.size for file in missing)
        free = shutil.disk_usage(place).free
        total = f"{len(self.listing.files)} files, {size_text(self.listing.bytes)}"
        self.progress.note(
            f"{self.source.hub}: {self.source.revision} is {self.listing.commit}: {total}; "
            f"to fetch: {len(missing)} files, {size_text(need)}; free at {place}: {size_text(free)}"
        )
        if need > free:
            raise StageError(
                f"does not fit: {size_text(need)} to fetch, {size_text(free)} free at {place}; nothing was written: "
                "free space, or put the models folder on another file system"
            )

    def _pin(self) -> None:
        hub, revision, commit = self.source.hub, self.source.revision, self.listing.commit
        old = self.lock.commit(hub, revision)
        if old not in (None, commit):
            self.progress.note(f"{hub}: {revision} moved from {old} to {commit}")
        self.lock.pin(hub, revision, commit, files=len(self.listing.files), bytes_=self.listing.bytes)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder against another process that stages the same commit."""
        guard = self.folder / DOWNLOADS.parent / "moebench.lock"
        guard.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(guard, timeout=0):
                yield
        except filelock.Timeout:
            raise StageError(
                f"{self.folder}: another process is downloading it; wait for it, then run this again (if there is "
                f"none: "
                f"remove {guard})"
            ) from None

    def _drop_old(self, known: bool) -> None:
        """From here until ``_finish`` the folder has no manifest; another commit's files are removed with theirs, and
        so are the remains of a killed download."""
        if not known:
            wanted = {file.name for file in self.listing.files}
            for name in filter(inside, _manifest_sizes(self.folder).keys() - wanted):
                (self.folder / name).unlink(missing_ok=True)
        (self.folder / staged.MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.folder / DOWNLOADS, ignore_errors=True)

    def _fetch(self, missing: list[RemoteFile], waits_s: tuple[float, ...]) -> None:
        """Download ``missing``.  Temporary failures are retried; files that arrive altered are downloaded once more."""
        altered: set[RemoteFile] = set()
        for wait_s in (*waits_s, None):
            reason = self._download(missing, last=wait_s is None)
            wrong = self._wrong(missing)
            for file in wrong:
                (self.folder / file.name).unlink()
                if file in altered:
                    raise StageError(
                        f"{file.name}: arrived twice with a wrong {file.algorithm} (expected {file.digest}); "
                        "deleted: try again later or through another network (a proxy may alter it)"
                    )
                self.progress.note(f"{file.name}: arrived with a wrong checksum; downloading it again")
            altered.update(wrong)
            missing = [file for file in missing if not (self.folder / file.name).is_file()]
            if not missing:
                return
            if wait_s is not None and not wrong:
                why = reason or "not all files arrived"
                self.progress.note(f"{self.source.hub}: {why}; {len(missing)} files to go, again in {wait_s:g} s")
                time.sleep(wait_s)
        raise StageError(f"{missing[0].name}: missing after the download; run this again: complete files are kept")

    def _download(self, missing: list[RemoteFile], last: bool) -> str | None:
        """Have huggingface_hub download ``missing``; return a temporary failure (raised on the ``last`` try)."""
        for file in missing:  # the library keeps an existing file, whatever its content
            (self.folder / file.name).unlink(missing_ok=True)
        done = self.listing.bytes - sum(file.size for file in missing)
        try:
            with self.progress.bar(self.source.hub, self.listing.bytes, done) as bar, _ended_by_control_c():
                snapshot_download(
                    self.source.hub,
                    repo_type=self.hub.repo_type,
                    revision=self.listing.commit,
                    local_dir=self.folder,
                    allow_patterns=[glob.escape(file.name) for file in missing],
                    endpoint=self.hub.endpoint,
                    library_name="moebench",
                    tqdm_class=feeding(bar),
                )
        except (httpx2.HTTPError, OSError, RuntimeError) as error:
            reason = passing_reason(error)
            if last or reason is None:
                raise
            return reason
        return None

    def _finish(self) -> None:
        """Remove the download's temporary files and write the manifest."""
        shutil.rmtree(self.folder / DOWNLOADS.parent)
        self.progress.note(f"{self.source.hub}: writing {self.folder / staged.MANIFEST}")
        staged.write_manifest(self.folder, f"hub:{self.source.hub}", self.listing.commit)


@contextlib.contextmanager
def _ended_by_control_c() -> Iterator[None]:
    """Ctrl-C ends the process at once: the library would first finish the files it has started, which can take hours.

    No cleanup is necessary: a folder without a manifest is not staged, and partial files are removed the next time.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
