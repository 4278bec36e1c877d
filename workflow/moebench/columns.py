# ruff: noqa: E501 - a registry reads best with a line per column
"""The only registry of table columns: name, type, unit, description, and the tables that contain a column.

Knob columns come from :data:`moebench.config.KNOBS`, so a new knob automatically becomes a column.  Figures take axis
labels and units from here, the report its definitions, and Parquet files their metadata; nothing else names a unit.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moebench.config import KNOBS, ComputedKnobs, EngineKnobs
from moebench.errors import ConfigError, nearest

if TYPE_CHECKING:
    import pyarrow as pa  # slow to import: a plan names columns, but makes no tables

Row = dict[str, Any]
"""A row of a table: values by the name of its column, as this registry lists them."""

ACCEPTANCE_AT = tuple(f"draft_acceptance_at_{position}" for position in range(1, 9))
"""Columns of the acceptance by position in the draft; only records have the positions beyond 8."""
SPECULATION = ("draft_acceptance", "tokens_per_draft_step", *ACCEPTANCE_AT)
"""Acceptance of draft tokens over all runs of a cell; figures can show it."""

TABLES = {
    "plan": "Every planned cell of every experiment",
    "measurements": "One row per cell: medians with intervals",
    "samples": "One row per timed run",
    "failures": "Cells that are not ok, and why",
    "rates": "One row per request rate that a search tried",
    "parameters": "Parameters of models by component and layer, computed",
    "activation": "How often each expert of each layer was chosen",
    "activation_layers": "How evenly the experts of each layer were chosen",
    "activation_steps": "Distinct experts per engine step and layer, measured and for uniform routing",
    "predictions": "The cost model's predictions for the grid of the reference study",
    "claims": "One row per claim and kind of cells it was evaluated on, with the verdict",
    "computed": "Points of the cost model, with the paper's printed values",
    "accuracy": "One row per task, metric and filter, and means over tasks",
    "derived": "Pruned and quantized checkpoints and how they were created",
    "machines": "Measured constants of the machines that measured cells",
    "imported": "Cells measured on imported machines",
}
"""The tables of a study and their contents."""

Better = typing.Literal["low", "high", ""]


@dataclass(frozen=True)
class Column:
    """One column: its meaning and unit, and the tables that contain it."""

    name: str
    type: str
    """Arrow's name of it."""
    unit: str
    description: str
    tables: tuple[str, ...]
    label: str = ""
    """Short name for axes and table headings; default: derived from the name."""
    better: Better = ""
    """Which values are better: ``low``, ``high``, or neither."""

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
        import pyarrow as pa

        return pa.field(
            self.name, pa.type_for_alias(self.type), metadata={"unit": self.unit, "description": self.description}
        )


# ------------------------------------------------------------------------------------------- knobs

_HEADINGS = {  # knob -> short name, unit; other knobs use their own name
    "model": ("Model", ""),
    "engine_name": ("Engine", ""),
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
    "speculation": ("Speculation", ""),
    "fused_kernel": ("Requested fused MoE kernel", ""),
    "attention_kernel": ("Requested attention backend", ""),
    "all_to_all": ("Requested all-to-all backend", ""),
    "eplb": ("Expert load balancing (EPLB)", ""),
    "redundant_experts": ("Redundant experts", ""),
    "eplb_steps": ("Steps between EPLB rearrangements", ""),
    "prefix_caching": ("Prefix caching", ""),
    "chunked_prefill": ("Requested chunked prefill", ""),
    "graph_sizes": ("Requested CUDA graph sizes", ""),
    "routing": ("Forced routing", ""),
    "routing_experts": ("Experts in forced routing", ""),
    "gate_share": ("Share of router weight kept", ""),
    "load_cap": ("Cap on active experts by tokens in the step", ""),
    "mla": ("Latent KV cache (MLA)", ""),
    "eager": ("Eager mode", ""),
    "max_model_len": ("Maximum sequence length", "tokens"),
    "max_num_seqs": ("Maximum sequences per step", "requests"),
    "own_process": ("Engine core in a separate process", ""),
    "max_num_batched_tokens": ("Maximum tokens per step", "tokens"),
    "kv_cache_mb": ("KV cache size", "MB"),
    "batch": ("Batch size", "requests"),
    "input_tokens": ("Input length", "tokens"),
    "output_tokens": ("Output length", "tokens"),
    "top_k": ("Active experts per token", ""),
    "prompts": ("Prompts", ""),
    "corpus": ("Corpus", ""),
    "requests": ("Prompts run", ""),
    "request_rate": ("Request rate", "requests/s"),
    "burstiness": ("Burstiness of arrivals", ""),
    "concurrency": ("Concurrency", "requests"),
    "length_spread": ("Spread of lengths", ""),
    "length_shape": ("Distribution of lengths", ""),
    "trace": ("Trace", ""),
    "turns": ("Turns per conversation", ""),
    "ramp_to": ("Request rate at the end", "requests/s"),
    "find": ("Search for", ""),
    "lowest_rate": ("Lowest rate of the search", "requests/s"),
    "highest_rate": ("Highest rate of the search", "requests/s"),
    "rate_tolerance": ("Tolerance of the search", ""),
    "goals_share": ("Required share of requests within the goals", ""),
    "try_s": ("Duration of a try", "s"),
    "prefix_tokens": ("Shared prefix", "tokens"),
    "images": ("Images per request", ""),
    "image_size": ("Image edge", "px"),
}
_RESOLVED = {
    "experts": "Routed experts per layer as loaded: after pruning, otherwise the knob, otherwise the model's own",
    "moe_ffn_size": "FFN width of a routed expert as loaded: after pruning, otherwise the knob, otherwise the model's own",
    "top_k": "Active experts per token as run: the knob, otherwise as trained",
    "weights": "Kind of weights as run",
    "engine_name": "Engine as named in the study: the knob, otherwise the study's",
}
_ARROW = {int: "int64", float: "double", bool: "bool", str: "string"}


def arrow_type(annotation: typing.Any) -> str:
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
    tables: tuple[str, ...] = ("plan", "measurements", *["parameters"] * (name == "model"))
    tables += ("rates",) if name == "request_rate" else ()
    tables += ("computed",) if name in ComputedKnobs.model_fields and name != "ep" else ()
    tables += ("accuracy",) * (name in EngineKnobs.model_fields or name == "top_k")
    return Column(name, arrow_type(field.annotation), unit, description, tables, label)


# ----------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class Metric:
    """A quantity measured in every timed run."""

    name: str
    unit: str
    label: str
    description: str
    better: Better


METRICS = (
    Metric("ttft_s", "s", "Time to first token", "Time from submission to a request's first token, mean over the requests", "low"),
    Metric("ttft_max_s", "s", "Time to first token, slowest request", "Time from submission to the first token of the last request to get one", "low"),
    Metric("itl_s", "s", "Inter-token latency", "Gap between consecutive tokens of a request, mean over all gaps of all requests", "low"),
    Metric("itl_p99_s", "s", "Inter-token latency, p99", "Gap between consecutive tokens of a request, 99th percentile over all gaps of all requests", "low"),
    Metric("tpot_s", "s", "Time per output token", "(e2e - ttft) / (output_tokens - 1) of each request, mean over the requests", "low"),
    Metric("e2e_s", "s", "End-to-end latency", "Time from submission of the batch to its last token", "low"),
    Metric("throughput_total_tokens_per_s", "tokens/s", "Throughput, input + output", "batch * (input_tokens + output_tokens) / e2e_s: the paper's equation 2; counts input tokens, but not those of images", "high"),
    Metric("throughput_output_tokens_per_s", "tokens/s", "Throughput, output", "batch * output_tokens / e2e_s", "high"),
    Metric("samples_per_s", "samples/s", "Throughput, samples", "batch / e2e_s: requests, each a text with its images; the paper's section 3.2 (d)", "high"),
    Metric("preprocess_s", "s", "Image preprocessing", "Time from submission until the images of the whole batch are tiled and scaled; part of ttft_s; null: no images", "low"),
    Metric("distinct_experts", "", "Distinct experts per step", "Distinct experts of a layer that a decode step of the whole batch uses, mean over steps and layers (protocol activation)", ""),
    Metric("distinct_experts_share", "", "Distinct experts per step, share of all", "distinct_experts / routed experts of a layer", ""),
    Metric("energy_j", "J", "Energy", "Energy of all devices of the cell in a run, from their own counters; CPU machine: of all its packages and memory; null: not reported, or the run is too short for the counter", "low"),
    Metric("power_w", "W", "Power", "energy_j / time of the run: mean power of all devices together", ""),
    Metric("joules_per_output_token", "J/token", "Energy per generated token", "energy_j / (batch * output_tokens)", "low"),
    Metric("joules_per_total_token", "J/token", "Energy per token, input + output", "energy_j / (batch * (input_tokens + output_tokens))", "low"),
    Metric("mfu", "", "Model FLOPs utilization", "Time of the model's operations at the data sheet's dense peak / e2e_s (docs/metrics.md); null: unknown peak, speculative decoding", "high"),
    Metric("mbu", "", "Model bandwidth utilization", "Time to read a decode step's bytes at the data sheet's bandwidth / itl_s (docs/metrics.md); null: unknown bandwidth or itl_s, speculative decoding, pipeline stages", "high"),
    Metric("output_tokens_per_s_per_user", "tokens/s", "Tokens/s per user", "1 / tpot_s: how fast the text of one request grows", "high"),
    Metric("output_tokens_per_s_per_device", "tokens/s", "Tokens/s per GPU", "throughput_output_tokens_per_s / devices of the engine", "high"),
    Metric("usd_per_million_output_tokens", "USD", "Cost per million generated tokens", "Price of the engine's devices for the time in which a million tokens are generated; input tokens are not charged; null: the hardware file has no price", "low"),
    Metric("usd_per_million_total_tokens", "USD", "Cost per million tokens, input + output", "Price of the engine's devices for the time in which a million input and output tokens are processed; null: no price, or requests over time", "low"),
    Metric("goodput_requests_per_s", "requests/s", "Goodput", "samples_per_s * goals_met_share: requests per second that meet all latency goals of the study (protocol load)", "high"),
    Metric("goals_met_share", "", "Requests within the goals", "Share of the requests that meet all latency goals of the study (protocol load)", "high"),
    Metric("steady_from_s", "s", "Start of the steady part", "Time from the first request until as many were answered as may be in flight; requests sent before do not count (protocol load)", ""),
    Metric("steady_s", "s", "Length of the steady part", "Time from then until the last request was sent; what happened later does not count (protocol load)", ""),
    Metric("backlog_requests_per_s", "requests/s", "Growth of the backlog", "(Requests sent - requests answered in the steady part) / its length: if it is well above 0, the service does not keep up and there is no steady state (protocol load)", "low"),
    Metric("ttft_p50_s", "s", "Time to first token, p50", "Time from sending a request to its first token, 50th percentile over the requests (protocol load); null: fewer than 2 requests", "low"),
    Metric("ttft_p90_s", "s", "Time to first token, p90", "Time from sending a request to its first token, 90th percentile over the requests (protocol load); null: fewer than 10 requests", "low"),
    Metric("ttft_p99_s", "s", "Time to first token, p99", "Time from sending a request to its first token, 99th percentile over the requests (protocol load); null: fewer than 100 requests", "low"),
    Metric("tpot_p50_s", "s", "Time per output token, p50", "(e2e - ttft) / (output_tokens - 1) of a request, 50th percentile over the requests (protocol load); null: fewer than 2 requests", "low"),
    Metric("tpot_p90_s", "s", "Time per output token, p90", "(e2e - ttft) / (output_tokens - 1) of a request, 90th percentile over the requests (protocol load); null: fewer than 10 requests", "low"),
    Metric("tpot_p99_s", "s", "Time per output token, p99", "(e2e - ttft) / (output_tokens - 1) of a request, 99th percentile over the requests (protocol load); null: fewer than 100 requests", "low"),
    Metric("e2e_p50_s", "s", "End-to-end latency of a request, p50", "Time from sending a request to its last token, 50th percentile over the requests (protocol load); null: fewer than 2 requests", "low"),
    Metric("e2e_p90_s", "s", "End-to-end latency of a request, p90", "Time from sending a request to its last token, 90th percentile over the requests (protocol load); null: fewer than 10 requests", "low"),
    Metric("e2e_p99_s", "s", "End-to-end latency of a request, p99", "Time from sending a request to its last token, 99th percentile over the requests (protocol load); null: fewer than 100 requests", "low"),
    Metric("itl_p50_s", "s", "Inter-token latency, p50", "Gap between consecutive tokens of a request, 50th percentile over all gaps of all requests (protocol load)", "low"),
    Metric("itl_p90_s", "s", "Inter-token latency, p90", "Gap between consecutive tokens of a request, 90th percentile over all gaps of all requests (protocol load)", "low"),
    Metric("itl_paper_s", "s", "ITL by the paper's eq. 1", "(e2e_s - ttft_max_s) / (batch * output_tokens - 1): the paper's equation 1; about 1/batch of an inter-token latency", "low"),
)  # fmt: skip
METRIC_NAMES = tuple(m.name for m in METRICS)
PREDICTED = (
    "ttft_max_s", "itl_s", "e2e_s", "throughput_total_tokens_per_s", "throughput_output_tokens_per_s", "samples_per_s",
)  # fmt: skip
"""Metrics the cost model predicts; their columns are named ``predicted_`` and the metric."""
UNIFORM = ("distinct_experts", "distinct_experts_share")
"""Metrics that the law of uniform routing predicts."""
EVENNESS = (
    "gini",
    "entropy_bits",
    "entropy_share",
    "max_over_mean",
    "activation_cv",
    "most_activations",
)
"""One number per cell, without an interval; figures may show them like metrics."""
SEARCHED = ("max_rate",)
"""Result of a search, with the ends of its bracket; figures can show it."""
COUNTED = ("active_experts", "active_experts_decode", "distinct_experts_mean")
"""Counts of the routers' choices in a cell, without an interval; figures may show them like metrics."""
RESIDUALS = ("ttft_max_s", "itl_s", "e2e_s")
"""Metrics whose measured value is divided by the predicted one."""


def residual(metric: str) -> str:
    """Name of the column with the measured value of a metric divided by the predicted one."""
    return f"residual_{metric.removesuffix('_s')}"


def _metric_columns() -> list[Column]:
    made = []
    for m in METRICS:
        made.append(
            Column(m.name, "double", m.unit, m.description, ("measurements", "samples", "rates"), m.label, m.better)
        )
        for end, word in (("low", "lower"), ("high", "upper")):
            text = f"{m.label}: {word} end of the bootstrap 95% interval of the median over the repeats; with 5 repeats or fewer, of their range"
            made.append(Column(f"{m.name}_{end}", "double", m.unit, text, ("measurements",), f"{m.label}, {end}"))
    for m in (m for m in METRICS if m.name in (*PREDICTED, *UNIFORM)):
        text = f"{m.label} predicted by the roofline: the best that the hardware's peak rates allow; null: unknown"
        if m.name in UNIFORM:
            text = f"{m.label} if every token chose its experts uniformly: E (1 - (1 - k/E)^tokens), computed"
        made.append(
            Column(
                f"predicted_{m.name}",
                "double",
                m.unit,
                text,
                ("plan", "measurements"),
                f"Predicted: {m.label}",
                m.better,
            )
        )
    for m in (m for m in METRICS if m.name in PREDICTED):
        for end, word in (
            ("", "expected"),
            ("_low", "lower end of its 80% interval"),
            ("_high", "upper end of its 80% interval"),
        ):
            text = f"{m.label} by the calibrated cost model: {word}; null: predicted_kind is not calibrated"
            label = f"Calibrated: {m.label}" + end.replace("_", ", ")
            made.append(
                Column(f"calibrated_{m.name}{end}", "double", m.unit, text, ("plan", "measurements"), label, m.better)
            )
    made.append(
        Column(
            "predicted_least_e2e_s",
            "double",
            "s",
            "Lower bound of the end-to-end latency: the roofline if all requests choose the same experts; null: unknown",
            ("plan", "measurements"),
            "Lower bound of the end-to-end latency",
        )
    )
    labels = {m.name: f"{m.label[0].lower()}{m.label[1:]}" for m in METRICS}
    for name in RESIDUALS:
        text = f"{name} / predicted_{name}; above 1 is expected, because the roofline has no overheads; null: not predicted"
        made.append(
            Column(residual(name), "double", "", text, ("measurements",), f"Measured over predicted {labels[name]}")
        )
    return made


def _claim_columns() -> list[Column]:
    text, whole, real, only = "string", "int64", "double", ("claims",)
    return [
        Column("claim", text, "", "Id of the claim in config/claims", only),
        Column("paper", text, "", "Paper that makes the claim", only),
        Column("place", text, "", "Place in the paper", only),
        Column("quote", text, "", "Quote from the paper", only),
        Column("statement", text, "", "Tested statement", only),
        Column(
            "metric",
            text,
            "",
            "Metric that the claim compares, or its other subject; of a task, the harness's name",
            (*only, *_TASKS),
        ),
        Column("test", text, "", "Test applied to the values (docs/claims.md)", only),
        Column("expected", text, "", "Expected result if the claim is right", only),
        Column("expected_here", text, "", "The same for the grid of this study's scale", only),
        Column(
            "verdict",
            text,
            "",
            "On the paper's own models and machine: confirmed, refuted, inconclusive, not decided, not measured; nothing claimed",
            only,
        ),
        Column(
            "outcome",
            text,
            "",
            "The same comparison on this study's cells: agrees, disagrees, undecided, not decided, not measured",
            only,
            "Same comparison here",
        ),
        Column(
            "value",
            real,
            "",
            "Value of the claim's test on this study's cells; of a task or constant, in `unit` (shares are 0 to 1)",
            (*only, *_TASKS, *_MACHINE),
            "Value here",
        ),
        Column("value_low", real, "", "Lower end of its interval: the middle 95% of bootstrap resamples", only),
        Column("value_high", real, "", "Upper end of its interval: the middle 95% of bootstrap resamples", only),
        Column("support", real, "", "Yes-or-no tests: share of bootstrap resamples in which the test holds", only),
        Column("comparisons", whole, "", "Pairs or groups of cells behind the value", only),
        Column("comparisons_planned", whole, "", "Pairs or groups of cells in the plan", only),
        Column(
            "needs",
            text,
            "",
            "Minimum number of comparisons, or of series of a given length, that decide it in the paper's grid",
            only,
        ),
        Column("unstable_cells", whole, "", "Cells behind the value that are flagged as unstable", only),
        Column(
            "evaluated_on",
            text,
            "",
            "The compared cells: models, weights, machine, prompts, mode",
            only,
            "Evaluated on",
        ),
        Column(
            "predicted_value",
            real,
            "",
            "Value of the test on the cost model's predictions for the paper's own cells; null: no prediction",
            only,
        ),
        Column(
            "predicted_low",
            real,
            "",
            "Lower end of its 95% interval, from the errors of left-out points; null: a bound has none",
            only,
        ),
        Column("predicted_high", real, "", "Upper end of the same interval", only),
        Column(
            "predicted_support",
            real,
            "",
            "Yes-or-no tests: share of draws within the intervals in which the test holds",
            only,
        ),
        Column("predicted_outcome", text, "", "Whether the prediction agrees with the claim", only),
        Column("predicted_on", text, "", "Machine of the prediction", only),
        Column("contradicts", text, "", "Claims that cannot be right together with this one", only),
        Column("note", text, "", "Note for the reader", only),
    ]


# ------------------------------------------------------------------------------------------ others

_ALL, _CELL, _MEASURED = ("plan", "measurements", "samples", "failures"), ("plan", "measurements"), ("measurements",)
_MACHINE, _PER_RUN = ("machines",), ("measurements", "samples")
_SHOWN, _BAD, _RUN = ("measurements", "failures"), ("failures",), ("measurements", "samples", "failures")
_COUNTED, _POINT, _TASKS, _DERIVED = ("parameters",), ("computed",), ("accuracy",), ("derived",)
_ROUTED = ("activation", "activation_layers", "activation_steps")
_EXPERT, _LAYER, _STEP = ("activation",), ("activation_layers",), ("activation_steps",)
_EVEN = ("measurements", "activation_layers")


def _others() -> tuple[list[Column], list[Column]]:
    """Columns before and after the knobs."""
    text, whole, real, truth = "string", "int64", "double", "bool"
    first = [
        Column("study", text, "", "Study of the plan", tuple(TABLES)),
        Column(
            "experiment",
            text,
            "",
            "Experiment that contains the cell, the model or the point",
            ("plan", "parameters", "computed", "accuracy"),
        ),
        Column(
            "engine",
            text,
            "",
            "Id of the engine configuration, by content",
            (*_ALL, *_ROUTED, *_TASKS, "rates"),
            "Engine configuration",
        ),
        Column("cell", text, "", "Id of the cell, by content", (*_ALL, *_ROUTED, *_TASKS, "rates")),
        Column("repeat", whole, "", "Number of the timed run, from 0", ("samples",)),
        Column("seed", whole, "", "Seed of the run's prompts", ("samples",)),
        Column("job", text, "", "Job that measures the cell", ("plan",)),
        Column("labels", text, "", "JSON: label of each axis of the experiment's grid", ("plan",)),
        Column("variant", text, "", "Labels of the arms of a computed point; its place in the paper", _POINT),
        Column(
            "by", text, "", "printed: in the paper; formulas: from its formulas; distinct: from this cost model", _POINT
        ),
        Column("status", text, "", "ok, or how the cell failed", (*_SHOWN, *_TASKS)),
        Column(
            "reason",
            text,
            "",
            "Why the cell is not ok or the claim has no verdict, in one sentence",
            (*_SHOWN, "claims", *_TASKS, "rates"),
        ),
        Column("evidence", text, "", "Engine log excerpt: the decisive lines", (*_BAD, *_TASKS)),
        Column(
            "model_title",
            text,
            "",
            "Model as named in figures",
            ("plan", "measurements", "failures", "rates", "parameters", "computed", *_ROUTED, *_TASKS, *_DERIVED),
            "Model",
        ),
        Column(
            "phase", text, "", "What the engine steps computed: prefill, decode, mixed (tokens of both), all", _ROUTED
        ),
        Column("layer", whole, "", "Number of the layer in the model, from 0", _ROUTED),
        Column("expert", whole, "", "Number of the routed expert in its layer, from 0", _EXPERT),
    ]
    after = [
        Column("revision", text, "", "Revision of the weights: commit, or hash of the recipe", (*_CELL, *_TASKS, *_DERIVED), "Weights revision"),
        Column("hardware", text, "", "Machine type of config/hardware; hosted service: the hardware given for its endpoint", (*_CELL, *_POINT, *_TASKS)),
        Column("hardware_title", text, "", "Machine type as named in figures", _POINT, "Machine"),
        Column("weight_bits", whole, "bits", "Bits per weight of attention, experts and feed-forward blocks, without scales", _CELL, "Weights"),
        Column("activation_bits", whole, "bits", "Bits of the activations that these matrices are multiplied with", _CELL, "Activations"),
        Column("kv_bits", whole, "bits", "Bits per number in the KV cache", _CELL, "KV cache"),
        Column("gpus", whole, "", "Devices of the engine: TP x PP x DP (computed: x KVP); null: hosted service", (*_CELL, *_POINT, *_TASKS), "Devices"),
        Column("engine_version", text, "", "Version of the engine", (*_CELL, *_TASKS)),
        Column("protocol_kind", text, "", "Protocol of the measurement, e.g. trace, or as in the paper", _CELL, "Protocol"),
        Column("derived_from", text, "", "Longer cell whose trace was truncated to give this one; null: measured itself", _CELL),
        Column("predicted_bytes_per_gpu", real, "bytes", "Predicted memory of weights, KV cache and activations per device", ("plan", "measurements", "failures"), "Predicted memory per device"),
        Column("predicted_fits", truth, "", "The predicted memory does not exceed the usable memory; null: unknown", ("plan", "measurements", "failures"), "Predicted to fit"),
        Column("predicted_batch_fits", truth, "", "The predicted KV cache holds the whole batch at once; null: unknown", _CELL),
        Column("predicted_with", text, "", "Constants used for predicted times: data sheet, or measured constants of the machine that measured the cell; null: no prediction", _MEASURED, "Predicted with"),
        Column("predicted_kind", text, "", "Kind of prediction: calibrated (MACHINE, DATE), bound (roofline only) or none", (*_CELL, "claims"), "Kind of prediction"),
        Column("uncalibrated", text, "", "Why predicted times are not calibrated although the machine has constants; null: they are, or it has none", _CELL, "Not calibrated because"),
        Column("prediction_refused", text, "", "Why measured constants of the machine, and therefore the prediction, are refused; null: not refused", _MEASURED),
        Column("n_repeats", whole, "", "Timed runs behind the median; of a constant: behind the best value", (*_MEASURED, *_MACHINE), "Repeats"),
        Column("e2e_s_cv", real, "", "Coefficient of variation of e2e_s over the repeats", _MEASURED, "CV of e2e"),
        Column("unstable", truth, "", "e2e_s_cv or the absolute value of canary_gap is above 0.1; null: one repeat and no canary", _MEASURED),
        Column("throttled", truth, "", "The driver reduced the clocks during a repeat because of power, heat or supply, or the power limit is below the device's default; null: not reported", _MEASURED),
        Column("throttle_reasons", text, "", "The driver's reasons for reduced clocks over all repeats (nvmlClocksEventReasons); power_cap_below_default: the limit was lowered; null: not reported", _PER_RUN),
        Column("no_energy", text, "", "Why a run has no energy although its devices were read; null: it has, or there is no telemetry", ("samples",)),
        Column("power_max_w", real, "W", "Largest power reading of one device (on NVIDIA devices from Ampere on, an average over the last second)", _PER_RUN, "Power, largest reading"),
        Column("sm_clock_mhz", real, "MHz", "SM clock, mean over samples and devices", _PER_RUN, "SM clock"),
        Column("memory_clock_mhz", real, "MHz", "Memory clock, mean over samples and devices", _PER_RUN, "Memory clock"),
        Column("device_temperature_c", real, "\N{DEGREE SIGN}C", "Highest temperature of any device", _PER_RUN, "Temperature"),
        Column("device_memory_peak_bytes", real, "bytes", "Peak memory in use by all processes on the device with the most", _PER_RUN, "Memory in use"),
        Column("device_utilization", real, "", "Share of time with a kernel running, as the driver reports it, mean over samples and devices", _PER_RUN, "Device busy"),
        Column("mbu_experts", text, "", "Source of the distinct experts in mbu: measured (in the cell's warm-up) or uniform (expected under uniform routing); null: no mbu, or no routed experts", _MEASURED, "Experts behind MBU"),
        Column("telemetry_source", text, "", "nvml: the driver's library; rapl: counters of a CPU; null: no telemetry", _MEASURED),
        Column("device_uuids", text, "", "UUIDs of the devices", _MEASURED, "Device UUIDs"),
        Column("device_mig", truth, "", "A device is a slice of a shared GPU (MIG): no energy, power or utilization", _MEASURED),
        Column("device_ecc", truth, "", "ECC is enabled for the memory of every device", _MEASURED),
        Column("power_cap_w", real, "W", "Lowest enforced power limit of any device", _MEASURED, "Power limit"),
        Column("device_nvlinks", whole, "", "Lowest number of active NVLinks of any device", _MEASURED, "NVLinks"),
        Column("device_links", text, "", "How pairs of devices are connected: NVLink, or as named by nvidia-smi topo", _MEASURED),
        Column("driver", text, "", "Version of the NVIDIA driver", _MEASURED),
        Column("nccl", text, "", "Version of the NCCL library that torch uses", _MEASURED),
        Column("attention_backend", text, "", "Attention kernel that the engine chose, most layers first", _MEASURED),
        Column("moe_backend", text, "", "Expert kernel that the engine chose, most layers first", _MEASURED),
        Column("linear_backend", text, "", "Kernel of linear layers that the engine chose, most layers first", _MEASURED),
        Column("cuda_graph_mode", text, "", "Resolved mode of CUDA graphs", _MEASURED),
        Column("cuda_graph_sizes", text, "", "JSON: batch sizes for which CUDA graphs were captured; null: none", _MEASURED),
        Column("canary_drift", real, "", "(max - min) / median of e2e_s over the canary runs of the engine session and the median of the canary cell's own repeats", _MEASURED),
        Column("canary_gap", real, "", "Median e2e_s of this cell's canary runs / median of its own repeats in the same session - 1; null: not the canary of its session", _MEASURED),
        Column("load_s", real, "s", "Time to load the engine", _MEASURED, "Load time"),
        Column("distinct_experts_mean", real, "", "Distinct experts used by a decode step of the batch, mean over steps and layers", _MEASURED, "Distinct experts"),
        Column("active_experts", real, "", "Experts to which a token was sent, as counted, mean over tokens and layers (with a budget: over all runs); null: not counted", _MEASURED, "Active experts, as counted"),
        Column("active_experts_decode", real, "", "The same for steps that only decode", _MEASURED, "Active experts while decoding, as counted"),
        Column("prefix_cache_hits", real, "tokens", "Prompt tokens that the engine took from its prefix cache, over all runs of the cell; null: not reported", _MEASURED, "Tokens from the prefix cache"),
        Column("serving", text, "", "JSON: serving settings as resolved by the engine (prefix caching, chunked prefill, EPLB, all-to-all, speculation); null: not reported", _MEASURED, "Resolved serving settings"),
        Column("image_tokens", real, "tokens", "Tokens of a request's images, in addition to input_tokens (mean if a data set's images differ); null: no images", _MEASURED),
        Column("tokens_counted_by", text, "", "ids: token ids were counted; usage: a service's own count; null: no such run", _MEASURED, "Tokens counted by"),
        Column("input_tokens_seen", real, "tokens", "Mean prompt tokens per request as counted by the service; null: as requested", _MEASURED, "Input tokens, as counted"),
        Column("output_tokens_seen", real, "tokens", "Mean generated tokens per request if the service may end early; null: as requested", _MEASURED, "Output tokens, as counted"),
        Column("ran_together", truth, "", "In every run through a service, the last request got its first token before the first request got its last; also false if tokens arrived in groups; null: no service", _MEASURED),
        Column("steady_requests", whole, "requests", "Requests sent in the steady part of all repeats, from which the metrics are computed; null: not protocol load", (*_MEASURED, "rates"), "Requests that count"),
        Column("arrival_rate", real, "requests/s", "Rate at which requests were actually sent, mean over the repeats; null: not protocol load", (*_MEASURED, "rates"), "Requests sent per second"),
        Column("rate_verdict", text, "", "Outcome of a tried rate: kept (met the goals), missed, or not_sent (the client was too slow)", ("rates",), "Verdict"),
        Column("max_rate", real, "requests/s", "Highest tried request rate at which a share of goals_share of the requests meets all goals of the study (find: max_rate); the metrics of the row are those at this rate; null: no search, or the lowest rate misses the goals", _MEASURED, "Highest rate within the goals", "high"),
        Column("max_rate_low", real, "requests/s", "Lower end of the bracket: max_rate", _MEASURED, "Highest rate within the goals, low"),
        Column("max_rate_high", real, "requests/s", "Upper end of the bracket: the lowest tried rate that misses the goals; null: none did, so max_rate is a lower bound", _MEASURED, "Highest rate within the goals, high"),
        Column("rates_tried", whole, "", "Number of rates that the search tried; null: no search", _MEASURED),
        Column("queue_time_mean_s", real, "s", "Time that a request waited in the server before it was run, mean over all requests; null: not protocol load, or not reported by the service", _MEASURED, "Time in the queue"),
        Column("tokens_per_arrival", real, "tokens", "Mean number of a request's tokens that reached the client together: if it is well above 1, ITL is that of groups of tokens; null: no service", _MEASURED, "Tokens per arrival"),
        Column("kv_cache_tokens", whole, "tokens", "Tokens that the engine's KV cache can hold", _MEASURED, "KV cache capacity"),
        Column("untuned_kernel_warning", truth, "", "The expert kernel ran with default tile sizes: the engine warned that it has no tuned ones for the shape, or kernel_config requested them", _MEASURED, "Untuned kernel"),
        Column("flashinfer", truth, "", "vLLM may use FlashInfer's kernels; null: not reported", _MEASURED),
        Column("fuse_allreduce_rms", truth, "", "All-reduce and RMSNorm are fused in one FlashInfer kernel; null: not reported", _MEASURED),
        Column("custom_all_reduce", truth, "", "vLLM's own all-reduce is used instead of NCCL's; null: not reported", _MEASURED),
        Column("deep_gemm", truth, "", "vLLM may use DeepGEMM for block FP8 weights; null: not reported", _MEASURED),
        Column("thrown_away_runs", whole, "", "Timed runs that were discarded and repeated because the engine compiled a kernel in them", _MEASURED, "Discarded runs"),
        Column("other_jobs_cpus", whole, "", "CPUs of the node allocated to other SLURM jobs before or after the cell, whichever is more; null: not reported", _MEASURED, "CPUs of other jobs"),
        Column("draft_acceptance", real, "", "Share of proposed draft tokens that the target model accepted (speculative decoding)", _MEASURED, "Draft acceptance"),
        Column("tokens_per_draft_step", real, "tokens", "Tokens per verification step and request: 1 + accepted draft tokens", _MEASURED, "Tokens per step"),
        *(
            Column(name, real, "", f"Share of verification steps that accepted the draft token at position {at} (and all before it); null: shorter drafts", _MEASURED, f"Acceptance at position {at}")
            for at, name in enumerate(ACCEPTANCE_AT, 1)
        ),
        Column("activations", whole, "", "Number of times the router chose the expert; of a layer: all choices, tokens x top-k", ("activation", "activation_layers")),
        Column("activation_share", real, "", "activations of the expert / those of its layer and phase", _EXPERT),
        Column("relative_activation", real, "", "activation_share x experts: 1 is even use", _EXPERT, "Use of an expert relative to even use"),
        Column("layer_tokens", whole, "tokens", "Tokens that passed the layer: activations / top-k", _LAYER, "Tokens"),
        Column("gini", real, "", "Gini coefficient of the activations of a layer's experts: 0 even, 1 - 1/E one expert has all; of a cell: mean over its layers", _EVEN, "Gini"),
        Column("predicted_gini", real, "", "Gini coefficient that counting noise alone would give for this number of tokens, sqrt((1 - k/E) / (pi tokens k/E))", _EVEN, "Gini of uniform routing"),
        Column("entropy_bits", real, "bits", "Shannon entropy of the shares of a layer's experts; of a cell: mean over its layers", _EVEN, "Entropy"),
        Column("entropy_share", real, "", "entropy_bits / its largest value, log2 E", _EVEN, "Entropy / log\N{SUBSCRIPT TWO} E"),
        Column("max_over_mean", real, "", "Activations of a layer's busiest expert / mean over its experts; of a cell: mean over its layers", _EVEN, "Max / mean"),
        Column("activation_cv", real, "", "Coefficient of variation of the activations of a layer's experts; of a cell: mean over its layers", _EVEN, "CV of activations"),
        Column("most_activations", whole, "", "Activations of the busiest expert; of a cell: of all its layers", _EVEN),
        Column("step_tokens", whole, "tokens", "Tokens in one engine step", _STEP),
        Column("steps", whole, "", "Engine steps of that size and phase", _STEP),
        Column("step_distinct_experts", real, "", "Distinct experts that such a step uses in the layer, mean over steps", _STEP),
        Column("step_distinct_experts_uniform", real, "", "The same if every token chose its experts uniformly: E (1 - (1 - k/E)^tokens), computed", _STEP),
        Column("preemptions", whole, "", "Requests preempted for lack of KV cache", _MEASURED),
        Column("attempt", whole, "", "Number of attempts to measure the cell", (*_SHOWN, *_TASKS), "Attempts"),
        Column("host", text, "", "Machine that measured the cell, or whose constants these are", (*_SHOWN, *_TASKS, *_MACHINE)),
        Column("slurm_job_id", text, "", "SLURM job that measured the cell", (*_SHOWN, *_TASKS), "SLURM job"),
        Column("device_name", text, "", "Device as named by the driver, or the CPU model", (*_MEASURED, *_MACHINE), "Device"),
        Column("git_commit", text, "", "Commit of the code that measured the cell", (*_MEASURED, *_TASKS)),
        Column("git_dirty", truth, "", "Tracked files differed from that commit", (*_MEASURED, *_TASKS)),
        Column("lock_sha256", text, "", "SHA-256 of the lock of the engine's environment", (*_MEASURED, *_TASKS), "Environment lock"),
        Column("prompt_corpus_sha256", text, "", "SHA-256 of the text that prompts are taken from", _MEASURED, "Prompt corpus"),
        Column("versions", text, "", "JSON: versions of the packages in the engine process", (*_MEASURED, *_TASKS)),
        Column("variables", text, "", "JSON: environment variables that the engine reads, as set in its job; null: not recorded", (*_MEASURED, *_TASKS), "Variables"),
        Column("started_at", text, "", "Start of the measurement, ISO 8601, UTC", (*_RUN, *_TASKS, *_MACHINE, "rates")),
        Column("rerun", text, "", "Command that measures this cell again", (*_BAD, *_TASKS)),
        Column("layer_kind", text, "", "moe: layers with routed experts; dense: layers without; recurrent: layers with a state instead of attention; outside: embeddings, last norm, vision", _COUNTED),
        Column("component", text, "", "Component of the layer, or outside the layers", _COUNTED),
        Column("layers", whole, "", "Layers of this kind; null: outside the layers", _COUNTED),
        Column("layer_total_parameters", whole, "parameters", "Parameters of the component in one layer; null: outside the layers", _COUNTED, "Parameters per layer"),
        Column("layer_active_parameters", whole, "parameters", "Parameters that one token reads, with top-k as trained", _COUNTED, "Active parameters per layer"),
        Column("total_parameters", whole, "parameters", "Parameters of the component in all layers of this kind", _COUNTED, "Parameters"),
        Column("active_parameters", whole, "parameters", "Parameters that one token reads; both embedding matrices and the vision tower count in full", _COUNTED, "Active parameters"),
        Column("total_share", real, "", "total_parameters / all parameters of the model", _COUNTED, "Share of all parameters"),
        Column("kvp", whole, "", "KV parallel size: ranks that share the cache of a sequence by tokens", _POINT, "KV parallel size"),
        Column("expert_groups", whole, "", "Number of groups over which whole experts are distributed (given)", _POINT),
        Column("quality", real, "", "Quality factor q: feed-forward parameters of the dense model / active ones of the MoE", _POINT, "Quality factor q"),
        Column("context_tokens", whole, "tokens", "Context length of every sequence", _POINT, "Context"),
        Column("memory_factor", real, "", "Factor on the device memory of the machine type", _POINT),
        Column("bandwidth_factor", real, "", "Factor on the memory bandwidth of the machine type", _POINT),
        Column("link_factor", real, "", "Factor on the link bandwidth of the machine type", _POINT),
        Column("qs", real, "", "q k / E: below 1, the paper considers the MoE to be at a disadvantage", _POINT, "qs"),
        Column("ffn_traffic_ratio", real, "", "Expert weights read per token, MoE over dense of equal quality; formulas: eq. 17, no shared experts", _POINT, "FFN bytes, MoE over dense"),
        Column("break_even_batch", real, "tokens", "Batch size from which the MoE reads more expert weights; null: none; formulas: without shared experts", _POINT, "Break-even batch"),
        Column("criterion_holds", real, "", "1: qs < 1 and the MoE reads more, or neither (eq. 18); 0: only one of the two", _POINT),
        Column("batch_moe", real, "requests", "Sequences decoded on all devices, MoE", _POINT, "Batch, MoE"),
        Column("batch_dense", real, "requests", "Sequences decoded on all devices, dense model", _POINT, "Batch, dense"),
        Column("batch_ratio", real, "", "batch_dense over batch_moe", _POINT, "Batch, dense over MoE"),
        Column("hbm_ratio", real, "", "Memory time per token, MoE over dense", _POINT, "Memory time, MoE over dense"),
        Column("throughput_moe", real, "tokens/s", "Decoded tokens per second on all devices, MoE", _POINT, "Throughput, MoE"),
        Column("throughput_dense", real, "tokens/s", "Decoded tokens per second on all devices, dense", _POINT, "Throughput, dense"),
        Column("speedup_dense", real, "", "throughput_dense over throughput_moe", _POINT, "Throughput, dense over MoE"),
        Column("layout_moe", text, "", "Layout of the MoE, given or searched", _POINT, "Layout, MoE"),
        Column("layout_dense", text, "", "Layout of the dense model", _POINT, "Layout, dense"),
        Column("active_share", real, "", "active_parameters / all active parameters of the model", _COUNTED, "Share of active parameters"),
        Column("harness", text, "", "Accuracy harness", _TASKS),
        Column("harness_version", text, "", "Version of the harness", _TASKS),
        Column("block", whole, "", "Block of the experiment's accuracy part, from 0; means are over the tasks of a block", _TASKS),
        Column("task", text, "", "Task of config/tasks; mean: over the tasks of the block", _TASKS),
        Column("task_title", text, "", "Task as named in figures", _TASKS, "Task"),
        Column("subtask", text, "", "The harness's name of the task or subtask in this row", _TASKS),
        Column("group", text, "", "The harness's group that the subtask belongs to; null: none", _TASKS),
        Column("filter", text, "", "The harness's answer filter", _TASKS),
        Column("main", truth, "", "This row represents its task: first metric in config/tasks, whole task", _TASKS),
        Column("unit", text, "", "share (of right answers, or of all points), points, perplexity, bits/byte; of a constant: bytes/s, FLOP/s", (*_TASKS, *_MACHINE)),
        Column("stderr", real, "", "Standard error of the value over the questions, as reported by the harness; of a mean: for independent tasks; null: not reported", _TASKS, "Standard error"),
        Column("n", whole, "", "Number of questions; of a mean: tasks", _TASKS, "Questions"),
        Column("n_shot", whole, "", "Few-shot examples before each question", _TASKS, "Shots"),
        Column("task_version", text, "", "Version of the harness's task definition", _TASKS),
        Column("higher_is_better", truth, "", "A larger value is better", _TASKS),
        Column("chance", real, "", "Expected score of guessing: 1 / number of answer choices, mean over the questions; null: free text", _TASKS, "Chance level"),
        Column("judge", text, "", "Judge of the answers; null: none, the harness compares", _TASKS),
        Column("made_of", text, "", "Tasks in a mean computed by this project; null: another value", _TASKS),
        Column("limit", whole, "", "Number of rows used of each data set; null: all", _TASKS),
        Column("truncated_prompts", whole, "", "Prompts that the harness truncated to the engine's longest sequence", _TASKS),
        Column("data_source", text, "", "Source of the questions: hub:ORG/NAME, the URL of a table, or fixtures that the project writes", _TASKS),
        Column("data_revision", text, "", "Commit of the data set, MD5 of the table, or hash of the fixtures", _TASKS),
        Column("samples_sha256", text, "", "SHA-256 of the log of all questions and answers", _TASKS),
        Column("arm_of", text, "", "Engine configuration with which this one is compared: the same model, weights and precision on the fewest devices; null: none", _TASKS, "Compared with"),
        Column("arm_difference", real, "", "Value minus that of arm_of on the same questions", _TASKS, "Difference between arms"),
        Column("accuracy", real, "", "Mean accuracy over the experiment's tasks for the cell's engine configuration and top-k (joined for figures)", ("figures",), "Mean accuracy", "high"),
        Column("accuracy_low", real, "", "Accuracy minus 1.96 standard errors, assuming independent tasks", ("figures",)),
        Column("accuracy_high", real, "", "Accuracy plus 1.96 standard errors, assuming independent tasks", ("figures",)),
        Column("perplexity", real, "", "Word perplexity of the only task that has one (joined for figures, like accuracy)", ("figures",), "Word perplexity", "low"),
        Column("arm_differs", truth, "", "The mean difference over questions exceeds noise (paired; 99% over all comparisons of the harness together)", _TASKS),
        Column("checkpoint", text, "", "Folder of a derived checkpoint", _DERIVED),
        Column("derived_by", text, "", "prune or quantize", _DERIVED),
        Column("parent", text, "", "Folder of the checkpoint from which it was derived", _DERIVED),
        Column("recipe", text, "", "What was removed and by which criterion, or the quantization scheme and tool", _DERIVED),
        Column("ratio_asked", real, "", "Requested share to prune; null: not pruned", _DERIVED, "Requested share"),
        Column("ratio_reached", real, "", "Share actually pruned, since experts are whole and widths are multiples; null: not created", _DERIVED, "Share removed"),
        Column("rounding", text, "", "How the requested share was rounded to the actual one", _DERIVED),
        Column("calibration_text", text, "", "Calibration text, with the start of its SHA-256; null: not calibrated", _DERIVED),
        Column("calibration_tokens", whole, "tokens", "Tokens of the calibration text that were run", _DERIVED),
        Column("tokens_per_expert_min", whole, "tokens", "Fewest calibration tokens of any expert: routed to it (pruning), or with every expert run on every token (quantization)", _DERIVED, "Fewest tokens per expert"),
        Column("experts_without_tokens", whole, "", "Experts to which the router sent no calibration token", _DERIVED),
        Column("took_s", real, "s", "Time to create the checkpoint", _DERIVED),
        Column("threads", whole, "", "Threads of the measuring process as reported by torch", (*_MEASURED, *_MACHINE)),
        Column("constant", text, "", "triad: memory bandwidth; product DTYPE: rate of square matrix products", _MACHINE),
        Column("constant_size", real, "", "Bytes of the triad's three arrays, or side of the matrices", _MACHINE, "Size"),
        Column("machine", text, "", "Folder of the imported machine in results/imported", ("imported",)),
        Column("made", truth, "", "The checkpoint exists with the plan's revision", _DERIVED),
    ]  # fmt: skip
    return first, after


def _registry() -> dict[str, Column]:
    first, after = _others()
    columns = [*first, *(_knob(name) for name in KNOBS), *_metric_columns(), *after, *_claim_columns()]
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
    # The plan of the reference study, and what other machines measured, have the columns of the study's own.
    like = {"predictions": "plan", "imported": "measurements"}.get(table)
    return [c for c in COLUMNS.values() if table in c.tables or like in c.tables]


def schema(table: str, extra: Iterable[tuple[str, str]] = ()) -> pa.Schema:
    """Arrow schema of a table: units and descriptions in the field metadata, ``extra`` in the schema's own."""
    return _schema(table).with_metadata(dict(extra))


@functools.cache
def _schema(table: str) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([c.field() for c in of_table(table)])


def markdown(table: str | None = None) -> str:
    """The registry as a Markdown table, a line per column."""
    chosen = of_table(table) if table else list(COLUMNS.values())
    lines = ["| column | type | unit | tables | meaning |", "|---|---|---|---|---|"]
    lines += [f"| `{c.name}` | {c.type} | {c.unit} | {', '.join(c.tables)} | {c.description} |" for c in chosen]
    return "\n".join(lines)
