"""Reads a staged table of questions about images in VLMEvalKit's format (docs/accuracy.md).

The images are those that staging dumped beside the table.  Standard library only: the measurement side reads it too.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

csv.field_size_limit(sys.maxsize)  # the column with the images in base64


def questions(folder: Path, name: str, column: str) -> Iterator[tuple[str, Path]]:
    """Question and image of each row of ``folder/name.tsv`` that has an image, in order.

    As the harness asks them, but without its instructions: the text of ``column``, the image of the column
    ``image_path`` or else of the row's index, below ``images/name``.  Raises ValueError naming the row and the missing
    value, OSError if the table cannot be read.
    """
    table, images = folder / f"{name}.tsv", folder / "images" / name
    with open(table, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t")
        if column not in (rows.fieldnames or ()):
            raise ValueError(f"{table}: no column {column!r}")
        for number, row in enumerate(rows, 1):
            if not row.get("image"):
                continue
            image = images / (row.get("image_path") or f"{row.get('index')}.png")
            if not (text := (row[column] or "").strip()):
                raise ValueError(f"{table}, row {number}: no text in column {column!r}")
            if not image.is_file():
                raise ValueError(f"{table}, row {number}: its image {image} is missing")
            yield text, image
