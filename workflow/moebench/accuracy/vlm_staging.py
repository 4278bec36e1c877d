"""A table of VLMEvalKit from its address into its folder: whole by its MD5, its images dumped, with a manifest.

The download is resumed where it was interrupted.  The images are dumped by the harness itself, on the machine that
stages, because it would otherwise write them into the mirror while it asks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from moebench import staged
from moebench.accuracy.vlmeval_process import ENVIRONMENT
from moebench.errors import StageError, StorageError
from moebench.hubfetch import RemoteFile, Transfer, digest_of, fetch
from moebench.hubprogress import Progress, size_text
from moebench.measure import disk


def python_of(environments: Path) -> Path:
    """Interpreter with VLMEvalKit.  Raises StageError where it is not built."""
    python = environments / ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise StageError(f"{python}: the environment is not built; run `python3 envs/build.py {ENVIRONMENT}`")
    return python


def fetch_table(data: dict[str, Any], environments: Path) -> None:
    """Bring a data set of the plan to its folder.  Raises StageError, one line that names address and remedy."""
    python, folder, url = python_of(environments), Path(data["path"]), data["source"]
    progress = Progress(sys.stderr)
    name = f"{data['id']}.tsv"
    try:
        if not ((folder / name).is_file() and digest_of(folder / name, "md5") == data["revision"]):
            file = RemoteFile(name, _size(url), "md5", data["revision"])
            progress.note(f"{data['id']}: {size_text(file.size)} from {url}")
            progress.begin(data["id"], files=1, bytes_=file.size, done_bytes=file.partial_bytes(folder))
            fetch(file, folder, Transfer(lambda _: url, {}, progress))
            progress.end()
    except OfflineModeIsEnabled:
        raise StageError(f"{url}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it to stage") from None
    except (httpx2.HTTPError, HfHubHTTPError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StageError(
            f"{url}: cannot be fetched ({said}); what arrived is kept: run this again where that address can be "
            f"reached, or put the file, with MD5 {data['revision']}, to {folder / name}"
        ) from None
    except OSError as error:
        raise StageError(f"{folder}: cannot be written ({error.strerror}); free space and run this again") from None
    dump_images(python, data["id"], folder)
    staged.write_manifest(folder, url, data["revision"])


def _size(url: str) -> int:
    """Size of what is there, bytes.  Raises httpx2.HTTPError."""
    answer = get_session().head(url, follow_redirects=True)
    answer.raise_for_status()
    size = answer.headers.get("Content-Length")
    if size is None:
        raise httpx2.RemoteProtocolError("the server does not say how large it is")
    return int(size)


def dump_images(python: Path, name: str, folder: Path) -> None:
    """Have the harness write a table's images below ``folder``, all of them: one that is there may be half written,
    which the harness does not notice.  Raises StageError or StorageError.
    """
    shutil.rmtree(folder / "images", ignore_errors=True)
    command = [str(python), "-m", "moebench.accuracy.vlmeval_process", "--dump", name, str(folder.resolve())]
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode and disk.full([folder]):
        raise StorageError(f"{folder}: the disk is full; free space and run this again: the table is kept")
    if done.returncode:
        raise StageError(f"{name}: its images could not be dumped (exit code {done.returncode}; messages above)")
