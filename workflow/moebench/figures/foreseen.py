"""Predictions for the cells of a figure, and how they are drawn: the calibrated value dashed, its interval a band,
the roofline's bound a thin line.  Where nothing is calibrated, the dashes are the bound."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

BAND_ALPHA = 0.15
BOUND_WIDTH = 0.5
"""Of the line, points."""
CALIBRATED = "predicted (80% band), thin: roofline"
BOUND = "predicted (roofline)"


def _fitting(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column as numbers, base units; missing if it is not there or the cell is predicted not to fit."""
    if name not in rows:
        return pd.Series(np.nan, index=rows.index)
    return rows[name].astype(float).where(rows["predicted_fits"].fillna(True).astype(bool))


def column(rows: pd.DataFrame, y: str) -> str:
    """The column that is drawn: calibrated values, or the bound of rows in which none is calibrated."""
    return f"{'calibrated' if _fitting(rows, f'calibrated_{y}').notna().any() else 'predicted'}_{y}"


def expected(rows: pd.DataFrame, y: str) -> pd.Series:
    """The value of each cell in :func:`column`, base units."""
    return _fitting(rows, column(rows, y))


def bound(rows: pd.DataFrame, y: str) -> pd.Series:
    """The roofline's bound beside calibrated values; missing where :func:`expected` is the bound itself."""
    calibrated = _fitting(rows, f"calibrated_{y}").notna().any()
    return _fitting(rows, f"predicted_{y}") if calibrated else pd.Series(np.nan, index=rows.index)


def words(rows: pd.DataFrame, metrics: Iterable[str]) -> list[str]:
    """What the dashes of these metrics are, for the legend."""
    kinds = {CALIBRATED if _fitting(rows, f"calibrated_{y}").notna().any() else BOUND for y in metrics}
    return sorted(kinds)


def line(axes: Axes, at: Any, rows: pd.DataFrame, y: str, factor: float, colour: Any) -> None:
    """Band and bound behind a dashed line at positions ``at``.  ``factor``: axis units per base unit."""
    low, high = (_fitting(rows, f"calibrated_{y}_{end}").to_numpy(float) * factor for end in ("low", "high"))
    if not np.isnan(low).all():
        axes.fill_between(at, low, high, color=colour, alpha=BAND_ALPHA, linewidth=0, zorder=1.5)
        axes.plot(at, bound(rows, y).to_numpy(float) * factor, color=colour, linewidth=BOUND_WIDTH, zorder=1.8)


def marks(axes: Axes, at: Any, width: float, rows: pd.DataFrame, y: str, factor: float, colour: Any) -> None:
    """Band and bound of bars whose middles are ``at``."""
    low, high = (_fitting(rows, f"calibrated_{y}_{end}").to_numpy(float) * factor for end in ("low", "high"))
    at, known = np.asarray(at, float), ~np.isnan(low)
    if known.any():
        axes.bar(
            at[known], (high - low)[known], width, bottom=low[known], color=colour, alpha=BAND_ALPHA, linewidth=0,
            zorder=3.5,
        )  # fmt: skip
        least = bound(rows, y).to_numpy(float) * factor
        axes.hlines(least, at - width / 2, at + width / 2, color=colour, linewidth=BOUND_WIDTH, zorder=4)
