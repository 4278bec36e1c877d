# ruff: noqa: E501 - a registry reads best with a line per column
"""The one registry of table columns: name, type, unit, description, and the tables a column is in.

Knob columns are made from :data:`moebench.config.KNOBS`, so a new knob is a column at once.  Figures take axis labels
and units from here, the report its definitions, Parquet files their metadata; nothing else names a unit.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from moebench.config import KNOBS
from moebench.errors import ConfigError, nearest

TABLES = ("plan", "measurements", "samples", "failures", "parameters")


@dataclass(frozen=True)
class Column:
    """One column: what it holds, in which unit, and in which tables it appears."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    tables: tuple[str, ...]
    label: str = ""
    """Short name for axes and table heads; default: made from the name."""

    @property
    def heading(self) -> str:
        """Short name for people: ``label``, else the name in words."""
        return self.label or self.name.replace("_", " ").capitalize()

    @property
    def axis(self) -> str:
        """Axis label with the unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def field(self) -> pa.Field:
        """The Arrow field, unit and description in its metadata."""
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "description": self.description})


# ------------------------------------------------------------------------------------------- knobs

_HEADINGS = {  # knob -> short name, unit; the other knobs go by their own name
    "model": ("Model", ""),
    "weights": ("Weights", ""),
    "experts": ("Experts per layer", ""),
    "moe_ffn_size": ("Expert FFN width", ""),
    "dtype": ("Data type", ""),
    "quantization": ("Quantization", ""),
    "kv_cache_dtype": ("KV cache type", ""),
    "pruning": ("Pruning", ""),
    "prune_ratio": ("Share pruned", ""),
    "draft_model": ("Draft model", ""),
    "draft_tokens": ("Draft tokens per step", "tokens"),
    "tp": ("Tensor parallel size", ""),
    "pp": ("Pipeline parallel size", ""),
    "dp": ("Data parallel size", ""),
    "ep": ("Expert parallel", ""),
    "expert_kernel": ("Expert kernel", ""),
    "kernel_config": ("Kernel tile sizes", ""),
    "mla": ("Latent KV cache (MLA)", ""),
    "eager": ("Eager mode", ""),
    "max_model_len": ("Longest sequence", "tokens"),
    "max_num_seqs": ("Most sequences per step", "requests"),
    "max_num_batched_tokens": ("Most tokens per step", "tokens"),
    "kv_cache_mb": ("KV cache size", "MB"),
    "batch": ("Batch size", "requests"),
    "input_tokens": ("Input length", "tokens"),
    "output_tokens": ("Output length", "tokens"),
    "top_k": ("Active experts per token", ""),
    "prompts": ("Prompts", ""),
    "images": ("Images per request", ""),
    "image_size": ("Image edge", "px"),
}
_RESOLVED = {
    "experts": "Routed experts per layer, as loaded: after pruning; else the knob, else the model's own",
    "moe_ffn_size": "FFN width of a routed expert, as loaded: after pruning; else the knob, else the model's own",
    "top_k": "Active experts per token, as run: the knob, else as trained",
    "weights": "Kind of weights, as run",
}
_ARROW = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}


def arrow_type(annotation: typing.Any) -> pa.DataType:
    """The Arrow type of a pydantic annotation: ``Positive | None`` is int64, a Literal of strings is string."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return arrow_type(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return arrow_type(next(a for a in typing.get_args(annotation) if a is not type(None)))
    if origin is typing.Literal:
        return _ARROW[type(typing.get_args(annotation)[0])]
    return _ARROW[annotation]


def _knob(name: str) -> Column:
    field = KNOBS[name]
    label, unit = _HEADINGS.get(name, ("", ""))
    description = _RESOLVED.get(name) or field.description or name
    tables = ("plan", "measurements", "parameters") if name == "model" else ("plan", "measurements")
    return Column(name, arrow_type(field.annotation), unit, description, tables, label)


# ----------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class Metric:
    """A quantity that every timed run gives."""

    name: str
    unit: str
    label: str
    description: str


METRICS = (
    Metric("ttft_s", "s", "Time to first token", "Time from submission to a request's first token, mean over the requests"),
    Metric("ttft_max_s", "s", "Time to first token, slowest request", "Time from submission to the first token of the last request to get one"),
    Metric("itl_s", "s", "Inter-token latency", "Gap between consecutive tokens of a request, mean over all gaps of all requests"),
    Metric("itl_p99_s", "s", "Inter-token latency, p99", "Gap between consecutive tokens of a request, 99th percentile over all gaps of all requests"),
    Metric("tpot_s", "s", "Time per output token", "(e2e - ttft) / (output_tokens - 1) of each request, mean over the requests"),
    Metric("e2e_s", "s", "End-to-end latency", "Time from submission of the batch to its last token"),
    Metric("throughput_total_tokens_per_s", "tokens/s", "Throughput, input + output", "batch * (input_tokens + output_tokens) / e2e_s: the paper's equation 2; counts input tokens, those of images not"),
    Metric("throughput_output_tokens_per_s", "tokens/s", "Throughput, output", "batch * output_tokens / e2e_s"),
    Metric("samples_per_s", "samples/s", "Samples per second", "batch / e2e_s: requests, each a text with its images; the paper's section 3.2 (d)"),
    Metric("preprocess_s", "s", "Image preparation", "Time from submission until the images of the whole batch are cut and scaled; inside ttft_s; null: no images"),
    Metric("itl_paper_s", "s", "ITL by the paper's eq. 1", "(e2e_s - ttft_max_s) / (batch * output_tokens - 1): the paper's equation 1; about 1/batch of an inter-token latency"),
)  # fmt: skip
METRIC_NAMES = tuple(m.name for m in METRICS)
PREDICTED = (
    "ttft_max_s", "itl_s", "e2e_s", "throughput_total_tokens_per_s", "throughput_output_tokens_per_s", "samples_per_s",
)  # fmt: skip
"""Metrics the cost model predicts; their columns are named ``predicted_`` and the metric."""


def _metric_columns() -> list[Column]:
    made = []
    for m in METRICS:
        made.append(Column(m.name, pa.float64(), m.unit, m.description, ("measurements", "samples"), m.label))
        for end, word in (("low", "lower"), ("high", "upper")):
            text = f"{m.label}: {word} end of the bootstrap 95% interval of the median over the repeats"
            made.append(Column(f"{m.name}_{end}", pa.float64(), m.unit, text, ("measurements",), f"{m.label}, {end}"))
    for m in (m for m in METRICS if m.name in PREDICTED):
        text = f"{m.label} as the roofline predicts it: the fastest that the hardware's peak rates allow; null: unknown"
        made.append(
            Column(f"predicted_{m.name}", pa.float64(), m.unit, text, ("plan", "measurements"), f"Predicted: {m.label}")
        )
    return made


# ------------------------------------------------------------------------------------------ others

_ALL, _CELL, _MEASURED = ("plan", "measurements", "samples", "failures"), ("plan", "measurements"), ("measurements",)
_SHOWN, _BAD, _RUN = ("measurements", "failures"), ("failures",), ("measurements", "samples", "failures")
_COUNTED = ("parameters",)


def _others() -> tuple[list[Column], list[Column]]:
    """Columns before and after the knobs."""
    text, whole, real, truth = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    first = [
        Column("study", text, "", "Study of the plan", TABLES),
        Column(
            "experiment",
            text,
            "",
            "Experiment that asks for the cell, or for the model's parameters",
            ("plan", "parameters"),
        ),
        Column("engine", text, "", "Engine configuration: identifier, by content", _ALL, "Engine configuration"),
        Column("cell", text, "", "Cell: identifier, by content", _ALL),
        Column("repeat", whole, "", "Number of the timed run, from 0", ("samples",)),
        Column("seed", whole, "", "Seed of the run's prompts", ("samples",)),
        Column("job", text, "", "Job that measures the cell", ("plan",)),
        Column("labels", text, "", "JSON: label of each axis of the experiment's grid", ("plan",)),
        Column("status", text, "", "ok, or how the cell failed", _SHOWN),
        Column("reason", text, "", "Why the cell is not ok, one sentence", _SHOWN),
        Column("evidence", text, "", "The engine's own words: the decisive log lines", _BAD),
        Column(
            "model_title",
            text,
            "",
            "Model, as named in figures",
            ("plan", "measurements", "failures", "parameters"),
            "Model",
        ),
    ]
    after = [
        Column("revision", text, "", "Revision of the weights: commit, or hash of the recipe", _CELL, "Weights revision"),
        Column("hardware", text, "", "Machine type, of config/hardware", _CELL),
        Column("weight_bits", whole, "bits", "Bits of a weight of attention, experts and feed-forward blocks, without scales", _CELL, "Weights"),
        Column("activation_bits", whole, "bits", "Bits of what these matrices are multiplied with", _CELL, "Activations"),
        Column("kv_bits", whole, "bits", "Bits of a number in the KV cache", _CELL, "KV cache"),
        Column("gpus", whole, "", "Devices the engine uses: TP x PP x DP", _CELL, "Devices"),
        Column("engine_name", text, "", "Engine", _CELL, "Engine"),
        Column("engine_version", text, "", "Version of the engine", _CELL),
        Column("protocol_kind", text, "", "How the cell is timed: trace, or as in the paper", _CELL, "Protocol"),
        Column("derived_from", text, "", "Cell whose longer trace this one was cut from; null: a run of its own", _CELL),
        Column("predicted_bytes_per_gpu", real, "bytes", "Predicted memory of weights, KV cache and activations per device", ("plan", "measurements", "failures"), "Predicted memory per device"),
        Column("predicted_fits", truth, "", "The predicted memory is no more than the usable memory; null: unknown", ("plan", "measurements", "failures"), "Predicted to fit"),
        Column("predicted_batch_fits", truth, "", "The predicted KV cache holds the whole batch at once; null: unknown", _CELL),
        Column("n_repeats", whole, "", "Timed runs behind the medians", _MEASURED, "Repeats"),
        Column("e2e_s_cv", real, "", "Coefficient of variation of e2e_s over the repeats", _MEASURED, "CV of e2e"),
        Column("unstable", truth, "", "e2e_s_cv is above 0.1; null: one repeat", _MEASURED),
        Column("canary_drift", real, "", "(max - min) / median of e2e_s among the runs of one canary cell through the engine session", _MEASURED),
        Column("load_s", real, "s", "Time to load the engine", _MEASURED, "Load time"),
        Column("distinct_experts_mean", real, "", "Distinct experts that a decode step of the batch uses, mean over steps and layers", _MEASURED, "Distinct experts"),
        Column("image_tokens", whole, "tokens", "Tokens that the images of a request became, beside its input_tokens; null: no images", _MEASURED),
        Column("kv_cache_tokens", whole, "tokens", "Tokens the engine's KV cache holds", _MEASURED, "KV cache capacity"),
        Column("untuned_kernel_warning", truth, "", "The engine warned that it has no tuned tile sizes for this expert shape", _MEASURED, "Untuned kernel"),
        Column("draft_acceptance", real, "", "Draft tokens the target accepted, share of those proposed (speculation)", _MEASURED, "Draft acceptance"),
        Column("tokens_per_draft_step", real, "tokens", "Tokens a verification step yields per request: 1 + accepted draft tokens", _MEASURED, "Tokens per step"),
        Column("preemptions", whole, "", "Requests the engine put back for want of KV cache", _MEASURED),
        Column("attempt", whole, "", "How many times the cell was tried", _SHOWN, "Attempts"),
        Column("host", text, "", "Machine that measured the cell", _SHOWN),
        Column("slurm_job_id", text, "", "SLURM job that measured the cell", _SHOWN, "SLURM job"),
        Column("device_name", text, "", "Device, as the driver names it", _MEASURED, "Device"),
        Column("git_commit", text, "", "Commit of the code that measured the cell", _MEASURED),
        Column("git_dirty", truth, "", "Tracked files differed from that commit", _MEASURED),
        Column("lock_sha256", text, "", "SHA-256 of the lock of the engine's environment", _MEASURED, "Environment lock"),
        Column("prompt_corpus_sha256", text, "", "SHA-256 of the text that prompts are cut from", _MEASURED, "Prompt corpus"),
        Column("versions", text, "", "JSON: versions of the packages that the engine process saw", _MEASURED),
        Column("started_at", text, "", "Start of the measurement, ISO 8601, UTC", _RUN),
        Column("rerun", text, "", "Command that measures this cell again", _BAD),
        Column("layer_kind", text, "", "moe: layers with routed experts; dense: layers without; outside: embeddings, last norm, vision", _COUNTED),
        Column("component", text, "", "Part of the layer, or of what is outside the layers", _COUNTED),
        Column("layers", whole, "", "Layers of this kind; null: outside the layers", _COUNTED),
        Column("layer_total_parameters", whole, "parameters", "Parameters of the component in one layer; null: outside the layers", _COUNTED, "Parameters per layer"),
        Column("layer_active_parameters", whole, "parameters", "Those of them that a token reads, with top-k as trained", _COUNTED, "Active parameters per layer"),
        Column("total_parameters", whole, "parameters", "Parameters of the component in all layers of this kind", _COUNTED, "Parameters"),
        Column("active_parameters", whole, "parameters", "Those of them that a token reads; both embedding matrices and the vision tower count in full", _COUNTED, "Active parameters"),
        Column("total_share", real, "", "total_parameters over all parameters of the model", _COUNTED, "Share of all parameters"),
        Column("active_share", real, "", "active_parameters over all active parameters of the model", _COUNTED, "Share of active parameters"),
    ]  # fmt: skip
    return first, after


def _registry() -> dict[str, Column]:
    first, after = _others()
    columns = [*first, *(_knob(name) for name in KNOBS), *_metric_columns(), *after]
    registry = {c.name: c for c in columns}
    if len(registry) != len(columns):
        raise AssertionError("a column is registered twice")
    return registry


COLUMNS: dict[str, Column] = _registry()


def column(name: str, wanted_by: str = "") -> Column:
    """A column by name.  Raises ConfigError with the nearest known name."""
    if name not in COLUMNS:
        raise ConfigError(f"{wanted_by}{': ' if wanted_by else ''}unknown column {name!r}" + nearest(name, COLUMNS))
    return COLUMNS[name]


def of_table(table: str) -> list[Column]:
    """Columns of a table, in their order."""
    if table not in TABLES:
        raise ConfigError(f"unknown table {table!r}" + nearest(table, TABLES))
    return [c for c in COLUMNS.values() if table in c.tables]


def schema(table: str, extra: Iterable[tuple[str, str]] = ()) -> pa.Schema:
    """Arrow schema of a table: units and descriptions in the field metadata, ``extra`` in the schema's own."""
    return pa.schema([c.field() for c in of_table(table)], metadata=dict(extra))


def markdown(table: str | None = None) -> str:
    """The registry as a Markdown table, a line per column."""
    chosen = of_table(table) if table else list(COLUMNS.values())
    lines = ["| column | type | unit | tables | meaning |", "|---|---|---|---|---|"]
    lines += [f"| `{c.name}` | {c.type} | {c.unit} | {', '.join(c.tables)} | {c.description} |" for c in chosen]
    return "\n".join(lines)
