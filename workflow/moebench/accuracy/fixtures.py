"""Small data sets in the form of the published ones: sentences generated from a seed, with no published row copied.

For the tiny study, whose models with random weights can only guess: they test that the real harness reads the real
columns, asks, scores and counts.  Every question has a right answer, so a model with knowledge would score above
chance.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moebench.formats import Json
from moebench.storage import staged

SEED = 0
TEST_ROWS, TRAIN_ROWS, SUBJECT_ROWS = 16, 8, 2
"""Rows that are asked, rows few-shot examples are taken from, rows asked per MMLU subject."""

Rows = list[Json]
Configs = dict[str, dict[str, Rows]]
"""Rows by split by configuration of a data set."""

_KINDS = {
    "tool": ("hammer", "saw", "rake", "chisel", "wrench"),
    "fruit": ("apple", "plum", "cherry", "lemon", "pear"),
    "bird": ("owl", "heron", "finch", "raven", "stork"),
    "metal": ("copper", "iron", "silver", "zinc", "tin"),
}
_PLACES = ("shed", "kitchen", "garden", "cellar", "attic")
_PEOPLE = ("Anna", "Boris", "Clara", "David", "Emma", "Felix")

SUBJECTS = (
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology",
    "college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics",
    "computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics",
    "high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history",
    "human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning",
    "management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition",
    "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
)  # fmt: skip
"""Configurations of cais/mmlu."""


# ------------------------------------------------------------------------------------------ questions


def _one_of_kinds(draw: random.Random) -> tuple[str, list[str], int]:
    """A kind, four things of which exactly one is of that kind, and the index of that one."""
    kinds = draw.sample(sorted(_KINDS), 4)
    things = [draw.choice(_KINDS[kind]) for kind in kinds]
    right = draw.randrange(4)
    return kinds[right], things, right


def _arc(draw: random.Random, number: int) -> Json:
    kind, things, right = _one_of_kinds(draw)
    labels = list("ABCD") if draw.random() < 0.8 else list("1234")  # the published set has both
    question = f"Which of these is a {kind}?"
    return {
        "id": f"fixture_{number}",
        "question": question,
        "choices": {"text": things, "label": labels},
        "answerKey": labels[right],
    }


def _openbookqa(draw: random.Random, number: int) -> Json:
    kind, things, right = _one_of_kinds(draw)
    choices = {"text": things, "label": list("ABCD")}
    stem = f"Somebody who asks for a {kind} is given the"
    return {"id": f"fixture-{number}", "question_stem": stem, "choices": choices, "answerKey": "ABCD"[right]}


def _boolq(draw: random.Random, number: int) -> Json:
    kind = draw.choice(sorted(_KINDS))
    thing, wrong = draw.choice(_KINDS[kind]), draw.choice(sorted(_KINDS.keys() - {kind}))
    other = kind if draw.random() < 0.5 else wrong
    passage = f"{draw.choice(_PEOPLE)} wrote a list of every {kind}. The word {thing} is on it."
    return {"question": f"is {thing} a {other}", "passage": passage, "idx": number, "label": int(kind == other)}


def _rte(draw: random.Random, number: int) -> Json:
    who, place = draw.choice(_PEOPLE), draw.choice(_PLACES)
    thing, wrong = draw.choice(_KINDS["tool"]), draw.choice([p for p in _PLACES if p != place])
    other = place if draw.random() < 0.5 else wrong
    premise = f"{who} carried the {thing} to the {place} and left it there."
    return {
        "sentence1": premise,
        "sentence2": f"The {thing} is in the {other}.",
        "label": int(place != other),
        "idx": number,
    }


def _hellaswag(draw: random.Random, number: int) -> Json:
    who, thing, place = draw.choice(_PEOPLE), draw.choice(_KINDS["tool"]), draw.choice(_PLACES)
    first, right = f"{who} takes a {thing} from the {place}.", draw.randrange(4)
    others = draw.sample([tool for tool in _KINDS["tool"] if tool != thing], 3)
    others.insert(right, thing)
    endings = [f"brings the {tool} back." for tool in others]  # of one form, else guessing would beat chance
    return {
        "ind": number,
        "activity_label": "Tidying up",
        "ctx_a": first,
        "ctx_b": "at the end",
        "ctx": f"{first} at the end",
        "endings": endings,
        "source_id": f"fixture~{number}",
        "split": "",
        "split_type": "indomain",
        "label": str(right),
    }


def _winogrande(draw: random.Random, number: int) -> Json:
    thing, place = draw.choice(_KINDS["fruit"]), draw.choice(("box", "bag", "bowl"))
    size = draw.choice(("large", "small"))
    options = [thing, place] if draw.random() < 0.5 else [place, thing]
    right = thing if size == "large" else place
    sentence = f"The {thing} did not fit into the {place} because the _ was too {size}."
    return {
        "sentence": sentence,
        "option1": options[0],
        "option2": options[1],
        "answer": str(options.index(right) + 1),
    }


def _mmlu(draw: random.Random, subject: str) -> Json:
    if draw.random() < 0.5:
        kind, things, right = _one_of_kinds(draw)
        return {"question": f"Which one is a {kind}?", "subject": subject, "choices": things, "answer": right}
    a, b, right = draw.randint(2, 9), draw.randint(2, 9), draw.randrange(4)
    choices = [str(n) for n in draw.sample([n for n in range(2, 20) if n != a + b], 3)]
    choices.insert(right, str(a + b))
    return {"question": f"What is {a} + {b}?", "subject": subject, "choices": choices, "answer": right}


def _gsm8k(draw: random.Random, number: int) -> Json:
    who, a, b = draw.choice(_PEOPLE), draw.randint(2, 9), draw.randint(2, 9)
    return {
        "question": f"{who} has {a} and gets {b}. How many?",
        "answer": f"It is <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}",
    }


def _wikitext(draw: random.Random, number: int) -> Json:
    thing, place = draw.choice(_KINDS["tool"]), draw.choice(_PLACES)
    lines = [f" = {thing.capitalize()} = ", ""]
    for who in draw.sample(_PEOPLE, 4):
        other = draw.choice(_KINDS["bird"])
        lines.append(f" {who} , who likes the {other} , keeps a well @-@ used {thing} in the {place} . ")
    return {"page": "\n".join([*lines, ""])}


# ------------------------------------------------------------------------------------------ data sets


def _splits(make: Callable[[random.Random, int], Json], where: str, **sizes: int) -> dict[str, Rows]:
    """Rows of each split; ``where`` keeps configurations apart."""
    splits = {}
    for split, size in sizes.items():
        draw = random.Random(f"{SEED}:{where}:{split}")
        splits[split] = [make(draw, number) for number in range(size)]
    return splits


def _usual(make: Callable[[random.Random, int], Json], *configs: str) -> Configs:
    sizes = {"train": TRAIN_ROWS, "validation": TEST_ROWS, "test": TEST_ROWS}
    return {name: _splits(make, f"{make.__name__}:{name}", **sizes) for name in configs}


def _subject(name: str) -> dict[str, Rows]:
    make = lambda draw, number: _mmlu(draw, name)  # noqa: E731
    return _splits(make, f"mmlu:{name}", test=SUBJECT_ROWS, validation=1, dev=5)


_BUILDERS: dict[str, Callable[[], Configs]] = {
    "allenai/ai2_arc": lambda: _usual(_arc, "ARC-Challenge", "ARC-Easy"),
    "allenai/openbookqa": lambda: _usual(_openbookqa, "main"),
    "allenai/winogrande": lambda: _usual(_winogrande, "winogrande_xl"),
    "aps/super_glue": lambda: _usual(_boolq, "boolq"),
    "cais/mmlu": lambda: {name: _subject(name) for name in SUBJECTS},
    "EleutherAI/wikitext_document_level": lambda: {
        "wikitext-2-raw-v1": _splits(_wikitext, "wikitext", train=1, validation=1, test=4)
    },
    "nyu-mll/glue": lambda: _usual(_rte, "rte"),
    "openai/gsm8k": lambda: {"main": _splits(_gsm8k, "gsm8k", train=TRAIN_ROWS, test=6)},
    "Rowan/hellaswag": lambda: _usual(_hellaswag, "default"),
}
NAMES = tuple(_BUILDERS)
"""Data sets whose form is written here."""

_LABELS = {
    "aps/super_glue": {"label": ["False", "True"]},
    "nyu-mll/glue": {"label": ["entailment", "not_entailment"]},
    "cais/mmlu": {"answer": ["A", "B", "C", "D"]},
}
"""Columns that are class labels: integers with names."""
_INT32 = ("idx", "ind")


@functools.cache
def revision(name: str) -> str:
    """Revision of a data set's fixtures: a hash of their rows."""
    text = json.dumps(_BUILDERS[name](), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write(name: str, folder: Path) -> bool:
    """Write a data set's fixtures into ``folder``, completely or not at all; return False if they are there already.

    Writes a Parquet file per configuration and split, the card (README.md) that lists them, and the manifest.
    """
    if not staged.check(folder, full=True) and staged.revision_of(folder) == revision(name):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        card = []
        for config, splits in _BUILDERS[name]().items():
            (temporary / config).mkdir()
            files = []
            for split, rows in splits.items():
                _write_parquet(name, rows, temporary / config / f"{split}-00000-of-00001.parquet")
                files.append({"split": split, "path": f"{config}/{split}-*"})
            card.append({"config_name": config, "data_files": files})
        head = json.dumps({"configs": card}, indent=1)  # JSON is YAML
        text = f"---\n{head}\n---\nFixtures in the form of {name}, written by MoE-Inference-Bench. Not the data set.\n"
        (temporary / "README.md").write_text(text, encoding="utf-8")
        staged.write_manifest(temporary, "fixtures", revision(name))
        staged.publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _write_parquet(name: str, rows: Rows, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows)
    for column in _INT32:
        if column in table.column_names:
            index = table.column_names.index(column)
            table = table.set_column(index, column, table[column].cast(pa.int32()))
    if name in _LABELS:  # what `datasets` writes into its own files
        features = {field.name: _feature(name, field) for field in table.schema}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def _feature(name: str, field: Any) -> Json:
    import pyarrow as pa

    if field.name in _LABELS[name]:
        return {"names": _LABELS[name][field.name], "_type": "ClassLabel"}
    if pa.types.is_list(field.type):
        return {"feature": {"dtype": str(field.type.value_type), "_type": "Value"}, "_type": "List"}
    return {"dtype": str(field.type), "_type": "Value"}
