"""``moebench predict`` and ``calibrate --fit``: tables in, tables out, and nothing fitted that is tested on."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from moebench.commands import fit as fitting
from moebench.commands import own_points, predict
from moebench.commands.cli import main
from moebench.config import Config
from moebench.cost import cells, fit, points
from moebench.cost.params import total_parameters
from moebench.errors import UserError
from moebench.tables import parquet
from studies import ROOT

CONFIG = Config(ROOT / "config")
ROW = {"machine": "H100", "engine": "vllm", "model": "gpt-oss-120b", "precision": "fp4", "tp": 2, "ep": 1, "pp": 1,
       "dp": 1, "batch": 8, "input": 1000, "output": 1000, "metric": "tpot_serving"}  # fmt: skip
MEASURED = [  # InferenceX by ai-dynamo/aiconfigurator (Apache-2.0), commit 095f58a; ms
    ("H100", "gpt-oss-120b", "fp4", 2, 8, "tpot_serving", 6.2),
    ("H100", "gpt-oss-120b", "fp4", 8, 16, "tpot_serving", 4.8),
    ("H200", "gpt-oss-120b", "fp4", 1, 32, "tpot_serving", 17.6),
    ("H200", "gpt-oss-120b", "fp4", 4, 64, "tpot_serving", 9.5),
    ("H100", "llama-3.1-70b", "fp8", 2, 4, "tpot_serving", 17.4),
    ("H100", "llama-3.1-70b", "fp8", 8, 64, "tpot_serving", 15.5),
    ("H200", "llama-3.1-70b", "fp8", 1, 16, "tpot_serving", 24.7),
    ("H200", "llama-3.1-70b", "fp8", 4, 32, "tpot_serving", 14.4),
    ("H200", "minimax-m2.5", "fp8", 8, 8, "tpot_serving", 9.2),
    ("H200", "minimax-m2.5", "fp8", 8, 64, "tpot_serving", 17.8),
    ("H100", "gpt-oss-120b", "fp4", 2, 8, "ttft_serving", 70.1),
    ("H200", "llama-3.1-70b", "fp8", 4, 16, "ttft_serving", 126.2),
    ("H200", "minimax-m2.5", "fp8", 8, 32, "ttft_serving", 149.2),
]


def measured(rows=MEASURED) -> pd.DataFrame:
    names = ("machine", "model", "precision", "tp", "batch", "metric", "value")
    made = pd.DataFrame([ROW | dict(zip(names, row, strict=True)) for row in rows])
    return made.assign(input=1024, output=1024, source="inferencex", unit="ms", protocol="serving")


def csv(tmp_path, rows):
    path = tmp_path / "points.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def run(tmp_path, *changes, **options):
    return predict.run(CONFIG, csv(tmp_path, [ROW | change for change in changes]), **options)[0]


# ------------------------------------------------------------------------------------------ predict


def test_rows_keep_their_columns_and_gain_value_interval_and_kind(tmp_path):
    (row,) = run(tmp_path, {"note": "mine"}).to_dict("records")
    assert row["note"] == "mine" and row["machine"] == "H100"
    assert row["low"] < row["predicted"] < row["high"]
    assert row["kind"].startswith("calibrated (h100-sxm5-80gb, 20")


def test_machines_without_data_are_called_so_and_have_wider_intervals(tmp_path):
    h100, a100, bound = run(tmp_path, {"precision": "bf16", "tp": 8}, {"machine": "A100", "precision": "bf16", "tp": 8},
                            {"machine": "qs-reference", "precision": "bf16", "tp": 8}).to_dict("records")  # fmt: skip
    assert a100["kind"].startswith("calibrated (h100-sxm5-80gb, peaks of a100-sxm4-80gb, ")
    assert a100["predicted"] > h100["predicted"], "less bandwidth, slower links"
    assert bound["kind"] == "bound" and np.isnan(bound["low"])


def test_the_bound_of_a_prefill_counts_experts(tmp_path):
    moe = {"metric": "ttft_static", "precision": "bf16", "model": "qwen3-30b-a3b", "tp": 1, "input": 8000, "batch": 1}
    (made,) = run(tmp_path, moe, bound=True)["predicted"]
    assert made > 2 * 2.9e9 * 8000 / 989e12 * 1e3, "3 billion active parameters, ms"


def test_the_bound_is_below_the_calibrated_value(tmp_path):
    changes = [{"tp": tp, "batch": b, "metric": m} for tp in (2, 8) for b in (1, 64) for m in ("tpot", "ttft")]
    ideal, real = run(tmp_path, *changes, bound=True), run(tmp_path, *changes)
    assert (ideal["predicted"] < real["predicted"]).all() and set(ideal["kind"]) == {"bound"}


@pytest.mark.parametrize(
    ("change", "why"),
    [({"model": "nobody-7b"}, "model nobody-7b: no file"), ({"machine": "MI300X"}, "machine MI300X: no file"),
     ({"machine": "local-cpu"}, "its constants are unknown"), ({"metric": "joules"}, "metric joules"),
     ({"precision": "fp3"}, "precision fp3"), ({"ep": 8}, "ep is 8 on 2 GPUs of a stage")],
)  # fmt: skip
def test_what_nothing_describes_is_named_and_skipped(tmp_path, change, why):
    known, unknown = run(tmp_path, {}, change).to_dict("records")
    assert known["predicted"] > 0 and known["why"] == ""
    assert unknown["kind"] == "none" and np.isnan(unknown["predicted"]) and why in unknown["why"]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"batch": 0}, "row 3: batch is 0"), ({"batch": -1}, "row 3: batch is -1"), ({"input": -5}, "row 3: input is -5"),
     ({"tp": 3}, "row 3: tp is 3"), ({"ep": 256}, "row 3: ep is 256"), ({"output": "many"}, "row 3: output is many")],
)  # fmt: skip
def test_what_no_engine_runs_is_refused_by_file_and_row_and_the_others_are_predicted(tmp_path, capsys, change, said):
    good, wrong = run(tmp_path, {}, change).to_dict("records")
    assert good["predicted"] > 0 and np.isnan(wrong["predicted"]) and wrong["kind"] == "none"
    assert re.search(f"points.csv: {said}[:;] ", wrong["why"])
    with pytest.raises(SystemExit) as left:
        main(["predict", str(tmp_path / "points.csv"), "--config", str(CONFIG.folder)])
    assert left.value.code and said in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_column_is_named(tmp_path):
    path = csv(tmp_path, [{k: v for k, v in ROW.items() if k != "tp"}])
    with pytest.raises(UserError, match=r"points\.csv: column 'tp' is missing"):
        predict.run(CONFIG, path)


def test_more_work_takes_longer_and_throughput_is_tokens_over_time(tmp_path):
    small, large, deep = run(tmp_path, {}, {"batch": 64}, {"input": 30000})["predicted"]
    assert small < large and small < deep
    e2e, rate = run(tmp_path, {"metric": "e2e"}, {"metric": "throughput"})["predicted"]
    assert rate == pytest.approx(8 * 1000 / (e2e / 1000))


def values(tmp_path, *changes):
    return run(tmp_path, *changes)["predicted"].to_numpy()


def test_pruned_capped_and_fp8_cached_models_take_less(tmp_path):
    large = {"model": "qwen3-30b-a3b", "precision": "bf16", "batch": 32, "input": 4000}
    whole, pruned, narrow, capped, cached = values(
        tmp_path, large, large | {"experts": 64}, large | {"expert_ffn": 384}, large | {"top_k": 2},
        large | {"kv_precision": "fp8"},
    )  # fmt: skip
    assert max(pruned, narrow, capped, cached) < whole


def test_speculation_is_predicted_from_a_stated_acceptance(tmp_path):
    target = {"model": "qwen3-30b-a3b", "precision": "bf16", "batch": 1}
    drafted = target | {"draft_model": "qwen3-0.6b", "draft_tokens": 4}
    plain, none, all_ = values(tmp_path, target, drafted | {"acceptance": 0}, drafted | {"acceptance": 1})
    assert all_ == pytest.approx(none / 5, rel=0.05), "five tokens a step instead of one"
    assert none > plain, "drafts that are thrown away"
    (row,) = run(tmp_path, drafted).to_dict("records")
    assert row["kind"] == "none" and row["why"].startswith("speculative decoding: column acceptance is empty")


def test_images_pass_the_vision_tower_and_lengthen_the_prompt(tmp_path):
    text = {"model": "deepseek-vl2-tiny", "precision": "bf16", "metric": "ttft_static", "tp": 1, "input": 100}
    small, large = ({"images": 1, "image_size": edge} for edge in (384, 1000))
    made = values(tmp_path, text, text | small, text | large)
    assert made[0] < made[1] < made[2]
    (row,) = run(tmp_path, text | {"images": 1}).to_dict("records")
    assert row["why"].endswith("column image_size is empty")


def test_experts_are_unevenly_spread_over_ranks(tmp_path):
    """At batch 1 the fullest of eight ranks has more than an eighth of a token's eight experts."""
    one = {"model": "qwen3-30b-a3b", "precision": "bf16", "tp": 8, "batch": 8}
    split, whole = values(tmp_path, one, one | {"ep": 8})
    assert whole > 1.02 * split


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top_k": 129}, "row 2: top_k is 129 of 128 experts"),
        ({"experts": 4}, "row 2: top_k is 8 of 4 experts"),
        ({"experts": -1}, "row 2: experts is -1: give 0 or more"),
        ({"draft_model": "qwen3-0.6b", "draft_tokens": 2, "acceptance": 1.5}, "row 2: acceptance is 1.5"),
        ({"model": "qwen3-8b", "experts": 8}, "row 2: experts is given for qwen3-8b, which has no experts"),
    ],
)
def test_impossible_changes_of_a_model_are_refused(tmp_path, change, said):
    path = csv(tmp_path, [ROW | {"model": "qwen3-30b-a3b", "precision": "bf16"} | change])
    made, known = predict.run(CONFIG, path)
    assert np.isnan(made["predicted"][0])
    with pytest.raises(UserError, match=said):
        known.check()


def test_units_protocols_and_names_of_metrics():
    assert points.metric("ITL", "static", "s") == points.Metric("tpot", False, 1.0)
    assert points.metric("ttft_serving", "static", "ms") == points.Metric("ttft", True, 1e3)
    assert points.metric("output_throughput", "serving", "tokens/s") == points.Metric("throughput", True, 1.0)
    assert points.metric("power", "serving", "W") is None


@pytest.mark.parametrize(
    ("said", "file"),
    [("openai/gpt-oss-120b", "gpt-oss-120b"), ("Llama-3.3-70B-Instruct-FP8", "llama-3.1-70b"),
     ("DeepSeek-R1", "deepseek-v3"),
     ("Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"), ("qwen3-30b", "qwen3-30b-a3b"), ("qwen3", None), ("gpt-5", None)],
)  # fmt: skip
def test_models_are_found_by_what_they_are_called(said, file):
    found = points.model(said, CONFIG)
    assert (found and found[0]) == file


@pytest.mark.parametrize(
    ("said", "file"),
    [("H100", "h100-sxm5-80gb"), ("NVIDIA H200", "h200-sxm-141gb"), ("a100", "a100-sxm4-80gb"),
     ("A100-40GB", "a100-sxm4-40gb"), ("B200", "b200-sxm-180gb"), ("TPU", None)],
)  # fmt: skip
def test_machines_are_found_by_what_they_are_called(said, file):
    found = points.machine(said, CONFIG)
    assert (found and found.name) == file


@pytest.mark.parametrize("name", [n for n in CONFIG.names("shapes") if CONFIG.shapes()[n].architecture])
def test_sizes_of_shapes_add_up_to_what_is_published(name):
    shape = CONFIG.shapes()[name]
    assert total_parameters(shape.architecture).total == pytest.approx(shape.published.total_parameters, rel=0.02)


def test_the_verb_prints_rows_and_errors(tmp_path, capsys):
    measured().to_csv(tmp_path / "points.csv", index=False)
    with pytest.raises(SystemExit) as left:
        main(["predict", str(tmp_path / "points.csv"), "--config", str(CONFIG.folder)])
    out, err = capsys.readouterr()
    assert left.value.code == 0 and len(out.splitlines()) == 1 + len(MEASURED)
    assert "13 of 13 rows predicted" in err
    for word in ("by source", "by model", "by tp", "by batch", "llama-3.1-70b"):
        assert word in err
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path / "points.csv"), "--config", str(CONFIG.folder), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == len(MEASURED) and found["rows"][0]["kind"].startswith("calibrated")
    assert {metric: e["points"] for metric, e in found["errors"].items()} == {"tpot_serving": 10, "ttft_serving": 3}


def test_quoted_serving_times_are_met_as_docs_say():
    """10 TPOTs and 3 TTFTs of the 696 points that the constants were fitted on."""
    known = points.read(measured(), CONFIG)
    made = np.full(len(MEASURED), np.nan)
    for batch in known.batches:
        made[batch.rows] = predict.calibrated_values(batch, batch.hardware)
    off = np.abs(made / measured()["value"] - 1)
    tpot = (measured()["metric"] == "tpot_serving").to_numpy()
    assert np.median(off[tpot]) < 0.10 and off[tpot].max() < 0.2
    assert off[~tpot].max() < 0.35


# ---------------------------------------------------------------------------------------------- fit


def test_no_configuration_is_on_both_sides_of_a_split():
    frame = pd.concat([measured(), measured()], ignore_index=True)  # repeats stay together
    key = frame[[c for c in fit.CONFIGURATION if c in frame]].astype(str).agg("|".join, axis=1)
    made = list(fit.splits(frame))
    assert {(s.kind, s.left_out) for s in made} == {
        *(("seen", f"half at random, seed {n}") for n in range(5)), ("machine", "H100"), ("machine", "H200"),
        ("model", "gpt-oss-120b"), ("model", "llama-3.1-70b"), ("model", "minimax-m2.5"), ("source", "inferencex"),
    }  # fmt: skip
    assert len({tuple(s.test) for s in made if s.kind == "seen"}) > 1, "halves differ"
    for split in made:
        assert not set(split.train) & set(split.test) and len(split.train) + len(split.test) == len(frame)
        assert not set(key[split.train]) & set(key[split.test])
        if split.kind != "seen":
            assert split.left_out not in set(frame[split.kind].iloc[split.train])
    assert [list(s.test) for s in fit.splits(frame)] == [list(s.test) for s in made], "seeds are fixed"


def test_a_left_out_machine_or_shape_takes_its_kernel_times_along():
    row = {"machine": "H100", "hidden_size": 2880, "inter_size": 2880, "num_experts": 128}
    moe = pd.DataFrame([row, row | {"machine": "H200"}, row | {"num_experts": 32}])
    others = [moe[["machine"]]] * 4
    tables = fit.Tables(moe, *others)
    assert set(tables.without(machine="H100").moe["machine"]) == {"H200"}
    assert set(tables.without(machine="H100").reduces["machine"]) == {"H200"}
    assert list(tables.without(shape=(2880, 2880, 128)).moe["num_experts"]) == [32]


def test_a_fit_finds_the_constants_that_made_the_points():
    """Points made by the model, of every layout and batch: met within 4%, and the layer's time."""
    rows = [(m, model, p, tp, b, metric, 1.0) for m in ("H100", "H200") for model, p in
            (("gpt-oss-120b", "fp4"), ("llama-3.1-70b", "fp8")) for tp in (2, 4, 8) for b in (4, 16, 64)
            for metric in ("tpot_serving", "ttft_serving")]  # fmt: skip
    frame, given = measured(rows), fitting.known(CONFIG)
    truth = fit.Model(given.constants | {"layer_s": 40e-6, "sequence_s": 8e-6, "request_s": 30e-3}, given.reduces)
    frame["value"] = truth.predict(points.read(frame, CONFIG))
    made = fit.fit(points.read(frame, CONFIG), {n: given.constants[n] for n in fit.KERNEL}, given.reduces)
    off = np.abs(made.predict(points.read(frame, CONFIG)) / frame["value"] - 1)
    assert np.median(off) < 0.04
    assert made.constants["request_s"] == pytest.approx(30e-3, rel=0.12), "held near its prior, 10 ms"


def test_errors_and_factors_by_hand():
    made = fit.errors([10.0, 10.0, 10.0, np.nan], [11.0, 12.0, 9.0, 5.0])
    assert made["points"] == 3 and made["median"] == pytest.approx(0.1) and made["bias"] == pytest.approx(0.1)


def left(values, groups, kind="model"):
    """Left-out points that were all predicted as 1."""
    return pd.DataFrame({"metric": "tpot_serving", "kind": kind, "value": values, "predicted": 1.0, "left_out": groups,
                         "batch": np.arange(len(values))})  # fmt: skip


def test_an_interval_is_stretched_until_it_holds_models_that_it_was_not_made_from():
    alike = np.tile(np.exp(np.linspace(-0.1, 0.1, 11)), 2)
    low, high, inside = fit.interval(left(alike, ["a"] * 11 + ["b"] * 11))
    assert (low, high) == pytest.approx((np.exp(-0.08), np.exp(0.08))) and inside >= 0.8, "10th and 90th percentile"
    apart = alike * np.repeat([1.2, 1 / 1.2], 11)
    low, high, inside = fit.interval(left(apart, ["a"] * 11 + ["b"] * 11))
    assert low < np.quantile(apart, 0.02) and high > np.quantile(apart, 0.98)
    biased = fit.interval(left(np.full(8, 1.3), ["a"] * 4 + ["b"] * 4))
    assert biased == pytest.approx((1.0, 1.3, 1.0)), "the prediction itself is inside"
    assert fit.factors(left(alike, "half", "seen"))["tpot"]["seen"] == pytest.approx((0.92, 1.09), abs=0.02)


def test_predict_prints_how_many_values_lie_inside_their_interval(tmp_path):
    (row,) = run(tmp_path, {}).to_dict("records")
    values = [ROW | {"value": v} for v in (row["predicted"], row["predicted"], row["predicted"], row["high"] * 1.01)]
    made, _ = predict.run(CONFIG, csv(tmp_path, values))
    (line,) = [text for text in predict.report(made).splitlines() if text.strip().startswith("gpt-oss-120b")]
    assert line.endswith(" 75%")


def test_sources_are_left_out_and_without_the_only_one_priors_predict():
    two = measured().assign(source=["mine", "inferencex"] * 6 + ["mine"])
    assert {s.left_out for s in fit.splits(two) if s.kind == "source"} == {"mine", "inferencex"}
    given = fitting.known(CONFIG)
    (split,) = [s for s in fit.splits(measured()) if s.kind == "source"]
    assert split.left_out == "inferencex" and not len(split.train) and len(split.test) == len(MEASURED)
    model = fit.prior({n: given.constants[n] for n in fit.KERNEL}, given.reduces)
    off = np.abs(model.predict(points.read(measured(), CONFIG)) / measured()["value"] - 1)
    assert np.median(off) < 0.15, "no served point, kernel tables and priors only"


def test_an_interval_is_the_widest_of_what_applies():
    factors = {"seen": (0.9, 1.1), "model": (0.95, 1.3), "machine": (0.8, 1.05), "source": (0.99, 1.4)}
    h100 = CONFIG.hardware("h100-sxm5-80gb")
    own = h100.model_copy(update={"fitted": h100.fitted.model_copy(update={"factors": {"tpot": factors}})})
    other = own.model_copy(update={"fitted": own.fitted.model_copy(update={"like": "h100-sxm5-80gb"})})
    assert cells.interval(own, "tpot", "minimax-m2") == (0.9, 1.1)
    assert cells.interval(own, "tpot", "mixtral-8x7b") == (0.95, 1.3)
    assert cells.interval(other, "tpot", "mixtral-8x7b") == (0.8, 1.3)
    assert cells.interval(own, "tpot", "minimax-m2", vllm=False) == (0.8, 1.4)


def test_published_routing_follows_the_power_law_and_is_the_fullest_rank_s():
    keys = ("num_experts", "topk", "num_tokens", "moe_ep_size")
    rows = pd.DataFrame([(256, 8, 1, 1), (256, 8, 64, 1), (128, 4, 1024, 8)], columns=keys)
    distinct, routed = fit.routing(rows)
    assert (distinct[0], routed[0]) == (8, 8) and routed[1] == 512
    assert 170 < distinct[1] < 195, "222 of uniform routing"
    assert routed[2] > 1.4 * 512 and distinct[2] <= 16
    few = pd.DataFrame([(256, 8, 1, 8), (256, 8, 4, 1)], columns=keys)
    assert 2 < fit.routing(few)[0][0] < 3, "one token's experts are spread over ranks"
    assert fit.routing(few)[0][1] == 32, "few tokens meet on few experts"


def test_servers_are_started_as_columns_or_a_source_s_scripts_say(tmp_path):
    short = {"metric": "ttft", "tp": 8}
    ours, theirs, cut = values(tmp_path, short, short | {"source": "inferencex"}, short | {"graph_tokens": 2048})
    assert theirs < ours and cut < ours, "a prefill of 1000 tokens is a replayed graph"
    whole, piecewise = values(tmp_path, {}, {"piecewise": 1})
    assert piecewise > whole


def test_published_reduces_count_elements_and_thin_to_every_second_size():
    rows = [{"machine": "H100", "backend": f"vllm_{b}", "num_gpus": 2, "elements_or_bytes_as_published": n,
             "us": n / 10} for b in ("graph", "eager") for n in (128, 256, 512)]  # fmt: skip
    table = fit.reduce_table(pd.DataFrame(rows), "here")
    assert table.message_bytes == (256.0, 1024.0) and table.graph_us == {2: (12.8, 51.2)}


def test_own_tables_are_points(rich, tmp_path):
    """Good cells of the study's tables: TTFT of the batch and ITL, with the knobs that the model knows."""
    _, _, folder = rich
    table = parquet.read(folder, "measurements")
    frame = own_points.load(folder)
    assert set(frame["metric"]) <= {"ttft_static", "tpot_static"} and set(frame["unit"]) == {"s"} and len(frame)
    good = table[(table["status"] == "ok") & (table["expert_kernel"] == "fused") & (table["pruning"] == "none")]
    assert set(frame["value"]) <= {*good["ttft_max_s"].dropna(), *good["itl_s"].dropna()}
    assert {"ep", "precision", "kv_precision", "top_k", "source"} <= set(frame)
    assert predict.run(CONFIG, folder)[0]["why"].str.startswith("model mixtral-tiny: no file").any()
    renamed = frame.assign(model="mixtral-8x7b", machine="H100", tp=2, pp=1, dp=1, ep=1, images=0, draft_tokens=0)
    renamed.to_csv(tmp_path / "own.csv", index=False)
    made, _ = predict.run(CONFIG, tmp_path / "own.csv")
    assert made["kind"].str.startswith("calibrated (h100-sxm5-80gb").all()
    with pytest.raises(UserError, match="no row has a value and a known model, machine"):
        fitting.run(CONFIG, folder, None, False, None)


def test_fit_prints_the_protocol_and_writes_constants_that_predict(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "SEEDS", (0,))  # a fit each
    config = tmp_path / "config"
    for kind in ("hardware", "families", "models", "shapes"):
        shutil.copytree(CONFIG.folder / kind, config / kind)
    measured().to_csv(tmp_path / "mine.csv", index=False)
    before = (config / "hardware/h100-sxm5-80gb.yaml").read_text()
    text = fitting.run(Config(config), tmp_path / "mine.csv", None, True, None)
    for word in (
        "half at random",
        "minimax-m2.5",
        "H200",
        "by tp",
        "by batch",
        "by precision",
        "13 serving points of mine.csv",
    ):
        assert word in text
    after = (config / "hardware/h100-sxm5-80gb.yaml").read_text()
    assert after.partition("\nfitted:")[0] == before.partition("\nfitted:")[0].rstrip("\n")
    again = Config(config).hardware("h100-sxm5-80gb").fitted
    assert again.all_reduce == CONFIG.hardware("h100-sxm5-80gb").fitted.all_reduce
    assert again.constants["expert_bytes"] == CONFIG.hardware("h100-sxm5-80gb").fitted.constants["expert_bytes"]


@pytest.mark.parametrize(("drop", "said"), [("value", "column 'value' is missing"), ("tp", "column 'tp' is missing")])
def test_a_fit_without_a_column_says_which(tmp_path, drop, said):
    measured().drop(columns=drop).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(UserError, match=said):
        fitting.run(CONFIG, tmp_path / "mine.csv", None, False, None)
