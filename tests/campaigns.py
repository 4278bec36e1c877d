"""A small study for campaigns, and its results as a campaign writes them.  Records are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import studies
import synthetic
from moebench.campaign import parcels
from moebench.measure import records
from synthetic import Json

CELL = {"model": "tiny-mixtral", "input_tokens": 16, "output_tokens": 8}
BLOCKS = [
    {"fix": CELL, "cross": {"batch": [1, 2, 4]}},
    {"fix": CELL | {"model": "tiny-olmoe", "batch": 1, "engine_name": "transformers"}},
    {"fix": CELL | {"batch": 1, "tp": 2}},
    {"fix": CELL | {"batch": 1, "engine_name": "served"}},
]
ENGINES = {
    "transformers": {"name": "transformers", "version": "5.19.0", "environment": "vllm-cpu"},
    "served": {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}},
}
DUMMY = studies.TINY | {"weights": "dummy"}


def folder(where: Path) -> Path:
    """A configuration folder with the study, whose models are staged nowhere."""
    return studies.folder(where, {"asked": BLOCKS}, where / "models", engines=ENGINES, defaults=DUMMY)


def record(plan: Json, key: str, version: str = "0.32.0", device: str = "Card A", **more: Any) -> Json:
    """A record of a cell as a campaign writes it."""
    engine = plan["engines"][key.partition("/")[0]]
    made = synthetic.record(plan, *key.split("/"), **more)
    made["engine_version"] = {k: engine["runtime"][k] for k in ("name", "kind", "hosted")} | {"version": version}
    made["provenance"] |= {"device_name": device, "python": "3.12.1"}
    return made


def measured(plan: Json, results: Path, **more: Any) -> Path:
    """A results folder with a record of every cell."""
    for key in plan["cells"]:
        records.store(results, record(plan, key, **more))
    return results


ABOUT: Json = {"studies": {"test": "0" * 16}, "began": "2026-03-01T10:00:00.000000Z"}


def parcel(plan: Json, results: Path, out: Path, **more: Any) -> list[Path]:
    """The files that a campaign brings home."""
    return parcels.write(out, "results", measured(plan, results, **more), results / "logs", ABOUT)
