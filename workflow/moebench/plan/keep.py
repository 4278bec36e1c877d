"""Keeping a plan: a file named after its contents, and ``STUDY.json`` pointing to the newest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from moebench.errors import StorageError
from moebench.measure.records import canonical_bytes, write_atomic


def keep(plan: dict[str, Any], results: Path) -> Path:
    """Write the plan under its digest, unless it is there, and let ``STUDY.json`` point to it; return the former.

    Jobs read the plan they were submitted with, whatever happens to the configuration meanwhile.  Raises ConfigError
    for a figure that cannot be drawn: better now than after hours of measuring.  StorageError if it cannot be written.
    """
    path = results / "plan" / f"{plan['study']}-{plan['digest']}.json"
    if not path.exists():
        from moebench.figures import check  # imports matplotlib: only when there is something to check

        check(plan)
        write_atomic(path, canonical_bytes(plan) + b"\n")
    current = path.with_name(f"{plan['study']}.json")
    if not current.is_symlink() or current.readlink() != Path(path.name):
        link = path.with_name(f".{plan['study']}.{os.getpid()}")
        try:
            link.symlink_to(path.name)
            link.replace(current)
        except OSError as error:
            raise StorageError(f"{current}: cannot be written ({error.strerror}); free space, run again") from None
    return path
