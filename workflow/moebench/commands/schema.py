"""Generated from ``moebench.config``: JSON schemas for editors, and the tables of ``config/README.md``.

The first line of every YAML file names its schema, as editors with the YAML language server read it.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moebench import config as c
from moebench.claims import spec

KINDS: dict[str, type[c.Strict]] = {
    "config": c.Root,
    "studies": c.Study,
    "experiments": c.Experiment,
    "models": c.ModelSpec,
    "shapes": c.Shape,
    "families": c.FamilySpec,
    "tasks": c.TaskSpec,
    "hardware": c.Hardware,
    "papers": c.Paper,
    "corpora": c.Corpus,
    "claims": spec.ClaimFile,
}
"""What each folder of ``config/`` holds; ``config``: ``config.yaml``."""
MODELINE = "# yaml-language-server: $schema="

TABLES: dict[str, type[BaseModel]] = {
    "root": c.Root,
    "study": c.Study,
    "engine": c.Engine,
    "endpoint": c.Endpoint,
    "jobs": c.Jobs,
    "protocol": c.Protocol,
    "calibration": c.Calibration,
    "experiment": c.Experiment,
    "block": c.Block,
    "accuracy-block": c.AccuracyBlock,
    "plot": c.Plot,
    "engine-knobs": c.EngineKnobs,
    "workload-knobs": c.WorkloadKnobs,
    "model": c.ModelSpec,
    "shape": c.Shape,
    "architecture": c.Architecture,
    "attention": c.Attention,
    "experts": c.Experts,
    "recurrent": c.Recurrent,
    "vision": c.Vision,
    "family": c.FamilySpec,
    "hub": c.HubSource,
    "task": c.TaskSpec,
    "task-metric": c.TaskMetric,
    "data": c.DataSource,
    "hardware": c.Hardware,
    "calibrated": c.Calibrated,
    "fitted": c.Fitted,
    "figure": c.Figure,
    "all-reduce": c.AllReduceTable,
    "paper": c.Paper,
    "printed-table": c.PrintedTable,
    "printed-model": c.PrintedModel,
    "corpus": c.Corpus,
    "claims": spec.ClaimFile,
    "claim": spec.Claim,
    "expect": spec.Expect,
    "elsewhere": spec.Elsewhere,
    "printed-numbers": c.PrintedNumbers,
    "printed-row": c.PrintedRow,
    "assumed": c.Assumed,
    "computed-knobs": c.ComputedKnobs,
}


@functools.cache
def json_schema(kind: str) -> str:
    """JSON schema of a kind of file, whole: its references are to its own ``$defs``."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | KINDS[kind].model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        for key in ("fix", "defaults"):
            if key in part.get("properties", {}):
                part["properties"][key] |= {"properties": _knobs(), "additionalProperties": False}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


@functools.cache
def _knobs() -> dict[str, Any]:
    """Schema of every knob by its name: those of engines and workloads, and of computed points."""
    found: dict[str, list[dict[str, Any]]] = {}
    for model in (c.EngineKnobs, c.WorkloadKnobs, c.ComputedKnobs):
        for name, knob in model.model_json_schema()["properties"].items():
            found.setdefault(name, []).append({key: value for key, value in knob.items() if key != "default"})
    return {name: kinds[0] if len(kinds) == 1 else {"anyOf": kinds} for name, kinds in found.items()}


def files(folder: Path) -> dict[Path, str]:
    """The YAML files of a configuration folder, and the kind of each."""
    found = {path: kind for kind in KINDS for path in sorted((folder / kind).glob("*.yaml"))}
    return {folder / "config.yaml": "config"} | found


def with_modeline(path: Path, kind: str) -> str:
    """A YAML file's text, with the first line that names its schema."""
    text = path.read_text(encoding="utf-8")
    if text.startswith(MODELINE):
        text = text.partition("\n")[2]
    schemas = "schemas" if kind == "config" else "../schemas"
    return f"{MODELINE}{schemas}/{kind}.json\n{text}"


def _type(annotation: Any) -> str:
    """A type in words."""
    if annotation is type(None):
        return "null"
    if get_origin(annotation) is not None and str(get_origin(annotation)).endswith("Literal"):
        return ", ".join(f"`{str(a).lower() if isinstance(a, bool) else a}`" for a in get_args(annotation))
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type(arguments[0])}" if arguments else "list"
    if get_origin(annotation) is dict:
        return f"mapping to {_type(arguments[1])}"
    if arguments:
        return " or ".join(dict.fromkeys(_type(a) for a in arguments))
    names = {"str": "text", "int": "integer", "float": "number", "bool": "`true`, `false`", "Any": "any value"}
    return names.get(getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", "value"))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return "see below"
    if value is None or value == () or value == {}:
        return ""
    return f"`{json.dumps(value)}`"


def table(model: type[BaseModel]) -> str:
    """A Markdown table of a model's keys."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        lines.append(f"| `{key}` | {_type(field.annotation)} | {_default(field)} | {field.description or ''} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """The README with every ``<!-- table: NAME -->`` ... ``<!-- end -->`` section regenerated."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- table: {match.group(1)} -->\n{table(TABLES[match.group(1)])}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def update(folder: Path, check: bool = False) -> list[Path]:
    """Write the generated files that differ (``check``: only name them); return their paths.

    Raises ConfigError if there is no configuration; with ``check``, for any wrong file in it, even if no study uses it.
    """
    c.Config(folder).root()
    if check:
        for path, kind in files(folder).items():
            c.parse(KINDS[kind], c.read_yaml(path) or {}, path)
    page = folder / "README.md"
    wanted = {folder / "schemas" / f"{kind}.json": json_schema(kind) for kind in KINDS}
    wanted |= {path: with_modeline(path, kind) for path, kind in files(folder).items()}
    wanted[page] = readme(page.read_text(encoding="utf-8"))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in [] if check else stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    return stale
