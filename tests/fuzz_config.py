"""Configuration files, one value of one of them changed at random: what a typing error, or malice, makes of them.

    python tests/fuzz_config.py [FIRST_SEED] [COUNT]

A seed always makes the same change.  Each change is either planned or refused in one line that names the file.  The
other way, ``allowed``, has hypothesis put values that the file's schema allows, which an editor would accept.
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
from hypothesis import strategies as st

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


def values(schema: Any, root: Any) -> st.SearchStrategy[Any]:
    """What a schema allows: of numbers the usual and the extreme, of texts also those that are no name and no path."""
    return st.deferred(lambda: st.one_of([_values(one, root) for one in meant(schema, root)]))


def _values(schema: Any, root: Any) -> st.SearchStrategy[Any]:
    kind = schema.get("type")
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if kind in ("integer", "number"):
        bounds = {"min_value": schema.get("minimum", schema.get("exclusiveMinimum")),
                  "max_value": schema.get("maximum", schema.get("exclusiveMaximum"))}  # fmt: skip
        if kind == "integer":
            bounds["min_value"] = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
            return st.integers(**bounds)
        return st.floats(**bounds, exclude_min="exclusiveMinimum" in schema, exclude_max="exclusiveMaximum" in schema)
    if kind == "string":
        texts = st.sampled_from([value for value in VALUES if isinstance(value, str)]) | st.text()
        return st.from_regex(schema["pattern"]) if "pattern" in schema else texts
    if kind == "array":
        inner = schema.get("items", {"type": "string"})
        return st.lists(values(inner, root), min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 4))
    if kind == "object":
        given, needed = schema.get("properties", {}), schema.get("required", [])
        inner = {name: values(part, root) for name, part in given.items()}
        free = schema.get("additionalProperties")
        if not given and isinstance(free, dict):
            return st.dictionaries(st.text(max_size=9), values(free, root), max_size=3)
        optional = {name: part for name, part in inner.items() if name not in needed}
        return st.fixed_dictionaries({name: inner[name] for name in needed}, optional=optional)
    return st.none() if kind == "null" else st.booleans()


@st.composite
def allowed(draw: st.DrawFn, given: dict[Path, Any]) -> tuple[Path, Any, str]:
    """A file of those given by their contents, its contents with one value that its schema allows, and the change."""
    path = draw(st.sampled_from(sorted(given)))
    tree, schema = copy.deepcopy(given[path]), SCHEMAS[path.parent.name]
    known = [(place, found) for place in places(tree)[1:] if (found := at(place, meant(schema, schema), schema))]
    place, found = draw(st.sampled_from(known))
    value = draw(st.one_of([values(one, schema) for one in found]))
    holder = tree
    for part in place[:-1]:
        holder = holder[part]
    old, holder[place[-1]] = holder[place[-1]], value
    return path, tree, f"{place}: {old!r} -> {value!r}"[:300]


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value in a parsed YAML file, the whole of it among them."""
    found = [at]
    if isinstance(tree, dict):
        return found + [place for key, value in tree.items() for place in places(value, (*at, key))]
    if isinstance(tree, list):
        return found + [place for n, value in enumerate(tree) for place in places(value, (*at, n))]
    return found


def mutated(tree: Any, dice: random.Random) -> tuple[Any, str]:
    """A copy with one change, and the change in words."""
    tree = copy.deepcopy(tree)
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
    """Try the change of a seed in the configuration ``folder`` (a copy); the change, and what came of it."""
    dice = random.Random(seed)
    path = folder / dice.choice(given).relative_to(ROOT / "config")
    tree, change = mutated(yaml.safe_load(path.read_bytes()), dice)
    change = f"seed {seed}: {path.relative_to(folder)} {change}"
    return change, tried(study, folder, path, tree, change)


def tried(study: str, folder: Path, path: Path, tree: Any, change: str) -> str:
    """What comes of other contents of a file in a configuration ``folder``: ``planned``, or the line that refuses it.

    The figures of the file's experiment are checked; of another file those of one experiment, since all take long.
    Raises AssertionError for whatever no user should see.
    """
    original = path.read_bytes()
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    try:
        plan = make_plan(Config(folder), study)
        names = sorted(plan["experiments"])
        name = path.stem if path.stem in names else names[len(change) % len(names)] if names else None
        check(plan | {"experiments": {name: plan["experiments"][name]} if name else {}})
        sound(plan)
        return "planned"
    except UserError as error:
        message = str(error)
        assert "\n" not in message.strip(), f"{change}: more than a line: {message}"
        named = path.stem in message or re.search(r"[\w.-]+[.]yaml", message)  # or the file that refers to it
        assert named, f"{change}: names no file: {message}"
        return message
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
        engine = plan["engines"][cell["engine"]]
        if not engine["runtime"]["hosted"]:
            loaded(engine, cell)
    for name in (*plan["experiments"], *plan["engines"], *plan["jobs"]):
        assert IDS.fullmatch(name) and ".." not in name, name


def loaded(engine: Any, cell: Any) -> None:
    """Assert what vLLM checks of a shape before it loads a model and when it takes a request, in this test's words."""
    config, work, shape = engine["config"], cell["workload"], engine["model"]["architecture"]
    heads, kv_heads, tp = shape["attention"]["heads"], shape["attention"]["kv_heads"], config["tp"]
    key = f"{engine['id']}/{cell['cell']}"
    assert heads % tp == 0 and (kv_heads % tp == 0 or tp % kv_heads == 0 or shape["attention"]["kind"] == "mla"), key
    assert config["pp"] <= shape["layers"], key
    assert engine["gpus"] == tp * config["pp"] * config["dp"], key
    if experts := shape["experts"]:
        assert 1 <= (work["top_k"] or 1) <= experts["count"], key
        assert config["ep"] or experts["ffn_size"] % tp == 0, key
    assert work["input_tokens"] + work["output_tokens"] <= config["max_model_len"] <= shape["max_positions"], key
    if not work["requests"]:  # of a load, the server keeps the rest waiting
        assert work["batch"] <= config["max_num_seqs"] <= config["max_num_batched_tokens"], key


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
