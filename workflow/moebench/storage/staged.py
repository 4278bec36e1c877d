"""A staged model: a folder with a manifest that marks it as complete (docs/data.md). Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import cast

from moebench.formats import Json
from moebench.formats.manifest import StagedFile, StageManifest

MANIFEST = "moebench-stage.json"
SCHEMA = 1


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    """Files of the folder that belong to the model; hidden ones (a downloader's cache) do not."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return sorted(p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def write_manifest(
    folder: Path, source: str, revision: str, facts: Json | None = None, files: dict[str, StagedFile] | None = None
) -> StageManifest:
    """Write the manifest of every file now in ``folder``, by atomic rename; return it.

    Call it last: a folder without a manifest is not completely staged.  ``facts``: results of creating it. ``files``:
    sizes (bytes) and checksums, if already known.
    """
    folder = Path(folder)
    manifest: StageManifest = {
        "schema": SCHEMA,
        "source": source,
        "revision": revision,
        "files": files or checksums(folder),
    }
    if facts:
        manifest["facts"] = facts
    temporary = folder / f".{MANIFEST}.{os.getpid()}"
    temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST)
    return manifest


def checksums(folder: Path) -> dict[str, StagedFile]:
    """Size (bytes) and checksum of every file in a folder that belongs to the model; reads every byte."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in _files(folder)
    }


def read_manifest(folder: Path) -> StageManifest | None:
    """The manifest of a folder, or None if there is none.

    Raises ValueError, naming the file and the remedy, if it is not a manifest that this version reads.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        _ = [(entry["bytes"], entry["sha256"]) for entry in manifest["files"].values()]  # every entry is complete
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path}: not a manifest; delete the folder and stage it again") from None
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"{path}: manifest of schema {manifest.get('schema')!r}, this version reads {SCHEMA}")
    return cast(StageManifest, manifest)


def revision_of(folder: Path) -> str | None:
    """The revision of a staged folder, or None if there is no manifest.  Raises as ``read_manifest``."""
    manifest = read_manifest(folder)
    return manifest["revision"] if manifest else None


def check(folder: Path, full: bool = False) -> list[str]:
    """Problems of a staged folder, one sentence each; empty if it is complete.

    Names and sizes are compared; ``full`` reads every byte and compares SHA-256 too.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return [str(error)]
    if manifest is None:
        return [f"{folder}: no {MANIFEST}, so staging is incomplete"]
    problems = []
    for name, expected in sorted(manifest["files"].items()):
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif (size := path.stat().st_size) != expected["bytes"]:
            problems.append(f"{path}: {size} bytes instead of {expected['bytes']}")
        elif full and _sha256(path) != expected["sha256"]:
            problems.append(f"{path}: its SHA-256 differs from the staged one")
    return problems


def publish(new: Path, folder: Path) -> None:
    """Replace ``folder`` by the finished folder ``new`` beside it, with the usual permissions."""
    _as_readable_as_usual(new)
    _replace(new, folder)


def _as_readable_as_usual(folder: Path) -> None:
    """Give the folder and all in it the permissions the umask allows: mkdtemp and safetensors make theirs private."""
    umask = os.umask(0)
    os.umask(umask)
    for path in (folder, *(path for path in folder.rglob("*") if not path.is_symlink())):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def _replace(new: Path, old: Path) -> None:
    """Replace folder ``old`` by ``new``.  A rename cannot replace a folder that is not empty, so the old one is moved
    away first; a reader in between sees no folder, never a partial one."""
    if old.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{old.name}.old.", dir=old.parent))
        old.rename(aside / "old")
        new.rename(old)
        shutil.rmtree(aside)
    else:
        new.rename(old)
