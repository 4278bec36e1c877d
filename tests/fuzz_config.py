"""Configuration files, one value of one of them changed at random: what a typing error, or malice, makes of them.

    python tests/fuzz_config.py [FIRST_SEED] [COUNT]

A seed always makes the same change.  Each change is either planned or refused in one line that names the file.  Every
third change puts a value in the place of another that the file's schema allows there, which an editor would accept.
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import yaml

from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.config.identity import canonical
from moebench.errors import UserError
from moebench.figures import check
from moebench.formats.plan import Plan
from studies import ROOT

FOLDERS = ("studies", "experiments", "models", "hardware", "tasks", "claims", "papers", "corpora")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 7, 10**9, 10**30, -(10**18), 0.5, -0.5, 1e-300, 1e300, math.inf, -math.inf,
    math.nan, "", " ", "x", "all", "../../../etc/passwd", "/etc/passwd", "a/b", "..", "<script>alert(1)</script>",
    "{model}", "{}", "%s", "\x00", "\u202e", "é", "a" * 300, "CON", "-rf", "$(id)", "None", "1e9", "nan",
    [], [[]], [None], [1, 1], [0], [-1], ["x", "x"], {}, {"": ""}, {"x": {"y": []}}, [{"x": 1}, 2],
)  # fmt: skip
IDS = re.compile(r"[\w.+-]+(/[\w.+-]+)*")


SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "config" / "schemas").glob("*.json")}
TEXTS = (
    "x",
    "A b",
    "a-b.c",
    "a/b",
    "1",
    "0.5",
    "name",
    "x" * 60,
    "path",
    "https://x/v1",
    "SOME_NAME",
    "hub:a/b",
    "2x2",
)


def meant(schema: Any, root: Any) -> list[Any]:
    """The alternatives of a schema, references followed."""
    if "$ref" in schema:
        return meant(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    return [one for part in schema["anyOf"] for one in meant(part, root)] if "anyOf" in schema else [schema]


def at(place: tuple[Any, ...], schemas: list[Any], root: Any) -> list[Any]:
    """The schemas of a place in a file; none where its schema says nothing."""
    for part in place:
        found = []
        for schema in schemas:
            inner = schema.get("properties", {}).get(part) or schema.get("additionalProperties")
            inner = schema.get("items") if isinstance(part, int) else inner
            found += meant(inner, root) if isinstance(inner, dict) else []
        schemas = found
    return schemas


def allowed(schema: Any, root: Any, dice: random.Random, depth: int = 0) -> Any:
    """A value that a schema allows."""
    schema = dice.choice(meant(schema, root))
    kind = schema.get("type")
    if "enum" in schema or "const" in schema:
        return dice.choice(schema.get("enum") or [schema["const"]])
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", -5) + (1 if kind == "integer" else 1e-3))
        most = schema.get("maximum", schema.get("exclusiveMaximum", 10**7))
        value = min(least + dice.choice((0, 1, 2, 3, 7, 100, 4096, 10**6)), most)
        return value if kind == "integer" else value * dice.choice((1, 1, 0.999))
    if kind == "string":
        fits = [text for text in TEXTS if re.search(schema.get("pattern", ""), text)]
        return dice.choice(fits or TEXTS)
    if kind == "array":
        inner = schema.get("items", {"type": "string"})
        number = dice.randint(schema.get("minItems", 0), max(schema.get("minItems", 0), 0 if depth > 3 else 3))
        return [allowed(inner, root, dice, depth + 1) for _ in range(number)]
    if kind == "object":
        given, needed = schema.get("properties", {}), schema.get("required", [])
        names = [name for name in given if name in needed or (depth < 3 and dice.random() < 0.3)]
        return {name: allowed(given[name], root, dice, depth + 1) for name in names}
    return None if kind == "null" else dice.choice((True, False))


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value in a parsed YAML file, the whole of it among them."""
    found = [at]
    if isinstance(tree, dict):
        return found + [place for key, value in tree.items() for place in places(value, (*at, key))]
    if isinstance(tree, list):
        return found + [place for n, value in enumerate(tree) for place in places(value, (*at, n))]
    return found


def mutated(tree: Any, dice: random.Random, schema: Any) -> tuple[Any, str]:
    """A copy with one change, and the change in words.  ``schema``: the file's."""
    tree = copy.deepcopy(tree)
    if dice.random() < 1 / 3:
        known = [(place, found) for place in places(tree)[1:] if (found := at(place, meant(schema, schema), schema))]
        place, found = dice.choice(known)
        holder = tree
        for part in place[:-1]:
            holder = holder[part]
        old, holder[place[-1]] = holder[place[-1]], allowed(dice.choice(found), schema, dice)
        return tree, f"{place}: {old!r} -> {holder[place[-1]]!r} (allowed)"[:300]
    place = dice.choice(places(tree)[1:] or [()])
    if not place:
        return dice.choice(VALUES), "the whole file"
    holder = tree
    for part in place[:-1]:
        holder = holder[part]
    last, how = place[-1], dice.choice(("replace", "replace", "replace", "remove", "rename", "scale", "swap"))
    old = holder[last]
    if how == "remove":
        del holder[last]
        return tree, f"{place} removed"
    if how == "rename" and isinstance(holder, dict):
        holder[f"{last}x"] = holder.pop(last)
        return tree, f"{place} renamed"
    if how == "scale" and isinstance(old, (int, float)) and not isinstance(old, bool):
        holder[last] = old * dice.choice((-1, 0, 2, 3, 0.5, 1000, 1_000_000))
    elif how == "swap":
        other = tree
        for part in dice.choice(places(tree)[1:]):
            other = other[part]
        holder[last] = copy.deepcopy(other)
    else:
        holder[last] = dice.choice(VALUES)
    return tree, f"{place}: {old!r} -> {holder[last]!r}"[:300]


def files(study: str) -> list[Path]:
    """Files of the configuration that this study reads."""
    config = Config(ROOT / "config")
    plan = make_plan(config, study)
    models = {e["model"]["name"] for e in plan["engines"].values()} | {"tiny-mixtral"}
    named = {study, config.study(study).hardware, *plan["experiments"], *models}
    every = [path for kind in FOLDERS for path in sorted((ROOT / "config" / kind).glob("*.yaml"))]
    return [path for path in every if path.stem in named or path.parent.name in ("tasks", "claims", "papers")]


def prepare(folder: Path) -> Path:
    """A copy of the configuration, in which the study does not plan the paper's study beside itself."""
    shutil.copytree(ROOT / "config", folder)
    study = folder / "studies" / "tiny.yaml"
    study.write_text(re.sub(r"(?m)^reference:.*\n", "", study.read_text()))
    return folder


def case(seed: int, study: str, folder: Path, given: list[Path]) -> tuple[str, str]:
    """Make the change of a seed in the configuration ``folder`` (a copy), try it, undo it; say what came of it.

    Raises AssertionError or whatever the project raised that no user should see.
    """
    dice = random.Random(seed)
    path = folder / dice.choice(given).relative_to(ROOT / "config")
    original = path.read_bytes()
    tree, change = mutated(yaml.safe_load(original), dice, SCHEMAS[path.parent.name])
    change = f"seed {seed}: {path.relative_to(folder)} {change}"
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    try:
        plan = make_plan(Config(folder), study)
        check(plan)
        sound(plan)
        return change, "planned"
    except UserError as error:
        message = str(error)
        assert "\n" not in message.strip(), f"{change}: more than a line: {message}"
        assert path.name in message or path.stem in message, f"{change}: names no file: {message}"
        return change, message
    except AssertionError:
        raise
    except Exception:
        raise AssertionError(f"{change}\n{traceback.format_exc()}") from None
    finally:
        path.write_bytes(original)


def sound(plan: Plan) -> None:
    """Assert what every plan must be: names that are paths below results/, finite numbers, no empty workload."""
    canonical(plan)  # no NaN or infinity
    for key, cell in plan["cells"].items():
        assert IDS.fullmatch(key) and ".." not in key, key
        assert min(cell["workload"]["batch"], cell["workload"]["input_tokens"], cell["workload"]["output_tokens"]) > 0
    for name in (*plan["experiments"], *plan["engines"], *plan["jobs"]):
        assert IDS.fullmatch(name) and ".." not in name, name


def main() -> None:
    """Try COUNT seeds; print each that broke something."""
    first, count = int((sys.argv[1:] or ["0"])[0]), int((sys.argv[2:] or ["200"])[0])
    with tempfile.TemporaryDirectory() as where:
        folder = prepare(Path(where) / "config")
        given = files("tiny")
        broken = planned = 0
        for seed in range(first, first + count):
            try:
                planned += case(seed, "tiny", folder, given)[1] == "planned"
            except AssertionError as error:
                broken += 1
                print(f"--- {error}\n", flush=True)
    print(f"{count} changes: {planned} planned, {count - planned - broken} refused, {broken} broke something")
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
