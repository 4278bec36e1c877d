"""Location of the project's own files: beside the package in a checkout, or inside an installed wheel.

Standard library only, because engine environments import it.
"""

from __future__ import annotations

from pathlib import Path

from moebench.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = _PACKAGE / "shipped"  # only in a wheel (pyproject.toml): config, envs and the license of its checkout

INSTALLED = _SHIPPED.is_dir()
"""Whether this is an installed wheel, without a checkout and so without a commit."""

ROOT = _SHIPPED if INSTALLED else _PACKAGE.parents[1]
"""The folder that contains ``config`` and ``envs``."""


def config_folder() -> Path:
    """``config`` in the current folder; if there is none, the one shipped with an installed moebench."""
    here = Path("config")
    return ROOT / "config" if INSTALLED and not here.is_dir() else here


def refuse_shipped(config: Path) -> None:
    """Raise ConfigError for the configuration of an installed moebench: it has no environments beside it, and must not
    be written to.
    """
    if INSTALLED and config == ROOT / "config":
        raise ConfigError("config: no such folder; run this in the project's folder, or give --config FOLDER")
