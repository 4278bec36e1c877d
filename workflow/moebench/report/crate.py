"""RO-Crate 1.1 metadata of an archive: what each part is, for people and machines that know nothing of this project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import moebench

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
PROFILE = "https://w3id.org/ro/crate/1.1"

_FORMATS = {
    "html": "text/html",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "png": "image/png",
    "csv": "text/csv",
    "rst": "text/x-rst",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
    "yaml": "application/yaml",
    "lock": "text/plain",
    "md": "text/markdown",
}
_FOLDERS = {
    "results/cells/": ("Records", "One JSON file per measured cell: raw times, status, evidence, provenance, SHA-256"),
    "results/accuracy/": (
        "Accuracy",
        "Per harness: records of tasks, logs of every question and answer, job manifests",
    ),
    "results/jobs/": ("Job manifests", "Which records each job wrote, and its canary runs"),
    "results/machines/": ("Constants of machines", "Memory bandwidth and matrix products, measured where cells were"),
    "config/": ("Configuration", "Studies, experiments, models, hardware and what papers print, as configured"),
    "envs/": ("Environments", "Locked requirements of every environment"),
}
_NAMES = {
    "report.html": "Report",
    "measurements.parquet": "Table: a row per cell, medians with intervals",
    "samples.parquet": "Table: a row per timed run",
    "accuracy.parquet": "Table: a row per task, metric and filter, and means over tasks",
    "failures.parquet": "Table: cells that are not ok, and why",
    "plan.parquet": "Table: every planned cell of every experiment",
    "parameters.parquet": "Table: parameters of models by component and layer, computed",
    "activation.parquet": "Table: how often each expert of each layer was chosen",
    "activation_layers.parquet": "Table: how evenly the experts of each layer were chosen",
    "activation_steps.parquet": "Table: distinct experts per engine step and layer, measured and for uniform routing",
    "machines.parquet": "Table: measured constants of the machines that measured cells",
    "archive.json": "Versions and code revision that made this archive",
    "SHA256SUMS": "SHA-256 of every file",
}


def _file(path: str, size: int) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    entity = {"@id": path, "@type": "File", "name": _NAMES.get(name, name), "contentSize": str(size)}
    kind = _FORMATS.get(name.rpartition(".")[2])
    return entity | ({"encodingFormat": kind} if kind else {})


def metadata(plan: Mapping[str, Any], sizes: Mapping[str, int], published: str, commit: str | None) -> str:
    """The text of ``ro-crate-metadata.json``.

    Args:
        plan: the study's plan.
        sizes: bytes of each file of the archive by path; records and configuration are described by their folder.
        published: day of the last measurement, ISO 8601 (an archive made again must be the same).
        commit: git commit of the code.
    """
    folders = [f for f in _FOLDERS if any(path.startswith(f) for path in sizes)]
    files = [_file(p, n) for p, n in sorted(sizes.items()) if not p.startswith(tuple(_FOLDERS))]
    report = f"reports/{plan['study']}/report.html"
    license_file = {"license": {"@id": "LICENSE"}} if "LICENSE" in sizes else {}
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"MoE-Inference-Bench: {plan['title']}",
        "description": plan["description"],
        "datePublished": published,
        "hasPart": [{"@id": i} for i in [*folders, *(f["@id"] for f in files)]],
        "mentions": {"@id": "#run"},
    }
    tool = {
        "@id": "#moebench",
        "@type": "SoftwareApplication",
        "name": "MoE-Inference-Bench",
        "version": moebench.__version__,
    }
    used = {e["runtime"]["name"]: e["runtime"] for e in plan["engines"].values() if "runtime" in e}
    engines = [
        {
            "@id": f"#engine-{name}",
            "@type": "SoftwareApplication",
            "name": name,
            "version": runs_on["version"],
        }
        for name, runs_on in (used or {plan["engine"]["name"]: plan["engine"]}).items()
    ]
    action = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Measurement of study {plan['study']} on {plan['hardware']['title']}",
        "instrument": [{"@id": "#moebench"}, *({"@id": engine["@id"]} for engine in engines)],
        "object": {"@id": f"results/plan/{plan['study']}.json"},
        "result": {"@id": report},
        "endTime": published,
    }
    graph = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "conformsTo": {"@id": PROFILE},
            "about": {"@id": "./"},
        },
        root | license_file,
        *({"@id": f, "@type": "Dataset", "name": _FOLDERS[f][0], "description": _FOLDERS[f][1]} for f in folders),
        *files,
        tool | ({"softwareVersion": commit} if commit else {}),
        *engines,
        action,
    ]
    return json.dumps({"@context": CONTEXT, "@graph": graph}, indent=1, ensure_ascii=False) + "\n"
