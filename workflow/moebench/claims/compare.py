"""Comparison of two result sets: the same cells on other hardware, with another engine or another version.

Cells are paired if every knob, the model's revision and the protocol are equal; hardware, engine and version are what
may differ.  For each pair the ratio B / A of the medians comes with a bootstrap interval (repeats of both drawn anew,
Efron and Tibshirani 1993, chapter 8), and a p-value of Welch's t-test on the logarithms (Welch, Biometrika 34 (1947)
28): repeats of a time differ by a factor, so logarithms make their spreads comparable.  Over all pairs the p-values are
adjusted by Benjamini and Hochberg (J. R. Stat. Soc. B 57 (1995) 289) or Holm (Scand. J. Stat. 6 (1979) 65).

A cell has *changed* if the interval excludes 1, the adjusted p-value is below 0.05, and the ratio is further from 1
than the threshold and than the drift of either canary: a session that drifted by 8% cannot show a change of 5%.

With three repeats no cell alone can show that everything became 10% slower.  So the mean of the logarithms of all
ratios is tested as well (:func:`together`).
"""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moebench import columns
from moebench.claims.evaluate import draws
from moebench.columns import Row
from moebench.config import KNOBS
from moebench.errors import UserError
from moebench.formats import Json
from moebench.measure.records import FINAL, INFRASTRUCTURE
from moebench.tables import parquet

Floats = NDArray[np.float64]

LEVEL = 0.05
SAME = "same"
ONLY_B = "measured in B only"
WITHOUT = "measured, without this metric"
_NO_COMPARISON = ("no interval", "neither measured", WITHOUT, ONLY_B)
_MACHINE = ("cpu_threads", "kv_cache_mb")  # how a machine runs the engine, not what is measured
KEY = [*(k for k in KNOBS if k not in _MACHINE), "revision", "protocol_kind"]
"""Columns in which paired cells are equal."""
_DEFAULTS = {k: field.default for k, field in KNOBS.items() if not field.is_required()}
"""Value of a knob before it had a column."""
DIFFERS = (
    *("hardware", "device_name", "driver", "engine_name", "engine_version", "nccl", "git_commit", "lock_sha256"),
    *_MACHINE,
)
"""Columns in which two sets may differ; the differing ones are reported."""
JSON_DIFFERS = {"versions": ("version of ", None), "variables": ("", "not set")}
"""The same, of JSON: each key by its own name, after these words; and what a cell without it has, if that is a fact."""


@dataclass(frozen=True)
class Results:
    """A result set: its measurements and the repeats of each cell."""

    name: str
    measurements: pd.DataFrame
    samples: dict[tuple[str, str], pd.DataFrame]


def load(path: Path, study: str | None = None) -> Results:
    """A folder of tables, a results folder (with one study, or the one named), or an archive.

    Raises UserError if it is none of them.
    """
    if path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            try:
                with zipfile.ZipFile(path) as packed:
                    names = [n for n in packed.namelist() if n.startswith("results/tables/") and ".." not in n]
                    packed.extractall(folder, names)
            except zipfile.BadZipFile:
                raise UserError(
                    f"{path}: neither an archive nor a folder; give results, results/tables/STUDY or archive.zip"
                ) from None
            return _read(_tables_in(Path(folder) / "results", study, path), str(path))
    return _read(_tables_in(path, study, path), str(path))


def _tables_in(folder: Path, study: str | None, given: Path) -> Path:
    if (folder / "measurements.parquet").is_file():
        return folder
    found = sorted(p.parent for p in folder.glob("tables/*/measurements.parquet"))
    chosen = [p for p in found if study in (None, p.name)]
    if len(chosen) != 1:
        there = ", ".join(p.name for p in found) or "none"
        raise UserError(
            f"{given}: no one set of tables there (studies: {there}); give results, results/tables/STUDY or"
            " archive.zip, and --study where there are several"
        )
    return chosen[0]


def _read(folder: Path, name: str) -> Results:
    measured, samples = parquet.read(folder, "measurements"), parquet.read(folder, "samples")
    parts = {(str(e), str(c)): part for (e, c), part in samples.groupby(["engine", "cell"])}
    return Results(name, measured, parts)


# --------------------------------------------------------------------------------------- statistics


def t_tail(t: float, freedom: float) -> float:
    """Probability that Student's t with these degrees of freedom is beyond +-t."""
    from scipy.special import stdtr  # here: the import takes longer than collecting many records, scipy.stats twice so

    return float(2 * stdtr(freedom, -abs(t)))


def welch(a: Floats, b: Floats) -> float:
    """Two-sided p-value of Welch's t-test; NaN with fewer than two values on a side."""
    if len(a) < 2 or len(b) < 2:
        return float("nan")
    difference, errors = a.mean() - b.mean(), [side.var(ddof=1) / len(side) for side in (a, b)]
    if not any(errors):
        return float(difference == 0)
    error = sum(errors)
    freedom = error**2 / sum(e**2 / (len(side) - 1) for e, side in zip(errors, (a, b), strict=True))
    return t_tail(difference / error**0.5, freedom)


def adjusted(p: Floats, method: str = "bh") -> Floats:
    """P-values adjusted for their number, by ``bh`` (false discovery rate) or ``holm`` (family-wise error).

    NaNs stay NaN and do not count.
    """
    known, out = ~np.isnan(p), np.full(len(p), np.nan)
    out[known] = _benjamini_hochberg(p[known]) if method == "bh" else _holm(p[known])
    return out


def _benjamini_hochberg(p: Floats) -> Floats:
    order = np.argsort(-p, kind="stable")
    stepped = np.minimum.accumulate(p[order] * (len(p) / np.arange(len(p), 0, -1)))
    return np.minimum(stepped, 1)[np.argsort(order)]


def _holm(p: Floats) -> Floats:
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(stepped, 1)[np.argsort(order)]


@dataclass(frozen=True)
class Together:
    """All pairs together: the geometric mean of their ratios."""

    ratio: float
    p: float
    """P-value of no overall change; NaN with fewer than two pairs."""
    noise: float
    """The change that it must exceed: the median of the pairs' thresholds."""
    verdict: str

    @property
    def changed(self) -> bool:
        """Whether they changed overall."""
        return self.verdict not in (SAME, "no interval")

    def as_json(self) -> Json:
        """Plain values; null if unknown."""
        return {k: None if v != v else v for k, v in asdict(self).items()}


def together(pairs: pd.DataFrame, metric: str) -> Together:
    """Whether all pairs together changed: Student's t-test of the mean logarithm of B / A.

    Its standard error is the larger of that from the spread between pairs and that from the repeats of each
    (``error``); n - 1 degrees of freedom.
    """
    known = pairs[pairs["ratio"].notna()]
    logs, n = np.log(known["ratio"].to_numpy(dtype=float)), len(known)
    if n < 2:
        return Together(float(np.exp(logs.mean())) if n else math.nan, math.nan, math.nan, "no interval")
    mean, noise = float(logs.mean()), float(known["noise"].median())
    within = float(np.nansum(known["error"].to_numpy(dtype=float) ** 2)) ** 0.5 / n
    error = max(float(logs.std(ddof=1)) / math.sqrt(n), within)
    p = t_tail(mean / error, n - 1) if error else float(mean == 0)
    changed = p < LEVEL and abs(mean) > math.log1p(noise)
    return Together(math.exp(mean), p, noise, _direction(math.exp(mean), metric) if changed else SAME)


# ---------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Comparison:
    """Paired cells with their ratios, the differences between the sets, and the cells without a partner."""

    metric: str
    pairs: pd.DataFrame
    """Columns: model, cell_a, cell_b, status_a, status_b, a, b, ratio, low, high, error (standard error of the mean
    logarithm), p, p_adjusted, noise, verdict."""
    together: Together
    differs: dict[str, tuple[str, str]]
    only_a: list[str]
    only_b: list[str]

    @property
    def changed(self) -> pd.DataFrame:
        """Pairs whose values or whose status changed."""
        return self.pairs[~self.pairs["verdict"].isin([SAME, *_NO_COMPARISON])]


def compare(a: Results, b: Results, metric: str, threshold: float, method: str = "bh") -> Comparison:
    """Compare a metric of two result sets.  ``threshold``: the smallest change that counts, 0.05 for 5%.

    Raises UserError if no cell has a partner, or if cells cannot be distinguished.
    """
    left, right = _keyed(a), _keyed(b)
    common = [key for key in left if key in right]
    if not common:
        raise UserError(f"{a.name} and {b.name}: no cell of one is in the other; nothing to compare")
    rows = [_pair(left[key], right[key], a, b, metric) for key in common]
    frame = pd.DataFrame(rows)
    frame["p_adjusted"] = adjusted(frame["p"].to_numpy(dtype=float), method)
    frame["noise"] = np.maximum(frame["noise"].to_numpy(dtype=float), threshold)
    frame["verdict"] = [_verdict(row, metric) for row in frame.to_dict("records")]
    return Comparison(
        metric,
        frame,
        together(frame, metric),
        _differs(a.measurements, b.measurements),
        [_name(left[key]) for key in left if key not in right],
        [_name(right[key]) for key in right if key not in left],
    )


def _keyed(results: Results) -> dict[tuple[Any, ...], Row]:
    keyed: dict[tuple[Any, ...], Row] = {}
    for row in parquet.rows(results.measurements):
        pairing = key(row)
        if pairing in keyed:
            raise UserError(
                f"{results.name}: {_name(keyed[pairing])} and {_name(row)} agree in everything that cells are paired by"
            )
        keyed[pairing] = row
    return keyed


def key(row: Row) -> tuple[Any, ...]:
    """Key by which rows of plan or measurements are paired."""
    return tuple(_DEFAULTS.get(k) if row[k] is None else row[k] for k in KEY)


def _name(row: Row) -> str:
    return f"{row['engine']}/{row['cell']}"


def _pair(left: Row, right: Row, a: Results, b: Results, metric: str) -> Row:
    """Medians, ratio, interval and p-value of one pair."""
    made: Row = {
        "model": left["model_title"], "cell_a": _name(left), "cell_b": _name(right),
        "status_a": left["status"], "status_b": right["status"], "a": left[metric], "b": right[metric],
        "ratio": np.nan, "low": np.nan, "high": np.nan, "error": np.nan, "p": np.nan,
        "noise": max(left["canary_drift"] or 0.0, right["canary_drift"] or 0.0),
    }  # fmt: skip
    if left["status"] != "ok" or right["status"] != "ok" or left[metric] is None or right[metric] is None:
        return made
    of, to = (
        np.asarray(results.samples[row["engine"], row["cell"]][metric], dtype=float)
        for results, row in ((b, right), (a, left))
    )
    made["ratio"] = made["b"] / made["a"]
    if len(of) > 1 and len(to) > 1:
        ratios = draws(f"b:{made['cell_b']}", of) / draws(f"a:{made['cell_a']}", to)
        made["low"], made["high"] = np.quantile(ratios, [LEVEL / 2, 1 - LEVEL / 2])
        made["error"] = math.sqrt(sum(np.log(side).var(ddof=1) / len(side) for side in (of, to)))
        made["p"] = welch(np.log(to), np.log(of))
    return made


def _verdict(row: Mapping[Hashable, Any], metric: str) -> str:
    a, b = row["status_a"], row["status_b"]
    if a != b:
        if b == "ok" and a not in (*FINAL, *INFRASTRUCTURE):
            return ONLY_B
        changed = "ok" in (a, b) or (a in FINAL and b in FINAL)
        return f"{a} -> {b}" if changed else "neither measured"
    if row["status_a"] != "ok":
        return "neither measured"
    if math.isnan(row["ratio"]):  # counts of routers have no times
        return WITHOUT
    if math.isnan(row["low"]):
        return "no interval"
    beyond = abs(math.log(row["ratio"])) > math.log1p(row["noise"])
    certain = (row["low"] > 1 or row["high"] < 1) and row["p_adjusted"] < LEVEL
    if not (beyond and certain):
        return SAME
    return _direction(row["ratio"], metric)


def _direction(ratio: float, metric: str) -> str:
    better, higher = columns.COLUMNS[metric].better, ratio > 1
    if not better:
        return "higher" if higher else "lower"
    return "faster" if higher == (better == "high") else "slower"


def _differs(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, tuple[str, str]]:
    def said(frame: pd.DataFrame, name: str) -> str:
        values = frame[name].dropna().unique() if name in frame else ()
        return ", ".join(sorted(map(str, values))) or "not recorded"

    both = {name: (said(a, name), said(b, name)) for name in DIFFERS}
    for column, (words, lacking) in JSON_DIFFERS.items():
        found = [[json.loads(text) for text in frame[column].dropna().unique()] for frame in (a, b)]
        keys = {key for row in (*found[0], *found[1]) for key in row}
        left, right = (pd.DataFrame([{k: row.get(k, lacking) for k in keys} for row in rows]) for rows in found)
        both |= {words + key: (said(left, key), said(right, key)) for key in sorted(keys)}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}
