"""A canvas for measuring: it keeps the sizes of texts for all figures of a process, where matplotlib's own measures
them anew for every figure and size of it."""

from __future__ import annotations

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font

_sizes: dict[Any, tuple[float, float, float]] = {}
"""Width, height and descent, pixels, by text, font, whether it is a formula, and dpi."""

_heights: dict[Any, tuple[float, float, float] | tuple[None, None, None]] = {}
"""Ascent, descent and line gap, pixels, by font and dpi."""


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

    def _get_font_height_metrics(self, prop: Any) -> tuple[float, float, float] | tuple[None, None, None]:
        """Ascent, descent and line gap of a font, pixels, as ``Text._get_layout`` reads them, for each text, if a
        renderer does not have this method.  None: it measures letters."""
        key = (prop, self.dpi)
        if key not in _heights:
            font = get_font(fontManager._find_fonts_by_props(prop))
            table, head = font.get_sfnt_table("OS/2"), font.get_sfnt_table("head")
            if table is None or head is None:
                _heights[key] = None, None, None
            else:
                scale = prop.get_size_in_points() * self.dpi / 72 / head["unitsPerEm"]
                sizes = table["sTypoAscender"], -table["sTypoDescender"], table["sTypoLineGap"]
                ascent, descent, gap = (size * scale for size in sizes)
                _heights[key] = ascent, descent, gap
        return _heights[key]
