"""The report: one self-contained HTML page about a study, built from its plan, tables and figures."""

from __future__ import annotations

import dataclasses
import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import pandas as pd
import pyarrow as pa

import moebench
from moebench import columns
from moebench.config import Plot
from moebench.errors import StorageError
from moebench.figures import caption, placed, plots, predictions
from moebench.figures.kinds import PlacedFigure, Predictions, Source
from moebench.formats.plan import Plan
from moebench.plan import unsupported
from moebench.plan.file import read_plan
from moebench.report import (
    architectures,
    captions,
    cells,
    claims,
    content,
    groups,
    machines,
    reproduced,
    residuals,
    scripts,
    summary,
    svg,
)
from moebench.report.accuracy import tables as answered
from moebench.storage.atomic import write_atomic
from moebench.tables import join, parquet, stats
from moebench.tables.cell_rows import NOT_MEASURED

_HERE = Path(__file__).parent
_STYLES = "/* styles of the drawings */"
"""Placeholder in the template; the styles are known once everything is drawn."""


def build(plan_path: Path, tables_dir: Path, figures_dir: Path, out: Path, *, results: Path | None = None) -> Path:
    """Write the report of a study to the file ``out`` and return it; write the captions of its figures to ``captions``
    beside it.

    The page has no external links; it names records, figures and tables by their path in the project's folder.
    ``results`` is the folder above the tables' (default: two above ``tables_dir``).  The same inputs give the
    same bytes.  Raises ConfigError without a plan, StorageError
    without tables or figures, or if the page cannot be written.
    """
    plan = read_plan(plan_path)
    results = results or Path(os.path.abspath(tables_dir)).parents[1]
    by_study = plan_path.with_name(f"{plan['study']}.json")  # its name in an archive too, which has one plan
    links = {
        "records": _relative(results / "cells", out),
        "figures": _relative(figures_dir, out),
        "tables": _relative(tables_dir, out),
        "plan": _relative(by_study if by_study.exists() else plan_path, out),
    }
    page, captioned = render(plan, tables_dir, figures_dir, links)
    captions.write(captioned, out.parent / "captions")
    write_atomic(out, page.encode("utf-8"))
    return out


def _relative(path: Path, page: Path) -> str:
    # abspath, not resolve: links follow the visible layout, not the targets of symbolic links.
    return Path(os.path.relpath(os.path.abspath(path), Path(os.path.abspath(page)).parent)).as_posix()


def render(
    plan: Plan, tables_dir: Path, figures_dir: Path, links: dict[str, str]
) -> tuple[str, list[tuple[Plot, str]]]:
    """The page as text, and the caption of every figure."""
    frame, measured = join.with_status(tables_dir), parquet.read(tables_dir, "measurements")
    failed, counted = parquet.read(tables_dir, "failures"), parquet.read(tables_dir, "parameters")
    claimed, answers = parquet.read(tables_dir, "claims"), join.plain(parquet.read(tables_dir, "accuracy"))
    _refuse_other_plan(plan, frame, counted, tables_dir)
    experiments = [
        _experiment(plan, frame, counted, name, tables_dir, figures_dir, links) for name in plan["experiments"]
    ]
    for experiment in experiments:
        experiment["claims"] = claims.of_experiment(claimed, experiment["claims"])
        experiment["accuracy"] = answered(plan, answers, experiment["name"])
    compared = residuals.section(plan, tables_dir, figures_dir, links["figures"])
    figures = [f for experiment in experiments for f in (*experiment["figures"], *experiment["predicted"])]
    figures += [compared["figure"]] if compared and compared["figure"] else []
    captioned = [(figure.plot, figure.caption) for figure in figures]
    if compared and not compared["figure"]:  # drawn, but empty: not on the page
        captioned.append((residuals.PLOT, compared["words"]))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shown_path"] = _shown_path
    ran = frame.merge(measured[["engine", "cell"]]) if len(measured) else frame
    counted_cells, total = content.counts(frame), len(plan["cells"]) + unsupported.count(plan)
    derived, imported = content.derived(parquet.read(tables_dir, "derived")), machines.section(plan, tables_dir)
    titles = {key: engine["model"]["title"] for key, engine in plan["engines"].items()}
    repeats = sorted(set(measured["n_repeats"].dropna().astype(int)) - {0})
    data = cells.payload(
        plan,
        frame,
        tables_dir,
        figures,
        _shown_path(links["records"]).removesuffix("/cells"),
    ) | {"index": _index(figures, claimed)}
    grouped, caused = groups.groups(experiments), content.causes(content.failures(failed, titles, links["records"]))
    predicted = [figure for experiment in experiments for figure in experiment["predicted"]]
    text = environment.get_template("page.html.j2").render(
        plan=plan,
        links=links,
        tables=columns.TABLES,
        engine=caption.engine(plan, measured[measured["engine_name"] == plan["engine"]["name"]]),
        caveat=caption.caveat(plan, ran),
        what=caption.what(plan, ran),
        wrong=caption.WRONG_TOKENS if caption.tokens_are_wrong(plan, pd.concat([frame, answers])) else "",
        counts=counted_cells,
        total=total,
        cards=summary.cards(measured, counted_cells, total, claimed, compared is not None),
        findings=summary.findings(plan, claimed),
        tried=summary.tried(claimed),
        experiments=experiments,
        residuals=compared,
        machines=imported,
        refused=residuals.refused(measured),
        claims=claims.papers(claimed),
        claimed=claimed["claim"].nunique(),
        predicted_on=", ".join(claimed["predicted_on"].dropna().unique()),
        failures=caused,
        groups=grouped,
        contents=_contents(grouped, compared, derived, imported, predicted),
        predicted_figures=predicted,
        cells_data=cells.script(data),
        repeated=content.repeats(parquet.read(tables_dir, "samples")),
        plot=scripts.plot(),
        script=scripts.page(),
        not_run=_not_run(frame),
        metrics=columns.METRICS,
        columns=columns.COLUMNS,
        bars=caption.interval(measured["n_repeats"].dropna()),
        repeats=[(n, f"{stats.coverage_of_range(n):.0%}") for n in repeats if 1 < n <= 5],
        predicted=bool(frame["predicted_e2e_s"].notna().any()),
        unstable_cv=f"{stats.UNSTABLE_CV:.0%}",
        provenance=content.provenance(measured),
        weights=content.weights(measured),
        derived=derived,
        made_with=_made_with(),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        font=svg.font(svg.characters([figure.svg for figure in figures])) if figures else "",
    )
    text, styles = svg.with_shared_styles(text)
    text = text.replace(_STYLES, styles, 1)
    return re.sub(r"[ \t]+\n", "\n", re.sub(r"\n{3,}", "\n\n", text)), captioned


def _shown_path(link: str) -> str:
    """A path relative to the page as one relative to the project's folder; reports are two levels below it."""
    return re.sub(r"^(\.\./)+", "", link)


def _index(figures: list[content.Figure], claimed: pd.DataFrame) -> list[tuple[str, str]]:
    """Search entries in addition to the table of contents: text and anchor."""
    drawn = [(f"Figure {figure.plot.number}. {figure.plot.title}", figure.plot.id) for figure in figures]
    named = claimed.drop_duplicates("claim")
    return drawn + [(f"{c}: {s}", f"claim-{c}") for c, s in zip(named["claim"], named["statement"], strict=True)]


def _contents(
    grouped: list[groups.Group], compared: Any, derived: Any, imported: Any, predicted: Any
) -> list[tuple[str, str, list[groups.Experiment]]]:
    """The table of contents: anchor and title of each section, and its experiments."""
    sections: list[tuple[str, str, list[groups.Experiment]]] = [
        ("summary", "Findings", []),
        ("explore", "Explore", []),
        ("cells", "All cells", []),
    ]
    sections += [group for group in grouped if group[2]]
    for anchor, title, there in (
        ("residuals-section", "Model against measurement", compared),
        ("claims", "Claims of the papers", True),
        ("failures", "Failures", True),
        ("not-run", "What was not run", True),
        ("derived", "Derived checkpoints", derived),
        ("imported", "Imported machines", imported),
        ("metrics", "Methods", True),
        ("provenance", "Provenance", True),
        ("predictions", "Predictions", predicted),
    ):
        if there:
            sections.append((anchor, title, []))
    return sections


def _refuse_other_plan(plan: Plan, frame: pd.DataFrame, counted: pd.DataFrame, folder: Path) -> None:
    """Refuse tables of an older plan, which would show numbers under the wrong questions."""
    asked = {
        (name, row["engine"], row["cell"])
        for name, e in plan["experiments"].items()
        for row in (*e["rows"], *e.get("unsupported", ()))
    }
    models = {(name, m["name"]) for name, e in plan["experiments"].items() for m in e.get("models") or ()}
    there = set(zip(frame["experiment"], frame["engine"], frame["cell"], strict=True))
    if asked != there or models != set(zip(counted["experiment"], counted["model"], strict=True)):
        raise StorageError(
            f"{folder}: the tables belong to another plan than {plan['study']}'s; `moebench report --partial` "
            f"rebuilds them"
        )


def _experiment(
    plan: Plan,
    frame: pd.DataFrame,
    counted: pd.DataFrame,
    name: str,
    tables_dir: Path,
    figures_dir: Path,
    links: dict[str, str],
) -> dict[str, Any]:
    rows = frame[frame["experiment"] == name].reset_index(drop=True)
    mine = counted[counted["experiment"] == name].reset_index(drop=True)
    asked, shown = plan["experiments"][name], plots(plan, name)
    made: dict[bool, list[content.Figure]] = {False: [], True: []}
    for figure in placed(Source(plan, name, rows, tables_dir)):
        made[isinstance(figure, Predictions)].append(_drawn(figure, figures_dir, links["figures"]))
    loaded = {engine["model"]["name"] for engine in plan["engines"].values()}
    return {
        "name": name,
        "title": asked["title"],
        "question": asked["question"],
        "paper": asked.get("paper") or "",
        "assumptions": asked.get("assumptions") or [],
        "claims": asked.get("claims") or [],
        "figures": made[False],
        "predicted": made[True],
        "numbers": [plot.number for plot in shown],
        "drawn_as": _drawn_as([plot.number for plot in shown]),
        "cells": content.cell_table(rows, shown) if len(rows) else None,
        "counts": content.counts(rows),
        "state": summary.state(rows),
        "architectures": architectures.table(asked),
        "layers": architectures.by_layer(mine),
        "reproduced": reproduced.tables(asked),
        "printed": asked.get("printed"),
        "assumed": reproduced.assumed(asked),
        "agreement": reproduced.SOURCES,
        "computed": bool(asked.get("computed")),
        "elsewhere": bool(loaded) and not loaded & set(mine["model"]),
    }


def _drawn_as(numbers: list[str]) -> str:
    """``Figures 4, 4b``; numbers with a comma are separated by semicolons."""
    between = "; " if any("," in number for number in numbers) else ", "
    return f"Figure{'s' * (len(numbers) > 1)} {between.join(numbers)}"


def _drawn(figure: PlacedFigure, figures_dir: Path, href: str) -> content.Figure:
    made = content.drawn(
        figure.plot, figure.caption(), figure.alt_text(), figures_dir, href, figure.cells(), figure.tells()
    )
    if isinstance(figure, Predictions) and figure.is_small:
        made = dataclasses.replace(made, numbers=predictions.as_table(figure.placed))
    return made


def _not_run(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Experiments with cells that have no record: their number, the total, and the cells."""
    found = []
    for name, rows in frame.groupby("experiment", sort=False):
        cells = rows.drop_duplicates(["engine", "cell"])
        missing = cells[cells["status"] == NOT_MEASURED]
        if len(missing):
            names = (missing["engine"] + "/" + missing["cell"]).tolist()
            shown = names[: content.MOST_ROWS]
            found.append({"name": name, "of": len(cells), "count": len(names), "cells": shown})
    return found


def _made_with() -> str:
    versions = {
        "moebench": moebench.__version__,
        "matplotlib": mpl.__version__,
        "seaborn": metadata.version("seaborn"),
        "pandas": pd.__version__,
        "pyarrow": pa.__version__,
    }
    return ", ".join(f"{name} {version}" for name, version in versions.items())
