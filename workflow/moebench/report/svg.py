"""Figures inside the page: SVG made fit to stand beside others, and the one font they are set in."""

from __future__ import annotations

import base64
import functools
import io
import logging
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib

from moebench.errors import StorageError

_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_LEFT_OUT = {f"{_SVG}metadata", f"{_SVG}style"}
_HOLDERS = {f"{_SVG}g", f"{_SVG}defs"}
_SPEAKING = re.compile(r"(mark|lacks|part|legend|map)\.")
"""How the identifiers begin that the page's script reads (``figures/marks.py``)."""
_REFERRED = re.compile(r"(?:^|url\()#([^)]+)")
_LONG = re.compile(r"-?\d+\.\d{3,}")
_DRAWN = re.compile(r"<svg [^>]*data-name=.*?</svg>", re.DOTALL)
_STYLED = re.compile(r' style="([^"]*)"')
ET.register_namespace("", _SVG.strip("{}"))


def inline(path: Path, name: str, title: str, description: str) -> str:
    """The SVG file as an element of an HTML page, named for screen readers.

    Removed to save space: unreferenced groups and identifiers, digits below a hundredth of a point, rotations by zero,
    and the style sheet, which inside a page would apply to everything (the page has its own copy for figures).
    Readable identifiers are prefixed with the figure's name; the others are hashes that no two figures share.
    Raises StorageError.
    """
    try:
        root = ET.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise StorageError(f"{path}: no such figure yet; run `moebench figures`") from None
    except ET.ParseError:
        root = ET.Element("")
    if root.tag != f"{_SVG}svg" or not root.get("viewBox"):
        raise StorageError(f"{path}: not an SVG figure; run `moebench figures` again")
    texts = [text for element in root.iter() for text in element.attrib.values()]
    referred = {found for text in texts for found in _REFERRED.findall(text)}
    drawn = ET.Element(
        f"{_SVG}svg",
        {
            "viewBox": root.attrib["viewBox"],
            "role": "img",
            "data-name": name,
            "aria-labelledby": f"{name}-title {name}-desc",
        },
    )
    drawn.extend(lean for child in root for lean in _lean(child, name, referred))
    text = ET.tostring(drawn, encoding="unicode").replace(" />", "/>")
    head, _, body = text.partition(">")
    said = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    return f"{head}>{said}\n{body}"


def _lean(element: ET.Element, name: str, referred: set[str]) -> Iterator[ET.Element]:
    """The element without redundant parts; a group without attributes is replaced by its contents."""
    if element.tag in _LEFT_OUT:
        return
    made = ET.Element(element.tag, dict(_attributes(element, name, referred)))
    if element.tag == f"{_SVG}text":  # its spaces count
        made.text = element.text
        made.extend(element)
    else:
        made.extend(lean for child in element for lean in _lean(child, name, referred))
    made.tail = "\n"
    if element.tag == f"{_SVG}g" and not made.attrib:
        yield from made
    elif len(made) or element.tag not in _HOLDERS:
        yield made


def _attributes(element: ET.Element, name: str, referred: set[str]) -> Iterator[tuple[str, str]]:
    for key, text in element.attrib.items():
        if key == "id" and _SPEAKING.match(text):
            yield key, f"{name}-{text}"
        elif (key == "id" and text not in referred) or (key == "transform" and text.startswith("rotate(-0 ")):
            continue
        elif key == _HREF:
            yield "href", text
        elif key == "d":
            yield key, re.sub(r"\s*([A-Za-z])\s*", r"\1", _LONG.sub(_short, text)).strip()
        else:
            yield key, _LONG.sub(_short, text) if key in ("x", "y", "transform") else text


def _short(number: re.Match[str]) -> str:
    """A coordinate in points, rounded to a hundredth, which is far below a pixel."""
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")


def with_shared_styles(page: str) -> tuple[str, str]:
    """A page whose drawings have classes instead of styles, and the style sheet of these classes.

    Fifteen thousand elements of sixty figures share a few hundred styles; writing each once makes the page a sixth
    smaller.
    """
    classes: dict[str, str] = {}

    def named(style: re.Match[str]) -> str:
        plain = re.sub(r"([:;]) ", r"\1", style.group(1))
        return f' class="{classes.setdefault(plain, f"d{len(classes)}")}"'

    page = _DRAWN.sub(lambda drawing: _STYLED.sub(named, drawing.group()), page)
    return page, "\n".join(f"svg .{short}{{{style}}}" for style, short in classes.items())


@functools.cache
def font(characters: str) -> str:
    """DejaVu Sans reduced to ``characters``, WOFF, base64, so figures look the same where it is not installed."""
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
    """The characters used in figures, sorted, always including printable ASCII."""
    used = set(map(chr, range(32, 127)))
    for text in texts:
        used.update(re.sub(r"<[^>]*>", "", text))
    return "".join(sorted(c for c in used if c.isprintable()))
