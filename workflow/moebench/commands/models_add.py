"""``moebench models add``: turn a model's ``config.json`` into a file of the registry."""

from __future__ import annotations

import re
from pathlib import Path

from moebench.commands.app import print_json
from moebench.config import Config, Published
from moebench.errors import UserError
from moebench.models import adding
from moebench.models.hub_config import Described, from_folder, from_hub

_HUB = re.compile(r"^(?P<name>[\w.\-]+/[\w.\-]+?)(?:@(?P<revision>[\w.\-/]+))?$")


def run(
    folder: Path,
    source: str,
    name: str | None,
    total: float | None,
    active: float | None,
    reference: str,
    vision: int,
    replace: bool,
    as_json: bool,
) -> int:
    """Add a model; return 0. Raises UserError in one line if it cannot be added."""
    if (total or active) and not reference:
        raise UserError("--total and --active: give their source with --reference TEXT")
    published = Published(total_parameters=total, active_parameters=active, reference=reference) if reference else None
    config = Config(folder)
    added = adding.described(_found(source), config.families(), name, published, vision)
    path = adding.write(added, folder, replace)
    print_json(adding.facts(added) | {"file": path}) if as_json else print(f"{adding.report(added)}\nwritten: {path}")
    return 0


def _found(source: str) -> Described:
    """Description of the model from its small files.  An existing folder takes precedence over a repository of the same
    name."""
    folder = Path(source).expanduser()
    if folder.is_dir() or source.startswith(("/", "~", ".")):
        return from_folder(folder)
    match = _HUB.match(source)
    if match is None:
        raise UserError(f"{source!r} is not a model; give ORG/NAME, ORG/NAME@REVISION, or a folder with a config.json")
    return from_hub(match["name"], match["revision"] or "main")
