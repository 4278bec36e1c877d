"""The JSON schemas that editors read: self-contained, and every file of the project fits its own."""

import json

import jsonschema
import pytest

from moebench import schema
from moebench.config import read_yaml
from studies import ROOT, folder

CONFIG = ROOT / "config"
FILES = schema.files(CONFIG)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIG)))
def test_a_file_fits_the_schema_that_it_names(path):
    named = path.read_text().split("\n")[0].removeprefix(schema.MODELINE)
    assert (path.parent / named).resolve() == CONFIG / "schemas" / f"{FILES[path]}.json"
    rules = json.loads((path.parent / named).read_text())
    jsonschema.Draft202012Validator(rules).validate(json.loads(json.dumps(read_yaml(path))))


def test_every_yaml_file_has_a_schema():
    assert set(FILES) == set(CONFIG.rglob("*.yaml")) - {CONFIG / "models.lock.yaml"}
    assert set(FILES.values()) == set(schema.KINDS)


@pytest.mark.parametrize("kind", schema.KINDS)
def test_a_schema_refuses_what_the_project_refuses(kind):
    rules = json.loads(schema.json_schema(kind))
    jsonschema.Draft202012Validator.check_schema(rules)
    check = jsonschema.Draft202012Validator(rules)  # a reference that does not resolve would raise here
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
