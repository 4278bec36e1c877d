"""Plans and failures as text for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moebench import accuracy
from moebench.formats.model import ModelDict
from moebench.formats.plan import DeriveJob, Plan
from moebench.formats.record import Record
from moebench.measure import records
from moebench.models.derive import derivation, is_made
from moebench.plan import forecast
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


def summary(plan: Plan, results: Path, reports: Path) -> str:
    """One line: cells, loads, jobs, how many are measured; accuracy cells, derived checkpoints; where the report is."""
    seen = statuses(plan, results)
    measured = sum(_final(r) for r in seen.values())
    failed = sum(r is not None and r["status"] != "ok" for r in seen.values())
    report = reports / plan["study"] / "report.html"
    where = f"report: {report.resolve()}" if report.exists() else "no report yet"
    return (
        f"study {plan['study']}: {count(len(seen), 'cell')} in {count(len(plan['engines']), 'engine configuration')} "
        f"and {count(len(plan['jobs']), 'job')}; {measured} measured ({failed} not ok); {_beside(plan, results)}{where}"
    )


def _beside(plan: Plan, results: Path) -> str:
    """``20 accuracy cells, 3 measured; 4 derived checkpoints, 4 made;``, of what a plan has."""
    parts = []
    answers = [r for _, part, folder in accuracy.views(plan, results) for r in statuses(part, folder).values()]
    if answers:
        parts.append(f"{count(len(answers), 'accuracy cell')}, {sum(map(_final, answers))} measured; ")
    if derived := plan.get("derived"):
        made = sum(map(is_made, derived.values()))
        parts.append(f"{count(len(derived), 'derived checkpoint')}, {made} made; ")
    return "".join(parts)


def plan(made: Plan, results: Path, cells: bool = False, gpus: int | None = None) -> str:
    """What a study asks for: by experiment and by job, with what is measured already."""
    seen = statuses(made, results)
    rows = []
    for name, experiment in made["experiments"].items():
        keys = {f"{r['engine']}/{r['cell']}" for r in experiment["rows"]}
        engines = {r["engine"] for r in experiment["rows"]}
        rows.append([name, len(keys), len(engines), sum(_final(seen[k]) for k in keys)])
    jobs = []
    for name, job in made["jobs"].items():
        mine = [f"{e}/{c}" for e in job["engines"] for c in made["engines"][e]["cells"]]
        jobs.append(
            [
                name,
                len(job["engines"]),
                len(mine),
                job["gpus"],
                job["mem_mb"],
                job["runtime_min"],
                sum(_final(seen[k]) for k in mine),
            ]
        )
    text = [
        f"study {made['study']}: {made['title']} (scale {made['scale']}, {made['hardware']['title']}, "
        f"{made['engine']['name']} {made['engine']['version']})",
        "",
        table(["experiment", "cells", "loads", "measured"], rows),
        "",
        f"{count(len(made['cells']), 'distinct cell')}, {count(len(made['engines']), 'engine load')}, "
        f"{count(len(made['jobs']), 'job')}; "
        f"{sum(c['derived_from'] is not None for c in made['cells'].values())} cells come from longer runs"
        + (f"; {beside}" if (beside := _beside(made, results).rstrip("; ")) else ""),
        *forecast.lines(made, gpus),
        "",
        table(["job", "loads", "cells", "GPUs", "memory MB", "minutes", "measured"], jobs),
    ]
    if made["derived"]:
        head = ["derived checkpoint", "by", "from", "made"]
        text += ["", table(head, [_derived(name, model) for name, model in made["derived"].items()])]
        head = ["job that derives", "checkpoints", "GPUs", "memory MB", "minutes"]
        text += ["", table(head, [_derive_job(name, job) for name, job in made["derive_jobs"].items()])]
    for harness in accuracy.harnesses(made):
        text += ["", *_accuracy(harness, made, results)]
    head = ["weights GB per GPU", "KV tokens", "longest request", "batch fits", "batch asked"]
    if cells and (ends := forecast.boundaries(made)):
        text += ["", "where memory ends:", table(["engine configuration", *head], ends)]
    elif ends := forecast.tightest(made):
        words = "where memory ends, the tightest engine configuration of each model (--cells: all):"
        text += ["", words, table(["model", "GPUs", *head], ends)]
    if cells:
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


def _derived(name: str, model: ModelDict) -> list[Any]:
    derived = derivation(model)
    parent = derived["parent"]  # by its name; one that is derived itself by its folder, as in its own row
    called = Path(parent["path"]).name if parent["derived"] else parent["name"]
    return [name, derived["by"], called, "yes" if is_made(model) else "no"]


def _derive_job(name: str, job: DeriveJob) -> list[Any]:
    return [name, len(job["models"]), job["gpus"], job["mem_mb"], job["runtime_min"]]


def _accuracy(harness: str, made: Plan, results: Path) -> list[str]:
    """Tasks and jobs of a harness."""
    part = made["accuracy"][harness]
    seen = statuses(accuracy.view(made, harness), accuracy.folder(results, harness))
    jobs = [
        [
            name,
            len(job["engines"]),
            job["cells"],
            job["gpus"],
            job["mem_mb"],
            job["runtime_min"],
            sum(_final(seen[f"{e}/{c}"]) for e in job["engines"] for c in part["engines"][e]["cells"]),
        ]
        for name, job in part["jobs"].items()
    ]
    tasks = sorted({cell["task"]["name"] for cell in part["cells"].values()})
    return [
        f"accuracy by {harness}: {count(len(part['cells']), 'cell')} of {count(len(tasks), 'task')} "
        f"({', '.join(tasks)}), {count(len(part['engines']), 'engine load')}",
        "",
        table(["accuracy job", "loads", "cells", "GPUs", "memory MB", "minutes", "measured"], jobs),
    ]


def failures(made: Plan, results: Path, profile: str, default: str, usual: Path | None = None) -> tuple[str, int]:
    """Cells that are not ok, accuracy cells included, why, and how to run one again; how many have no record; and the
    number of both.  Unsupported cells of an engine configuration are one entry for each
    reason.

    ``default`` and ``usual``: the study and the results folder that config/config.yaml names (None: ``results``).
    """
    unmeasured, failed = 0, 0
    groups: dict[tuple[Any, ...], list[tuple[str, Record]]] = {}
    elsewhere = results if usual is not None and results != usual else None
    study = made["study"] if made["study"] != default else None
    seen = [(key, record, results) for key, record in statuses(made, results).items()]
    for _, part, folder in accuracy.views(made, results):
        seen += [(key, record, folder) for key, record in statuses(part, folder).items()]
    for key, record, place in seen:
        unmeasured += record is None
        if record is None or record["status"] == "ok":
            continue
        failed += 1
        whole = record["status"] == "unsupported"  # one entry, as the others of its engine configuration
        group = (place, record["engine"], record["reason"]) if whole else (place, key)
        groups.setdefault(group, []).append((key, record))
    blocks = [
        "\n".join(
            [
                f"{record['status']}: {key}" + (f" and {count(len(same) - 1, 'more cell')} of it" if same[1:] else ""),
                f"    {record['reason']}",
                *(f"    | {line[:200]}" for line in record["evidence"][-2:]),
                f"    {rerun_command(key, group[0], profile, study, elsewhere)}",
            ]
        )
        for group, same in groups.items()
        for key, record in same[:1]
    ]
    if unmeasured:
        said = f"{unmeasured:,} of {count(len(seen), 'cell')} not measured"
        blocks.append(
            f"study {made['study']}: {said}; a job that was to measure them has its logs in logs/{made['study']}/"
        )
    return "\n\n".join(blocks) or f"study {made['study']}: no failed cells", failed + unmeasured
