"""Verbs that the workflow and developers call; the first help does not list them.

``measure``, ``evaluate`` and ``derive`` run in an engine's environment, the others in the workflow's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from moebench.commands.app import (
    INTERNAL,
    PROGRESS_LOG,
    ConfigFolder,
    PlanFile,
    ResultsFolder,
    flag,
    verb,
)
from moebench.errors import UserError

Job = Annotated[str | None, Option("--job", metavar="NAME", help="Job of the plan: run its missing cells.")]
Cell = Annotated[str | None, Option("--cell", metavar="ENGINE/CELL", help="Run this cell again, alone.")]
EngineLog = Annotated[
    Path | None, Option("--engine-log", metavar="FILE", help="Log file of the engine. Default: in logs/STUDY.")
]


def _target(job: str | None, cell: str | None) -> str:
    """Name of the job, or of the cell's engine configuration."""
    if (job is None) == (cell is None):
        raise typer.BadParameter("give one of --job and --cell", param_hint="--job/--cell")
    return job or str(cell).partition("/")[0]


@verb(INTERNAL)
def measure(
    context: typer.Context,
    plan: PlanFile,
    job: Job = None,
    cell: Cell = None,
    results: ResultsFolder = Path("results"),
    engine_log: EngineLog = None,
) -> int:
    """Measure the missing cells of a job, or one cell.

    Runs in the engine's environment, on the compute node. Exit code 1: a cell has no result yet.
    """
    name = _target(job, cell)
    from moebench.measure import constants
    from moebench.measure.driver import Driver
    from moebench.measure.job_log import end_on_signals, speaker
    from moebench.plan.file import read_plan

    made = read_plan(plan)
    log = engine_log or Path("logs") / made["study"] / f"{name}.engine.log"
    end_on_signals()
    progress_log = context.meta[PROGRESS_LOG] = log.with_suffix(".progress.log")
    driver = Driver(made, results, log, speaker(progress_log))
    if job:
        if job not in made["jobs"]:
            raise UserError(f"{plan}: no job {job!r}; `moebench plan` lists them")
        first = made["jobs"][job]["engines"][0]
        constants.ensure(made, first, results, sys.executable, driver.say)
        return 0 if driver.run_job(job) else 1
    engine, _, key = str(cell).partition("/")
    return 0 if driver.run_cell(engine, key.removesuffix(".json")) else 1


@verb(INTERNAL)
def evaluate(
    context: typer.Context,
    plan: PlanFile,
    job: Job = None,
    cell: Cell = None,
    harness: Annotated[str, Option("--harness", metavar="NAME", help="Accuracy harness.")] = "lm-eval",
    results: ResultsFolder = Path("results"),
    engine_log: EngineLog = None,
) -> int:
    """Evaluate the missing accuracy cells of a job, or one cell.

    Runs in the engine's environment, on the compute node. Exit code 1: a cell has no result yet.
    """
    name = _target(job, cell)
    from moebench import accuracy
    from moebench.accuracy.driver import Evaluator
    from moebench.measure.job_log import end_on_signals, speaker
    from moebench.plan.file import read_plan

    made = read_plan(plan)
    if harness not in accuracy.harnesses(made):
        raise UserError(f"{plan}: no tasks of harness {harness!r}; `moebench plan` lists them")
    log = engine_log or Path("logs") / made["study"] / harness / f"{name}.engine.log"
    end_on_signals()
    progress_log = context.meta[PROGRESS_LOG] = log.with_suffix(".progress.log")
    driver = Evaluator(made, harness, results, log, speaker(progress_log))
    try:
        if job:
            if job not in driver.plan["jobs"]:
                raise UserError(f"{plan}: no job {job!r}; `moebench plan` lists them")
            return 0 if driver.run_job(job) else 1
        engine, _, key = str(cell).partition("/")
        return 0 if driver.run_cell(engine, key.removesuffix(".json")) else 1
    finally:
        driver.close()


@verb(INTERNAL)
def derive(
    context: typer.Context,
    plan: PlanFile,
    model: Annotated[
        list[str] | None,
        Option("--model", metavar="FOLDER", help="Checkpoint to create. Default: all of the plan."),
    ] = None,
    more: Annotated[list[str] | None, Argument(metavar="FOLDER", help="More checkpoints.")] = None,
    log: Annotated[
        Path | None, Option("--log", metavar="FILE", help="Log file. Default: logs/STUDY/derive.log.")
    ] = None,
) -> int:
    """Create the pruned and quantized checkpoints of a plan.

    Runs on a compute node, in the environment of the pruning or quantization tool. A node at fault is left out by
    Snakemake's next attempt.
    """
    from moebench.measure import faults
    from moebench.measure.job_log import end_on_signals, speaker
    from moebench.models.derive import derive as make
    from moebench.models.derive import host_fault
    from moebench.plan.file import read_plan
    from moebench.storage import scratch

    if scratch.needed():
        os.environ |= scratch.environment(scratch.make())
    made, names = read_plan(plan), [*(model or ()), *(more or ())]
    end_on_signals()
    progress_log = context.meta[PROGRESS_LOG] = log or Path("logs") / made["study"] / "derive.log"
    say = speaker(progress_log)
    for name in names or made["derived"]:
        try:
            new = make(made, name, say)
        except Exception as error:
            if (fault := host_fault(error)) is None:
                raise
            faults.note(plan.parent.parent, fault)  # plans are kept in results/plan
            said = f"{name}: not made: {fault} on {faults.node()} ({' '.join(str(error).split())[:300]})"
            raise UserError(f"{said}; fix the node or its environment (`moebench doctor`, run there)") from error
        say(f"{name}: {'made' if new else 'there already'}")
    return 0


@verb(INTERNAL)
def collect(
    plan: PlanFile,
    results: ResultsFolder,
    out: Annotated[Path, Option("--out", metavar="FOLDER", help="Folder for the tables.")],
) -> int:
    """Collect the records of a plan into Parquet tables."""
    from moebench.claims.collect import collect

    print(collect(plan, results, out))
    return 0


@verb(INTERNAL)
def schema(
    config: ConfigFolder = Path("config"),
    check: Annotated[bool, flag("--check", "Write nothing. Exit code 1: a file is out of date or wrong.")] = False,
) -> int:
    """Update the files generated from the configuration's classes.

    Writes the JSON schemas in config/schemas, the line that names the schema in each YAML file, and the tables of
    config/README.md.
    """
    from moebench.commands.schema import update

    stale = update(config, check=check)
    for path in stale:
        if check:
            print(f"{path}: differs from moebench/config; run `moebench schema`")
        else:
            print(f"{path}: written from moebench/config")
    return 1 if check and stale else 0
