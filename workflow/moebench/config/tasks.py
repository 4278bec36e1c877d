"""Tasks of the accuracy harnesses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from moebench.config.base import Count, Name, Positive, Strict
from moebench.config.models import DataSource, TableSource


class TaskMetric(Strict):
    """A metric that a harness reports for a task."""

    name: str = Field(description="As the harness calls it, e.g. acc_norm")
    filter: str = Field("none", description="The harness's filter of answers, e.g. strict-match")
    unit: Literal["share", "points", "perplexity", "bits/byte"] = Field(
        "share", description="share: of right answers (or of all points), 0 to 1"
    )
    higher_is_better: bool = True


class TaskSize(Strict):
    """How much a task is, for forecasts: published numbers of questions, and tokens estimated from their lengths."""

    questions: Positive = Field(description="Questions (documents) of the whole task")
    sequences: Positive = Field(1, description="Sequences the engine runs per question, e.g. one per answer to choose")
    prompt_tokens: Positive = Field(description="Tokens of a sequence without images, examples included: an estimate")
    answer_tokens: Count = Field(0, description="Generated tokens: an estimate; 0: answers are scored")
    image_size: Positive | None = Field(None, description="Assumed edge of the image of a question, pixels")
    parts: Positive = Field(1, description="Data sets in it, each of which a `limit` cuts")


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
    size: TaskSize | None = Field(None, description="How much it is; None: `jobs.task_s` is expected")
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
