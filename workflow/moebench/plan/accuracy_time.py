"""Time of an accuracy task: its sequences times prefill and decoding on the engine configuration."""

from __future__ import annotations

from collections.abc import Sequence

from moebench.accuracy import MOST_PARALLEL
from moebench.config import Architecture, EngineKnobs, Hardware
from moebench.cost.predict import cell_times, expected_times
from moebench.cost.vision import image_tokens
from moebench.formats.plan import AccuracyCell, CalibratedTimes, EngineConfig, Workload
from moebench.prompts import corpora


def engine_s(cells: Sequence[AccuracyCell], engine: EngineConfig, hardware: Hardware) -> list[dict[str, float] | None]:
    """Time the engine needs for each task, s, by end of its interval (``predict.ENDS``): calibrated, or the least, and
    then without ends; None if the task's size or a constant of the hardware is unknown.

    sequences / n x (time of a batch of n of them): n is what the engine runs at once, by ``max_num_seqs`` and its KV
    cache.  A sequence is the prompt with one answer to score, or the prompt and the generated answer.  Neglected, as in
    ``predict``: waiting between batches; also the logits of scored tokens, the harness itself.
    """
    if engine["runtime"]["hosted"] or engine["predicted"]["fits"] is False:
        return [None] * len(cells)
    architecture = Architecture.model_validate(engine["model"]["architecture"])
    knobs = EngineKnobs.model_validate({k: v for k, v in engine["config"].items() if k != "top_k"})
    batches = [_batch(cell, architecture, knobs, engine["predicted"]["kv_capacity_tokens"]) for cell in cells]
    works = [batch[0] for batch in batches if batch]
    _, likely = expected_times(architecture, knobs, hardware, engine, works)
    least = cell_times(architecture, knobs, hardware, works)
    times = iter(zip(likely, least, strict=True))
    return [_seconds(*next(times), *batch) if batch else None for batch in batches]


def _seconds(
    likely: CalibratedTimes | None, least: tuple[float | None, ...], work: Workload, sequences: int
) -> dict[str, float] | None:
    """The time of a number of sequences in batches, by end of its interval."""
    if likely:
        found = {"": likely["e2e_s"], "_low": likely["e2e_s_low"], "_high": likely["e2e_s_high"]}
        return {end: seconds * sequences / work["batch"] for end, seconds in found.items()}
    return None if least[2] is None else {"": least[2] * sequences / work["batch"]}


def _batch(
    cell: AccuracyCell, architecture: Architecture, knobs: EngineKnobs, capacity: int | None
) -> tuple[Workload, int] | None:
    """The batch that a task runs at once, and its sequences in all; None if the task's size is unknown."""
    size = cell["task"].get("size")
    if size is None:
        return None
    seen = image_tokens(architecture, 1, size["image_size"]) if size["image_size"] else 0
    if seen is None:
        return None
    questions = size["questions"]
    if cell["limit"]:
        questions = min(questions, cell["limit"] * size["parts"])
    sequences = questions * size["sequences"]
    prompt, answer = size["prompt_tokens"] + seen, max(1, size["answer_tokens"])
    most = MOST_PARALLEL if cell["task"]["harness"] == "vlmeval" else knobs.max_num_seqs
    at_once = min(sequences, most, knobs.max_num_seqs)
    if capacity is not None:
        at_once = max(1, min(at_once, capacity // (prompt + answer)))
    work: Workload = {
        "batch": at_once,
        "input_tokens": size["prompt_tokens"],
        "output_tokens": answer,
        "top_k": cell["top_k"],
        "prompts": "text",
        "corpus": corpora.PROSE,
        "requests": 0,
        "images": 1 if size["image_size"] else 0,
        "image_size": size["image_size"],
    }
    return work, sequences
