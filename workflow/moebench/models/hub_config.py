"""The small files that describe a model, from the hub or from a folder: ``config.json`` and the sizes of weights."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx2
from huggingface_hub import hf_hub_download

from moebench.config import HubSource
from moebench.errors import StageError
from moebench.formats import Json
from moebench.models.huberrors import Asked, explain
from moebench.models.hublisting import Listing, connect, list_files

INDEX = "model.safetensors.index.json"
SMALL = ("config.json", INDEX)


@dataclass(frozen=True)
class Described:
    """The contents of a model's small files."""

    name: str
    """ORG/NAME, or the folder."""
    revision: str
    """Commit; "files" for a folder."""
    config: Json
    weight_bytes: float | None
    """Of its safetensors; None: unknown."""
    parameters: int | None
    """That the index counts; None: it does not say."""


def from_hub(name: str, revision: str, endpoint: str | None = None) -> Described:
    """Describe a repository of the hub.  Raises StageError, one line that names the repository."""
    hub = connect(endpoint, "model")
    asked = Asked(name, revision, None, hub.endpoint, hub.token)
    source = HubSource(hub=name, revision=revision, include=("config.json", "*.safetensors", INDEX))
    try:
        listing = list_files(hub, source, revision)
        with tempfile.TemporaryDirectory() as folder:
            for file in (file.name for file in listing.files if file.name in SMALL):
                hf_hub_download(
                    name, file, revision=listing.commit, local_dir=folder, endpoint=hub.endpoint,
                    library_name="moebench", token=hub.token or False,
                )  # fmt: skip
            return _described(name, listing.commit, Path(folder), _bytes(listing))
    except (StageError, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, KeyError, TypeError) as error:
        raise explain(error, asked) from None


def from_folder(folder: Path) -> Described:
    """Describe a local folder.  Raises StageError that names it."""
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; give ORG/NAME of the hub, or a folder with a config.json")
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    try:
        return _described(str(folder), "files", folder, weights or None)
    except OSError as error:
        raise StageError(f"{folder}: cannot be read ({error.strerror})") from None


def _bytes(listing: Listing) -> float | None:
    return sum(file.size for file in listing.files if file.name.endswith(".safetensors")) or None


def _described(name: str, revision: str, folder: Path, weight_bytes: float | None) -> Described:
    config = _json(folder / "config.json", name)
    if config is None:
        raise StageError(f"{name}: no config.json; only models in the transformers format can be added")
    metadata = (_json(folder / INDEX, name) or {}).get("metadata") or {}
    weight_bytes = metadata.get("total_size") or weight_bytes
    return Described(name, revision, config, weight_bytes, metadata.get("total_parameters"))


def _json(path: Path, name: str) -> Json | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"{name}: {path.name} is not JSON ({error}); fix it, or choose another revision") from None
    if not isinstance(found, dict):
        raise StageError(f"{name}: {path.name} has no keys; fix it, or choose another revision")
    return cast(Json, found)
