"""A canvas for measuring: it keeps the sizes of texts for all figures of a process, where matplotlib's own measures
them anew for every figure and size of it."""

from __future__ import annotations

import functools
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties


def figure(width_in: float) -> Figure:
    """A figure with this canvas, ``width_in`` inches wide; its height is not final."""
    made = Figure(figsize=(width_in, 3))
    Canvas(made)
    return made


class Canvas(FigureCanvasAgg):
    """Measures with :class:`Renderer`."""

    _size: tuple[float, ...] = ()

    def get_renderer(self) -> RendererAgg:
        """The renderer of the figure's current size."""
        size = (*self.get_width_height(physical=True), self.figure.dpi)
        if self._size != size:
            self.renderer, self._size = Renderer(*size), size
        return self.renderer


class Renderer(RendererAgg):
    """Measures each text once."""

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
        """Width, height and descent of a text, pixels."""
        return _text_size(s, prop, ismath, self.dpi)


@functools.cache
def _text_size(text: str, font: FontProperties, ismath: Any, dpi: float) -> tuple[float, float, float]:
    return _measuring(dpi).get_text_width_height_descent(text, font, ismath)


@functools.cache
def _measuring(dpi: float) -> RendererAgg:
    return RendererAgg(1, 1, dpi)
