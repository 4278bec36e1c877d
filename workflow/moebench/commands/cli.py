"""The command line: one verb per arrow of the data's way.  Verbs import what they need when they run.

``measure``, ``evaluate`` and ``derive`` run in an engine's environment, the others in the workflow's.  Exit codes:
0 done; 1 some cells have no result yet, or a check found something; 2 a user's mistake; 3 storage failed; 130
interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import moebench
from moebench.errors import StorageError, UserError, disk_is_full

_FOLDERS = {"models": "staged models", "data": "staged data sets", "environments": "the built environments"}
"""Folders that config/config.yaml names and a call may name instead, with what is in them."""


def _study(arguments: argparse.Namespace) -> tuple[Any, str]:
    """The configuration and the name of the study asked for."""
    from moebench.config import Config

    places = {key: getattr(arguments, key) for key in _FOLDERS}
    config = Config(arguments.config, **places)
    if arguments.study == "":
        raise UserError(f"--study: the name is empty; name one of {config.folder / 'studies'}, or leave --study out")
    return config, arguments.study or config.root().study


def _plan(arguments: argparse.Namespace) -> dict[str, Any]:
    from moebench.commands.planning import make_plan

    config, study = _study(arguments)
    asked = getattr(arguments, "budget", None)
    return make_plan(config, study, budget_gpu_hours=asked or config.root().budget_gpu_hours)


def _positive(kind: type[int] | type[float]) -> Any:
    """An argument that is a number above zero."""

    def read(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
        return value

    return read


def _results(arguments: argparse.Namespace) -> Path:
    return Path(arguments.results or _study(arguments)[0].root().results)


def _reports(arguments: argparse.Namespace) -> Path:
    return Path(arguments.reports or _study(arguments)[0].root().reports)


def _profile(arguments: argparse.Namespace) -> str | None:
    """The profile's folder that a call names, if any.  Raises UserError if there is no profile in it."""
    given: str | None = arguments.profile
    if given is not None and not (Path(given) / "config.yaml").is_file():
        from moebench.errors import nearest

        known = [str(path.parent) for path in Path(given).parent.glob("*/config.yaml")]
        raise UserError(f"--profile {given}: no profile there, {Path(given) / 'config.yaml'} is missing"
                        + nearest(given, known))  # fmt: skip
    return given


# ------------------------------------------------------------------------------------------------ verbs


def plan(arguments: argparse.Namespace) -> int:
    """Print what a study asks for and what is measured already; --write keeps it for the jobs."""
    from moebench.commands import show
    from moebench.plan.jobs import environments_needed
    from moebench.storage.atomic import canonical_bytes, write_atomic

    made = _plan(arguments)
    if arguments.environment_names:
        print("\n".join(environments_needed(made)))
        return 0
    if arguments.summary:
        print(show.summary(made, _results(arguments), _reports(arguments)))
        return 0
    from moebench.figures import check

    check(made)  # a figure that cannot be drawn is said before hours of measuring (by Snakemake, too)
    if arguments.write:
        write_atomic(arguments.write, canonical_bytes(made) + b"\n")
        return 0
    if arguments.json:
        print(json.dumps(made, indent=1))
        return 0
    print(show.plan(made, _results(arguments), cells=arguments.cells, gpus=arguments.gpus))
    return 0


def stage(arguments: argparse.Namespace) -> int:
    """Bring every model of a study into the models folder, whole and checked (needs internet for hub models)."""
    from moebench.commands.stage import stage_study

    config, study = _study(arguments)
    budget = arguments.budget or config.root().budget_gpu_hours
    return stage_study(config, study, arguments.update, arguments.full, arguments.check, budget)


def measure(arguments: argparse.Namespace) -> int:
    """Measure the missing cells of a job, or one cell; runs in the engine's environment on the compute node."""
    from moebench.measure import constants
    from moebench.measure.driver import Driver, end_on_signals, speaker
    from moebench.plan.file import read_plan

    made = read_plan(arguments.plan)
    name = arguments.job or arguments.cell.partition("/")[0]
    log = arguments.engine_log or Path("logs") / made["study"] / f"{name}.engine.log"
    end_on_signals()
    arguments.progress_log = log.with_suffix(".progress.log")
    driver = Driver(made, arguments.results, log, speaker(arguments.progress_log))
    if arguments.job:
        if arguments.job not in made["jobs"]:
            raise UserError(f"{arguments.plan}: no job {arguments.job!r}; `moebench plan` lists them")
        first = made["jobs"][arguments.job]["engines"][0]
        constants.ensure(made, first, arguments.results, sys.executable, driver.say)
        return 0 if driver.run_job(arguments.job) else 1
    engine, _, cell = arguments.cell.partition("/")
    return 0 if driver.run_cell(engine, cell.removesuffix(".json")) else 1


def derive(arguments: argparse.Namespace) -> int:
    """Make derived (pruned, quantized) checkpoints of a plan from staged ones; runs in the environment for it."""
    from moebench.measure.driver import end_on_signals, speaker
    from moebench.models.derive import derive as make
    from moebench.plan.file import read_plan

    made = read_plan(arguments.plan)
    end_on_signals()
    arguments.progress_log = arguments.log or Path("logs") / made["study"] / "derive.log"
    say = speaker(arguments.progress_log)
    for name in arguments.model or made["derived"]:
        new = make(made, name, say)
        say(f"{name}: {'made' if new else 'there already'}")
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate the missing accuracy cells of a job, or one cell; runs in the engine's environment."""
    from moebench import accuracy
    from moebench.accuracy.driver import Evaluator
    from moebench.measure.driver import end_on_signals, speaker
    from moebench.plan.file import read_plan

    made, harness = read_plan(arguments.plan), arguments.harness
    if harness not in accuracy.harnesses(made):
        raise UserError(f"{arguments.plan}: no tasks of harness {harness!r}; `moebench plan` lists them")
    name = arguments.job or arguments.cell.partition("/")[0]
    log = arguments.engine_log or Path("logs") / made["study"] / harness / f"{name}.engine.log"
    end_on_signals()
    arguments.progress_log = log.with_suffix(".progress.log")
    driver = Evaluator(made, harness, arguments.results, log, speaker(arguments.progress_log))
    try:
        if arguments.job:
            if arguments.job not in driver.plan["jobs"]:
                raise UserError(f"{arguments.plan}: no job {arguments.job!r}; `moebench plan` lists them")
            return 0 if driver.run_job(arguments.job) else 1
        engine, _, cell = arguments.cell.partition("/")
        return 0 if driver.run_cell(engine, cell.removesuffix(".json")) else 1
    finally:
        driver.close()


def collect(arguments: argparse.Namespace) -> int:
    """Records to Parquet tables."""
    from moebench.claims.collect import collect as collect_tables

    print(collect_tables(arguments.plan, arguments.results, arguments.out))
    return 0


def figures(arguments: argparse.Namespace) -> int:
    """Draw the figures of every experiment of a plan."""
    from moebench.figures import render_all
    from moebench.plan.file import read_plan

    render_all(read_plan(arguments.plan), arguments.tables, arguments.out)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Build the HTML report; --partial from whatever is measured; --from an archive."""
    from moebench.report import build
    from moebench.report.archive import rebuild

    if arguments.archive:
        if not arguments.archive.is_file():
            raise UserError(f"--from {arguments.archive}: no such file; `snakemake archive` packs one")
        print(rebuild(arguments.archive, arguments.out or Path("report-from-archive")))
        return 0
    if arguments.partial:
        return _partial(arguments)
    if not (arguments.plan and arguments.tables and arguments.figures and arguments.out):
        raise UserError("report: give --plan, --tables, --figures and --out, or --partial, or --from ARCHIVE")
    print(build(arguments.plan, arguments.tables, arguments.figures, arguments.out))
    return 0


def _partial(arguments: argparse.Namespace) -> int:
    """Tables, figures and report of what is measured so far, without Snakemake."""
    from moebench.claims.collect import collect as collect_tables
    from moebench.commands.planning import keep
    from moebench.figures import render_all
    from moebench.report import build

    made = _plan(arguments)
    results, folder = _results(arguments), _reports(arguments) / made["study"]
    plan_file, tables = keep(made, results), results / "tables" / made["study"]
    collect_tables(plan_file, results, tables)
    render_all(made, tables, folder / "figures")
    print(build(plan_file, tables, folder / "figures", folder / "report.html"))
    return 0


def archive(arguments: argparse.Namespace) -> int:
    """Pack report, figures, tables, records, configuration, locks and checksums into one zip."""
    from moebench.report.archive import archive as pack

    print(pack(arguments.plan, arguments.results, arguments.tables, arguments.report, arguments.config, arguments.out))
    return 0


def failures(arguments: argparse.Namespace) -> int:
    """List the cells that are not ok, why, and the command that reruns each; say how many are not measured."""
    from moebench.commands import show

    made = _plan(arguments)
    kind = "local" if made["hardware"]["kind"] == "cpu" else "slurm"
    profile = _profile(arguments) or f"profiles/{kind}"
    root = _study(arguments)[0].root()
    text, count = show.failures(made, _results(arguments), profile, root.study, Path(root.results))
    print(text)
    return 1 if count else 0


def doctor(arguments: argparse.Namespace) -> int:
    """Say what this machine or cluster has and lacks for a study, and what to do about it."""
    from moebench.commands.doctor import examine

    config, study = _study(arguments)
    profile = Path(_profile(arguments) or "profiles/slurm") / "config.yaml"
    text, lacking = examine(config, study, _results(arguments), profile)
    print(text)
    return 1 if lacking else 0


def claims(arguments: argparse.Namespace) -> int:
    """Say what the measurements make of the papers' claims; with --check exit 1 if a measured one is refuted."""
    from moebench.claims import coverage, show
    from moebench.errors import nearest
    from moebench.tables import parquet

    config, study = _study(arguments)
    config.study(study, "--study" if arguments.study else str(config.folder / "config.yaml"))
    if arguments.comparisons:
        made = coverage.rows(_plan(arguments))
        print(json.dumps(made, indent=1) if arguments.json else coverage.text(made, study))
        return 0
    frame = parquet.read(_results(arguments) / "tables" / study, "claims")
    for claim in arguments.claim:
        if claim not in set(frame["claim"]):
            raise UserError(f"claim {claim!r}: there is none such" + nearest(claim, set(frame["claim"])))
    chosen = frame[frame["claim"].isin(arguments.claim)] if arguments.claim else frame
    if arguments.verdict:
        chosen = chosen[chosen["verdict"] == arguments.verdict]
    if arguments.json:
        print(chosen.to_json(orient="records", indent=1))
    elif arguments.claim:
        print(show.details(chosen))
    else:
        print(show.text(chosen, study))
    measured = chosen[chosen["test"] != "printed"]
    return 1 if arguments.check and (measured["verdict"] == "refuted").any() else 0


def compare(arguments: argparse.Namespace) -> int:
    """Compare two result sets, each cell and all together; exit 1 if something changed beyond noise."""
    from moebench import columns
    from moebench.claims import compare as comparing
    from moebench.claims import show

    if arguments.metric not in columns.METRIC_NAMES:
        from moebench.errors import nearest

        raise UserError(
            f"--metric: unknown metric {arguments.metric!r}" + nearest(arguments.metric, columns.METRIC_NAMES)
        )
    a, b = (comparing.load(path, arguments.study) for path in (arguments.a, arguments.b))
    made = comparing.compare(a, b, arguments.metric, arguments.threshold, arguments.adjust)
    if arguments.csv:
        made.pairs.to_csv(arguments.csv, index=False)
    if arguments.json:
        found = {"a": a.name, "b": b.name, "metric": made.metric, "differs": made.differs, "only_a": made.only_a,
                 "only_b": made.only_b, "together": made.together.as_json(),
                 "pairs": json.loads(made.pairs.to_json(orient="records"))}  # fmt: skip
        print(json.dumps(found, indent=1))
    else:
        print(show.comparison(made, a.name, b.name, arguments.all))
    return 1 if len(made.changed) or made.together.changed else 0


def calibrate(arguments: argparse.Namespace) -> int:
    """Measure this machine's memory bandwidth and matrix products, or hold measured cells against them."""
    from moebench.commands import calibrate as machine

    config, study = _study(arguments)
    if arguments.fit:
        from moebench.commands import fit

        print(fit.run(config, arguments.fit, arguments.kernels, arguments.write, arguments.source, arguments.figure))
        return 0
    if arguments.residuals:
        found = machine.residuals(config, study, _results(arguments))
        print(json.dumps(found, indent=1) if arguments.json else machine.residual_text(found))
        return 0
    path, made = machine.measure(config, study, _results(arguments), arguments.threads)
    print(json.dumps(made, indent=1) if arguments.json else machine.text(path, made))
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Predict times of a list of points (CSV); where they were measured, say how far off that is."""
    from moebench.commands import predict as predicting
    from moebench.config import Config

    made, _ = predicting.run(Config(arguments.config), arguments.points, arguments.bound)
    if arguments.out:
        made.to_csv(arguments.out, index=False)
        print(predicting.report(made))
    else:
        print(made.to_csv(index=False), end="")
        print(predicting.report(made), file=sys.stderr)
    return 0


def qs(arguments: argparse.Namespace) -> int:
    """Compare decoding of a model with a dense one of equal quality on a machine (the qs inequality)."""
    from moebench.config import Config
    from moebench.qs import show

    names = ("context_tokens", "quality", "quantization", "batch", "tp", "pp", "dp", "ep", "kvp")
    knobs = {name: getattr(arguments, name) for name in names}
    config = Config(arguments.config)
    made = show.compute(config, arguments.model, arguments.hardware, arguments.gpus, **knobs)
    if arguments.sensitivity:
        made["sensitivity"] = show.sensitivity(config, made["point"])
    print(json.dumps(made, indent=1) if arguments.json else show.text(made))
    return 0


def columns(arguments: argparse.Namespace) -> int:
    """Print the columns of every table with unit and meaning."""
    from moebench import columns as registry

    print(registry.markdown())
    return 0


def schema(arguments: argparse.Namespace) -> int:
    """Write the JSON schemas in config/schemas, the line that names them in each YAML file, and the tables of
    config/README.md; --check only compares.
    """
    from moebench.commands.schema import update

    stale = update(arguments.config, check=arguments.check)
    for path in stale:
        print(
            f"{path}: {'differs from' if arguments.check else 'written from'} moebench/config"
            + ("; run `moebench schema`" if arguments.check else "")
        )
    return 1 if arguments.check and stale else 0


# ----------------------------------------------------------------------------------------------- parser


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(
        prog="moebench",
        description="Measure, predict and report the inference performance of Mixture-of-Experts models.",
    )
    top.add_argument("--version", action="version", version=moebench.__version__)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(function: Any, *groups: Any) -> argparse.ArgumentParser:
        words = (function.__doc__ or "").strip()
        one = verbs.add_parser(function.__name__, help=words, description=words)
        one.set_defaults(run=function)
        for group in groups:
            group(one)
        return one

    def of_study(one: argparse.ArgumentParser) -> None:
        one.add_argument("--config", type=Path, default=Path("config"), help="configuration folder (default: config)")
        one.add_argument("--study", help="study (default: the one config/config.yaml names)")
        one.add_argument("--results", type=Path, help="results folder (default: the one config/config.yaml names)")
        one.add_argument("--reports", type=Path, help="reports folder (default: the one config/config.yaml names)")
        for folder, words in _FOLDERS.items():
            one.add_argument(f"--{folder}", metavar="FOLDER", help=f"{words} (default: as config/config.yaml says)")

    def needs(**options: str) -> Any:
        def add(one: argparse.ArgumentParser) -> None:
            for name, words in options.items():
                one.add_argument(f"--{name}", type=Path, required=True, help=words)

        return add

    one = verb(plan, of_study)
    one.add_argument("--write", type=Path, metavar="FILE", help="write the plan as JSON to FILE")
    one.add_argument("--json", action="store_true", help="print the plan as JSON")
    one.add_argument("--environment-names", action="store_true", help="print the names of the environments it needs")
    one.add_argument("--cells", action="store_true", help="also list every cell, and where memory ends")
    one.add_argument("--gpus", type=_positive(int), metavar="N", help="also say the wall time on N GPUs")
    one.add_argument(
        "--budget",
        type=_positive(float),
        metavar="HOURS",
        help="only the cells that decide the most claims within so many GPU-hours, and what is left out",
    )
    one.add_argument("--summary", action="store_true", help="one line: how much is measured, where the report is")
    one = verb(stage, of_study)
    one.add_argument(
        "--budget", type=_positive(float), metavar="HOURS", help="only the models of a plan within a budget"
    )
    one.add_argument("--update", action="store_true", help="resolve branches anew instead of using the pinned commits")
    one.add_argument("--full", action="store_true", help="verify checksums of what is already there (reads every byte)")
    one.add_argument("--check", action="store_true", help="only say what is there and what is not")
    one = verb(measure, needs(plan="plan file"))
    one.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--job", help="job of the plan")
    which.add_argument("--cell", metavar="ENGINE/CELL", help="measure this cell again, alone")
    one.add_argument("--engine-log", type=Path, help="file for the engine's output")
    one = verb(derive, needs(plan="plan file"))
    one.add_argument("--model", metavar="FOLDER", nargs="+", help="names of their folders (default: all of the plan)")
    one.add_argument("--log", type=Path, help="file for what is said meanwhile")
    one = verb(evaluate, needs(plan="plan file"))
    one.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    one.add_argument("--harness", default="lm-eval", help="accuracy harness (default: lm-eval)")
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--job", help="accuracy job of the plan")
    which.add_argument("--cell", metavar="ENGINE/CELL", help="evaluate this cell again, alone")
    one.add_argument("--engine-log", type=Path, help="file for the engine's output")
    verb(collect, needs(plan="plan file", results="results folder", out="folder for the tables"))
    verb(figures, needs(plan="plan file", tables="folder of tables", out="folder for the figures"))
    one = verb(report, of_study)
    one.add_argument("--plan", type=Path, help="plan file")
    one.add_argument("--tables", type=Path, help="folder of tables")
    one.add_argument("--figures", type=Path, help="folder of figures")
    one.add_argument("--out", type=Path, help="report file (with --from: folder)")
    one.add_argument("--partial", action="store_true", help="collect, draw and report what is measured so far")
    one.add_argument(
        "--from", dest="archive", type=Path, metavar="ARCHIVE", help="render the report of an archive again"
    )
    verb(
        archive,
        needs(
            plan="plan file",
            results="results folder",
            tables="folder of tables",
            report="folder of the report",
            config="configuration folder",
            out="zip file",
        ),
    )
    one = verb(failures, of_study)
    one.add_argument("--profile", help="profile in the printed commands (default: local for CPUs, slurm for GPUs)")
    one = verb(doctor, of_study)
    one.add_argument("--profile", help="folder of the profile that jobs are submitted with (default: profiles/slurm)")
    one = verb(claims, of_study)
    one.add_argument("claim", nargs="*", metavar="CLAIM", help="everything about these claims")
    one.add_argument(
        "--verdict", choices=("confirmed", "refuted", "inconclusive", "not decided", "not measured"), help="only these"
    )
    one.add_argument(
        "--comparisons", action="store_true", help="how many each has in the plan, and which decide nothing"
    )
    one.add_argument("--json", action="store_true", help="print as JSON")
    one.add_argument("--check", action="store_true", help="exit 1 if a claim that was measured is refuted")
    one = verb(compare)
    for name in ("a", "b"):
        one.add_argument(name, type=Path, metavar=name.upper(), help="results folder, folder of tables, or archive.zip")
    one.add_argument("--study", help="study, where a results folder has several")
    one.add_argument("--metric", default="e2e_s", help="metric compared (default: e2e_s)")
    one.add_argument("--threshold", type=_positive(float), default=0.05, help="smallest change that counts (0.05: 5%%)")
    one.add_argument("--adjust", choices=("bh", "holm"), default="bh", help="for many cells: Benjamini-Hochberg, Holm")
    one.add_argument("--all", action="store_true", help="list unchanged cells too")
    one.add_argument("--json", action="store_true", help="print as JSON")
    one.add_argument("--csv", type=Path, metavar="FILE", help="also write the pairs to FILE")
    one = verb(calibrate, of_study)
    one.add_argument(
        "--threads", type=_positive(int), metavar="N", help="threads (default: those the study gives its engine)"
    )
    one.add_argument("--residuals", action="store_true", help="measured times of a study's cells over their bounds")
    one.add_argument("--fit", type=Path, metavar="POINTS", help="fit the cost model on measured points (CSV)")
    one.add_argument("--kernels", type=Path, metavar="FOLDER", help="with --fit: kernel tables to fit on, too")
    one.add_argument("--source", metavar="TEXT", help="with --fit: where the points are from (default: their file)")
    one.add_argument("--figure", type=Path, metavar="FILE", help="with --fit: draw left-out models, .svg or .png")
    one.add_argument("--write", action="store_true", help="with --fit: write the constants into config/hardware")
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    one = verb(predict)
    one.add_argument("points", type=Path, metavar="POINTS", help="points, CSV (docs/cost-model.md)")
    one.add_argument("--out", type=Path, metavar="FILE", help="write the rows to FILE (default: standard output)")
    one.add_argument("--bound", action="store_true", help="the roofline bound instead of calibrated values")
    one.add_argument("--config", type=Path, default=Path("config"), help="configuration folder (default: config)")
    one = verb(qs)
    one.add_argument("model", metavar="MODEL", help="a model of config/models")
    one.add_argument("--hardware", required=True, help="a machine type of config/hardware")
    one.add_argument("--context", dest="context_tokens", type=_positive(int), default=131072, metavar="L",
                     help="context of every sequence, tokens (default: 131072)")  # fmt: skip
    one.add_argument("--gpus", type=_positive(int), metavar="N", help="devices (default: those of a node)")
    one.add_argument("--quality", type=_positive(float), default=5.0, metavar="Q",
                     help="quality factor q (default: 5, as the paper's evaluation)")  # fmt: skip
    one.add_argument("--quantization", choices=("none", "fp8", "fp8_block", "int8", "awq", "gptq"),
                     help="of the weights (default: fp8 where the machine computes in it, else none)")  # fmt: skip
    one.add_argument("--batch", type=_positive(int), metavar="B", help="sequences (default: as many as fit)")
    for name, words in (("tp", "tensor"), ("pp", "pipeline"), ("dp", "data"), ("ep", "expert"), ("kvp", "KV")):
        one.add_argument(f"--{name}", type=_positive(int), metavar="N",
                         help=f"{words} parallel size (default: search all layouts)")  # fmt: skip
    one.add_argument("--sensitivity", action="store_true",
                     help="also with 25%% more and less memory and bandwidth, half the link, other q")  # fmt: skip
    one.add_argument("--config", type=Path, default=Path("config"), help="configuration folder (default: config)")
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    verb(columns)
    one = verb(schema)
    one.add_argument("--config", type=Path, default=Path("config"), help="configuration folder (default: config)")
    one.add_argument("--check", action="store_true", help="exit 1 if the generated files are not up to date")
    return top


def main(argv: list[str] | None = None) -> None:
    """Run a verb; people's mistakes become one line on standard error."""
    arguments = parser().parse_args(argv)
    arguments.progress_log = None
    try:
        code, said = arguments.run(arguments), ""
        sys.stdout.flush()
    except StorageError as error:
        code, said = 3, str(error)
    except UserError as error:
        code, said = 2, str(error)
    except BrokenPipeError:
        code, said = 141, ""
    except OSError as error:
        if not disk_is_full(error):
            raise
        code, said = 3, f"{error.filename or 'its output'}: cannot be written ({error.strerror}); free space, run again"
        with contextlib.suppress(OSError, ValueError):  # what is left in the buffer would fail once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as signal:
        code, said = 130, f"interrupted {signal}; what was measured is kept"
    if said:
        with contextlib.suppress(OSError):
            print(f"moebench {arguments.verb}: {said}", file=sys.stderr, flush=True)
        if arguments.progress_log is not None:
            from moebench.measure.driver import note

            note(arguments.progress_log, said)
    sys.exit(code)
