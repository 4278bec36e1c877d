"""Experiments about models instead of cells: facts for the plan, rows for the table ``parameters``.

The plan contains the architectures and a paper's printed values, so the report of an archive needs no configuration.
All counts come from :mod:`moebench.cost.params`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from moebench.columns import Row
from moebench.config import Architecture, Config, Experiment
from moebench.cost import params
from moebench.formats.plan import Plan

COMPONENTS = tuple(f.name for f in fields(params.Parameters))


def facts(config: Config, experiment: Experiment) -> Row:
    """The plan's facts about an experiment's models: ``models`` and ``printed`` (None: no paper to compare with).

    Raises ConfigError for an unknown model or paper.
    """
    path = str(config.folder / "experiments" / f"{experiment.name}.yaml")
    keep = {"name", "title", "architecture", "published", "reference"}
    models = [config.model(name, path).model_dump(include=keep) for name in experiment.models]
    if experiment.printed_in is None:
        return {"models": models, "printed": None}
    paper = config.paper(experiment.printed_in, path)
    for row in paper.architectures.rows if paper.architectures else ():
        config.model(row.model, str(config.folder / "papers" / f"{paper.name}.yaml"))
    return {"models": models, "printed": paper.model_dump()}


def rows(plan: Plan) -> Iterator[Row]:
    """One row per experiment, model, kind of layer and component that has parameters."""
    for name, experiment in plan["experiments"].items():
        for model in experiment.get("models") or ():
            about = {"study": plan["study"], "experiment": name, "model": model["name"], "model_title": model["title"]}
            for row in of_model(Architecture.model_validate(model["architecture"])):
                yield about | row


def of_model(architecture: Architecture) -> Iterator[Row]:
    """Parameters of a model by kind of layer and component, per layer and in all of them."""
    stored = params.total_parameters(architecture).total
    read = params.active_parameters(architecture).total
    for layers in params.by_layer(architecture):
        inside = layers.kind != "outside"
        for component in COMPONENTS:
            total, active = getattr(layers.total, component), getattr(layers.active, component)
            if not total:
                continue
            yield {
                "layer_kind": layers.kind,
                "component": component,
                "layers": layers.count if inside else None,
                "layer_total_parameters": total if inside else None,
                "layer_active_parameters": active if inside else None,
                "total_parameters": layers.count * total,
                "active_parameters": layers.count * active,
                "total_share": layers.count * total / stored,
                "active_share": layers.count * active / read,
            }
