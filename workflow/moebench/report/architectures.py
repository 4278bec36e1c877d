"""Models in the report: a table of their architectures, with a paper's values where those differ, and their parameters
by layer. No HTML here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from moebench.config import Architecture, PrintedModel
from moebench.cost import params, vision
from moebench.figures import style
from moebench.formats import Knobs
from moebench.formats.plan import CountedModel, ExperimentPlan

TOLERANCE = (
    "A size agrees if the computed or published number of parameters is within half a unit of the last printed "
    "digit; everything else must be equal."
)
UNKNOWN = "reason unknown"
_HEADS = {
    "modality": "Modality",
    "layers": "Layers",
    "hidden_size": "Hidden size",
    "ffn_size": "FFN width per expert",
    "shared": "Shared FFN width",
    "experts": "Routed experts",
    "top_k": "Active experts",
    "total_parameters": "Parameters",
    "active_parameters": "Active parameters",
}
_OWN = ("shared",)
"""Columns that papers lack."""
_SIZES = ("total_parameters", "active_parameters")
_KINDS = {"moe": "MoE", "dense": "dense", "recurrent": "recurrent", "outside": "outside"}


@dataclass(frozen=True)
class Cell:
    """A true value, a remark, and a paper's value if that is wrong."""

    text: str
    aside: str = ""
    printed: str = ""
    mark: str = ""
    """Letter of the reason."""


@dataclass
class Table:
    """Architectures of an experiment's models."""

    caption: str
    source: str
    """Place of the paper's table, e.g. Table 1; empty without a paper."""
    heads: list[tuple[str, bool]]
    """Heading, and whether a paper's table has the column."""
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    reasons: list[tuple[str, str]] = field(default_factory=list)
    """Letter and text of each reason."""
    notes: list[str] = field(default_factory=list)


def billions(value: float, digits: int = 3) -> str:
    """A number of parameters with its unit: ``46.7 B`` (1e9), ``352 M``, ``8.19 k``, ``12``."""
    unit, word = next(((u, w) for u, w in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if value >= u), (1.0, ""))
    places = max(0, digits - len(f"{value / unit:.0f}")) if word else 0
    return f"{value / unit:,.{places}f} {word}".strip()


def agrees(printed: str, value: float | None) -> bool:
    """Whether a number of parameters is within half a unit of the last digit of a printed one, e.g. ``12.9B``."""
    digits = printed.removesuffix("B")
    places = len(digits.partition(".")[2])
    return value is not None and abs(value / 1e9 - float(digits)) <= 0.5 * 10.0**-places * (1 + 1e-9)


def true_values(architecture: Architecture) -> Knobs:
    """True values of a model for a table of architectures, by column."""
    block = architecture.experts
    return {
        "modality": "Text + Image" if vision.parameters(architecture) else "Text",
        "layers": architecture.layers,
        "hidden_size": architecture.hidden_size,
        "ffn_size": block.ffn_size if block else None,
        "experts": block.count if block else None,
        "top_k": block.top_k if block else None,
        "shared": block.shared_ffn_size or None if block else None,
        "total_parameters": params.total_parameters(architecture).total,
        "active_parameters": params.active_parameters(architecture).total,
    }


def table(asked: ExperimentPlan) -> Table | None:
    """The table of an experiment of a plan; None if it names no models."""
    if not asked.get("models"):
        return None
    paper = asked.get("printed")
    if paper is None or paper["architectures"] is None:
        made, printed = Table("Architectures", "", [(head, True) for head in _HEADS.values()]), {}
    else:
        theirs = paper["architectures"]
        printed = {row["model"]: PrintedModel.model_validate(row) for row in theirs["rows"]}
        caption = f"{theirs['source']} of {paper['title']}, corrected: true values, with printed ones where different"
        made = Table(caption, theirs["source"], [(head, column not in _OWN) for column, head in _HEADS.items()])
        said = f"Printed values: {paper['title']} ({paper['reference']}), {theirs['source']}, {theirs['title']}."
        made.notes += [*filter(None, [said, theirs["note"]]), TOLERANCE]
    for model in asked["models"]:
        made.rows.append((model["title"], _row(made, model, printed.get(model["name"]))))
    if other := _other_count(asked["models"]):
        made.notes.append(other)
    return made


def _row(made: Table, model: CountedModel, printed: PrintedModel | None) -> list[Cell]:
    """A model's cells; the reasons for those marked are added to the table."""
    architecture = Architecture.model_validate(model["architecture"])
    values: Knobs = true_values(architecture)
    published: Mapping[str, Any] = model["published"] or {}
    cells = {c: Cell("none" if v is None else str(v)) for c, v in values.items()}
    if architecture.dense_layers:
        cells["layers"] = Cell(cells["layers"].text, f"{architecture.dense_layers} dense")
    for column in _SIZES:
        cells[column] = _size(values[column], published.get(column), getattr(printed, column) if printed else "")
    wrong = _wrong(values, published, printed) if printed else []
    if printed and wrong:
        by_reason: dict[str, list[str]] = {}
        for column in wrong:
            by_reason.setdefault(printed.why.get(column, UNKNOWN), []).append(column)
        for reason, mine in by_reason.items():
            letter = _letter(len(made.reasons))
            made.reasons.append((letter, f"{model['title']}, {_listed([_HEADS[c] for c in mine])}: {reason}."))
            for c in mine:
                cells[c] = Cell(cells[c].text, cells[c].aside, str(getattr(printed, c)), letter)
        letter, text = made.reasons.pop()
        made.reasons.append((letter, f"{text} {_contradiction(architecture, printed)}".rstrip()))
    return [cells[c] for c in _HEADS]


def _wrong(values: Knobs, published: Mapping[str, Any], printed: PrintedModel) -> list[str]:
    """Columns in which a printed row is not the model's."""

    def right(column: str) -> bool:
        theirs = getattr(printed, column)
        if column in _SIZES:
            return agrees(theirs, values[column]) or agrees(theirs, published.get(column))
        return bool(theirs == values[column])

    return [c for c in _HEADS if c not in _OWN and not right(c)]


def _listed(heads: list[str]) -> str:
    words = [head if head[1].isupper() else head[0].lower() + head[1:] for head in heads]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"{_letter(number // 26 - 1)}{_letter(number % 26)}"


def _size(value: int, published: float | None, printed: str) -> Cell:
    """A computed number of parameters; the published one beside it, if they differ noticeably."""
    same = published is None or billions(published, 2) == billions(value, 2) or (printed and agrees(printed, value))
    return Cell(billions(value), "" if same or published is None else f"published {billions(published, 2)}")


def _other_count(models: Iterable[CountedModel]) -> str:
    """Active parameters of the models whose makers seem to leave out the input embedding."""
    found = []
    for model in models:
        architecture = Architecture.model_validate(model["architecture"])
        published = model["published"]["active_parameters"] if model["published"] else None
        value = params.active_parameters(architecture).total
        without = value - params.input_embedding(architecture)
        if published and abs(without / published - 1) < abs(value / published - 1):
            found.append(f"{model['title']} {billions(without)}")
    return (
        f"Active parameters without the input embedding, closer to the published numbers: {', '.join(found)}."
        if found
        else ""
    )


def _contradiction(architecture: Architecture, printed: PrintedModel) -> str:
    """Whether a row's own sizes refute each other: experts alone have more parameters than the printed total."""
    gated = architecture.experts.gated if architecture.experts else True
    one = printed.layers * params.ffn(printed.hidden_size, printed.ffn_size, gated)
    for count, whole, which, words in (
        (printed.experts, printed.total_parameters, "routed", "in total"),
        (printed.top_k, printed.active_parameters, "active", "active"),
    ):
        if count * one > 1e9 * float(whole.removesuffix("B")):
            experts = f"the {which} experts alone would have {billions(count * one)} parameters"
            return f"With the sizes in the row, {experts}; the row says {whole} {words}."
    return ""


# ----------------------------------------------------------------------------------------- by layer


def by_layer(counted: pd.DataFrame) -> tuple[list[tuple[str, bool]], list[list[str]]]:
    """Parameters of an experiment's models by kind of layer and component: heads (numbers below?), and rows."""
    numbers = ["layer_total_parameters", "layer_active_parameters", "total_parameters", "active_parameters"]
    heads = [(head, False) for head in ("Model", "Layers", "Component")]
    heads += [(h, True) for h in ("Per layer", "Per layer, active", "All layers", "All layers, active")]
    heads += [("Share of total", True), ("Share of active", True)]
    rows: list[list[str]] = []
    order = list(style.COMPONENTS)
    for _, part in counted.groupby(["model_title", "layer_kind"], sort=False):
        for row in sorted(part.to_dict("records"), key=lambda r: order.index(r["component"])):
            kind = _KINDS[row["layer_kind"]]
            where = kind if pd.isna(row["layers"]) else f"{row['layers']} {kind}"
            values = ["" if pd.isna(row[c]) else billions(row[c]) for c in numbers]
            shares = [_percent(row["total_share"]), _percent(row["active_share"])]
            rows.append([row["model_title"], where, style.COMPONENTS[row["component"]][0], *values, *shares])
    return heads, rows


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "< 0.1%"
