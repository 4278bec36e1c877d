"""How figures look: sizes for a paper, palettes that survive colour blindness and grey print, marks of failures."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_rgb


@dataclass(frozen=True)
class Sheet:
    """Target of a figure: width in inches, with title and caption or without, panels side by side at most."""

    width_in: float
    headed: bool
    across: int

    @property
    def width_pt(self) -> float:
        """Width in points."""
        return self.width_in * 72

    @property
    def narrow(self) -> bool:
        """Whether panels that stand beside each other on a page must stand below each other."""
        return self.across < PAGE.across


PAGE = Sheet(504 / 72, headed=True, across=4)
"""The report."""
PHONE = Sheet(240 / 72, headed=True, across=2)
"""The report on a small screen."""
COLUMNS = {1: Sheet(240 / 72, headed=False, across=2), 2: Sheet(504 / 72, headed=False, across=4)}
"""A paper's column, and both: captions are the paper's."""
_sheet: ContextVar[Sheet] = ContextVar("sheet", default=PAGE)


def sheet() -> Sheet:
    """The current target."""
    return _sheet.get()


@contextlib.contextmanager
def drawing(on: Sheet = PAGE) -> Iterator[None]:
    """Draw in the project's style, for a page or a column."""
    token = _sheet.set(on)
    try:
        with mpl.rc_context(rc()):
            yield
    finally:
        _sheet.reset(token)


SMALL, NORMAL, LARGE = 7.0, 8.0, 9.0
INK, FAINT, GRID, BAND = "#1a1a1a", "#595959", "#dddddd", "#f2f2f2"

RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": NORMAL,
    "axes.labelsize": NORMAL,
    "axes.titlesize": NORMAL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.0,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, read aloud; the report embeds the font
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


@functools.cache
def rc() -> dict[Any, Any]:
    """Matplotlib's settings: seaborn's ``ticks``, with the project's fonts, colours and widths."""
    import seaborn as sns  # slow: only where something is drawn

    return {**sns.axes_style("ticks"), **RC}


# Okabe and Ito's colours (jfly.uni-koeln.de/color), the yellow left out: too pale for thin lines on white.
# For a ninth and tenth series Paul Tol's wine and olive (sronpersonalpages.nl/~pault).
CATEGORIES = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F"),
    *("#882255", "#999933"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h", "<")

# status -> words, marker on lines, hatch on bars.  Out of memory: crosses; all other failures: hollow shapes.
STATUSES: dict[str, tuple[str, Any, str]] = {
    "oom_weights": ("out of memory: weights", "x", "/////"),
    "oom_kv": ("out of memory: KV cache", "+", "\\\\\\\\"),
    "oom_activation": ("out of memory: activations", (6, 2, 0), "xxxx"),
    "infeasible": ("predicted not to fit, not run", "_", "-----"),
    "unsupported": ("not supported by the engine", "d", "|||||"),
    "invalid": ("failed a sanity check", "p", "++++"),
    "goals_missed": ("goals missed at the lowest rate", "1", "...."),
    "timeout": ("timeout", "^", "//"),
    "crashed": ("engine crashed", "*", "xx"),
    "node_fault": ("node fault", "v", "\\\\"),
    "service_fault": ("service failed", "<", "//"),
    "no_endpoint": ("no endpoint configured", ">", ""),
    "damaged": ("record damaged", "s", "++"),
    "not measured": ("not measured", "o", ""),
}


# component of a model -> words, colour; in the order of the stack: what routes first, so that it stands at the axis
COMPONENTS: dict[str, tuple[str, str]] = {
    "routed_experts": ("Routed experts", "#0072B2"),
    "shared_experts": ("Shared experts", "#56B4E9"),
    "router": ("Router", "#000000"),
    "dense_ffn": ("Dense FFN", "#009E73"),
    "attention": ("Attention", "#D55E00"),
    "embeddings": ("Embeddings", "#E69F00"),
    "vision": ("Vision tower", "#CC79A7"),
    "norms": ("Norms", "#7F7F7F"),
}


def status_style(status: str) -> tuple[str, Any, str]:
    """Words, marker and hatch of a cell without a value; a status that is not known yet still shows."""
    if status == "ok":  # e.g. all tokens of a service arrived at once: no time between them
        return "measured, but not this metric", "|", ".."
    return STATUSES.get(status, (status.replace("_", " "), "x", "////"))


def palette(count: int, ordered: bool) -> list[Any]:
    """Colours of ``count`` series: sequential when they are ordered numbers, else categorical.

    The sequential one leaves out its palest part, which vanishes on paper.
    """
    if ordered and count > 1:
        return [tuple(c) for c in mpl.colormaps["viridis_r"]([0.12 + 0.88 * i / (count - 1) for i in range(count)])]
    if count <= len(CATEGORIES):
        return list(CATEGORIES[:count])
    import seaborn as sns

    return list(sns.husl_palette(count, s=0.8, l=0.5))


def shades(groups: Sequence[str]) -> list[Any]:
    """A colour per series: one for each group, paler from one series of a group to the next."""
    order = list(dict.fromkeys(groups))
    base = palette(len(order), ordered=False)
    made, seen = [], Counter[str]()
    for group in groups:
        pale = PALEST * seen[group] / max(1, groups.count(group) - 1)
        made.append(tuple(c + (1 - c) * pale for c in to_rgb(base[order.index(group)])))
        seen[group] += 1
    return made


PALEST = 0.62
"""Share of white in the palest shade of a colour: paler vanishes on paper."""
