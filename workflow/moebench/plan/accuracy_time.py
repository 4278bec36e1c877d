"""Time of an accuracy task: its sequences times prefill and decoding on the engine configuration."""

from __future__ import annotations

from moebench.accuracy import MOST_PARALLEL
from moebench.config import Architecture, EngineKnobs, Hardware
from moebench.cost.predict import cell_times, expected_times
from moebench.cost.vision import image_tokens
from moebench.formats.plan import AccuracyCell, EngineConfig, Workload
from moebench.prompts import corpora


def engine_s(cell: AccuracyCell, engine: EngineConfig, hardware: Hardware) -> dict[str, float] | None:
    """Time the engine needs for a task, s, by end of its interval (``predict.ENDS``): calibrated, or the least, and
    then without ends; None if the task's size or a constant of the hardware is unknown.

    sequences / n x (time of a batch of n of them): n is what the engine runs at once, by ``max_num_seqs`` and its KV
    cache.  A sequence is the prompt with one answer to score, or the prompt and the generated answer.  Neglected, as in
    ``predict``: waiting between batches; also the logits of scored tokens, the harness itself.
    """
    size = cell["task"].get("size")
    if size is None or engine["runtime"]["hosted"] or engine["predicted"]["fits"] is False:
        return None
    architecture = Architecture.model_validate(engine["model"]["architecture"])
    knobs = EngineKnobs.model_validate({k: v for k, v in engine["config"].items() if k != "top_k"})
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
    if (capacity := engine["predicted"]["kv_capacity_tokens"]) is not None:
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
    _, (likely,) = expected_times(architecture, knobs, hardware, engine, [work])
    if likely:
        found = {"": likely["e2e_s"], "_low": likely["e2e_s_low"], "_high": likely["e2e_s_high"]}
        return {end: seconds * sequences / at_once for end, seconds in found.items()}
    ((_, _, seconds),) = cell_times(architecture, knobs, hardware, [work])
    return None if seconds is None else {"": seconds * sequences / at_once}
