"""The plan that Snakemake made last, so that a call reads it in place of planning again.

Every call of Snakemake needs the plan, and so does every job that it submits to SLURM.  A plan is a function of what
:func:`sources` hashes and of the users' files that planning read; while they are the same, so is the plan.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import cast

import moebench
from moebench.config import Config, environment_locks
from moebench.config.identity import digest
from moebench.errors import StorageError
from moebench.formats.plan import Plan
from moebench.storage import user_files
from moebench.storage.atomic import write_atomic

COMPUTED_WITH = ("numpy", "scipy", "pydantic", "PyYAML")
"""Packages whose version may change a plan; the lock file says only which were to be installed."""


def sources(config: Config, given: Mapping[str, object]) -> str:
    """SHA-256 of all that a plan is made from but users' files: the arguments of ``make_plan``, the files of the
    configuration, the lock files of environments, this package, and versions.
    """
    versions = {name: metadata.version(name) for name in COMPUTED_WITH}
    found = hashlib.sha256(repr([sorted(given.items()), sys.version, versions]).encode())
    for folder in (config.folder, environment_locks.folder(config), Path(moebench.__file__).parent):
        walked = os.walk(folder, followlinks=True)
        for path in sorted(os.path.join(place, name) for place, _, names in walked for name in names):
            if path.endswith(".pyc") or not os.path.isfile(path):
                continue
            with contextlib.suppress(OSError):  # what cannot be read is an error of planning, if a study needs it
                content = Path(path).read_bytes()
                found.update(b"\0%b\0%d\0" % (os.fsencode(path), len(content)) + content)
    return found.hexdigest()


def _place(results: Path, study: str) -> Path:
    """In this file a plan has the order in which it was made, which names rules; plan files are sorted."""
    return results / "plan" / f".{study}.made.json"


def read(results: Path, study: str, made_from: str) -> Plan | None:
    """The kept plan of a study, if it was made from the same ``sources`` and users' files; None otherwise, or if it is
    damaged."""
    try:
        kept = json.loads(_place(results, study).read_bytes())
        if kept["sources"] != made_from or any(user_files.sha256(Path(p)) != h for p, h in kept["files"].items()):
            return None
        plan = kept["plan"]
        whole = digest({key: value for key, value in plan.items() if key != "digest"}, 16) == plan["digest"]
        return cast(Plan, plan) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(results: Path, plan: Plan, made_from: str) -> None:
    """Keep a plan for the next call; where that fails, the next one plans again."""
    kept = json.dumps({"sources": made_from, "files": user_files.hashed, "plan": plan}, separators=(",", ":"))
    with contextlib.suppress(StorageError):
        write_atomic(_place(results, plan["study"]), kept.encode())
