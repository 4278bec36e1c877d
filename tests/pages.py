"""A browser for reports, and what a page may cost."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BROWSER = next((p for p in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(p).exists()), None)
DRIVER = shutil.which("chromedriver")
SCRIPT_S = 200
"""Patience with a script in the page, on a busy machine."""
SCREEN_PX, SCREENS, NODES, BYTES = 900, 15, 12_000, 5_000_000
"""Budgets of the closed page, whatever the study; bytes: of the study tiny."""
BYTES_FULL = 7_000_000
"""Of the study tiny-full, with five times as many cells: half of it is drawings."""
LOAD_S, LOAD_LARGE_S = 1.5, 3.0
"""Processor time of the browser's main thread until the page stands, for a study and for 10,000 cells."""
BUILD_S, BUILD_LARGE_S = 60, 180
"""From tables to figures and page on two cores, for the study tiny and for 10,000 cells."""


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Any]:
    """A headless Chromium that logs console and network.  Skips without one."""
    if not BROWSER or not DRIVER:
        pytest.skip("needs a browser: apt-get install -y chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    flags = [
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        "hide-scrollbars",
        "font-render-hinting=none",
        f"user-data-dir={profile}",
    ]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(SCRIPT_S)
    try:
        yield driver
    finally:
        driver.quit()


def look(browser: Any, file: Path, anchor: str = "", width: int = 1400, dark: bool = False) -> None:
    """Open a page at an anchor, as if for the first time."""
    size = {"width": width, "height": SCREEN_PX, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(file.as_uri() + anchor)


@dataclass(frozen=True)
class Cost:
    """What a closed page costs: processor time to load, s; screens of 1400 x 900; elements; bytes."""

    load_s: float
    screens: float
    nodes: int
    bytes: int


def cost(browser: Any, file: Path) -> Cost:
    """Load a page and measure it.  Time is that of the main thread: what else the machine does is not in it."""
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    try:
        look(browser, file)
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    finally:
        browser.execute_cdp_cmd("Performance.disable", {})
    taken_s = float({m["name"]: m["value"] for m in metrics}["TaskDuration"])
    height, nodes = browser.execute_script(
        "return [document.documentElement.scrollHeight, document.querySelectorAll('*').length]"
    )
    return Cost(taken_s, height / SCREEN_PX, nodes, file.stat().st_size)


def build_s(plan: Path, tables: Path, out: Path) -> float:
    """Draw figures and page into ``out`` as the workflow does; how long two idle cores take, s.

    Figures are drawn by a process per core: half of their processor time.  The page is made by one.
    """
    given = ["--plan", str(plan), "--tables", str(tables)]
    figures = _processor_s("figures", *given, "--out", str(out / "figures"))
    page = _processor_s("report", *given, "--figures", str(out / "figures"), "--out", str(out / "report.html"))
    return figures / 2 + page


def _processor_s(*command: str) -> float:
    def used_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used_s()
    subprocess.run([sys.executable, "-m", "moebench", *command], check=True, capture_output=True)
    return used_s() - before


def violations(browser: Any, part: str = "html") -> list[Any]:
    """What axe has to say against a part of the page as it stands."""
    browser.execute_script((Path(__file__).parent / "report/axe.min.js").read_text())
    found: list[Any] = browser.execute_async_script(
        """
        const [part, done] = arguments, told = v => [v.id, v.nodes.length, v.nodes[0].target.join(' ')];
        axe.run(part, {resultTypes: ['violations']}).then(r => done(r.violations.map(told)), e => done(String(e)))""",
        part,
    )
    return found
