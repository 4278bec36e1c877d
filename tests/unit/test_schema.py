"""The JSON schemas that editors read: self-contained, and every file of the project fits its own."""

import functools
import json
import re
from pathlib import Path

import jsonschema
import pytest

from moebench.commands import schema
from moebench.config import read_yaml
from moebench.errors import ConfigError
from studies import ROOT, folder

CONFIG = ROOT / "config"
FILES = schema.files(CONFIG)


@functools.cache
def validator(path: Path) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIG)))
def test_a_file_fits_the_schema_that_it_names(path):
    named = path.read_text().split("\n")[0].removeprefix(schema.MODELINE)
    rules = (path.parent / named).resolve()
    assert rules == CONFIG / "schemas" / f"{FILES[path]}.json"
    validator(rules).validate(json.loads(json.dumps(read_yaml(path))))


def test_every_yaml_file_has_a_schema():
    assert set(FILES) == set(CONFIG.rglob("*.yaml")) - {CONFIG / "models.lock.yaml"}
    assert set(FILES.values()) == set(schema.KINDS)


@pytest.mark.parametrize("kind", schema.KINDS)
def test_a_schema_refuses_what_the_project_refuses(kind):
    rules = json.loads(schema.json_schema(kind))
    jsonschema.Draft202012Validator.check_schema(rules)
    assert set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(rules))) <= set(rules.get("$defs", {}))
    assert json.dumps(rules).count('"$ref": "#/$defs/') == json.dumps(rules).count('"$ref"')
    check = jsonschema.Draft202012Validator(rules)
    found = {error.validator for error in check.iter_errors({"no_such_key": 1})}
    assert found == ({"additionalProperties"} if kind == "config" else {"additionalProperties", "required"})


def test_only_what_differs_is_written(tmp_path):
    config = folder(tmp_path, {"x": [{"fix": {"model": "tiny-mixtral"}}]})
    (config / "README.md").write_text("nothing generated")
    before = (config / "config.yaml").read_text()
    stale = schema.update(config, check=True)
    assert config / "config.yaml" in stale and (config / "config.yaml").read_text() == before
    assert schema.update(config) == stale and schema.update(config) == []
    assert (config / "config.yaml").read_text() == f"{schema.MODELINE}schemas/config.json\n{before}"


@pytest.mark.parametrize(("old", "new"), [("title: X", "title: X: Y"), ("title: X", "titel: X")])
def test_a_wrong_file_that_no_study_uses_is_found(tmp_path, old, new):
    config = folder(tmp_path, {"x": [{"fix": {"model": "tiny-mixtral"}}]})
    (config / "README.md").write_text("")
    schema.update(config)
    file = config / "experiments" / "unused.yaml"
    file.write_text((config / "experiments" / "x.yaml").read_text().replace("name: x", "name: unused"))
    assert schema.update(config, check=True) == []
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=r"unused\.yaml"):
        schema.update(config, check=True)


@pytest.mark.parametrize(("kind", "where"), [("studies", ["defaults"]), ("experiments", ["grid", "tiny", 0, "fix"])])
def test_a_misspelt_or_mistyped_knob_is_marked(kind, where):
    (path,) = (path for path in FILES if path.match(f"{kind}/tiny.yaml") or path.match(f"{kind}/fig05-topk-batch.yaml"))
    check = jsonschema.Draft202012Validator(json.loads(schema.json_schema(kind)))
    for wrong, validator in [({"max_model_lenn": 8}, "additionalProperties"), ({"max_model_len": "long"}, "type")]:
        data = json.loads(json.dumps(read_yaml(path)))
        knobs = data
        for key in where:
            knobs = knobs[key]
        knobs |= wrong
        (error,) = check.iter_errors(data)
        assert list(error.absolute_path)[: len(where)] == where
        assert validator in {error.validator, *(part.validator for part in error.context)}
