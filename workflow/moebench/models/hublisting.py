"""Lists the files of a repository on the hub at a commit, with sizes and checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, filter_repo_objects

from moebench.config import HubSource
from moebench.errors import StageError
from moebench.storage import staged

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository as the hub lists it; ``size`` in bytes."""

    name: str
    size: int
    algorithm: Literal["sha256", "git-sha1"]
    digest: str


@dataclass(frozen=True)
class Hub:
    """How to query the hub: endpoint, headers, and kind of repository (``model`` or ``dataset``)."""

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


def connect(endpoint: str | None, repo_type: str) -> Hub:
    """Endpoint: the argument, the current HF_ENDPOINT, or the hub.  Token: HF_TOKEN or `hf auth login`'s store."""
    constants.HF_HUB_DISABLE_TELEMETRY = True  # else building headers asks the hub for a list and caches it in HF_HOME
    chosen = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    return Hub(chosen.rstrip("/"), build_hf_headers(library_name="moebench"), repo_type)


def list_files(hub: Hub, source: HubSource, revision: str) -> Listing:
    """Query the hub for the commit of ``revision`` and its files, with sizes and checksums."""
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
    if not inside(name) or name == staged.MANIFEST:
        raise StageError(f"the repository has a file named {name!r}, which is refused; narrow include to leave it out")
    if sibling.lfs is not None:
        return RemoteFile(name, sibling.lfs.size, "sha256", sibling.lfs.sha256)
    if sibling.size is None or sibling.blob_id is None:
        raise StageError(f"no size and checksum was given for {name}; HF_ENDPOINT must be a hub that gives them")
    return RemoteFile(name, sibling.size, "git-sha1", sibling.blob_id)


def _hidden(name: str) -> bool:
    """Whether a file is hidden.  Hidden files are not part of a staged model, so its manifest does not list them."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)


def inside(name: str) -> bool:
    """Whether a file of this name stays in its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def is_whole(file: RemoteFile, path: Path, seen: Callable[[int], object]) -> bool:
    """Whether ``path`` has the size and the checksum of ``file``: SHA-256 of LFS files, git's blob SHA-1 of others.

    ``seen`` is called with the number of bytes read.  Raises OSError.
    """
    if path.stat().st_size != file.size:
        return False
    state = hashlib.new(file.algorithm.removeprefix("git-"), usedforsecurity=False)
    if file.algorithm == "git-sha1":
        state.update(b"blob %d\0" % file.size)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            state.update(block)
            seen(len(block))
    return state.hexdigest() == file.digest


def check_access(hub: Hub, source: HubSource, commit: str, file: RemoteFile) -> None:
    """Ask for one file's headers: a gated repository lists its files to everybody and refuses only downloads."""
    url = hf_hub_url(source.hub, file.name, repo_type=hub.repo_type, revision=commit, endpoint=hub.endpoint)
    get_hf_file_metadata(url, headers=hub.headers, endpoint=hub.endpoint)
