"""The configuration: one schema, from which the JSON schema and the tables of ``config/README.md`` are made.

Files: ``config/config.yaml`` names a study; ``config/studies``, ``experiments``, ``models``, ``tasks``, ``hardware``
and ``papers`` hold one YAML file per thing, named after it.  Every model here is frozen and refuses unknown keys.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moebench.errors import ConfigError, nearest

Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.\-]*$")]
Quantization = Literal["none", "fp8", "fp8_block", "int8", "awq", "gptq"]


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --------------------------------------------------------------------------------------------- models


class Attention(Strict):
    """The attention of one layer, as far as its weights and its KV cache go."""

    kind: Literal["mha", "gqa", "mla"]
    heads: Positive = Field(description="Query heads")
    kv_heads: Positive = Field(description="Key-value heads (MLA: as many as heads)")
    head_dim: Positive = Field(description="Width of a head (MLA: of the value head)")
    kv_lora_rank: Count = Field(0, description="MLA: width of the compressed key-value latent")
    q_lora_rank: Count = Field(0, description="MLA: width of the compressed query; 0: queries are not compressed")
    qk_nope_head_dim: Count = Field(0, description="MLA: query-key width without rotary position")
    qk_rope_head_dim: Count = Field(0, description="MLA: query-key width with rotary position")
    bias: bool = Field(False, description="Query, key and value projections have biases")
    qk_norm: Literal["none", "head", "full"] = Field(
        "none", description="Norm on queries and keys: per head or over all heads"
    )


class Experts(Strict):
    """The mixture-of-experts block of one layer."""

    count: Positive = Field(description="Routed experts per layer (E)")
    top_k: Positive = Field(description="Routed experts active per token (k), as trained")
    ffn_size: Positive = Field(description="FFN width of one routed expert")
    shared_ffn_size: Count = Field(0, description="Total FFN width of the always-active shared experts")
    shared_gate: bool = Field(False, description="The shared expert has a sigmoid gate of its own")
    gated: bool = Field(True, description="Experts are SwiGLU (three matrices) rather than two matrices")
    every: Positive = Field(1, description="A MoE block in every n-th of the non-dense layers")

    @model_validator(mode="after")
    def _top_k_within_count(self) -> Experts:
        if self.top_k > self.count:
            raise ValueError(f"top_k {self.top_k} is more than the {self.count} experts there are")
        return self


class Vision(Strict):
    """The vision part of a vision-language model: a ViT over square tiles of an image, and a two-layer projector."""

    layout: Literal["deepseek_vl2", "llava_next"] = Field(
        description="How an image is cut into tiles, and its tiles into tokens"
    )
    hidden_size: Positive = Field(description="Width of the tower")
    layers: Positive = Field(description="Layers of the tower")
    heads: Positive = Field(description="Attention heads of the tower")
    ffn_size: Positive = Field(description="FFN width of the tower")
    patch_size: Positive = Field(description="Edge of a patch, pixels")
    tile_size: Positive = Field(description="Edge of a tile, pixels")
    pooling_head: bool = Field(False, description="The tower carries an attention pooling head, whether used or not")


class Architecture(Strict):
    """Sizes of a transformer, from its published ``config.json``."""

    family: str = Field(description="Architecture family: selects how config.json spells each size")
    hidden_size: Positive
    layers: Positive
    dense_layers: Count = Field(0, description="Leading layers with a dense FFN instead of experts")
    dense_ffn_size: Count = Field(0, description="FFN width of the dense layers")
    attention: Attention
    experts: Experts | None = Field(None, description="Absent for a dense model (drafts)")
    vocab_size: Positive
    max_positions: Positive = Field(description="Longest sequence the model takes, tokens")
    tied_embeddings: bool = Field(False, description="Input and output embeddings are one matrix")
    vision: Vision | None = Field(None, description="Sizes of the vision part, where they are known")
    vision_parameters: Count = Field(
        0, description="Parameters of vision tower and projector, where only their number is known"
    )

    @model_validator(mode="after")
    def _vision_once(self) -> Architecture:
        if self.vision and self.vision_parameters:
            raise ValueError("vision_parameters follow from vision; give one of the two")
        return self


class HubSource(Strict):
    """A checkpoint on the Hugging Face hub."""

    hub: str = Field(pattern=r"^[\w.\-]+/[\w.\-]+$", description="Repository, ORG/NAME")
    revision: str = Field("main", description="Branch, tag or commit; staged once, then pinned to a commit")
    include: tuple[str, ...] = Field(
        ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"), description="Files fetched"
    )


class DataSource(HubSource):
    """A data set on the Hugging Face hub."""

    include: tuple[str, ...] = Field(("*",), description="Files fetched")


class TableSource(Strict):
    """A data set in one table (.tsv) that holds its images, as VLMEvalKit takes it."""

    tsv: str = Field(pattern=r"^https?://\S+\.tsv$", description="Address of the table")
    md5: str = Field(pattern=r"^[0-9a-f]{32}$", description="Its MD5, as the harness has it; another one is refused")


class RandomInit(Strict):
    """A checkpoint the project writes itself: weights ~ N(0, 1/fan_in), deterministic from the seed."""

    seed: Count = 0


class Source(Strict):
    """Where weights come from: exactly one of the two."""

    hub: HubSource | None = None
    random_init: RandomInit | None = None

    @model_validator(mode="after")
    def _one(self) -> Source:
        if (self.hub is None) == (self.random_init is None):
            raise ValueError("give exactly one of hub, random_init")
        return self


class Published(Strict):
    """Sizes as their makers publish them; a test holds the computed ones against these."""

    total_parameters: float | None = None
    active_parameters: float | None = None
    reference: str


class ModelSpec(Strict):
    """A model of the registry: ``config/models/NAME.yaml``."""

    name: Name
    title: str = Field(description="Name in figures")
    source: Source
    architecture: Architecture
    published: Published | None = None
    reference: str = Field(description="Where the architecture facts are from")
    variant_of: str | None = Field(None, description="The full-size model a small variant stands for")
    quantized: dict[Quantization, HubSource] = Field(
        {}, description="Ready-made quantized checkpoints by scheme; the others are made from the source"
    )
    note: str | None = None

    @model_validator(mode="after")
    def _quantized_of_a_hub_model(self) -> ModelSpec:
        if self.quantized and self.source.hub is None:
            raise ValueError("quantized: only for a model whose source is a hub; the project quantizes its own")
        if "none" in self.quantized:
            raise ValueError("quantized: 'none' is the source itself; name a scheme")
        return self


# ---------------------------------------------------------------------------------------------- tasks


class TaskMetric(Strict):
    """A metric that a harness reports for a task."""

    name: str = Field(description="As the harness calls it, e.g. acc_norm")
    filter: str = Field("none", description="The harness's filter of answers, e.g. strict-match")
    unit: Literal["share", "points", "perplexity", "bits/byte"] = Field(
        "share", description="share: of right answers (or of all points), 0 to 1"
    )
    higher_is_better: bool = True


class TaskSpec(Strict):
    """A task of an accuracy harness: ``config/tasks/NAME.yaml``."""

    name: Name
    title: str = Field(description="Name in tables and figures")
    harness: Literal["lm-eval", "vlmeval"] = Field(description="Who asks and scores; its version is pinned in envs/")
    task: str = Field(description="The harness's own name of the task, or of a group of tasks")
    data: DataSource | TableSource
    scoring: Literal["mme", "choices", "vqa", "anls"] | None = Field(
        None, description="vlmeval: what its scores are, and so how they come to a scale of 0 to 1 (docs/accuracy.md)"
    )
    split: str | None = Field(None, description="vlmeval: the rows of the table that stand for the task; default: all")
    max_tokens: Positive | None = Field(None, description="vlmeval: longest answer, tokens; it is cut there")
    shots: Count = Field(description="Solved examples before each question")
    choices: Positive | None = Field(
        None, description="Answers to choose from; guessing is right in 1 of them. None: free text"
    )
    metrics: tuple[TaskMetric, ...] = Field(
        min_length=1, description="The first stands for the task in means over tasks"
    )
    in_mean: bool = Field(True, description="Counts in the mean over tasks (only shares can)")
    reference: str = Field(description="Where the data and the way of asking are described")

    @model_validator(mode="after")
    def _of_its_harness(self) -> TaskSpec:
        own = {"scoring": self.scoring, "max_tokens": self.max_tokens}
        if self.harness == "vlmeval":
            missing = [key for key, value in own.items() if value is None]
            if missing or not isinstance(self.data, TableSource):
                raise ValueError(f"{missing[0] if missing else 'data.tsv'} is missing: harness vlmeval needs it")
            if self.shots or self.choices:
                raise ValueError("shots must be 0 and choices left out: vlmeval shows no examples and counts choices")
        elif isinstance(self.data, TableSource) or any((*own.values(), self.split)):
            raise ValueError("data.tsv, scoring, split and max_tokens are for harness vlmeval; this one reads hub data")
        return self

    @model_validator(mode="after")
    def _mean_of_shares(self) -> TaskSpec:
        if self.in_mean and self.metrics[0].unit != "share":
            raise ValueError(f"in_mean: {self.metrics[0].name} is in {self.metrics[0].unit}, means are of shares")
        return self


# ------------------------------------------------------------------------------------------- hardware


class Peak(Strict):
    """A peak rate of a device and where it is from.  Dense, never the sparse marketing figure."""

    flops_per_s: float = Field(gt=0)
    reference: str


class Constant(Strict):
    """A measured constant and where it is from."""

    value: float = Field(gt=0)
    reference: str


class Calibrated(Strict):
    """What separates a machine from its data sheet.  Absent: taken as ideal.  Never fitted silently."""

    bandwidth_share: Constant | None = Field(None, description="Sustained over peak memory bandwidth")
    compute_share: Constant | None = Field(None, description="Sustained over peak rate of matrix products")
    moe_layer_s: Constant | None = Field(None, description="Time of a MoE layer beside its bytes and operations, s")
    step_s: Constant | None = Field(None, description="Time of a step beside its layers, s")
    collective_step_s: Constant | None = Field(None, description="Start of one ring step of a collective, s")

    def values(self) -> dict[str, float]:
        """The constants that are known, by name."""
        return {name: constant.value for name in type(self).model_fields if (constant := getattr(self, name))}


class Hardware(Strict):
    """A machine type: ``config/hardware/NAME.yaml``.  ``null`` stands for unknown, never a guess."""

    name: Name
    title: str
    kind: Literal["gpu", "cpu"]
    gpu_model: str | None = Field(None, description="GRES type as SLURM names it, e.g. h100")
    device_name: str | None = Field(
        None, description="Device name as the driver reports it; a run on another is refused"
    )
    memory_bytes: float | None = Field(None, description="Memory of one device")
    bandwidth_bytes_per_s: float | None = Field(None, description="Memory bandwidth of one device")
    link_bytes_per_s: float | None = Field(None, description="Bandwidth between devices of a node, one way")
    inter_node_bytes_per_s: float | None = Field(
        None, description="Bandwidth between nodes, one way, of one device (the cluster's, seldom the device's)"
    )
    peak: dict[str, Peak] = Field({}, description="Dense peak rates by data type")
    calibration: Calibrated | None = Field(None, description="Measured shares and overheads, for calibrated times")
    devices_per_node: Positive = 1
    usable_memory_fraction: float = Field(0.9, gt=0, le=1, description="vLLM's gpu_memory_utilization")
    reference: str


# --------------------------------------------------------------------------------------------- knobs


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
    image_size: Positive | None = Field(None, description="Edge of the square images, pixels")


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
    """A text that prompts are made of, in a file of one's own: ``config/corpora/NAME.yaml``."""

    name: Name
    title: str
    file: str = Field(
        pattern=r"\.(jsonl|txt)$",
        description="Staged by hand: JSON lines, an item each, or text whose items are parted by blank lines",
    )
    field: str = Field("text", description="Key of the text in a JSON line")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the file; without it cells can be planned, and not measured",
    )
    reference: str = Field(description="Where the text is from")


# --------------------------------------------------------------------------------- experiments, studies

Axis = list[Any]


class Block(Strict):
    """A part of a grid: ``fix`` sets knobs, ``cross`` sweeps them (every combination).

    An axis of ``cross`` is named after its knob, or after several knobs that move together
    (``input_tokens = output_tokens``).  A value that is a mapping is an *arm*: it sets all the knobs in it,
    and the axis name is free; its ``label`` names it in figures.
    """

    fix: dict[str, Any] = {}
    cross: dict[str, Axis] = {}


class AccuracyBlock(Block):
    """A part of an accuracy grid: every task for every engine configuration of ``fix`` and ``cross``.

    Engine knobs and ``top_k`` only: how a task is asked is the task's own matter.
    """

    tasks: tuple[Name, ...] = Field(min_length=1, description="Tasks of config/tasks")
    data: Literal["hub", "fixtures"] = Field(
        "hub", description="The published data sets, or small ones of their form that the project writes itself"
    )
    limit: Positive | None = Field(None, description="Only the first rows of each data set (of each MMLU subject)")
    max_tokens: Positive | None = Field(None, description="vlmeval: longest answer, instead of the task's")


class Plot(Strict):
    """A figure drawn from an experiment's rows by one of the general renderers."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9_\-]+$")] = Field(description="File name of the figure")
    number: str = Field(description="Number in the paper, e.g. '7'")
    title: str
    kind: Literal["lines", "bars", "pareto", "heatmap", "parameters", "computed"] = Field(
        description="Lines or bars of measured cells, points of speed against accuracy, a heat map within each cell,"
        " stacked bars of the parameters of models, or lines of computed points"
    )
    x: str = Field("", description="Column on the x axis (all but parameters)")
    y: tuple[str, ...] = Field((), description="Columns on the y axis: one row of panels each; heatmap: exactly one")
    value: str | None = Field(None, description="Column that gives the colour (heatmap)")
    beside: tuple[str, ...] = Field((), description="Columns whose values stand over each panel (heatmap)")
    only: dict[str, Any] = Field({}, description="Column: value; only rows that have it are shown (all but parameters)")
    hue: str | None = Field(None, description="Column that gives the colour")
    panel: str | None = Field(None, description="Column that gives the columns of panels")
    row: str | None = Field(None, description="Column that gives the rows of panels (with one y only)")
    log_x: bool = False
    log_y: bool = False
    models: tuple[Name, ...] = Field((), description="Models shown (parameters); default: all of the experiment")
    level: float | None = Field(None, description="A value of y to mark with a line (computed)")

    @model_validator(mode="after")
    def _of_its_kind(self) -> Plot:
        if self.kind == "parameters":
            names = ("x", "y", "value", "beside", "only", "hue", "panel", "row")
            given = {name: getattr(self, name) for name in names}
            if wrong := [key for key, value in given.items() if value]:
                raise ValueError(f"{', '.join(wrong)}: not for a figure of kind parameters; it takes models")
        elif not (self.x and self.y):
            raise ValueError(f"{'y' if self.x else 'x'} is missing: a figure of kind {self.kind} needs x and y")
        elif self.models:
            raise ValueError(f"models: not for a figure of kind {self.kind}, only for kind parameters")
        elif self.kind == "heatmap" and (self.value is None or len(self.y) != 1 or self.hue):
            raise ValueError("a figure of kind heatmap needs value, the colour, and one y; it takes no hue")
        elif self.kind != "heatmap" and (self.value or self.beside):
            raise ValueError(f"value, beside: not for a figure of kind {self.kind}, only for kind heatmap")
        if self.kind == "pareto" and (self.row or self.log_x):
            raise ValueError("row, log_x: not for a figure of kind pareto; it has a row of panels for each y")
        if self.kind != "computed" and self.level is not None:
            raise ValueError("level: only for a figure of kind computed")
        return self


class ComputedKnobs(Strict):
    """A point of ``computed``: decoding of a mixture and of a dense model of equal quality on a machine.

    A parallel size that is not given is searched for: the fastest layout that fits.
    """

    model: Name = Field(description="A model of the registry, with experts")
    hardware: Name = Field(description="A machine type")
    gpus: Positive = Field(description="Devices")
    tp: Positive | None = Field(None, description="Tensor parallel size")
    pp: Positive | None = Field(None, description="Pipeline parallel size")
    dp: Positive | None = Field(None, description="Data parallel size")
    ep: Positive | None = Field(None, description="Groups that whole experts are dealt to")
    kvp: Positive | None = Field(None, description="Ranks that share the KV cache of a sequence by tokens")
    quantization: Quantization = Field("none", description="Scheme of the weights")
    quality: float = Field(5.0, gt=0, description="Quality factor q: FFN of a dense model over the active one")
    context_tokens: Positive = Field(131072, description="Context of every sequence, tokens")
    batch: Positive | None = Field(None, description="Sequences; default: as many as fit")
    memory_factor: float = Field(1.0, gt=0, description="Memory of a device over that of the machine type")
    bandwidth_factor: float = Field(1.0, gt=0, description="Memory bandwidth over that of the machine type")
    link_factor: float = Field(1.0, gt=0, description="Link bandwidth over that of the machine type")


class Experiment(Strict):
    """One question and its figures: ``config/experiments/NAME.yaml``."""

    name: Name
    title: str
    question: str = Field(description="What is asked, in a sentence or two")
    paper: str = Field("MoE-Inference-Bench (arXiv 2508.17467)")
    assumptions: tuple[str, ...] = Field((), description="What the paper leaves open and is chosen here")
    claims: tuple[str, ...] = Field((), description="Identifiers of the claims this experiment decides")
    protocol: Protocol | None = Field(None, description="Instead of the study's")
    models: tuple[Name, ...] = Field((), description="Models whose parameters are counted; needs no grid")
    printed_in: Name | None = Field(
        None, description="A paper of config/papers, whose tables are shown beside true and computed values"
    )
    computed: tuple[Block, ...] = Field(
        (), description="Points of the cost model, in the grid language; needs no grid, nothing is measured"
    )
    grid: dict[str, list[Block]] = Field(
        {}, description="Blocks per scale (paper, tiny, ...); their union is the grid; none: nothing is measured"
    )
    accuracy: dict[str, list[AccuracyBlock]] = Field(
        {}, description="Blocks per scale whose tasks are evaluated; none: no accuracy is asked for"
    )
    figures: tuple[Plot, ...] = ()

    @model_validator(mode="after")
    def _asks_something(self) -> Experiment:
        if not (self.grid or self.models or self.computed or self.accuracy):
            raise ValueError("grid is missing; give a grid, accuracy, computed, or models whose parameters are counted")
        if self.printed_in and not self.models:
            raise ValueError("printed_in needs models: those whose architectures are compared")
        for figure in self.figures:
            if figure.kind == "computed" and not self.computed:
                raise ValueError(f"figure {figure.id} of kind computed needs computed in the experiment")
            if figure.kind in ("lines", "bars") and not self.grid:
                raise ValueError(f"figure {figure.id} of kind {figure.kind} needs a grid")
            if figure.kind == "parameters" and not self.models:
                raise ValueError(f"figure {figure.id} of kind parameters needs models in the experiment")
            for name in figure.models:
                if name not in self.models:
                    raise ValueError(
                        f"figure {figure.id}: model {name!r} is not one of the experiment's"
                        + nearest(name, self.models)
                    )
        return self


Modality = Literal["Text", "Text + Image"]
Billions = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?B$")]


class PrintedModel(Strict):
    """A row of a paper's table of architectures, as printed."""

    model: Name = Field(description="The model of the registry that it is about")
    modality: Modality
    layers: Positive
    hidden_size: Positive
    ffn_size: Positive = Field(description="FFN dimension")
    experts: Positive
    top_k: Positive = Field(description="Active experts")
    total_parameters: Billions = Field(description="Model size with the digits printed, e.g. 12.9B")
    active_parameters: Billions = Field(description="Active parameters with the digits printed")
    why: dict[str, str] = Field({}, description="Column: why its value is not the model's")

    @model_validator(mode="after")
    def _columns(self) -> PrintedModel:
        known = [name for name in type(self).model_fields if name not in ("model", "why")]
        for name in self.why:
            if name not in known:
                raise ValueError(f"why: no column {name!r}" + nearest(name, known))
        return self


class PrintedTable(Strict):
    """A paper's table of architectures."""

    source: str = Field(description="Where in the paper, e.g. Table 1")
    title: str
    note: str | None = Field(None, description="What the table lacks as a whole")
    rows: tuple[PrintedModel, ...]


class PrintedRow(Strict):
    """A row of numbers, as printed."""

    label: str
    model: Name | None = Field(None, description="The model of the registry that it is about")
    given: dict[str, float] = Field({}, description="What the row is for: inputs by name, e.g. quality, gpus")
    printed: dict[str, str | None] = Field(description="Quantity: the digits printed; null: lost in the text we have")


class PrintedNumbers(Strict):
    """A table of numbers that a paper computes, or its numbered equations."""

    id: Name
    source: str = Field(description="Where in the paper, e.g. Table 3")
    title: str
    note: str | None = None
    rows: tuple[PrintedRow, ...]


class Assumed(Strict):
    """What a paper's formulas need and it does not give, or gives elsewhere: values and why."""

    hardware: Name
    tensor_parallel: Constant
    expert_parallel: Constant
    usable_share: Constant
    overlap: Constant


class Paper(Strict):
    """What a paper prints about models: ``config/papers/NAME.yaml``."""

    name: Name
    title: str
    reference: str
    architectures: PrintedTable | None = None
    numbers: tuple[PrintedNumbers, ...] = Field((), description="Tables that are reproduced")
    assumed: Assumed | None = Field(None, description="What their reproduction needs")


Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]


class Endpoint(Strict):
    """An OpenAI-compatible service: a hosted one, or `vllm serve` started for the cells (docs/endpoints.md)."""

    serve: bool = Field(False, description="Start `vllm serve` on the machine that measures, and end it afterwards")
    base_url: str | None = Field(
        None, pattern=r"^https?://[^\s@?#]+$", description="Base URL up to and with /v1; no key or password in it"
    )
    base_url_env: Variable | None = Field(None, description="Environment variable that holds the base URL")
    key_env: Variable | None = Field(
        None, description="Environment variable that holds the key; only its name is ever written anywhere"
    )
    models: dict[Name, str] = Field({}, description="Models of the registry and their names at the service")
    hardware: str | None = Field(None, description="What the service runs on, as named in figures and tables")
    api: Literal["completions", "chat"] = Field("completions", description="/completions, or /chat/completions")
    prompt: Literal["ids", "text"] = Field("ids", description="Prompts as token ids, or as text where ids are refused")
    admits: tuple[Literal["ignore_eos", "min_tokens", "return_token_ids"], ...] = Field(
        (), description="Request fields beyond OpenAI's that the service takes"
    )
    tokens: Literal["exact", "measured"] = Field(
        "exact", description="Other token counts than asked for make a cell invalid, or are measured and recorded"
    )
    timeout_s: float = Field(600, gt=0, description="A request that is not finished by then is given up")

    @model_validator(mode="after")
    def _one_place(self) -> Endpoint:
        given = [k for k in ("serve", "base_url", "base_url_env") if getattr(self, k)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of serve: true, base_url, base_url_env (given: {given or 'none'})")
        if self.serve and (self.key_env or self.models or self.hardware):
            raise ValueError("key_env, models and hardware are for hosted services, not with serve: true")
        if not self.serve and not (self.models and self.hardware):
            raise ValueError("a hosted service needs models (their names there) and hardware (what it runs on)")
        if self.api == "chat" and (self.prompt == "ids" or self.tokens == "exact"):
            raise ValueError("a chat template adds tokens to the prompt: set prompt: text and tokens: measured")
        return self


class Engine(Strict):
    """Which engine runs the cells, and where."""

    name: Literal["vllm", "transformers", "endpoint"] = Field("vllm", description="Kind of engine")
    version: str = Field(description="Its version; a hosted service: what it says of itself, or a date")
    environment: str = Field(description="Environment of envs/ whose Python runs the measurement")
    live_top_k: bool | Literal["auto"] = Field(
        "auto", description="Set top-k in the loaded engine; auto: where it is eager (a compiled router ignores it)"
    )
    endpoint: Endpoint | None = Field(None, description="The service (name: endpoint)")

    @model_validator(mode="after")
    def _endpoint_given(self) -> Engine:
        if (self.name == "endpoint") != (self.endpoint is not None):
            raise ValueError("name: endpoint and the key endpoint belong together: give both or neither")
        return self

    @property
    def hosted(self) -> bool:
        """Whether a service elsewhere runs the cells: nothing is loaded here, and no device is needed."""
        return self.endpoint is not None and not self.endpoint.serve


class Jobs(Strict):
    """How cells become jobs."""

    pack_minutes: float = Field(
        0, ge=0, description="Pack engine configurations of one shape into jobs of this length; 0: one job each"
    )
    load_s: float = Field(60, gt=0, description="Expected time to load an engine, s, beside reading its weights")
    weights_bytes_per_s: float = Field(1e9, gt=0, description="Expected rate of reading weights")
    cell_overhead_s: float = Field(5, ge=0, description="Expected time per cell beside its runs")
    time_factor: float = Field(3, ge=1, description="Requested over expected run time")
    cell_timeout_s: float = Field(1800, gt=0, description="A cell that takes longer is ended and recorded as timeout")
    load_timeout_s: float = Field(3600, gt=0, description="A load that takes longer is ended and recorded as timeout")
    task_s: float = Field(900, gt=0, description="Expected time of an accuracy task")
    task_timeout_s: float = Field(
        6 * 3600, gt=0, description="An accuracy task that takes longer is ended and recorded as timeout"
    )
    skip_infeasible: bool = Field(
        False, description="Record cells predicted not to fit as infeasible instead of trying them"
    )
    cpus: Positive = Field(8, description="CPU cores per GPU of a job")
    host_memory_mb: Positive = Field(64000, description="Host memory per GPU of a job, MB")


class Study(Strict):
    """What a user runs: ``config/studies/NAME.yaml``."""

    name: Name
    title: str
    description: str
    scale: str = Field(description="Which grid of each experiment: a key of its grid")
    hardware: Name
    engine: Engine
    engines: dict[Name, Engine] = Field({}, description="Further engines, by the name the knob engine_name gives")
    experiments: tuple[Name, ...]
    reference: Name | None = Field(
        None, description="Study whose predictions are shown beside this one's figures and claims: the paper's own grid"
    )
    defaults: dict[str, Any] = Field({}, description="Knob values where an experiment gives none")
    protocol: Protocol = Protocol()
    jobs: Jobs = Jobs()
    calibration: Calibration = Calibration()

    @model_validator(mode="after")
    def _engine_names(self) -> Study:
        if self.engine.name in self.engines:
            raise ValueError(f"engines: {self.engine.name!r} is the study's engine already; choose another name")
        return self


class Root(Strict):
    """``config/config.yaml``."""

    study: Name = Field("tiny", description="A study of config/studies")
    results: str = Field("results", description="Folder for records and tables")
    reports: str = Field("reports", description="Folder for reports")
    models: str = Field("models", description="Folder for staged models")
    data: str = Field("data", description="Folder for staged data sets")
    environments: str = Field(".envs", description="Folder of the built environments")
    budget_gpu_hours: float | None = Field(
        None, gt=0, description="Measure only the cells that decide the most claims within so many GPU-hours"
    )


# -------------------------------------------------------------------------------------------- loading

T = TypeVar("T", bound=Strict)
N = TypeVar("N", "Study", "Experiment", "ModelSpec", "TaskSpec", "Hardware", "Paper", "Corpus")


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML that also refuses a key given twice (YAML would silently keep the last)."""


def _no_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


# Scientific notation without a dot (1e9) is a float to people, and a string to YAML 1.1.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_duplicates)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.  Raises ConfigError naming file, line and cause."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        cause = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{path}{where}: not YAML as it should be: {cause}") from None


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Field names of the (sub)model that an error location points into, for the nearest-key hint."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None or not isinstance(part, str) or part not in current.model_fields:
            continue
        current = next(_models_in(current.model_fields[part].annotation), None)
    return list(current.model_fields) if current else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def explain(error: ValidationError, model: type[BaseModel], path: Path | str) -> ConfigError:
    """Turn pydantic's errors into one line: file, key, value, remedy (the first, and how many more)."""
    # A misspelt required key is both unknown and missing: the misspelling is what to mend.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(p) for p in first["loc"]) or "(top level)"
    if first["type"] == "extra_forbidden":
        where = f" in {key.rpartition('.')[0]}" if "." in key else ""
        text = f"unknown key {first['loc'][-1]!r}{where}" + nearest(
            str(first["loc"][-1]), _fields_at(model, first["loc"][:-1])
        )
    elif first["type"] == "missing":
        text = f"{key} is missing"
    else:
        value = repr(first["input"])
        value = value if len(value) <= 80 else value[:80] + "..."
        shown = ":" if isinstance(first["input"], (dict, BaseModel)) else f" is {value}:"
        text = f"{key}{shown} {first['msg'].removeprefix('Value error, ')}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ConfigError(f"{path}: {text}{more}")


def parse(model: type[T], data: Any, path: Path | str) -> T:
    """Validate ``data`` as ``model``.  Raises ConfigError naming ``path``."""
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise explain(error, model, path) from None


_SINGULAR = {"studies": "study", "corpora": "corpus"}


class Config:
    """The configuration folder, read lazily: a misspelt file that no study uses does not stop one.

    >>> config = Config(Path("config"))
    >>> config.study("tiny").hardware
    'local-cpu'
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def _names(self, kind: str) -> list[str]:
        return sorted(p.stem for p in (self.folder / kind).glob("*.yaml"))

    def _read(self, model: type[N], kind: str, name: str, wanted_by: str) -> N:
        path = self.folder / kind / f"{name}.yaml"
        if not path.exists():
            raise ConfigError(
                f"{wanted_by}: unknown {_SINGULAR.get(kind, kind.removesuffix('s'))} {name!r}"
                + nearest(name, self._names(kind))
            )
        parsed = parse(model, read_yaml(path), path)
        if parsed.name != name:
            raise ConfigError(f"{path}: name is {parsed.name!r}, the file is called {name!r}; make them equal")
        return parsed

    @functools.cache  # noqa: B019 - one Config per process
    def root(self) -> Root:
        """``config.yaml``."""
        path = self.folder / "config.yaml"
        return parse(Root, read_yaml(path) or {}, path)

    @functools.cache  # noqa: B019
    def study(self, name: str, wanted_by: str = "--study") -> Study:
        """A study by name.  Raises ConfigError if it is unknown or wrong."""
        return self._read(Study, "studies", name, wanted_by)

    @functools.cache  # noqa: B019
    def experiment(self, name: str, wanted_by: str = "--experiment") -> Experiment:
        """An experiment by name."""
        return self._read(Experiment, "experiments", name, wanted_by)

    @functools.cache  # noqa: B019
    def model(self, name: str, wanted_by: str = "--model") -> ModelSpec:
        """A model of the registry by name."""
        return self._read(ModelSpec, "models", name, wanted_by)

    @functools.cache  # noqa: B019
    def task(self, name: str, wanted_by: str = "--task") -> TaskSpec:
        """A task of an accuracy harness by name."""
        return self._read(TaskSpec, "tasks", name, wanted_by)

    @functools.cache  # noqa: B019
    def hardware(self, name: str, wanted_by: str = "--hardware") -> Hardware:
        """A machine type by name."""
        return self._read(Hardware, "hardware", name, wanted_by)

    @functools.cache  # noqa: B019
    def paper(self, name: str, wanted_by: str) -> Paper:
        """What a paper prints, by the paper's name."""
        return self._read(Paper, "papers", name, wanted_by)

    @functools.cache  # noqa: B019
    def corpus(self, name: str, wanted_by: str) -> Corpus:
        """A text that prompts are made of, by name."""
        return self._read(Corpus, "corpora", name, wanted_by)
