"""Reading a plan file (standard library only: the measurement side reads it too)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moebench.errors import ConfigError

SCHEMA = 1


def read_plan(path: Path) -> dict[str, Any]:
    """Read a plan file.  Raises ConfigError if it is missing, damaged or of a newer schema."""
    try:
        plan: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no plan yet; run `moebench plan --write {path}`, or snakemake") from None
    except ValueError as error:
        made = "give the file that `moebench plan --write` or snakemake made"
        raise ConfigError(f"{path}: not a plan, or not a whole one ({error}); {made}") from None
    if not isinstance(plan, dict) or not isinstance(plan.get("schema"), int) or "cells" not in plan:
        raise ConfigError(f"{path}: not a plan; give the file that `moebench plan --write` made")
    if plan["schema"] > SCHEMA:
        raise ConfigError(
            f"{path}: plan of schema {plan['schema']}, this version reads up to {SCHEMA}; update moebench"
        )
    listed = [name for name in plan.get("order", ()) if name in plan["experiments"]]  # a file is sorted by name
    plan["experiments"] = {name: plan["experiments"][name] for name in listed} | plan["experiments"]
    return plan
