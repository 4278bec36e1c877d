"""Figures: a few general renderers driven by the ``figures`` of the experiment files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pandas as pd

from moebench.errors import ConfigError, StorageError, UserError
from moebench.figures import data, export, residuals, style
from moebench.figures.kinds import KINDS, PlacedFigure, Predictions, Source
from moebench.figures.placing import placed as placed
from moebench.figures.placing import plots as plots
from moebench.formats.plan import Plan
from moebench.tables import gather, join, machines, parquet
from moebench.tables.accuracy import planned as planned_answers


def render_all(
    plan: Plan,
    tables_dir: Path,
    out_dir: Path,
    say: Callable[[str], None] = lambda step: None,
    computed: bool | None = None,
) -> list[Path]:
    """Draw the figures of every experiment, and that of model against measurement, several at a time; see
    :func:`render`.  ``say`` gets the progress.  ``computed=False``: without those of :func:`render_computed`.
    """
    parts: list[str | None] = [*plan["experiments"], *([None] if machines.compared(plan) else [])]
    if len(parts) <= FEW or (os.cpu_count() or 1) < 2:
        cells = join.with_status(tables_dir)
        return _counted((_part(plan, tables_dir, out_dir, part, cells, computed) for part in parts), len(parts), say)
    # spawn, not fork: pyarrow's threads do not survive a fork.
    context, workers = multiprocessing.get_context("spawn"), min(WORKERS, os.cpu_count() or 1)
    with _in_a_file(plan) as plan_file:
        try:
            with ProcessPoolExecutor(workers, context, _start, (plan_file, tables_dir, out_dir, computed)) as pool:
                return _counted(pool.map(_given_part, parts), len(parts), say)
        except BrokenProcessPool:
            raise UserError("a process that draws figures was killed (out of memory?); run again") from None


def _counted(made: Iterable[list[Path]], total: int, say: Callable[[str], None]) -> list[Path]:
    """The created files; reports how many experiments are drawn."""
    found: list[Path] = []
    say(f"figures of 0 of {total} experiments")
    for number, paths in enumerate(made, start=1):
        found += paths
        say(f"figures of {number} of {total} experiments")
    return found


@contextlib.contextmanager
def _in_a_file(plan: Plan) -> Iterator[str]:
    """The plan in a temporary file.  It is more than a pipe holds: a process that dies at its start would leave the one
    that sends it waiting.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".json"))
            json.dump(plan, file)
            file.flush()
        except OSError as error:
            place = tempfile.gettempdir()
            raise StorageError(f"{place}: cannot be written ({error.strerror}); free space, run again") from None
        yield file.name


WORKERS = 4
FEW = 8
"""So many experiments are drawn sooner than processes for them have started."""
_given: list[Any] = []
"""What a process that draws was started with: plan, folders of tables and figures, and which figures."""
_cells = functools.cache(join.with_status)
"""The rows of all cells, read once by each process that draws."""


def _start(plan_file: str, tables_dir: Path, out_dir: Path, computed: bool | None) -> None:
    gc.set_threshold(100_000, 20, 100)  # figures are many small objects; by default a twentieth of the time
    _given.extend((json.loads(Path(plan_file).read_text(encoding="utf-8")), tables_dir, out_dir, computed))


def _given_part(experiment: str | None) -> list[Path]:
    plan, tables_dir, out_dir, computed = _given
    return _part(plan, tables_dir, out_dir, experiment, _cells(tables_dir), computed)


def _part(
    plan: Plan, tables_dir: Path, out_dir: Path, experiment: str | None, cells: pd.DataFrame, computed: bool | None
) -> list[Path]:
    """The figures of an experiment; None: that of model against measurement."""
    if experiment is not None:
        return render(plan, tables_dir, out_dir, experiment, cells, computed)
    frame = residuals.of_plan(plan, tables_dir)
    with style.drawing(style.PHONE):
        export.narrow(residuals.figure(plan, frame), out_dir, residuals.PLOT.id)
    with style.drawing():
        return export.save(residuals.figure(plan, frame), residuals.table(frame), out_dir, residuals.PLOT.id)


def render(
    plan: Plan,
    tables_dir: Path,
    out_dir: Path,
    experiment_name: str,
    cells: pd.DataFrame | None = None,
    computed: bool | None = None,
) -> list[Path]:
    """Draw the figures of an experiment into ``out_dir`` as SVG and CSV; return the files.  Those for small
    screens go into its folder ``narrow``; predictions are in an appendix and have none.  ``cells``: the rows of
    ``tables_dir`` (see ``join.with_status``), if they are read already.  ``computed``: see ``placing.placed``.

    Raises ConfigError for a figure that the experiment's rows cannot be placed on, StorageError for missing tables or
    files that cannot be written.
    """
    cells = join.with_status(tables_dir) if cells is None else cells
    source = Source(plan, experiment_name, data.of_experiment(plan, cells, experiment_name), tables_dir)
    return _draw(placed(source, computed), out_dir)


def render_computed(plan: Plan, out_dir: Path) -> list[Path]:
    """Draw the figures that need no measurement, from the plan alone; see :func:`render`."""
    made = gather.computed_tables(plan)
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, table in made.items():
                parquet.write(Path(folder), name, table)
        except OSError as error:
            raise StorageError(
                f"{folder}: cannot be written ({error.strerror or error}); free space, run again"
            ) from None
        sources = [dataclasses.replace(source, tables=Path(folder)) for source in _planned(plan)]
        return [path for source in sources for path in _draw(placed(source, computed=True), out_dir)]


def _draw(figures: Iterable[PlacedFigure], out_dir: Path) -> list[Path]:
    paths = []
    for figure in figures:
        with style.drawing():
            paths += export.save(figure.figure(), figure.table(), out_dir, figure.plot.id)
        if not isinstance(figure, Predictions):
            with style.drawing(style.PHONE):
                export.narrow(figure.figure(), out_dir, figure.plot.id)
    return paths


def check(plan: Plan, folder: Path | None = None) -> None:
    """Place the figures of every experiment without any measurement.  ``folder``: the configuration, for errors.

    Raises ConfigError for a figure that cannot be drawn or two of one name, so that a plan can be refused before hours
    of measuring.
    """
    drawn: dict[str, str] = {}
    for source in _planned(plan, folder):
        name = source.experiment
        for plot in plots(plan, name):
            if plot.id in drawn:
                raise ConfigError(f"{source.where}: figure {plot.id} is in {drawn[plot.id]} too; ids are file names")
            drawn[plot.id] = name
        for _ in placed(source):
            pass


def cannot_draw(plan: Plan) -> list[str]:
    """Ids of the figures that the plan's rows cannot fill: those of a plan of which cells were left out."""
    found = []
    for source in _planned(plan):
        for plot in plots(plan, source.experiment):
            try:
                KINDS[plot.kind].place(plot, source, plot.id)
            except ConfigError:
                found.append(plot.id)
    return found


def _planned(plan: Plan, folder: Path | None = None) -> Iterator[Source]:
    """Each experiment that has figures with its planned rows, and the columns of measurements empty."""
    from moebench import columns
    from moebench.tables import cell_rows

    drawn = [name for name, e in plan["experiments"].items() if e.get("figures") or e.get("predicted_figures")]
    if not drawn:
        return
    frame: pd.DataFrame = cell_rows.table("plan", cell_rows.plan_rows(plan, drawn)).to_pandas()
    measured = [c.name for c in columns.of_table("measurements") if c.name not in frame]
    asked = [row for name in drawn for row in planned_answers(plan, name)]
    answers: pd.DataFrame = cell_rows.table("accuracy", asked).to_pandas()
    cells = join.plain(join.beside_speed(frame.reindex(columns=[*frame.columns, *measured]), answers))
    for name in drawn:
        yield Source(plan, name, data.of_experiment(plan, cells, name), folder=folder)
