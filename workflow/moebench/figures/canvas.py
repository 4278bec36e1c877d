"""A canvas for measuring: it keeps the sizes of texts for all figures of a process, where matplotlib's own measures
them anew for every figure and size of it."""

from __future__ import annotations

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

_sizes: dict[Any, tuple[float, float, float]] = {}
"""Width, height and descent, pixels, by text, font, whether it is a formula, and dpi."""


def figure(width_in: float) -> Figure:
    """A figure with this canvas, ``width_in`` inches wide; its height is not final."""
    made = Figure(figsize=(width_in, 3))
    Canvas(made)
    return made


class Canvas(FigureCanvasAgg):
    """Measures with :class:`Renderer`."""

    _size: tuple[float, ...] = ()

    def get_renderer(self) -> Any:
        """The renderer for the figure's current size."""
        size = (*self.get_width_height(physical=True), self.figure.dpi)
        if self._size != size:
            self.renderer, self._size = Renderer(*size), size  # type: ignore[no-untyped-call]
        return self.renderer


class Renderer(RendererAgg):
    """Measures each text once."""

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
        """Width, height and descent of a text, pixels.  ``prop`` is kept: matplotlib gives a copy."""
        key = (s, prop, ismath, self.dpi)
        if key not in _sizes:
            _sizes[key] = super().get_text_width_height_descent(s, prop, ismath)  # type: ignore[no-untyped-call]
        return _sizes[key]
