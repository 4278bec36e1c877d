"""Reading the configuration's files, with errors in one line."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from moebench.architectures.families import FAMILIES, Family, spelled
from moebench.config.base import Strict
from moebench.config.experiments import Experiment
from moebench.config.families import FamilySpec
from moebench.config.hardware import Hardware
from moebench.config.knobs import Corpus
from moebench.config.models import ALL, ModelSpec, Shape
from moebench.config.papers import Paper
from moebench.config.studies import Root, Study
from moebench.config.tasks import TaskSpec
from moebench.errors import ConfigError, nearest

T = TypeVar("T", bound=Strict)
N = TypeVar("N", "Study", "Experiment", "ModelSpec", "TaskSpec", "Hardware", "Paper", "Corpus", "Shape", "FamilySpec")


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML that also refuses a key given twice (YAML would silently keep the last)."""


def _no_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


# Scientific notation without a dot (1e9) is a float to people, and a string to YAML 1.1.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_duplicates)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.  Raises ConfigError naming file, line and cause."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        cause = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{path}{where}: not valid YAML: {cause}") from None


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Field names of the (sub)model that an error location points into, for the nearest-key hint."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None or not isinstance(part, str) or part not in current.model_fields:
            continue
        current = next(_models_in(current.model_fields[part].annotation), None)
    return list(current.model_fields) if current else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def explain(error: ValidationError, model: type[BaseModel], path: Path | str) -> ConfigError:
    """Turn pydantic's errors into one line: file, key, value, remedy (the first, and how many more)."""
    # A misspelt required key is both unknown and missing: report the misspelling.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(p) for p in first["loc"]) or "(top level)"
    if first["type"] == "extra_forbidden":
        where = f" in {key.rpartition('.')[0]}" if "." in key else ""
        text = f"unknown key {first['loc'][-1]!r}{where}" + nearest(
            str(first["loc"][-1]), _fields_at(model, first["loc"][:-1])
        )
    elif first["type"] == "missing":
        text = f"{key} is missing"
    else:
        value = repr(first["input"])
        value = value if len(value) <= 80 else value[:80] + "..."
        shown = ":" if isinstance(first["input"], (dict, BaseModel)) else f" is {value}:"
        text = f"{key}{shown} {first['msg'].removeprefix('Value error, ')}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ConfigError(f"{path}: {text}{more}")


def parse(model: type[T], data: Any, path: Path | str) -> T:
    """Validate ``data`` as ``model``.  Raises ConfigError naming ``path``."""
    if data is None and isinstance(path, Path):
        raise ConfigError(f"{path}: the file is empty; fill it or remove it")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise explain(error, model, path) from None


_ELSEWHERE = "run this in the project's folder, or give --config FOLDER"
_SINGULAR = {"studies": "study", "corpora": "corpus", "families": "family"}


class Config:
    """The configuration folder, read lazily: a misspelt file that no study uses does not stop one.

    >>> config = Config(Path("config"))
    >>> config.study("tiny").hardware
    'local-cpu'
    """

    def __init__(self, folder: Path, **instead: str | None):
        """``instead``: values that stand for those of ``config.yaml``, where they are not None."""
        self.folder = Path(folder)
        self.instead = {key: value for key, value in instead.items() if value is not None}

    def _names(self, kind: str) -> list[str]:
        return sorted(p.stem for p in (self.folder / kind).glob("*.yaml"))

    def names(self, kind: str) -> list[str]:
        """Names of the files in a folder of the configuration, e.g. ``hardware``."""
        return self._names(kind)

    def _read(self, model: type[N], kind: str, name: str, wanted_by: str) -> N:
        path = self.folder / kind / f"{name}.yaml"
        if not self.folder.is_dir():
            raise ConfigError(f"{self.folder}: no such folder; {_ELSEWHERE}")
        if not path.exists():
            raise ConfigError(
                f"{wanted_by}: unknown {_SINGULAR.get(kind, kind.removesuffix('s'))} {name!r}"
                + nearest(name, self._known(kind))
            )
        found: N = self._parsed(model, path)
        if found.name != name:
            raise ConfigError(f"{path}: name is {found.name!r}, but the file is called {name!r}; make them equal")
        return found

    @functools.cache  # noqa: B019
    def _parsed(self, model: type[N], path: Path) -> N:
        """A file, read once whoever wants it."""
        return parse(model, read_yaml(path), path)

    @functools.cache  # noqa: B019 - one Config per process
    def root(self) -> Root:
        """``config.yaml``."""
        path = self.folder / "config.yaml"
        if not path.exists():
            raise ConfigError(f"{path}: no such file; {_ELSEWHERE}")
        return parse(Root, read_yaml(path) or {}, path).model_copy(update=self.instead)

    @functools.cache  # noqa: B019
    def study(self, name: str, wanted_by: str = "--study") -> Study:
        """A study by name.  Raises ConfigError if it is unknown or wrong."""
        return self._read(Study, "studies", name, wanted_by)

    @functools.cache  # noqa: B019
    def experiment(self, name: str, wanted_by: str = "--experiment") -> Experiment:
        """An experiment by name."""
        return self._read(Experiment, "experiments", name, wanted_by)

    @functools.cache  # noqa: B019
    def model(self, name: str, wanted_by: str = "--model") -> ModelSpec:
        """A model of the registry by name.

        Raises ConfigError for a family that is not in ``families``, and for a ``variant_of`` that is not a model, too.
        """
        spec = self._read(ModelSpec, "models", name, wanted_by)
        family, full = spec.architecture.family, spec.variant_of
        path = self.folder / "models" / f"{name}.yaml"
        if full is not None and not path.with_name(f"{full}.yaml").exists():
            raise ConfigError(f"{path}: variant_of: unknown model {full!r}{nearest(full, self._names('models'))}")
        if family in FAMILIES:
            return spec
        if family not in self._names("families"):
            known = (*FAMILIES, *self._names("families"))
            raise ConfigError(f"{path}: architecture.family: unknown family {family!r}{nearest(family, known)}")
        spelling = self.family(family).spelling()
        architecture = spec.architecture.model_copy(update={"spelling": dict(spelling)})
        return spec.model_copy(update={"architecture": architecture})

    @functools.cache  # noqa: B019
    def family(self, name: str, wanted_by: str = "architecture.family") -> FamilySpec:
        """A family of config/families by name; :data:`FAMILIES` ships with the project."""
        return self._read(FamilySpec, "families", name, wanted_by)

    def families(self) -> dict[str, Family]:
        """All families by name."""
        own = {name: spelled(name, self.family(name).spelling()) for name in self._names("families")}
        return {**FAMILIES, **own}

    def group(self, word: str, small: bool) -> tuple[str, ...] | None:
        """The models that a word of a grid stands for, by name; None for the name of a model, and if there is no
        such group.

        ``all`` are those with experts; any other word is a tag.  ``small``: those that the project writes, else the
        published ones.
        """
        return None if (self.folder / "models" / f"{word}.yaml").exists() else self._groups(small).get(word)

    def _known(self, kind: str) -> list[str]:
        """Values accepted as a name of this kind: models also have groups."""
        names = self._names(kind)
        with contextlib.suppress(ConfigError):  # an error in another file is not the one to report
            names += [word for small in (False, True) for word in self._groups(small)] if kind == "models" else []
        return names

    @functools.cache  # noqa: B019
    def _groups(self, small: bool) -> dict[str, tuple[str, ...]]:
        """Every group of models, by its word."""
        found: dict[str, list[str]] = {}
        for spec in map(self.model, self._names("models")):
            full = self.model(spec.variant_of).tags if spec.variant_of else ()
            tags = {*spec.tags, *full, *([ALL] if spec.architecture.experts else ())}
            for tag in tags:
                members = found.setdefault(tag, [])
                members += [spec.name] * ((spec.source.random_init is not None) == small)
        return {tag: tuple(names) for tag, names in found.items()}

    @functools.cache  # noqa: B019
    def shapes(self) -> dict[str, Shape]:
        """The models that only times are predicted of, by name and by their other names."""
        named = [self._read(Shape, "shapes", name, "config/shapes") for name in self._names("shapes")]
        return {name: shape for shape in named for name in (shape.name, *shape.also)}

    @functools.cache  # noqa: B019
    def task(self, name: str, wanted_by: str = "--task") -> TaskSpec:
        """A task of an accuracy harness by name."""
        return self._read(TaskSpec, "tasks", name, wanted_by)

    @functools.cache  # noqa: B019
    def hardware(self, name: str, wanted_by: str = "--hardware") -> Hardware:
        """A machine type by name; one that is ``like`` another has that one's constants.

        Raises ConfigError for a ``like`` that names no machine with constants of its own, too.
        """
        found = self._read(Hardware, "hardware", name, wanted_by)
        if found.fitted is None or found.fitted.like is None:
            return found
        where = f"{self.folder / 'hardware' / name}.yaml: fitted.like"
        other = self.hardware(found.fitted.like, where)
        if other.fitted is None or other.fitted.like is not None:
            raise ConfigError(f"{where}: {other.name} has no constants of its own; name a machine that has some")
        return found.model_copy(update={"fitted": found.fitted.of(other.fitted, other.link_bytes_per_s)})

    @functools.cache  # noqa: B019
    def paper(self, name: str, wanted_by: str) -> Paper:
        """What a paper prints, by the paper's name."""
        return self._read(Paper, "papers", name, wanted_by)

    @functools.cache  # noqa: B019
    def corpus(self, name: str, wanted_by: str) -> Corpus:
        """A text that prompts are made of, by name."""
        return self._read(Corpus, "corpora", name, wanted_by)
