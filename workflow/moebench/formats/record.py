"""The record of a cell: ``results/cells/ENGINE/CELL.json``, for accuracy below ``results/accuracy/HARNESS``."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from moebench.formats.model import ModelDict
from moebench.formats.plan import AccuracyPrediction, EngineKnobsDict, Prediction, ProtocolDict, Task, Workload

Metrics = dict[str, float]
"""Values of a run by metric (docs/metrics.md), s and tokens/s."""

Tokens = list[list[int]]
"""Tokens of one request, run-length coded: [first step, number of steps, tokens per step]."""

# ------------------------------------------------------------------------------------------------- runs


class Seen(TypedDict):
    """Facts about a run, as observed by the client of a service.

    counted_by: ids or usage (the service's own count).  rate_limited: how often the run was restarted.  tokens: in
    all; arrivals: of chunks.  input_tokens, output_tokens: per request, means, where a service is not asked for exact
    ones.  fingerprints: of the service's system.
    """

    counted_by: str
    rate_limited: int
    tokens: int
    arrivals: int
    input_tokens: NotRequired[float]
    output_tokens: NotRequired[float]
    fingerprints: NotRequired[list[str]]


class LoadTrace(TypedDict):
    """Requests over time as their client saw them, a list entry each, in the order in which they were sent.

    start_s: s since the first was sent.  ttft_s: s from then to its first chunk; gaps_s: between chunks after that.
    input_tokens, output_tokens: as the service counts them.  errors: empty for a successful request.
    """

    start_s: list[float]
    ttft_s: list[float]
    gaps_s: list[list[float]]
    input_tokens: list[int]
    output_tokens: list[int]
    errors: list[str]


class Trace(TypedDict):
    """A batch as an engine ran it: the time stamp of every token of every request.

    step_end_s: s since submission, one per engine step (through a service, per arrival).  image_tokens: of each
    request; preprocess_s: when the last request's images were prepared, s since submission; both with images only.
    """

    step_end_s: list[float]
    requests: list[Tokens]
    image_tokens: NotRequired[list[int]]
    preprocess_s: NotRequired[float]
    seen: NotRequired[Seen]


class Telemetry(TypedDict, total=False):
    """Readings of a run's devices; None if no device reports the value.

    window_s: its duration.  samples, devices: how many.  energy_j: of all devices; None with no_energy, which says
    why.  sm_clock_mhz, memory_clock_mhz, utilization (0 to 1): means; sm_clock_min_mhz, power_max_w, temperature_c,
    memory_peak_bytes: extremes of a device.  throttle_reasons: names of all reasons; in a part of a run the only key.
    """

    window_s: float
    samples: int
    devices: int
    energy_j: float | None
    no_energy: str
    power_max_w: float | None
    sm_clock_mhz: float | None
    sm_clock_min_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    memory_peak_bytes: int | None
    utilization: float | None
    throttle_reasons: list[str] | None


class Run(TypedDict):
    """A run of a workload.  Seed: of its prompts.  metrics: may be empty.  telemetry: where devices were read.
    window: begin and end, s of the monotonic clock, in the worker's answer only.

    Protocol trace: the keys of ``Trace``, with image_tokens of one request.  Protocol paper: wall times of a run with
    one output token and of the full one, s.  Protocol activation, a batch: prompts and their text tokens; image_tokens
    of all of them; no time stamps.  Protocol load: the requests.
    """

    seed: int
    started_at: str
    metrics: Metrics
    step_end_s: NotRequired[list[float]]
    requests: NotRequired[list[Tokens]]
    image_tokens: NotRequired[int | None]
    preprocess_s: NotRequired[float]
    seen: NotRequired[Seen]
    first_token_run_s: NotRequired[float]
    full_run_s: NotRequired[float]
    load: NotRequired[LoadTrace]
    prompts: NotRequired[int]
    prompt_tokens: NotRequired[int]
    telemetry: NotRequired[Telemetry]
    window: NotRequired[tuple[float, float]]


class Try(TypedDict):
    """A request rate that a search tried.

    request_rate: as asked; arrival_rate: as sent, requests/s, mean over the repeats.  requests: that count or failed,
    share: of them that met all goals.  verdict: kept, missed or not_sent (the client was too slow); why: if not kept.
    metrics: medians over the repeats.
    """

    request_rate: float
    started_at: str
    requests: int
    share: float
    arrival_rate: float
    verdict: str
    why: str
    metrics: Metrics


class Searched(TypedDict):
    """Result of a search for the highest rate.  max_rate: requests/s, None if even the lowest missed the goals;
    missed_rate: the lowest above it that missed them, None if there is none: max_rate is then a lower bound."""

    max_rate: float | None
    missed_rate: float | None
    tries: list[Try]


class ThrownAway(TypedDict):
    """A timed run that was discarded and repeated.  compiled: kernels that the engine compiled in it."""

    seed: int
    started_at: str
    compiled: list[str]


class CanaryRun(TypedDict):
    """A run of the smallest cell of an engine configuration at the start, middle or end of a session, to see whether
    the machine drifts.  session: when the engine was loaded."""

    engine: str
    cell: str
    position: str
    session: str
    started_at: str
    metrics: Metrics
    took_s: NotRequired[float]


class LayerCounts(TypedDict):
    """How often each expert was chosen.

    layers: numbers of those with routed experts.  counts: by phase (prefill, decode, mixed), per layer, per expert.
    steps: by phase, [tokens in a step, steps of that size, per layer the sum of their distinct experts].
    """

    layers: list[int]
    counts: dict[str, list[list[int]]]
    steps: dict[str, list[list[Any]]]


class ActivationCounts(LayerCounts):
    """The same over all batches, and what was run in them."""

    prompts: int
    prompt_tokens: int
    image_tokens: int
    output_tokens: int
    batches: int


# --------------------------------------------------------------------------------------- session and checks


class Backends(TypedDict):
    """Kernels that vLLM chose: number of layers by kernel's name; cudagraph_mode: that it settled on."""

    attention: dict[str, int]
    moe: dict[str, int]
    linear: dict[str, int]
    cudagraph_mode: str | None


class Gpu(TypedDict):
    """A GPU as CUDA describes it: an instance of one (MIG) has less of both than its name says."""

    name: str
    memory_bytes: int
    multiprocessors: int


class Rank(TypedDict):
    """Machine of a rank of an engine.  lock_sha256: of its environment, None: not built by envs/build.py.  gpu: None
    on a CPU."""

    node: str
    versions: dict[str, str]
    lock_sha256: str | None
    gpu: Gpu | None


class LoadFacts(TypedDict, total=False):
    """Facts that an engine reports once it is loaded; which keys are there depends on its kind.

    load_s: wall time.  kv_cache_tokens: that the KV cache holds; kv_block_size: tokens of a block.  capture_sizes: of
    CUDA graphs.  resolved_config: the model's config.json as the engine resolved it, scalars only; None through a
    service.  model_listed: a service lists the model, None if it lists none.  server_version: what it answers.
    experts_implementation, attention_implementation: of transformers.  harness: lock_sha256 of its environment.
    session: when it was loaded.  untuned_kernel_warning: it reported that its kernels have no tuned configuration.
    ranks: what each runs on, where they are on several nodes.
    flashinfer, deep_gemm: vLLM may use their kernels.  fuse_allreduce_rms: all-reduce and RMSNorm are one kernel (None:
    a server did not say).  custom_all_reduce: vLLM's own all-reduce is in use.  cuda_home: CUDA_HOME.
    serving: what vLLM made of the knobs of serving, by their names.
    """

    load_s: float
    kv_cache_tokens: int | None
    kv_block_size: int
    eager: bool
    capture_sizes: list[int]
    max_num_batched_tokens: int
    chunked_prefill: bool
    async_scheduling: bool
    v2_model_runner: bool
    resolved_config: dict[str, Any] | None
    backends: Backends
    model_listed: bool | None
    server_version: Any
    experts_implementation: str | None
    attention_implementation: str | None
    harness: dict[str, str | None]
    session: str
    untuned_kernel_warning: bool
    flashinfer: bool
    fuse_allreduce_rms: bool | None
    custom_all_reduce: bool
    deep_gemm: bool
    cuda_home: str | None
    ranks: list[Rank]
    serving: dict[str, Any]


class Checks(TypedDict, total=False):
    """Evidence that a cell ran as requested.

    experts_per_token: chosen by the router, a list where layers differ.  distinct_experts: mean per decode step, per
    layer.  moe_layers: how many.  With a budget of active experts: used_experts, of all routed_tokens of all layers and
    runs together, and active_experts_decode, per token and layer in decode steps.  image_tokens: of a request.
    preemptions, prefix_cache_hits: during the cell; with speculation drafts, draft_tokens, accepted_tokens, and (not
    listed here) ``accepted_at_N`` by position in the draft.
    peak_rss_bytes: of the engine's process.
    Through a service: tokens_counted_by, ran_together, rate_limited, tokens_per_arrival, and means of its token counts.
    Requests over time: requests, and steady_requests of them that count; arrival_rate as sent, requests/s;
    rates_tried by a search; the server's queue_time_s of all queued_requests together.
    truncated_prompts: of a task.  thrown_away_runs: how many timed runs were.  other_jobs_cpus: CPUs of the node that
    other SLURM jobs held, the more of before and after.
    storage, data, host: 0 if a disk was full, a data set not whole, or something wrong with the node.
    """

    experts_per_token: float | list[float] | None
    distinct_experts: list[float | None] | None
    moe_layers: int
    routed_tokens: float
    used_experts: float
    active_experts_decode: list[float]
    image_tokens: float | None
    preemptions: float
    prefix_cache_hits: float
    drafts: float
    draft_tokens: float
    accepted_tokens: float
    peak_rss_bytes: int
    tokens_counted_by: str
    ran_together: bool
    rate_limited: int
    tokens_per_arrival: float
    input_tokens_seen: float
    output_tokens_seen: float
    requests: int
    steady_requests: int
    arrival_rate: float
    rates_tried: int
    queue_time_s: float
    queued_requests: float
    truncated_prompts: int
    thrown_away_runs: int
    other_jobs_cpus: int
    storage: int
    data: int
    host: int


class CampaignOrigin(TypedDict):
    """Of a record that was measured in a campaign: when it was packed, and whose model files it carried."""

    packed_at: str
    model_files: str


class Device(TypedDict, total=False):
    """A device that was read: of a GPU all keys, None if the driver does not report it; of a CPU machine its name.

    mig: an instance of a shared GPU.  power_cap_w, power_default_w: enforced limit and the device's own.  nvlinks:
    active ones.
    """

    uuid: str | None
    name: str | None
    mig: bool
    ecc: bool | None
    power_cap_w: float | None
    power_default_w: float | None
    sm_clock_max_mhz: int | None
    nvlinks: int | None


class Devices(TypedDict, total=False):
    """The devices that the sidecar reads.  source: nvml or rapl.  driver: version.  links: "0-1": connection of two.
    none: why nothing is read, then the only key."""

    source: str
    driver: str | None
    devices: list[Device]
    links: dict[str, str | None]
    none: str


class Provenance(TypedDict, total=False):
    """Where numbers come from; never a secret.

    moebench, git_commit, git_dirty: of the code.  slurm: named variables of the job.  lock_sha256: of the engine's
    environment.  prompt_corpus_sha256: of the text that prompts were made of.  Of the process that holds the engine:
    versions of its packages, python, kernel (the operating system's), threads of torch, and the device it sees
    (device_name of a CPU: its model; driver, cuda: None without a GPU; nccl: version of the library that torch uses).
    gpus: those that the process sees.  telemetry: the devices that were read beside the engine.
    variables: of the job's environment and of NCCL's files, those that an engine reads (``engines.variables``), without
    what the driver sets by the plan.
    """

    moebench: str
    git_commit: str | None
    git_dirty: bool | None
    host: str
    cpus: int | None
    host_memory_bytes: int
    slurm: dict[str, str]
    cuda_visible_devices: str | None
    prompt_corpus_sha256: str
    lock_sha256: str | None
    versions: dict[str, str]
    python: str
    kernel: str
    threads: int
    device_name: str | None
    driver: str | None
    cuda: str | None
    device_count: int
    campaign: CampaignOrigin
    nccl: str | None
    gpus: list[Gpu]
    telemetry: Devices
    variables: dict[str, str]


class EngineVersion(TypedDict):
    """Of the runtime: name, version; kind and hosted since there are engines other than vLLM's offline one."""

    name: str
    version: str
    kind: NotRequired[str]
    hosted: NotRequired[bool]


# ------------------------------------------------------------------------------------------------ records


class RecordHead(TypedDict):
    """The keys of every record.

    status: ok, oom_weights, oom_kv, oom_activation, infeasible, unsupported, invalid, timeout, crashed, node_fault,
    service_fault, goals_missed or no_endpoint.  reason: one sentence, empty when ok (but of a search that ended at a
    bound).  evidence: the decisive log lines.
    started_at, ended_at: ISO 8601, UTC.  attempt: how many times this cell was tried.  hardware: name of the hardware
    file, or what a service runs on.  load: {} where the load failed.  sha256: of the canonical JSON of all the rest.
    """

    schema: int
    study: str
    engine: str
    cell: str
    status: str
    reason: str
    evidence: list[str]
    started_at: str
    ended_at: str
    attempt: int
    engine_config: EngineKnobsDict
    engine_version: EngineVersion
    hardware: str
    model: ModelDict
    load: LoadFacts
    checks: Checks
    provenance: Provenance
    sha256: NotRequired[str]


class Measured(TypedDict):
    """The keys of a workload's record.  derived_from: the cell whose trace this one was cut from.  warmup, repeats:
    empty unless ok or invalid.  thrown_away: only where there are any.  search: of a search, whose repeats are those at
    its max_rate."""

    workload: Workload
    protocol: ProtocolDict
    derived_from: str | None
    warmup: list[Run]
    repeats: list[Run]
    thrown_away: NotRequired[list[ThrownAway]]
    search: NotRequired[Searched]


class Record(RecordHead, Measured):
    """A cell of speed.  activation: protocol activation only."""

    predicted: Prediction
    activation: NotRequired[ActivationCounts]


class Result(TypedDict):
    """A value that a harness gave: of a task, subtask or group of tasks, by metric and filter.

    group: that a subtask is of.  stderr: standard error.  n: questions.  n_shot: solved examples.  chance: value of
    guessing (vlmeval only; None if not all questions have choices).
    """

    task: str
    group: str | None
    metric: str
    filter: str
    value: float
    stderr: float | None
    n: int
    n_shot: int | None
    task_version: str | None
    chance: NotRequired[float | None]


class SampleLog(TypedDict):
    """The file with every question and answer: its name, rows, size and checksum."""

    file: str
    rows: int
    bytes: int
    sha256: str


class Answered(TypedDict):
    """The keys of a task's record.  results, samples: empty and None unless ok."""

    task: Task
    top_k: int | None
    limit: int | None
    seeds: dict[str, int]
    results: list[Result]
    samples: SampleLog | None


class AccuracyRecord(RecordHead, Answered):
    """An accuracy cell."""

    predicted: AccuracyPrediction
