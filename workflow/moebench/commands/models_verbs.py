"""Verbs of ``moebench models``, a group of its own within Models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from moebench.commands.app import CONFIG, MODELS, ConfigFolder, JsonFlag, Verb, app, flag, positive

models = typer.Typer(no_args_is_help=True)
app.add_typer(models, name="models", rich_help_panel=MODELS, short_help="Add a model to the registry (config/models).")


@models.callback()
def _all() -> None:
    """Add a model to the registry (docs/adding.md)."""


def _number(name: str, words: str) -> object:
    return Option(name, metavar="N", parser=positive(float), help=words)


@models.command(cls=Verb)
def add(
    source: Annotated[
        str,
        Argument(
            metavar="MODEL", show_default=False,
            help="ORG/NAME or ORG/NAME@REVISION of the hub, or a folder with a config.json.",
        ),
    ],
    name: Annotated[str | None, Option("--name", metavar="NAME", help="File name. Default: the model's.")] = None,
    total: Annotated[float | None, _number("--total", "Published total parameters, e.g. 116.8e9.")] = None,
    active: Annotated[float | None, _number("--active", "Published active parameters.")] = None,
    reference: Annotated[str, Option("--reference", metavar="TEXT", help="Source of the published numbers.")] = "",
    vision: Annotated[float | None, _number("--vision-parameters", "Parameters of the model's vision part.")] = None,
    replace: Annotated[bool, flag("--replace", "Overwrite an existing file.")] = False,
    json: JsonFlag = False,
    config: ConfigFolder = CONFIG,
) -> int:  # fmt: skip
    """Write config/models/NAME.yaml from a model's config.json, and print its parameters beside the published ones."""
    from moebench.commands import models_add

    return models_add.run(Path(config), source, name, total, active, reference, int(vision or 0), replace, json)
