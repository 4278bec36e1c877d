"""Progress of a download: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TextIO

from huggingface_hub.utils import tqdm


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


_LINE = "{desc}: {n_fmt}B of {total_fmt}B, {rate_fmt}, {elapsed}, {remaining} left"


@dataclass(frozen=True)
class Progress:
    """Output of a download: permanent notes, and a bar (a line every ``every_s`` seconds if not on a terminal)."""

    stream: TextIO
    every_s: float = 10.0

    def note(self, text: str) -> None:
        """Print a permanent line."""
        print(text, file=self.stream, flush=True)

    def bar(self, title: str, total: int | None, done: int = 0) -> tqdm:
        """A bar of ``total`` bytes, of which some may be ``done`` already."""
        options: dict[str, Any] = {"desc": title, "total": total, "initial": done, "unit": "B", "unit_scale": True}
        if self.stream.isatty():
            options |= {"file": self.stream, "dynamic_ncols": True}
        else:
            options |= {"file": _Lines(self.stream), "bar_format": _LINE}
            options |= {"mininterval": self.every_s, "maxinterval": self.every_s}
        return tqdm(**options)  # type: ignore[no-untyped-call]


class _Lines:
    """A stream that prints each state of a bar on a separate line."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=self.stream)

    def flush(self) -> None:
        self.stream.flush()


def feeding(bar: tqdm) -> type[tqdm]:
    """The class that makes huggingface_hub's bars of a download: none is shown, bytes written to disk count in ``bar``.

    Its own total grows with every file that is started, so the time left would be that of the files started.
    """

    class Feed(tqdm):
        def __init__(self, *args: Any, **options: Any):
            self.counts = options.get("name") == "huggingface_hub.snapshot_download"
            super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if self.counts:
                with self.get_lock():
                    bar.update(n)

    return Feed
