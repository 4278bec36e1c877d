"""Display of phases: bars on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Protocol, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from moebench.measure.time_left import about
from moebench.progress.phases import Phase

EVERY_S = 30.0
"""Seconds between lines about the same phase if there is no terminal."""


class Screen(Protocol):
    """Where progress is shown."""

    def show(self, phases: Iterable[Phase], running: set[str], now: float) -> None:
        """Show the progress of the phases; ``running``: names of those that have a job running."""

    def note(self, text: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def screen_on(stream: TextIO) -> Screen:
    """Bars if the stream is a terminal that can show them, else lines."""
    console = Console(file=stream, highlight=False)
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines(stream)


def whole_left(phases: Iterable[Phase], now: float) -> float:
    """Seconds until all phases are done, one after the other."""
    return sum(phase.seconds_left(now) for phase in phases)


class _Table(Progress):
    """The bars, with a line below them."""

    below = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.below:
            yield Text(self.below)


class Bars:
    """A bar per phase, and below them the time left of all."""

    def __init__(self, console: Console):
        self.console = console
        self._tasks: dict[str, TaskID] = {}
        words = [
            TextColumn(f"{{task.{what}}}", markup=False) for what in ("description", "fields[count]", "fields[how]")
        ]
        self._table = _Table(words[0], BarColumn(30), *words[1:], console=console, refresh_per_second=2,
                             redirect_stdout=False, redirect_stderr=False)  # fmt: skip
        self._table.start()

    def show(self, phases: Iterable[Phase], running: set[str], now: float) -> None:
        """See :class:`Screen`."""
        phases = list(phases)
        for phase in phases:
            if phase.name not in self._tasks:
                self._tasks[phase.name] = self._table.add_task(phase.name, count="", how="")
            self._table.update(
                self._tasks[phase.name], total=len(phase.units), completed=phase.done, count=counted(phase),
                how=state(phase, now),
            )  # fmt: skip
        left = whole_left(phases, now)
        self._table.below = f"{about(left)} left in all" if left else ""

    def note(self, text: str) -> None:
        """See :class:`Screen`."""
        self.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """See :class:`Screen`."""
        self._table.below = ""
        self._table.stop()


class Lines:
    """A line when a phase begins or is done, and every ``EVERY_S`` between if something was done."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self._shown: dict[str, tuple[float, int]] = {}
        self._ended: set[str] = set()

    def show(self, phases: Iterable[Phase], running: set[str], now: float) -> None:
        """See :class:`Screen`."""
        phases = list(phases)
        for phase in phases:
            when, done = self._shown.get(phase.name, (None, -1))
            due = phase.name in running and (when is None or (now - when >= EVERY_S and phase.done > done))
            ends = not phase.jobs and phase.name not in self._ended and (when is not None or phase.units)
            if ends:
                self._ended.add(phase.name)
            if due or ends:
                self._shown[phase.name] = now, phase.done
                words, left = [counted(phase), state(phase, now)], whole_left(phases, now)
                words.append(f"{about(left)} left in all" if left else "")
                self.note(f"{phase.name}: " + ", ".join(word for word in words if word))

    def note(self, text: str) -> None:
        """See :class:`Screen`."""
        with contextlib.suppress(OSError):
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """See :class:`Screen`."""


def counted(phase: Phase) -> str:
    """``12/101``."""
    return f"{phase.done}/{len(phase.units)}"


def state(phase: Phase, now: float) -> str:
    """Time left of a phase, and its failures."""
    words = [f"{about(phase.seconds_left(now))}" if phase.jobs else "done"]
    if phase.failed:
        words.append(f"{phase.failed} without a value")
    return ", ".join(words)
