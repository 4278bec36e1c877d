"""Small tables with images in VLMEvalKit's form: drawings and questions from a seed, with no published row copied.

Like ``fixtures``, they test that the real harness reads the real columns, asks, scores and counts.  Every question can
be answered from its image.
"""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moebench.storage import staged

SEED = 0
EDGE = 56
"""Edge of an image, pixels."""
ROWS = 6
"""Questions of every data set but MME, which has two about each of two images of its fourteen kinds."""

PERCEPTION = ("OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene")
REASONING = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
"""MME's kinds of questions; each gives at most 200 points."""

Row = dict[str, Any]
Shape = tuple[str, str, tuple[int, int, int, int]]
"""Colour, form and box of what is drawn."""

_COLOURS = {"red": "#c03028", "green": "#309048", "blue": "#3050b0", "yellow": "#d8b020"}
_FORMS = ("circle", "square", "bar")
_SIDES = ("left", "right", "top", "bottom")
_BOXES = {"left": (6, 18, 26, 38), "right": (30, 18, 50, 38), "top": (18, 6, 38, 26), "bottom": (18, 30, 38, 50)}


def _drawn(draw: random.Random) -> tuple[str, str, str, Shape]:
    """Colour, form and side of a shape, and the shape itself."""
    colour, form, side = draw.choice(sorted(_COLOURS)), draw.choice(_FORMS), draw.choice(_SIDES)
    return colour, form, side, (colour, form, _BOXES[side])


def _choices(draw: random.Random, right: str, others: list[str], size: int) -> tuple[Row, str]:
    """Columns A, B, ... and the letter of the right one."""
    answers = [right, *draw.sample([o for o in others if o != right], size - 1)]
    draw.shuffle(answers)
    letters = "ABCDEFGH"[:size]
    return dict(zip(letters, answers, strict=True)), letters[answers.index(right)]


def _mme(draw: random.Random) -> list[Row]:
    rows: list[Row] = []
    for kind in (*PERCEPTION, *REASONING):
        for number in range(2):
            colour, form, _, shape = _drawn(draw)
            wrong = draw.choice([c for c in sorted(_COLOURS) if c != colour])
            for asked, answer in ((colour, "Yes"), (wrong, "No")):
                question = f"Is there a {asked} {form} in this image? Please answer yes or no."
                path = f"{kind}/{number}.png"
                rows.append({"category": kind, "question": question, "answer": answer, "image_path": path} | _of(shape))
    return rows


def _textvqa(draw: random.Random) -> list[Row]:
    rows = []
    for _ in range(ROWS):
        colour, form, _, shape = _drawn(draw)
        answers = [colour] * 7 + [f"{colour} {form}"] * 3  # ten people's answers, as published
        rows.append({"question": f"what colour is the {form}?", "answer": str(answers)} | _of(shape))
    return rows


def _document(draw: random.Random) -> list[Row]:
    rows = []
    for _ in range(ROWS):
        colour, form, side, shape = _drawn(draw)
        rows.append({"question": f"Where is the {colour} {form}?", "answer": str([side, f"{side} side"])} | _of(shape))
    return rows


def _ai2d(draw: random.Random) -> list[Row]:
    rows = []
    for _ in range(ROWS):
        colour, form, _, shape = _drawn(draw)
        columns, letter = _choices(draw, colour, sorted(_COLOURS), 4)
        about = {"question": f"Which colour has the {form}?", "answer": letter, "category": "shapes"}
        rows.append(about | columns | _of(shape))
    return rows


def _realworldqa(draw: random.Random) -> list[Row]:
    rows = []
    for _ in range(ROWS):
        colour, form, side, shape = _drawn(draw)
        columns, letter = _choices(draw, side, list(_SIDES), draw.choice((2, 3, 4)))
        blank = {letter: "" for letter in "ABCD"}
        rows.append(
            {"question": f"On which side is the {colour} {form}?", "answer": letter} | blank | columns | _of(shape)
        )
    return rows


def _scienceqa(draw: random.Random) -> list[Row]:
    rows = []
    for number in range(ROWS):
        _, form, _, shape = _drawn(draw)
        columns, letter = _choices(draw, form, list(_FORMS), draw.choice((2, 3)))
        blank = {letter: "" for letter in "ABCDE"}
        about = {"question": "Which form is shown?", "answer": letter, "split": "val", "category": "geometry"}
        hint = {"hint": "A bar is longer than it is high." if number % 2 else ""}
        rows.append(about | hint | blank | columns | _of(shape))
    return rows


def _mmmu(draw: random.Random) -> list[Row]:
    rows = []
    for number in range(ROWS):
        split = "dev" if number < 2 else "validation"
        colour, form, side, shape = _drawn(draw)
        columns, letter = _choices(draw, colour, sorted(_COLOURS), 4)
        kind = "multiple-choice"
        if number == ROWS - 1:  # the published table has questions without choices, too
            columns, letter, kind = dict.fromkeys("ABCD", ""), side, "open"
        asked = (
            f"<image 1> On which side is the {form}?" if kind == "open" else f"<image 1> Which colour has the {form}?"
        )
        about = {"id": f"{split}_Art_{number}", "question": asked, "answer": letter, "split": split}
        more = {"category": "Art", "l2-category": "Art and Design", "question_type": kind, "topic_difficulty": "Easy"}
        rows.append(about | more | columns | _of(shape))
    return rows


def _of(shape: Shape) -> Row:
    return {"shape": shape}


_BUILDERS: dict[str, Callable[[random.Random], list[Row]]] = {
    "AI2D_TEST": _ai2d,
    "DocVQA_VAL": _document,
    "InfoVQA_VAL": _document,
    "MME": _mme,
    "MMMU_DEV_VAL": _mmmu,
    "RealWorldQA": _realworldqa,
    "ScienceQA_VAL": _scienceqa,
    "TextVQA_VAL": _textvqa,
}
NAMES = tuple(_BUILDERS)
"""Data sets whose form is written here."""


def rows(name: str) -> list[Row]:
    """Rows of a data set; ``shape`` holds the drawing."""
    built = _BUILDERS[name](random.Random(f"{SEED}:{name}"))
    return [{"index": number} | row for number, row in enumerate(built)]


@functools.cache
def revision(name: str) -> str:
    """Revision of a data set's fixtures: a hash of their rows."""
    text = json.dumps([EDGE, rows(name)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def png(shape: Shape) -> bytes:
    """The image of a shape, PNG."""
    from PIL import Image, ImageDraw

    colour, form, (left, top, right, bottom) = shape
    image = Image.new("RGB", (EDGE, EDGE), "#f0ece4")
    pen = ImageDraw.Draw(image)
    if form == "circle":
        pen.ellipse((left, top, right, bottom), fill=_COLOURS[colour])
    elif form == "square":
        pen.rectangle((left, top, right, bottom), fill=_COLOURS[colour])
    else:
        pen.rectangle((left - 4, top + 6, right + 4, bottom - 6), fill=_COLOURS[colour])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write(name: str, folder: Path) -> bool:
    """Write a data set's fixtures into ``folder``, completely or not at all; return False if they are there already.

    Writes ``NAME.tsv`` with the images in base64, the images as files as the harness dumps them (``images/NAME``), and
    the manifest.
    """
    if not staged.check(folder, full=True) and staged.revision_of(folder) == revision(name):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        table = []
        for row in rows(name):
            image = png(row.pop("shape"))
            path = temporary / "images" / name / row.get("image_path", f"{row['index']}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
            table.append(row | {"image": base64.b64encode(image).decode()})
        with open(temporary / f"{name}.tsv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
        staged.write_manifest(temporary, "fixtures", revision(name))
        staged.publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
