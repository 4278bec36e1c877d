"""The tiny study end to end: real Snakemake, real vLLM, real files.  What a user does next: test_next_calls.py."""

from __future__ import annotations

import csv
import json
import re
import resource
from collections import Counter
from pathlib import Path

import pytest

import kernels
import pages
from moebench.formats.record import Record
from moebench.measure import records
from moebench.measure.plausible import implausible
from moebench.tables import parquet
from project import copy, moebench, snakemake
from typed import mismatches
from workflow import measured
from workflow.measured import measured_since, plan_of, statuses, written


def allowed(config: dict) -> set[str]:
    """Statuses that cells of an engine configuration may have on this CPU."""
    lacking = ("attention_kernel", "fused_kernel", "graph_sizes", "speculation")
    if any(config.get(knob) for knob in lacking) or config["kernel_config"] == "default":
        return {"ok", "unsupported"}
    if config["ep"] or config["pp"] * config["dp"] > 1:
        return {"ok", "unsupported"}
    return kernels.here().statuses(config["quantization"], config["kv_cache_dtype"])


def disturbed(record: dict) -> bool:
    """Whether a busy machine kept a load client from sending its requests in time: said, and no fault of the engine."""
    reason = record["reason"]
    return record["status"] == "invalid" and ("no steady state" in reason or "the client sent only" in reason)


def memory_was_disturbed(project: Path) -> bool:
    """Whether a busy machine made the measured memory bandwidth implausible: said, and then nothing is predicted."""
    (constants,) = (project / "results/machines").iterdir()
    return "triad" in implausible(json.loads(constants.read_text()))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study, measured and reported in a fresh copy of the project."""
    place = copy(tmp_path_factory.mktemp("pipeline") / "project")
    done = snakemake(place)
    assert done.stdout == "reports/tiny/report.html\n"
    logged = "".join(path.read_text() for path in (place / "logs").rglob("*.progress.log"))
    plan = plan_of(place)
    for total, jobs in Counter(job["cells"] for job in plan["jobs"].values()).items():
        progress = Counter(re.findall(rf"\[(\d+)/{total}\] \S+/", logged))
        assert all(progress[str(n)] >= jobs for n in range(1, total + 1)), "a line of progress per cell"
    assert {"checkpoints:", "cells:", "accuracy:", "figures:"} <= set(done.stderr.split())
    assert not re.search(r"Select jobs|Execute \d+ jobs|Building DAG|host:", done.stderr)
    return place


def cpu_of_children_s() -> float:
    """CPU seconds of all commands that were run so far, however busy the machine was."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_every_cell_is_measured_and_sane(project: Path) -> None:
    plan = plan_of(project)
    for key, cell in plan["cells"].items():
        record = records.load(project / "results/cells" / f"{key}.json")
        config = record["engine_config"]
        odd = [line for line in mismatches(record, Record) if not line.startswith(".checks.accepted_at_")]
        assert odd == [], "accepted tokens by position in the draft are more keys than a class can list"
        if cell["protocol"]["kind"] == "load" and disturbed(record):
            continue
        assert record["status"] in allowed(config), (key, record["reason"])
        if record["status"] == "unsupported":
            assert record["evidence"] and record["repeats"] == []
            assert kernels.here().words(config["quantization"]) in record["evidence"][-1], "the engine's own words"
            continue
        if cell["protocol"]["kind"] == "activation":
            continue
        repeats = cell["protocol"]["repeats"]
        assert len(record["repeats"]) == repeats
        if cell["protocol"]["kind"] == "load":
            searched = "find" in cell["workload"]  # which sends as many as a rate needs
            assert (record["checks"]["requests"] == repeats * cell["workload"]["requests"]) != searched
            assert repeats < record["checks"]["steady_requests"] < record["checks"]["requests"]
            continue
        assert len({run["seed"] for run in record["warmup"] + record["repeats"]}) == 1 + repeats
        if plan["engines"][cell["engine"]]["runtime"]["kind"] == "endpoint":  # a server does not tell
            continue
        assert record["checks"]["experts_per_token"] == cell["workload"]["top_k"]
        assert record["checks"]["preemptions"] == 0 and record["checks"]["prefix_cache_hits"] == 0
        assert record["checks"]["peak_rss_bytes"] < 8e9


def test_more_active_experts_are_more_distinct_experts(project: Path) -> None:
    """Routing is real: a batch meets more experts with a larger top-k, and not all of them with a small one."""
    plan, distinct = plan_of(project), {}
    for row in plan["experiments"]["fig05-topk-batch"]["rows"]:
        cell = plan["cells"][f"{row['engine']}/{row['cell']}"]
        if row["engine"].startswith("tiny-qwen") and cell["workload"]["batch"] == 32:
            record = records.load(project / f"results/cells/{row['engine']}/{row['cell']}.json")
            layers = record["checks"]["distinct_experts"]
            distinct[cell["workload"]["top_k"]] = sum(layers) / len(layers)
    values = [distinct[k] for k in sorted(distinct)]
    assert sorted(distinct) == [1, 4, 32]
    assert values == sorted(values) and 1 < values[0] < 32 and values[-1] > 50


def test_tables_hold_every_cell(project: Path) -> None:
    frame, found = parquet.read(project / "results/tables/tiny", "measurements"), Counter(statuses(project).values())
    lacking = [row for e in plan_of(project)["experiments"].values() for row in e.get("unsupported", ())]
    found["unsupported"] += len({(row["engine"], row["cell"]) for row in lacking})
    assert lacking, "a tensor parallel size that no model has heads for"
    assert dict(frame["status"].value_counts()) == found
    assert {"ok", "unsupported"} <= set(found) <= {"ok", "unsupported", "invalid"}, "invalid: see `disturbed`"
    assert len(parquet.read(project / "results/tables/tiny", "failures")) == found["unsupported"] + found["invalid"]
    frame = frame[(frame["status"] == "ok") & (frame["protocol_kind"] == "trace")]
    samples = parquet.read(project / "results/tables/tiny", "samples").merge(
        frame, on=["engine", "cell"], suffixes=("", "_median")
    )
    assert len(samples) == 3 * len(frame)
    closed = samples[~samples["engine"].str.contains("vllm-serve")]  # a service's requests do not end together
    tokens = closed["batch"] * (closed["input_tokens"] + closed["output_tokens"])
    assert (abs(closed["throughput_total_tokens_per_s"] * closed["e2e_s"] / tokens - 1) < 0.2).all()
    assert len(list((project / "results/machines").iterdir())) == 1, "measured by the first job, kept by the others"
    foreseen = frame[frame["draft_model"].isna() & (frame["images"].fillna(0) == 0)]
    refused = foreseen["prediction_refused"].notna()  # e.g. float16, where torch has no fast product of it
    if memory_was_disturbed(project):
        assert refused.all()
    else:
        assert set(foreseen.loc[~refused, "predicted_with"]) == {"measured constants"} and refused.mean() < 0.2
    assert (foreseen.loc[~refused, "residual_e2e"] > 0).all() and foreseen.loc[refused, "predicted_with"].isna().all()
    drafted = frame[frame["draft_model"].notna()]
    assert len(drafted) == 5 and (drafted["tokens_per_draft_step"] >= 1).all()


def test_accuracy_of_every_task_is_in_tables_report_and_beside_the_speed(project: Path) -> None:
    """The real harness on the real engine; what random weights answer is at chance, and the report says so."""
    folder = project / "results/tables/tiny"
    answers, speed = parquet.read(folder, "accuracy"), parquet.read(folder, "measurements")
    assert set(answers["harness"]) == {"lm-eval", "vlmeval"}
    refused = answers["status"] != "ok"
    assert set(answers.loc[refused, "status"]) == {"unsupported"}
    assert "none" not in set(answers.loc[refused, "quantization"]), "precisions that a CPU has no kernels for"
    answers = answers[~refused]
    seen = answers[(answers["harness"] == "vlmeval") & (answers["task"] != "mean")]
    assert set(seen["task"]) == {"mme", "scienceqa"}
    means = answers[(answers["experiment"] == "accuracy-vlm") & (answers["task"] == "mean")]
    assert len(means) == 2 and means["made_of"].nunique() == 1, "the points of Figure 18 are means of the same"
    answers = answers[answers["harness"] == "lm-eval"]
    asked = {"arc-challenge", "arc-easy", "boolq", "hellaswag", "openbookqa", "rte", "winogrande", "gsm8k", "wikitext"}
    main = answers[answers["main"].fillna(False)]
    assert set(main.loc[main["model"] == "tiny-mixtral", "task"]) == asked
    shares = main[main["chance"].notna()]
    spread = (shares["chance"] * (1 - shares["chance"]) / shares["n"].astype(float)) ** 0.5
    assert ((shares["value"] - shares["chance"]).abs() <= 4 * spread).all(), "random weights know nothing"
    assert (main.loc[main["task"] == "wikitext", "value"] > 10_240).all(), (
        "a word is several tokens, each as likely as any other"
    )
    assert set(answers["engine"]) <= set(speed["engine"]), "the tables join on the engine configuration"
    capped = answers[(answers["task"] == "mean") & (answers["block"] == 1)]
    assert set(capped["top_k"]) == {2, 8} and set(capped["n"]) == {2}
    arm = answers[answers["arm_of"].notna()]
    assert set(zip(arm["expert_kernel"], arm["tp"], strict=True)) == {("unfused", 1)}
    assert not arm["arm_differs"].any(), "unfused experts do not change the answers"
    with open(project / "reports/tiny/figures/fig11-accuracy.csv") as file:
        pruned = list(csv.DictReader(file))
    assert len(pruned) == 3 and all(float(row["accuracy"]) > 0 for row in pruned), "speed and accuracy are joined"
    page = (project / "reports/tiny/report.html").read_text()
    assert "are at chance level" in page and "no value here is a result on those" in page


def test_a_measured_cell_has_every_value_that_its_figures_show(project: Path) -> None:
    """E.g. enough requests in the steady state for a percentile.  At a given rate, a busy machine may leave fewer."""
    plan, looked = plan_of(project), 0
    for experiment in plan["experiments"].values():
        for figure in experiment["figures"]:
            with open(project / f"reports/tiny/figures/{figure['id']}.csv") as file:
                rows = list(csv.DictReader(file))
            for row in (row for row in rows if row.get("status") == "ok"):
                if plan["cells"][f"{row['engine']}/{row['cell']}"]["workload"].get("request_rate") is None:
                    assert all(row[y] for y in figure["y"]), (figure["id"], row["cell"])
                    looked += 1
    assert looked > len(plan["cells"])


def test_report_holds_every_figure(project: Path) -> None:
    page = (project / "reports/tiny/report.html").read_text()
    figures = [figure for e in plan_of(project)["experiments"].values() for figure in e["figures"]]
    numbers = " ".join(f["number"] for f in figures).split()
    assert {*map(str, range(3, 10)), "1", "10a", "10b", "11", "12a", "12b", "13", "14a", "14b", "15", "16a", "16b",
            "17", "18"} <= {*numbers}  # fmt: skip
    for figure in (f["id"] for f in figures):
        for kind in ("svg", "csv"):
            assert (project / f"reports/tiny/figures/{figure}.{kind}").stat().st_size > 500
    for figure in figures:
        assert f"Figure {figure['number']}" in page
    assert "not representative of an H100" in page
    assert ("Figure M1" in page) != memory_was_disturbed(project) and "matrix products in bfloat16" in page


def test_the_page_costs_no_more_than_it_may(project: Path, tmp_path: Path) -> None:
    page = project / "reports/tiny/report.html"
    with pages.browsing(tmp_path / "profile") as browser:
        cost = pages.cost(browser, page)
        assert cost.load_s < pages.LOAD_S and cost.screens <= pages.SCREENS and cost.nodes <= pages.NODES
        assert cost.bytes <= pages.BYTES
        assert pages.violations(browser) == []
        browser.execute_script("document.getElementById('unfold').click()")
        silent = browser.execute_script("""
            const mute = figure => !figure.querySelector('svg [tabindex]');
            return [...document.querySelectorAll('figure')].filter(mute).map(figure => figure.id)""")
        lacking = {"serving-rate", "serving-max-rate"} if "invalid" in statuses(project).values() else set()
        assert set(silent) <= lacking, "every figure says its values"
        assert pages.violations(browser) == [], "unfolded"


@pytest.mark.nightly  # test_next_calls.py has it with one figure
def test_the_whole_archive_renders_the_same_report(project: Path, tmp_path: Path) -> None:
    measured.check_archive(project, tmp_path)


@pytest.mark.nightly
def test_the_report_is_built_from_tables_within_a_minute(project: Path, tmp_path: Path) -> None:
    took_s = pages.build_s(project / "results/plan/tiny.json", project / "results/tables/tiny", tmp_path / "tiny")
    assert took_s < pages.BUILD_S


def test_second_call_measures_nothing_and_is_quick(project: Path) -> None:
    before, started = written(project), cpu_of_children_s()
    (machine,) = (project / "results/machines").iterdir()
    measured = machine.stat().st_mtime_ns
    done = snakemake(project)
    assert machine.stat().st_mtime_ns == measured
    assert "Nothing to do" in done.stdout + done.stderr
    assert measured_since(project, before) == set()
    assert cpu_of_children_s() - started < 60


def test_failures_are_listed_and_doctor_is_content(project: Path) -> None:
    said = moebench(project, "failures", code=1).stdout
    refused = {key.split("/")[0] for key, status in statuses(project).items() if status == "unsupported"}
    entries = said.count("unsupported: tiny-")  # one for each engine configuration, more where its reasons differ
    entries += said.count("invalid: tiny-")
    assert len(refused) <= entries == said.count("snakemake --profile profiles/local --force")
    assert all(f"unsupported: {engine}/" in said for engine in refused)
    said = moebench(project, "doctor").stdout
    assert said.splitlines()[-1] == "ready" and len(said.splitlines()) <= 40
    (project / "models").rename(project / "models.gone")
    try:
        said = moebench(project, "doctor", code=1).stdout
        assert re.search(r"\b0 of \d+ staged", said) and "moebench stage --study tiny" in said
    finally:
        (project / "models.gone").rename(project / "models")
