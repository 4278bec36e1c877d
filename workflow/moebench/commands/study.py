"""Verbs of the group Study: what a study needs, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from moebench.commands.app import STUDY, JsonFlag, Study, checked_profile, flag, of_study, positive, print_json, verb
from moebench.errors import UserError


@verb(STUDY)
@of_study
def plan(
    study: Study,
    cells: Annotated[bool, flag("--cells", "Also list every cell, and the memory limits.")] = False,
    gpus: Annotated[
        int | None, Option("--gpus", metavar="N", parser=positive(int), help="Also estimate the wall time on N GPUs.")
    ] = None,
    budget: Annotated[
        float | None,
        Option(
            "--budget", metavar="HOURS", parser=positive(float),
            help="Plan only the cells that decide the most claims within this many GPU-hours; list what is left out.",
        ),
    ] = None,
    summary: Annotated[
        bool, flag("--summary", "Print one line: how much is measured, and where the report is.")
    ] = False,
    json: Annotated[
        bool, flag("--json", "Print the plan as JSON; with --summary, the counts and tables of the progress.")
    ] = False,
    write: Annotated[Path | None, Option("--write", metavar="FILE", help="Write the plan to FILE as JSON.")] = None,
    environment_names: Annotated[
        bool, flag("--environment-names", "Print the names of the environments that the study needs.")
    ] = False,
) -> int:  # fmt: skip
    """Show what a study will measure, and what is already measured."""
    from moebench.commands import show
    from moebench.plan.jobs import environments_needed
    from moebench.storage.atomic import canonical_bytes, write_atomic

    made = study.plan(budget)
    if environment_names:
        names = environments_needed(made)
        print_json(names) if json else print("\n".join(names))
        return 0
    if summary:
        progress = show.progress(made, study.results, study.reports)
        if json:
            print_json(progress | {"tables": show.as_json(show.tables(made, study.results))})
        else:
            print(show.summary(progress))
        return 0
    from moebench.figures import check

    check(made, study.config.folder)  # before hours of measuring, as Snakemake does: figures that cannot be drawn
    if write:
        write_atomic(write, canonical_bytes(made) + b"\n")
    elif json:
        print_json(made)
    else:
        print(show.plan(made, study.results, cells=cells, gpus=gpus))
    return 0


@verb(STUDY)
@of_study
def doctor(
    study: Study,
    profile: Annotated[
        str | None,
        Option("--profile", metavar="FOLDER", help="Snakemake profile that submits jobs. Default: profiles/slurm."),
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Show what is missing on this machine or cluster, and how to fix it.

    Exit code 1: something is missing.
    """
    from moebench.commands import doctor

    file = Path(checked_profile(profile) or "profiles/slurm") / "config.yaml"
    heading, findings = doctor.examine(study.config, study.name, study.results, file)
    if json:
        print_json([finding.as_json() for finding in findings])
    else:
        print(doctor.text(heading, findings))
    return 1 if any(finding.good is False for finding in findings) else 0


@verb(STUDY)
@of_study
def stage(
    study: Study,
    check: Annotated[bool, flag("--check", "Only show what is staged. Exit code 1: something is missing.")] = False,
    full: Annotated[bool, flag("--full", "Verify the checksums of staged files too (reads every byte).")] = False,
    update: Annotated[
        bool, flag("--update", "Pin the newest commits of the branches instead of using the pinned ones.")
    ] = False,
    budget: Annotated[
        float | None,
        Option(
            "--budget",
            metavar="HOURS",
            parser=positive(float),
            help="Stage only what the plan needs within this many GPU-hours.",
        ),
    ] = None,
    plan: Annotated[
        Path | None, Option("--plan", metavar="FILE", help="Plan file of the study. Default: plan it now.")
    ] = None,
    json: Annotated[bool, flag("--json", "With --check: print JSON instead of text.")] = False,
) -> int:
    """Download and verify the models and data sets of a study.

    Needs internet access, except for models with random weights.
    """
    from moebench.commands import stage
    from moebench.plan.file import read_plan

    hours = budget or study.config.root().budget_gpu_hours
    if not check:
        made = read_plan(plan) if plan else None
        if made and made["study"] != study.name:
            raise UserError(f"--plan {plan}: a plan of study {made['study']}, not of {study.name}; give that study's")
        return stage.stage_study(study.config, study.name, update, full, hours, made)
    problems = stage.problems(study.config, study.name, full, hours)
    if json:
        print_json([{"folder": folder, "problem": problem} for folder, problem in problems.items()])
    else:
        print("\n".join(f"{folder}: {problem or 'complete'}" for folder, problem in problems.items()))
    return int(any(problems.values()))


@verb(STUDY)
@of_study
def calibrate(
    study: Study,
    threads: Annotated[
        int | None,
        Option(
            "--threads",
            metavar="N",
            parser=positive(int),
            help="Threads. Default: as many as the study gives its engine.",
        ),
    ] = None,
    residuals: Annotated[
        bool, flag("--residuals", "Compare measured cells with their predicted bounds instead.")
    ] = False,
    fit: Annotated[
        Path | None,
        Option(
            "--fit",
            metavar="POINTS",
            help="Fit the cost model to measured points: a CSV file, or a folder of tables.",
            rich_help_panel="Fit",
        ),
    ] = None,
    kernels: Annotated[
        Path | None,
        Option(
            "--kernels", metavar="FOLDER", help="Folder of kernel tables to include in the fit.", rich_help_panel="Fit"
        ),
    ] = None,
    source: Annotated[
        str | None,
        Option("--source", metavar="TEXT", help="Source of the points. Default: the file.", rich_help_panel="Fit"),
    ] = None,
    figure: Annotated[
        Path | None,
        Option("--figure", metavar="FILE", help="Draw predictions for left-out models.", rich_help_panel="Fit"),
    ] = None,
    write: Annotated[
        bool,
        Option("--write", metavar="", help="Write the constants into config/hardware.", rich_help_panel="Fit"),
    ] = False,
    json: JsonFlag = False,
) -> int:
    """Measure this machine's memory bandwidth and compute rate.

    Cells that run on this machine are then predicted from these constants. With --fit, fits the cost model instead and
    prints how well it predicts points that it was not fitted on.
    """
    from moebench.commands import calibrate

    if fit:
        from moebench.commands import fit as fitting

        if json:
            raise UserError("--json: not with --fit, which prints the constants as YAML")
        print(fitting.run(study.config, fit, kernels, write, source, figure))
        return 0
    if residuals:
        found = calibrate.residuals(study.config, study.name, study.results)
        print_json(found) if json else print(calibrate.residual_text(found))
        return 0
    path, made = calibrate.measure(study.config, study.name, study.results, threads)
    print_json(made) if json else print(calibrate.text(path, made))
    return 0
