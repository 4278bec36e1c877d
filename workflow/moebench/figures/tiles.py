"""Cells with default tile sizes among cells with tuned ones: marked with a white dot, named in legend and caption.

vLLM has tuned tile sizes for some shapes of experts and defaults for all others.  In a figure that mixes them, a step
between two points may be caused by the kernel.  A figure with only one kind has no such marks.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from moebench.figures import style

WORDS = "default tile sizes"
UNTUNED = "untuned_kernel_warning"


def untuned(rows: pd.DataFrame) -> pd.Series:
    """Measured cells that ran with default tile sizes; none if all did, or none did."""
    if UNTUNED not in rows:
        return pd.Series(False, index=rows.index)
    known = rows[UNTUNED].where(rows["status"] == "ok").astype(object)
    found, tuned = (known.eq(kind).fillna(False).astype(bool) for kind in (True, False))
    return found & bool(found.any() and tuned.any())


def dots(axes: Axes, at: Any, values: Any, ink: Any, **more: Any) -> None:
    """A dot on each given point: white, or in the colour of a hollow mark."""
    if len(at):
        axes.plot(at, values, color=ink, linestyle="none", marker="o", markersize=1.8, markeredgewidth=0, **more)


def handles(rows: pd.DataFrame) -> list[Any]:
    """Legend entry for the dot, if there is one."""
    if not untuned(rows).any():
        return []
    shown: Any = {"marker": "o", "markersize": 4.6, "markerfacecolor": "white", "markeredgewidth": 1.4}
    return [Line2D([], [], color=style.FAINT, linestyle="none", label=WORDS, **shown)]
