"""The configuration: one schema, from which the JSON schema and the tables of ``config/README.md`` are made.

Files: ``config/config.yaml`` names a study; ``config/studies``, ``experiments``, ``models``, ``shapes``, ``tasks``,
``hardware`` and ``papers`` hold one YAML file per thing, named after it.  Every model here is frozen and refuses
unknown keys.
"""

from __future__ import annotations

from moebench.config.base import Count, Name, Strict
from moebench.config.experiments import COMPUTED_KINDS, JOIN, AccuracyBlock, Block, ComputedKnobs, Experiment, Plot
from moebench.config.families import FamilySpec
from moebench.config.hardware import AllReduceTable, Calibrated, Figure, Fitted, Hardware, Peak
from moebench.config.knobs import (
    KNOBS,
    LOAD,
    SEARCH,
    SHAPES,
    Calibration,
    Corpus,
    EngineKnobs,
    Protocol,
    WorkloadKnobs,
)
from moebench.config.loading import Config, explain, parse, read_yaml
from moebench.config.models import (
    COST_ONLY,
    Architecture,
    Attention,
    DataSource,
    Experts,
    HubSource,
    ModelSpec,
    Published,
    Recurrent,
    Shape,
    Source,
    TableSource,
    Vision,
)
from moebench.config.papers import Assumed, Paper, PrintedModel, PrintedNumbers, PrintedRow, PrintedTable
from moebench.config.studies import Endpoint, Engine, Jobs, Root, Study
from moebench.config.tasks import TaskMetric, TaskSpec

__all__ = [
    "COMPUTED_KINDS",
    "COST_ONLY",
    "JOIN",
    "KNOBS",
    "LOAD",
    "SEARCH",
    "SHAPES",
    "AccuracyBlock",
    "AllReduceTable",
    "Architecture",
    "Assumed",
    "Attention",
    "Block",
    "Calibrated",
    "Calibration",
    "ComputedKnobs",
    "Config",
    "Corpus",
    "Count",
    "DataSource",
    "Endpoint",
    "Engine",
    "EngineKnobs",
    "Experiment",
    "Experts",
    "FamilySpec",
    "Figure",
    "Fitted",
    "Hardware",
    "HubSource",
    "Jobs",
    "ModelSpec",
    "Name",
    "Paper",
    "Peak",
    "Plot",
    "PrintedModel",
    "PrintedNumbers",
    "PrintedRow",
    "PrintedTable",
    "Protocol",
    "Published",
    "Recurrent",
    "Root",
    "Shape",
    "Source",
    "Strict",
    "Study",
    "TableSource",
    "TaskMetric",
    "TaskSpec",
    "Vision",
    "WorkloadKnobs",
    "explain",
    "parse",
    "read_yaml",
]
