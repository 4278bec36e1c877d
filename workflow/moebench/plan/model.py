"""A model as one engine configuration loads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moebench.config import Architecture, ModelSpec
from moebench.config.identity import stated


@dataclass(frozen=True)
class Model:
    """A model as one engine configuration loads it."""

    spec: ModelSpec
    architecture: dict[str, Any]
    weights: str
    revision: str
    path: str
    source: str
    models: str
    """The folder of all models."""
    stem: str
    """The path's readable last part, without the revision."""
    derived: dict[str, Any] | None = None
    """How it is made from another: ``by``, ``settings`` and the ``parent`` as JSON; None for a staged model."""

    def as_json(self) -> dict[str, Any]:
        """The model as a plan and a record hold it."""
        return {
            "name": self.spec.name,
            "title": self.spec.title,
            "path": self.path,
            "source": self.source,
            "revision": self.revision,
            "weights": self.weights,
            "seed": self.spec.source.random_init.seed if self.spec.source.random_init else None,
            "architecture": self.architecture,
            "derived": self.derived,
        }

    def identity(self) -> dict[str, Any]:
        """What can change a number: the folder is where the weights lie, not what they are.

        How a derived model is made is in its revision.
        """
        facts = {k: v for k, v in self.as_json().items() if k not in ("path", "title", "derived")}
        return facts | {"architecture": stated(Architecture, self.architecture)}
