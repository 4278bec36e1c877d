"""Images of exact size: generated from a seed (no download, no image is used twice), or read from files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from moebench.formats.record import Trace

SHAPES = 6
"""Rectangles and ellipses per image."""


def make(batch: int, images: int, size: int, seed: int) -> list[list[Any]]:
    """``images`` PIL images (RGB, ``size`` x ``size`` pixels) for each of ``batch`` requests, all different.

    Coloured shapes overlaid with noise: edges and texture everywhere, so that no two tiles or patches are alike.  The
    same seed gives the same images.
    """
    return [[_image(size, f"{seed}:{request}:{i}") for i in range(images)] for request in range(batch)]


def read(path: Path) -> Any:
    """An image file as a PIL image (RGB).  Raises OSError, naming the file, if it is not an image."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise OSError(f"{path}: not an image; delete its folder and stage it again") from None


def tokens(run: Trace) -> int | None:
    """Image tokens per request in a run with images of one size; None without images.

    Raises RuntimeError if requests differ, which must not happen.
    """
    if "image_tokens" not in run:
        return None
    if len(counts := set(run["image_tokens"])) != 1:
        raise RuntimeError(f"images of one size became different numbers of tokens: {sorted(counts)}")
    return int(counts.pop())


def _image(size: int, seed: str) -> Any:
    import numpy as np
    from PIL import Image, ImageDraw

    rng = random.Random(seed)
    image = Image.new("RGB", (size, size), _colour(rng))
    draw = ImageDraw.Draw(image)
    for number in range(SHAPES):
        (left, right), (top, bottom) = (sorted((rng.randrange(size), rng.randrange(size))) for _ in range(2))
        shape = draw.rectangle if number % 2 else draw.ellipse
        shape((left, top, right, bottom), fill=_colour(rng))
    noise = np.random.default_rng(rng.getrandbits(64)).integers(-32, 33, (size, size, 3))
    pixels = np.clip(np.asarray(image, dtype=np.int64) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)
