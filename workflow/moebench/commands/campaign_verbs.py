"""Verbs of ``moebench campaign``, a group of its own within Results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from moebench.commands.app import CONFIG, RESULTS, ConfigFolder, JsonFlag, Verb, app, positive, print_fields

campaign = typer.Typer(no_args_is_help=True)
app.add_typer(
    campaign,
    name="campaign",
    rich_help_panel=RESULTS,
    short_help="Measure on a machine that has only Python and an engine.",
)


@campaign.callback()
def _all() -> None:
    """Measure on a machine that has only Python and an engine (docs/campaign.md)."""


@campaign.command(cls=Verb)
def pack(
    study: Annotated[
        list[str] | None,
        Option("--study", metavar="NAME", help="Study; may be repeated. Default: as in config/config.yaml."),
    ] = None,
    gpus: Annotated[
        int, Option("--gpus", metavar="N", parser=positive(int), help="Devices of the machine.")
    ] = 1,
    engine: Annotated[
        Path | None, Option("--engine", metavar="FOLDER", help="Include the engine whose archives are in FOLDER.")
    ] = None,
    out: Annotated[Path, Option("--out", metavar="FILE", help="Archive to write.")] = Path("campaign.tar.gz"),
    json: JsonFlag = False,
    config: ConfigFolder = CONFIG,
) -> int:  # fmt: skip
    """Pack cells of studies into one archive for such a machine."""
    from moebench.commands import campaign as campaigns
    from moebench.config import Config

    read = Config(config)
    print_fields(campaigns.pack(read, study or [read.root().study], out, gpus, engine), json)
    return 0


@campaign.command(cls=Verb)
def run(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="Folder that the archive was unpacked into.")],
    minutes: Annotated[
        float, Option("--minutes", metavar="N", parser=positive(float), help="Stop after this many minutes.")
    ],
    python: Annotated[
        str | None, Option("--python", metavar="FILE", help="Interpreter that has the engine. Default: this one.")
    ] = None,
) -> int:
    """Measure an unpacked campaign on this machine.

    Exit code 1: cells are left; run it again.
    """
    from moebench.commands import campaign as campaigns

    return campaigns.run(folder, ["--minutes", str(minutes)], python)


@campaign.command("import", cls=Verb)
def import_(
    files: Annotated[list[Path], Argument(metavar="FILE...", help="Files that a campaign wrote.")],
    name: Annotated[
        str | None,
        Option("--name", metavar="NAME", help="Folder in results/imported. Default: the device and the day."),
    ] = None,
    results: Annotated[
        Path | None, Option("--results", metavar="FOLDER", help="Results folder. Default: as in config/config.yaml.")
    ] = None,
    json: JsonFlag = False,
    config: ConfigFolder = CONFIG,
) -> int:
    """Check the results of a campaign against the plan, and import them."""
    from moebench.commands import campaign as campaigns
    from moebench.config import Config

    read = Config(config)
    print_fields(campaigns.import_files(read, files, results or Path(read.root().results), name), json)
    return 0
