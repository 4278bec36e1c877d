"""Knobs of engines and workloads, how cells are measured, and the texts that models are run on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from pydantic import Field, model_validator

from moebench.config.base import Count, Name, Positive, Quantization, Strict
from moebench.errors import ConfigError
from moebench.formats import Knobs
from moebench.formats.model import CalibrationDict
from moebench.formats.plan import OPTIONAL
from moebench.storage import user_files

AllToAll = Literal[
    "allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency", "deepep_v2", "nixl_ep", "moonep",
    "flashinfer_nvlink_one_sided", "flashinfer_nvlink_two_sided",
]  # fmt: skip


class EngineKnobs(Strict):
    """Knobs whose change requires loading the engine again."""

    model: Name = Field(description="Model of the registry")
    engine_name: Name | None = Field(
        None, description="Engine that runs it: a name in the study's `engines`; default: the study's `engine`"
    )
    weights: Literal["checkpoint", "random_init", "dummy"] | None = Field(
        None, description="Kind of weights; default: that of the model's source"
    )
    experts: Positive | None = Field(None, description="Routed experts per layer, instead of the model's own")
    moe_ffn_size: Positive | None = Field(None, description="FFN width of a routed expert, instead of the model's own")
    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="Data type of weights and activations"
    )
    quantization: Quantization = Field(
        "none", description="Quantization scheme of weights and activations: docs/precision.md"
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field("auto", description="Data type of the KV cache")
    pruning: Literal["none", "inter", "intra"] = Field(
        "none", description="Remove whole experts (inter) or FFN channels (intra)"
    )
    prune_ratio: float = Field(0.0, ge=0, lt=1, description="Share of experts or channels removed")
    prune_by: Literal["random", "frequency", "reap", "reconstruction", "magnitude", "activation"] | None = Field(
        None, description="How experts or channels are chosen; default: frequency (inter), magnitude (intra)"
    )
    prune_multiple: Positive = Field(
        64, description="Intra: remaining widths are multiples of this (64: the 16 that tensor cores need, on 4 GPUs)"
    )
    draft_model: Name | None = Field(None, description="Draft model of speculative decoding")
    draft_tokens: Count = Field(0, description="Tokens that the draft model proposes per step")
    speculation: Literal["ngram", "mtp", "eagle", "eagle3"] | None = Field(
        None,
        description="How draft_tokens are proposed: by n-grams of the text, by the model's own MTP layers, or by an"
        " EAGLE head (draft_model); default: by draft_model as a separate model",
    )
    tp: Positive = Field(1, description="Tensor parallel size")
    pp: Positive = Field(1, description="Pipeline parallel size")
    dp: Positive = Field(1, description="Data parallel size")
    ep: bool = Field(
        False,
        description="Expert parallelism: distribute whole experts over the TP x DP ranks instead of splitting each",
    )
    expert_kernel: Literal["fused", "unfused", "eager", "batched_mm", "grouped_mm"] = Field(
        "fused",
        description="Expert kernel: the engine's, or a loop over experts; transformers: `eager` (its loop),"
        " `batched_mm` or `grouped_mm` (its default)",
    )
    kernel_config: Literal["tuned", "default"] = Field(
        "tuned", description="Tile sizes of the fused MoE kernel: vLLM's tuned files if available, or its defaults"
    )
    fused_kernel: str | None = Field(
        None,
        pattern=r"^[a-z0-9_]+$",
        description="Fused MoE kernel, as vLLM's moe_backend calls it; default: its own",
    )
    attention_kernel: str | None = Field(
        None, pattern=r"^[A-Z0-9_]+$", description="Attention backend, as vLLM names it; default: its choice"
    )
    all_to_all: AllToAll | None = Field(
        None, description="How ranks exchange tokens with dp and ep: vLLM's all2all_backend; default: its choice"
    )
    eplb: bool = Field(
        False, description="Move experts between expert-parallel ranks by their load while running (EPLB)"
    )
    redundant_experts: Count = Field(0, description="EPLB: additional copies of busy experts per layer, over all ranks")
    eplb_steps: Positive | None = Field(
        None, description="EPLB: steps between rearrangements, which are also the steps over which loads are counted"
    )
    prefix_caching: bool = Field(False, description="Reuse the KV cache of earlier prompts with the same prefix")
    chunked_prefill: bool | None = Field(
        None, description="Split long prefills into steps of max_num_batched_tokens; default: the engine's choice"
    )
    graph_sizes: str | None = Field(
        None,
        pattern=r"^[1-9]\d*( [1-9]\d*)*$",
        description="Batch sizes for which CUDA graphs are captured, e.g. '1 2 4 8'",
    )
    routing: Literal["uniform", "zipf"] | None = Field(
        None,
        description="Draw experts at random instead of using the router's choice: all equally often, or the r-th "
        "most popular 1/r as often as the first; default: the router's choice",
    )
    routing_experts: Positive | None = Field(
        None,
        description="routing: draw only from this number of experts, the first ones (with ep: those on the "
        "first ranks)",
    )
    gate_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Of a token's top-k experts, use the smallest number that together have this share of the router "
        "weight",
    )
    load_cap: str | None = Field(
        None,
        pattern=r"^[1-9]\d*:[1-9]\d*( [1-9]\d*:[1-9]\d*)*$",
        description="Cap on active experts per token by tokens in the step: '8:4 32:2' is 4 from 8 tokens on, 2 from "
        "32",
    )
    mla: bool = Field(True, description="Use the latent KV cache if the model has one; false: expand it to full heads")
    eager: bool = Field(False, description="Disable CUDA graphs and compilation")
    own_process: bool = Field(
        False,
        description="Also run vLLM's engine core in a separate process on one CPU device, as it always does on "
        "several and on GPUs; otherwise it runs in the process that sends requests, without interprocess overhead",
    )
    max_model_len: Positive = Field(4096, description="Longest sequence that the engine accepts, tokens")
    max_num_seqs: Positive = Field(128, description="Maximum number of sequences per step")
    max_num_batched_tokens: Positive = Field(
        8192, description="Maximum number of tokens per step (longer prefills are chunked)"
    )
    cpu_threads: Positive | None = Field(
        None, description="OpenMP threads of a CPU engine; default: the engine's own choice"
    )
    kv_cache_mb: Positive | None = Field(
        None, description="KV cache size, MB; default: the engine's own choice (required on a CPU)"
    )

    @property
    def budgeted(self) -> bool:
        """Whether tokens may have fewer active experts than top-k."""
        return self.gate_share is not None or self.load_cap is not None

    def resolved(self) -> Knobs:
        """All knobs by name, except optional ones that are not set."""
        fields = type(self).model_fields
        return {k: v for k, v in self.model_dump().items() if k not in OPTIONAL or v != fields[k].default}


class WorkloadKnobs(Strict):
    """Knobs of what a loaded engine runs."""

    batch: Positive = Field(1, description="Requests submitted together")
    input_tokens: Positive = Field(128, description="Exact prompt length, tokens")
    output_tokens: Positive = Field(128, description="Exact number of generated tokens per request (EOS is ignored)")
    top_k: Positive | None = Field(None, description="Active experts per token; default: as trained")
    prompts: Literal["text", "random", "identical", "items"] = Field(
        "text",
        description="Prose, random token ids, one text prompt for all, or the corpus's items in order, each at its own "
        "length up to input_tokens (protocol activation only)",
    )
    corpus: Name = Field(
        "prose", description="Source of prompts: the standard library's prose, or a corpus in config/corpora"
    )
    requests: Count = Field(
        0,
        description="Number of prompts: protocol activation runs them batch by batch (0: as many batches as repeats),"
        " protocol load sends them over time",
    )
    request_rate: float | None = Field(
        None, gt=0, description="Protocol load: requests sent per second; default: as fast as concurrency allows"
    )
    burstiness: float = Field(
        1.0,
        gt=0,
        description="Protocol load: shape of the gamma distribution of the gaps between requests: 1 is Poisson"
        " arrivals, less is burstier, more is steadier",
    )
    concurrency: Positive | None = Field(
        None, description="Protocol load: maximum number of requests in flight; default: no limit"
    )
    length_spread: float = Field(
        0.0,
        ge=0,
        description="Protocol load: lengths are uniform within this fraction of input_tokens and output_tokens; "
        "lognormal: standard deviation divided by mean",
    )
    length_shape: Literal["uniform", "lognormal"] = Field(
        "uniform", description="Protocol load: distribution of the lengths, whose mean is input_tokens or output_tokens"
    )
    prefix_tokens: Count = Field(
        0, description="Protocol load: length of a prefix common to all prompts, in addition to input_tokens"
    )
    trace: str | None = Field(
        None,
        pattern=r"\.jsonl$",
        description="Protocol load: file with the lengths of the requests, and with their times unless request_rate or"
        " concurrency is set; input_tokens and output_tokens are the longest allowed (docs/serving.md)",
    )
    turns: Positive = Field(
        1,
        description="Protocol load: requests per conversation; each prompt repeats the earlier ones and as many tokens"
        " as their answers had, and adds input_tokens",
    )
    ramp_to: float | None = Field(
        None,
        gt=0,
        description="Protocol load: the rate rises linearly from request_rate to this value during the repeat; both "
        "are whole numbers",
    )
    find: Literal["max_rate"] | None = Field(
        None,
        description="Protocol load: instead of using one request_rate, find the highest that meets the study's goals",
    )
    lowest_rate: float = Field(1.0, gt=0, description="find: the first rate tried, requests/s; it is then doubled")
    highest_rate: float = Field(64.0, gt=0, description="find: no higher rate is tried, requests/s")
    rate_tolerance: float = Field(
        0.1,
        ge=0.01,
        le=1,
        description="find: ends when the highest rate that met the goals and the lowest that "
        "missed them differ by this fraction or less",
    )
    goals_share: float = Field(
        0.99, gt=0, le=1, description="find: a rate meets the goals if this share of its requests does (0.99: p99)"
    )
    try_s: float = Field(
        30.0, gt=0, description="find: each rate is held for at least this time, s, and at least `requests` requests"
    )
    images: Count = Field(0, description="Images per request; their tokens are added to input_tokens")
    image_size: Positive | None = Field(
        None, description="Edge of the square images, pixels; not with a corpus that has its own images"
    )


SHAPES = ("length_shape", "trace", "turns", "ramp_to")
"""Knobs of protocol load that a cell has where they are set."""
SEARCH = ("find", "lowest_rate", "highest_rate", "rate_tolerance", "goals_share", "try_s")
"""Knobs of a search for a rate: no other cell has them."""
LOAD = ("request_rate", "burstiness", "concurrency", "length_spread", "prefix_tokens", *SHAPES, *SEARCH)
"""Knobs of protocol load: no other cell has them."""

KNOBS = {**EngineKnobs.model_fields, **WorkloadKnobs.model_fields}


class Protocol(Strict):
    """How a cell is measured."""

    kind: Literal["trace", "paper", "activation", "load"] = Field(
        "trace",
        description="Per-token time stamps of one run, the paper's two runs, counts of routed experts (not timed), or"
        " requests over time to a service",
    )
    warmup: Positive = Field(
        1, description="Untimed runs of the same shape before the timed ones; the first checks routing"
    )
    repeats: Positive = Field(3, description="Timed runs, each with a new seed; activation: batches, if requests is 0")
    seed: Count = Field(0, description="Seed for prompts and for the order of cells")


class Calibration(Strict):
    """Text that a model is calibrated on before pruning or quantization."""

    data: str = Field(
        "text", description="'text' (the prose of text prompts), or a file: .txt, or .jsonl with key 'text'"
    )
    sequences: Positive = Field(128, description="Number of sequences")
    tokens: Positive = Field(2048, description="Length of each sequence, tokens")
    seed: Count = Field(0, description="Seed for the positions in the text and for random choices")

    def identity(self) -> CalibrationDict:
        """Settings that can change a choice, with the contents of a file.

        Raises ConfigError if the file cannot be read.
        """
        if self.data == "text":
            return cast(CalibrationDict, self.model_dump())
        if not self.data.endswith((".txt", ".jsonl")):
            raise ConfigError(f"calibration.data {self.data}: neither 'text' nor a file .txt or .jsonl")
        try:
            return cast(CalibrationDict, self.model_dump() | {"sha256": user_files.sha256(Path(self.data))})
        except OSError as error:
            raise ConfigError(f"calibration.data {self.data}: cannot be read ({error.strerror})") from None


class Corpus(Strict):
    """A source of prompts, from a user's file or a staged table: ``config/corpora/NAME.yaml``."""

    name: Name
    title: str
    file: str | None = Field(
        None,
        pattern=r"\.(jsonl|txt)$",
        description="User's file: JSON lines with one item each, or text with items separated by blank lines",
    )
    table: Name | None = Field(
        None,
        description="Instead of file: a vlmeval task in config/tasks; `moebench stage` downloads its table of "
        "questions with images",
    )
    data: Literal["hub", "fixtures"] = Field(
        "hub", description="table: the published one, or a small one in the same format that the project writes"
    )
    field: str = Field("text", description="Key of the text in a JSON line, or column of the text in a table")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the file; without it cells can be planned but not measured",
    )
    reference: str = Field(description="Origin of the text")

    @model_validator(mode="after")
    def _one_source(self) -> Corpus:
        if (self.file is None) == (self.table is None):
            raise ValueError("give file or table, one of the two")
        if self.table and self.sha256:
            raise ValueError("sha256 is for a file; a table is pinned by the MD5 of its task")
        if self.file and self.data != "hub":
            raise ValueError("data is for a table")
        return self
