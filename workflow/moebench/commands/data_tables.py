"""Stage a table of VLMEvalKit: download it, check its MD5, extract its images, and write a manifest.

The harness itself extracts the images, on the staging machine, because it would otherwise write them into the mirror
during the evaluation.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import httpx2
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.file_download import http_get

from moebench.accuracy.vlmeval_process import ENVIRONMENT
from moebench.errors import StageError, StorageError
from moebench.formats.plan import DataSet
from moebench.models.hubprogress import Progress
from moebench.storage import disk, staged


def python_of(environments: Path) -> Path:
    """Interpreter with VLMEvalKit. Raises StageError if its environment is not built."""
    python = environments / ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise StageError(f"{python}: the environment is not built; run `python3 envs/build.py {ENVIRONMENT}`")
    return python


def fetch_table(data: DataSet, environments: Path) -> None:
    """Stage a data set of the plan. Raises StageError with one line that names the address and the remedy."""
    python, folder, url = python_of(environments), Path(data["path"]), data["source"]
    table = folder / f"{data['id']}.tsv"
    try:
        if not (table.is_file() and _md5(table) == data["revision"]):
            _download(data, table)
    except OfflineModeIsEnabled:
        raise StageError(f"{url}: HF_HUB_OFFLINE is set, so nothing is downloaded; unset it to stage") from None
    except httpx2.HTTPError as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StageError(
            f"{url}: cannot be fetched ({said}); run this again where that address can be reached, or copy the file "
            f"with MD5 {data['revision']} to {table}"
        ) from None
    except OSError as error:
        raise StageError(
            f"{folder}: cannot be written ({error.strerror or error}); free space and run this again"
        ) from None
    dump_images(python, data["id"], folder)
    staged.write_manifest(folder, url, data["revision"])


def _download(data: DataSet, table: Path) -> None:
    """Download a table; it gets its final name once its MD5 is correct."""
    table.parent.mkdir(parents=True, exist_ok=True)
    draft = table.with_name(f".{table.name}.draft")
    progress = Progress(sys.stderr)
    bar = cast(Any, lambda **options: progress.bar(data["id"], options["total"]))
    try:
        with draft.open("wb") as file:
            http_get(data["source"], file, tqdm_class=bar)
        if _md5(draft) != data["revision"]:
            raise StageError(
                f"{data['source']}: arrived with a wrong MD5 (expected {data['revision']}) and was deleted: try again "
                "later or through another network (a proxy may alter it)"
            )
        draft.replace(table)
    finally:
        draft.unlink(missing_ok=True)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def dump_images(python: Path, name: str, folder: Path) -> None:
    """Let the harness write all images of a table below ``folder``.

    Existing ones are rewritten, because the harness does not notice a half-written image.  Raises StageError or
    StorageError.
    """
    shutil.rmtree(folder / "images", ignore_errors=True)
    command = [str(python), "-m", "moebench.accuracy.vlmeval_process", "--dump", name, str(folder.resolve())]
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode and disk.full([folder]):
        raise StorageError(f"{folder}: the disk is full; free space and run this again: the table is kept")
    if done.returncode:
        raise StageError(f"{name}: its images could not be extracted (exit code {done.returncode}; messages above)")
