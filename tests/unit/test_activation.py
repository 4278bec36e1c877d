"""Evenness of expert use against hand-computed values and its bounds; counts to tables; phases of engine steps."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest

import studies
import synthetic
from moebench import columns
from moebench.claims import collect
from moebench.commands.data_sets import data_of
from moebench.commands.planning import make_plan
from moebench.commands.snakefile import staged_files
from moebench.config import Config
from moebench.engines.vllm_phases import Phases
from moebench.errors import ConfigError
from moebench.measure import records
from moebench.measure.activation import Counts, count
from moebench.tables import evenness, parquet
from studies import folder, write

# ---------------------------------------------------------------------------------------- formulas


def test_gini_by_hand():
    # Pairs of (1, 2, 3, 4): |differences| sum to 20 over 16 ordered pairs, mean count 2.5: 20 / 16 / 5.
    assert evenness.gini([3, 1, 4, 2]) == pytest.approx(0.25)
    assert evenness.gini([0, 0, 10, 10]) == pytest.approx(0.5)


def test_entropy_by_hand():
    assert evenness.entropy([4, 2, 1, 1]) == pytest.approx(1.75)  # 1/2 x 1 + 1/4 x 2 + 2 x 1/8 x 3
    assert evenness.entropy([5, 5, 0, 0]) == pytest.approx(1.0)


def test_the_other_numbers_by_hand():
    row = evenness.evenness([4, 2, 1, 1], top_k=2)
    assert row["max_over_mean"] == 2 and row["most_activations"] == 4
    assert row["activation_cv"] == pytest.approx(math.sqrt(1.5) / 2)  # deviations 2, 0, -1, -1: variance 6/4
    assert row["entropy_share"] == pytest.approx(1.75 / 2)
    assert row["predicted_gini"] == pytest.approx(math.sqrt((1 - 2 / 4) / (math.pi * 2)))  # 4 tokens, mean count 2


@pytest.mark.parametrize("experts", [1, 2, 8, 60, 128])
def test_even_use_and_one_expert_are_the_ends(experts):
    even, one = [7] * experts, [0] * (experts - 1) + [42]
    assert evenness.gini(even) == pytest.approx(0, abs=1e-12)
    assert evenness.entropy(even) == pytest.approx(math.log2(experts))
    assert evenness.max_over_mean(even) == 1 and evenness.variation(even) == 0
    assert evenness.gini(one) == pytest.approx(1 - 1 / experts)
    assert evenness.entropy(one) == 0 and evenness.max_over_mean(one) == pytest.approx(experts)


@pytest.mark.parametrize("seed", range(20))
def test_evenness_depends_on_shares_alone_and_stays_within_its_ends(seed):
    rng = random.Random(seed)
    counts = [rng.randrange(1000) for _ in range(rng.randrange(2, 130))] + [1]
    shuffled = rng.sample(counts, len(counts))
    for measure in (evenness.gini, evenness.entropy, evenness.max_over_mean, evenness.variation):
        assert measure(counts) == pytest.approx(measure(shuffled)) == pytest.approx(measure([3 * c for c in counts]))
    pairs = sum(abs(a - b) for a in counts for b in counts)
    assert evenness.gini(counts) == pytest.approx(pairs / (2 * len(counts) * sum(counts)))  # by its definition
    assert 0 <= evenness.gini(counts) <= 1 - 1 / len(counts)
    assert 0 <= evenness.entropy(counts) <= math.log2(len(counts)) + 1e-9
    # Taking from the poorest for the richest makes it less even.
    worse = sorted(counts)
    worse[-1] += 1
    worse[next(i for i, c in enumerate(worse) if c)] -= 1
    assert evenness.gini(worse) > evenness.gini(counts) and evenness.entropy(worse) < evenness.entropy(counts)


@pytest.mark.parametrize(("experts", "top_k", "tokens"), [(8, 2, 400), (64, 8, 500), (60, 4, 1000), (128, 8, 300)])
def test_chance_alone_gives_the_predicted_gini_and_distinct_experts(experts, top_k, tokens):
    rng = np.random.default_rng(0)
    chosen = rng.random((40, tokens, experts)).argpartition(top_k, axis=-1)[..., :top_k]
    ginis = [evenness.gini(np.bincount(run.ravel(), minlength=experts)) for run in chosen]
    assert np.mean(ginis) == pytest.approx(evenness.gini_by_chance(experts, top_k, tokens), rel=0.08)
    work = {"batch": 5, "top_k": top_k}
    law = evenness.uniform_law(experts, work, {"draft_model": None})
    seen = [len(np.unique(step)) for run in chosen for step in run[: tokens // 5 * 5].reshape(-1, 5 * top_k)]
    assert np.mean(seen) == pytest.approx(law["predicted_distinct_experts"], rel=0.01)
    assert law["predicted_distinct_experts_share"] == law["predicted_distinct_experts"] / experts


def test_the_uniform_law_counts_draft_tokens_and_is_silent_about_dense_models():
    drafted = evenness.uniform_law(8, {"batch": 3, "top_k": 2}, {"draft_model": "d", "draft_tokens": 2})
    assert drafted == evenness.uniform_law(8, {"batch": 9, "top_k": 2}, {"draft_model": None})
    nothing = {"predicted_distinct_experts": None, "predicted_distinct_experts_share": None}
    assert evenness.uniform_law(None, {"batch": 3, "top_k": None}, {}) == nothing


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [[1, 2]]])
def test_no_counts_are_refused(counts):
    with pytest.raises(ValueError, match="counts must be"):
        evenness.gini(counts)


# ------------------------------------------------------------------------------------------ phases


def scheduled(new: dict[str, tuple[int, int]], tokens: dict[str, int]):
    """A step of vLLM's scheduler: new requests as prompt length and tokens computed before; tokens per request."""
    requests = [SimpleNamespace(req_id=n, prompt_token_ids=[0] * p, num_computed_tokens=c) for n, (p, c) in new.items()]
    return SimpleNamespace(scheduled_new_reqs=requests, num_scheduled_tokens=tokens)


def layer(counts_by_phase, steps):
    """A layer as the engine captures it; steps: (phase, tokens, distinct)."""
    whole = np.sum(list(counts_by_phase.values()), axis=0).tolist()
    return {"counts": whole, "phases": counts_by_phase, "steps": [[t, d] for _, t, d in steps],
            "step_phases": [p for p, _, _ in steps]}  # fmt: skip


BATCH = {
    1: layer({"prefill": [3, 1, 2, 0], "decode": [1, 1, 0, 2]}, [("prefill", 3, 3), *[("decode", 1, 2)] * 2]),
    2: layer({"prefill": [0, 0, 3, 3], "decode": [2, 0, 0, 2]}, [("prefill", 3, 2), *[("decode", 1, 2)] * 2]),
}  # fmt: skip
"""One request of three prompt and three generated tokens, top-2 of four experts, layers 1 and 2."""


def test_counts_of_batches_are_summed():
    total = Counts()
    total.add(BATCH)
    total.add(BATCH)
    assert total.as_json() == {
        "layers": [1, 2],
        "counts": {"prefill": [[6, 2, 4, 0], [0, 0, 6, 6]], "decode": [[2, 2, 0, 4], [4, 0, 0, 4]]},
        "steps": {"prefill": [[3, 2, [6, 4]]], "decode": [[1, 4, [8, 8]]]},
    }
    assert total.distinct(1) == [2.0, 2.0] and total.distinct(3) == [None, None]


class Replay:
    """An engine that replays what was captured once."""

    def __init__(self, captured, can=True):
        self.layers, self.can, self.asked = captured, can, []

    def capture(self, on):
        self.asked.append(on)
        return self.can

    def trace(self, prompts, output_tokens):
        return {"step_end_s": [0.0] * output_tokens, "requests": [[[0, output_tokens, 1]]] * len(prompts)}

    def captured(self):
        return self.layers


WORK = {"batch": 1, "input_tokens": 8, "output_tokens": 3, "images": 0}


def test_counting_says_what_passed_and_what_was_chosen():
    counted, checks, runs = count(Replay(BATCH), WORK, [(7, {"prompts": [[0, 0, 0]]})], 0)
    assert {k: counted[k] for k in ("prompts", "prompt_tokens", "output_tokens", "batches")} == {
        "prompts": 1, "prompt_tokens": 3, "output_tokens": 3, "batches": 1}  # fmt: skip
    assert counted["image_tokens"] == 0
    assert checks == {"experts_per_token": 2, "distinct_experts": [2.0, 2.0], "moe_layers": 2}
    assert runs[0]["seed"] == 7 and runs[0]["metrics"] == {"distinct_experts": 2.0, "distinct_experts_share": 0.5}


def test_a_lost_count_is_seen():
    lost = {1: BATCH[1], 2: BATCH[2] | {"counts": [2, 0, 3, 4]}}
    _, checks, _ = count(Replay(lost), WORK, [(0, {"prompts": [[0, 0, 0]]})], 0)
    assert checks["experts_per_token"] == [1.8, 2.0]  # the worker calls that invalid


def test_an_engine_that_cannot_count_is_unsupported_and_capture_always_ends():
    engine = Replay(BATCH, can=False)
    with pytest.raises(NotImplementedError, match="protocol activation is not supported"):
        count(engine, WORK, [(0, {"prompts": [[0]]})], 0)
    assert engine.asked == [True, False]


def test_phases_follow_the_scheduler():
    phase = Phases(SimpleNamespace(execute_model=lambda *a: None), True)
    seen = []
    for step in (
        scheduled({"a": (5, 0), "b": (4, 0)}, {"a": 5, "b": 1}),
        scheduled({}, {"a": 1, "b": 2}),
        scheduled({"c": (6, 5)}, {"a": 1, "b": 1, "c": 1}),
        scheduled({}, {"a": 3, "b": 1, "c": 1}),
    ):
        phase.see(step)
        seen.append(phase.now)
    assert seen == ["prefill", "mixed", "mixed", "decode"]


def test_watching_ends_and_does_not_pile_up():
    ran = []
    runner = SimpleNamespace(execute_model=ran.append)
    own, step = runner.execute_model, scheduled({"a": (1, 0)}, {"a": 1})
    first, second = Phases(runner, True), Phases(runner, True)
    runner.execute_model(step)
    assert (first.now, second.now, ran) == ("", "prefill", [step])
    Phases(runner, False)
    assert runner.execute_model is own


# ------------------------------------------------------------------------------------------ tables


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Tables of a study of two cells, one counted, one that failed."""
    root = tmp_path_factory.mktemp("collected")
    plan = synthetic.Plan(kind="activation", repeats=2)
    plan.experiment("maps")
    ids = [plan.add("maps", {"batch": b}, {"batch": b}, model="mixtral-tiny") for b in (1, 2)]
    total = Counts()
    total.add(BATCH)
    runs = [
        {"seed": 1, "metrics": {"distinct_experts": 2.0, "distinct_experts_share": 0.5}},
        {"seed": 2, "metrics": {}},
    ]
    counted = {"prompts": 1, "prompt_tokens": 3, "output_tokens": 3, "batches": 1} | total.as_json()
    made = synthetic.record(plan.data, *ids[0], repeats=runs, warmup=[], activation=counted)
    records.store(root, made)
    records.store(root, synthetic.record(plan.data, *ids[1], status="invalid", activation=counted))
    collect.collect(plan.write(root), root, root / "tables")
    return root / "tables"


def test_every_count_is_in_the_tables(collected):
    found = parquet.read(collected, "activation")
    assert len(found) == 2 * 4 * 3  # layers, experts, phases and their sum; nothing of the invalid cell
    at = found.set_index(["phase", "layer", "expert"])
    assert at.loc[("decode", 1), "activations"].tolist() == [1, 1, 0, 2]
    assert at.loc[("all", 1), "activations"].tolist() == [4, 2, 2, 2]
    assert at.loc[("all", 1), "relative_activation"].tolist() == pytest.approx([1.6, 0.8, 0.8, 0.8])
    shares = found.groupby(["phase", "layer"])["activation_share"].sum()
    assert shares.tolist() == pytest.approx([1.0] * 6)


def test_numbers_per_layer_and_per_cell(collected):
    layers = parquet.read(collected, "activation_layers").set_index(["phase", "layer"])
    passed = {"all": 5, "prefill": 3, "decode": 2}
    assert layers["layer_tokens"].to_dict() == {(phase, n): tokens for phase, tokens in passed.items() for n in (1, 2)}
    assert layers.loc[("prefill", 2), "gini"] == pytest.approx(0.5)
    cell = parquet.read(collected, "measurements").sort_values("batch").iloc[0]
    assert cell["gini"] == pytest.approx((layers.loc[("all", 1), "gini"] + layers.loc[("all", 2), "gini"]) / 2)
    assert (cell["most_activations"], cell["distinct_experts"], cell["n_repeats"]) == (5, 2.0, 1)
    assert np.isnan(cell["e2e_s"])


def test_distinct_experts_stand_beside_the_uniform_law(collected):
    steps = parquet.read(collected, "activation_steps").set_index(["phase", "layer"])
    assert steps.loc[("prefill", 1), "step_distinct_experts"] == 3
    assert steps.loc[("prefill", 1), "step_distinct_experts_uniform"] == pytest.approx(4 * (1 - 0.5**3))
    assert steps.loc[("decode", 2), ["step_tokens", "steps"]].tolist() == [1, 2]


def test_evenness_columns_are_registered():
    for name in (*columns.EVENNESS, "predicted_gini"):
        assert columns.COLUMNS[name].tables == ("measurements", "activation_layers")


# ---------------------------------------------------------------------------------------- planning

FIX = {"model": "tiny-mixtral", "batch": 2, "input_tokens": 8, "output_tokens": 4}
COUNTING = {"protocol": {"kind": "activation", "seed": 1}}


def planned(where, fix, corpora=(), **more):
    config = folder(where, {"one": {"blocks": [{"fix": FIX | fix}], **more}})
    for corpus in corpora:
        write(config / "corpora" / f"{corpus['name']}.yaml", corpus)
    return make_plan(Config(config), "test")


def test_what_cannot_be_counted_is_refused(tmp_path):
    for number, (fix, more, text) in enumerate((
        ({"eager": False}, COUNTING, "protocol activation needs eager: true"),
        ({"model": "tiny-qwen3-draft-4b"}, COUNTING, "tiny-qwen3-draft-4b is dense, it has no experts"),
        ({"prompts": "items"}, {}, "which only protocol activation supports; use text"),
        ({"requests": 4}, {}, "requests 4: only the protocols activation and load use it"),
        ({"corpus": "wiki"}, {}, "unknown corpus 'wiki'"),
    )):  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            planned(tmp_path / str(number), fix, **more)


def corpus(**more):
    return {"name": "wiki", "title": "Wiki", "file": "data/wiki.jsonl", "reference": "test"} | more


def cell_of(plan):
    (key,) = plan["cells"]
    return key


def test_a_cell_is_identified_by_what_its_corpus_holds(tmp_path):
    fix = {"corpus": "wiki"}
    keys = [
        cell_of(planned(tmp_path / str(n), fix, [corpus(**more)]))
        for n, more in enumerate(({}, {"sha256": "0" * 64}, {"sha256": "1" * 64}, {"field": "question"},
                                  {"file": "elsewhere/w.jsonl", "title": "Other"}))
    ]  # fmt: skip
    assert keys[0] == keys[4] and len(set(keys)) == 4 and ".wiki-" in keys[0]
    plan = planned(tmp_path / "spec", fix, [corpus()])
    (engine,) = plan["engines"].values()
    assert engine["corpora"]["wiki"]["file"] == "data/wiki.jsonl"


def test_images_of_a_corpus_are_its_own_and_belong_to_its_items(tmp_path):
    pictures = {"name": "wiki", "title": "W", "table": "mme", "data": "fixtures", "field": "question", "reference": "t"}
    seen = {"model": "tiny-llava-moe-s", "corpus": "wiki", "prompts": "items", "images": 1}
    plan = planned(tmp_path / "good", seen, [pictures], **COUNTING)
    (cell,) = plan["cells"].values()
    assert ".wiki.img1.activation-" in cell["cell"] and cell["predicted"]["image_tokens"] == 16 + 9 * 4 * 5
    assert [d["id"] for d in data_of(plan).values()] == ["MME"], "staging brings it"
    (job,) = plan["jobs"].values()
    assert f"{next(iter(data_of(plan)))}/moebench-stage.json" in staged_files(
        plan["engines"][e] for e in job["engines"]
    )
    for number, (fix, about, words) in enumerate((
        ({"image_size": 56}, pictures, "corpus wiki has an image for each item: set images: 1"),
        ({"images": 2, "max_model_len": 512}, pictures, "corpus wiki has an image for each item"),
        ({"prompts": "text"}, pictures, "corpus wiki has an image for each item"),
        ({"image_size": 56}, corpus(), "corpus wiki is text, and generated images would look like its own"),
        ({}, pictures | {"table": "boolq"}, "task boolq has no table of questions with images"),
        ({}, pictures | {"table": None}, "give file or table, one of the two"),
        ({}, pictures | {"sha256": "0" * 64}, "sha256 is for a file"),
        ({}, corpus(data="fixtures"), "data is for a table"),
    )):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            planned(tmp_path / str(number), seen | fix, [about], **COUNTING)


def test_the_paper_study_plans_every_model_of_figure_15(tmp_path):
    plan = make_plan(Config(studies.part(tmp_path, "paper", ["fig15-activation", "accuracy-vlm"])), "paper")
    rows = plan["experiments"]["fig15-activation"]["rows"]
    cells = [plan["cells"][f"{r['engine']}/{r['cell']}"] for r in rows]
    mme = [c for c in cells if c["workload"]["corpus"] == "mme"]
    names = {plan["engines"][c["engine"]]["model"]["name"] for c in mme}
    assert names == {"deepseek-vl2-tiny", "deepseek-vl2-small", "deepseek-vl2"} and len(mme) == 3
    (molmoe,) = plan["experiments"]["fig15-activation"]["unsupported"]
    assert molmoe["model"]["name"] == "molmoe-1b" and "vLLM" in molmoe["reason"]
    for cell in mme:  # the very table that the accuracy of these models is asked on, every question with its image
        engine = plan["engines"][cell["engine"]]
        asked = [c["task"]["data"] for c in plan["accuracy"]["vlmeval"]["cells"].values() if c["task"]["name"] == "mme"]
        assert engine["corpora"]["mme"]["table"] == {"task": "mme"} | asked[0]
        assert (cell["workload"]["images"], cell["workload"]["image_size"], cell["workload"]["requests"]) == (
            1,
            None,
            2374,
        )
        assert cell["predicted"]["image_tokens"] == (None if "molmoe" in engine["id"] else 2101)
    assert {c["protocol"]["kind"] for c in cells} == {"activation"} and len(cells) == 3 + 6 * 4
