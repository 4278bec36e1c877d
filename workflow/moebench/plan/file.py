"""Reading a plan file (standard library only: the measurement side reads it too)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from moebench.errors import ConfigError
from moebench.formats.plan import Plan

SCHEMA = 1
_NO_PLAN = "not a plan; give the file written by `moebench plan --write` or snakemake"


def read_plan(path: Path) -> Plan:
    """Read a plan file.  Raises ConfigError if it is missing, damaged or of a newer schema."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no plan yet; run `moebench plan --write {path}`, or snakemake") from None
    try:
        plan = json.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] not in (b"", b"{"):  # an unrelated file, which must not be deleted
            raise ConfigError(f"{path}: {_NO_PLAN}") from None
        raise ConfigError(f"{path}: not a complete plan ({error}); delete it and run snakemake again") from None
    if not isinstance(plan, dict) or not isinstance(plan.get("schema"), int) or "cells" not in plan:
        raise ConfigError(f"{path}: {_NO_PLAN}")
    if plan["schema"] > SCHEMA:
        raise ConfigError(
            f"{path}: plan of schema {plan['schema']}, this version reads up to {SCHEMA}; update moebench"
        )
    listed = [name for name in plan.get("order", ()) if name in plan["experiments"]]  # a file is sorted by name
    plan["experiments"] = {name: plan["experiments"][name] for name in listed} | plan["experiments"]
    return cast(Plan, plan)
