"""Knobs of engines and workloads, how cells are measured, and the texts that models are run on."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import Field, model_validator

from moebench.config.base import Count, Name, Positive, Quantization, Strict
from moebench.errors import ConfigError


class EngineKnobs(Strict):
    """What needs the engine to be loaded anew."""

    model: Name = Field(description="A model of the registry")
    engine_name: Name | None = Field(
        None, description="Engine that runs it: a name of the study's `engines`; default: the study's `engine`"
    )
    weights: Literal["checkpoint", "random_init", "dummy"] | None = Field(
        None, description="Kind of weights; default: what the model's source gives"
    )
    experts: Positive | None = Field(None, description="Routed experts per layer, instead of the model's own")
    moe_ffn_size: Positive | None = Field(None, description="FFN width of a routed expert, instead of the model's own")
    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="Data type of weights and activations"
    )
    quantization: Quantization = Field("none", description="Scheme of weights and activations: docs/precision.md")
    kv_cache_dtype: Literal["auto", "fp8"] = Field("auto", description="Data type of the KV cache")
    pruning: Literal["none", "inter", "intra"] = Field(
        "none", description="Whole experts (inter) or FFN channels (intra)"
    )
    prune_ratio: float = Field(0.0, ge=0, lt=1, description="Share of experts or channels removed")
    prune_by: Literal["random", "frequency", "reap", "reconstruction", "magnitude", "activation"] | None = Field(
        None, description="How the removed ones are chosen; default: frequency (inter), magnitude (intra)"
    )
    prune_multiple: Positive = Field(
        64, description="Intra: widths that stay are multiples of this (16, what tensor cores take, on 4 GPUs)"
    )
    draft_model: Name | None = Field(None, description="Draft model of speculative decoding")
    draft_tokens: Count = Field(0, description="Tokens the draft proposes per step")
    tp: Positive = Field(1, description="Tensor parallel size")
    pp: Positive = Field(1, description="Pipeline parallel size")
    dp: Positive = Field(1, description="Data parallel size")
    ep: bool = Field(False, description="Experts are spread over the TP x DP ranks instead of split")
    expert_kernel: Literal["fused", "unfused", "eager", "batched_mm", "grouped_mm"] = Field(
        "fused",
        description="Experts kernel: the engine's, or a loop over experts; transformers: `eager` (its loop),"
        " `batched_mm` or `grouped_mm` (its default)",
    )
    kernel_config: Literal["tuned", "default"] = Field(
        "tuned", description="Fused MoE tile sizes: tuned files where vLLM has them, or its default"
    )
    mla: bool = Field(True, description="Latent KV cache where the model has one; false: expand it to full heads")
    eager: bool = Field(False, description="No CUDA graphs and no compilation")
    own_process: bool = Field(
        False,
        description="vLLM's engine core in a process of its own on one device too, as it always has on several, and on"
        " GPUs; otherwise it is in the process that sends requests, and no time passes between processes",
    )
    max_model_len: Positive = Field(4096, description="Longest sequence the engine admits, tokens")
    max_num_seqs: Positive = Field(128, description="Most sequences in a step")
    max_num_batched_tokens: Positive = Field(8192, description="Most tokens in a step (prefill is chunked above)")
    cpu_threads: Positive | None = Field(
        None, description="OpenMP threads of a CPU engine; default: the engine's own choice"
    )
    kv_cache_mb: Positive | None = Field(
        None, description="KV cache size, MB; default: the engine's own choice (CPU: must be given)"
    )


class WorkloadKnobs(Strict):
    """What a loaded engine runs."""

    batch: Positive = Field(1, description="Requests submitted together")
    input_tokens: Positive = Field(128, description="Prompt length, tokens, exact")
    output_tokens: Positive = Field(128, description="Generated tokens per request, exact (EOS ignored)")
    top_k: Positive | None = Field(None, description="Active experts per token; default: as trained")
    prompts: Literal["text", "random", "identical", "items"] = Field(
        "text",
        description="Prose, random token ids, one text prompt for all, or the corpus's items in order, each at its own "
        "length up to input_tokens (protocol activation only)",
    )
    corpus: Name = Field(
        "prose", description="Text that prompts are made of: the standard library's prose, or one of config/corpora"
    )
    requests: Count = Field(
        0,
        description="Prompts run, one batch after the other (protocol activation only); 0: as many batches as repeats",
    )
    images: Count = Field(0, description="Images per request; their tokens come on top of input_tokens")
    image_size: Positive | None = Field(
        None, description="Edge of the square images, pixels; not with a corpus that has images of its own"
    )


KNOBS = {**EngineKnobs.model_fields, **WorkloadKnobs.model_fields}


class Protocol(Strict):
    """How a cell is measured."""

    kind: Literal["trace", "paper", "activation"] = Field(
        "trace",
        description="Per-token time stamps of one run, the paper's two runs, or counts of routed experts (not timed)",
    )
    warmup: Positive = Field(1, description="Untimed runs of the same shape before the timed ones; routing is checked")
    repeats: Positive = Field(
        3, description="Timed runs, each with a fresh seed; activation: batches, where requests is 0"
    )
    seed: Count = Field(0, description="Seed of prompts and of the order of cells")


class Calibration(Strict):
    """What a model is run on to choose what is pruned, or how it is quantized."""

    data: str = Field("text", description="'text' (the prose of text prompts), or a file: .txt, or .jsonl with 'text'")
    sequences: Positive = Field(128, description="Sequences")
    tokens: Positive = Field(2048, description="Length of each, tokens")
    seed: Count = Field(0, description="Seed of where they are cut from the text, and of random choices")

    def identity(self) -> dict[str, Any]:
        """What can change a choice, with the contents of a file.

        Raises ConfigError if the file cannot be read.
        """
        if self.data == "text":
            return self.model_dump()
        if not self.data.endswith((".txt", ".jsonl")):
            raise ConfigError(f"calibration.data {self.data}: neither 'text' nor a file .txt or .jsonl")
        try:
            with open(self.data, "rb") as file:
                return self.model_dump() | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        except OSError as error:
            raise ConfigError(f"calibration.data {self.data}: cannot be read ({error.strerror})") from None


class Corpus(Strict):
    """A text that prompts are made of, in a file of one's own or a staged table: ``config/corpora/NAME.yaml``."""

    name: Name
    title: str
    file: str | None = Field(
        None,
        pattern=r"\.(jsonl|txt)$",
        description="Staged by hand: JSON lines, an item each, or text whose items are parted by blank lines",
    )
    table: Name | None = Field(
        None,
        description="Instead of file: a vlmeval task of config/tasks; `moebench stage` brings its table of questions, "
        "each with its image",
    )
    data: Literal["hub", "fixtures"] = Field(
        "hub", description="table: the published one, or a small one of its form that the project writes itself"
    )
    field: str = Field("text", description="Key of the text in a JSON line, column of the text in a table")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the file; without it cells can be planned, and not measured",
    )
    reference: str = Field(description="Where the text is from")

    @model_validator(mode="after")
    def _one_source(self) -> Corpus:
        if (self.file is None) == (self.table is None):
            raise ValueError("give file or table, one of the two")
        if self.table and self.sha256:
            raise ValueError("sha256 is for a file; a table is pinned by the MD5 of its task")
        if self.file and self.data != "hub":
            raise ValueError("data is for a table")
        return self
