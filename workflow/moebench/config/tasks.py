"""Tasks of the accuracy harnesses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from moebench.config.base import Count, Name, Positive, Strict
from moebench.config.models import DataSource, TableSource


class TaskMetric(Strict):
    """A metric that a harness reports for a task."""

    name: str = Field(description="The harness's name, e.g. acc_norm")
    filter: str = Field("none", description="The harness's answer filter, e.g. strict-match")
    unit: Literal["share", "points", "perplexity", "bits/byte"] = Field(
        "share", description="share: of correct answers (or of all points), 0 to 1"
    )
    higher_is_better: bool = True


class TaskSize(Strict):
    """Size of a task, for forecasts: published numbers of questions, and tokens estimated from their lengths."""

    questions: Positive = Field(description="Questions (documents) of the whole task")
    sequences: Positive = Field(
        1, description="Sequences that the engine runs per question, e.g. one per answer choice"
    )
    prompt_tokens: Positive = Field(description="Estimated tokens of a sequence without images, including examples")
    answer_tokens: Count = Field(0, description="Estimated generated tokens; 0: answers are only scored")
    image_size: Positive | None = Field(None, description="Assumed edge of a question's image, pixels")
    parts: Positive = Field(1, description="Number of data sets, to each of which `limit` applies")


class TaskSpec(Strict):
    """A task of an accuracy harness: ``config/tasks/NAME.yaml``."""

    name: Name
    title: str = Field(description="Name in tables and figures")
    harness: Literal["lm-eval", "vlmeval"] = Field(
        description="Harness that runs and scores it; its version is pinned in envs/"
    )
    task: str = Field(description="The harness's own name for the task or group of tasks")
    data: DataSource | TableSource
    scoring: Literal["mme", "choices", "vqa", "anls"] | None = Field(
        None, description="vlmeval: kind of scores, which sets how they are scaled to 0 to 1 (docs/accuracy.md)"
    )
    split: str | None = Field(
        None, description="vlmeval: the split of the table that is used for the task; default: all rows"
    )
    max_tokens: Positive | None = Field(None, description="vlmeval: longest answer, tokens; longer ones are truncated")
    shots: Count = Field(description="Number of few-shot examples")
    choices: Positive | None = Field(
        None, description="Number of answer choices; the chance level is 1 over it. None: free text"
    )
    metrics: tuple[TaskMetric, ...] = Field(min_length=1, description="Metrics; means over tasks use the first")
    size: TaskSize | None = Field(None, description="Size for forecasts; None: `jobs.task_s` is assumed")
    in_mean: bool = Field(True, description="Include in the mean over tasks (shares only)")
    reference: str = Field(description="Source that describes the data and the prompts")

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
