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
from typing import Any

import pyarrow as pa

from moebench.config import KNOBS, ComputedKnobs, EngineKnobs
from moebench.errors import ConfigError, nearest

Row = dict[str, Any]
"""A row of a table: values by the name of its column, as this registry lists them."""

ACCEPTANCE_AT = tuple(f"draft_acceptance_at_{position}" for position in range(1, 9))
"""Columns of the acceptance by position in the draft; the records hold longer drafts' further positions."""
SPECULATION = ("draft_acceptance", "tokens_per_draft_step", *ACCEPTANCE_AT)
"""What became of the draft tokens over all runs of a cell; figures can show it."""

TABLES = {
    "plan": "Every planned cell of every experiment",
    "measurements": "A row per cell: medians with intervals",
    "samples": "A row per timed run",
    "failures": "Cells that are not ok, and why",
    "rates": "A row per request rate that a search tried",
    "parameters": "Parameters of models by component and layer, computed",
    "activation": "How often each expert of each layer was chosen",
    "activation_layers": "How evenly the experts of each layer were chosen",
    "activation_steps": "Distinct experts per engine step and layer, measured and for uniform routing",
    "predictions": "Cost model's predictions for the grid of the study that the plan refers to",
    "claims": "A row per claim of the papers and kind of cells it was evaluated on: the verdict",
    "computed": "Points of the cost model, beside what a paper prints",
    "accuracy": "A row per task, metric and filter, and means over tasks",
    "derived": "Pruned and quantized checkpoints: how they were made",
    "machines": "Measured constants of the machines that measured cells",
    "imported": "Cells as imported machines measured them",
}
"""The tables of a study, and what is in each."""

Better = typing.Literal["low", "high", ""]


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
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "description": self.description})


# ------------------------------------------------------------------------------------------- knobs

_HEADINGS = {  # knob -> short name, unit; the other knobs go by their own name
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
    "fused_kernel": ("Fused MoE kernel asked for", ""),
    "attention_kernel": ("Attention backend asked for", ""),
    "all_to_all": ("All-to-all backend asked for", ""),
    "eplb": ("Expert load balancing (EPLB)", ""),
    "redundant_experts": ("Redundant experts", ""),
    "eplb_steps": ("Steps between EPLB's rearrangements", ""),
    "prefix_caching": ("Prefix caching", ""),
    "chunked_prefill": ("Chunked prefill asked for", ""),
    "graph_sizes": ("CUDA graph sizes asked for", ""),
    "routing": ("Drawn routing", ""),
    "routing_experts": ("Experts drawn from", ""),
    "gate_share": ("Share of the gate's weights that is kept", ""),
    "load_cap": ("Cap on active experts by tokens in the step", ""),
    "mla": ("Latent KV cache (MLA)", ""),
    "eager": ("Eager mode", ""),
    "max_model_len": ("Longest sequence", "tokens"),
    "max_num_seqs": ("Most sequences per step", "requests"),
    "own_process": ("Engine core in a process of its own", ""),
    "max_num_batched_tokens": ("Most tokens per step", "tokens"),
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
    "length_spread": ("Spread of the lengths", ""),
    "length_shape": ("Distribution of the lengths", ""),
    "trace": ("Trace", ""),
    "turns": ("Turns of a conversation", ""),
    "ramp_to": ("Request rate at the end", "requests/s"),
    "find": ("Searched for", ""),
    "lowest_rate": ("Lowest rate of the search", "requests/s"),
    "highest_rate": ("Highest rate of the search", "requests/s"),
    "rate_tolerance": ("Tolerance of the search", ""),
    "goals_share": ("Share of requests within the goals, asked", ""),
    "try_s": ("Time of a try", "s"),
    "prefix_tokens": ("Shared prefix", "tokens"),
    "images": ("Images per request", ""),
    "image_size": ("Image edge", "px"),
}
_RESOLVED = {
    "experts": "Routed experts per layer, as loaded: after pruning; else the knob, else the model's own",
    "moe_ffn_size": "FFN width of a routed expert, as loaded: after pruning; else the knob, else the model's own",
    "top_k": "Active experts per token, as run: the knob, else as trained",
    "weights": "Kind of weights, as run",
    "engine_name": "Engine, as the study names it: the knob, else the study's",
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
    tables: tuple[str, ...] = ("plan", "measurements", *["parameters"] * (name == "model"))
    tables += ("rates",) if name == "request_rate" else ()
    tables += ("computed",) if name in ComputedKnobs.model_fields and name != "ep" else ()
    tables += ("accuracy",) * (name in EngineKnobs.model_fields or name == "top_k")
    return Column(name, arrow_type(field.annotation), unit, description, tables, label)


# ----------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class Metric:
    """A quantity that every timed run gives."""

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
    Metric("preprocess_s", "s", "Image preparation", "Time from submission until the images of the whole batch are cut and scaled; inside ttft_s; null: no images", "low"),
    Metric("distinct_experts", "", "Distinct experts per step", "Distinct experts of a layer that a decode step of the whole batch uses, mean over steps and layers (protocol activation)", ""),
    Metric("distinct_experts_share", "", "Distinct experts per step, share of all", "distinct_experts over the routed experts of a layer", ""),
    Metric("energy_j", "J", "Energy", "Energy of all devices of the cell in a run, by their own counters; a CPU machine: of all its packages and memory; null: not reported, or the run is too short for the counter", "low"),
    Metric("power_w", "W", "Power", "energy_j over the time of the run: mean power of all devices together", ""),
    Metric("joules_per_output_token", "J/token", "Energy per generated token", "energy_j / (batch * output_tokens)", "low"),
    Metric("joules_per_total_token", "J/token", "Energy per token, input + output", "energy_j / (batch * (input_tokens + output_tokens))", "low"),
    Metric("mfu", "", "Model FLOPs utilization", "Time that the model's operations take at the dense peak of the data sheet, over e2e_s (docs/metrics.md); null: no peak known, speculation", "high"),
    Metric("mbu", "", "Model bandwidth utilization", "Time that the bytes a decode step reads take at the bandwidth of the data sheet, over itl_s (docs/metrics.md); null: no bandwidth or itl_s known, speculation, pipeline stages", "high"),
    Metric("output_tokens_per_s_per_user", "tokens/s", "Tokens/s per user", "1 / tpot_s: how fast the text of one request grows", "high"),
    Metric("output_tokens_per_s_per_device", "tokens/s", "Tokens/s per GPU", "throughput_output_tokens_per_s over the devices of the engine", "high"),
    Metric("usd_per_million_output_tokens", "USD", "Cost per million generated tokens", "Price of the engine's devices for the time that a million generated tokens take, input tokens for free; null: the machine's file has no price", "low"),
    Metric("usd_per_million_total_tokens", "USD", "Cost per million tokens, input + output", "Price of the engine's devices for the time that a million input and generated tokens take; null: no price, or requests over time", "low"),
    Metric("goodput_requests_per_s", "requests/s", "Goodput", "samples_per_s times goals_met_share: requests per second that keep all latency goals of the study (protocol load)", "high"),
    Metric("goals_met_share", "", "Requests within the goals", "Share of the requests that keep all latency goals of the study (protocol load)", "high"),
    Metric("steady_from_s", "s", "Begin of the steady part", "Time from the first request until as many were answered as may be in flight: cut off (protocol load)", ""),
    Metric("steady_s", "s", "Length of the steady part", "Time from then until the last request was sent; what came after is cut off too (protocol load)", ""),
    Metric("backlog_requests_per_s", "requests/s", "Growth of the backlog", "Requests sent less those answered in the steady part, over its length: well above 0, the service does not keep up and no state is steady (protocol load)", "low"),
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
"""One number per cell without an interval; figures may show them as they show metrics."""
SEARCHED = ("max_rate",)
"""What a search found, with the ends of its bracket; figures can show it."""
COUNTED = ("active_experts", "active_experts_decode", "distinct_experts_mean")
"""What routers chose in a cell, without an interval; figures may show it as they show metrics."""
RESIDUALS = ("ttft_max_s", "itl_s", "e2e_s")
"""Metrics whose measured value is given over the predicted one."""


def residual(metric: str) -> str:
    """Name of the column with a metric as measured over as predicted, a plain number."""
    return f"residual_{metric.removesuffix('_s')}"


def _metric_columns() -> list[Column]:
    made = []
    for m in METRICS:
        made.append(
            Column(m.name, pa.float64(), m.unit, m.description, ("measurements", "samples", "rates"), m.label, m.better)
        )
        for end, word in (("low", "lower"), ("high", "upper")):
            text = f"{m.label}: {word} end of the bootstrap 95% interval of the median over the repeats; with 5 repeats or fewer, of their range"
            made.append(Column(f"{m.name}_{end}", pa.float64(), m.unit, text, ("measurements",), f"{m.label}, {end}"))
    for m in (m for m in METRICS if m.name in (*PREDICTED, *UNIFORM)):
        text = f"{m.label} as the roofline predicts it: the fastest that the hardware's peak rates allow; null: unknown"
        if m.name in UNIFORM:
            text = f"{m.label} if every token chose its experts uniformly: E (1 - (1 - k/E)^tokens), computed"
        made.append(
            Column(
                f"predicted_{m.name}",
                pa.float64(),
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
                Column(
                    f"calibrated_{m.name}{end}", pa.float64(), m.unit, text, ("plan", "measurements"), label, m.better
                )
            )
    made.append(
        Column(
            "predicted_least_e2e_s",
            pa.float64(),
            "s",
            "Lower bound of the end-to-end latency: the roofline if all requests choose the same experts; null: unknown",
            ("plan", "measurements"),
            "Lower bound of the end-to-end latency",
        )
    )
    labels = {m.name: f"{m.label[0].lower()}{m.label[1:]}" for m in METRICS}
    for name in RESIDUALS:
        text = f"{name} as measured over predicted_{name}; the roofline has no overheads, so above 1 is expected; null: not predicted"
        made.append(
            Column(residual(name), pa.float64(), "", text, ("measurements",), f"Measured over predicted {labels[name]}")
        )
    return made


def _claim_columns() -> list[Column]:
    text, whole, real, only = pa.string(), pa.int64(), pa.float64(), ("claims",)
    return [
        Column("claim", text, "", "Claim: identifier, of config/claims", only),
        Column("paper", text, "", "Paper that makes the claim", only),
        Column("place", text, "", "Place in the paper", only),
        Column("quote", text, "", "Quote from the paper", only),
        Column("statement", text, "", "What is tested", only),
        Column(
            "metric",
            text,
            "",
            "Metric that the claim compares, or what else it is about; of a task, as the harness names it",
            (*only, *_TASKS),
        ),
        Column("test", text, "", "Test applied to the values (docs/claims.md)", only),
        Column("expected", text, "", "Expected result if the claim is right", only),
        Column("expected_here", text, "", "The same in the grid of this study's scale", only),
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
        Column("support", real, "", "Yes-or-no tests: share of the bootstrap resamples in which it holds", only),
        Column("comparisons", whole, "", "Pairs or groups of cells behind the value", only),
        Column("comparisons_planned", whole, "", "Pairs or groups of cells that the plan has", only),
        Column(
            "needs",
            text,
            "",
            "Fewest comparisons, or series of so many points, that decide it in the paper's grid",
            only,
        ),
        Column("unstable_cells", whole, "", "Cells behind the value that are flagged as unstable", only),
        Column(
            "evaluated_on", text, "", "What was compared: models, weights, machine, prompts, mode", only, "Evaluated on"
        ),
        Column(
            "predicted_value",
            real,
            "",
            "Value of the test on the cost model's predictions for the paper's own cells; null: it cannot predict it",
            only,
        ),
        Column(
            "predicted_low",
            real,
            "",
            "Lower end of the 95% interval of that, from what left-out points were off; null: a bound has none",
            only,
        ),
        Column("predicted_high", real, "", "Upper end of that interval", only),
        Column(
            "predicted_support",
            real,
            "",
            "Yes-or-no tests: share of draws within the intervals in which it holds",
            only,
        ),
        Column("predicted_outcome", text, "", "Whether that agrees with the claim", only),
        Column("predicted_on", text, "", "Machine of that prediction", only),
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
    text, whole, real, truth = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    first = [
        Column("study", text, "", "Study of the plan", tuple(TABLES)),
        Column(
            "experiment",
            text,
            "",
            "Experiment that asks for the cell, for the model's parameters or for the point",
            ("plan", "parameters", "computed", "accuracy"),
        ),
        Column(
            "engine",
            text,
            "",
            "Engine configuration: identifier, by content",
            (*_ALL, *_ROUTED, *_TASKS, "rates"),
            "Engine configuration",
        ),
        Column("cell", text, "", "Cell: identifier, by content", (*_ALL, *_ROUTED, *_TASKS, "rates")),
        Column("repeat", whole, "", "Number of the timed run, from 0", ("samples",)),
        Column("seed", whole, "", "Seed of the run's prompts", ("samples",)),
        Column("job", text, "", "Job that measures the cell", ("plan",)),
        Column("labels", text, "", "JSON: label of each axis of the experiment's grid", ("plan",)),
        Column("variant", text, "", "Labels of the arms of a computed point; where the paper prints it", _POINT),
        Column(
            "by", text, "", "printed: in the paper; formulas: by its formulas; distinct: by this cost model", _POINT
        ),
        Column("status", text, "", "ok, or how the cell failed", (*_SHOWN, *_TASKS)),
        Column(
            "reason",
            text,
            "",
            "Why the cell is not ok, or the claim has no verdict, one sentence",
            (*_SHOWN, "claims", *_TASKS, "rates"),
        ),
        Column("evidence", text, "", "Engine log excerpt: the decisive lines", (*_BAD, *_TASKS)),
        Column(
            "model_title",
            text,
            "",
            "Model, as named in figures",
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
        Column("hardware", text, "", "Machine type, of config/hardware; a hosted service: what its endpoint says", (*_CELL, *_POINT, *_TASKS)),
        Column("hardware_title", text, "", "Machine type, as named in figures", _POINT, "Machine"),
        Column("weight_bits", whole, "bits", "Bits of a weight of attention, experts and feed-forward blocks, without scales", _CELL, "Weights"),
        Column("activation_bits", whole, "bits", "Bits of what these matrices are multiplied with", _CELL, "Activations"),
        Column("kv_bits", whole, "bits", "Bits of a number in the KV cache", _CELL, "KV cache"),
        Column("gpus", whole, "", "Devices the engine uses: TP x PP x DP (computed: x KVP); null: a hosted service", (*_CELL, *_POINT, *_TASKS), "Devices"),
        Column("engine_version", text, "", "Version of the engine", (*_CELL, *_TASKS)),
        Column("protocol_kind", text, "", "How the cell is timed: trace, or as in the paper", _CELL, "Protocol"),
        Column("derived_from", text, "", "Cell whose longer trace this one was truncated from; null: a run of its own", _CELL),
        Column("predicted_bytes_per_gpu", real, "bytes", "Predicted memory of weights, KV cache and activations per device", ("plan", "measurements", "failures"), "Predicted memory per device"),
        Column("predicted_fits", truth, "", "The predicted memory is no more than the usable memory; null: unknown", ("plan", "measurements", "failures"), "Predicted to fit"),
        Column("predicted_batch_fits", truth, "", "The predicted KV cache holds the whole batch at once; null: unknown", _CELL),
        Column("predicted_with", text, "", "Constants behind predicted times: data sheet, or measured constants of the machine that measured the cell; null: no prediction", _MEASURED, "Predicted with"),
        Column("predicted_kind", text, "", "What is predicted: calibrated (MACHINE, DATE), bound (the roofline alone) or none", (*_CELL, "claims"), "Kind of prediction"),
        Column("uncalibrated", text, "", "Why predicted times are not calibrated, where the machine has constants; null: they are, or it has none", _CELL, "Not calibrated because"),
        Column("prediction_refused", text, "", "Why measured constants of the machine are refused, and with them the prediction; null: not refused", _MEASURED),
        Column("n_repeats", whole, "", "Timed runs behind the medians; of a constant: behind the best", (*_MEASURED, *_MACHINE), "Repeats"),
        Column("e2e_s_cv", real, "", "Coefficient of variation of e2e_s over the repeats", _MEASURED, "CV of e2e"),
        Column("unstable", truth, "", "e2e_s_cv, or canary_gap without its sign, is above 0.1; null: one repeat and no canary", _MEASURED),
        Column("throttled", truth, "", "In a repeat the driver reduced the clocks because of power, heat or supply, or the power limit is below the device's default; null: not reported", _MEASURED),
        Column("throttle_reasons", text, "", "Reasons that the driver gives for its clocks, over all repeats (nvmlClocksEventReasons); power_cap_below_default: the limit was lowered; null: not reported", _PER_RUN),
        Column("no_energy", text, "", "Why a run has no energy, though its devices were read; null: it has, or no telemetry", ("samples",)),
        Column("power_max_w", real, "W", "Largest power reading of one device (an average over the last second on NVIDIA's from Ampere on)", _PER_RUN, "Power, largest reading"),
        Column("sm_clock_mhz", real, "MHz", "SM clock, mean over samples and devices", _PER_RUN, "SM clock"),
        Column("memory_clock_mhz", real, "MHz", "Memory clock, mean over samples and devices", _PER_RUN, "Memory clock"),
        Column("device_temperature_c", real, "\N{DEGREE SIGN}C", "Temperature of the warmest device, largest", _PER_RUN, "Temperature"),
        Column("device_memory_peak_bytes", real, "bytes", "Memory in use on the fullest device, by any process, largest sample", _PER_RUN, "Memory in use"),
        Column("device_utilization", real, "", "Share of time with a kernel running, as the driver reports it, mean over samples and devices", _PER_RUN, "Device busy"),
        Column("mbu_experts", text, "", "Distinct experts behind mbu: measured in the cell's warm-up, or uniform: the law of uniform routing; null: no mbu, or no routed experts", _MEASURED, "Experts behind MBU"),
        Column("telemetry_source", text, "", "nvml: the driver's library; rapl: counters of a CPU machine; null: no telemetry", _MEASURED),
        Column("device_uuids", text, "", "UUIDs of the devices", _MEASURED, "Device UUIDs"),
        Column("device_mig", truth, "", "A device is an instance of a shared GPU (MIG): no energy, power or utilization", _MEASURED),
        Column("device_ecc", truth, "", "Memory has ECC on, on every device", _MEASURED),
        Column("power_cap_w", real, "W", "Enforced power limit of a device, the least", _MEASURED, "Power limit"),
        Column("device_nvlinks", whole, "", "Active NVLinks of a device, the least", _MEASURED, "NVLinks"),
        Column("device_links", text, "", "How pairs of devices are connected: NVLink, else as nvidia-smi topo names it", _MEASURED),
        Column("driver", text, "", "Version of the NVIDIA driver", _MEASURED),
        Column("nccl", text, "", "Version of the NCCL library that torch uses", _MEASURED),
        Column("attention_backend", text, "", "Attention kernel that the engine chose, most layers first", _MEASURED),
        Column("moe_backend", text, "", "Experts kernel that the engine chose, most layers first", _MEASURED),
        Column("linear_backend", text, "", "Kernel of linear layers that the engine chose, most layers first", _MEASURED),
        Column("cuda_graph_mode", text, "", "Mode of CUDA graphs that the engine settled on", _MEASURED),
        Column("cuda_graph_sizes", text, "", "JSON: batch sizes that CUDA graphs were captured for; null: none", _MEASURED),
        Column("canary_drift", real, "", "(max - min) / median of e2e_s among the runs of one canary cell through the engine session, the median of its own repeats among them", _MEASURED),
        Column("canary_gap", real, "", "Median e2e_s of the canary runs of this cell over that of its own repeats in the same session, minus 1; null: not the canary of its session", _MEASURED),
        Column("load_s", real, "s", "Time to load the engine", _MEASURED, "Load time"),
        Column("distinct_experts_mean", real, "", "Distinct experts that a decode step of the batch uses, mean over steps and layers", _MEASURED, "Distinct experts"),
        Column("active_experts", real, "", "Experts that a token was sent to, as counted, mean over all tokens and layers (with a budget: of all runs); null: not counted", _MEASURED, "Active experts, as counted"),
        Column("active_experts_decode", real, "", "The same of the steps that only decode", _MEASURED, "Active experts while decoding, as counted"),
        Column("prefix_cache_hits", real, "tokens", "Prompt tokens that the engine took from its prefix cache, of all runs of the cell; null: not told", _MEASURED, "Tokens from the prefix cache"),
        Column("serving", text, "", "JSON: what the engine made of the knobs of serving (prefix caching, chunked prefill, EPLB, all-to-all, speculation); null: not told", _MEASURED, "Serving, as resolved"),
        Column("image_tokens", real, "tokens", "Tokens that the images of a request became, beside its input_tokens (mean where a data set's images differ); null: no images", _MEASURED),
        Column("tokens_counted_by", text, "", "ids: token ids were counted; usage: a service's own count; null: no such run", _MEASURED, "Tokens counted by"),
        Column("input_tokens_seen", real, "tokens", "Prompt tokens per request as a service counted them, mean; null: as asked for", _MEASURED, "Input tokens, as counted"),
        Column("output_tokens_seen", real, "tokens", "Generated tokens per request where a service may end early, mean; null: as asked for", _MEASURED, "Output tokens, as counted"),
        Column("ran_together", truth, "", "The last request's first token came before the first request's last one, in every run through a service; false also where tokens came in bunches; null: no service", _MEASURED),
        Column("steady_requests", whole, "requests", "Requests of all repeats that were sent between start and end of the load, and are what its metrics are about; null: no load", (*_MEASURED, "rates"), "Requests that count"),
        Column("arrival_rate", real, "requests/s", "Rate at which requests were really sent, mean over the repeats; null: no load", (*_MEASURED, "rates"), "Requests sent per second"),
        Column("rate_verdict", text, "", "What became of a tried rate: kept, missed, or not_sent (the client was too slow)", ("rates",), "Verdict"),
        Column("max_rate", real, "requests/s", "Highest request rate tried at which so many requests as goals_share says keep all goals of the study (find: max_rate); the metrics of the row are those at this rate; null: no search, or the lowest rate misses them", _MEASURED, "Highest rate within the goals", "high"),
        Column("max_rate_low", real, "requests/s", "Lower end of its bracket: max_rate", _MEASURED, "Highest rate within the goals, low"),
        Column("max_rate_high", real, "requests/s", "Upper end of its bracket: the lowest rate tried that misses the goals; null: none was found, and max_rate is a lower bound", _MEASURED, "Highest rate within the goals, high"),
        Column("rates_tried", whole, "", "Rates that the search tried; null: no search", _MEASURED),
        Column("queue_time_mean_s", real, "s", "Time that a request waited in the server before it was run, mean over all of them; null: no load, or a service that does not tell", _MEASURED, "Time in the queue"),
        Column("tokens_per_arrival", real, "tokens", "Tokens of a request that reached the client together, mean: well above 1, ITL is that of groups of tokens; null: no service", _MEASURED, "Tokens per arrival"),
        Column("kv_cache_tokens", whole, "tokens", "Tokens the engine's KV cache holds", _MEASURED, "KV cache capacity"),
        Column("untuned_kernel_warning", truth, "", "The experts kernel ran on default tile sizes: the engine warned that it has no tuned ones for the shape, or the knob kernel_config asked for them", _MEASURED, "Untuned kernel"),
        Column("flashinfer", truth, "", "vLLM may use FlashInfer's kernels; null: not reported", _MEASURED),
        Column("fuse_allreduce_rms", truth, "", "All-reduce and RMSNorm are one kernel, FlashInfer's; null: not reported", _MEASURED),
        Column("custom_all_reduce", truth, "", "vLLM's own all-reduce between devices, not NCCL's; null: not reported", _MEASURED),
        Column("deep_gemm", truth, "", "vLLM may use DeepGEMM for FP8 weights in blocks; null: not reported", _MEASURED),
        Column("thrown_away_runs", whole, "", "Timed runs that were discarded and repeated because the engine compiled a kernel in them", _MEASURED, "Discarded runs"),
        Column("other_jobs_cpus", whole, "", "CPUs of the node that other SLURM jobs held before the cell or after it, the more of both; null: not reported", _MEASURED, "CPUs of other jobs"),
        Column("draft_acceptance", real, "", "Draft tokens the target accepted, share of those proposed (speculation)", _MEASURED, "Draft acceptance"),
        Column("tokens_per_draft_step", real, "tokens", "Tokens a verification step yields per request: 1 + accepted draft tokens", _MEASURED, "Tokens per step"),
        *(
            Column(name, real, "", f"Verification steps that accepted the draft token at position {at} (and all before it), share of all; null: shorter drafts", _MEASURED, f"Acceptance at position {at}")
            for at, name in enumerate(ACCEPTANCE_AT, 1)
        ),
        Column("activations", whole, "", "How often the router chose the expert; of a layer: all its choices, tokens x top-k", ("activation", "activation_layers")),
        Column("activation_share", real, "", "activations of the expert over those of its layer and phase", _EXPERT),
        Column("relative_activation", real, "", "activation_share x experts: 1 is even use", _EXPERT, "Use of an expert relative to even use"),
        Column("layer_tokens", whole, "tokens", "Tokens that passed the layer: activations / top-k", _LAYER, "Tokens"),
        Column("gini", real, "", "Gini coefficient of the activations of a layer's experts: 0 even, 1 - 1/E one expert has all; of a cell: mean over its layers", _EVEN, "Gini"),
        Column("predicted_gini", real, "", "Gini coefficient that counting noise alone gives at that many tokens, sqrt((1 - k/E) / (pi tokens k/E))", _EVEN, "Gini of uniform routing"),
        Column("entropy_bits", real, "bits", "Shannon entropy of the shares of a layer's experts; of a cell: mean over its layers", _EVEN, "Entropy"),
        Column("entropy_share", real, "", "entropy_bits over its largest value, log2 E", _EVEN, "Entropy / log\N{SUBSCRIPT TWO} E"),
        Column("max_over_mean", real, "", "Activations of a layer's busiest expert over the mean of its experts; of a cell: mean over its layers", _EVEN, "Max / mean"),
        Column("activation_cv", real, "", "Coefficient of variation of the activations of a layer's experts; of a cell: mean over its layers", _EVEN, "CV of activations"),
        Column("most_activations", whole, "", "Activations of the busiest expert; of a cell: of all its layers", _EVEN),
        Column("step_tokens", whole, "tokens", "Tokens in one engine step", _STEP),
        Column("steps", whole, "", "Engine steps of that size and phase", _STEP),
        Column("step_distinct_experts", real, "", "Distinct experts that such a step uses in the layer, mean over the steps", _STEP),
        Column("step_distinct_experts_uniform", real, "", "The same if every token chose its experts uniformly: E (1 - (1 - k/E)^tokens), computed", _STEP),
        Column("preemptions", whole, "", "Requests preempted for lack of KV cache", _MEASURED),
        Column("attempt", whole, "", "How many times the cell was tried", (*_SHOWN, *_TASKS), "Attempts"),
        Column("host", text, "", "Machine that measured the cell, or whose constants these are", (*_SHOWN, *_TASKS, *_MACHINE)),
        Column("slurm_job_id", text, "", "SLURM job that measured the cell", (*_SHOWN, *_TASKS), "SLURM job"),
        Column("device_name", text, "", "Device, as the driver names it; else the CPU's model", (*_MEASURED, *_MACHINE), "Device"),
        Column("git_commit", text, "", "Commit of the code that measured the cell", (*_MEASURED, *_TASKS)),
        Column("git_dirty", truth, "", "Tracked files differed from that commit", (*_MEASURED, *_TASKS)),
        Column("lock_sha256", text, "", "SHA-256 of the lock of the engine's environment", (*_MEASURED, *_TASKS), "Environment lock"),
        Column("prompt_corpus_sha256", text, "", "SHA-256 of the text that prompts are cut from", _MEASURED, "Prompt corpus"),
        Column("versions", text, "", "JSON: versions of the packages that the engine process saw", (*_MEASURED, *_TASKS)),
        Column("variables", text, "", "JSON: environment variables that the engine reads, as its job had them; null: not recorded", (*_MEASURED, *_TASKS), "Variables"),
        Column("started_at", text, "", "Start of the measurement, ISO 8601, UTC", (*_RUN, *_TASKS, *_MACHINE, "rates")),
        Column("rerun", text, "", "Command that measures this cell again", (*_BAD, *_TASKS)),
        Column("layer_kind", text, "", "moe: layers with routed experts; dense: layers without; recurrent: layers with a state instead of attention; outside: embeddings, last norm, vision", _COUNTED),
        Column("component", text, "", "Part of the layer, or of what is outside the layers", _COUNTED),
        Column("layers", whole, "", "Layers of this kind; null: outside the layers", _COUNTED),
        Column("layer_total_parameters", whole, "parameters", "Parameters of the component in one layer; null: outside the layers", _COUNTED, "Parameters per layer"),
        Column("layer_active_parameters", whole, "parameters", "Those that a token reads, with top-k as trained", _COUNTED, "Active parameters per layer"),
        Column("total_parameters", whole, "parameters", "Parameters of the component in all layers of this kind", _COUNTED, "Parameters"),
        Column("active_parameters", whole, "parameters", "Those that a token reads; both embedding matrices and the vision tower count in full", _COUNTED, "Active parameters"),
        Column("total_share", real, "", "total_parameters over all parameters of the model", _COUNTED, "Share of all parameters"),
        Column("kvp", whole, "", "KV parallel size: ranks that share the cache of a sequence by tokens", _POINT, "KV parallel size"),
        Column("expert_groups", whole, "", "Groups that whole experts are distributed over (given)", _POINT),
        Column("quality", real, "", "Quality factor q: feed-forward parameters of the dense model over the active ones", _POINT, "Quality factor q"),
        Column("context_tokens", whole, "tokens", "Context of every sequence", _POINT, "Context"),
        Column("memory_factor", real, "", "Memory of a device over that of the machine type", _POINT),
        Column("bandwidth_factor", real, "", "Memory bandwidth over that of the machine type", _POINT),
        Column("link_factor", real, "", "Link bandwidth over that of the machine type", _POINT),
        Column("qs", real, "", "q k / E: below 1, the paper considers the MoE to be at a disadvantage", _POINT, "qs"),
        Column("ffn_traffic_ratio", real, "", "Expert weights read per token, MoE over dense of equal quality; formulas: eq. 17, no shared experts", _POINT, "FFN bytes, MoE over dense"),
        Column("break_even_batch", real, "tokens", "Batch from which the MoE reads more expert weights; null: none; formulas: without shared experts", _POINT, "Break-even batch"),
        Column("criterion_holds", real, "", "1: qs < 1 and the MoE reads more, or neither (eq. 18); 0: one of them", _POINT),
        Column("batch_moe", real, "requests", "Sequences in decoding on all devices, MoE", _POINT, "Batch, MoE"),
        Column("batch_dense", real, "requests", "Sequences in decoding on all devices, dense", _POINT, "Batch, dense"),
        Column("batch_ratio", real, "", "batch_dense over batch_moe", _POINT, "Batch, dense over MoE"),
        Column("hbm_ratio", real, "", "Time that memory takes per token, MoE over dense", _POINT, "Memory time, MoE over dense"),
        Column("throughput_moe", real, "tokens/s", "Decoded tokens per second on all devices, MoE", _POINT, "Throughput, MoE"),
        Column("throughput_dense", real, "tokens/s", "Decoded tokens per second on all devices, dense", _POINT, "Throughput, dense"),
        Column("speedup_dense", real, "", "throughput_dense over throughput_moe", _POINT, "Throughput, dense over MoE"),
        Column("layout_moe", text, "", "Layout of the MoE, given or searched", _POINT, "Layout, MoE"),
        Column("layout_dense", text, "", "Layout of the dense model", _POINT, "Layout, dense"),
        Column("active_share", real, "", "active_parameters over all active parameters of the model", _COUNTED, "Share of active parameters"),
        Column("harness", text, "", "Accuracy harness", _TASKS),
        Column("harness_version", text, "", "Version of the harness", _TASKS),
        Column("block", whole, "", "Block of the experiment's accuracy part, from 0; means are over the tasks of a block", _TASKS),
        Column("task", text, "", "Task of config/tasks; mean: over the tasks of the block", _TASKS),
        Column("task_title", text, "", "Task, as named in figures", _TASKS, "Task"),
        Column("subtask", text, "", "The harness's own name of what the row is about: the task, or a part of it", _TASKS),
        Column("group", text, "", "The harness's group that the subtask belongs to; null: none", _TASKS),
        Column("filter", text, "", "The harness's filter of answers", _TASKS),
        Column("main", truth, "", "The row that represents its task: the first metric of config/tasks, of the whole task", _TASKS),
        Column("unit", text, "", "share (of right answers, or of all points), points, perplexity, bits/byte; of a constant: bytes/s, FLOP/s", (*_TASKS, *_MACHINE)),
        Column("stderr", real, "", "Standard error of the value over the questions, as the harness gives it; of a mean: of independent tasks; null: not given", _TASKS, "Standard error"),
        Column("n", whole, "", "Questions asked; of a mean: tasks", _TASKS, "Questions"),
        Column("n_shot", whole, "", "Solved examples before each question", _TASKS, "Shots"),
        Column("task_version", text, "", "Version of the harness's task definition", _TASKS),
        Column("higher_is_better", truth, "", "A larger value is better", _TASKS),
        Column("chance", real, "", "Expected score of guessing: 1 over the number of answers to choose from, mean over the questions; null: free text", _TASKS, "Chance level"),
        Column("judge", text, "", "Who decides whether an answer is right; null: no judge, the harness compares", _TASKS),
        Column("made_of", text, "", "How a mean was made; null: not a mean of ours", _TASKS),
        Column("limit", whole, "", "Number of rows used of each data set; null: all", _TASKS),
        Column("truncated_prompts", whole, "", "Prompts that the harness truncated to the engine's longest sequence", _TASKS),
        Column("data_source", text, "", "Where the questions are from: hub:ORG/NAME, the address of a table, or fixtures that the project writes", _TASKS),
        Column("data_revision", text, "", "Commit of the data set, MD5 of the table, or hash of the fixtures", _TASKS),
        Column("samples_sha256", text, "", "SHA-256 of the log of all questions and answers", _TASKS),
        Column("arm_of", text, "", "Engine configuration of the same model, weights and precision on the fewest devices, with which this one is compared; null: it is the only one, or the first", _TASKS, "Compared with"),
        Column("arm_difference", real, "", "Value minus that of arm_of, the same questions", _TASKS, "Difference between arms"),
        Column("accuracy", real, "", "Mean accuracy over the tasks that the experiment asks of the cell's engine configuration and top-k (figures join it)", ("figures",), "Mean accuracy", "high"),
        Column("accuracy_low", real, "", "Accuracy minus 1.96 standard errors, tasks being independent", ("figures",)),
        Column("accuracy_high", real, "", "Accuracy plus 1.96 standard errors, tasks being independent", ("figures",)),
        Column("perplexity", real, "", "Word perplexity of the only task that has one, as accuracy is joined (figures join it)", ("figures",), "Word perplexity", "low"),
        Column("arm_differs", truth, "", "The questions' mean difference is beyond noise (paired; 99% over all comparisons of the harness together)", _TASKS),
        Column("checkpoint", text, "", "Folder of a derived checkpoint", _DERIVED),
        Column("derived_by", text, "", "prune or quantize", _DERIVED),
        Column("parent", text, "", "Folder of the checkpoint that it was made from", _DERIVED),
        Column("recipe", text, "", "What was removed and chosen by what, or the scheme and its tool", _DERIVED),
        Column("ratio_asked", real, "", "Requested share to prune; null: not pruned", _DERIVED, "Share asked"),
        Column("ratio_reached", real, "", "Share that was pruned: experts are whole and widths multiples; null: not made", _DERIVED, "Share removed"),
        Column("rounding", text, "", "How the requested share became the actual one, in words", _DERIVED),
        Column("calibration_text", text, "", "Text that it was calibrated on, with the start of its SHA-256; null: not calibrated", _DERIVED),
        Column("calibration_tokens", whole, "tokens", "Tokens of that text that were run", _DERIVED),
        Column("tokens_per_expert_min", whole, "tokens", "Fewest tokens an expert saw: of those routed to it (pruning); with every expert run on every token (quantization)", _DERIVED, "Fewest tokens per expert"),
        Column("experts_without_tokens", whole, "", "Experts to which the router sent no calibration token", _DERIVED),
        Column("took_s", real, "s", "Time that it took to create it", _DERIVED),
        Column("threads", whole, "", "Threads of the process that measured, as torch reports them", (*_MEASURED, *_MACHINE)),
        Column("constant", text, "", "triad: memory bandwidth; product DTYPE: rate of square matrix products", _MACHINE),
        Column("constant_size", real, "", "Bytes of the triad's three arrays; side of the matrices", _MACHINE, "Size"),
        Column("machine", text, "", "Folder of the imported machine in results/imported", ("imported",)),
        Column("made", truth, "", "The checkpoint was there, of the plan's revision", _DERIVED),
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
    return pa.schema([c.field() for c in of_table(table)], metadata=dict(extra))


def markdown(table: str | None = None) -> str:
    """The registry as a Markdown table, a line per column."""
    chosen = of_table(table) if table else list(COLUMNS.values())
    lines = ["| column | type | unit | tables | meaning |", "|---|---|---|---|---|"]
    lines += [f"| `{c.name}` | {c.type} | {c.unit} | {', '.join(c.tables)} | {c.description} |" for c in chosen]
    return "\n".join(lines)
