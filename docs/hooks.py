"""Hooks of mkdocs: pages from files outside ``docs/``, pages generated from the code, and links between all of them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from moebench import columns as registry
from moebench.commands.cli import app

ROOT = Path(__file__).resolve().parents[1]
COPIES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "reference/config.md": "config/README.md",
}
"""Pages of the site that are files of the project, by the page's path."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def commands() -> str:
    """The help of every verb."""
    command = typer.main.get_command(app)
    return get_docs_for_click(
        obj=command, ctx=typer.Context(command, info_name="moebench"), name="moebench", title="Command line"
    )


def columns() -> str:
    """The columns of every table."""
    return f"# Columns of the tables\n\n{registry.markdown()}\n"


GENERATED = {"reference/cli.md": commands, "reference/columns.md": columns}


def on_files(files: Files, config: Any) -> Files:
    """Add the copied and the generated pages."""
    for page, source in COPIES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for page, make in GENERATED.items():
        files.append(File.generated(config, page, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links to where their files are on the site; of files that are not on it, only the text stays.

    A link to a file that does not exist is left alone: mkdocs refuses it.
    """
    here = page.file.src_uri
    folder = posixpath.dirname(COPIES.get(here, f"docs/{here}"))
    pages = {source: copy for copy, source in COPIES.items()}

    def point(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        source = posixpath.normpath(posixpath.join(folder, target))
        there = pages.get(source, source.removeprefix("docs/") if source.startswith("docs/") else None)
        if there is None or files.get_file_from_path(there) is None:
            return text if (ROOT / source).exists() else match[0]
        path = posixpath.relpath(there, posixpath.dirname(here) or ".")
        return f"{image}[{text}]({path}{anchor or ''})"

    return LINK.sub(point, markdown)
