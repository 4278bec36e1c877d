"""Staging a model or a data set from the Hugging Face hub: on the login node, at a pinned commit, checked file by file.

A branch is resolved once and pinned in the lock file; a folder counts as staged only once its manifest is there,
and that is written last.  Interrupted downloads are continued; see ``hubfetch``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, filter_repo_objects

from moebench import staged
from moebench.config import HubSource
from moebench.errors import StageError
from moebench.huberrors import Asked, explain
from moebench.hubfetch import PARTIAL, RETRY_WAITS_S, Cancelled, RemoteFile, Transfer, fetch, is_whole
from moebench.hubprogress import Progress, size_text
from moebench.modellock import ModelLock


@dataclass(frozen=True)
class Staged:
    """A model whole on disk; ``bytes`` is the size of all its files, ``fetched_files`` what this call downloaded."""

    folder: Path
    commit: str
    files: int
    bytes: int
    fetched_files: int


@dataclass(frozen=True)
class Hub:
    """How the hub is asked: where, as whom, and for which kind of repository (``model`` or ``dataset``)."""

    endpoint: str
    headers: dict[str, str]
    repo_type: str = "model"

    @property
    def token(self) -> str | None:
        """The token in the headers, so that it can be kept out of messages."""
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass(frozen=True)
class Listing:
    """The wanted files of a repository at a commit."""

    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def bytes(self) -> int:
        """Size of all files, bytes."""
        return sum(file.size for file in self.files)


def stage_hub(
    source: HubSource,
    folder_for: Callable[[str], Path],
    lock: ModelLock,
    progress: Progress,
    *,
    update: bool = False,
    full: bool = False,
    endpoint: str | None = None,
    workers: int = 4,
    retry_waits_s: tuple[float, ...] = RETRY_WAITS_S,
    repo_type: str = "model",
) -> Staged:
    """Bring the model (``repo_type``: or ``dataset``) to ``folder_for(commit)``, whole; return where and what it is.

    ``update`` resolves the branch anew.  ``full`` hashes the files that are there already, so that an altered one is
    found and fetched again; otherwise a file of the manifest is taken as whole by its size.  ``endpoint``: instead of
    HF_ENDPOINT.  Where the hub cannot be asked but the pinned commit is whole on disk, that is said, and it is taken.

    Raises StageError, one line that names the repository; ConfigError or StorageError naming the lock file.
    """
    hub = _connect(endpoint, repo_type)
    pinned = None if update else lock.commit(source.hub, source.revision)
    asked = Asked(source.hub, source.revision, pinned, hub.endpoint, hub.token, repo_type)
    try:
        listing = _list(hub, source, pinned or source.revision)
    except (StageError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, KeyError, TypeError) as error:
        reason = explain(error, asked)
        if pinned and (kept := _kept(source, folder_for(pinned), pinned, full, progress, reason)):
            return kept
        raise reason from None
    folder = folder_for(listing.commit)
    try:
        return _Staging(hub, source, listing, folder, lock, progress).run(full, workers, retry_waits_s)
    except (StageError, httpx2.HTTPError, OSError) as error:
        raise explain(error, asked, folder) from None


def _connect(endpoint: str | None, repo_type: str) -> Hub:
    """Endpoint: the argument, HF_ENDPOINT as it is now, or the hub.  Token: HF_TOKEN or `hf auth login`'s store."""
    constants.HF_HUB_DISABLE_TELEMETRY = True  # else building headers asks the hub for a list and caches it in HF_HOME
    chosen = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    return Hub(chosen.rstrip("/"), build_hf_headers(library_name="moebench"), repo_type)


def _kept(
    source: HubSource, folder: Path, commit: str, full: bool, progress: Progress, reason: StageError
) -> Staged | None:
    """The folder as it is, if it holds the pinned commit whole; what is wrong with it is shown otherwise."""
    if not _has_manifest(source, folder, commit):
        return None
    problems = staged.check(folder, full=full)
    for problem in problems:
        progress.note(f"{source.hub}: {problem}")
    if problems:
        return None
    progress.note(f"{reason}; taken as it is: {folder} is whole")
    sizes = list(_manifest_sizes(folder).values())
    return Staged(folder, commit, len(sizes), sum(sizes), 0)


def _has_manifest(source: HubSource, folder: Path, commit: str) -> bool:
    """Whether the folder has a manifest, and it is of this commit; a damaged one is none."""
    try:
        manifest = staged.read_manifest(folder) or {}
    except ValueError:
        return False
    return (manifest.get("source"), manifest.get("revision")) == (f"hub:{source.hub}", commit)


def _manifest_sizes(folder: Path) -> dict[str, int]:
    """Bytes by file name as the manifest has them; empty where there is none or it is damaged."""
    try:
        manifest = staged.read_manifest(folder) or {}
    except ValueError:
        return {}
    return {name: entry["bytes"] for name, entry in manifest.get("files", {}).items()}


# -------------------------------------------------------------------------------------------- listing


def _list(hub: Hub, source: HubSource, revision: str) -> Listing:
    """Ask the hub which commit ``revision`` is and what files it has, with sizes and checksums."""
    api = HfApi(endpoint=hub.endpoint, library_name="moebench")
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    ask = api.dataset_info if hub.repo_type == "dataset" else api.model_info
    info = ask(source.hub, revision=revision, files_metadata=True, timeout=timeout)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    wanted = sorted(n for n in filter_repo_objects(siblings, allow_patterns=list(source.include)) if not _hidden(n))
    if not wanted:
        raise StageError(f"none of its {len(siblings)} files matches include: {', '.join(source.include)}")
    if info.sha is None:
        raise StageError(f"{hub.endpoint} gave no commit; HF_ENDPOINT must be a hub that does")
    return Listing(info.sha, tuple(_remote_file(siblings[name]) for name in wanted))


def _remote_file(sibling: RepoSibling) -> RemoteFile:
    name = sibling.rfilename
    if not _inside(name) or name.endswith(PARTIAL) or name == staged.MANIFEST:
        raise StageError(f"the repository has a file named {name!r}, which is refused; narrow include to leave it out")
    if sibling.lfs is not None:
        return RemoteFile(name, sibling.lfs.size, "sha256", sibling.lfs.sha256)
    if sibling.size is None or sibling.blob_id is None:
        raise StageError(f"no size and checksum was given for {name}; HF_ENDPOINT must be a hub that gives them")
    return RemoteFile(name, sibling.size, "git-sha1", sibling.blob_id)


def _hidden(name: str) -> bool:
    """Whether a file is hidden: such a one is not part of a staged model, so its manifest does not list it."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)


def _inside(name: str) -> bool:
    """Whether a file of this name stays in its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


# -------------------------------------------------------------------------------------------- staging


@dataclass(frozen=True)
class _Staging:
    """One repository on its way to its folder."""

    hub: Hub
    source: HubSource
    listing: Listing
    folder: Path
    lock: ModelLock
    progress: Progress

    def run(self, full: bool, workers: int, waits_s: tuple[float, ...]) -> Staged:
        """See ``stage_hub``.  Nothing is written before it is known that it fits and may be read."""
        listing = self.listing
        known = _has_manifest(self.source, self.folder, listing.commit)
        missing = self._missing(trusted=self._by_size() if known and not full else frozenset())
        self._check_room(missing)
        if missing:
            self._check_access(missing[0])
        self._pin()
        if missing or not known:
            self._drop_old(known)
            self._fetch(missing, workers, waits_s)
            self._finish()
        self.lock.staged(self.source.hub, self.source.revision)
        return Staged(self.folder, listing.commit, len(listing.files), listing.bytes, len(missing))

    def _by_size(self) -> frozenset[str]:
        """Names of the files that the manifest vouches for and that have their size."""
        sizes = _manifest_sizes(self.folder)
        return frozenset(
            file.name
            for file in self.listing.files
            if sizes.get(file.name) == file.size and file.target(self.folder).is_file()
            if file.target(self.folder).stat().st_size == file.size
        )

    def _missing(self, trusted: frozenset[str]) -> list[RemoteFile]:
        """Files that are not there, or not as the hub has them; all but the ``trusted`` are hashed."""
        unsure = [file for file in self.listing.files if file.name not in trusted]
        there = [file for file in unsure if file.target(self.folder).is_file()]
        if not there:
            return unsure
        self.progress.begin(f"{self.source.hub}: checking", files=len(there), bytes_=sum(file.size for file in there))
        whole = set()
        for file in there:
            if is_whole(file, file.target(self.folder), self.progress.advance):
                whole.add(file.name)
            else:
                self.progress.note(f"{file.name}: not as the hub has it; it will be fetched again")
            self.progress.file_done()
        self.progress.end()
        return [file for file in unsure if file.name not in whole]

    def _check_room(self, missing: list[RemoteFile]) -> None:
        """Say what is needed and what is free; raise StageError if it does not fit."""
        place = self.folder
        while not place.exists():
            place = place.parent
        need = sum(file.size - file.partial_bytes(self.folder) for file in missing)
        free = shutil.disk_usage(place).free
        total = f"{len(self.listing.files)} files, {size_text(self.listing.bytes)}"
        self.progress.note(
            f"{self.source.hub}: {self.source.revision} is {self.listing.commit}: {total}; "
            f"to fetch: {len(missing)} files, {size_text(need)}; free at {place}: {size_text(free)}"
        )
        if need > free:
            raise StageError(
                f"does not fit: {size_text(need)} to fetch, {size_text(free)} free at {place}; nothing was written: "
                "make room, or put the models folder on another file system"
            )

    def _check_access(self, file: RemoteFile) -> None:
        """Ask for one file's headers: a gated repository lists its files to everybody and refuses only these."""
        get_hf_file_metadata(self._url(file.name), headers=self.hub.headers, endpoint=self.hub.endpoint)

    def _pin(self) -> None:
        hub, revision, commit = self.source.hub, self.source.revision, self.listing.commit
        old = self.lock.commit(hub, revision)
        if old not in (None, commit):
            self.progress.note(f"{hub}: {revision} moved from {old} to {commit}")
        self.lock.pin(hub, revision, commit, files=len(self.listing.files), bytes_=self.listing.bytes)

    def _drop_old(self, known: bool) -> None:
        """From here until ``_finish`` the folder has no manifest; another commit's files leave with theirs."""
        if not known:
            wanted = {file.name for file in self.listing.files}
            for name in filter(_inside, _manifest_sizes(self.folder).keys() - wanted):
                (self.folder / name).unlink(missing_ok=True)
        (self.folder / staged.MANIFEST).unlink(missing_ok=True)

    def _fetch(self, missing: list[RemoteFile], workers: int, waits_s: tuple[float, ...]) -> None:
        """Download ``missing``, ``workers`` files at a time; the first failure stops all."""
        absent = {file.name for file in missing}
        here = sum(file.size for file in self.listing.files if file.name not in absent)
        self.progress.begin(
            self.source.hub,
            files=len(self.listing.files),
            bytes_=self.listing.bytes,
            done_files=len(self.listing.files) - len(missing),
            done_bytes=here + sum(file.partial_bytes(self.folder) for file in missing),
        )
        transfer = Transfer(self._url, self.hub.headers, self.progress, waits_s)
        try:
            with ThreadPoolExecutor(workers) as pool:
                futures = [pool.submit(fetch, file, self.folder, transfer) for file in missing]
                try:
                    wait(futures, return_when=FIRST_EXCEPTION)
                finally:
                    if not all(future.done() and not future.exception() for future in futures):
                        transfer.stop.set()
                        pool.shutdown(cancel_futures=True)
            _raise_first(futures)
        finally:
            self.progress.end()

    def _finish(self) -> None:
        """Throw away partial files nobody continues, and write the manifest."""
        for left in self.folder.rglob(f"*{PARTIAL}"):
            left.unlink()
        self.progress.note(f"{self.source.hub}: writing {self.folder / staged.MANIFEST}")
        staged.write_manifest(self.folder, f"hub:{self.source.hub}", self.listing.commit)

    def _url(self, name: str) -> str:
        return hf_hub_url(
            self.source.hub,
            name,
            repo_type=self.hub.repo_type,
            revision=self.listing.commit,
            endpoint=self.hub.endpoint,
        )


def _raise_first(futures: list[Future[None]]) -> None:
    """Raise what went wrong first: those cancelled for it say nothing."""
    errors = [future.exception() for future in futures if not future.cancelled()]
    for error in errors:
        if error is not None and not isinstance(error, Cancelled):
            raise error
