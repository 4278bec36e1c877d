"""The qs inequality: identities, the printed tables three times, the search over layouts, the verb."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import studies
from moebench.commands.cli import main
from moebench.commands.planning import make_plan
from moebench.config import ComputedKnobs, Config, EngineKnobs
from moebench.cost import memory, roofline
from moebench.cost.inputs import Formats, Layout, Machine, Sizes
from moebench.qs import inequality, layout_search, paper_tables, printed_formulas, show, versus_dense

CONFIG = Config(Path(__file__).parents[2] / "config")
REFERENCE = CONFIG.hardware("qs-reference")
PAPER = CONFIG.paper("qs-inequality", "test")
ENGINE = EngineKnobs(model="deepseek-v3", quantization="fp8")
FORMATS, MACHINE = Formats.of(CONFIG.model("deepseek-v3").architecture, ENGINE), Machine.of(REFERENCE, ENGINE)


def sizes(name: str) -> Sizes:
    return Sizes.of(CONFIG.model(name).architecture)


# -------------------------------------------------------------------------------------- the inequality


def test_equations_15_and_16():
    assert float(inequality.quality_factor(2.34, 2.12)) == pytest.approx(3.67, abs=0.005)
    assert float(inequality.quality_factor(2.60, 2.29)) == pytest.approx(5.31, abs=0.005)


@pytest.mark.parametrize(
    ("name", "batch", "without_shared"),
    [
        ("deepseek-v3", 5.94, 5.35),
        ("deepseek-v2-lite", 9.15, 6.43),
        ("qwen1.5-moe-a2.7b", 13.28, 5.88),
        ("llama-4-scout-17b-16e", 12.81, 5.81),
        ("qwen3-235b-a22b", 5.81, 5.81),
        ("olmoe-1b-7b", 7.35, 7.35),
        ("mixtral-8x7b", None, None),
        ("grok-1", None, None),
    ],
)
def test_break_even_batch(name, batch, without_shared):
    """Where the experts that a step reads, shared ones too, are as many bytes as the dense model's block."""
    model = sizes(name)
    s, rho = float(model.top_k / model.experts), float(inequality.shared_over_routed(model))
    found = float(inequality.break_even_batch(5, s, rho))
    if batch is None:
        assert found == float("inf") and (inequality.traffic_ratio(5, s, [1, 10, 1e6], rho) <= 1).all()
        return
    assert (found, float(inequality.break_even_batch(5, s))) == pytest.approx((batch, without_shared), abs=0.01)
    assert float(inequality.traffic_ratio(5, s, found, rho)) == pytest.approx(1)
    distinct = float(roofline.distinct_experts(model.experts, model.top_k, found))
    dense, plain = inequality.dense_equivalent(model, 5), float((model.layers - model.sparse) * model.dense_ffn)
    read = float(model.sparse * (distinct * model.expert + model.shared))
    assert read == pytest.approx(float(dense.layers * dense.dense_ffn) - plain)


@pytest.mark.parametrize("name", ["qwen1.5-moe-a2.7b", "deepseek-v2-lite", "olmoe-1b-7b"])
def test_the_cost_models_memory_times_cross_at_the_break_even_batch(name):
    model, over = sizes(name), {}
    first = float(inequality.break_even_batch(5, model.top_k / model.experts, inequality.shared_over_routed(model)))
    for batch in (np.floor(first), np.ceil(first)):
        moe, dense = (inequality.serve(m, FORMATS, Layout(), MACHINE, 1e12, 64, batch) for m in (
            model, inequality.dense_equivalent(model, 5)))  # fmt: skip
        over[batch > first] = float(moe.memory_s / dense.memory_s)
    assert over[False] < 1 < over[True]


@pytest.mark.parametrize(("rho", "limit"), [(0.0, 6.4), (0.125, 5.711), (1.0, 3.3)])
def test_traffic_ratio_goes_from_one_over_q_to_that_of_all_experts(rho, limit):
    """(E + r) / (q (k + r)) with r = rho k; the paper's 1 / (q s) without shared experts."""
    ratio = inequality.traffic_ratio(5, 1 / 32, [1, 4, 16, 64, 1e5], rho)
    assert ratio[0] == pytest.approx(1 / 5) and ratio[-1] == pytest.approx(limit, abs=0.001)
    assert (np.diff(ratio) > 0).all()
    assert float(inequality.traffic_ratio_of_the_paper(5, 1 / 32)) == pytest.approx(6.4)


@pytest.mark.parametrize("name", ["deepseek-v3", "mixtral-8x7b", "qwen1.5-moe-a2.7b", "switch-c-2048"])
def test_the_dense_model_of_equal_quality(name):
    model = sizes(name)
    for q in (1, 3, 5):
        dense = inequality.dense_equivalent(model, q)
        active = model.sparse * (model.top_k * model.expert + model.shared)
        blocks = (model.layers - model.sparse) * model.dense_ffn
        assert float(dense.layers * dense.dense_ffn) == pytest.approx(float(q * active + blocks))
        rest = float(inequality.parameters(model)) - float(model.sparse * (model.experts * model.expert + model.shared))
        routers = float(model.sparse * model.router)
        assert float(inequality.parameters(dense)) == pytest.approx(rest - routers + float(q * active), rel=1e-9)


def test_a_full_memory_is_read_once_per_step():
    """HBM-bound, at batches that fill the same memory, the ratio of times per token is that of the batches."""
    for weights, quality_s, batch in itertools.product((3.0, 27.0), (0.15, 0.5, 1.25), (50.0, 300.0)):
        dense = batch + weights * (1 - quality_s)
        assert float(printed_formulas.weights_over_cache(batch, dense, quality_s)) == pytest.approx(weights)
        assert float(printed_formulas.hbm_ratio(weights, quality_s, batch, dense)) == pytest.approx(dense / batch)


def test_the_cost_model_reads_all_of_a_full_memory_too():
    """The same from layers and heads: memory time x bandwidth is what is stored, except for the input embedding."""
    model, layout, usable = sizes("deepseek-v3"), Layout(tp=8, kvp=8), 159e9
    served = inequality.serve(model, FORMATS, layout, MACHINE, usable, 16384)
    stored = float(served.weight_bytes + served.batch * served.cache_bytes)
    assert usable - float(served.cache_bytes) < stored <= usable
    embedding = 129280 * 7168 / 64 * 2
    assert float(served.memory_s) * 8e12 == pytest.approx(stored - embedding, rel=1e-6)


# ---------------------------------------------------------------------------------------- the paper


@pytest.fixture(scope="module")
def tables():
    names = {row.model for numbers in PAPER.numbers for row in numbers.rows if row.model}
    models = {name: CONFIG.model(name) for name in names}
    made = paper_tables.reproduce(
        PAPER.model_dump(),
        {name: m.architecture.model_dump() for name, m in models.items()},
        {name: m.published.total_parameters for name, m in models.items()},
        REFERENCE.model_dump(),
    )
    return {table.id: table for table in made}


def value(table, row: str, quantity: str) -> paper_tables.Line:
    return next(line for line in table.lines if line.row.startswith(row) and line.quantity == quantity)


def test_every_table_is_reproduced_and_every_printed_number_is_shown(tables):
    assert list(tables) == ["equations", "table1", "table3", "table4", "table5", "table6"]
    for numbers in PAPER.numbers:
        for row in numbers.rows:
            shown = {line.quantity: line.printed for line in tables[numbers.id].lines if line.row == row.label}
            for quantity, digits in row.printed.items():
                if numbers.id == "table6" and quantity == "throughput_moe":
                    assert digits in (None, "100"), "the unit of the row"
                else:
                    assert shown[quantity] == (digits or ""), (numbers.id, row.label, quantity)


def test_what_agrees_and_what_does_not(tables):
    agreeing = {key: table.agreeing(lambda line: line.formulas) for key, table in tables.items()}
    assert agreeing["table1"] == (6, 7), "every s, one printed qs; the other is 3 times the rounded s"
    three = tables["table3"]
    assert value(three, "DeepSeek-V3, 32", "capacity_factor").agrees(1.3)
    wrong = value(three, "DeepSeek-V3, 64", "capacity_factor")
    assert wrong.formulas == pytest.approx(267 / 244) and wrong.agrees(wrong.formulas) is False
    for line in three.lines:
        if line.quantity in ("sparsity", "qs", "reuse_moe", "reuse_dense", "routing_factor"):
            assert line.agrees(line.formulas), line
        if line.quantity in ("batch_moe", "batch_dense") and line.printed:
            assert line.agrees(line.formulas) is False, "no batch follows from what the paper gives"
    four = tables["table4"]
    assert "MoE 7 of 7, dense 6 of 7" in four.notes[1]
    at_128k = value(four, "128k", "speedup")
    assert at_128k.printed == "4.5" and at_128k.formulas == pytest.approx(1.094, abs=0.002)
    assert at_128k.distinct == pytest.approx(1.094, abs=0.002)
    assert "128k 4.47" in four.notes[2], "all weights over s B"
    last = tables["table6"].notes[-1]
    assert "Qwen3-235B 1.53 to 2.04, Grok-1, q = 5 1.65 to 1.71, Grok-1, q = 3 2.20 to 2.32" in last, (
        "86 and 89 are whole"
    )
    assert "100/130 on 32 GPUs (printed 100/130); 236/267 on 64 GPUs (printed 244/267)" in three.notes[-1]
    assert "128k: 456/77 = 5.92" in tables["table5"].notes[1]
    six = {line.row: line for line in tables["table6"].lines if line.quantity == "speedup"}
    assert [round(line.formulas, 2) for line in six.values()] == [1.03, 0.9, 1.13, 1.24]
    assert value(tables["table6"], "Switch-C", "batch_moe").formulas > 0, "it fits; the paper says infeasible"


def test_the_papers_batch_by_hand(tables):
    """(0.9 x 180 GB - 671e9 / 64) / (61 x 576 x 2 B x 131072 / 8)."""
    left = 0.9 * 180e9 - 671e9 / 64
    batch = int(left / (61 * 576 * 2 * 131072 / 8))
    assert value(tables["table3"], "DeepSeek-V3, 64", "batch_moe").formulas == batch == 131
    dense = int((0.9 * 180e9 - 5 / 32 * 671e9 / 64) / (61 * 576 * 2 * 131072 / 8))
    assert value(tables["table4"], "128k", "batch_dense").formulas == dense == 139


@pytest.mark.parametrize(
    ("digits", "low", "high"), [("0.90", 0.895, 0.905), ("86", 85.5, 86.5), ("OOM", None, None), (None, None, None)]
)
def test_what_printed_digits_may_stand_for(digits, low, high):
    assert paper_tables.bounds(digits) == (pytest.approx(low) if low else None, pytest.approx(high) if high else None)


# --------------------------------------------------------------------------------------- the search


def test_layouts_are_all_there_are():
    found = layout_search.layouts(8, heads=32, layers=32, experts=8)
    assert (found.gpus == 8).all() and (found.ranks % found.ep == 0).all() and (32 % found.tp == 0).all()
    seen = list(zip(found.tp, found.pp, found.dp, found.kvp, found.ep, strict=True))
    assert len(seen) == len(set(seen)) == 65
    odd = layout_search.layouts(6, heads=32, layers=32, experts=8)
    assert set(odd.tp) == {1, 2}, "3 and 6 do not divide 32 heads"


def test_the_best_layout_is_the_fastest_feasible_one():
    model, usable = sizes("mixtral-8x7b"), 80e9 * 0.9 - 3e9
    h100 = Machine.of(CONFIG.hardware("h100-sxm5-80gb"), EngineKnobs(model="mixtral-8x7b"))
    formats = Formats.of(CONFIG.model("mixtral-8x7b").architecture, EngineKnobs(model="mixtral-8x7b"))
    found = layout_search.search(model, formats, h100, usable, 4096, gpus=4, heads=32)
    tried = layout_search.layouts(4, 32, 32, 8)
    speeds = []
    for i in range(found.count):
        one = Layout(**{f.name: getattr(tried, f.name)[i] for f in dataclasses.fields(Layout)})
        weights, per_token = memory.gpu_bytes(model, formats, one)
        batch = max(0, (usable - weights) // (per_token * 4096)) * one.dp
        if batch > 0:
            part = np.ceil(batch / one.pp)
            speeds.append(float(batch / roofline.step(model, formats, one, h100, part).at(4096)))
    assert found.feasible == len(speeds)
    assert float(found.served.tokens_per_s[0]) == pytest.approx(max(speeds))
    assert (np.diff(found.served.tokens_per_s[: found.feasible]) <= 1e-6).all()


def test_layouts_over_an_unknown_link_are_not_chosen():
    point = ComputedKnobs(model="mixtral-8x7b", hardware="h100-sxm5-80gb", gpus=16, context_tokens=8192)
    found = versus_dense.compare(CONFIG.model("mixtral-8x7b").architecture, CONFIG.hardware("h100-sxm5-80gb"), point)
    layout = found.moe.layout
    assert layout["tp"] * layout["kvp"] * layout["dp"] <= 8 and layout["pp"] >= 2 and found.moe.tokens_per_s > 0


@pytest.mark.parametrize("factor", ["memory_factor", "bandwidth_factor", "link_factor"])
def test_a_better_machine_is_never_slower(factor):
    model, speeds = CONFIG.model("deepseek-v3").architecture, []
    for x in (0.75, 1.0, 1.25):
        point = ComputedKnobs(model="deepseek-v3", hardware="qs-reference", gpus=64, quantization="fp8", **{factor: x})
        speeds.append(versus_dense.compare(model, REFERENCE, point).moe.tokens_per_s)
    assert speeds == sorted(speeds) and speeds[0] < speeds[2]


# ----------------------------------------------------------------------------------------- the verb


def qs_verb(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["qs", "--config", str(CONFIG.folder), *arguments])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_the_verb_says_what_the_json_says(capsys):
    code, text, _ = qs_verb(capsys, "deepseek-v3", "--hardware", "qs-reference")
    assert code == 0
    _, out, _ = qs_verb(capsys, "deepseek-v3", "--hardware", "qs-reference", "--json")
    made = json.loads(out)
    assert made["qs"] == pytest.approx(5 / 32) and made["ffn_traffic_eq_17"] == pytest.approx(6.4)
    assert made["break_even_batch"] == pytest.approx(5.940, abs=1e-3) and "5.94         5.35" in text
    assert f"{made['moe']['batch']:,}" in text and f"{made['speedup_dense']:.2f} times as fast" in text
    assert made["speedup_dense"] == pytest.approx(made["dense"]["tokens_per_s"] / made["moe"]["tokens_per_s"])
    assert "from a batch of 6 on" in made["verdict"]


@pytest.mark.parametrize(("batch", "faster"), [(8, False), (14, True)])
def test_the_verdict_agrees_with_the_times_beside_it(batch, faster, capsys):
    """Shared experts are half of what Qwen1.5-MoE has active: without them 6 would do."""
    place = ("--hardware", "h100-sxm5-80gb", "--context", "4096", "--gpus", "1", "--batch", str(batch), "--json")
    made = json.loads(qs_verb(capsys, "qwen1.5-moe-a2.7b", *place)[1])
    assert "from a batch of 14 on" in made["verdict"]
    assert (made["moe"]["memory_s"] > made["dense"]["memory_s"]) == (batch >= 14) == faster


@pytest.mark.parametrize(
    ("name", "hardware"),
    [(p.stem, "h100-sxm5-80gb") for p in sorted((CONFIG.folder / "models").glob("*.yaml"))]
    + [("mixtral-8x7b", p.stem) for p in sorted((CONFIG.folder / "hardware").glob("*.yaml"))],
)
def test_any_model_on_any_machine(name, hardware, capsys):
    """An answer in words for each; a dense model is refused in one line."""
    code, out, err = qs_verb(capsys, name, "--hardware", hardware, "--context", "4096", "--gpus", "2")
    if CONFIG.model(name).architecture.experts is None:
        assert code == 2 and err.startswith(f"moebench qs: {name} is a dense model") and err.count("\n") == 1
        return
    assert code == 0 and "qs = " in out and "nan" not in out
    assert ("unknown" in out) == (hardware == "local-cpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mixtral-8x7", "--hardware", "qs-reference"], "unknown model 'mixtral-8x7'; did you mean 'mixtral-8x7b'?"),
        (["mixtral-8x7b", "--hardware", "h100-sxm5"], "unknown hardware 'h100-sxm5'; did you mean 'h100-sxm5-80gb'?"),
        (["mixtral-8x7b", "--hardware", "qs-reference", "--tp", "2", "--gpus", "8"], "dp x kvp is 2, but gpus is 8"),
        (["mixtral-8x7b", "--hardware", "qs-reference", "--tp", "4", "--ep", "3"], "ep 3 does not divide the 4"),
        (["mixtral-8x7b", "--hardware", "qs-reference", "--tp", "3"], "tp 3 does not divide the 32 attention heads"),
        (["mixtral-8x7b", "--hardware", "qs-reference", "--pp", "33"], "pp 33 is more than the 32 layers"),
        (["mixtral-8x7b", "--hardware", "qs-reference", "--tp", "16", "--ep", "16"], "ep 16 is more than the 8 exp"),
        (["mixtral-8x7b", "--hardware", "qs-reference", "--context", "1.5"], "'1.5' is not a whole number above zero"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, words, capsys):
    code, out, err = qs_verb(capsys, *arguments)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_too_little_memory_and_too_long_a_context_are_said(capsys):
    _, out, _ = qs_verb(capsys, "grok-1", "--hardware", "h100-sxm5-80gb", "--gpus", "4")
    assert "does not fit" in out and "cannot hold one sequence of this context length on 4 devices" in out
    assert "note: the model supports at most 8,192 tokens" in out


def test_a_batch_that_does_not_fit_is_told_from_a_context_that_does_not(capsys):
    place = ("mixtral-8x7b", "--hardware", "h100-sxm5-80gb")
    most = {k: json.loads(qs_verb(capsys, *place, "--json")[1])[k]["batch"] for k in ("moe", "dense")}
    _, out, _ = qs_verb(capsys, *place, "--batch", "100000")
    assert f"Mixtral-8x7B holds at most {most['moe']} sequences of this context on 8 devices." in out
    assert f"The dense model holds at most {most['dense']} sequences" in out and "cannot hold one" not in out
    _, out, _ = qs_verb(capsys, *place, "--tp", "8", "--batch", "100000", "--json")
    assert json.loads(out)["moe"]["most"] > 0 == json.loads(out)["moe"]["batch"]


def test_a_context_may_be_written_as_a_power_of_ten(capsys):
    place = ("mixtral-8x7b", "--hardware", "h100-sxm5-80gb", "--json", "--context")
    assert qs_verb(capsys, *place, "1e5")[1] == qs_verb(capsys, *place, "100000")[1]


def test_sensitivity_changes_one_thing_at_a_time(capsys):
    options = ("deepseek-v3", "--hardware", "qs-reference", "--sensitivity")
    _, out, _ = qs_verb(capsys, *options, "--json")
    made = json.loads(out)
    rows = {r.pop("change"): r for r in made["sensitivity"]}
    assert rows["as it is"]["speedup_dense"] == made["speedup_dense"] and "q = 5" not in rows, "that is as it is"
    assert rows["memory -25%"]["batch_moe"] < rows["as it is"]["batch_moe"] < rows["memory +25%"]["batch_moe"]
    _, out, _ = qs_verb(capsys, "deepseek-v3", "--hardware", "qs-reference", "--quality", "2", "--json")
    assert rows["q = 2"]["speedup_dense"] == json.loads(out)["speedup_dense"]
    _, out, _ = qs_verb(capsys, *options)
    assert f"{rows['link, half of it']['speedup_dense']:.3f}" in out and "bandwidth +25%" in out


def test_a_given_layout_is_not_searched(capsys):
    _, out, _ = qs_verb(capsys, "mixtral-8x7b", "--hardware", "qs-reference", "--tp", "4", "--kvp", "2", "--json")
    made = json.loads(out)
    assert made["point"]["gpus"] == 8 and made["moe"]["layouts"] == 1
    assert made["moe"]["layout"] == made["dense"]["layout"] == {"tp": 4, "pp": 1, "dp": 1, "ep": 1, "kvp": 2}
    assert "TP4 x KVP2" in show.text(made)


def test_the_grid_reaches_the_contexts_of_the_papers_tables(tmp_path):
    """Table 4 goes to 16,384k, and section 4.5 says so: points are computed as far."""
    printed = {row.given["context_tokens"] for n in PAPER.numbers for row in n.rows if "context_tokens" in row.given}
    plan = make_plan(Config(studies.part(tmp_path, "paper", ["qs-inequality"])), "paper")
    points = plan["experiments"]["qs-inequality"]["computed"]["points"]
    computed = {point["settings"]["context_tokens"] for point in points}
    assert printed <= computed and max(printed) == 16 * 1024**2


def test_three_times_the_printed_sparsity_gives_the_printed_qs_of_table_1():
    rows = next(numbers.rows for numbers in PAPER.numbers if numbers.id == "table1")
    printed = {row.label: (row.given["quality"] * float(row.printed["sparsity"]), row.printed["qs"]) for row in rows}
    left = {label: (f"{qs:.{len(digits) - 2}f}", digits) for label, (qs, digits) in printed.items() if digits}
    assert left == {"Switch-C": ("0.0015", "0.0015"), "ST-MoE": ("0.093", "0.093")}
