"""Staging a hub model for a study: local hub, real checkpoint, then a real measurement from what was staged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from hubserver import HubServer
from moebench.config import Config
from project import ENGINE, ROOT, copy, moebench, run, snakemake
from workflow.engine_copies import EngineCopies

EXPERIMENT = {
    "name": "one", "title": "One", "question": "Does a staged hub model run?",
    "grid": {"test": [{"fix": {"model": "hub-mixtral", "batch": 2, "input_tokens": 8, "output_tokens": 4}}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose only study measures one cell of a hub model."""
    place = copy(tmp_path_factory.mktemp("stage") / "project")
    model = yaml.safe_load((place / "config/models/tiny-mixtral.yaml").read_text())
    model |= {"name": "hub-mixtral", "title": "Mixtral from a hub", "source": {"hub": {"hub": "org/mixtral"}}}
    model.pop("variant_of", None)
    study = yaml.safe_load((place / "config/studies/tiny.yaml").read_text())
    study |= {"name": "hub", "scale": "test", "experiments": ["one"]}
    del study["reference"]
    study["jobs"]["measure_constants"] = False
    for path, data in (("models/hub-mixtral", model), ("experiments/one", EXPERIMENT), ("studies/hub", study)):
        (place / f"config/{path}.yaml").write_text(yaml.safe_dump(data))
    (place / "config/config.yaml").write_text("study: hub\n")
    return place


@pytest.fixture(scope="module")
def checkpoint(copies: EngineCopies, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A real checkpoint's files."""
    folder = tmp_path_factory.mktemp("checkpoint") / "mixtral"
    spec = folder.with_suffix(".json")
    architecture = Config(ROOT / "config").model("tiny-mixtral").architecture.model_dump()
    spec.write_text(json.dumps({"architecture": architecture, "seed": 3}))
    copies.run("-m", "moebench.models.random_init", spec, folder)
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "moebench-stage.json"}


def test_stage_pins_then_measures_offline(project: Path, checkpoint: dict[str, bytes]) -> None:
    said = snakemake(project, code=1)
    assert re.search(r"org/mixtral \(main\).*moebench stage --study hub", said.stdout + said.stderr)
    with HubServer() as hub:
        commit = hub.repo("org/mixtral").push(checkpoint)
        done = moebench(project, "stage", HF_ENDPOINT=hub.endpoint)
        assert "1 models staged (0 written, 1 fetched, 0 already there)" in done.stdout
    pinned = yaml.safe_load((project / "config/models.lock.yaml").read_text())
    assert pinned["org/mixtral@main"]["commit"] == commit
    plan = json.loads(moebench(project, "plan", "--json").stdout)
    (engine,) = plan["engines"].values()
    assert engine["model"]["revision"] == commit and commit[:12] in engine["model"]["path"]
    snakemake(project, HF_ENDPOINT="http://127.0.0.1:9")  # nobody listens there: jobs must not ask
    (record,) = (project / "results/cells").glob("*/*.json")
    found = json.loads(record.read_text())
    assert (found["status"], found["model"]["revision"]) == ("ok", commit)


def test_a_cell_waits_for_its_own_model_and_folders_of_a_call_are_passed_on(project: Path) -> None:
    cells = json.loads(moebench(project, "plan", "--study", "tiny", "--json").stdout)["cells"]
    key = next(key for key in cells if key.startswith("tiny-mixtral.fp32-"))
    folders = ("--config", "study=tiny", "models=elsewhere", "data=beside", "environments=nowhere")
    done = snakemake(project, "-n", "-p", "--quiet", "host", *folders, "--force", f"results/cells/{key}.json")
    said = done.stdout + done.stderr
    assert "--models elsewhere --data beside --environments nowhere" in said
    assert set(re.findall(r"^(\w+) +\d+$", said, re.MULTILINE)) == {"stage", "measure_cell", "total"}, "nothing derived"
    done = snakemake(project, *folders, "--force", f"results/cells/{key}.json", code=1)
    said = done.stdout + done.stderr
    assert "nowhere/vllm-cpu is not built" in said and "run `python3 envs/build.py vllm-cpu`, then" in said
    assert "restore" not in said and not (project / "elsewhere").exists()


def test_altered_model_is_refused(project: Path) -> None:
    (record,) = (project / "results/cells").glob("*/*.json")
    plan = json.loads((project / "results/plan/hub.json").read_text())
    folder = project / next(iter(plan["engines"].values()))["model"]["path"]
    weights = next(folder.glob("*.safetensors"))
    whole, kept = weights.read_bytes(), record.read_bytes()
    weights.write_bytes(whole[:-100])
    try:
        key = f"{record.parent.name}/{record.stem}"
        done = run(project, str(ENGINE), "-m", "moebench", "measure", "--plan", "results/plan/hub.json", "--cell", key,
                   "--results", "results", code=2)  # fmt: skip
        (line,) = [text for text in done.stderr.splitlines() if text.startswith("moebench measure:")]
        assert f"{len(whole) - 100} bytes instead of {len(whole)}" in line and "moebench stage" in line
        assert "Traceback" not in done.stderr and record.read_bytes() == kept
    finally:
        weights.write_bytes(whole)
