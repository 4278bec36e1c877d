"""The registry of columns."""

from __future__ import annotations

import pyarrow as pa
import pytest

from moebench import columns
from moebench.config import KNOBS
from moebench.errors import ConfigError


def test_every_knob_is_a_column_of_its_type():
    types = {
        "batch": pa.int64(),
        "top_k": pa.int64(),
        "ep": pa.bool_(),
        "prune_ratio": pa.float64(),
        "prompts": pa.string(),
        "draft_model": pa.string(),
        "kv_cache_mb": pa.int64(),
        "weights": pa.string(),
        "model": pa.string(),
    }
    assert {name: columns.COLUMNS[name].field().type for name in types} == types
    for name in KNOBS:
        assert columns.COLUMNS[name].tables[:2] == ("plan", "measurements")


def test_every_knob_has_a_heading_of_its_own():
    headings = [columns.COLUMNS[name].heading for name in KNOBS]
    assert len(set(headings)) == len(headings)


def test_metrics_are_medians_with_intervals():
    names = [c.name for c in columns.of_table("measurements")]
    for metric in columns.METRIC_NAMES:
        assert [n for n in names if n in (metric, f"{metric}_low", f"{metric}_high")] == [
            metric,
            f"{metric}_low",
            f"{metric}_high",
        ]
        assert columns.COLUMNS[metric].tables == ("measurements", "samples", "rates")


def test_units_are_in_names_and_agree_with_them():
    for column in columns.COLUMNS.values():
        if column.name.endswith("_tokens_per_s") or "_tokens_per_s_" in column.name:
            assert column.unit == "tokens/s"
        elif "samples_per_s" in column.name:
            assert column.unit == "samples/s"
        elif "requests_per_s" in column.name:
            assert column.unit == "requests/s"
        elif column.name.endswith(("_s", "_s_low", "_s_high")):
            assert column.unit == "s"
        assert column.description and column.tables


def test_of_measured_metrics_times_are_better_low_and_rates_high():
    for metric in columns.METRICS:
        rates = dict.fromkeys(("tokens/s", "samples/s", "requests/s"), "high")
        of_unit = {"s": "low", **rates, "J": "low", "J/token": "low", "W": "", "USD": "low", "": ""}
        others = {"mfu": "high", "mbu": "high", "goals_met_share": "high", "backlog_requests_per_s": "low"}
        others |= {"steady_from_s": "", "steady_s": ""}  # what is cut is neither good nor bad
        better = others.get(metric.name, of_unit[metric.unit])
        assert columns.COLUMNS[metric.name].better == metric.better == better, metric.name


@pytest.mark.parametrize("table", columns.TABLES)
def test_schema_carries_units_and_descriptions(table):
    schema = columns.schema(table, [("moebench_schema", "1")])
    assert schema.metadata[b"moebench_schema"] == b"1"
    for field in schema:
        assert field.metadata[b"unit"].decode() == columns.COLUMNS[field.name].unit
        assert field.metadata[b"description"]


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(ConfigError, match=r"experiment x: .*'tttf_s'.*'ttft_s'"):
        columns.column("tttf_s", "experiment x")
    with pytest.raises(ConfigError, match=r"'measurement'.*'measurements'"):
        columns.of_table("measurement")


def test_markdown_lists_every_column():
    text = columns.markdown()
    assert all(f"| `{name}` |" in text for name in columns.COLUMNS)
    assert "`seed`" in columns.markdown("samples") and "`evidence`" not in columns.markdown("samples")
