"""A model as one engine configuration loads it."""

from __future__ import annotations

from dataclasses import dataclass

from moebench.config import Architecture, ModelSpec
from moebench.config.identity import stated
from moebench.formats import Knobs
from moebench.formats.model import ArchitectureDict, Derivation, ModelDict


@dataclass(frozen=True)
class Model:
    """A model as one engine configuration loads it."""

    spec: ModelSpec
    architecture: ArchitectureDict
    weights: str
    revision: str
    path: str
    source: str
    models: str
    """The folder of all models."""
    stem: str
    """The path's readable last part, without the revision."""
    derived: Derivation | None = None
    """How it is derived from another; None for a staged model."""

    def as_json(self) -> ModelDict:
        """The model as stored in plans and records."""
        made: ModelDict = {
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
        return made | {"trust_remote_code": True} if self.spec.trust_remote_code else made

    def identity(self) -> Knobs:
        """Properties that can affect results.  The folder is only the location of the weights; the recipe of a derived
        model and the windows of its layers are part of its revision.
        """
        facts = {k: v for k, v in self.as_json().items() if k not in ("path", "title", "derived")}
        architecture = stated(Architecture, self.architecture)
        architecture.pop("spelling", None)
        architecture["attention"] = {k: v for k, v in architecture["attention"].items() if "window" not in k}
        return facts | {"architecture": architecture}
