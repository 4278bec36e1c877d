"""Fetching one file of a hub repository: resumed where it was interrupted, in place only once its checksum is right.

huggingface_hub's own downloader (since 1.18) throws a partial file away, because two processes appending to one
file corrupt it where file locks do not work, and it does not compare checksums.  Here partial files are kept, held
under a file lock, and every file is hashed before it gets its name: where locks do not work that costs a second
download, never a wrong file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import httpx2
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status

from moebench.errors import StageError
from moebench.hubprogress import Progress
from moebench.modellock import hold

PARTIAL = ".partial"
RETRY_WAITS_S = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Waits between tries that brought no new byte; a try that brought some starts from the first again."""

_BLOCK_BYTES = 1 << 20

Algorithm = Literal["sha256", "git-sha1", "md5"]


class Cancelled(Exception):
    """Another file failed or the user pressed Ctrl-C: this one stops, its partial file stays."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository as the hub describes it; ``size`` in bytes."""

    name: str
    size: int
    algorithm: Algorithm
    digest: str

    def target(self, folder: Path) -> Path:
        """Where the whole, checked file goes."""
        return folder / self.name

    def partial(self, folder: Path) -> Path:
        """Where it grows: named after its content, so a partial file of another revision is never continued."""
        target = self.target(folder)
        return target.with_name(f"{target.name}.{self.digest[:12]}{PARTIAL}")

    def partial_bytes(self, folder: Path) -> int:
        """Bytes already there that a download continues from."""
        try:
            return min(self.partial(folder).stat().st_size, self.size)
        except FileNotFoundError:
            return 0


@dataclass
class Transfer:
    """What the downloads of one repository share."""

    url: Callable[[str], str]
    headers: dict[str, str]
    progress: Progress
    waits_s: tuple[float, ...] = RETRY_WAITS_S
    stop: threading.Event = field(default_factory=threading.Event)


def digest_of(path: Path, algorithm: Algorithm, seen: Callable[[int], None] = lambda _: None) -> str:
    """Checksum of a file as the hub gives it: SHA-256 of LFS files, git's blob SHA-1 of the others (or MD5).

    ``seen`` is told the bytes read.  Raises OSError.
    """
    with path.open("rb") as stream:
        if algorithm != "git-sha1":
            state = hashlib.new(algorithm, usedforsecurity=False)
        else:
            size = os.fstat(stream.fileno()).st_size
            state = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        while block := stream.read(_BLOCK_BYTES):
            state.update(block)
            seen(len(block))
    return state.hexdigest()


def is_whole(file: RemoteFile, path: Path, seen: Callable[[int], None] = lambda _: None) -> bool:
    """Whether ``path`` has the size and the checksum of ``file``.  Raises OSError other than that it is missing."""
    try:
        return path.stat().st_size == file.size and digest_of(path, file.algorithm, seen) == file.digest
    except FileNotFoundError:
        return False


def fetch(file: RemoteFile, folder: Path, transfer: Transfer) -> None:
    """Bring ``file`` to its place in ``folder``, continuing its partial file.

    What arrives with another checksum is thrown away and fetched once more from its start.  Raises StageError if it
    is wrong again or another process is fetching it, HfHubHTTPError or httpx2.TransportError if the hub does not give
    it, OSError if it cannot be written, Cancelled if told to stop.
    """
    partial, target = file.partial(folder), file.target(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with hold(partial) as handle:
            _download(file, handle, transfer)
            if not is_whole(file, partial):
                transfer.progress.note(f"{file.name}: arrived with a wrong checksum; fetching it again")
                _start_over(handle, transfer)
                _download(file, handle, transfer)
                if not is_whole(file, partial):
                    _start_over(handle, transfer)
                    partial.unlink()
                    raise StageError(
                        f"{file.name}: arrived twice with a wrong {file.algorithm} (expected {file.digest}); "
                        "thrown away: try again later or through another network (a proxy may alter it)"
                    )
            os.fsync(handle.fileno())
            os.replace(partial, target)
    except BlockingIOError:
        raise StageError(f"{target}: another process is fetching it; wait for it, then run this again") from None
    transfer.progress.file_done()


def _download(file: RemoteFile, handle: BinaryIO, transfer: Transfer) -> None:
    """Fill ``handle`` from its end to the size of ``file``, trying again where the connection breaks."""
    if handle.tell() > file.size:
        _start_over(handle, transfer)
    fruitless = 0
    while handle.tell() < file.size:
        before = handle.tell()
        try:
            _stream(file, handle, transfer)
        except (httpx2.TransportError, HfHubHTTPError) as error:
            fruitless = 1 if handle.tell() > before else fruitless + 1
            if not _passing(error) or fruitless > len(transfer.waits_s):
                raise
            at = f"{handle.tell()} of {file.size} bytes"
            transfer.progress.note(f"{file.name}: connection lost at {at} ({_short(error)}); continuing")
            if transfer.stop.wait(transfer.waits_s[fruitless - 1]):
                raise Cancelled from None
        finally:
            handle.flush()


def _stream(file: RemoteFile, handle: BinaryIO, transfer: Transfer) -> None:
    """One request for what is missing, appended to ``handle`` as it arrives."""
    offset = handle.tell()
    headers = {**transfer.headers, "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", transfer.url(file.name), headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if offset and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            _start_over(handle, transfer)  # the server ignored the range and sends the whole file
        for block in response.iter_bytes():
            if transfer.stop.is_set():
                raise Cancelled
            handle.write(block)
            transfer.progress.advance(len(block))
            if handle.tell() > file.size:
                return  # longer than the hub said: the checksum will refuse it
        if handle.tell() < file.size:
            raise httpx2.RemoteProtocolError("the answer ended early")


def _start_over(handle: BinaryIO, transfer: Transfer) -> None:
    transfer.progress.advance(-handle.tell())
    handle.seek(0)
    handle.truncate()


def _passing(error: Exception) -> bool:
    """Whether the failure may pass by itself."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return not isinstance(error, (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol))


def _short(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"HTTP {error.response.status_code}"
    return (str(error) or type(error).__name__).splitlines()[0]
