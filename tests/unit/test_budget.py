"""What a plan takes, what does not fit, and plans within a budget."""

from __future__ import annotations

import pytest

import studies
from moebench.claims import budget
from moebench.commands import cli
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import ConfigError
from moebench.plan import accuracy_time as accuracy_forecast
from moebench.plan import forecast
from studies import ROOT

CONFIG = Config(ROOT / "config")
PART = ["fig05-topk-batch", "fig06-batch-length", "fig07-09-hyperparameters", "faster-moe-cap", "faster-moe-pool",
        "accuracy-lm", "accuracy-vlm"]  # fmt: skip
"""Experiments of the plans within a budget: they have 34 claims."""
HOURS = 6
"""GPU-hours of the plan within a budget: enough for some claims about accuracy, too few for all claims."""


@pytest.fixture(scope="module")
def paper():
    return studies.planned("paper")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return Config(studies.part(tmp_path_factory.mktemp("part"), "paper", PART))


@pytest.fixture(scope="module")
def whole(config):
    return make_plan(config, "paper")


@pytest.fixture(scope="module")
def small(config):
    return make_plan(config, "paper", budget_gpu_hours=HOURS)


@pytest.fixture(scope="module")
def needs(whole):
    return budget.needs(whole)


# ----------------------------------------------------------------------------------------- forecast


def test_exactly_the_12_shapes_of_figures_7_to_9_cannot_fit(paper):
    unfit = forecast.unfit(paper)
    shapes = {}
    for row in paper["experiments"]["fig07-09-hyperparameters"]["rows"]:
        if row["cell"] in unfit.get(row["engine"], ()):
            shapes.setdefault((row["labels"]["moe_ffn_size"], row["labels"]["experts"]), []).append(
                row["labels"]["top_k"]
            )
    assert {shape: sorted(k) for shape, k in shapes.items()} == {
        shape: [1, 2, 4, 8] for shape in [(7168, 64), (14336, 32), (14336, 64)]
    }
    (line,) = [text for text in forecast.lines(paper, None) if "cannot fit" in text]
    assert line.endswith("(12 of fig07-09-hyperparameters, 1 of fig13-parallelism, 2 of matrix):"), (
        "neither Mixtral nor Phi-3.5-MoE fits one GPU in 16 bits"
    )


def test_only_batches_of_cells_with_a_batch_are_split(paper):
    """Served requests wait for room in the KV cache; their cells do not become invalid."""
    kinds = {
        paper["cells"][f"{e}/{c}"]["protocol"]["kind"] for e, cells in forecast.split(paper).items() for c in cells
    }
    assert kinds == {"trace"} and any(
        c["predicted"]["batch_fits"] is False for c in paper["cells"].values() if c["protocol"]["kind"] == "load"
    )


def test_where_memory_ends(paper):
    rows = {r[0]: r for r in forecast.boundaries(paper)}
    assert set(rows) == {name for name, e in paper["engines"].items() if not e["runtime"]["hosted"]}
    (qwen,) = [r for name, r in rows.items() if name.startswith("qwen1.5-moe-a2.7b-")]
    _, weights, tokens, longest, fits, asked = qwen
    assert (
        (longest, asked) == (4096, 128) and fits == tokens // 4096 < asked and weights == pytest.approx(28.6, abs=0.2)
    )
    assert all(r[4] == 0 for name, r in rows.items() if paper["engines"][name]["predicted"]["fits"] is False)
    short = {(model, gpus): rest for model, gpus, *rest in forecast.tightest(paper)}
    assert short["qwen1.5-moe-a2.7b", 1][2:] == [4096, fits, 128] and short["mixtral-8x7b", 4][3] == 0
    assert set(short) == {(paper["engines"][n]["model"]["name"], paper["engines"][n]["gpus"]) for n in rows}


def test_disk_counts_each_checkpoint_once_and_no_dummies(paper):
    sizes = forecast.checkpoint_bytes(paper)
    (published_in_fp8,) = [size for path, size in sizes.items() if "DeepSeek-V3" in path]
    assert published_in_fp8 == pytest.approx(680e9, rel=0.03), "671 G parameters in FP8 blocks, embeddings in 16 bits"
    mixtral = next(v for k, v in sizes.items() if "Mixtral-8x7B" in k)
    assert mixtral == pytest.approx(93.4e9, rel=0.01)
    only_dummies = {"engines": {k: e for k, e in paper["engines"].items() if e["model"]["weights"] == "dummy"}}
    assert set(forecast.checkpoint_bytes(only_dummies).values()) == {0.0}


def job(gpus, hours):
    return {"gpus": gpus, "expected_s": 3600 * hours}


@pytest.mark.parametrize(
    ("jobs", "gpus", "hours"),
    [
        ([job(1, 2), job(1, 1), job(1, 1)], 1, 4),
        ([job(1, 2), job(1, 1), job(1, 1)], 2, 2),
        ([job(4, 1), job(1, 3)], 4, 4),
        ([job(4, 1), job(1, 3)], 5, 3),
        ([job(4, 1)], 2, None),
        ([], 2, 0),
    ],
)
def test_wall_time_on_n_gpus(jobs, gpus, hours):
    assert forecast.wall_hours({"jobs": dict(enumerate(jobs))}, gpus) == hours


def test_time_and_memory_of_jobs_come_from_the_prediction(paper):
    for name, made in paper["jobs"].items():
        (engine,) = (paper["engines"][e] for e in made["engines"])
        if made["hosted"]:  # nothing is predicted of a service
            continue
        cells = [paper["cells"][f"{name}/{c}"] for c in engine["cells"]]
        if any(c["protocol"]["kind"] in ("activation", "load") for c in cells):
            continue  # as many runs as its corpus has batches, or one after another
        if engine["nodes"] > 1:
            continue  # no time is predicted over the network
        runs = sum(5 + 6 * c["predicted"]["run_s"] for c in cells if c["derived_from"] is None)
        expected = 180 + engine["predicted"]["weight_bytes"] / 1e9 + runs
        assert made["expected_s"] == pytest.approx(expected, abs=0.1)
        assert made["runtime_min"] * 60 >= 3 * expected + 240 and made["mem_mb"] >= 64000 * made["gpus"]
    drafted = [c for c in paper["cells"].values() if paper["engines"][c["engine"]]["config"]["draft_model"]]
    assert drafted and all(c["predicted"]["e2e_s"] is None and c["predicted"]["run_s"] > 0 for c in drafted)
    price, hours = budget.prices(paper), forecast.gpu_hours(paper)
    runs = [c for c in price.runs if c not in paper["cells"] or paper["cells"][c]["derived_from"] is None]
    assert sum(hours.values()) == pytest.approx(price.gpu_hours(runs), rel=1e-4)


# ----------------------------------------------------------------------------------------- accuracy


def test_accuracy_tasks_take_what_their_questions_take(paper):
    """By hand: Mixtral at TP 2 reads 4 x 14,042 MMLU prompts of 700 tokens; prefill is bound by arithmetic, which
    Triton's experts do at 0.58 of the peak; with all else about 0.45 are left."""
    part = paper["accuracy"]["lm-eval"]
    engine = next(name for name in part["engines"] if name.startswith("mixtral-8x7b.tp2-"))
    cells = {part["cells"][f"{engine}/{c}"]["task"]["name"]: part["cells"][f"{engine}/{c}"] for c in
             part["engines"][engine]["cells"]}  # fmt: skip
    active, tokens = 12.9e9, 4 * 14042 * 700
    mmlu = cells["mmlu"]["predicted"]["run_s"] - 60
    assert mmlu == pytest.approx(2 * active * tokens / (2 * 989e12) / 0.45, rel=0.2)
    assert mmlu / (cells["arc-challenge"]["predicted"]["run_s"] - 60) > 100
    spec = part["engines"][engine]["predicted"]
    load = 180 + spec["weight_bytes"] / 1e9
    assert spec["job_s"] == pytest.approx(load + sum(c["predicted"]["run_s"] for c in cells.values()))
    (job,) = (j for j in part["jobs"].values() if j["engines"] == [engine])
    assert job["expected_s"] == round(spec["job_s"], 1) and job["runtime_min"] * 60 >= 3 * 900 * len(cells)


def test_a_part_of_the_questions_takes_a_part_of_the_time(paper):
    cells = paper["accuracy"]["lm-eval"]
    key = next(k for k in cells["cells"] if k.startswith("olmoe-1b-7b") and "mmlu" in k)
    cell, engine = cells["cells"][key], cells["engines"][key.partition("/")[0]]
    hardware = CONFIG.hardware("h100-sxm5-80gb")
    unknown = cell | {"task": cell["task"] | {"size": None}}
    everything, nothing, some = accuracy_forecast.engine_s([cell, unknown, cell | {"limit": 10}], engine, hardware)
    for end in ("", "_low", "_high"):
        assert some[end] == pytest.approx(everything[end] * 570 / 14042, rel=0.01), "a limit is per subject"
    assert everything["_low"] < everything[""] < everything["_high"]
    assert nothing is None
    assert accuracy_forecast.engine_s([cell], engine, CONFIG.hardware("local-cpu")) == [None]


def test_claims_about_accuracy_need_tasks_and_the_speed_they_are_joined_with(needs):
    tasks = {c: {x for x in needs[c] if ":" in x} for c in ("FMOE-02", "MIB-F17-02", "MIB-F18-02")}
    assert len(tasks["FMOE-02"]) == 6 * 6 and len(needs["FMOE-02"] - tasks["FMOE-02"]) == 6 * 4
    assert tasks["MIB-F17-02"] == needs["MIB-F17-02"] and len(tasks["MIB-F17-02"]) == 3 * 8, "no GSM8K, no WikiText"
    assert all(x.startswith("vlmeval:deepseek-vl2") for x in tasks["MIB-F18-02"])


# ------------------------------------------------------------------------------------------- budget


def test_a_budget_keeps_whole_claims_within_it(whole, small, needs):
    assert sum(forecast.gpu_hours(small).values()) <= HOURS
    assert set(small["cells"]) < set(whole["cells"]) and set(small["engines"]) < set(whole["engines"])
    kept = kept_of(small)
    decided = {claim for claim, cells in needs.items() if cells <= kept}
    assert decided == set(small["budget"]["decides"]) and decided | set(small["budget"]["left_out"]) == set(needs)
    kept = set(small["cells"])
    assert len(decided) >= 19 and small["budget"]["cells_left_out"] == len(whole["cells"]) - len(kept)
    assert {f"{e}/{c}" for e, engine in small["engines"].items() for c in engine["cells"]} == kept
    rows = {f"{r['engine']}/{r['cell']}" for x in small["experiments"].values() for r in x["rows"]}
    assert rows == kept and set(small["jobs"]) == set(small["engines"])


def kept_of(plan):
    """Every cell of a plan, as the budget names them."""
    parts = plan["accuracy"].items()
    return {*plan["cells"], *(f"{harness}:{key}" for harness, part in parts for key in part["cells"])}


def test_a_budget_keeps_the_tasks_of_the_claims_it_decides(whole, small, needs):
    kept, decided = kept_of(small), set(small["budget"]["decides"])
    assert {"FMOE-02", "FMOE-04", "MIB-F18-02"} <= decided, "a dozen claims cost more"
    assert all(needs[c] <= kept for c in decided) and kept == set().union(*(needs[c] for c in decided))
    assert small["budget"]["accuracy_cells_left_out"] == len(kept_of(whole)) - len(whole["cells"]) - len(
        kept - set(small["cells"])
    )
    for harness, part in small["accuracy"].items():
        listed = {f"{r['engine']}/{r['cell']}" for x in small["experiments"].values() for r in x.get("accuracy", ())
                  if r["harness"] == harness}  # fmt: skip
        assert listed == set(part["cells"]) and set(part["jobs"]) == set(part["engines"])


def test_cells_keep_their_names_in_a_smaller_plan(whole, small):
    """What was measured within a budget is there when the whole study is measured."""
    assert all(whole["cells"][key]["workload"] == cell["workload"] for key, cell in small["cells"].items())


def test_a_larger_budget_decides_more_and_is_the_same_every_time(whole, small):
    larger = budget.choose(whole, 2 * HOURS)
    assert set(budget.choose(whole, HOURS)["cells"]) == kept_of(small)
    assert len(larger["decides"]) > len(small["budget"]["decides"]) > len(budget.choose(whole, 1)["decides"]) >= 10
    assert budget.prices(whole).gpu_hours(larger["cells"]) <= 2 * HOURS
    everything = budget.choose(whole, 1000)
    assert set(everything["cells"]) == kept_of(whole) and everything["left_out"] == {}


def test_each_claim_left_out_costs_more_than_is_left(whole, small):
    left = HOURS - budget.prices(whole).gpu_hours(kept_of(small))
    assert small["budget"]["left_out"] and min(small["budget"]["left_out"].values()) > left - 0.01


def test_a_budget_for_nothing_is_one_line(whole):
    with pytest.raises(ConfigError, match=r"budget_gpu_hours 0\.001: .*MIB-\S+.* 0\.\d"):
        budget.reduce(whole, 0.001)


def test_figures_that_cannot_be_filled_are_left_out(small):
    ids = {f["id"] for x in small["experiments"].values() for f in x["figures"]}
    assert "fig07" in small["budget"]["figures_left_out"] and "fig07" not in ids and {"fig05", "fig06"} <= ids
    from moebench.figures import check

    check(small)


def test_the_command_says_all_of_it(capsys, monkeypatch, small):
    asked = {}
    monkeypatch.setattr("moebench.commands.planning.make_plan", lambda *_, **given: asked.update(given) or small)
    root = ["--config", str(ROOT / "config"), "--results", "/nowhere"]
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "--study", "paper", "--gpus", "8", "--budget", str(HOURS), *root])
    assert end.value.code == 0 and asked == {"budget_gpu_hours": HOURS}
    out = capsys.readouterr().out
    for words in (
        "GPU-hours at the predicted speed",
        "hours on 8 GPUs",
        "GB of disk for",
        f"within {HOURS} GPU-hours: decides",
        "memory limits",
    ):
        assert words in out
