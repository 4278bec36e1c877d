"""RO-Crate 1.1 metadata of an archive: a description of each part for people and machines that do not know this
project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rocrate.model import SoftwareApplication
from rocrate.rocrate import ROCrate

import moebench
from moebench import columns
from moebench.formats.plan import Plan

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
    "results/jobs/": ("Job manifests", "Records that each job wrote, and its canary runs"),
    "results/machines/": (
        "Constants of machines",
        "Memory bandwidth and matrix products of the machines that measured cells",
    ),
    "config/": ("Configuration", "Studies, experiments, models, hardware and the papers' printed numbers"),
    "envs/": ("Environments", "Locked requirements of every environment"),
}
_NAMES = {
    "report.html": "Report",
    **{f"{name}.parquet": f"Table: {what[0].lower()}{what[1:]}" for name, what in columns.TABLES.items()},
    "archive.json": "Versions and code revision that built this archive",
    "SHA256SUMS": "SHA-256 of every file",
}


def metadata(plan: Plan, sizes: Mapping[str, int], published: str, commit: str | None) -> str:
    """The text of ``ro-crate-metadata.json``.

    Args:
        plan: the study's plan.
        sizes: bytes of each file of the archive by path; records and configuration are described by their folder.
        published: day of the last measurement, ISO 8601 (a rebuilt archive must be identical).
        commit: git commit of the code.
    """
    crate = ROCrate(version="1.1")
    crate.name, crate.description = f"MoE-Inference-Bench: {plan['title']}", plan["description"]
    crate.root_dataset["datePublished"] = published
    for folder, (name, description) in _FOLDERS.items():
        if any(path.startswith(folder) for path in sizes):
            crate.add_dataset(dest_path=folder, properties={"name": name, "description": description})
    files = {
        path: crate.add_file(dest_path=path, properties=_properties(path, sizes[path]))
        for path in sorted(sizes)
        if not path.startswith(tuple(_FOLDERS))
    }
    if "LICENSE" in files:
        crate.license = files["LICENSE"]
    software = [_software(crate, "moebench", "MoE-Inference-Bench", moebench.__version__)]
    if commit:
        software[0]["softwareVersion"] = commit
    used = {e["runtime"]["name"]: e["runtime"]["version"] for e in plan["engines"].values() if "runtime" in e}
    for name, version in (used or {plan["engine"]["name"]: plan["engine"]["version"]}).items():
        software.append(_software(crate, f"engine-{name}", name, version))
    title = f"Measurement of study {plan['study']} on {plan['hardware']['title']}"
    crate.root_dataset["mentions"] = crate.add_action(
        software,
        identifier="#run",
        object=files[f"results/plan/{plan['study']}.json"],
        result=files[f"reports/{plan['study']}/report.html"],
        properties={"name": title, "endTime": published},
    )
    return json.dumps(crate.metadata.generate(), indent=1, ensure_ascii=False) + "\n"


def _properties(path: str, size: int) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    kind = _FORMATS.get(name.rpartition(".")[2])
    return {"name": _NAMES.get(name, name), "contentSize": str(size)} | ({"encodingFormat": kind} if kind else {})


def _software(crate: ROCrate, key: str, name: str, version: str) -> SoftwareApplication:
    return crate.add(SoftwareApplication(crate, f"#{key}", properties={"name": name, "version": version}))
