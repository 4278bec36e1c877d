"""The live view of a study, and the partial report built beside it."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import asdict

from moebench.commands.app import Study, print_json
from moebench.formats.plan import Plan
from moebench.progress.watch import State, Watch, shown
from moebench.text import console


def follow(study: Study, once: bool, every_s: float, report_minutes: float | None, json: bool = False) -> int:
    """Show a study until all of its cells are done, or once as text or JSON."""
    plan = study.plan()
    watch, out = Watch(plan, study.results), console()
    if json:
        print_json({"study": plan["study"], **asdict(watch.look())})
        return 0
    if once or not out.is_terminal:
        out.print(shown(plan["study"], watch.look(), _page(study, plan)))
        return 0
    from rich.live import Live

    builder = _Builder(study, plan, report_minutes)
    with Live(console=out, auto_refresh=False) as live:
        while True:
            state = watch.look()
            builder.look(state)
            live.update(shown(plan["study"], state, _page(study, plan)), refresh=True)
            if state.done == state.cells and not builder.busy:
                return 0
            time.sleep(every_s)


def _page(study: Study, plan: Plan) -> str:
    page = study.reports / plan["study"] / "report.html"
    if not page.exists():
        return "no report yet: moebench report --partial"
    return f"{page}, written {(time.time() - page.stat().st_mtime) / 60:.0f} min ago"


class _Builder:
    """Builds the partial report in a separate process when it is due and there are new results."""

    def __init__(self, study: Study, plan: Plan, minutes: float | None):
        folders = {"config": study.config_folder, "study": plan["study"], "results": study.results,
                   "reports": study.reports}  # fmt: skip
        options = [text for name, value in folders.items() for text in (f"--{name}", str(value))]
        self.command = [sys.executable, "-m", "moebench", "report", "--partial", *options]
        self.every_s = None if minutes is None else minutes * 60
        self.process: subprocess.Popen[bytes] | None = None
        self.began, self.had = -math.inf, 0

    @property
    def busy(self) -> bool:
        """Whether it builds one now."""
        return self.process is not None and self.process.poll() is None

    def look(self, state: State) -> None:
        """Start building if it is time."""
        if self.every_s is None or self.busy or state.done == self.had:
            return
        if time.monotonic() - self.began >= self.every_s or state.done == state.cells:
            quiet = subprocess.DEVNULL
            self.process = subprocess.Popen(self.command, stdout=quiet, stderr=quiet)
            self.began, self.had = time.monotonic(), state.done
