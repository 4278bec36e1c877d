"""The gallery of the documentation, from the report of a complete run: the page, a picture of its first screen, and the
figures that ``gallery.md`` shows.  ``make gallery``."""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

HERE = Path(__file__).parent
WIDE, HIGH = 1400, 1000
"""Size of the picture, CSS pixels."""


def figures(report: Path) -> None:
    """Copy the figures that the page of the gallery names."""
    for name in re.findall(r"\(gallery/([\w-]+\.svg)\)", (HERE / "gallery.md").read_text(encoding="utf-8")):
        shutil.copyfile(report / "figures" / name, HERE / "gallery" / name)


def picture(page: Path, to: Path) -> None:
    """Save the first screen of a report."""
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    options.binary_location = str(shutil.which("chromium") or shutil.which("google-chrome"))
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        size = {"width": WIDE, "height": HIGH, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.resolve().as_uri())
        png = browser.get_screenshot_as_png()
    finally:
        browser.quit()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128).save(to, optimize=True)


if __name__ == "__main__":
    given = Path(sys.argv[1])
    figures(given)
    shutil.copyfile(given / "report.html", HERE / "gallery" / "report.html")
    picture(given / "report.html", HERE / "report.png")
