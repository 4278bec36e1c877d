"""Grid points that cannot run: rows of the plan with the reason, which nothing measures.

They have ids of their own, so that tables and figures treat them as cells; the plan's engine configurations, cells and
jobs know nothing of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from moebench.config import Engine, EngineKnobs, Hardware
from moebench.config.identity import canonical, digest
from moebench.errors import ConfigError, Misfit, Unsupported
from moebench.formats.plan import EngineKnobsDict, ExperimentPlan, Plan, Runtime
from moebench.plan import engine_choice
from moebench.plan.model import Model
from moebench.plan.names import engine_slug

T = TypeVar("T")


def engine_id(knobs: EngineKnobs, model: Model, engine: Engine, hardware: Hardware) -> str:
    """An id for an engine configuration that cannot be loaded.  ``model``: the staged one."""
    identity = {
        "unsupported": knobs.model_dump(exclude_defaults=True, exclude={"engine_name"}),
        "hardware": hardware.name,
        "engine": engine_choice.identity(engine, model.spec.name, 1),
        "model": model.identity(),
    }
    return f"{engine_slug(knobs, None)}-{digest(identity)}"


def asked(knobs: EngineKnobs, model: Model, called: str, engine: Engine) -> tuple[Runtime, EngineKnobsDict]:
    """What was to run it and with which knobs, as an engine configuration of the plan holds them."""
    config: EngineKnobsDict = knobs.resolved() | {"weights": model.weights, "top_k": None, "engine_name": called}  # type: ignore[assignment]
    return engine_choice.as_json(called, engine, model.spec.name), config


def settle(refused: Iterable[tuple[int, Unsupported, T]], possible: set[int], path: str) -> Iterator[T]:
    """The rows of points that cannot be, each with the block it is of and why; ``possible``: blocks that have others.

    Raises ConfigError for a misfit in a block in which no point can be: that is a mistake, not a point of a sweep.
    """
    for block, why, row in refused:
        if isinstance(why, Misfit) and block not in possible:
            raise ConfigError(f"{path}: {why}")
        yield row


def reasons(experiment: ExperimentPlan) -> dict[str, int]:
    """Why points of an experiment's grids cannot be, and how many for each reason; speed and all tasks are one."""
    points = {
        (row["engine"], canonical(row["labels"])): row["reason"]
        for row in (*experiment.get("unsupported_accuracy", ()), *experiment.get("unsupported", ()))
    }
    return dict(Counter(points.values()))


def count(plan: Plan) -> int:
    """Distinct points of speed that cannot run."""
    return len({(r["engine"], r["cell"]) for e in plan["experiments"].values() for r in e.get("unsupported", ())})
