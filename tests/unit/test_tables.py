"""Records to tables."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import synthetic
from moebench.claims.collect import collect as collect_tables
from moebench.errors import ConfigError, StorageError, UserError
from moebench.measure import records
from moebench.tables import cell_rows, gather, join, parquet


@pytest.fixture
def study(tmp_path):
    """A plan of four cells without records: builder, results folder, tables folder."""
    plan = synthetic.Plan(repeats=3)
    plan.experiment("one")
    for batch in (1, 2, 4, 8):
        plan.add(
            "one",
            {"batch": batch},
            {"batch": batch, "input_tokens": 16, "output_tokens": 8},
            model="mixtral-tiny",
            tp=2,
        )
    return plan.data, tmp_path / "results", tmp_path / "tables"


def collect(study) -> gather.Collected:
    data, results, out = study
    path = results / "plan" / "tiny.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return collect_tables(path, results, out, results_name="results")


def cells(study) -> list[tuple[str, str]]:
    return [(c["engine"], c["cell"]) for c in study[0]["cells"].values()]


def path_of(study, number: int) -> Path:
    return records.cell_path(study[1], *cells(study)[number])


def test_a_good_cell(study):
    data, results, out = study
    e, c = cells(study)[0]
    made = synthetic.record(data, e, c)
    synthetic.store_fast(results, made)
    found = collect(study)
    assert found.counts == {"ok": 1, "not measured": 3} and found.total == 4
    assert str(found) == "tiny: 4 cells: 3 not measured, 1 ok"
    row = parquet.read(out, "measurements").iloc[0]
    times = sorted(run["metrics"]["e2e_s"] for run in made["repeats"])
    assert (row["e2e_s_low"], row["e2e_s"], row["e2e_s_high"]) == pytest.approx(times)
    assert row["e2e_s_cv"] == pytest.approx(pd.Series(times).std() / pd.Series(times).mean())
    assert (row["n_repeats"], row["unstable"], row["gpus"], row["experts"], row["top_k"]) == (3, False, 2, 8, 2)
    assert (row["model_title"], row["weights"], row["engine_version"]) == ("Mixtral (tiny)", "random_init", "0.32.0")
    assert (row["distinct_experts_mean"], row["preemptions"], row["load_s"], row["slurm_job_id"]) == (6, 0, 2.5, "4711")
    samples = parquet.read(out, "samples")
    assert samples["repeat"].tolist() == [0, 1, 2] and samples["seed"].tolist() == [2, 3, 4]
    assert sorted(samples["e2e_s"]) == pytest.approx(times)
    assert parquet.read(out, "failures").empty


@pytest.mark.parametrize("price", [None, {"usd_per_hour": 3.6, "source": "a page", "date": "2026-11-28"}])
def test_tokens_cost_what_the_devices_cost_for_their_time(study, price):
    data, results, out = study
    data["hardware"] |= {"price": price} if price else {}
    e, c = cells(study)[2]
    synthetic.store_fast(results, synthetic.record(data, e, c))
    collect(study)
    row = parquet.read(out, "measurements").iloc[0]
    rate = row["throughput_output_tokens_per_s"]
    assert row["output_tokens_per_s_per_device"] == pytest.approx(rate / 2)  # TP 2
    assert row["output_tokens_per_s_per_user"] == pytest.approx(1 / row["tpot_s"])
    if price is None:
        assert pd.isna(row["usd_per_million_output_tokens"]) and pd.isna(row["usd_per_million_total_tokens"])
        return
    assert row["usd_per_million_output_tokens"] == pytest.approx(2 * 3.6 * (1e6 / rate) / 3600)
    total = row["throughput_total_tokens_per_s"]
    assert row["usd_per_million_total_tokens"] == pytest.approx(2 * 3.6 * (1e6 / total) / 3600)
    low, high = row["throughput_output_tokens_per_s_low"], row["throughput_output_tokens_per_s_high"]
    assert row["usd_per_million_output_tokens_high"] == pytest.approx(2 * 3.6 * (1e6 / low) / 3600)
    assert row["usd_per_million_output_tokens_low"] == pytest.approx(2 * 3.6 * (1e6 / high) / 3600)


def test_active_experts_are_those_counted_and_under_a_budget_those_of_all_runs():
    assert cell_rows._active({"experts_per_token": 8.0}) == {"active_experts": 8.0, "active_experts_decode": 8.0}
    counted = {"experts_per_token": [3.1, 3.3], "routed_tokens": 100.0, "used_experts": 250.0}
    assert cell_rows._active(counted) == {"active_experts": 2.5, "active_experts_decode": None}
    assert cell_rows._active(counted | {"active_experts_decode": [2.0, 4.0]})["active_experts_decode"] == 3.0
    assert set(cell_rows._active({}).values()) == {None}


def test_failures_are_rows_with_reason_evidence_and_command(study):
    data, results, out = study
    e, c = cells(study)[1]
    synthetic.store_fast(results, synthetic.record(data, e, c, status="oom_kv"))
    collect(study)
    row = parquet.read(out, "failures").iloc[0]
    assert (
        row["status"] == "oom_kv"
        and "one sequence" in row["reason"]
        and "larger than the available KV" in row["evidence"]
    )
    assert row["predicted_bytes_per_gpu"] == 6.5e7 and bool(row["predicted_fits"])
    assert row["rerun"] == f"snakemake --profile profiles/local --config study=tiny --force results/cells/{e}/{c}.json"
    measured = parquet.read(out, "measurements").iloc[0]
    assert measured["status"] == "oom_kv" and pd.isna(measured["e2e_s"]) and measured["n_repeats"] == 0


def test_numbers_of_an_invalid_run_are_not_in_the_tables(study):
    data, results, out = study
    e, c = cells(study)[0]
    good = synthetic.record(data, e, c)
    synthetic.store_fast(results, good | {"status": "invalid", "reason": "3 preemptions"})
    collect(study)
    assert parquet.read(out, "measurements")["e2e_s"].isna().all() and parquet.read(out, "samples").empty


def test_damaged_records_are_not_used_and_say_why(study):
    data, results, out = study
    for e, c in cells(study):
        synthetic.store_fast(results, synthetic.record(data, e, c))
    whole = path_of(study, 0).read_bytes()
    path_of(study, 0).write_bytes(whole[: len(whole) // 2])
    path_of(study, 1).write_bytes(path_of(study, 1).read_bytes().replace(b'"attempt":1', b'"attempt":2'))
    path_of(study, 2).write_bytes(whole)
    assert collect(study).counts == {"damaged": 3, "ok": 1}
    assert len(parquet.read(out, "measurements")) == 1 and len(parquet.read(out, "samples")) == 3
    failed = parquet.read(out, "failures")
    assert set(failed["status"]) == {"damaged"} and set(failed["model_title"]) == {"Mixtral (tiny)"}
    reasons = failed["reason"].tolist()
    assert "not complete JSON" in reasons[0] and "checksum" in reasons[1] and "it is the record of" in reasons[2]


def test_records_in_another_form_of_json_are_as_good(study):
    """Indented, other order of keys: not the bytes that were hashed, but the same record."""
    data, results, _ = study
    e, c = cells(study)[0]
    synthetic.store_fast(results, synthetic.record(data, e, c))
    path = path_of(study, 0)
    found = json.loads(path.read_bytes())
    path.write_text(json.dumps(dict(reversed(found.items())), indent=2))
    assert collect(study).counts["ok"] == 1
    found["checks"]["preemptions"] = 3
    path.write_text(json.dumps(found, indent=2))
    assert collect(study).counts["damaged"] == 1


def test_a_sealed_record_without_its_fields_is_damaged(study):
    data, results, _ = study
    e, c = cells(study)[0]
    made = synthetic.record(data, e, c)
    del made["workload"]
    synthetic.store_fast(results, made)
    assert collect(study).counts == {"damaged": 1, "not measured": 3}


def test_a_newer_record_is_refused_by_name(study):
    data, results, _ = study
    e, c = cells(study)[0]
    synthetic.store_fast(results, synthetic.record(data, e, c, schema=99))
    with pytest.raises(StorageError, match=rf"{c}.json: .*schema 99, .*up to 1"):
        collect(study)


def test_the_join_never_lacks_a_status(study):
    data, results, out = study
    for (e, c), status in zip(cells(study)[:3], ("ok", "oom_kv", "ok"), strict=True):
        synthetic.store_fast(results, synthetic.record(data, e, c, status=status))
    path_of(study, 2).write_bytes(b"{")
    collect(study)
    joined = join.with_status(out, experiment="one")
    assert joined["status"].tolist() == ["ok", "oom_kv", "damaged", "not measured"]
    assert "not complete JSON" in joined["reason"].iloc[2]
    assert json.loads(joined["labels"].iloc[3]) == {"batch": 8} and joined["batch"].tolist() == [1, 2, 4, 8]


def test_the_paper_protocol_leaves_out_what_it_does_not_measure(study):
    data, results, out = study
    e, c = cells(study)[0]
    runs = [{"seed": 1, "started_at": "x", "metrics": {"ttft_max_s": 0.1 * i, "e2e_s": 1.0 * i}} for i in (1, 2, 3)]
    synthetic.store_fast(results, synthetic.record(data, e, c, repeats=runs))
    collect(study)
    row = parquet.read(out, "measurements").iloc[0]
    assert row["e2e_s"] == 2 and pd.isna(row["itl_s"]) and pd.isna(row["ttft_s_low"])
    assert bool(row["unstable"])


def test_one_repeat_has_no_interval_and_is_neither_stable_nor_not(study):
    data, results, out = study
    e, c = cells(study)[0]
    good = synthetic.record(data, e, c)
    synthetic.store_fast(results, good | {"repeats": good["repeats"][:1]})
    collect(study)
    row = parquet.read(out, "measurements").iloc[0]
    assert row["e2e_s"] > 0 and pd.isna(row["e2e_s_low"]) and pd.isna(row["unstable"])


@pytest.mark.parametrize(("own", "drift", "gap"), [("a", 0.5 / 1.15, 1.1 / 1.5 - 1), ("another", 0.2 / 1.1, None)])
def test_canary_drift_is_the_range_over_the_median_within_a_session(study, own, drift, gap):
    data, results, out = study
    e, c = cells(study)[0]
    repeats = [{"seed": n, "started_at": "x", "metrics": {"e2e_s": v}} for n, v in enumerate((1.5, 1.5, 1.6))]
    record = synthetic.record(data, e, c, repeats=repeats)
    synthetic.store_fast(results, record | {"load": record["load"] | {"session": own}})
    job = next(iter(data["jobs"]))
    runs = [(1.0, "a"), (1.1, "a"), (1.2, "a"), (9.0, "b")]
    canary = [{"engine": e, "cell": c, "session": s, "metrics": {"e2e_s": v}} for v, s in runs]
    path = results / "jobs" / f"{job}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schema": 1, "digest": "x", "records": {}, "canary": canary}))
    collect(study)
    row = parquet.read(out, "measurements").iloc[0]
    assert row["canary_drift"] == pytest.approx(drift) and row["e2e_s_cv"] < 0.1
    assert pd.isna(row["canary_gap"]) if gap is None else row["canary_gap"] == pytest.approx(gap)
    assert bool(row["unstable"]) == (gap is not None)


def test_a_canary_whose_record_lacks_what_it_must_have_stops_nothing(study):
    data, results, out = study
    e, c = cells(study)[0]
    synthetic.store_fast(
        results, {k: v for k, v in synthetic.record(data, e, c).items() if k not in ("status", "repeats")}
    )
    path = results / "jobs" / f"{next(iter(data['jobs']))}.json"
    path.parent.mkdir(parents=True)
    canary = [{"engine": e, "cell": c, "session": "a", "metrics": {"e2e_s": v}} for v in (1.0, 1.1)]
    path.write_text(json.dumps({"schema": 1, "digest": "x", "records": {}, "canary": canary}))
    collect(study)
    assert parquet.read(out, "failures")["status"].tolist() == ["damaged"]


def test_predictions_are_columns_of_plan_and_measurements(study):
    data, _, out = study
    next(iter(data["cells"].values()))["predicted"] = {"bytes_per_gpu": 1e9, "fits": False, "e2e_s": 2.0, "itl_s": 0.1}
    collect(study)
    row = parquet.read(out, "plan").iloc[0]
    assert (
        row["predicted_e2e_s"] == 2
        and row["predicted_throughput_total_tokens_per_s"] == 12
        and not row["predicted_fits"]
    )


def test_units_and_versions_are_in_the_files(study):
    collect(study)
    schema = pq.read_schema(study[2] / "measurements.parquet")
    assert schema.metadata[b"moebench_schema"] == b"1"
    assert json.loads(schema.metadata[b"moebench_units"])["ttft_s"] == "s"
    assert schema.field("throughput_total_tokens_per_s").metadata[b"unit"] == b"tokens/s"
    compression = pq.ParquetFile(study[2] / "measurements.parquet").metadata
    assert compression.num_row_groups == 0 or compression.row_group(0).column(0).compression == "ZSTD"


def test_readers_refuse_newer_tables_and_accept_older(study):
    data, results, out = study
    synthetic.store_fast(results, synthetic.record(data, *cells(study)[0]))
    collect(study)
    path = out / "measurements.parquet"
    table = pq.read_table(path)
    older = table.drop_columns(["canary_drift"]).replace_schema_metadata({"moebench_schema": "0"})
    pq.write_table(older, path)
    assert parquet.read(out, "measurements")["canary_drift"].isna().all()
    pq.write_table(table.replace_schema_metadata({"moebench_schema": "2"}), path)
    with pytest.raises(StorageError, match=r"measurements\.parquet: .*schema 2, .*up to 1"):
        parquet.read(out, "measurements")
    path.write_bytes(b"not parquet")
    with pytest.raises(StorageError, match="damaged; `moebench report --partial` makes"):
        parquet.read(out, "measurements")
    path.unlink()
    with pytest.raises(UserError, match="moebench report --partial --study "):
        parquet.read(out, "measurements")


def test_a_failed_write_leaves_the_old_table(study, monkeypatch):
    collect(study)
    before = (study[2] / "plan.parquet").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet.pq, "write_table", full)
    with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\)"):
        collect(study)
    assert (study[2] / "plan.parquet").read_bytes() == before and not list(study[2].glob(".*"))


def test_without_a_plan_or_with_one_cut_off(tmp_path, study):
    with pytest.raises(ConfigError, match="no plan yet"):
        collect_tables(tmp_path / "none.json", tmp_path, tmp_path / "out")
    data = json.dumps(study[0]).encode()
    for length in range(0, len(data), 199):
        (tmp_path / "cut.json").write_bytes(data[:length])
        with pytest.raises(ConfigError, match=r"cut\.json: not a complete plan.*snakemake"):
            collect_tables(tmp_path / "cut.json", tmp_path, tmp_path / "out")


# -------------------------------------------------------------------- residuals, and the roofline as a ceiling


def foreseen(study, hardware="gpu", **predicted):
    """Put predictions into plan and records of the first cell, and measure it; its row of measurements."""
    data, results, out = study
    data["hardware"]["kind"] = hardware
    e, c = cells(study)[0]
    data["cells"][f"{e}/{c}"]["predicted"] |= predicted
    synthetic.store_fast(results, synthetic.record(data, e, c))
    collect(study)
    return parquet.read(out, "measurements").iloc[0]


def test_residuals_are_measured_over_predicted(study):
    row = foreseen(study, e2e_s=1e-3, ttft_max_s=None, itl_s=1e-3)
    assert row["residual_e2e"] == pytest.approx(row["e2e_s"] / 1e-3)
    assert row["residual_itl"] == pytest.approx(row["itl_s"] / 1e-3)
    assert pd.isna(row["residual_ttft_max"]), "nothing predicted"


def test_a_measurement_above_the_ceiling_is_invalid_and_its_record_as_it_was(study):
    out = study[2]
    row = foreseen(study, e2e_s=9.0, least_e2e_s=5.0)
    assert row["status"] == "invalid" and pd.isna(row["e2e_s"]) and pd.isna(row["residual_e2e"])
    assert "roofline ceiling: local-cpu needs at least 5 s" in row["reason"]
    failed = parquet.read(out, "failures").iloc[0]
    assert (failed["status"], failed["cell"]) == ("invalid", cells(study)[0][1])
    assert parquet.read(out, "samples").empty
    assert records.load(path_of(study, 0))["status"] == "ok"


@pytest.mark.parametrize(
    ("hardware", "least"), [("gpu", 1e-4), ("gpu", None), ("cpu", 5.0)], ids=["slower", "unknown", "a CPU has caches"]
)
def test_no_ceiling_no_verdict(study, hardware, least):
    assert foreseen(study, hardware, e2e_s=1.0, least_e2e_s=least)["status"] == "ok"


def test_acceptance_is_counted_whole_and_by_position_in_the_draft():
    checks = {"drafts": 10.0, "draft_tokens": 30.0, "accepted_tokens": 12.0}
    seen = cell_rows._speculation(checks | {"accepted_at_0": 8.0, "accepted_at_1": 4.0, "accepted_at_2": 0.0})
    assert (seen["draft_acceptance"], seen["tokens_per_draft_step"]) == (0.4, 2.2)
    assert [seen[f"draft_acceptance_at_{n}"] for n in (1, 2, 3, 4)] == [0.8, 0.4, 0.0, None]
    assert set(cell_rows._speculation({}).values()) == {None}


def test_speculation_has_no_ceiling(study):
    data = study[0]
    for engine in data["engines"].values():
        engine["config"]["draft_tokens"] = 2
    assert foreseen(study, least_e2e_s=5.0)["status"] == "ok"


def test_a_mended_prediction_mends_the_status(study):
    """The plan's bound counts, not the record's: nothing has to be measured again."""
    assert foreseen(study, least_e2e_s=5.0)["status"] == "invalid"
    data, _, out = study
    next(iter(data["cells"].values()))["predicted"]["least_e2e_s"] = 1e-4
    collect(study)
    assert parquet.read(out, "measurements").iloc[0]["status"] == "ok"


def test_a_search_gives_its_bracket_and_a_row_per_rate(study):
    data, results, out = study

    def tried(rate, verdict, why=""):
        return {"request_rate": rate, "started_at": "", "requests": 90, "share": 0.5, "arrival_rate": rate - 0.1,
                "verdict": verdict, "why": why, "metrics": {"ttft_p90_s": rate / 10}}  # fmt: skip

    searches = [
        ("ok", {"max_rate": 4.0, "missed_rate": 8.0, "tries": [tried(8.0, "missed", "few"), tried(4.0, "kept")]}),
        ("ok", {"max_rate": 4.0, "missed_rate": None, "tries": [tried(4.0, "kept")]}),
        ("goals_missed", {"max_rate": None, "missed_rate": 1.0, "tries": [tried(1.0, "missed", "few")]}),
    ]
    for (engine, cell), (status, found) in zip(cells(study), searches, strict=False):
        made = synthetic.record(data, engine, cell) | {"status": status, "search": found}
        synthetic.store_fast(results, made | ({} if status == "ok" else {"repeats": [], "reason": "the lowest rate"}))
    collect(study)
    rows = parquet.read(out, "measurements").set_index("cell").loc[[cell for _, cell in cells(study)[:3]]]
    assert rows["max_rate"].tolist()[:2] == [4, 4] and pd.isna(rows["max_rate"].iloc[2])
    assert rows["max_rate_high"].iloc[0] == 8 and rows["max_rate_high"].iloc[1:].isna().all(), "a lower bound has none"
    assert rows["rates_tried"].tolist() == [2, 1, 1] and rows["status"].iloc[2] == "goals_missed"
    rates = parquet.read(out, "rates")
    rates = rates[rates["cell"] == rows.index[0]]
    assert rates["request_rate"].tolist() == [4, 8] and rates["rate_verdict"].tolist() == ["kept", "missed"]
    assert rates["ttft_p90_s"].tolist() == [0.4, 0.8] and rates["reason"].iloc[1] == "few"
    assert parquet.read(out, "failures")["status"].tolist() == ["goals_missed"]
