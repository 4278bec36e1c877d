"""``moebench calibrate --fit``: constants of the calibrated cost model from measured points."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from moebench.commands import own_points
from moebench.commands.predict import draw, error_tables
from moebench.config import Config, Hardware
from moebench.cost import cells, fit, points
from moebench.errors import UserError

FAR_LINK, FAR_HOP = 50e9, 20e-6
"""Assumed between nodes: one 400 Gb/s adapter per GPU, as in a DGX H100, bytes/s; and the start of a ring step, s."""


def run(
    config: Config,
    path: Path,
    kernels: Path | None,
    write: bool,
    source: str | None,
    figure: Path | None = None,
) -> str:
    """Fit on the points of ``path``, print the errors of left-out points and the constants of their machines.

    ``kernels``: folder of kernel tables; without, the kernel constants and all-reduces that config/hardware has.
    ``figure``: draw predictions of left-out models against what was measured.  ``write``: put the constants into the
    files of config/hardware, instead of the ones there.
    """
    frame = own_points.load(path)
    if "value" not in frame:
        raise UserError(f"--fit {path}: column 'value' is missing; a fit needs measured values")
    tables = fit.Tables.read(kernels) if kernels else None
    given = known(config) if tables is None else None
    model = fit.fit_all(frame, config, tables, given)
    left = fit.left_out(frame, config, tables, given)
    if figure:
        draw(left[left["kind"] == "model"], "left_out", figure)
    text = [protocol_text(left), "", "Constants, fitted on all points:"]
    for hardware in _machines(frame, config):
        block = fitted(hardware, model, left, frame, config, tables, source or path.name)
        text += ["", f"# config/hardware/{hardware.name}.yaml", block.rstrip()]
        if write:
            put(config.folder / "hardware" / f"{hardware.name}.yaml", block)
    return "\n".join(text)


def known(config: Config) -> fit.Model:
    """The constants of the first machine that has any, and all all-reduce tables.  Raises UserError if there are
    none."""
    having = [h for n in config.names("hardware") if (h := config.hardware(n)).fitted and not h.fitted.like]
    if not having:
        raise UserError("--fit: no file of config/hardware has constants yet; give --kernels FOLDER")
    first = having[0].fitted
    assert first is not None
    reduces = {h.name: cells.all_reduce_of(h.fitted.all_reduce, h) for h in having if h.fitted and h.fitted.all_reduce}
    return fit.Model({n: c.value for n, c in first.constants.items()}, reduces)


def _machines(frame: pd.DataFrame, config: Config) -> list[Hardware]:
    found = [points.machine(str(n), config) for n in sorted(frame["machine"].unique())]
    return [h for h in found if h is not None]


def protocol_text(left: pd.DataFrame) -> str:
    """Errors of left-out points: each split, then bias along TP, batch and precision."""
    text = [f"Left-out points ({len(fit.SEEDS)} halves at random); a configuration is never on both sides"]
    for metric, rows in left.groupby(left["metric"].map(fit.base_metric)):
        text += ["", f"{metric}: |predicted / measured - 1|, and bias"]
        text += error_tables(rows, ("kind", "left_out"))
        text.append("interval of measured / predicted                low   high  inside")
        for kind, part in rows.groupby("kind"):
            low, high, inside = fit.interval(part)
            text.append(f"  {kind:<36} {low:>12.3f} {high:>6.3f} {inside:>7.0%}")
        columns = ("tp", "batch", "precision", "input")
        text += error_tables(rows[rows["kind"] == "seen"], columns, "halves at random, by ")
        text += error_tables(rows[rows["kind"] == "model"], columns, "models left out, by ")
    return "\n".join(text)


def fitted(
    hardware: Hardware,
    model: fit.Model,
    left: pd.DataFrame,
    frame: pd.DataFrame,
    config: Config,
    tables: fit.Tables | None,
    source: str,
) -> str:
    """The ``fitted`` block of a machine's file, as YAML."""
    read = points.read(frame, config)
    mine = [i for b in read.batches if b.hardware.name == hardware.name for i in b.rows]
    constants = {
        name: {
            "value": float(f"{value:.3g}"),
            "unit": fit.UNITS.get(name, "1"),
            "source": "kernels" if name in fit.KERNEL else "serving",
        }
        for name, value in sorted(model.constants.items())
    }
    kernel = hardware.fitted.constants["expert_bytes"].source if tables is None and hardware.fitted else None
    words = {"kernels": kernel or f"kernel tables of {source}", "serving": f"{len(frame)} serving points of {source}"}
    for constant in constants.values():
        constant["source"] = words[str(constant["source"])]
    names: Iterable[Any] = tables.reduces["machine"].unique() if tables is not None else []
    own = [n for n in names if (m := points.machine(str(n), config)) and m.name == hardware.name]
    table = (
        fit.reduce_table(tables.reduces[tables.reduces["machine"] == own[0]], f"all-reduce table of {source}")
        if tables is not None and own
        else hardware.fitted.all_reduce
        if hardware.fitted
        else None
    )
    if table is None:
        raise UserError(f"--fit: {hardware.name} has no table of all-reduces; give --kernels with one")
    block = {
        "date": datetime.date.today().isoformat(),
        "constants": constants,
        "all_reduce": {
            "message_bytes": list(table.message_bytes),
            "graph_us": {n: list(t) for n, t in table.graph_us.items()},
            "eager_us": {n: list(t) for n, t in table.eager_us.items()},
            "source": table.source,
        },
        "far_link": {"value": FAR_LINK, "unit": "bytes/s", "source": "assumed: a 400 Gb/s adapter per GPU (DGX H100)"},
        "far_hop": {"value": FAR_HOP, "unit": "s", "source": "assumed"},
        "models": sorted({read.files[i] for i in mine}),
        "factors": {m: {k: list(f) for k, f in kinds.items()} for m, kinds in fit.factors(left).items()},
    }
    return "fitted:\n" + _indented(yaml.safe_dump(block, sort_keys=False, default_flow_style=None, width=10_000))


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def put(path: Path, block: str) -> None:
    """Write the block at the end of a machine's file, replacing the existing one, which must be the last key."""
    text = path.read_text(encoding="utf-8").partition("\nfitted:")[0].rstrip("\n")
    path.write_text(f"{text}\n{block}", encoding="utf-8")
