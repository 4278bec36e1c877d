"""The command line's application: groups of verbs, options that several verbs share, errors as one line.

A module per group registers its verbs here: ``study``, ``results``, ``models``, and ``internal`` for those that the
workflow and developers call.  Verbs import what they need when they run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

import moebench
from moebench.errors import StorageError, UserError, disk_is_full
from moebench.formats.plan import Plan
from moebench.storage import project

GROUPS = STUDY, RESULTS, MODELS, INTERNAL = "Study", "Results", "Models", "Internal"
"""Groups of verbs, in this order; `moebench --help` does not list the last."""
CONFIG = project.config_folder()
"""The default configuration folder."""
PROGRESS_LOG = "progress_log"
"""Key of a context's ``meta``: the log of a job, which also gets the final error message."""


F = TypeVar("F", bound=Callable[..., Any])


# ------------------------------------------------------------------------------------------------ commands


class Verb(TyperCommand):
    """A verb. Long options may be abbreviated if the prefix is unique, as they always could."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = ["--help", *(name for option in self.params for name in option.opts if name.startswith("--"))]
        try:
            return super().parse_args(ctx, [_whole(argument, known) for argument in args])
        except typer.TyperException as error:
            error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from typer import rich_utils

        from moebench.text import console

        rich_utils.COLOR_SYSTEM = "auto" if console().color_system else None  # typer's own choice differs
        self.get_help_option(ctx).metavar = ""  # type: ignore[union-attr]
        super().format_help(ctx, formatter)


def _whole(argument: str, known: list[str]) -> str:
    """``--res=x`` as ``--results=x``."""
    name, equals, value = argument.partition("=")
    begin = [option for option in known if option.startswith(name)]
    cut = len(name) > 2 and name.startswith("--") and name not in known and len(begin) == 1
    return begin[0] + equals + value if cut else argument


class Verbs(TyperGroup):
    """All verbs: a help text of one screen, and errors as one line on standard error."""

    def invoke(self, ctx: Any) -> int:
        """Run a verb; return its exit code."""
        try:
            code = int(super().invoke(ctx))
            sys.stdout.flush()
            return code
        except StorageError as error:
            code, said = 3, str(error)
        except UserError as error:
            code, said = 2, str(error)
        except BrokenPipeError:
            return 141
        except OSError as error:
            if not disk_is_full(error):
                raise
            place = error.filename or "its output"
            code, said = 3, f"{place}: cannot be written ({error.strerror}); free space, run again"
            with contextlib.suppress(OSError, ValueError):  # what is left in the buffer would fail once more
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt as signal:
            code, said = 130, f"interrupted {signal}; what was measured is kept"
        complain(f"moebench {ctx.invoked_subcommand}: {said}")
        if log := ctx.meta.get(PROGRESS_LOG):
            from moebench.measure.job_log import note

            note(log, said)
        return code

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the verbs, group by group."""
        commands: dict[str, Any] = dict(self.commands)
        return sorted(commands, key=lambda name: GROUPS.index(commands[name].rich_help_panel))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The verbs by group, within 24 lines of 80 columns."""
        from rich.table import Table
        from rich.text import Text

        from moebench.text import console

        lines, group = Table.grid(padding=(0, 2)), ""
        for name in self.list_commands(ctx):
            command: Any = self.commands[name]
            if command.rich_help_panel == INTERNAL:
                break
            if command.rich_help_panel != group:
                group = command.rich_help_panel
                lines.add_row(Text(group, style="bold"))
            lines.add_row(Text(f"  {name}", style="cyan"), command.short_help)
        options = ", ".join(option.opts[0] for option in self.get_params(ctx) if "completion" not in option.opts[0])
        out = console()
        usage = f"Usage: {ctx.command_path} VERB [ARGS]...   Help: VERB --help   {options}"
        out.print(f"{usage}\n{self.help}", markup=False, highlight=False)
        out.print(lines)


def complain(line: str) -> None:
    """Print a line to standard error, which may be on a full disk."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _version(wanted: bool) -> None:
    if wanted:
        print(moebench.__version__)
        raise typer.Exit


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure, predict and report the inference performance of MoE models."""


def verb(group: str) -> Callable[[F], F]:
    """Register a function as a verb of a group; the first line of its docstring is its line in `moebench --help`."""

    def register(function: F) -> F:
        words = (function.__doc__ or "").partition("\n")[0]
        settings: Any = {"cls": Verb, "rich_help_panel": group, "short_help": words, "hidden": group == INTERNAL}
        return app.command(**settings)(function)

    return register


# ------------------------------------------------------------------------------------------------- options


def positive(kind: type[int] | type[float]) -> Callable[[Any], int | float]:
    """A parser of numbers above zero; a whole one may be written as 131072 or 1e5."""

    def read(text: Any) -> int | float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise typer.BadParameter(f"{text!r} is not a number above zero")
        if kind is int and value % 1:
            raise typer.BadParameter(f"{text!r} is not a whole number above zero")
        return kind(value)

    return read


def flag(name: str, words: str) -> Any:
    """An option without a value."""
    return typer.Option(name, metavar="", help=words)


def named(kind: str) -> Callable[[str], list[str]]:
    """Shell completion: names of the files in a folder of ``config/``."""
    return lambda incomplete: sorted(path.stem for path in (CONFIG / kind).glob(f"{incomplete}*.yaml"))


JsonFlag = Annotated[bool, flag("--json", "Print JSON instead of text.")]
ConfigFolder = Annotated[Path, typer.Option("--config", metavar="FOLDER", help="Configuration folder.")]
PlanFile = Annotated[Path, typer.Option("--plan", metavar="FILE", help="Plan file.")]
ResultsFolder = Annotated[Path, typer.Option("--results", metavar="FOLDER", help="Results folder.")]
TablesFolder = Annotated[Path, typer.Option("--tables", metavar="FOLDER", help="Folder of tables.")]
_PANEL = "Study and folders"


def _folder(name: str, words: str) -> Any:
    return typer.Option(
        f"--{name}", metavar="FOLDER", rich_help_panel=_PANEL, help=f"{words}. Default: as in config/config.yaml."
    )


@dataclass(frozen=True)
class Study:
    """The options that name a study and its folders."""

    config_folder: Annotated[
        Path, typer.Option("--config", metavar="FOLDER", rich_help_panel=_PANEL, help="Configuration folder.")
    ] = CONFIG
    chosen: Annotated[
        str | None,
        typer.Option(
            "--study", metavar="NAME", rich_help_panel=_PANEL, autocompletion=named("studies"),
            help="Study. Default: the one in config/config.yaml.",
        ),
    ] = None  # fmt: skip
    results_folder: Annotated[Path | None, _folder("results", "Results folder")] = None
    reports_folder: Annotated[Path | None, _folder("reports", "Reports folder")] = None
    models: Annotated[str | None, _folder("models", "Staged models")] = None
    data: Annotated[str | None, _folder("data", "Staged data sets")] = None
    environments: Annotated[str | None, _folder("environments", "Built environments")] = None

    @functools.cached_property
    def config(self) -> Any:
        """The configuration, with the folders of this call.  Raises UserError for an empty study name."""
        from moebench.config import Config

        if self.chosen == "":
            raise UserError(
                f"--study: the name is empty; name one of {self.config_folder / 'studies'}, or leave --study out"
            )
        return Config(self.config_folder, models=self.models, data=self.data, environments=self.environments)

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.chosen or str(self.config.root().study)

    @property
    def results(self) -> Path:
        """Results folder."""
        return Path(self.results_folder or self.config.root().results)

    @property
    def reports(self) -> Path:
        """Reports folder."""
        return Path(self.reports_folder or self.config.root().reports)

    def plan(self, budget_gpu_hours: float | None = None) -> Plan:
        """The plan of the study, within a budget (default: that of config/config.yaml)."""
        from moebench.commands.planning import make_plan

        budget = budget_gpu_hours or self.config.root().budget_gpu_hours
        return make_plan(self.config, self.name, budget_gpu_hours=budget)


def of_study(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options of :class:`Study` to a verb, passed as its first argument."""
    shared = inspect.signature(Study, eval_str=True).parameters
    _, *own = inspect.signature(function, eval_str=True).parameters.values()

    @functools.wraps(function)
    def run(**options: Any) -> int:
        study = Study(**{name: options.pop(name) for name in shared})
        return function(study, **options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    every = [parameter.replace(kind=keyword) for parameter in (*own, *shared.values())]
    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def checked_profile(folder: str | None) -> str | None:
    """The folder of a Snakemake profile, as given.  Raises UserError if there is no profile in it."""
    if folder is not None and not (Path(folder) / "config.yaml").is_file():
        from moebench.errors import nearest

        known = [str(path.parent) for path in Path(folder).parent.glob("*/config.yaml")]
        missing = f"no profile there, {Path(folder) / 'config.yaml'} is missing"
        raise UserError(f"--profile {folder}: {missing}" + nearest(folder, known))
    return folder


def print_json(data: Any) -> None:
    """Print JSON and nothing else; paths as text."""
    print(json.dumps(data, indent=1, default=str))


def print_fields(data: Any, as_json: bool) -> None:
    """Print a dataclass: its fields as JSON, or its text."""
    print_json(dataclasses.asdict(data)) if as_json else print(data)
