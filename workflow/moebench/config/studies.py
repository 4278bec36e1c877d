"""Studies: which engines run which experiments, where and within what limits."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from moebench.config.base import Name, Positive, Strict
from moebench.config.knobs import Calibration, Protocol

Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]


class Endpoint(Strict):
    """An OpenAI-compatible service: a hosted one, or `vllm serve` started for the cells (docs/endpoints.md)."""

    serve: bool = Field(False, description="Start `vllm serve` on the measuring machine and stop it afterwards")
    base_url: str | None = Field(
        None, pattern=r"^https?://[^\s@?#]+$", description="Base URL up to and with /v1; no key or password in it"
    )
    base_url_env: Variable | None = Field(None, description="Environment variable that holds the base URL")
    key_env: Variable | None = Field(
        None, description="Environment variable that holds the key; only the name is ever written"
    )
    models: dict[Name, str] = Field({}, description="Models of the registry: their names at the service")
    hardware: str | None = Field(None, description="Hardware behind the service, as named in figures and tables")
    api: Literal["completions", "chat"] = Field("completions", description="/completions or /chat/completions")
    prompt: Literal["ids", "text"] = Field(
        "ids", description="Send prompts as token ids, or as text if the service refuses ids"
    )
    admits: tuple[Literal["ignore_eos", "min_tokens", "return_token_ids"], ...] = Field(
        (), description="Request fields beyond OpenAI's that the service accepts"
    )
    tokens: Literal["exact", "measured"] = Field(
        "exact",
        description="A token count other than requested makes the cell invalid (exact) or is recorded (measured)",
    )
    timeout_s: float = Field(600, gt=0, description="Time limit of a request")

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
    version: str = Field(description="Version; for a hosted service the version that it reports, or a date")
    environment: str = Field(description="Environment in envs/ whose Python runs the measurement")
    live_top_k: bool | Literal["auto"] = Field(
        "auto", description="Set top-k in the loaded engine; auto: if it is eager (a compiled router ignores it)"
    )
    endpoint: Endpoint | None = Field(None, description="The service (name: endpoint)")
    variables: dict[Variable, str] = Field(
        {},
        description="Environment variables for the engine; those that change kernels or their speed are part of "
        "the identity",
    )

    @model_validator(mode="after")
    def _endpoint_given(self) -> Engine:
        if (self.name == "endpoint") != (self.endpoint is not None):
            raise ValueError("name: endpoint and the key endpoint belong together: give both or neither")
        if self.hosted and self.variables:
            raise ValueError("variables: only for an engine that is started here, not for a hosted service")
        return self

    @property
    def hosted(self) -> bool:
        """Whether a service elsewhere runs the cells: nothing is loaded here, and no device is needed."""
        return self.endpoint is not None and not self.endpoint.serve


class Jobs(Strict):
    """How cells become jobs."""

    pack_minutes: float = Field(
        0, ge=0, description="Pack engine configurations of the same shape into jobs of this length; 0: one job each"
    )
    load_s: float = Field(60, gt=0, description="Expected time to load an engine, excluding reading its weights")
    weights_bytes_per_s: float = Field(1e9, gt=0, description="Expected rate of reading weights")
    cell_overhead_s: float = Field(5, ge=0, description="Expected time per cell in addition to its runs")
    time_factor: float = Field(3, ge=1, description="Requested run time divided by expected run time")
    cell_timeout_s: float = Field(1800, gt=0, description="A cell that takes longer is stopped and recorded as timeout")
    load_timeout_s: float = Field(3600, gt=0, description="A load that takes longer is stopped and recorded as timeout")
    task_s: float = Field(
        900,
        gt=0,
        description="Expected time of an accuracy task of unknown size or machine; jobs request at least this per task",
    )
    task_overhead_s: float = Field(
        60, ge=0, description="Expected time of an accuracy task outside the engine: reading questions, scoring"
    )
    task_timeout_s: float = Field(
        6 * 3600, gt=0, description="An accuracy task that takes longer is stopped and recorded as timeout"
    )
    skip_infeasible: bool = Field(
        False, description="Record cells that are predicted not to fit as infeasible instead of trying them"
    )
    measure_constants: bool = Field(
        False, description="Jobs first measure the constants of their machine unless they exist (`moebench calibrate`)"
    )
    draft_acceptance: float | None = Field(
        None, ge=0, le=1, exclude=True,
        description="Share of draft tokens that is accepted, from a paper or an earlier measurement (column "
        "draft_acceptance); without it, cells with speculative decoding have no calibrated times",
    )  # fmt: skip
    cpus: Positive = Field(8, description="CPU cores per GPU")
    host_memory_mb: Positive = Field(64000, description="Host memory per GPU, MB")


class Study(Strict):
    """What a user runs: ``config/studies/NAME.yaml``."""

    name: Name
    title: str
    description: str
    scale: str = Field(description="The key of `grid` to use in each experiment")
    hardware: Name
    engine: Engine
    engines: dict[Name, Engine] = Field({}, description="Additional engines by name, for the knob engine_name")
    experiments: tuple[Name, ...]
    reference: Name | None = Field(
        None,
        description="Study whose predictions are shown beside this study's figures and claims: the paper's own grid",
    )
    defaults: dict[str, Any] = Field({}, description="Knob values that experiments leave unset")
    protocol: Protocol = Protocol()
    goals: dict[Literal["ttft_s", "tpot_s", "e2e_s"], float] = Field(
        {},
        description="Latency that a request over time must not exceed, s; goodput counts requests that meet all goals",
    )
    jobs: Jobs = Jobs()
    calibration: Calibration = Calibration()

    @model_validator(mode="after")
    def _engine_names(self) -> Study:
        if self.engine.name in self.engines:
            raise ValueError(f"engines: {self.engine.name!r} is the study's engine already; choose another name")
        return self


class Root(Strict):
    """``config/config.yaml``."""

    study: Name = Field("tiny", description="A study in config/studies")
    results: str = Field("results", description="Folder for records and tables")
    reports: str = Field("reports", description="Folder for reports")
    models: str = Field("models", description="Folder for staged models")
    data: str = Field("data", description="Folder for staged data sets")
    environments: str = Field(
        ".envs", description="Folder of the built environments; if not given, the variable `MOEBENCH_ENVS` if set"
    )
    budget_gpu_hours: float | None = Field(
        None, gt=0, description="Measure only the cells that decide the most claims within this many GPU-hours"
    )

    @model_validator(mode="before")
    @classmethod
    def _environments_of_the_shell(cls, given: Any) -> Any:
        folder = os.environ.get("MOEBENCH_ENVS")
        return {"environments": folder} | given if folder and isinstance(given, dict) else given
