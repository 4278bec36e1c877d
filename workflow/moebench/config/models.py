"""Models: their architectures, and where their weights come from."""

from __future__ import annotations

from typing import Literal, cast

from pydantic import Field, model_validator

from moebench.config.base import Count, Name, Positive, Quantization, Strict
from moebench.formats.model import ArchitectureDict


class Attention(Strict):
    """Attention of one layer, as needed for its weights and KV cache."""

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

    @model_validator(mode="after")
    def _heads_in_equal_groups(self) -> Attention:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads {self.heads} is no multiple of kv_heads {self.kv_heads}; "
                f"set kv_heads to a divisor of {self.heads}"
            )
        return self


class Experts(Strict):
    """The mixture-of-experts block of one layer."""

    count: Positive = Field(description="Routed experts per layer (E)")
    top_k: Positive = Field(description="Routed experts active per token (k), as trained")
    ffn_size: Positive = Field(description="FFN width of one routed expert")
    shared_ffn_size: Count = Field(0, description="Total FFN width of the always-active shared experts")
    shared_gate: bool = Field(False, description="The shared expert has its own sigmoid gate")
    gated: bool = Field(True, description="Experts are SwiGLU (three matrices) instead of two matrices")
    every: Positive = Field(1, description="An MoE block in every n-th of the non-dense layers")

    @model_validator(mode="after")
    def _top_k_within_count(self) -> Experts:
        if self.top_k > self.count:
            raise ValueError(f"top_k {self.top_k} is more than the {self.count} experts there are")
        return self


class Vision(Strict):
    """Vision tower of a vision-language model: a ViT over square tiles of an image, and a two-layer projector."""

    layout: Literal["deepseek_vl2", "llava_next"] = Field(
        description="How an image is split into tiles, and tiles into tokens"
    )
    hidden_size: Positive = Field(description="Width of the tower")
    layers: Positive = Field(description="Layers of the tower")
    heads: Positive = Field(description="Attention heads of the tower")
    ffn_size: Positive = Field(description="FFN width of the tower")
    patch_size: Positive = Field(description="Edge of a patch, pixels")
    tile_size: Positive = Field(description="Edge of a tile, pixels")
    pooling_head: bool = Field(False, description="The tower has an attention pooling head, whether used or not")


class Architecture(Strict):
    """Sizes of a transformer, from its published ``config.json``."""

    family: str = Field(description="Architecture family: selects how config.json spells each size")
    hidden_size: Positive
    layers: Positive
    dense_layers: Count = Field(0, description="Leading layers with a dense FFN instead of experts")
    dense_ffn_size: Count = Field(0, description="FFN width of the dense layers")
    attention: Attention
    experts: Experts | None = Field(None, description="Absent for a dense model (draft models)")
    vocab_size: Positive
    max_positions: Positive = Field(description="Longest sequence that the model supports, tokens")
    tied_embeddings: bool = Field(False, description="Input and output embeddings share one matrix")
    vision: Vision | None = Field(None, description="Sizes of the vision tower, if known")
    vision_parameters: Count = Field(
        0, description="Parameters of vision tower and projector, if only their number is known"
    )

    def as_dict(self) -> ArchitectureDict:
        """As a plan holds it."""
        return cast(ArchitectureDict, self.model_dump())

    @model_validator(mode="after")
    def _vision_once(self) -> Architecture:
        if self.vision and self.vision_parameters:
            raise ValueError("vision_parameters follow from vision; give one of the two")
        return self


class HubSource(Strict):
    """A checkpoint on the Hugging Face Hub."""

    hub: str = Field(pattern=r"^[\w.\-]+/[\w.\-]+$", description="Repository, ORG/NAME")
    revision: str = Field("main", description="Branch, tag or commit; pinned to a commit when first staged")
    include: tuple[str, ...] = Field(
        ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"), description="Files to download"
    )


class DataSource(HubSource):
    """A data set on the Hugging Face Hub."""

    include: tuple[str, ...] = Field(("*",), description="Files to download")


class TableSource(Strict):
    """A data set in VLMEvalKit's format: one table (.tsv) that contains the images."""

    tsv: str = Field(pattern=r"^https?://\S+\.tsv$", description="Address of the table")
    md5: str = Field(
        pattern=r"^[0-9a-f]{32}$", description="MD5 as listed in the harness; a table with another MD5 is refused"
    )


class RandomInit(Strict):
    """A checkpoint that the project writes: weights ~ N(0, 1/fan_in), deterministic from the seed."""

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
    """Published sizes; a test compares the computed ones with these."""

    total_parameters: float | None = None
    active_parameters: float | None = None
    reference: str


ALL = "all"
"""In a grid: every model with experts."""
COST_ONLY = "cost-only"
"""Tag of models that no engine runs."""


class ModelSpec(Strict):
    """A model of the registry: ``config/models/NAME.yaml``."""

    name: Name
    title: str = Field(description="Name in figures")
    source: Source
    architecture: Architecture
    published: Published | None = None
    reference: str = Field(description="Source of the architecture facts")
    trust_remote_code: bool = Field(
        False, description="Run the Python files of the repository: its code, pinned with its weights, runs as you"
    )
    variant_of: str | None = Field(None, description="The full-size model that a small variant represents")
    tags: tuple[Name, ...] = Field(
        (),
        description="Groups that the model belongs to, for grids (`model: llms`); a small variant is in its model's."
        " `cost-only`: no engine runs it",
    )
    quantized: dict[Quantization, HubSource] = Field(
        {}, description="Ready-made quantized checkpoints by scheme; the others are created from the source"
    )
    note: str | None = None

    @model_validator(mode="after")
    def _no_tag_means_all(self) -> ModelSpec:
        if ALL in self.tags:
            raise ValueError(f"tags: {ALL!r} stands for every model with experts already; leave it out")
        return self

    @model_validator(mode="after")
    def _quantized_of_a_hub_model(self) -> ModelSpec:
        if self.quantized and self.source.hub is None:
            raise ValueError("quantized: only for a model whose source is a hub; the project quantizes its own")
        if "none" in self.quantized:
            raise ValueError("quantized: 'none' is the source itself; name a scheme")
        return self

    @model_validator(mode="after")
    def _code_of_a_hub_model(self) -> ModelSpec:
        if self.trust_remote_code and self.source.hub is None:
            raise ValueError("trust_remote_code: only for a model whose source is a hub; the project's own has no code")
        return self


class Shape(Strict):
    """A model that this project does not run, but predicts times of: ``config/shapes/NAME.yaml``."""

    name: Name
    also: tuple[Name, ...] = Field((), description="Other models of the same sizes")
    same_as: Name | None = Field(None, description="The model of config/models that has the same sizes")
    architecture: Architecture | None = None
    window: Count = Field(0, description="Sliding window of the layers that have one, tokens")
    windowed_layers: Count = Field(0, description="Layers that attend to the window only")
    published: Published | None = None
    reference: str = Field(description="Where the sizes are from")

    @model_validator(mode="after")
    def _one(self) -> Shape:
        if (self.same_as is None) == (self.architecture is None):
            raise ValueError("give exactly one of same_as, architecture")
        if bool(self.window) != bool(self.windowed_layers):
            raise ValueError("window and windowed_layers go together")
        return self
