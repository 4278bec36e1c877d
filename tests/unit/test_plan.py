"""Identity of cells and engine configurations, sharing, derived cells, jobs, and how many of them the studies have."""

import itertools
import math
import re
from collections import Counter

import pytest

import inventory
import moebench.plan.make as planning
import moebench.plan.models as weights
import studies
from moebench.commands import show
from moebench.commands.planning import make_plan
from moebench.config import LOAD, Config, EngineKnobs, WorkloadKnobs
from moebench.config.lockfile import ModelLock
from moebench.errors import ConfigError
from moebench.formats.plan import OPTIONAL
from studies import ROOT

CELL = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8}
GPU = {"hardware": "h100-sxm5-80gb", "defaults": {}}


@pytest.fixture
def planned(tmp_path):
    """Plans blocks (one experiment), or experiments by name, in a folder of its own."""
    count = iter(range(1000))

    def plan(*blocks, experiments=None, touch=None, **study):
        config = studies.folder(tmp_path / str(next(count)), experiments or {"x": list(blocks)}, **study)
        if touch:
            touch(config)
        return make_plan(Config(config), "test")

    return plan


def only(plan):
    """The engine and cell ids of a plan with one cell."""
    (cell,) = plan["cells"].values()
    return cell["engine"], cell["cell"]


def keys(plan, experiment="x"):
    """Cells of an experiment, in the order of its rows."""
    return [f"{r['engine']}/{r['cell']}" for r in plan["experiments"][experiment]["rows"]]


def edit(path, **changes):
    data = studies.read(path)
    studies.write(path, data | changes)


# ------------------------------------------------------------------------------------------ identity


def test_identifiers_stay_what_they_are(planned):
    """Records are found by these.  If this fails, identities changed: everything measured so far is measured again.

    That is right where numbers change (say so in the changelog), and a mistake where they do not.
    """

    def fixed_model(config):
        studies.random_model(
            config, "pinned", family="mixtral", hidden_size=64, layers=1, vocab_size=512, max_positions=512,
            attention={"kind": "gqa", "heads": 2, "kv_heads": 1, "head_dim": 32},
            experts={"count": 4, "top_k": 2, "ffn_size": 64},
        )  # fmt: skip

    assert only(planned({"fix": CELL | {"model": "pinned"}}, touch=fixed_model)) == (
        "pinned-17f96f", "b4.i16.o8.k2-89251a"
    )  # fmt: skip


SPECULATIVE = {"model": "qwen3-30b-a3b", "draft_model": "qwen3-0.6b", "draft_tokens": 2}
BALANCED = {"tp": 2, "ep": True, "eplb": True}
ENGINE_KNOBS = {  # knob: another value, and what it is compared with where that is not CELL
    "model": ("tiny-olmoe", {}),
    "weights": ("dummy", {}),
    "experts": (16, {}),
    "moe_ffn_size": (64, {}),
    "dtype": ("float32", {}),
    "quantization": ("fp8", {}),
    "kv_cache_dtype": ("fp8", {}),
    "pruning": ("intra", {"pruning": "inter", "prune_ratio": 0.5}),
    "prune_ratio": (0.25, {"pruning": "inter", "prune_ratio": 0.5}),
    "prune_by": ("reap", {"pruning": "inter", "prune_ratio": 0.5}),
    "prune_multiple": (32, {"pruning": "intra", "prune_ratio": 0.5}),
    "draft_model": ("qwen3-1.7b", SPECULATIVE),
    "draft_tokens": (3, SPECULATIVE),
    "tp": (2, {}),
    "pp": (2, {}),
    "dp": (2, {}),
    "ep": (True, {"tp": 2}),
    "expert_kernel": ("unfused", {}),
    "kernel_config": ("default", {}),
    "speculation": ("mtp", {"model": "tiny-glm-4.5", "speculation": "ngram", "draft_tokens": 2}),
    "fused_kernel": ("triton", {}),
    "attention_kernel": ("FLASH_ATTN", {}),
    "all_to_all": ("deepep_low_latency", {}),
    "eplb": (True, {"tp": 2, "ep": True}),
    "redundant_experts": (2, BALANCED),
    "eplb_steps": (100, BALANCED),
    "prefix_caching": (True, {}),
    "chunked_prefill": (False, {}),
    "graph_sizes": ("1 2 4", {}),
    "routing": ("zipf", {"routing": "uniform"}),
    "routing_experts": (4, {"routing": "uniform"}),
    "gate_share": (0.5, {}),
    "load_cap": ("8:1", {}),
    "mla": (False, {"model": "tiny-deepseek-v2"}),
    "eager": (False, {}),
    "own_process": (True, {}),
    "max_model_len": (128, {}),
    "max_num_seqs": (8, {}),
    "max_num_batched_tokens": (1024, {}),
    "cpu_threads": (2, {}),
    "kv_cache_mb": (32, {}),
}
WORKLOAD_KNOBS = {"batch": 2, "input_tokens": 15, "output_tokens": 9, "top_k": 1, "prompts": "random",
                  "corpus": "mme", "requests": 9, "images": 1, "image_size": 224}  # fmt: skip


def test_no_knob_is_forgotten_here():
    assert {*ENGINE_KNOBS, "engine_name"} == set(EngineKnobs.model_fields)  # that one: test_engine_choice.py
    assert {*WORKLOAD_KNOBS, *LOAD} == set(WorkloadKnobs.model_fields)  # those: test_load_plan.py


@pytest.fixture(scope="module")
def knob_engines(tmp_path_factory):
    """Engines by knob, of one plan: with the other value, and without."""
    experiments = {
        f"knob{n}": [{"fix": CELL | others | {knob: value}}, {"fix": CELL | others}]
        for n, (knob, (value, others)) in enumerate(ENGINE_KNOBS.items())
    }
    plan = make_plan(Config(studies.folder(tmp_path_factory.mktemp("knobs"), experiments)), "test")
    found = ([row["engine"] for row in plan["experiments"][name]["rows"]] for name in experiments)
    return dict(zip(ENGINE_KNOBS, found, strict=True))


@pytest.mark.parametrize("knob", ENGINE_KNOBS)
def test_every_engine_knob_changes_the_engine(knob_engines, knob):
    value, others = ENGINE_KNOBS[knob]
    assert (CELL | others).get(knob) != value
    assert len(knob_engines[knob]) == len(set(knob_engines[knob])) == 2


def test_optional_knobs_are_in_the_plan_only_where_they_are_set(planned):
    (plain,) = planned({"fix": CELL})["engines"].values()
    (cached,) = planned({"fix": CELL | {"prefix_caching": True}})["engines"].values()
    assert not set(OPTIONAL) & set(plain["config"])
    assert set(OPTIONAL) & set(cached["config"]) == {"prefix_caching"}
    assert set(OPTIONAL) <= set(EngineKnobs.model_fields)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"speculation": "ngram"}, ["ngram", "draft_tokens 0"]),
        ({"speculation": "ngram", **SPECULATIVE}, ["ngram", "leave it out"]),
        ({"speculation": "eagle3", "draft_tokens": 2}, ["eagle3", "draft_tokens"]),
        ({"draft_tokens": 2}, ["both or neither"]),
        ({"eplb": True}, ["ep: true"]),
        ({"tp": 2, "ep": True, "redundant_experts": 2}, ["redundant_experts 2", "eplb: true"]),
        ({"routing_experts": 4}, ["routing_experts 4", "zipf"]),
        ({"routing": "zipf", "routing_experts": 1}, ["routing_experts 1", "2 (top-k)", "8"]),
        ({"routing": "zipf", "routing_experts": 9}, ["routing_experts 9", "8 (all"]),
        ({"load_cap": "8"}, ["load_cap"]),
        ({"gate_share": 1.5}, ["gate_share"]),
        ({"graph_sizes": "0 4"}, ["graph_sizes"]),
    ],
)  # fmt: skip
def test_knobs_of_serving_that_do_not_go_together_are_refused(planned, knobs, words):
    with pytest.raises(ConfigError) as refused:
        planned({"fix": CELL | knobs})
    assert all(word in str(refused.value) for word in words), refused.value


def test_budgets_and_cached_prompts_have_no_predicted_times(planned):
    for knobs in ({"gate_share": 0.5}, {"load_cap": "8:1"}, {"prefix_caching": True}):
        (cell,) = planned({"fix": {"model": "mixtral-8x7b", "tp": 4, "batch": 4} | knobs}, **GPU)["cells"].values()
        predicted = cell["predicted"]
        assert (predicted["e2e_s"], predicted["least_e2e_s"]) == (None, None), "nothing may be judged by it"
        assert predicted["bytes_per_gpu"] is not None


@pytest.mark.parametrize("others", [{"pruning": "inter", "prune_ratio": 0.5}, SPECULATIVE])
def test_pruned_or_speculative_is_not_plain(planned, others):
    plain = CELL | {"model": others.get("model", "tiny-mixtral")}
    assert only(planned({"fix": plain | others}))[0] != only(planned({"fix": plain}))[0]


@pytest.mark.parametrize("knob", ["batch", "input_tokens", "output_tokens", "top_k", "prompts"])
def test_every_workload_knob_changes_the_cell_and_not_the_engine(planned, knob):
    engine, cell = only(planned({"fix": CELL}))
    other_engine, other_cell = only(planned({"fix": CELL | {knob: WORKLOAD_KNOBS[knob]}}))
    assert other_engine == engine and other_cell != cell


def test_images_change_the_cell(planned):
    fix = {"model": "deepseek-vl2-tiny", "images": 1, "image_size": 224}
    ids = {only(planned({"fix": fix | change}, **GPU)) for change in ({}, {"images": 2}, {"image_size": 384})}
    assert len(ids) == 3 and len({engine for engine, _ in ids}) == 1


@pytest.mark.parametrize("part", ["kind", "warmup", "repeats", "seed"])
def test_the_protocol_changes_the_cell(planned, part):
    protocol = {"kind": "trace", "warmup": 1, "repeats": 2, "seed": 1}
    changed = protocol | {part: {"kind": "paper", "warmup": 2, "repeats": 3, "seed": 2}[part]}
    one, other = only(planned({"fix": CELL}, protocol=protocol)), only(planned({"fix": CELL}, protocol=changed))
    assert one[0] == other[0] and one[1] != other[1]


def test_what_the_engine_is_changes_the_engine(planned, monkeypatch):
    seen = {only(planned({"fix": CELL}))[0]}

    def another(**study):
        seen.add(only(planned({"fix": CELL}, **study))[0])
        return len(seen)

    version = {"name": "vllm", "version": "0.33.0", "environment": "vllm-cpu"}
    assert another(engine=version) == 2
    assert another(touch=lambda c: edit(c / "hardware" / "local-cpu.yaml", usable_memory_fraction=0.5)) == 3
    assert another(hardware="h100-sxm5-80gb") == 4
    assert another(touch=lambda c: edit(c / "models" / "tiny-mixtral.yaml", source={"random_init": {"seed": 7}})) == 5
    monkeypatch.setattr(planning, "PROTOCOL_VERSION", planning.PROTOCOL_VERSION + 1)
    assert another() == 6
    monkeypatch.setattr(weights, "RECIPE_VERSION", weights.RECIPE_VERSION + 1)
    assert another() == 7


def test_the_commit_of_a_hub_model_changes_engine_and_folder(planned):
    plans = []
    for commit in ("a" * 40, "b" * 40):

        def pin(config, commit=commit):
            for hub in ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-0.6B"):
                ModelLock(config / "models.lock.yaml").pin(hub, "main", commit, files=1, bytes_=1)

        plans.append(planned({"fix": SPECULATIVE}, touch=pin, **GPU))
    engines = [next(iter(p["engines"].values())) for p in plans]
    assert engines[0]["id"] != engines[1]["id"]
    for engine, letter in zip(engines, "ab", strict=True):
        assert engine["model"]["revision"] == engine["draft"]["revision"] == letter * 40
        assert engine["model"]["path"].endswith(f"Qwen--Qwen3-30B-A3B/{letter * 12}")


def test_the_commit_of_the_draft_alone_changes_the_engine(planned):
    def pin(commit):
        return lambda c: ModelLock(c / "models.lock.yaml").pin("Qwen/Qwen3-0.6B", "main", commit, files=1, bytes_=1)

    one, other = (planned({"fix": SPECULATIVE}, touch=pin(letter * 40), **GPU) for letter in "ab")
    assert only(one)[0] != only(other)[0]


def test_titles_order_folders_and_neighbours_change_nothing(planned, tmp_path):
    one = {"fix": CELL, "cross": {"top_k": [1, 2, 4]}}
    before = planned(experiments={"a": [one], "b": [{"fix": CELL | {"batch": 2}}]})
    reversed_ = {"fix": CELL, "cross": {"top_k": [4, 2, 1, 8]}}

    def touch(config):
        edit(config / "models" / "tiny-mixtral.yaml", title="Another", note="Another", reference="Another")
        edit(
            config / "experiments" / "a.yaml",
            title="Another",
            question="Another?",
            claims=["X"],
            figures=[{"id": "f", "number": "1", "title": "F", "kind": "bars", "x": "batch", "y": ["e2e_s"]}],
        )
        edit(config / "studies" / "test.yaml", title="Another", description="Another", jobs={"cpus": 64, "load_s": 1})

    after = planned(
        experiments={"b": [{"fix": CELL | {"batch": 2}}], "a": [reversed_]}, touch=touch, models=tmp_path / "elsewhere"
    )
    assert set(before["cells"]) < set(after["cells"]) and len(after["cells"]) == len(before["cells"]) + 1


@pytest.mark.parametrize(
    ("fix", "same"),
    [
        (CELL, {"top_k": 2}),
        (CELL, {"experts": 8}),
        (CELL, {"moe_ffn_size": 512, "experts": 8, "top_k": 2}),
        (CELL, {"ep": True}),  # one rank: nothing to spread the experts over
        (CELL | {"pp": 2}, {"ep": True}),  # vLLM's expert parallelism spans TP x DP ranks, not PP stages
        (CELL, {"mla": False}),
        (CELL, {"dtype": "bfloat16", "quantization": "none", "prompts": "text"}),
        (CELL, {"weights": "random_init"}),
    ],
)
def test_two_spellings_of_the_same_cell(planned, fix, same):
    assert only(planned({"fix": fix | same})) == only(planned({"fix": fix}))


def test_fewer_experts_than_top_k_is_another_shape_and_refused_without_top_k(planned):
    assert only(planned({"fix": CELL | {"experts": 1, "top_k": 1}}))[0] != only(planned({"fix": CELL}))[0]
    with pytest.raises(ConfigError, match=r"top_k 2 .*tiny-mixtral"):
        planned({"fix": CELL | {"experts": 1}})


def test_ids_can_be_read(planned):
    fix = CELL | {"experts": 16, "tp": 2, "ep": True, "dtype": "float32", "quantization": "fp8", "eager": False}
    engine, cell = only(planned({"fix": fix | {"top_k": 4, "prompts": "identical"}}))
    assert engine.rpartition("-")[0] == "tiny-mixtral.e16.fp32.fp8.tp2.ep.k4"
    assert cell.rpartition("-")[0] == "b4.i16.o8.k4.identical"


def test_top_k_is_the_workloads_where_it_is_live_and_the_engines_where_it_is_not(planned):
    grid = {"fix": CELL, "cross": {"top_k": [1, 2, 4]}}
    live, fixed = planned(grid), planned({**grid, "fix": CELL | {"eager": False}})
    assert [e["config"]["top_k"] for e in live["engines"].values()] == [None]
    assert sorted(e["config"]["top_k"] for e in fixed["engines"].values()) == [1, 2, 4]
    assert {c["workload"]["top_k"] for c in fixed["cells"].values()} == {1, 2, 4}
    reloaded = planned(grid, live_top_k=False)
    assert len(reloaded["engines"]) == 3 and not set(reloaded["cells"]) & set(live["cells"])


def test_a_dense_model_has_no_top_k(planned):
    plan = planned({"fix": {"model": "qwen3-0.6b"}}, **GPU)
    assert next(iter(plan["cells"].values()))["workload"]["top_k"] is None


# --------------------------------------------------------------------------------- sharing and deriving


def test_a_cell_of_two_experiments_is_one_cell(planned):
    plan = planned(experiments={
        "a": [{"fix": CELL, "cross": {"top_k": [1, 2]}}],
        "b": [{"fix": CELL, "cross": {"batch": [4, 8]}} | {"fix": {k: v for k, v in CELL.items() if k != "batch"}}],
    })  # fmt: skip
    assert len(plan["cells"]) == 3 and len(plan["engines"]) == 1
    assert set(keys(plan, "a")) & set(keys(plan, "b")) == {keys(plan, "a")[1]} == {keys(plan, "b")[0]}


def test_points_that_come_up_twice_in_one_experiment_keep_their_labels(planned):
    arms = [{"label": "TP", "tp": 1}, {"label": "TP+EP", "tp": 1, "ep": True}]
    plan = planned({"fix": CELL, "cross": {"layout": arms}}, {"fix": CELL, "cross": {"layout": arms[:1]}})
    assert [r["labels"] for r in plan["experiments"]["x"]["rows"]] == [{"layout": "TP"}, {"layout": "TP+EP"}]
    assert len(plan["cells"]) == 1


def test_shorter_outputs_of_one_input_are_cut_from_the_longest(planned):
    grid = {"cross": {"output_tokens": [8, 32, 16], "input_tokens": [16, 24], "top_k": [1, 2]},
            "fix": {"model": "tiny-mixtral"}}  # fmt: skip
    plan = planned(grid)
    parents = {}
    for cell in plan["cells"].values():
        work = cell["workload"]
        if cell["derived_from"] is None:
            assert work["output_tokens"] == 32
        else:
            parent = plan["cells"][f"{cell['engine']}/{cell['derived_from']}"]["workload"]
            assert parent == work | {"output_tokens": 32}
            parents.setdefault(cell["derived_from"], []).append(work["output_tokens"])
    assert len(parents) == 4 and all(sorted(v) == [8, 16] for v in parents.values())


@pytest.mark.parametrize(
    ("fix", "study"),
    [
        ({}, {"protocol": {"kind": "paper"}}),
        (SPECULATIVE, {}),
    ],
)
def test_nothing_is_cut_where_the_length_changes_the_run(planned, fix, study):
    plan = planned({"fix": {"model": "tiny-mixtral"} | fix, "cross": {"output_tokens": [8, 16]}}, **study)
    assert [c["derived_from"] for c in plan["cells"].values()] == [None, None]


def test_cells_are_measured_in_a_shuffled_order_that_the_seed_gives(planned):
    grid = {"fix": CELL | {"top_k": 2}, "cross": {"batch": list(range(1, 13))}} | {"fix": {"model": "tiny-mixtral"}}
    orders = []
    for seed in (1, 1, 2):
        plan = planned(grid, protocol={"seed": seed})
        (engine,) = plan["engines"].values()
        assert sorted(f"{engine['id']}/{c}" for c in engine["cells"]) == sorted(plan["cells"])
        orders.append([plan["cells"][f"{engine['id']}/{c}"]["workload"]["batch"] for c in engine["cells"]])
    assert orders[0] == orders[1] and orders[0] != list(range(1, 13)) and orders[2] != orders[0]


# ----------------------------------------------------------------------------------------------- jobs


def test_jobs_cover_every_engine_once(planned):
    cross = {"tp": [1, 2], "cpu_threads": [1, 2], "dtype": ["bfloat16", "float32"]}
    grid = {"fix": {"model": "tiny-mixtral"}, "cross": cross}
    alone = planned(grid, jobs={"pack_minutes": 0})
    assert {j: spec["engines"] for j, spec in alone["jobs"].items()} == {e: [e] for e in alone["engines"]}
    packed = planned(grid, jobs={"pack_minutes": 100})
    engines, packs = packed["engines"], [job["engines"] for job in packed["jobs"].values()]
    assert sorted(itertools.chain(*packs)) == sorted(engines)
    # One process runs a pack: what it cannot change must be the same in it.
    shapes = [{engines[e]["config"]["cpu_threads"] for e in pack} for pack in packs]
    assert len(shapes) == 2 and all(len(s) == 1 for s in shapes)


def test_on_a_cpu_one_process_loads_engines_on_any_number_of_devices_and_servers(planned):
    """On a CPU a device is a process, and a server a copy of the worker; a GPU is allocated to a job."""
    served = {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}}
    grid = {"fix": {"model": "tiny-mixtral"}, "cross": {"tp": [2, 1], "engine_name": [None, "served"]}}
    for own_process in (False, True):
        grid["fix"]["own_process"] = own_process
        here = planned(grid, jobs={"pack_minutes": 100, "host_memory_mb": 1000}, engines={"served": served})
        ((_, spec),) = here["jobs"].items()
        order = [(here["engines"][e]["gpus"], here["engines"][e]["runtime"]["kind"]) for e in spec["engines"]]
        assert order == [(1, "endpoint"), (2, "endpoint"), (1, "vllm"), (2, "vllm")], "servers first, then few devices"
        assert (spec["gpus"], spec["mem_mb"]) == (2, 2000), "what the largest needs"
    there = planned(grid, jobs={"pack_minutes": 100}, engines={"served": served}, **GPU)
    assert sorted((job["gpus"], len(job["engines"])) for job in there["jobs"].values()) == [(1, 1)] * 2 + [(2, 1)] * 2


def test_a_pack_is_no_longer_than_asked(planned):
    grid = {"fix": {"model": "tiny-mixtral", "eager": False}, "cross": {"top_k": [1, 2, 3, 4, 5, 6, 7]}}
    plan = planned(grid, jobs={"pack_minutes": 2, "load_s": 50, "cell_overhead_s": 1})
    assert [len(j["engines"]) for j in plan["jobs"].values()] == [2, 2, 2, 1]
    assert all(j["expected_s"] <= 120 for j in plan["jobs"].values())


def test_what_a_job_asks_of_the_cluster(planned):
    big = {"model": "mixtral-8x7b", "tp": 8, "pp": 2, "batch": 16}
    plan = planned({"fix": big}, jobs={"cpus": 6, "host_memory_mb": 1000, "time_factor": 3, "load_s": 100}, **GPU)
    (job,) = plan["jobs"].values()
    (engine,) = plan["engines"].values()
    assert (job["gpus"], job["nodes"], job["cpus"], job["cells"]) == (16, 2, 6 * 8, 1)
    assert job["mem_mb"] == math.ceil(1.5 * engine["predicted"]["weight_bytes"] / 2 / 1e6) > 8_000
    assert job["runtime_min"] == pytest.approx(3 * job["expected_s"] / 60 + 5, abs=1) and job["expected_s"] > 100


def test_dummy_weights_need_no_host_memory(planned):
    dummy = {"model": "mixtral-8x7b", "tp": 4, "experts": 64, "weights": "dummy"}
    (job,) = planned({"fix": dummy}, jobs={"host_memory_mb": 1000}, **GPU)["jobs"].values()
    assert job["mem_mb"] == 4000


def test_a_jobs_digest_follows_its_cells_and_its_name_does_not(planned):
    def job(top_k, **study):
        (found,) = planned({"fix": CELL, "cross": {"top_k": top_k}}, **study)["jobs"].items()
        return found[0], found[1]["digest"]

    name, digest = job([1, 2])
    assert job([2, 1]) == (name, digest)
    assert job([1, 2], jobs={"pack_minutes": 100, "cpus": 64, "time_factor": 9}) == (name, digest)
    assert job([1, 2, 3])[0] == name and job([1, 2, 3])[1] != digest


def test_choosing_to_skip_what_cannot_fit_changes_the_digest_of_those_jobs_only(planned):
    grid = {"fix": {"model": "mixtral-8x7b"}, "cross": {"tp": [1, 4]}}
    tried = planned(grid, jobs={}, **GPU)["jobs"]
    skipped = planned(grid, jobs={"skip_infeasible": True}, **GPU)["jobs"]
    assert [tried[j]["digest"] == skipped[j]["digest"] for j in tried] == [False, True]


def test_nothing_loads_after_n_grams_in_one_process(planned):
    blocks = [{"fix": CELL, "cross": {"max_num_seqs": [4, 8, 16]}}]
    grams = [{"fix": CELL | {"draft_tokens": 2, "speculation": "ngram"}, "cross": {"max_num_seqs": [4, 8]}}]
    jobs = planned(*grams, *blocks)["jobs"].values()
    assert sorted(len(job["engines"]) for job in jobs) == [1, 1, 3]


def test_a_price_is_in_the_plan_and_changes_no_identity(planned):
    price = {"usd_per_hour": 2.5, "source": "a page", "date": "2026-11-28"}

    def priced(config):
        edit(config / "hardware" / "local-cpu.yaml", price=price)

    plain, paid = planned({"fix": CELL}), planned({"fix": CELL}, touch=priced)
    assert "price" not in plain["hardware"] and paid["hardware"]["price"] == price
    assert paid["cells"] == plain["cells"] and paid["jobs"] == plain["jobs"]


# ------------------------------------------------------------------------------------- how many there are

FIGURES = {"fig03-latency-llms": 6, "fig05-topk-batch": 48, "fig06-batch-length": 50, "fig07-09-hyperparameters": 64}


@pytest.mark.parametrize(
    ("study", "cells", "loads", "pruned", "tasks"), [("tiny-full", 162, 21, 5, 3), ("paper", 164, 83, 14, 8)]
)
def test_the_studies_of_the_repository(study, cells, loads, pruned, tasks):
    """Of the 168 points of Figs 3 and 5-9: 4 of the paper's come up twice, 6 of tiny-full's.

    Accuracy of Fig 11's checkpoints: in paper all of them (two models, whole and six times pruned), each where its
    speed with all active experts is measured, so that the tables join.

    Loads, tiny-full (top-k live): 6 models + 16 shapes, of which 8 experts of width 512 are tiny-mixtral itself.
    Loads, paper (top-k at load): 6 + 12 + 2 + 64, of which Qwen1.5-MoE with k = 4 is in Figs 5 and 6;
    those of Fig 3 run on two GPUs.
    """
    plan = studies.drafted(study)
    assert {n: len(set(keys(plan, n))) for n in FIGURES} == FIGURES
    every = {key for n in FIGURES for key in keys(plan, n)}
    assert len(every) == cells and len({key.partition("/")[0] for key in every}) == loads
    eleven = plan["experiments"]["fig11-pruning"]
    asked = {(r["engine"], r["top_k"]) for r in eleven["accuracy"]}
    assert len(asked) == pruned and len(eleven["accuracy"]) == pruned * tasks
    measured = {(r["engine"], plan["cells"][f"{r['engine']}/{r['cell']}"]["workload"]["top_k"]) for r in eleven["rows"]}
    assert asked <= measured
    assert len({plan["engines"][engine]["model"]["path"] for engine, _ in asked}) == pruned, "checkpoints of their own"


CONTROLS = {"vlm-images", "control-mla", "control-tiles", "parallelism-extended", "transformers-experts",
            "accuracy-vlm-reading", "fig17-precision", "control-prompts", "control-lengths", "control-routing",
            "faster-moe-dynamic", "serving-front", "serving-knobs"}  # fmt: skip
"""Experiments that only the long study of the small models has: no paper has a figure of them."""


def test_the_study_for_newcomers_draws_every_figure_of_the_papers_from_few_loads():
    """About 100 cells, at most 25 loads whatever the CPU has kernels for: on none of them do EP and PP load."""
    few, full = (studies.drafted(study) for study in ("tiny", "tiny-full"))
    assert set(full["experiments"]) - set(few["experiments"]) == CONTROLS
    for name, experiment in few["experiments"].items():
        known = {figure["id"] for figure in full["experiments"][name]["figures"]}
        assert {figure["id"] for figure in experiment["figures"]} == known
    refused = [e for e in few["engines"].values() if e["config"]["ep"] or e["config"]["pp"] > 1]
    assert len(few["cells"]) <= 101 and len(few["engines"]) - len(refused) <= 25


@pytest.mark.parametrize("study", ["tiny", "tiny-full", "paper"])
def test_assumptions_are_those_of_the_studys_own_scale(study):
    """What is assumed of the paper's GPUs is not said of small models on a CPU."""
    plan, others = studies.drafted(study), 0
    for name, experiment in plan["experiments"].items():
        said = {"".join(text.split()) for text in experiment["assumptions"]}
        for given in studies.read(ROOT / f"config/experiments/{name}.yaml").get("assumptions", ()):
            text, mine = (given, True) if isinstance(given, str) else (given["text"], study in given["scales"])
            assert ("".join(text.split()) in said) == mine, (name, given)
            others += not mine
    assert others > 10 or study == "paper"


def test_every_cell_of_a_study_is_listed_also_where_its_memory_is_unknown(planned, tmp_path):
    away = {"base_url": "https://api.example/v1", "hardware": "Away-1", "models": {"tiny-mixtral": "Mix"}}
    engines = {"away": {"name": "endpoint", "version": "unstated", "environment": "vllm-cpu", "endpoint": away}}
    grid = {"fix": {"model": "tiny-mixtral"}, "cross": {"engine_name": ["vllm", "away"], "batch": [1, 2, 4]}}
    printed = show.plan(planned(grid, engines=engines), tmp_path, cells=True)
    listed = printed.rpartition("predicted GB per GPU")[2].splitlines()[1:]
    assert len(listed) == 6 and sum("unknown" in line for line in listed) == 3


ALSO = {"10": 50, "12": 5, "16": 11}
"""Points of the paper study beyond the inventory's: more precisions, a baseline without speculation, the hosted arm."""


def test_the_paper_study_has_every_performance_cell_of_the_inventory_and_twelve_that_cannot_fit():
    plan = studies.planned("paper")
    wanted = Counter()
    for figure, cells in inventory.CELLS.items():
        wanted[re.sub("[ab]$", "", figure)] += cells
    points = {name.split("-")[0]: e["rows"] for name, e in plan["experiments"].items() if name.startswith("fig")}
    for figure, cells in wanted.items():
        found = points[f"fig{int(figure.partition('-')[0]):02}"]
        assert len(found) == cells + ALSO.get(figure, 0), figure
    assert sum(wanted.values()) == 376
    shared = plan["experiments"]["fig07-09-hyperparameters"]["rows"]
    fits = [plan["cells"][f"{row['engine']}/{row['cell']}"]["predicted"]["fits"] for row in shared]
    assert Counter(fits) == {True: 52, False: 12}


def loads_of(plan, figure):
    return len({row["engine"] for row in plan["experiments"][f"fig{figure}"]["rows"]})


@pytest.mark.parametrize(
    ("eager", "theirs", "total"), [(False, inventory.LOADS, 214), (True, inventory.LIVE_LOADS, 85)]
)
def test_every_axis_of_the_inventory_can_be_planned(planned, eager, theirs, total):
    """376 performance cells summed over figures, as the inventory counts them; loads but for one difference.

    The inventory counts PP+EP on 2 and on 4 GPUs as loads of their own (Fig 13: 2 models, so 4 loads).  vLLM's experts
    are spread over TP x DP ranks and PP+EP without either is PP itself, so here it is the same engine: 210 and 81.
    Distinct cells are 341 and not 351: besides those 4, the four arms of Fig 13 on one GPU are one cell per model here
    (6 fewer), where the inventory shares the load but counts the cells.

    With TP 2 inside each stage of PP+EP, so that EP spans two ranks, there are as many loads as the inventory counts.
    """
    study = {"hardware": "h100-sxm5-80gb", "defaults": {"eager": eager, "max_model_len": 4096, "max_num_seqs": 128}}
    plan = planned(experiments={f"fig{n}": blocks for n, blocks in inventory.FIGURES.items()}, **study)
    points = {f: len(plan["experiments"][f"fig{f}"]["rows"]) for f in inventory.FIGURES}
    assert points == inventory.CELLS and sum(points.values()) == 376
    assert {f: loads_of(plan, f) for f in inventory.FIGURES} == theirs | {"13": theirs["13"] - 4}
    assert len(plan["engines"]) == total - 4
    assert len(plan["cells"]) == 351 - 4 - 6
    (block,) = inventory.FIGURES["13"]
    arms = [a | ({"tp": 2} if a["label"] in ("PP+EP on 2", "PP+EP on 4") else {}) for a in block["cross"]["layout"]]
    spread = planned(block | {"cross": block["cross"] | {"layout": arms}}, **study)
    others = {row["engine"] for f in points if f != "13" for row in plan["experiments"][f"fig{f}"]["rows"]}
    assert len(others | set(spread["engines"])) == total


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ({"own_process": True}, True),
        ({}, False),
        ({"tp": 2}, True),
        ({"engine_name": "served", "own_process": True}, False),
    ],
)
def test_only_one_device_of_the_offline_engine_can_do_without_a_process_of_its_own(planned, asked, own):
    served = {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}}
    plan = planned({"fix": CELL | asked}, engines={"served": served})
    (engine,) = plan["engines"].values()
    assert engine["config"]["own_process"] is own


def test_pipeline_stages_have_no_ceiling(planned):
    least = [
        next(iter(planned({"fix": CELL | {"model": "mixtral-8x7b", "tp": 2, "pp": pp}}, **GPU)["cells"].values()))
        for pp in (1, 2)
    ]
    assert [cell["predicted"]["least_e2e_s"] is None for cell in least] == [False, True]


PRECISIONS = {"FP8", "INT8", "AWQ", "GPTQ", "KV FP8"}


@pytest.mark.parametrize(("experiment", "models"), [("fig10-precision", 1), ("fig17-precision", 6)])
def test_every_precision_is_asked_for_accuracy_on_the_engines_whose_speed_is_measured(experiment, models):
    made = studies.planned("paper")["experiments"][experiment]
    asked = {(r["engine"], r["labels"]["precision"]) for r in made["accuracy"]}
    measured = {(r["engine"], r["labels"]["precision"]) for r in made["rows"]}
    assert asked <= measured
    counts = Counter(label for _, label in asked)
    assert set(counts) > PRECISIONS and set(counts.values()) == {models}
    cells = studies.planned("paper")["accuracy"]["lm-eval"]["cells"]
    tasks = {cells[f"{r['engine']}/{r['cell']}"]["task"]["name"] for r in made["accuracy"]}
    assert len(tasks - {"gsm8k", "wikitext"}) == 8 and (models > 1 or {"gsm8k", "wikitext"} < tasks)


@pytest.mark.parametrize(
    ("study", "caps"),
    [
        ("paper", {"deepseek-v2-lite": 6, "qwen3-30b-a3b": 5}),
        ("tiny", {"tiny-qwen3-moe": 2}),
        ("tiny-full", {"tiny-qwen3-moe": 2}),
    ],
)
def test_caps_are_asked_for_tasks_that_generate_text(study, caps):
    plan = studies.drafted(study)
    made, cells = plan["experiments"]["faster-moe-generation"], plan["accuracy"]["lm-eval"]["cells"]
    asked = Counter()
    for row in made["accuracy"]:
        key = f"{row['engine']}/{row['cell']}"
        asked[plan["accuracy"]["lm-eval"]["engines"][row["engine"]]["model"]["name"], cells[key]["task"]["name"]] += 1
    assert asked == {(model, task): n for model, n in caps.items() for task in ("gsm8k", "wikitext")}
    measured = {(r["engine"], plan["cells"][f"{r['engine']}/{r['cell']}"]["workload"]["top_k"]) for r in made["rows"]}
    assert {(row["engine"], row["top_k"]) for row in made["accuracy"]} == measured


def test_what_no_paper_states_is_said():
    """Cells that cannot be one batch, and instruction-tuned checkpoints behind the papers' names."""
    plan = studies.planned("paper")
    cells = {"fig05-topk-batch": ("six", 6), "fig06-batch-length": ("three", 3), "fig16-hardware": ("this cell", 1)}
    for name, (words, split) in cells.items():
        rows = {(r["engine"], r["cell"]) for r in plan["experiments"][name]["rows"]}
        assert sum(plan["cells"]["/".join(key)]["predicted"]["batch_fits"] is False for key in rows) == split
        assert any(words in text.lower() and "invalid" in text for text in plan["experiments"][name]["assumptions"])
    for name in ("fig03-latency-llms", "accuracy-lm", "fig17-accuracy-llms"):
        experiment = plan["experiments"][name]
        rows = plan["experiments"]["fig03-latency-llms"]["rows"]
        hubs = {plan["engines"][row["engine"]]["model"]["source"] for row in rows}
        said = " ".join(experiment["assumptions"])
        assert all(hub.rpartition("/")[2] in said for hub in hubs), name
