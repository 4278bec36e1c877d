"""Folders that several users share: whether this one can go on with what another one wrote.  Standard library only."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path


def refusal(folders: Iterable[Path], appended: Iterable[Path] = ()) -> str | None:
    """Why this user cannot go on in folders, and what to do, in a line; None if nothing is in the way.

    Args:
        folders: files are made and replaced in them and in all folders below, if they are there.
        appended: folders whose files are written to as they are.
    """
    appended = list(appended)
    for top in (*folders, *appended):
        if (found := _in_the_way(top, top in appended)) is not None:
            whose, me = owner(found), name(os.geteuid())
            return (
                f"{found}: is {whose}'s, and {me} cannot write it; `chmod -R g+rwX {top}` by {whose}, a group of both "
                "and umask 002 for both, or a checkout and results of your own (docs/slurm.md)"
            )
    return None


def _in_the_way(top: Path, appended: bool) -> Path | None:
    for place, folders, names in os.walk(top):
        here = Path(place)
        for folder in (here, *(here / name for name in folders)):  # what cannot be read is not walked into
            if (found := _closed(folder)) is not None:
                return found
        if appended and (found := _not_ours(here, names)) is not None:
            return found
    return None


def _closed(place: Path) -> Path | None:
    """A folder in which this user cannot write, or a file in it that he may not replace."""
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        return place
    seen, me = place.stat(), os.geteuid()
    if not seen.st_mode & stat.S_ISVTX or me in (0, seen.st_uid):
        return None
    return next((Path(entry) for entry in os.scandir(place) if entry.stat(follow_symlinks=False).st_uid != me), None)


def _not_ours(place: Path, names: Iterable[str]) -> Path | None:
    files = (place / file for file in names)
    return next((file for file in files if not os.access(file, os.W_OK, effective_ids=True)), None)


def owner(path: Path) -> str:
    """Whose a file is."""
    return name(path.stat().st_uid)


def name(user: int) -> str:
    """A user's name, or the number where there is none (in a container)."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
