"""Folders shared by several users: whether this user can continue another's work. Standard library only."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path


def refusal(folders: Iterable[Path], appended: Iterable[Path] = ()) -> str | None:
    """Why this user cannot continue in these folders, and the remedy, in one line; None if there is no obstacle.

    Args:
        folders: files are created and replaced in them and in all existing folders below.
        appended: folders whose existing files are appended to.
    """
    appended = list(appended)
    for top in (*folders, *appended):
        if (found := _in_the_way(top, top in appended)) is not None:
            whose, me = owner(found), name(os.geteuid())
            return (
                f"{found}: belongs to {whose}, and {me} cannot write it; `chmod -R g+rwX {top}` by {whose}, a common "
                f"group and umask 002 for both, or your own checkout and results (docs/slurm.md)"
            )
    return None


def _in_the_way(top: Path, appended: bool) -> Path | None:
    for place, folders, names in os.walk(top):
        here = Path(place)
        for folder in (here, *(here / name for name in folders)):  # unreadable folders are not walked
            if _shut(folder, os.W_OK | os.X_OK):
                return folder
        if found := next((here / name for name in names if appended and _shut(here / name, os.W_OK)), None):
            return found
        if _sticky(here) and (found := next((here / name for name in names if not _ours(here / name)), None)):
            return found
    return None


def _shut(path: Path, mode: int) -> bool:
    return not os.access(path, mode, effective_ids=True) and path.exists()  # a run may remove it meanwhile


def _sticky(folder: Path) -> bool:
    """Whether only a file's owner may replace it in a folder."""
    seen, me = folder.stat(), os.geteuid()
    return bool(seen.st_mode & stat.S_ISVTX) and me not in (0, seen.st_uid)


def _ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return True


def owner(path: Path) -> str:
    """Owner of a file."""
    try:
        return name(path.stat().st_uid)
    except OSError:
        return "another user"


def name(user: int) -> str:
    """A user's name, or the number if there is none (in a container)."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
