"""Derived checkpoints in plans: names, identity, shapes, what is refused; and making them, except for the weights."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import studies
from moebench.commands import show
from moebench.commands.planning import make_plan
from moebench.commands.snakefile import derived_files, parent_files, roots, staged_files
from moebench.commands.stage import models_of
from moebench.config import Config, EngineKnobs
from moebench.errors import ConfigError, StageError, UserError
from moebench.models import derive
from moebench.plan.derived import derive as derived_from
from moebench.plan.derived import root
from moebench.plan.models import resolve_model
from moebench.storage import staged

CELL = {"model": "tiny-olmoe", "batch": 4, "input_tokens": 16, "output_tokens": 8}
INTER = {"pruning": "inter", "prune_ratio": 0.25}


def planned(tmp_path: Path, *cells: dict, **study) -> dict:
    blocks = [{"fix": CELL | cell} for cell in cells]
    return make_plan(Config(studies.folder(tmp_path, {"x": blocks}, models="models", **study)), "test")


def model(plan: dict) -> dict:
    (engine,) = plan["engines"].values()
    return engine["model"]


# ------------------------------------------------------------------------------------------ in the plan


def test_a_pruned_model_has_its_own_folder_and_shape(tmp_path):
    plan = planned(tmp_path, INTER)
    found = model(plan)
    assert found["path"] == f"models/tiny-olmoe.inter25-frequency-{found['revision'][:8]}"
    assert found["source"] == "derived:prune" and found["weights"] == "random_init"
    assert found["architecture"]["experts"]["count"] == 48 and found["architecture"]["experts"]["top_k"] == 8
    parent_json = found["derived"]["parent"]
    assert parent_json["architecture"]["experts"]["count"] == 64 and parent_json["derived"] is None
    assert found["derived"]["settings"] == {
        "kind": "inter", "ratio": 0.25, "by": "frequency", "experts": 48,
        "calibration": {"data": "text", "sequences": 128, "tokens": 2048, "seed": 0},
    }  # fmt: skip
    (name,) = plan["derived"]
    assert plan["derived"][name] == found and found["path"] == f"models/{name}"


def test_ratio_zero_is_the_original(tmp_path):
    plain = planned(tmp_path / "a", {})
    none = planned(tmp_path / "b", {"pruning": "none", "prune_ratio": 0.0, "prune_multiple": 8})
    assert plain["engines"].keys() == none["engines"].keys() and none["derived"] == {}
    assert model(none)["derived"] is None and "inter" not in model(none)["path"]


def test_both_spellings_of_the_default_method_are_one_cell(tmp_path):
    plan = planned(tmp_path, INTER, INTER | {"prune_by": "frequency"}, INTER | {"prune_multiple": 8})
    assert len(plan["cells"]) == 1


@pytest.mark.parametrize("change", [
    {"prune_ratio": 0.5}, {"prune_by": "reap"}, {"pruning": "intra", "prune_multiple": 8},
    {"model": "tiny-qwen1.5-moe"}, {"experts": 32},
])  # fmt: skip
def test_what_changes_the_weights_changes_the_revision(tmp_path, change):
    one, other = model(planned(tmp_path / "a", INTER)), model(planned(tmp_path / "b", INTER | change))
    assert one["revision"] != other["revision"] and one["path"] != other["path"]


def test_calibration_is_part_of_the_identity_where_it_is_used(tmp_path):
    def revision(name, by, **calibration):
        return model(planned(tmp_path / name, INTER | {"prune_by": by}, calibration=calibration))["revision"]

    assert revision("a", "reap") != revision("b", "reap", tokens=64)
    assert revision("c", "random") == revision("d", "random", tokens=64)
    assert revision("c", "random") != revision("e", "random", seed=1)
    data = tmp_path / "words.txt"
    data.write_text("one two")
    first = revision("f", "reap", data=str(data))
    data.write_text("one two three")
    assert first != revision("g", "reap", data=str(data))


def test_one_checkpoint_for_many_engine_configurations(tmp_path):
    plan = planned(tmp_path, INTER, INTER | {"dtype": "float32"}, INTER | {"max_num_seqs": 8})
    assert len(plan["engines"]) == 3 and len(plan["derived"]) == 1


def test_staged_is_the_root_and_loaded_is_the_derived(tmp_path):
    plan = planned(tmp_path, INTER, {})
    (name,) = plan["derived"]
    (staged_one,) = models_of(plan)
    (job,) = plan["derive_jobs"]
    assert roots(plan) == [f"{staged_one}/moebench-stage.json"] == parent_files(plan, job)
    made = derived_files(plan, job)
    assert made == [f"models/{name}/moebench-stage.json"]
    assert set(staged_files(plan["engines"].values())) == {*made, *parent_files(plan, job)}


def test_a_derivation_may_chain(tmp_path):
    config = Config(studies.folder(tmp_path, {"x": [{"fix": CELL}]}))
    knobs = EngineKnobs(model="tiny-olmoe", pruning="inter", prune_ratio=0.5)
    pruned = resolve_model(config.model("tiny-olmoe"), knobs, "models", lambda *_: None)
    packed = derived_from(pruned, "quantize", "int8", {"bits": 8}, pruned.architecture)
    assert packed.path == f"models/tiny-olmoe.inter50-frequency.int8-{packed.revision[:8]}"
    assert root(packed.as_json())["source"] == "random_init"
    assert packed.as_json()["derived"]["parent"] == pruned.as_json()


# ------------------------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize(("count", "ratio", "left"), [(60, 0.125, 52), (60, 0.25, 45), (64, 0.125, 56), (8, 0.125, 7)])
def test_removed_experts_are_rounded_half_up(tmp_path, count, ratio, left):
    name = {60: "tiny-qwen1.5-moe", 64: "tiny-olmoe", 8: "tiny-mixtral"}[count]
    plan = planned(tmp_path, {"model": name, "pruning": "inter", "prune_ratio": ratio, "top_k": 2})
    assert model(plan)["architecture"]["experts"]["count"] == left


@pytest.mark.parametrize(("more", "left"), [({}, 1216), ({"prune_multiple": 8}, 1232), ({"prune_ratio": 0.5}, 704),
                                             ({"quantization": "fp8_block"}, 1024)])  # fmt: skip
def test_widths_are_multiples_that_kernels_take(tmp_path, more, left):
    """12.5% of Qwen1.5-MoE's 1408 leaves 1232; of 64: 19.25 x 64; of 128 x TP 4 for block fp8: 2.4 x 512."""
    big = {"model": "qwen1.5-moe-a2.7b", "pruning": "intra", "prune_ratio": 0.125, "tp": 4}
    found = model(planned(tmp_path, big | more, hardware="h100-sxm5-80gb"))
    assert found["architecture"]["experts"]["ffn_size"] == left
    assert found["architecture"]["experts"]["shared_ffn_size"] == 5632


def test_top_k_is_kept_unless_fewer_experts_remain(tmp_path):
    few = {"model": "tiny-mixtral", "pruning": "inter", "prune_ratio": 0.9}
    plan = planned(tmp_path, few)
    (cell,) = plan["cells"].values()
    assert model(plan)["architecture"]["experts"] == model(plan)["architecture"]["experts"] | {"count": 1, "top_k": 1}
    assert cell["workload"]["top_k"] == 1
    with pytest.raises(ConfigError, match=r"x\.yaml: top_k 2 .*tiny-mixtral"):
        planned(tmp_path / "more", few | {"top_k": 2})


@pytest.mark.parametrize(("cell", "words"), [
    ({"model": "tiny-qwen3-draft-4b"} | INTER, "tiny-qwen3-draft-4b is dense, it has no experts to prune"),
    (INTER | {"prune_ratio": 0.999}, "prune_ratio 0.999 of 64 experts removes 64, all of them"),
    (INTER | {"prune_ratio": 0.001}, "prune_ratio 0.001 of 64 experts removes none"),
    ({"pruning": "intra", "prune_ratio": 0.25}, "leaves all of them in multiples of 64; set prune_multiple"),
    ({"model": "llama-4-scout-17b-16e"} | INTER, "has all experts of a layer in one tensor, which cannot be pruned"),
    (INTER | {"weights": "dummy"}, "weights: dummy: all choices are equivalent"),
    ({"model": "tiny-deepseek-v2", "pruning": "intra", "prune_ratio": 0.25, "prune_multiple": 8},
     "makes a shared expert as wide as a routed one: it cannot spell a shared width of 192 beside experts of 72"),
])  # fmt: skip
def test_what_cannot_be_pruned_is_a_row_with_the_reason_in_one_line(tmp_path, cell, words):
    plan = planned(tmp_path, cell)
    (row,) = plan["experiments"]["x"]["unsupported"]
    assert words in row["reason"] and "\n" not in row["reason"] and plan["cells"] == {}


@pytest.mark.parametrize(("cell", "words"), [
    (INTER | {"prune_by": "magnitude"}, "prune_by 'magnitude' does not choose experts; pruning 'inter' takes frequency,"
                                        " random, reap, reconstruction"),
    ({"pruning": "intra", "prune_ratio": 0.5, "prune_by": "reap"}, "does not choose channels; pruning 'intra' takes"),
])  # fmt: skip
def test_a_method_of_the_other_kind_is_one_line(tmp_path, cell, words):
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, cell)
    assert words in str(error.value) and "x.yaml: " in str(error.value) and "\n" not in str(error.value)


def test_calibration_data_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"calibration\.data no\.txt: cannot be read"):
        planned(tmp_path, INTER, calibration={"data": "no.txt"})
    with pytest.raises(ConfigError, match=r"neither 'text' nor a file"):
        planned(tmp_path / "b", INTER, calibration={"data": "wikitext"})


def test_jobs_of_derived_models_need_what_their_parents_weigh(tmp_path):
    cell = {"model": "qwen1.5-moe-a2.7b", "tp": 4} | INTER
    jobs = {"load_s": 100, "weights_bytes_per_s": 1e9, "time_factor": 2, "host_memory_mb": 5000}
    (needs,) = planned(tmp_path, cell, hardware="h100-sxm5-80gb", jobs=jobs)["derive_jobs"].values()
    assert needs["gpus"] == 1 and needs["mem_mb"] == 5000 and needs["environment"] == "vllm-cpu"
    assert needs["expected_s"] == pytest.approx(100 + 3 * 28.6, rel=0.01)
    assert needs["runtime_min"] == 12  # twice 186 s, and 5 minutes


def test_the_table_of_a_plan_names_the_parents(tmp_path):
    plan = planned(tmp_path, {"model": "mixtral-8x7b", "quantization": "int8"}, INTER | {"quantization": "int8"})
    table = show.plan(plan, tmp_path).partition("\nderived checkpoint")[2].splitlines()[1:4]
    parents = [(line.split()[0].rpartition("-")[0], line.split()[2].partition("-frequency-")[0]) for line in table]
    assert parents == [
        ("mixtral-8x7b.int8", "mixtral-8x7b"),
        ("tiny-olmoe.inter25-frequency", "tiny-olmoe"),
        ("tiny-olmoe.inter25-frequency.int8", "tiny-olmoe.inter25"),
    ]


# ------------------------------------------------------------------------------------------------ making


@pytest.fixture
def plan(tmp_path, monkeypatch) -> dict:
    """A plan with one derived model, its parent staged, and a maker that copies."""
    monkeypatch.chdir(tmp_path)
    made = planned(tmp_path, INTER)
    (folder,) = models_of(made)
    Path(folder).mkdir(parents=True)
    (Path(folder) / "config.json").write_text("{}")
    staged.write_manifest(Path(folder), "random_init", "abc")
    module = tmp_path / "copier.py"
    module.write_text(
        "def make(model, parent, out, say):\n"
        "    (out / 'config.json').write_text((parent / 'config.json').read_text())\n"
        "    say('copied')\n    return {'kept': [[0, 1]]}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "copier", raising=False)
    monkeypatch.setitem(derive.MAKERS, "prune", "copier")
    return json.loads(json.dumps(made))


def test_made_once_whole_and_with_its_facts(plan):
    said: list[str] = []
    (name,) = plan["derived"]
    assert derive.derive(plan, name, said.append) and said == ["copied"]
    folder = Path("models") / name
    manifest = staged.read_manifest(folder)
    assert staged.check(folder, full=True) == [] and manifest["facts"]["kept"] == [[0, 1]]
    assert (manifest["source"], manifest["revision"]) == ("derived:prune", plan["derived"][name]["revision"])
    assert not derive.derive(plan, name, said.append) and said == ["copied"]
    (folder / "config.json").unlink()
    assert derive.derive(plan, name, said.append), "a damaged one is made again"
    os.truncate(folder / "config.json", 1)
    assert derive.derive(plan, name, said.append) and staged.check(folder, full=True) == [], "and one that is cut off"
    assert sorted(p.name for p in Path("models").iterdir() if p.name.startswith(".")) == []


def test_a_failure_leaves_nothing_behind(plan, monkeypatch):
    (name,) = plan["derived"]
    Path("copier.py").write_text("def make(*_):\n    raise OSError(28, 'No space left on device')\n")
    monkeypatch.delitem(sys.modules, "copier", raising=False)
    with pytest.raises(UserError, match="No space left on device"):
        derive.derive(plan, name, print)
    assert sorted(p.name for p in Path("models").iterdir()) == [Path(next(iter(models_of(plan)))).name]


def test_a_parent_that_is_not_whole(plan):
    (name,) = plan["derived"]
    (Path(next(iter(models_of(plan)))) / "config.json").unlink()
    with pytest.raises(StageError, match=r"config\.json: missing.*moebench stage --study test"):
        derive.derive(plan, name, print)
    with pytest.raises(UserError, match=r"'x'.*known: tiny-olmoe"):
        derive.derive(plan, "x", print)
