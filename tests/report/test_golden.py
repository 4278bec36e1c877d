"""The first screens of the page as pictures: at a desk, on a phone, dark.

``make golden`` draws them again; look at them before you commit them.  The test sets the page in the font that it
embeds, so that the fonts of a machine do not matter, and compares the mean brightness of small squares, so that the
edges of letters, which each version of a browser draws in its own way, do not either.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

GOLDEN = Path(__file__).parent / "golden"
SCREENS = {"desk": (1400, False), "phone": (400, False), "dark": (1400, True)}
"""Width, CSS pixels, and whether dark."""
HIGH = 900
SQUARE, LEVELS, SHARE = 8, 16, 0.01
"""Side of the squares, pixels; so many levels of 255 are a difference; this share of squares may differ."""


def screen(browser: Any, page: Path, name: str, change: str = "") -> np.ndarray:
    """The first screen, grey (HIGH, width); ``change``: a script to run before."""
    width, dark = SCREENS[name]
    size = {"width": width, "height": HIGH, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page.as_uri())
    browser.execute_async_script(
        """
        const style = document.createElement('style'), done = arguments[1];
        const set = 'font-family: "DejaVu Sans" !important; text-rendering: geometricPrecision !important;';
        style.textContent = `* { ${set} }`;
        document.head.append(style);
        eval(arguments[0]);
        document.fonts.load('16px "DejaVu Sans"').then(() => requestAnimationFrame(() => done()))""",
        change,
    )
    png = base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])
    picture = Image.open(io.BytesIO(png))
    if os.environ.get("GOLDEN") and not change:
        GOLDEN.mkdir(exist_ok=True)
        picture.convert("RGB").quantize(128).save(GOLDEN / f"{name}.png", optimize=True)
    return np.asarray(picture.convert("L"), dtype=float)


def golden(name: str) -> np.ndarray:
    return np.asarray(Image.open(GOLDEN / f"{name}.png").convert("L"), dtype=float)


def differing(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the squares of two pictures whose brightness is not the same."""
    assert one.shape == other.shape
    high, wide = (n // SQUARE for n in one.shape)
    squares = [
        p[: high * SQUARE, : wide * SQUARE].reshape(high, SQUARE, wide, SQUARE).mean(axis=(1, 3)) for p in (one, other)
    ]
    return float((np.abs(squares[0] - squares[1]) > LEVELS).mean())


@pytest.mark.parametrize("name", SCREENS)
def test_the_first_screen_is_the_golden_one(browser, page, name):
    assert differing(screen(browser, page, name), golden(name)) <= SHARE, "see the picture of `make golden`"


@pytest.mark.parametrize("change", [
    "document.querySelector('.cards').remove()",
    "document.querySelector('h1').style.marginTop = '12px'",
    "document.documentElement.style.setProperty('--paper', '#bbb')",
])  # fmt: skip
def test_a_change_that_a_reader_sees_is_one(browser, page, change):
    assert differing(screen(browser, page, "desk", change), golden("desk")) > SHARE
