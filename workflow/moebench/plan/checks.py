"""Settings that no engine can run: mistakes are refused by the plan, and points that cannot run become rows."""

from __future__ import annotations

from collections.abc import Iterator

from moebench.config import COST_ONLY, Engine, EngineKnobs, Experts, Hardware, ModelSpec, Protocol, WorkloadKnobs
from moebench.cost.vision import image_tokens, parameters
from moebench.errors import ConfigError, Misfit
from moebench.formats.plan import CorpusDict
from moebench.plan import engine_choice


def check(
    knobs: EngineKnobs,
    work: WorkloadKnobs,
    spec: ModelSpec,
    engine: tuple[str, Engine],
    corpus: CorpusDict | None,
    hardware: Hardware,
    path: str,
) -> None:
    """Refuse settings that no engine can run.  ``engine``: its name and settings.  Raises ConfigError for a mistake,
    Misfit for a value that does not fit this model.
    """
    count, top_k = experts_of(spec.architecture.experts, knobs, work)
    called, runs_on = engine
    name, positions = spec.name, spec.architecture.max_positions
    shown = bool(corpus and corpus["table"])  # images of a data set, of sizes of their own
    images = image_tokens(spec.architecture, work.images, work.image_size)
    pixels = f" of {work.images} images" + ("" if shown else f" of {work.image_size} x {work.image_size} pixels")
    tokens = f"{work.input_tokens} + {work.output_tokens} tokens" + (f" and {images}{pixels}" if images else "")
    limit, whose = min((positions, f"the max_positions of {name}"), (knobs.max_model_len, "max_model_len"))
    gpus, devices = knobs.tp * knobs.pp * knobs.dp, hardware.devices_per_node
    too_long = (
        work.input_tokens + work.output_tokens + (images or 0) > limit,
        f"{tokens} are more than {whose}, {limit}; ask for fewer"
        + (", or raise it" if whose == "max_model_len" else "")
        + (f" (images of {name})" if whose == "max_model_len" and images else ""),
    )
    misfits = [
        (COST_ONLY in spec.tags, f"{name} is for the cost model only (its tag {COST_ONLY}); no engine runs it"),
        (
            count == 0 and work.top_k is not None,
            f"top_k {work.top_k}: {name} is dense, it has no experts; leave it out",
        ),
        (top_k > count, f"top_k {top_k} is more than the {count} experts of {name}; set it to {count} or less"),
        (
            knobs.max_model_len > positions,
            f"max_model_len {knobs.max_model_len} is more than the max_positions of"
            f" {name}, {positions}; set it to that or less",
        ),
        (work.images > 0 and parameters(spec.architecture) == 0, f"images {work.images}: {name} accepts none"),
    ]
    problems = [
        (
            gpus > devices and gpus % devices > 0,
            f"tp x pp x dp is {gpus}: more than the {devices} a node of {hardware.name} has, and no multiple",
        ),
        (
            work.batch > knobs.max_num_seqs,
            f"batch {work.batch} is more than max_num_seqs {knobs.max_num_seqs}; raise that",
        ),
        (
            knobs.prune_ratio > 0 and knobs.pruning == "none",
            f"prune_ratio {knobs.prune_ratio:g} without pruning: say inter (whole experts) or intra (channels)",
        ),
        (
            knobs.pruning != "none" and "prune_ratio" not in knobs.model_fields_set,
            f"pruning {knobs.pruning!r} with prune_ratio {knobs.prune_ratio}: give both or neither",
        ),
        (
            knobs.prune_by is not None and knobs.pruning == "none",
            f"prune_by {knobs.prune_by!r} without pruning: give both or neither",
        ),
        *_of_serving(knobs, count, top_k),
        (
            work.images > 0 and work.image_size is None and not shown,
            f"images {work.images}: image_size is missing; give the edge of the images in pixels",
        ),
        (
            work.images == 0 and work.image_size is not None,
            f"image_size {work.image_size} without images: give both or neither",
        ),
        (
            work.images > 0 and corpus is not None and not shown,
            f"images {work.images}: corpus {work.corpus} is text, and generated images would look like its own; "
            f"leave images out, or use a corpus with a table",
        ),
        (
            shown and work.images > 0 and (work.images, work.image_size, work.prompts) != (1, None, "items"),
            f"corpus {work.corpus} has an image for each item: set images: 1 and prompts: items, and leave"
            " image_size out",
        ),
        (
            runs_on.name == "vllm" and runs_on.live_top_k is True and not knobs.eager,
            "engine.live_top_k is true and eager is false: a compiled router ignores it; set eager: true or"
            " live_top_k: auto",
        ),
        (
            hardware.kind == "cpu"
            and knobs.kv_cache_mb is None
            and runs_on.name != "transformers"
            and not runs_on.hosted,
            f"kv_cache_mb is missing: on {hardware.name} the engine cannot choose it; e.g. kv_cache_mb: 256",
        ),
        *((True, text) for text in engine_choice.problems(called, runs_on, knobs, work, spec)),
    ]
    (problems if whose == "max_model_len" else misfits).insert(0, too_long)
    for wrong, text in problems:
        if wrong:
            raise ConfigError(f"{path}: {text}")
    for wrong, text in misfits:
        if wrong:
            raise Misfit(text)


def _of_serving(knobs: EngineKnobs, experts: int, top_k: int) -> Iterator[tuple[bool, str]]:
    """Problems with speculation, EPLB and routing."""
    headless = knobs.speculation in ("ngram", "mtp")
    proposes = knobs.draft_model is not None or headless
    yield (
        proposes != (knobs.draft_tokens > 0),
        f"draft_model {knobs.draft_model!r} with draft_tokens {knobs.draft_tokens}: give both or neither"
        if knobs.speculation is None
        else f"speculation {knobs.speculation} with draft_tokens {knobs.draft_tokens}: give both or neither",
    )
    yield (
        knobs.speculation is not None and headless == (knobs.draft_model is not None),
        f"speculation {knobs.speculation} "
        + ("takes no draft_model; leave it out" if headless else "needs a draft_model, the EAGLE head"),
    )
    spread = knobs.ep and knobs.tp * knobs.dp > 1
    yield knobs.eplb and not spread, "eplb moves experts between the ranks of ep: set ep: true, and tp or dp"
    yield (
        not knobs.eplb and (knobs.redundant_experts > 0 or knobs.eplb_steps is not None),
        f"redundant_experts {knobs.redundant_experts}, eplb_steps {knobs.eplb_steps}: only with eplb: true",
    )
    yield (
        knobs.routing_experts is not None and knobs.routing is None,
        f"routing_experts {knobs.routing_experts} without routing: say uniform or zipf",
    )
    among = knobs.routing_experts or experts
    yield (
        knobs.routing is not None and experts > 0 and not top_k <= among <= experts,
        f"routing_experts {among}: give {top_k} (top-k) to {experts} (all experts)",
    )


def check_protocol(knobs: EngineKnobs, work: WorkloadKnobs, spec: ModelSpec, protocol: Protocol, path: str) -> None:
    """Refuse settings that the protocol cannot measure, or that only another one can. Raises ConfigError."""
    counts = protocol.kind == "activation"
    problems = [
        (counts and not knobs.eager, "protocol activation needs eager: true; a compiled router reports no experts"),
        (
            work.prompts == "items" and not counts,
            "prompts: items have their own lengths, which only protocol activation supports; use text",
        ),
    ]
    problems += [
        (
            work.requests > 0 and protocol.kind not in ("activation", "load"),
            f"requests {work.requests}: only the protocols activation and load use it",
        ),
    ]
    for wrong, text in problems:
        if wrong:
            raise ConfigError(f"{path}: {text}")
    if counts and spec.architecture.experts is None:
        raise Misfit(f"protocol activation: {spec.name} is dense, it has no experts")


def experts_of(experts: Experts | None, knobs: EngineKnobs, work: WorkloadKnobs) -> tuple[int, int]:
    """Routed experts per layer and active ones of a cell; zeros for a dense model."""
    return (knobs.experts or experts.count, work.top_k or experts.top_k) if experts else (0, 0)
