"""Experiments that compute points of the cost model: facts for the plan, rows for the table ``computed``.

The plan carries architectures, machines and what a paper prints, so that the report of an archive needs no
configuration.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from moebench.columns import Row
from moebench.config import Architecture, ComputedKnobs, Config, Experiment, Hardware, parse
from moebench.config.grid import points
from moebench.config.identity import canonical
from moebench.errors import ConfigError
from moebench.formats import Knobs
from moebench.formats.plan import Computed, ExperimentPlan, Plan, Point
from moebench.qs import inequality, paper_tables, versus_dense


def facts(config: Config, experiment: Experiment) -> Knobs:
    """The plan's facts about computed points and reproduced tables; empty if an experiment has neither.

    Raises ConfigError for an unknown knob, model or machine, a model without experts, a layout of another size.
    """
    path = str(config.folder / "experiments" / f"{experiment.name}.yaml")
    paper = config.paper(experiment.printed_in, path) if experiment.printed_in else None
    if paper:
        paper_tables.check(paper, str(config.folder / "papers" / f"{paper.name}.yaml"))
    wanted = {r.model for n in (paper.numbers if paper else ()) for r in n.rows if r.model}
    machines = {paper.assumed.hardware} if paper and paper.assumed else set()
    made: list[Point] = []
    for row in points(experiment.computed, f"{path}: computed", ComputedKnobs.model_fields):
        point = parse(ComputedKnobs, row.settings, f"{path}: computed")
        architecture = config.model(point.model, path).architecture
        try:
            versus_dense.given_layout(architecture, point)
        except ValueError as error:
            raise ConfigError(f"{path}: computed: {error}") from None
        if architecture.experts is None:
            raise ConfigError(f"{path}: computed: {point.model} is a dense model; give one with experts")
        wanted.add(point.model)
        machines.add(point.hardware)
        known = ComputedKnobs.model_fields
        arms = [str(label) for axis, label in row.labels.items() if axis not in known and "=" not in axis]
        made.append({"settings": point.model_dump(), "variant": ", ".join(arms)})
    if not wanted:
        return {}
    keep = {"title", "architecture", "published"}
    return {
        "computed": {
            "points": made,
            "models": {name: config.model(name, path).model_dump(include=keep) for name in sorted(wanted)},
            "hardware": {name: config.hardware(name, path).model_dump() for name in sorted(machines)},
        }
    }


def rows(plan: Plan) -> Iterator[Row]:
    """A row per experiment, point and origin (``by``), then those a paper prints."""
    for name, experiment in plan["experiments"].items():
        if asked := experiment.get("computed"):
            about = {"study": plan["study"], "experiment": name}
            for point in asked["points"]:
                for row in _of_point(asked, point):
                    yield about | row
            for row in _printed(experiment):
                yield about | row


def reproduced(experiment: ExperimentPlan) -> list[paper_tables.Reproduced]:
    """The tables of numbers of the paper that an experiment of a plan names."""
    paper, asked = experiment.get("printed"), experiment.get("computed")
    if not paper or not asked or not paper["assumed"]:
        return []
    models = asked["models"]
    published = {name: known["total_parameters"] for name, m in models.items() if (known := m["published"])}
    return paper_tables.reproduce(
        paper,
        {name: m["architecture"] for name, m in models.items()},
        {name: total for name, total in published.items() if total is not None},
        asked["hardware"][paper["assumed"]["hardware"]],
    )


def _of_point(asked: Computed, point: Point) -> Iterator[Row]:
    settings = ComputedKnobs.model_validate(point["settings"])
    model, hardware = asked["models"][settings.model], asked["hardware"][settings.hardware]
    found = _compared(*map(canonical, (model["architecture"], hardware, point["settings"])))
    known = settings.model_dump() | {
        "expert_groups": settings.ep,
        "model_title": model["title"],
        "hardware_title": hardware["title"],
        "variant": point["variant"] or None,
        "qs": found.qs,
    }
    batch = settings.batch or found.moe.batch
    ratio = float(inequality.traffic_ratio(settings.quality, found.sparsity, batch, found.shared)) if batch else None
    yield known | {
        "by": "distinct",
        "break_even_batch": _finite(found.break_even_batch),
        "ffn_traffic_ratio": ratio,
        "criterion_holds": None if ratio is None else float((ratio > 1) == (found.qs < 1)),
        "batch_moe": found.moe.batch,
        "batch_dense": found.dense.batch,
        "batch_ratio": found.batch_ratio,
        "hbm_ratio": found.hbm_ratio,
        "throughput_moe": found.moe.tokens_per_s,
        "throughput_dense": found.dense.tokens_per_s,
        "speedup_dense": found.speedup,
        "layout_moe": found.moe.words,
        "layout_dense": found.dense.words,
    }
    yield known | {
        "by": "formulas",
        "break_even_batch": _finite(found.break_even_without_shared),
        "ffn_traffic_ratio": float(inequality.traffic_ratio_of_the_paper(settings.quality, found.sparsity)),
    }


@functools.cache
def _compared(architecture: str, hardware: str, settings: str) -> versus_dense.Compared:
    """A point from JSON: tables, claims and a rebuilt archive ask for the same ones."""
    return versus_dense.compare(
        Architecture.model_validate_json(architecture),
        Hardware.model_validate_json(hardware),
        ComputedKnobs.model_validate_json(settings),
    )


def _finite(batch: float) -> float | None:
    return batch if math.isfinite(batch) else None


def _printed(experiment: ExperimentPlan) -> Iterator[Row]:
    """Throughputs and batches of the paper's tables, and the results of its formulas for the printed batches."""
    computed = experiment.get("computed")
    models = computed["models"] if computed else {}
    for table in reproduced(experiment):
        for line in table.lines:
            if line.quantity != "speedup" or not line.model:
                continue
            about: Row = {
                "model": line.model,
                "model_title": models[line.model]["title"],
                "variant": table.source,
                **{k: line.given[k] for k in ("gpus", "quality", "context_tokens")},
            }
            yield about | {"by": "printed", "speedup_dense": line.value}
            yield about | {"by": "formulas", "speedup_dense": line.formulas}
