"""The plan that Snakemake made last, so that a call reads it in place of planning again.

Every call of Snakemake needs the plan, and so does every job that it submits to SLURM.  A plan is a function of the
files named in :func:`sources` and of nothing else; while they are the same, so is the plan.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import moebench
from moebench.formats.plan import Plan
from moebench.storage.atomic import write_atomic


def sources(configuration: Path, given: Mapping[str, object]) -> str:
    """SHA-256 of all that a plan is made from: the arguments of ``make_plan``, the files of the configuration, the lock
    files of the environments beside it, and this package.
    """
    found = hashlib.sha256(repr(sorted(given.items())).encode())
    for folder in (configuration, configuration.parent / "envs", Path(moebench.__file__).parent):
        walked = os.walk(folder, followlinks=True)
        for path in sorted(os.path.join(place, name) for place, _, names in walked for name in names):
            if path.endswith(".pyc"):
                continue
            with contextlib.suppress(OSError):  # what cannot be read is an error of planning, if a study needs it
                content = Path(path).read_bytes()
                found.update(f"\0{path}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def _place(results: Path, study: str) -> Path:
    return results / "plan" / f".{study}.made.json"  # in the order of the plan, which a file of its own does not have


def read(results: Path, study: str, made_from: str) -> Plan | None:
    """The kept plan of a study, if it was made from the same ``sources``; None otherwise, or if it is damaged."""
    try:
        kept = json.loads(_place(results, study).read_bytes())
        return cast(Plan, kept["plan"]) if kept["sources"] == made_from else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(results: Path, plan: Plan, made_from: str) -> None:
    """Keep a plan, unless it depends on a user's file that is not among the ``sources``.

    Raises StorageError if it cannot be written.
    """
    settings = [derived["settings"] for model in plan["derived"].values() if (derived := model["derived"])]
    if not any("sha256" in s.get("calibration", ()) for s in settings):
        kept = json.dumps({"sources": made_from, "plan": plan}, separators=(",", ":"))
        write_atomic(_place(results, plan["study"]), kept.encode())
