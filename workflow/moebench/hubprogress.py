"""Progress of a download: one updating line on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

WINDOW_S = 15.0
"""The rate shown is that of the last so many seconds."""


def size_text(count: float) -> str:
    """Bytes for people, in SI units: ``size_text(9.63e9) == '9.63 GB'``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB" if count < 999.5 else f"{count:.0f} TB"


def time_text(seconds: float) -> str:
    """Seconds for people: ``48 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts files and bytes of one task at a time and shows them; safe to feed from several threads.

    >>> progress = Progress()
    >>> progress.begin("org/name", files=2, bytes_=100)
    >>> progress.advance(60); progress.file_done(); progress.advance(40); progress.file_done(); progress.end()
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic):
        self.stream = sys.stderr if stream is None else stream
        self.tty = self.stream.isatty()
        self.every_s = 0.2 if self.tty else every_s
        self.clock = clock
        self._lock = threading.RLock()
        self._title = ""
        self._width = 0

    def note(self, text: str) -> None:
        """Show a line of its own that stays."""
        with self._lock:
            self._clear()
            print(text, file=self.stream, flush=True)

    def begin(self, title: str, *, files: int, bytes_: int, done_files: int = 0, done_bytes: int = 0) -> None:
        """Start a task of ``files`` files and ``bytes_`` bytes, some of which may be there already."""
        with self._lock:
            self._title, self._files, self._bytes = title, files, bytes_
            self._done_files, self._done_bytes = done_files, done_bytes
            self._shown_at = self._began_at = self.clock()
            self._began_bytes = done_bytes
            self._samples = deque([(self._shown_at, done_bytes)])

    def advance(self, count: int) -> None:
        """Count bytes done; negative where a file has to start again."""
        with self._lock:
            self._done_bytes += count
            self._show()

    def file_done(self) -> None:
        """Count one file as done."""
        with self._lock:
            self._done_files += 1
            self._show()

    def end(self) -> None:
        """Finish the task with a line that stays: how far it came, how long it took, the mean rate."""
        with self._lock:
            if not self._title:
                return
            took = self.clock() - self._began_at
            rate = (self._done_bytes - self._began_bytes) / took if took > 0 else 0.0
            self.note(f"{self._counts()} in {time_text(took)}, {size_text(max(rate, 0))}/s")
            self._title = ""

    def _show(self) -> None:
        now = self.clock()
        if not self._title or now - self._shown_at < self.every_s:
            return
        line = self._line(now)
        self._shown_at = now
        if self.tty:
            line = line[: shutil.get_terminal_size().columns - 1]
            self.stream.write("\r" + line.ljust(self._width))
            self.stream.flush()
            self._width = len(line)
        else:
            print(line, file=self.stream, flush=True)

    def _clear(self) -> None:
        if self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self._width = 0

    def _counts(self) -> str:
        files = f"{self._done_files} of {self._files} files"
        return f"{self._title}: {files}, {size_text(self._done_bytes)} of {size_text(self._bytes)}"

    def _line(self, now: float) -> str:
        rate = self._rate(now)
        left = max(self._bytes - self._done_bytes, 0)
        if rate <= 0:
            return f"{self._counts()}, waiting for data"
        return f"{self._counts()}, {size_text(rate)}/s, {time_text(left / rate)} left"

    def _rate(self, now: float) -> float:
        """Bytes per second over the last WINDOW_S seconds."""
        self._samples.append((now, self._done_bytes))
        while len(self._samples) > 2 and self._samples[1][0] < now - WINDOW_S:
            self._samples.popleft()
        (start, before), (end, after) = self._samples[0], self._samples[-1]
        return max(after - before, 0) / (end - start) if end > start else 0.0
