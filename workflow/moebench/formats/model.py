"""Models and machines in plans and records: the JSON of ``moebench.config``'s classes of the same name."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

# ------------------------------------------------------------------------------------------- architecture


class AttentionDict(TypedDict):
    """Attention of every layer.

    kind: mha, gqa or mla.  heads: query heads.  kv_heads: key-value heads (MLA: as many as heads).  head_dim: width of
    a head (MLA: of the value head).  kv_lora_rank, q_lora_rank: MLA's width of the compressed key-value latent and
    query, 0 for none.  qk_nope_head_dim, qk_rope_head_dim: MLA's query-key width without and with rotary position.
    bias: query, key and value projections have biases.  qk_norm: none, head or full.  Only if set:
    output_bias, of the output projection; output_gate: a gate as wide as the queries; sinks: one per head; window:
    tokens that ``windowed_layers`` layers attend to; index_heads, index_head_dim, index_top_k: the indexer of sparse
    attention, and how many tokens it chooses.
    """

    kind: str
    heads: int
    kv_heads: int
    head_dim: int
    kv_lora_rank: int
    q_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    bias: bool
    qk_norm: str
    output_bias: NotRequired[bool]
    output_gate: NotRequired[bool]
    sinks: NotRequired[bool]
    window: NotRequired[int]
    windowed_layers: NotRequired[int]
    index_heads: NotRequired[int]
    index_head_dim: NotRequired[int]
    index_top_k: NotRequired[int]


class ExpertsDict(TypedDict):
    """The MoE block.

    count: routed experts per layer (E).  top_k: routed experts per token (k), as trained.  ffn_size: FFN width of one
    routed expert.  shared_ffn_size: width of all shared experts together.  shared_gate: the shared expert has a sigmoid
    gate.  gated: SwiGLU, three matrices rather than two.  every: an MoE block in every n-th of the non-dense layers.
    bias: of router and experts, where there are any.
    """

    count: int
    top_k: int
    ffn_size: int
    shared_ffn_size: int
    shared_gate: bool
    gated: bool
    every: int
    bias: NotRequired[bool]


class RecurrentDict(TypedDict):
    """Layers with a state instead of a KV cache.  kind: gated_delta or mamba2.  layers: how many.  key_heads and
    key_head_dim: of queries and keys (Mamba-2: groups, and state size).  value_heads, value_head_dim: of values.
    conv_width: tokens of the convolution.  state_dtype: auto (the model's) or float32.
    """

    kind: str
    layers: int
    key_heads: int
    key_head_dim: int
    value_heads: int
    value_head_dim: int
    conv_width: int
    state_dtype: str


class SpellingDict(TypedDict, total=False):
    """A family of config/families, key by key as its file (``moebench.config.FamilySpec``): those that say something.

    sizes: {keys of config.json: place in the architecture}.  omitted: what a key that is left out means.
    """

    model_type: str
    engine_class: str
    sizes: dict[str, str]
    also: list[str]
    omitted: dict[str, Any]
    facts: dict[str, Any]
    shared: str
    shared_key: str
    kinds: dict[str, str]
    full_every: int
    full_every_other: str
    section: str
    override_section: str
    ignored: list[str]
    constants: dict[str, Any]


class VisionDict(TypedDict):
    """The vision tower.  Sizes as of attention and FFN; patch_size and tile_size in pixels of an edge."""

    layout: str
    hidden_size: int
    layers: int
    heads: int
    ffn_size: int
    patch_size: int
    tile_size: int
    pooling_head: bool


class ArchitectureDict(TypedDict):
    """The sizes of a model.

    family: how its config.json spells them.  dense_layers: leading layers with a dense FFN of width dense_ffn_size.
    experts: None for a dense model.  max_positions: longest sequence, tokens.  vision: None without one, or where its
    sizes are not known; vision_parameters: then only how many it has.  recurrent: layers with a state instead of
    attention, if any.  spelling: of a family that is a file of config/families.
    """

    family: str
    hidden_size: int
    layers: int
    dense_layers: int
    dense_ffn_size: int
    attention: AttentionDict
    experts: ExpertsDict | None
    vocab_size: int
    max_positions: int
    tied_embeddings: bool
    vision: VisionDict | None
    vision_parameters: int
    recurrent: NotRequired[RecurrentDict]
    spelling: NotRequired[SpellingDict]


# ------------------------------------------------------------------------------------------------- models


class CalibrationDict(TypedDict):
    """Calibration text: ``data`` (text, or a file, then with its sha256), number of tokens of each sequence, seed of
    where they begin."""

    data: str
    sequences: int
    tokens: int
    seed: int
    sha256: NotRequired[str]


class DerivationSettings(TypedDict, total=False):
    """Settings of a derivation; which are there depends on what it is derived by.

    Prune: kind (inter: experts, intra: their channels), ratio (share removed), by (method), and what stays: experts per
    layer, or ffn_size, a multiple of ``multiple``.  seed: of random choices.
    Quantize: scheme, method (rtn, gptq, awq), tool and its version, group (weights per scale).
    calibration: where the method reads text.
    """

    kind: str
    ratio: float
    by: str
    experts: int
    ffn_size: int
    multiple: int
    seed: int
    scheme: str
    method: str
    tool: str
    group: int
    calibration: CalibrationDict


class Derivation(TypedDict):
    """How a model is derived from another: by (prune, quantize), settings, and the parent, which may be derived too."""

    by: str
    settings: DerivationSettings
    parent: ModelDict


class ModelDict(TypedDict):
    """A model as one engine configuration loads it.

    name: in the registry.  title: in figures.  path: its staged folder.  source: ``hub:ORG/NAME``, ``path:FOLDER``,
    ``random_init`` or ``derived:BY``.  revision: commit, or hash of the recipe or of a folder's files.  weights:
    checkpoint, random_init or dummy.  seed: of random_init, else None.  derived: None for a staged model.
    trust_remote_code: only where the Python files of its repository may run.
    """

    name: str
    title: str
    path: str
    source: str
    revision: str
    weights: str
    seed: int | None
    architecture: ArchitectureDict
    derived: NotRequired[Derivation | None]
    trust_remote_code: NotRequired[bool]


class PublishedDict(TypedDict):
    """Parameters that a model's authors publish, and where."""

    total_parameters: float | None
    active_parameters: float | None
    reference: str


# ------------------------------------------------------------------------------------------------ machines


class ConstantDict(TypedDict):
    """A measured or assumed value and where it is from."""

    value: float
    reference: str


class PeakDict(TypedDict):
    """Dense peak rate of a data type, and where it is from."""

    flops_per_s: float
    reference: str


class CalibratedDict(TypedDict):
    """Sustained over peak memory bandwidth and rate of matrix products; time of an MoE layer beside its bytes and
    operations, of a step beside its layers, and to start one ring step of a collective, s."""

    bandwidth_share: ConstantDict | None
    compute_share: ConstantDict | None
    moe_layer_s: ConstantDict | None
    step_s: ConstantDict | None
    collective_step_s: ConstantDict | None


class PriceDict(TypedDict):
    """Price of an hour of one device, USD, its provider, and the day it was read."""

    usd_per_hour: float
    source: str
    date: str


class HardwareDict(TypedDict):
    """A machine type (``config/hardware/NAME.yaml``).

    kind: gpu or cpu.  gpu_model: GRES type as SLURM names it.  device_name: the name that the device must report;
    multiprocessors: that it must have, and price, where they are known.
    memory_bytes, bandwidth_bytes_per_s: of one device.  link_bytes_per_s, inter_node_bytes_per_s: between devices of a
    node, and between nodes, one way.  peak: by data type.  calibration: None if nothing is measured.
    usable_memory_fraction: share of a device's memory that an engine may use.
    """

    name: str
    title: str
    kind: str
    gpu_model: str | None
    device_name: str | None
    memory_bytes: float | None
    bandwidth_bytes_per_s: float | None
    link_bytes_per_s: float | None
    inter_node_bytes_per_s: float | None
    peak: dict[str, PeakDict]
    calibration: CalibratedDict | None
    devices_per_node: int
    usable_memory_fraction: float
    reference: str
    multiprocessors: NotRequired[int]
    price: NotRequired[PriceDict]
