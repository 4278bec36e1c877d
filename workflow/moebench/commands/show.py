"""Plans and failures as text for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moebench import accuracy
from moebench.formats.model import ModelDict
from moebench.formats.plan import DeriveJob, Job, Plan
from moebench.formats.record import Record
from moebench.measure import records
from moebench.models.derive import derivation, is_made
from moebench.plan import forecast, unsupported
from moebench.text import count, rerun_command, table


def statuses(plan: Plan, results: Path) -> dict[str, Record | None]:
    """The record of each cell as it is on disk (None: none, or damaged).  Changes nothing."""
    found: dict[str, Record | None] = {}
    for key in plan["cells"]:
        try:
            found[key] = records.load(results / "cells" / f"{key}.json")
        except (OSError, records.RecordDamaged):
            found[key] = None
    return found


def _final(record: Record | None) -> bool:
    return record is not None and records.is_final(record)


MOST_REASONS = 20
"""Reasons that a plan lists for each experiment."""

Table = tuple[list[str], list[list[Any]]]
"""Headings, and rows of values."""


def progress(plan: Plan, results: Path, reports: Path) -> dict[str, Any]:
    """How much of a plan is measured, and where its report is (None: there is none)."""
    seen, report = statuses(plan, results), reports / plan["study"] / "report.html"
    return {
        "study": plan["study"],
        "cells": len(seen),
        "engine_configurations": len(plan["engines"]),
        "jobs": len(plan["jobs"]),
        "measured": sum(map(_final, seen.values())),
        "not_ok": sum(r is not None and r["status"] != "ok" for r in seen.values()),
        **_beside(plan, results),
        "report": str(report.resolve()) if report.exists() else None,
    }


def _beside(plan: Plan, results: Path) -> dict[str, int]:
    """Accuracy cells and derived checkpoints, and how many of them there are already."""
    answers = [r for _, part, folder in accuracy.views(plan, results) for r in statuses(part, folder).values()]
    derived = plan.get("derived", {}).values()
    return {
        "accuracy_cells": len(answers),
        "accuracy_measured": sum(map(_final, answers)),
        "derived_checkpoints": len(derived),
        "derived_made": sum(map(is_made, derived)),
    }


def as_json(found: dict[str, Table]) -> dict[str, list[dict[str, Any]]]:
    """Tables as rows by key, which is the heading in lower case with underscores."""
    keys = {name: [heading.lower().replace(" ", "_") for heading in head] for name, (head, _) in found.items()}
    return {name: [dict(zip(keys[name], row, strict=True)) for row in rows] for name, (_, rows) in found.items()}


def summary(made: dict[str, Any]) -> str:
    """One line of the result of ``progress``."""
    where = f"report: {made['report']}" if made["report"] else "no report yet"
    return (
        f"study {made['study']}: {count(made['cells'], 'cell')} in "
        f"{count(made['engine_configurations'], 'engine configuration')} and {count(made['jobs'], 'job')}; "
        f"{made['measured']} measured ({made['not_ok']} not ok); {_beside_words(made)}{where}"
    )


def _beside_words(made: dict[str, int]) -> str:
    """``20 accuracy cells, 3 measured; 4 derived checkpoints, 4 made; ``, of what a plan has."""
    parts = ""
    if made["accuracy_cells"]:
        parts += f"{count(made['accuracy_cells'], 'accuracy cell')}, {made['accuracy_measured']} measured; "
    if made["derived_checkpoints"]:
        parts += f"{count(made['derived_checkpoints'], 'derived checkpoint')}, {made['derived_made']} made; "
    return parts


def tables(plan: Plan, results: Path) -> dict[str, Table]:
    """Contents of a plan: experiments, jobs, derived checkpoints and the jobs that make them, accuracy jobs of each
    harness; of cells, how many are measured.
    """
    seen, experiments = statuses(plan, results), []
    for name, experiment in plan["experiments"].items():
        keys = {f"{r['engine']}/{r['cell']}" for r in experiment["rows"]}
        loads = {r["engine"] for r in experiment["rows"]}
        experiments.append([name, len(keys), len(loads), sum(_final(seen[k]) for k in keys)])
    derived = [_derived(name, model) for name, model in plan["derived"].items()]
    derive_jobs = [[name, len(job["models"]), *_needs(job)] for name, job in plan["derive_jobs"].items()]
    return {
        "experiments": (["experiment", "cells", "loads", "measured"], experiments),
        "jobs": _jobs("job", plan, seen),
        "derived": (["derived checkpoint", "by", "from", "exists"], derived),
        "derive_jobs": (["job that derives", "checkpoints", "GPUs", "memory MB", "minutes"], derive_jobs),
    } | {
        f"accuracy_{harness}": _jobs("accuracy job", part, statuses(part, folder))
        for harness, part, folder in accuracy.views(plan, results)
    }


def _jobs(heading: str, part: Plan, seen: dict[str, Record | None]) -> Table:
    rows = []
    for name, job in part["jobs"].items():
        keys = [f"{e}/{c}" for e in job["engines"] for c in part["engines"][e]["cells"]]
        rows.append([name, len(job["engines"]), len(keys), *_needs(job), sum(_final(seen[k]) for k in keys)])
    return [heading, "loads", "cells", "GPUs", "memory MB", "minutes", "measured"], rows


def _needs(job: Job | DeriveJob) -> list[Any]:
    return [job["gpus"], job["mem_mb"], job["runtime_min"]]


def _derived(name: str, model: ModelDict) -> list[Any]:
    derived = derivation(model)
    parent = derived["parent"]  # by its name; one that is derived itself by its folder, as in its own row
    called = Path(parent["path"]).name if parent["derived"] else parent["name"]
    return [name, derived["by"], called, "yes" if is_made(model) else "no"]


def plan(made: Plan, results: Path, cells: bool = False, gpus: int | None = None) -> str:
    """Contents of a study by experiment and by job, with the number of measured cells."""
    found, beside = tables(made, results), _beside_words(_beside(made, results))
    text = [
        f"study {made['study']}: {made['title']} (scale {made['scale']}, {made['hardware']['title']}, "
        f"{made['engine']['name']} {made['engine']['version']})",
        "",
        table(*found["experiments"]),
        "",
        f"{count(len(made['cells']), 'distinct cell')}, {count(len(made['engines']), 'engine load')}, "
        f"{count(len(made['jobs']), 'job')}; "
        f"{sum(c['derived_from'] is not None for c in made['cells'].values())} cells truncated from longer runs"
        + (f"; {beside.rstrip('; ')}" if beside else ""),
        *forecast.lines(made, gpus),
        "",
        table(*found["jobs"]),
        *_unsupported(made),
    ]
    if made["derived"]:
        text += ["", table(*found["derived"]), "", table(*found["derive_jobs"])]
    for harness in accuracy.harnesses(made):
        part = made["accuracy"][harness]
        tasks = sorted({cell["task"]["name"] for cell in part["cells"].values()})
        heading = (
            f"accuracy by {harness}: {count(len(part['cells']), 'cell')} of {count(len(tasks), 'task')} "
            f"({', '.join(tasks)}), {count(len(part['engines']), 'engine load')}"
        )
        text += ["", heading, "", table(*found[f"accuracy_{harness}"])]
    head = ["weights GB per GPU", "KV tokens", "longest request", "batch fits", "batch asked"]
    if cells and (limits := forecast.boundaries(made)):
        text += ["", "memory limits:", table(["engine configuration", *head], limits)]
    elif limits := forecast.tightest(made):
        words = "memory limits, the tightest engine configuration of each model (--cells: all):"
        text += ["", words, table(["model", "GPUs", *head], limits)]
    if cells:
        seen = statuses(made, results)
        listed = [
            [
                k,
                "unknown" if (need := c["predicted"]["bytes_per_gpu"]) is None else round(need / 1e9, 1),
                record["status"] if (record := seen[k]) else "not measured",
            ]
            for k, c in made["cells"].items()
        ]
        text += ["", table(["cell", "predicted GB per GPU", "status"], listed)]
    return "\n".join(text)


def _unsupported(made: Plan) -> list[str]:
    """Number of unsupported points of each experiment's grids by reason, the most frequent first."""
    rows: list[list[Any]] = []
    for name, experiment in made["experiments"].items():
        ordered = sorted(unsupported.reasons(experiment).items(), key=lambda found: -found[1])
        rows += [[name, number, reason] for reason, number in ordered[:MOST_REASONS]]
        rest = ordered[MOST_REASONS:]
        more = f"{count(len(rest), 'more reason')}, in the table failures"
        rows += [[name, sum(number for _, number in rest), more]] * bool(rest)
    return ["", "points that cannot run, status unsupported:", table(["experiment", "points", "reason"], rows)] * bool(
        rows
    )


def failures(made: Plan, results: Path, profile: str, default: str, usual: Path | None = None) -> dict[str, Any]:
    """Cells that are not ok, accuracy cells included, why, and the command that runs one again; the number without a
    record.  Unsupported cells of an engine configuration are one entry for each reason.

    ``default`` and ``usual``: the study and the results folder that config/config.yaml names (None: ``results``).
    """
    groups: dict[tuple[Any, ...], list[tuple[str, Record]]] = {}
    elsewhere = results if usual is not None and results != usual else None
    study = made["study"] if made["study"] != default else None
    seen = [(key, record, results) for key, record in statuses(made, results).items()]
    for _, part, folder in accuracy.views(made, results):
        seen += [(key, record, folder) for key, record in statuses(part, folder).items()]
    for key, record, place in seen:
        if record is None or record["status"] == "ok":
            continue
        whole = record["status"] == "unsupported"  # one entry, as the others of its engine configuration
        group = (place, record["engine"], record["reason"]) if whole else (place, key)
        groups.setdefault(group, []).append((key, record))
    return {
        "study": made["study"],
        "cells": len(seen),
        "not_measured": sum(record is None for _, record, _ in seen),
        "failures": [
            {
                "cell": same[0][0],
                "status": same[0][1]["status"],
                "reason": same[0][1]["reason"],
                "evidence": same[0][1]["evidence"],
                "more_cells": [key for key, _ in same[1:]],
                "command": rerun_command(same[0][0], group[0], profile, study, elsewhere),
            }
            for group, same in groups.items()
        ],
    }


def failures_text(found: dict[str, Any]) -> str:
    """The result of ``failures`` as text."""
    study = found["study"]
    blocks = [
        "\n".join(
            [
                f"{f['status']}: {f['cell']}"
                + (f" and {count(len(f['more_cells']), 'more cell')} of it" if f["more_cells"] else ""),
                f"    {f['reason']}",
                *(f"    | {line[:200]}" for line in f["evidence"][-2:]),
                f"    {f['command']}",
            ]
        )
        for f in found["failures"]
    ]
    if found["not_measured"]:
        missing = f"{found['not_measured']:,} of {count(found['cells'], 'cell')} not measured"
        blocks.append(f"study {study}: {missing}; the logs of their jobs are in logs/{study}/")
    return "\n\n".join(blocks) or f"study {study}: no failed cells"
