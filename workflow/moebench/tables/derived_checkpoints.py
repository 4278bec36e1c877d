"""The derived checkpoints of a plan: rows of the table ``derived``, from their manifests.

Archives do not contain checkpoints, only these facts about them: ``results/derived/NAME.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from moebench.architectures.quantization_schemes import SCHEMES
from moebench.columns import Row
from moebench.formats import Json
from moebench.formats.model import DerivationSettings, ModelDict
from moebench.formats.plan import Plan
from moebench.models.derive import derivation
from moebench.storage import staged
from moebench.storage.atomic import canonical_bytes, write_atomic

FOLDER = "derived"
_PROSE = "prose of the Python standard library"


def rows(plan: Plan, results: Path) -> Iterator[Row]:
    """One row per derived checkpoint of a plan, parents first; one that does not exist has only the requested
    values."""
    for name, model in (plan.get("derived") or {}).items():
        yield {"study": plan["study"]} | _row(name, model, _facts(name, model, results))


def keep(plan: Plan, results: Path) -> dict[str, Path]:
    """Write the facts of all existing checkpoints below ``results``; return the files. Raises StorageError."""
    written = {}
    for name, model in (plan.get("derived") or {}).items():
        facts = _facts(name, model, results)
        if facts is not None:
            written[name] = results / FOLDER / f"{name}.json"
            write_atomic(written[name], canonical_bytes({"revision": model["revision"], "facts": facts}) + b"\n")
    return written


def _facts(name: str, model: ModelDict, results: Path) -> Json | None:
    """Facts of a checkpoint, stored or from its manifest; None if it does not exist in this revision."""
    try:
        kept = json.loads((results / FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        try:
            kept = staged.read_manifest(Path(model["path"]))
        except (OSError, ValueError):
            kept = None
    return kept.get("facts") or {} if kept and kept.get("revision") == model["revision"] else None


def _row(name: str, model: ModelDict, facts: Json | None) -> Row:
    derived, known = derivation(model), facts or {}
    settings = derived["settings"]
    calibration = settings.get("calibration")
    data = calibration["data"] if calibration else None
    sha256 = (known.get("calibration") or calibration or {}).get("sha256")
    text = _PROSE if data == "text" else data
    return {
        "checkpoint": name,
        "model_title": model["title"],
        "derived_by": derived["by"],
        "parent": Path(derived["parent"]["path"]).name,
        "recipe": _recipe(derived["by"], settings),
        "ratio_asked": settings.get("ratio"),
        "ratio_reached": known.get("removed_share"),
        "rounding": known.get("rounding"),
        "calibration_text": f"{text} ({sha256[:12]})" if text and sha256 else text,
        "calibration_tokens": calibration["sequences"] * calibration["tokens"] if calibration else None,
        "tokens_per_expert_min": _fewest(known),
        "experts_without_tokens": known.get("experts_without_routed_token", _without(known)),
        "took_s": known.get("took_s"),
        "made": facts is not None,
        "revision": model["revision"],
    }


def _recipe(by: str, settings: DerivationSettings) -> str:
    """What was removed and by which criterion, or the quantization scheme and tool."""
    if by == "prune":
        what, left = ("experts", settings["experts"]) if settings["kind"] == "inter" else (
            "channels of each expert", settings["ffn_size"])  # fmt: skip
        return f"{what} removed by {settings['by']}; {left} stay"
    group = f", groups of {settings['group']}" if settings.get("group") else ""
    return f"{settings['scheme']}: {SCHEMES[settings['scheme']].title}{group}; {settings['tool']}"


def _counts(facts: Json) -> list[int]:
    return [n for layer in (facts.get("by_layer") or {}).values() for n in layer.get("counts", ())]


def _fewest(facts: Json) -> int | None:
    fewest: int | None = facts.get("tokens_per_expert_min")
    return fewest if fewest is not None else min(_counts(facts), default=None)


def _without(facts: Json) -> int | None:
    counts = _counts(facts)
    return counts.count(0) if counts else None
