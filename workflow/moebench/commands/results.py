"""Verbs of the group Results: reports, failures, claims, comparisons, archives."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from typer import Argument, Option

from moebench.commands.app import (
    INTERNAL,
    RESULTS,
    ConfigFolder,
    JsonFlag,
    PlanFile,
    ResultsFolder,
    Study,
    TablesFolder,
    checked_profile,
    flag,
    of_study,
    positive,
    print_json,
    verb,
)
from moebench.errors import UserError
from moebench.text import count

Verdict = Literal["confirmed", "refuted", "inconclusive", "not decided", "not measured"]


@verb(RESULTS)
@of_study
def report(
    study: Study,
    partial: Annotated[
        bool, flag("--partial", "Build tables, figures and report from what is measured so far.")
    ] = False,
    archive: Annotated[
        Path | None, Option("--from", metavar="ARCHIVE", help="Rebuild the report of an archive from its records.")
    ] = None,
    plan: Annotated[Path | None, Option("--plan", metavar="FILE", help="Plan file.")] = None,
    tables: Annotated[Path | None, Option("--tables", metavar="FOLDER", help="Folder of tables.")] = None,
    figures: Annotated[Path | None, Option("--figures", metavar="FOLDER", help="Folder of figures.")] = None,
    out: Annotated[
        Path | None, Option("--out", metavar="PATH", help="Report file to write; with --from, a folder.")
    ] = None,
) -> int:
    """Build the HTML report.

    Needs --partial, or --from ARCHIVE, or (as in the workflow) --plan, --tables, --figures and --out.
    """
    from moebench.progress.steps import steps
    from moebench.report import build
    from moebench.report.archive import rebuild

    if archive:
        if not archive.is_file():
            raise UserError(f"--from {archive}: no such file; `snakemake archive` packs one")
        with steps(f"report from {archive}") as say:
            made = rebuild(archive, out or Path("report-from-archive"), say)
        print(made)
    elif partial:
        with steps(f"report of study {study.name}") as say:
            page = _partial(study, say)
        print(page)
    elif plan and tables and figures and out:
        print(build(plan, tables, figures, out))
    else:
        raise UserError("report: give --plan, --tables, --figures and --out, or --partial, or --from ARCHIVE")
    return 0


def _partial(study: Study, say: Callable[[str], None]) -> Any:
    """Tables, figures and report of what is measured so far, without Snakemake."""
    from moebench.claims.collect import collect
    from moebench.commands.planning import keep
    from moebench.figures import render_all
    from moebench.report import build

    made = study.plan()
    results, folder = study.results, study.reports / made["study"]
    plan_file, tables = keep(made, results, study.config.folder), results / "tables" / made["study"]
    say("tables from the records")
    collect(plan_file, results, tables)
    render_all(made, tables, folder / "figures", say)
    say("the report")
    return build(plan_file, tables, folder / "figures", folder / "report.html")


@verb(RESULTS)
@of_study
def watch(
    study: Study,
    once: Annotated[bool, flag("--once", "Show the state once and exit, as without a terminal.")] = False,
    json: Annotated[bool, flag("--json", "Show the state once, as JSON.")] = False,
    every: Annotated[
        float, Option("--every", metavar="SECONDS", parser=positive(float), help="Seconds between updates.")
    ] = 2.0,
    report: Annotated[
        float | None,
        Option("--report", metavar="MINUTES", parser=positive(float),
               help="Also build the partial report, at most every MINUTES and if there are new results."),
    ] = None,
) -> int:  # fmt: skip
    """Watch a running study: progress, failures, time left.

    Reads the files that jobs write, here or on other nodes. Ends when all cells are done.
    """
    from moebench.commands.watching import follow

    return follow(study, once, every, report, json)


@verb(RESULTS)
@of_study
def figures(
    study: Study,
    paper: Annotated[
        bool, flag("--paper", "Write PDFs of one and two columns, captions as LaTeX, and data with units.")
    ] = False,
    plan: Annotated[Path | None, Option("--plan", metavar="FILE", help="Plan file.")] = None,
    tables: Annotated[Path | None, Option("--tables", metavar="FOLDER", help="Folder of tables.")] = None,
    out: Annotated[Path | None, Option("--out", metavar="FOLDER", help="Folder for the figures.")] = None,
    only: Annotated[
        Literal["computed", "measured"] | None,
        Option("--only", help="Only figures that need no measurement and no tables, or only the others."),
    ] = None,
) -> int:
    """Draw the figures of a study: for the report, or for a paper.

    Default folders: those of the study; figures for a paper go to reports/STUDY/paper.
    """
    from moebench.figures import paper as for_paper
    from moebench.figures import render_all, render_computed
    from moebench.plan.file import read_plan
    from moebench.progress.steps import steps

    name = "" if plan and (tables or only == "computed") and out else study.name
    made = read_plan(plan or study.results / "plan" / f"{name}.json")
    if only == "computed" and not paper:
        render_computed(made, out or study.reports / name / "figures")
        return 0
    tables = tables or study.results / "tables" / name
    if not paper:
        render_all(made, tables, out or study.reports / name / "figures", computed=False if only else None)
        return 0
    folder = out or study.reports / name / "paper"
    with steps(f"figures of study {made['study']} for a paper") as say:
        for_paper.write(made, tables, folder, say)
    print(folder / for_paper.METADATA)
    return 0


@verb(RESULTS)
@of_study
def failures(
    study: Study,
    profile: Annotated[
        str | None,
        Option(
            "--profile", metavar="FOLDER",
            help="Snakemake profile in the commands. Default: profiles/local for CPUs, profiles/slurm for GPUs.",
        ),
    ] = None,
    json: JsonFlag = False,
) -> int:  # fmt: skip
    """List failed cells, their reasons, and commands to rerun them.

    Exit code 1: some cells failed or are not measured yet.
    """
    from moebench.commands import show

    made = study.plan()
    kind = "local" if made["hardware"]["kind"] == "cpu" else "slurm"
    root = study.config.root()
    chosen = checked_profile(profile) or f"profiles/{kind}"
    found = show.failures(made, study.results, chosen, root.study, Path(root.results))
    print_json(found) if json else print(show.failures_text(found))
    return 1 if found["failures"] or found["not_measured"] else 0


@verb(RESULTS)
@of_study
def rerun(
    study: Study,
    status: Annotated[
        list[str] | None,
        Option("--status", metavar="STATUS", help="Status of the cells, e.g. crashed. May be repeated."),
    ] = None,
    reason: Annotated[str, Option("--reason", metavar="TEXT", help="Only cells whose reason contains TEXT.")] = "",
    dry_run: Annotated[bool, flag("--dry-run", "Change nothing; list the cells.")] = False,
    profile: Annotated[
        str | None, Option("--profile", metavar="FOLDER", help="Snakemake profile in the command that is shown.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Mark failed cells to be measured again, by status and reason.

    They become pending, with all attempts available again, for the next run of Snakemake. Their records stay in
    results/history.
    """
    from moebench.commands import rerun as again
    from moebench.errors import nearest

    for name in status or []:
        if name not in again.STATUSES:
            raise UserError(f"--status {name}: not a status of a failed cell" + nearest(name, again.STATUSES))
    if not status:
        raise UserError(f"rerun: give --status, one or more of {', '.join(again.STATUSES)}")
    made = study.plan()
    kind = "local" if made["hardware"]["kind"] == "cpu" else "slurm"
    found = again.matching(made, study.results, status, reason)
    if not dry_run:
        again.make_pending(found)
    command = f"snakemake --profile {checked_profile(profile) or f'profiles/{kind}'}"
    root = study.config.root()
    given = {"study": (made["study"], root.study), "results": (study.results, Path(root.results))}
    config = " ".join(f"{name}={value}" for name, (value, usual) in given.items() if value != usual)
    command += f" --config {config}" if config else ""
    if json:
        cells = [{"cell": f"{r['engine']}/{r['cell']}", "status": r["status"], "reason": r["reason"],
                  "results": str(folder)} for folder, r in found.cells]  # fmt: skip
        print_json({"study": made["study"], "dry_run": dry_run, "busy": found.busy, "cells": cells, "command": command})
    else:
        print(again.text(found, made["study"], command, dry_run))
    return 0


@verb(RESULTS)
@of_study
def claims(
    study: Study,
    claim: Annotated[
        list[str] | None, Argument(metavar="CLAIM", help="Show everything about these claims.", show_default=False)
    ] = None,
    verdict: Annotated[
        Verdict | None,
        Option("--verdict", metavar="VERDICT", help=f"Only claims with this verdict: {', '.join(get_args(Verdict))}."),
    ] = None,
    comparisons: Annotated[
        bool, flag("--comparisons", "Show how many comparisons the plan has for each claim.")
    ] = False,
    check: Annotated[bool, flag("--check", "Exit code 1 if a measured claim is refuted.")] = False,
    json: JsonFlag = False,
) -> int:
    """Evaluate the papers' claims against the measurements."""
    from moebench.claims import coverage, show
    from moebench.errors import nearest
    from moebench.tables import parquet

    study.config.study(study.name, "--study" if study.chosen else str(study.config.folder / "config.yaml"))
    if comparisons:
        made = coverage.rows(study.plan())
        print_json(made) if json else print(coverage.text(made, study.name))
        return 0
    frame, wanted = parquet.read(study.results / "tables" / study.name, "claims"), claim or []
    for name in wanted:
        if name not in set(frame["claim"]):
            raise UserError(f"claim {name!r}: no such claim" + nearest(name, set(frame["claim"])))
    chosen = frame[frame["claim"].isin(wanted)] if wanted else frame
    if verdict:
        chosen = chosen[chosen["verdict"] == verdict]
    if json:
        print(chosen.to_json(orient="records", indent=1))
    elif wanted:
        print(show.details(chosen))
    else:
        print(show.text(chosen, study.name))
    measured = chosen[chosen["test"] != "printed"]
    return 1 if check and (measured["verdict"] == "refuted").any() else 0


@verb(RESULTS)
def compare(
    a: Annotated[Path, Argument(metavar="A", help="Results folder, folder of tables, or archive.zip.")],
    b: Annotated[Path, Argument(metavar="B", help="Result set to compare with A.")],
    more: Annotated[
        list[Path] | None, Argument(metavar="C", help="More sets, each compared with A.", show_default=False)
    ] = None,
    study: Annotated[
        str | None, Option("--study", metavar="NAME", help="Study, if a results folder holds several.")
    ] = None,
    metric: Annotated[str, Option("--metric", metavar="NAME", help="Metric to compare.")] = "e2e_s",
    threshold: Annotated[
        float,
        Option("--threshold", metavar="SHARE", parser=positive(float), help="Smallest relative change that counts."),
    ] = 0.05,
    adjust: Annotated[
        Literal["bh", "holm"], Option("--adjust", help="Correction for many cells: Benjamini-Hochberg or Holm.")
    ] = "bh",
    every: Annotated[bool, flag("--all", "List unchanged cells too.")] = False,
    json: JsonFlag = False,
    csv: Annotated[Path | None, Option("--csv", metavar="FILE", help="Also write the pairs of cells to FILE.")] = None,
) -> int:
    """Compare result sets: B, and any others, with A.

    Compares cell by cell, and all cells together. Exit code 1: something changed by more than noise.
    """
    import pandas as pd

    from moebench import columns
    from moebench.claims import compare as comparing
    from moebench.claims import show
    from moebench.errors import nearest

    if metric not in columns.METRIC_NAMES:
        raise UserError(f"--metric: unknown metric {metric!r}" + nearest(metric, columns.METRIC_NAMES))
    left, *others = (comparing.load(path, study) for path in (a, b, *(more or ())))
    compared = [(right, comparing.compare(left, right, metric, threshold, adjust)) for right in others]
    if csv:
        named = [made.pairs.assign(b_set=right.name) if more else made.pairs for right, made in compared]
        pd.concat(named).to_csv(csv, index=False)
    if json:
        found = [{
            "a": left.name, "b": right.name, "metric": made.metric, "differs": made.differs, "only_a": made.only_a,
            "only_b": made.only_b, "together": made.together.as_json(),
            "pairs": json_text.loads(made.pairs.to_json(orient="records")),
        } for right, made in compared]  # fmt: skip
        print_json(found if more else found[0])
    else:
        print("\n\n".join(show.comparison(made, left.name, right.name, every) for right, made in compared))
    return 1 if any(len(made.changed) or made.together.changed for _, made in compared) else 0


@verb(INTERNAL)
def archive(
    plan: PlanFile,
    results: ResultsFolder,
    tables: TablesFolder,
    report: Annotated[Path, Option("--report", metavar="FOLDER", help="Folder of the report.")],
    config: ConfigFolder,
    out: Annotated[Path, Option("--out", metavar="FILE", help="Zip file to write.")],
) -> int:
    """Pack report, figures, tables, records and configuration into a zip.

    Lock files and checksums are packed too. `snakemake archive` calls this verb.
    """
    from moebench.progress.steps import steps
    from moebench.report.archive import archive as pack

    with steps(f"archive {out}") as say:
        made = pack(plan, results, tables, report, config, out, say)
    print(made)
    return 0


@verb(RESULTS)
def verify(
    archive: Annotated[Path, Argument(metavar="ARCHIVE", help="Zip file that `moebench archive` wrote.")],
    json: JsonFlag = False,
) -> int:
    """Check an archive against its checksums and its records.

    Lists every file that was changed, damaged, removed or added. Exit code 1: there is such a file, or the records give
    numbers other than the report's.
    """
    from moebench.progress.steps import steps
    from moebench.report import archive as archives

    try:
        with steps(f"verify {archive}") as say:
            made = archives.verify(archive, say)
    except archives.AlteredError as error:
        if json:
            print_json({"archive": str(archive), "altered": error.files, "same_numbers": None, "verdict": None})
        else:
            print(f"{archive}: {count(len(error.files), 'file')} not as packed:", *error.files, sep="\n    ")
        return 1
    if json:
        outcome = {"same_numbers": made.same_numbers, "verdict": made.verdict}
        print_json({"archive": str(archive), "altered": [], **outcome})
    else:
        print(f"{archive}: all checksums match; report rebuilt from the records: {made.verdict}")
    return 0 if made.same_numbers else 1


@verb(RESULTS)
def columns(json: JsonFlag = False) -> int:
    """List the columns of all tables, with units and meanings."""
    from moebench import columns as registry
    from moebench.text import table

    if json:
        print_json([
            {"column": c.name, "type": str(c.type), "unit": c.unit, "tables": c.tables, "meaning": c.description}
            for c in registry.COLUMNS.values()
        ])  # fmt: skip
        return 0
    rows = [[c.name, c.type, c.unit, ", ".join(c.tables), c.description] for c in registry.COLUMNS.values()]
    print(table(["column", "type", "unit", "tables", "meaning"], rows))
    return 0
