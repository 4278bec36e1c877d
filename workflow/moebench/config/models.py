"""Models: their architectures, and where their weights come from."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from moebench.config.base import Count, Name, Positive, Quantization, Strict
from moebench.formats.model import ArchitectureDict


class Growing(Strict):
    """Sizes that get further keys over time.  A later key is written only where it says something, so that plans and
    recipes of models without it stay as they are, to the byte."""

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unsaid(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unsaid = [key for key in self.later if getattr(self, key) == fields[key].default]
        return {key: value for key, value in write(self).items() if key not in unsaid}


class Attention(Growing):
    """Attention of one layer, as needed for its weights and KV cache."""

    later = ("output_bias", "output_gate", "sinks", "window", "windowed_layers", "index_heads", "index_head_dim",
             "index_top_k")  # fmt: skip

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
    output_bias: bool = Field(False, description="The output projection has a bias")
    output_gate: bool = Field(False, description="A gate of the queries' width multiplies attention's output")
    sinks: bool = Field(False, description="A learned attention sink per head")
    window: Count = Field(0, description="Tokens that layers with a sliding window, or with chunks, attend to")
    windowed_layers: Count = Field(0, description="Number of layers that attend only to the window")
    index_heads: Count = Field(0, description="Sparse attention (DeepSeek-V3.2): heads of the indexer")
    index_head_dim: Count = Field(0, description="Sparse attention: width of an indexer's head")
    index_top_k: Count = Field(0, description="Sparse attention: tokens that a token attends to")

    @model_validator(mode="after")
    def _belonging_together(self) -> Attention:
        if bool(self.window) != bool(self.windowed_layers):
            raise ValueError("window and windowed_layers go together: give both or neither")
        index = (self.index_heads, self.index_head_dim, self.index_top_k)
        if any(index) and not (all(index) and self.kind == "mla" and self.q_lora_rank):
            raise ValueError("index_heads, index_head_dim and index_top_k go together, with kind mla and a q_lora_rank")
        return self

    @model_validator(mode="after")
    def _heads_in_equal_groups(self) -> Attention:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}; "
                f"set kv_heads to a divisor of {self.heads}"
            )
        return self


class Experts(Growing):
    """The mixture-of-experts block of one layer."""

    later = ("bias",)

    count: Positive = Field(description="Routed experts per layer (E)")
    top_k: Positive = Field(description="Routed experts active per token (k), as trained")
    ffn_size: Positive = Field(description="FFN width of one routed expert")
    shared_ffn_size: Count = Field(0, description="Total FFN width of the always-active shared experts")
    shared_gate: bool = Field(False, description="The shared expert has its own sigmoid gate")
    gated: bool = Field(True, description="Experts are SwiGLU (three matrices) instead of two matrices")
    every: Positive = Field(1, description="An MoE block in every n-th of the non-dense layers")
    bias: bool = Field(False, description="The router and the experts' matrices have biases")

    @model_validator(mode="after")
    def _top_k_within_count(self) -> Experts:
        if self.top_k > self.count:
            raise ValueError(f"top_k {self.top_k} is more than the {self.count} experts")
        return self


class Recurrent(Strict):
    """Layers that keep a state of fixed size instead of a KV cache: linear attention or a state-space model.

    Names are those of linear attention.  Mamba-2 calls keys B (and queries C), with ``key_heads`` groups of
    ``key_head_dim`` states; values are its heads.
    """

    kind: Literal["gated_delta", "mamba2"] = Field(
        description="Gated DeltaNet (Qwen3-Next, Qwen3.5) or Mamba-2 (Granite 4 H)"
    )
    layers: Positive = Field(description="Number of layers with such a state instead of attention")
    key_heads: Positive = Field(description="Heads of queries and of keys; Mamba-2: groups")
    key_head_dim: Positive = Field(description="Width of a query or key head; Mamba-2: state size")
    value_heads: Positive = Field(description="Heads of values; Mamba-2: heads")
    value_head_dim: Positive = Field(description="Width of such a head")
    conv_width: Positive = Field(description="Width of the preceding convolution, tokens")
    state_dtype: Literal["auto", "float32"] = Field(
        "auto", description="Data type of the state in config.json; auto: the model's"
    )


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


class Architecture(Growing):
    """Sizes of a transformer, from its published ``config.json``."""

    later = ("recurrent", "spelling")

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
    recurrent: Recurrent | None = Field(None, description="Layers with a state instead of attention, if any")
    spelling: dict[str, Any] | None = Field(
        None, description="How config.json spells the sizes: filled in from config/families, not written here"
    )

    def __hash__(self) -> int:
        return hash((self.family, self.hidden_size, self.layers, self.attention, self.experts))  # a dict has no hash

    def as_dict(self) -> ArchitectureDict:
        """As a plan holds it."""
        return cast(ArchitectureDict, self.model_dump())

    @model_validator(mode="after")
    def _layers_there_are(self) -> Architecture:
        recurrent = self.recurrent.layers if self.recurrent else 0
        if recurrent + self.attention.windowed_layers > self.layers:
            raise ValueError(
                f"{recurrent} recurrent and {self.attention.windowed_layers} windowed layers are more than the "
                f"{self.layers} layers there are"
            )
        if recurrent and self.experts and (self.dense_layers or self.experts.every > 1):
            raise ValueError("recurrent: only for models whose layers all have experts, or none")
        return self

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
    """Where weights come from: exactly one of the three."""

    hub: HubSource | None = None
    random_init: RandomInit | None = None
    path: str | None = Field(
        None, pattern=r"^/.", description="Folder of a checkpoint on a shared disk: linked and checked, never copied"
    )
    quantization: Quantization = Field("none", description="path: the scheme that the checkpoint is quantized in")

    @model_validator(mode="after")
    def _one(self) -> Source:
        if self.quantization != "none" and self.path is None:
            raise ValueError("quantization goes with path; a hub's quantized checkpoints are under quantized")
        if sum(given is not None for given in (self.hub, self.random_init, self.path)) != 1:
            raise ValueError("give exactly one of hub, random_init, path")
        return self

    @property
    def shared(self) -> str:
        """How plans, manifests and the lock file call a folder on a shared disk."""
        return f"path:{self.path}"


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
        False, description="Run the repository's own Python files, pinned with its weights, under your account"
    )
    variant_of: str | None = Field(None, description="The full-size model that a small variant represents")
    tags: tuple[Name, ...] = Field(
        (),
        description="Groups that the model belongs to, for grids (`model: llms`); a small variant has the groups of "
        "its full-size model. `cost-only`: no engine runs it",
    )
    quantized: dict[Quantization, HubSource] = Field(
        {}, description="Ready-made quantized checkpoints by scheme; the others are created from the source"
    )
    note: str | None = None

    @model_validator(mode="after")
    def _no_tag_means_all(self) -> ModelSpec:
        if ALL in self.tags:
            raise ValueError(f"tags: {ALL!r} already means every model with experts; leave it out")
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
            raise ValueError(
                "trust_remote_code: only for a model whose source is a hub; the project's own models have no code"
            )
        return self


class Shape(Strict):
    """A model that this project does not run, but predicts times of: ``config/shapes/NAME.yaml``."""

    name: Name
    also: tuple[Name, ...] = Field((), description="Other models with the same sizes")
    same_as: Name | None = Field(None, description="Model of config/models with the same sizes")
    architecture: Architecture | None = None
    published: Published | None = None
    reference: str = Field(description="Source of the sizes")

    @model_validator(mode="after")
    def _one(self) -> Shape:
        if (self.same_as is None) == (self.architecture is None):
            raise ValueError("give exactly one of same_as, architecture")
        return self
