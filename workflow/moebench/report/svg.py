"""Figures inside the page: SVG made fit to stand beside others, and the one font they are set in."""

from __future__ import annotations

import base64
import functools
import io
import logging
import re
from html import escape
from pathlib import Path

import matplotlib

from moebench.errors import StorageError

_HEAD = re.compile(r"^.*?(?=<svg\b)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_STYLE = re.compile(r"<style\b[^>]*>.*?</style>\s*", re.DOTALL)
_OPEN = re.compile(r"<svg\b([^>]*)>")
_PLACES = re.compile(r'\b(?:d|x|y)="[^"]*"')
_LONG = re.compile(r"-?\d+\.\d{3,}")
_VIEW_BOX = re.compile(r'viewBox="([^"]*)"')


def inline(path: Path, name: str, title: str, description: str) -> str:
    """The SVG file as an element of an HTML page, named for screen readers.

    Identifiers get the figure's name in front: every SVG of a page numbers its own from 1.  Its style sheet goes:
    inside a page it would apply to everything (the page repeats it for figures).  Raises StorageError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StorageError(f"{path}: no such figure yet; run `moebench figures`") from None
    text = _STYLE.sub("", _METADATA.sub("", _HEAD.sub("", text)))
    text = re.sub(r"\n\s+", "\n", _PLACES.sub(lambda places: _LONG.sub(_short, places.group()), text))
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'((?:xlink:)?href)="#([^"]+)"', rf'\1="#{name}-\2"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    opening = _OPEN.search(text)
    box = _VIEW_BOX.search(opening.group(1)) if opening else None
    if not opening or not box:
        raise StorageError(f"{path}: not an SVG figure; run `moebench figures` again")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box.group(1)}" '
        f'role="img" data-name="{name}" '
        f'aria-labelledby="{name}-title {name}-desc">\n<title id="{name}-title">{escape(title)}</title>\n'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return text[: opening.start()] + head + text[opening.end() :].rstrip()


def _short(number: re.Match[str]) -> str:
    """A coordinate, points, to a hundredth: less than a pixel shows, and a tenth of the page's size less."""
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")


@functools.cache
def font(characters: str) -> str:
    """DejaVu Sans cut down to ``characters``, WOFF, base64: figures look the same where it is not installed."""
    from fontTools import subset  # type: ignore[import-untyped]
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

    logging.getLogger("fontTools").setLevel(logging.ERROR)
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    options = subset.Options(flavor="woff", layout_features=["kern"], hinting=False, notdef_outline=True)
    with TTFont(path, recalcTimestamp=False) as whole:  # no time stamp: the same page has the same bytes
        cut = subset.Subsetter(options)
        cut.populate(text=characters)
        cut.subset(whole)
        whole.flavor = "woff"
        out = io.BytesIO()
        whole.save(out)
    return base64.b64encode(out.getvalue()).decode("ascii")


def characters(texts: list[str]) -> str:
    """The characters that figures use, sorted, printable ASCII always among them."""
    used = set(map(chr, range(32, 127)))
    for text in texts:
        used.update(re.sub(r"<[^>]*>", "", text))
    return "".join(sorted(c for c in used if c.isprintable()))
