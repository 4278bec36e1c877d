"""Code that comes with a model runs only where its model file says so, and the record says that it did."""

from __future__ import annotations

import ast

import pytest
import yaml

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.engines import vllm_arguments
from moebench.engines.server import flags
from moebench.errors import ConfigError

CELL = {"model": "mixtral-8x7b", "input_tokens": 4, "output_tokens": 4}


def planned(where, model="mixtral-8x7b", **keys):
    """The engine configuration of a model whose file has ``keys`` in addition."""
    config = studies.folder(where, {"x": [{"fix": CELL | {"model": model, "weights": None}}]})
    file = config / "models" / f"{model}.yaml"
    text = file.read_text()
    file.unlink()  # it may be a link
    file.write_text(yaml.safe_dump(yaml.safe_load(text) | keys))
    (engine,) = make_plan(Config(config), "test")["engines"].values()
    return engine


def arguments(engine, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    engine["model"]["path"] = str(tmp_path)
    return vllm_arguments.arguments(engine)


def test_a_model_files_key_reaches_the_engine_and_the_record_and_is_identity(tmp_path):
    trusted, plain = planned(tmp_path, trust_remote_code=True), planned(tmp_path)
    assert trusted["model"]["trust_remote_code"] is True and "trust_remote_code" not in plain["model"]
    assert trusted["id"] != plain["id"] == planned(tmp_path, trust_remote_code=False)["id"]
    assert arguments(trusted, tmp_path)["trust_remote_code"] is True
    assert "--trust-remote-code" in flags(arguments(trusted, tmp_path))
    assert "trust_remote_code" not in arguments(plain, tmp_path), "vLLM's default is to refuse"


def test_the_projects_own_checkpoints_have_no_code(tmp_path):
    with pytest.raises(ConfigError, match=r"tiny-mixtral\.yaml.*trust_remote_code: .*source.* hub"):
        planned(tmp_path, model="tiny-mixtral", trust_remote_code=True)


def test_transformers_is_never_left_to_ask():
    """Without the argument it asks on standard input, where a worker's next request is."""
    found = []
    for path in (studies.ROOT / "workflow" / "moebench").rglob("*.py"):
        text = path.read_text()
        for call in ast.walk(ast.parse(text)) if ".from_pretrained" in text else ():
            said = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if said.endswith(".from_pretrained") and "Embedding" not in said:
                keys = [k.arg or ast.unparse(k.value) for k in call.keywords]
                found.append((path.name, bool({"trust_remote_code", "trust"} & set(keys))))
    assert len(found) >= 6 and [name for name, told in found if not told] == []
