"""Generated from ``moebench.config``: ``config/schema.json`` for editors, and the tables of ``config/README.md``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moebench import config as c
from moebench.claims import spec

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
    "architecture": c.Architecture,
    "attention": c.Attention,
    "experts": c.Experts,
    "vision": c.Vision,
    "hub": c.HubSource,
    "task": c.TaskSpec,
    "task-metric": c.TaskMetric,
    "data": c.DataSource,
    "hardware": c.Hardware,
    "calibrated": c.Calibrated,
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


def json_schema() -> str:
    """JSON schema of every kind of file, under ``$defs``."""
    kinds: dict[str, type[BaseModel]] = {
        "config.yaml": c.Root,
        "studies": c.Study,
        "experiments": c.Experiment,
        "models": c.ModelSpec,
        "tasks": c.TaskSpec,
        "hardware": c.Hardware,
        "papers": c.Paper,
        "corpora": c.Corpus,
        "claims": spec.ClaimFile,
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MoE-Inference-Bench configuration",
        "kinds": {name: kind.model_json_schema() for name, kind in kinds.items()},
    }
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


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
    """The README with every ``<!-- table: NAME -->`` ... ``<!-- end -->`` section made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- table: {match.group(1)} -->\n{table(TABLES[match.group(1)])}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def update(folder: Path, check: bool = False) -> list[Path]:
    """Write the generated files that differ (or only name them); return their paths."""
    page = folder / "README.md"
    wanted = {folder / "schema.json": json_schema(), page: readme(page.read_text())}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in [] if check else stale:
        path.write_text(wanted[path])
    return stale
