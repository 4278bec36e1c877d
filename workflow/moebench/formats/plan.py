"""The plan of a study: ``results/plan/STUDY-DIGEST.json``, made by ``moebench.plan``."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from moebench.formats import Knobs
from moebench.formats.model import ArchitectureDict, ExpertsDict, HardwareDict, ModelDict, PublishedDict
from moebench.formats.paper import PaperDict

Labels = dict[str, Any]
"""Values by axis of an experiment's grid: a knob's name, or that of arms of knobs."""

# ----------------------------------------------------------------------------------- engine configurations


class EngineKnobsDict(TypedDict):
    """Every knob whose change needs the engine to be loaded anew, resolved (``config.EngineKnobs`` describes each).

    engine_name: which engine of the study.  weights: checkpoint, random_init or dummy.  experts, moe_ffn_size: None
    for the model's own.  draft_tokens: per step, 0 without speculation.  max_model_len: tokens; max_num_seqs and
    max_num_batched_tokens: per step.  cpu_threads, kv_cache_mb: None for the engine's choice.
    top_k: set if it is fixed when the engine is loaded, else None (the workload's is set live).
    The rest: only where they are set.
    """

    model: str
    engine_name: str
    weights: str
    experts: int | None
    moe_ffn_size: int | None
    dtype: str
    quantization: str
    kv_cache_dtype: str
    pruning: str
    prune_ratio: float
    prune_by: str | None
    prune_multiple: int
    draft_model: str | None
    draft_tokens: int
    tp: int
    pp: int
    dp: int
    ep: bool
    expert_kernel: str
    kernel_config: str
    mla: bool
    eager: bool
    own_process: bool
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    cpu_threads: int | None
    kv_cache_mb: int | None
    top_k: int | None
    speculation: NotRequired[str]
    fused_kernel: NotRequired[str]
    attention_kernel: NotRequired[str]
    all_to_all: NotRequired[str]
    eplb: NotRequired[bool]
    redundant_experts: NotRequired[int]
    eplb_steps: NotRequired[int]
    prefix_caching: NotRequired[bool]
    chunked_prefill: NotRequired[bool]
    graph_sizes: NotRequired[str]
    routing: NotRequired[str]
    routing_experts: NotRequired[int]
    gate_share: NotRequired[float]
    load_cap: NotRequired[str]


OPTIONAL = (
    "speculation", "fused_kernel", "attention_kernel", "all_to_all", "eplb", "redundant_experts", "eplb_steps",
    "prefix_caching", "chunked_prefill", "graph_sizes", "routing", "routing_experts", "gate_share", "load_cap",
)  # fmt: skip
"""Knobs of ``EngineKnobsDict`` that plans and records have only where they are set."""


class EndpointDict(TypedDict):
    """A service that an engine configuration runs through.

    serve: it is started on the machine that measures.  base_url, or base_url_env and key_env: environment variables
    that hold address and key (never a key itself).  model: what the service calls the model.  hardware: what it runs
    on.  api: completions or chat.  prompt: ids or text.  admits: parameters it takes.  tokens: exact or measured.
    """

    serve: bool
    base_url: str | None
    base_url_env: str | None
    key_env: str | None
    hardware: str | None
    api: str
    prompt: str
    admits: list[str]
    tokens: str
    timeout_s: float
    model: str


class Runtime(TypedDict):
    """The engine that runs an engine configuration.

    name: in the study.  kind: vllm, transformers or endpoint.  environment: of envs/.  hosted: a service elsewhere,
    nothing is loaded here.  hardware: what that one runs on, else None.  variables: environment variables that it is
    started with, where the study declares any.
    """

    name: str
    kind: str
    version: str
    environment: str
    hosted: bool
    hardware: str | None
    endpoint: EndpointDict | None
    variables: NotRequired[dict[str, str]]


class TaskData(TypedDict):
    """Files that a task reads: id (ORG/NAME or the table's name), source, revision, and their staged folder."""

    id: str
    source: str
    revision: str
    path: str


class DataSet(TaskData):
    """A staged data set, and the task (of config/tasks) whose files it holds."""

    task: str


class CorpusDict(TypedDict):
    """A text that prompts are made of: a file of one's own, pinned by sha256 (None: not pinned), or a staged table.

    field: key of the text in a JSON line, column of the text in the table.
    """

    name: str
    title: str
    file: str | None
    field: str
    sha256: str | None
    reference: str
    table: NotRequired[DataSet | None]


class EnginePrediction(TypedDict):
    """Predictions of the cost model for an engine configuration; None if the hardware's constants are unknown.

    weight_bytes: on all GPUs.  kv_capacity_tokens: tokens that the KV cache holds.  fits: in memory.  job_s: expected
    wall time to load it and run its cells; job_s_low, job_s_high: where cells are calibrated.  limit_s: the same for
    the job's time limit (accuracy only, where a task of unknown size may take longer than expected).
    """

    weight_bytes: float | None
    weight_bytes_per_gpu: float | None
    kv_capacity_tokens: int | None
    fits: bool | None
    job_s: float
    job_s_low: NotRequired[float]
    job_s_high: NotRequired[float]
    limit_s: NotRequired[float]


class Pinned(TypedDict, total=False):
    """What vLLM would decide by what a GPU node has installed.  flashinfer: whether FlashInfer's kernels take part."""

    flashinfer: bool


class EngineConfig(TypedDict):
    """An engine configuration: what is loaded once, and the cells that run in it.

    id: ``SLUG-HASH``.  runtime: missing in plans older than services.  draft: the draft model of
    speculation.
    memory_fraction: share of a device's memory it may use.  gpus: tp x pp x dp, 0 for a hosted service.
    cells: ids, in order of measurement.  corpora: those its cells read, unless that is the prose alone.
    predicted: added once all its cells are known.  flashinfer: of ``Pinned``, on GPUs only.
    """

    id: str
    runtime: NotRequired[Runtime]
    config: EngineKnobsDict
    model: ModelDict
    draft: ModelDict | None
    memory_fraction: float
    gpus: int
    nodes: int
    cells: list[str]
    corpora: NotRequired[dict[str, CorpusDict]]
    predicted: NotRequired[EnginePrediction]
    flashinfer: NotRequired[bool]


# ------------------------------------------------------------------------------------------------ cells


class Workload(TypedDict):
    """What a loaded engine runs (``config.WorkloadKnobs``).

    batch: requests submitted together.  input_tokens: text tokens of a prompt; output_tokens: generated ones, both
    per request.  top_k: active experts per token, None for a dense model.  prompts: text, random, identical or items.
    requests: prompts to count in all (protocol activation; 0: batch x repeats), or to send (load).  images: per
    request; image_size: edge in pixels, None without images or for those of a corpus.  The rest: protocol load only,
    from length_shape on where they are set; find and all after it: a search for a rate, by the study's goals.
    """

    batch: int
    input_tokens: int
    output_tokens: int
    top_k: int | None
    prompts: str
    corpus: str
    requests: int
    images: int
    image_size: int | None
    request_rate: NotRequired[float | None]
    burstiness: NotRequired[float]
    concurrency: NotRequired[int | None]
    length_spread: NotRequired[float]
    prefix_tokens: NotRequired[int]
    length_shape: NotRequired[str]
    trace: NotRequired[str | None]
    trace_sha256: NotRequired[str]
    turns: NotRequired[int]
    ramp_to: NotRequired[float | None]
    find: NotRequired[str | None]
    lowest_rate: NotRequired[float]
    highest_rate: NotRequired[float]
    rate_tolerance: NotRequired[float]
    goals_share: NotRequired[float]
    try_s: NotRequired[float]
    goals: NotRequired[dict[str, float]]


class ProtocolDict(TypedDict):
    """How a cell is measured: kind (trace, paper, activation), warm-up runs, timed repeats, seed of the prompts."""

    kind: str
    warmup: int
    repeats: int
    seed: int


class CalibratedTimes(TypedDict):
    """Times by the calibrated cost model, s, with the ends of an interval that held 80% of left-out points.

    kind: ``calibrated (MACHINE, DATE)``.  The times are those of ``Prediction``.
    """

    kind: str
    ttft_max_s: float
    ttft_max_s_low: float
    ttft_max_s_high: float
    itl_s: float
    itl_s_low: float
    itl_s_high: float
    e2e_s: float
    e2e_s_low: float
    e2e_s_high: float


class Prediction(TypedDict, total=False):
    """Predictions of the cost model for a cell; None if a constant of the hardware, or a size, is unknown.  Records of
    earlier versions lack what they did not predict.

    bytes_per_gpu: weights, the batch's KV cache and the reserve.  fits: in memory.  batch_fits: the KV cache holds the
    whole batch at once.  ttft_max_s: the whole batch has its first token.  itl_s, e2e_s: docs/metrics.md.
    least_e2e_s: if all requests chose the same experts.  These four are bounds, of the roofline.
    calibrated: expected times, if the machine has constants; uncalibrated: why there are none although it has.
    run_s: expected time of one run: calibrated, else the bound; run_s_low, run_s_high: if it is calibrated.
    image_tokens: of a request, if it has images.
    """

    bytes_per_gpu: float | None
    weight_bytes_per_gpu: float | None
    kv_bytes_per_gpu: float | None
    fits: bool | None
    batch_fits: bool | None
    ttft_max_s: float | None
    itl_s: float | None
    e2e_s: float | None
    least_e2e_s: float | None
    calibrated: CalibratedTimes
    uncalibrated: str
    run_s: float | None
    run_s_low: float
    run_s_high: float
    image_tokens: int | None


class Cell(TypedDict):
    """A workload on an engine configuration, measured once for all experiments that contain it.

    engine, cell: its ids.  derived_from: id of the cell of the same engine whose longer run gives this one too.
    """

    engine: str
    cell: str
    workload: Workload
    protocol: ProtocolDict
    derived_from: str | None
    predicted: NotRequired[Prediction]


class Job(TypedDict):
    """Engine configurations that one job measures, and what it asks the cluster for.

    gpus: in all.  cpus, mem_mb: of each node.  runtime_min: time limit, minutes; expected_s: what is expected;
    expected_s_low, expected_s_high: its interval, where cells are calibrated.
    cells: how many.  digest: changes when its manifest is outdated.  hosted: nothing is loaded here.
    """

    engines: list[str]
    gpus: int
    environment: str
    hosted: bool
    nodes: int
    cpus: int
    mem_mb: int
    runtime_min: int
    expected_s: float
    expected_s_low: NotRequired[float]
    expected_s_high: NotRequired[float]
    cells: int
    digest: str


class DeriveJob(TypedDict):
    """Derived checkpoints that one job makes, by name of their folder and in order; the rest as of ``Job``."""

    by: str
    models: list[str]
    environment: str
    gpus: int
    cpus: int
    mem_mb: int
    runtime_min: int
    expected_s: float


# ------------------------------------------------------------------------------------------------ accuracy


class TaskMetricDict(TypedDict):
    """A metric of a task: name and filter as the harness calls them; unit: share, points, perplexity or bits/byte."""

    name: str
    filter: str
    unit: str
    higher_is_better: bool


class TaskSizeDict(TypedDict):
    """Size of a task: questions, sequences per question, tokens of a prompt and of an answer (0: it is scored),
    edge of its images in pixels, and data sets in it, each of which a limit cuts."""

    questions: int
    sequences: int
    prompt_tokens: int
    answer_tokens: int
    image_size: int | None
    parts: int


class Task(TypedDict):
    """A task of a harness with its settings.

    name: in config/tasks; task: the harness's own.  choices: answers to choose from, None for open questions.
    in_mean: counts in the mean over tasks.  size: None if it is not known.
    Of vlmeval only: scoring (mme, choices, vqa, anls), split (rows that stand for the task, None: all), max_tokens
    (of an answer), judge.
    """

    name: str
    title: str
    choices: int | None
    metrics: list[TaskMetricDict]
    in_mean: bool
    reference: str
    size: NotRequired[TaskSizeDict | None]
    harness: str
    harness_version: str
    task: str
    shots: int
    data: TaskData
    scoring: NotRequired[str | None]
    split: NotRequired[str | None]
    max_tokens: NotRequired[int | None]
    judge: NotRequired[str]


class AccuracyPrediction(TypedDict):
    """As ``Prediction``; run_s: expected time of the task."""

    bytes_per_gpu: float | None
    fits: bool | None
    run_s: float
    run_s_low: NotRequired[float]
    run_s_high: NotRequired[float]


class AccuracyCell(TypedDict):
    """A task on an engine configuration.  limit: rows of each data set that are asked, None: all.  seeds: by name."""

    engine: str
    cell: str
    task: Task
    top_k: int | None
    limit: int | None
    seeds: dict[str, int]
    derived_from: None
    predicted: NotRequired[AccuracyPrediction]


class AccuracyPart(TypedDict):
    """The plan of a harness: its engine configurations, cells and jobs, as those of speed."""

    engines: dict[str, EngineConfig]
    cells: dict[str, AccuracyCell]
    jobs: dict[str, Job]


class AccuracyRow(TypedDict):
    """An accuracy cell of an experiment; block: number of the block of its configuration that asks for it."""

    harness: str
    engine: str
    cell: str
    top_k: int | None
    labels: Labels
    block: int


# ------------------------------------------------------------------------------------------ experiments


class GridRow(TypedDict):
    """A cell of an experiment, and where it stands in its grid."""

    engine: str
    cell: str
    labels: Labels


class UnsupportedRow(TypedDict):
    """A point of a grid that cannot run, with the reason: no cell, and nothing measures it.

    engine, cell: ids of its own, not of anything in the plan.  runtime, config, model, workload, protocol: as of
    ``EngineConfig`` and ``Cell``, as asked; model: the staged one.
    """

    engine: str
    cell: str
    labels: Labels
    reason: str
    runtime: Runtime
    config: EngineKnobsDict
    model: ModelDict
    workload: Workload
    protocol: ProtocolDict


class UnsupportedAnswer(TypedDict):
    """A task on an engine configuration that cannot run; as ``UnsupportedRow`` and ``AccuracyRow``."""

    harness: str
    engine: str
    cell: str
    top_k: int | None
    labels: Labels
    block: int
    reason: str
    runtime: Runtime
    config: EngineKnobsDict
    model: ModelDict
    task: Task
    limit: int | None


class FigureSpec(TypedDict):
    """A figure of an experiment (``config.Plot``): columns on its axes, as colour, as panels.

    number: in the paper.  kind: lines, bars, pareto, heatmap, parameters or computed.  value: column of the colour of
    a heatmap; beside: columns over its panels.  marker: column of the marker.  only: values by column that select rows.
    level: a value to mark.
    """

    id: str
    number: str
    title: str
    kind: str
    x: str
    y: list[str]
    value: str | None
    beside: list[str]
    only: Knobs
    hue: str | None
    marker: NotRequired[str | None]
    panel: str | None
    row: str | None
    log_x: bool
    log_y: bool
    models: list[str]
    level: float | None


class CountedModel(TypedDict):
    """A model whose parameters an experiment counts."""

    name: str
    title: str
    architecture: ArchitectureDict
    published: PublishedDict | None
    reference: str


class ComputedModel(TypedDict):
    """A model of computed points."""

    title: str
    architecture: ArchitectureDict
    published: PublishedDict | None


class Point(TypedDict):
    """A computed point: its ``config.ComputedKnobs``, and the arms it is of, in words."""

    settings: Knobs
    variant: str


class Computed(TypedDict):
    """Points of the cost model, with the models and machine types they name."""

    points: list[Point]
    models: dict[str, ComputedModel]
    hardware: dict[str, HardwareDict]


class ExperimentPlan(TypedDict):
    """An experiment of a study, with all that tables, figures and report need.

    claims: ids of the claims it decides.  rows: its cells.  models: those whose parameters it counts.  printed: what
    a paper prints about its models (``config.Paper``), None without one.  accuracy, computed: where it asks for those.
    predicted_figures: those of the reference study's predictions, where the study names one.
    unsupported, unsupported_accuracy: points of its grids that cannot run, if there are any.
    """

    name: str
    title: str
    question: str
    paper: str
    assumptions: list[str]
    claims: list[str]
    figures: list[FigureSpec]
    rows: list[GridRow]
    models: NotRequired[list[CountedModel]]
    printed: NotRequired[PaperDict | None]
    accuracy: NotRequired[list[AccuracyRow]]
    computed: NotRequired[Computed]
    predicted_figures: NotRequired[list[FigureSpec]]
    unsupported: NotRequired[list[UnsupportedRow]]
    unsupported_accuracy: NotRequired[list[UnsupportedAnswer]]


# -------------------------------------------------------------------------------------------------- plan


class ClaimsOfPlan(TypedDict):
    """papers: claim files as they are (``claims.spec`` reads them).  stands_for: full-size model by small one."""

    papers: list[Knobs]
    stands_for: dict[str, str]


class Budget(TypedDict):
    """Parts left out to stay within a budget of GPU-hours: cells, claims with the additional cost of each, figures."""

    gpu_hours: float
    cells_left_out: int
    accuracy_cells_left_out: int
    decides: list[str]
    left_out: dict[str, float]
    figures_left_out: NotRequired[list[str]]


class StudyEngine(TypedDict):
    """The study's engine (``config.Engine``); live_top_k: true, false or auto."""

    name: str
    version: str
    environment: str
    live_top_k: bool | str
    endpoint: NotRequired[Knobs | None]


class JobSettings(TypedDict):
    """How cells become jobs (``config.Jobs`` describes each)."""

    pack_minutes: float
    load_s: float
    weights_bytes_per_s: float
    cell_overhead_s: float
    time_factor: float
    cell_timeout_s: float
    load_timeout_s: float
    task_s: float
    task_overhead_s: float
    task_timeout_s: float
    skip_infeasible: bool
    measure_constants: NotRequired[bool]
    cpus: int
    host_memory_mb: int


class ReferenceArchitecture(TypedDict):
    """Of an architecture, its experts."""

    experts: ExpertsDict | None


class ReferenceModel(TypedDict):
    """As ``ModelDict``."""

    name: str
    title: str
    weights: str
    revision: str
    architecture: ReferenceArchitecture


class ReferenceEngine(TypedDict):
    """As ``EngineConfig``."""

    config: EngineKnobsDict
    gpus: int
    model: ReferenceModel


class ReferenceExperiment(TypedDict):
    """As ``ExperimentPlan``."""

    claims: list[str]
    rows: list[GridRow]


class ReferencePlan(TypedDict):
    """Of the plan of another study, what its predictions are shown with; jobs: none."""

    study: str
    title: str
    scale: str
    hardware: HardwareDict
    engine: StudyEngine
    cells: dict[str, Cell]
    engines: dict[str, ReferenceEngine]
    experiments: dict[str, ReferenceExperiment]
    jobs: dict[str, Job]


class Plan(TypedDict):
    """A study, planned.

    scale: which grid of each experiment.  order: of the experiments.  engines: engine configurations by id.
    cells: by ``ENGINE/CELL``.  accuracy: by harness.  derived: every derived model by the name of its folder, parents
    first.  claims: where some experiment decides any.  budget: where the plan was cut to one.  reference: of the study
    that this one refers to.  goals: latencies that a request over time must not exceed, s by metric.  digest: of all
    the rest.
    """

    schema: int
    protocol_version: int
    study: str
    title: str
    description: str
    scale: str
    hardware: HardwareDict
    engine: StudyEngine
    jobs_settings: JobSettings
    protocol: ProtocolDict
    experiments: dict[str, ExperimentPlan]
    engines: dict[str, EngineConfig]
    cells: dict[str, Cell]
    jobs: dict[str, Job]
    order: NotRequired[list[str]]
    claims: NotRequired[ClaimsOfPlan]
    accuracy: NotRequired[dict[str, AccuracyPart]]
    derived: NotRequired[dict[str, ModelDict]]
    derive_jobs: NotRequired[dict[str, DeriveJob]]
    budget: NotRequired[Budget]
    reference: NotRequired[ReferencePlan]
    goals: NotRequired[dict[str, float]]
    digest: NotRequired[str]
