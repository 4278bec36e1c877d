"""The locks of environments, ``envs/NAME.lock`` in the project, beside the configuration folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from moebench.config import Config, Study
from moebench.errors import ConfigError, nearest


def folder(config: Config) -> Path:
    """Where the locks of a configuration's project are, if there are any: a configuration may lie elsewhere."""
    return config.folder.resolve().parent / "envs"


def check(config: Config, study: Study, where: str) -> None:
    """Refuse an engine's environment without a lock in the project.  Raises ConfigError naming ``where``."""
    locks = folder(config)
    if not locks.is_dir():
        return
    known = [path.stem for path in locks.glob("*.lock")]
    for key, engine in {"engine": study.engine, **{f"engines.{k}": e for k, e in study.engines.items()}}.items():
        if engine.environment not in known:
            wrong = f"{where}: {key}.environment: there is no envs/{engine.environment}.lock"
            raise ConfigError(wrong + nearest(engine.environment, known))


def version(lock: Path, distributions: Iterable[str]) -> str | None:
    """The version that a lock has of the first of these distributions in it; None without such a line or lock."""
    names = "|".join(map(re.escape, distributions))
    found = re.search(rf"^(?:{names})==(\S+)", lock.read_text() if lock.is_file() else "", re.M)
    return found[1] if found else None
