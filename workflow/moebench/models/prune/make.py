"""Creates a pruned checkpoint: score, choose, rewrite.  Runs in the engine's environment (torch, transformers)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from moebench.architectures.hf_config import disagreements, respelled
from moebench.errors import StageError
from moebench.formats import Json
from moebench.formats.model import ArchitectureDict, DerivationSettings, ExpertsDict, ModelDict
from moebench.models import calibration_text
from moebench.models.derive import derivation
from moebench.models.prune import calibrate, score
from moebench.models.prune.checkpoint import Checkpoint, copy_rest, expert_name, router_layer
from moebench.storage import staged

DETAILS = "prune.json"
"""File beside the weights: scores and what was kept, per layer."""

Say = Callable[[str], None]
Kept = dict[int, Any]
"""By layer: experts that stay, ascending (inter); or channels that stay of each expert, [E, width] (intra)."""


def make(model: ModelDict, parent: Path, out: Path, say: Say) -> Json:
    """Write the pruned checkpoint ``model`` (JSON of the plan) of the one in ``parent`` into ``out``; return facts.

    Raises StageError for a checkpoint that cannot be pruned in this way.
    """
    derived = derivation(model)
    settings, before = derived["settings"], derived["parent"]["architecture"]
    block = before["experts"]
    assert block is not None
    checkpoint = Checkpoint(parent)
    layers = checkpoint.moe_layers(block["count"], block["ffn_size"], before["hidden_size"])
    if not layers:
        raise StageError(f"{parent}: no routed experts to prune")
    groups = _groups(checkpoint.config, block["count"], settings)
    facts: Json = {"settings": settings, "layers": layers}
    kept: Kept = {}
    details: Json = {}
    for layer, chosen, found in _choices(checkpoint, settings, before, layers, groups, facts, say):
        kept[layer], details[str(layer)] = chosen, found
    facts["bytes"] = checkpoint.rewrite(out, _changes(settings["kind"], kept))
    config = respelled(checkpoint.config, before, model["architecture"])
    wrong = disagreements(model["architecture"], config)
    if wrong:
        raise StageError(f"{parent}/config.json cannot express the pruned model: {'; '.join(wrong)}")
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    manifest = staged.read_manifest(parent)
    copy_rest(manifest["files"] if manifest else {}, parent, out)
    facts |= _rounding(settings, block)
    (out / DETAILS).write_text(json.dumps(facts | {"by_layer": details}, sort_keys=True) + "\n")
    return facts | ({"by_layer": details} if settings["kind"] == "inter" else {})


def _rounding(settings: DerivationSettings, block: ExpertsDict) -> Json:
    """The requested and the actual reduction, which differ because of rounding to whole experts and multiples of
    widths."""
    inter = settings["kind"] == "inter"
    whole, left = (block["count"], settings["experts"]) if inter else (block["ffn_size"], settings["ffn_size"])
    what = "experts" if inter else "channels"
    words = f"{settings['ratio']:.1%} of {whole} {what} is {settings['ratio'] * whole:g}; {whole - left} are removed"
    if not inter:
        words += f", so that a multiple of {settings['multiple']} stays"
    return {"rounding": words, "removed_share": 1 - left / whole}


def _groups(config: Json, count: int, settings: DerivationSettings) -> list[list[int]]:
    """Groups of experts that must keep equally many: the router's groups, if it chooses by groups.

    Raises StageError if that is impossible.
    """
    number = config.get("n_group") or 1
    if settings["kind"] == "inter" and number > 1:
        left = settings["experts"]
        if left % number:
            raise StageError(
                f"{left} experts are left of {count}, which the router's {number} groups do not divide; choose another "
                "prune_ratio"
            )
        if (config.get("topk_group") or number) * (left // number) < config["num_experts_per_tok"] or left < 2 * number:
            raise StageError(
                f"{left} experts in {number} groups are too few for the router; choose a prune_ratio below"
            )
    size = count // number
    return [list(range(i * size, (i + 1) * size)) for i in range(number)]


# ----------------------------------------------------------------------------------------- choosing


def _choices(
    checkpoint: Checkpoint,
    settings: DerivationSettings,
    before: ArchitectureDict,
    layers: list[int],
    groups: list[list[int]],
    facts: Json,
    say: Say,
) -> Iterator[tuple[int, Any, Json]]:
    """For each layer: what is kept, and the scores behind the choice."""
    by, block = settings["by"], before["experts"]
    assert block is not None
    if by == "random":
        for layer in layers:
            rng = random.Random(f"{settings['seed']}:{layer}")
            left = settings["experts"] // len(groups)
            chosen = sorted(expert for group in groups for expert in rng.sample(group, left))
            yield layer, chosen, {"kept": chosen, "removed": _others(chosen, block["count"])}
        return
    if by == "magnitude":
        for layer, scores in score.magnitude(checkpoint, block["count"], block["ffn_size"]).items():
            yield layer, *channels(scores, settings["ffn_size"])
        return
    facts["calibration"] = calibration_text.source(settings["calibration"])
    tokens = calibration_text.sequences(settings["calibration"], checkpoint.folder, before["vocab_size"])
    fallback = score.magnitude(checkpoint, block["count"], block["ffn_size"]) if by == "activation" else {}
    for number, seen in enumerate(calibrate.moe_layers(checkpoint, tokens), 1):
        counts = score.frequency(seen)
        found = {"counts": counts.tolist()}
        if by == "activation":
            scores = score.activation(seen)
            unused = (counts == 0).cpu()
            scores[unused] = fallback[seen.index][unused]
            chosen, more = channels(scores, settings["ffn_size"])
            more["experts_by_magnitude"] = int(unused.sum())
        elif by == "reconstruction":
            chosen, more = score.reconstruct(seen, settings["experts"], groups)
            more |= {"kept": chosen, "removed": _others(chosen, block["count"])}
        else:
            scores = counts if by == "frequency" else score.reap(seen)
            chosen, more = experts(scores.tolist(), settings["experts"], groups)
        say(f"layer {seen.index}: chosen ({number} of {len(layers)})")
        yield seen.index, chosen, found | more


def _others(chosen: Sequence[int], count: int) -> list[int]:
    return [expert for expert in range(count) if expert not in set(chosen)]


def experts(scores: list[float], left: int, groups: list[list[int]]) -> tuple[list[int], Json]:
    """The ``left`` experts with the highest scores, equally many from each group; ties go to the first."""
    per_group = left // len(groups)
    ranked = (sorted(group, key=lambda expert: (-scores[expert], expert))[:per_group] for group in groups)
    chosen = sorted(expert for group in ranked for expert in group)
    return chosen, {"scores": scores, "kept": chosen, "removed": _others(chosen, len(scores))}


def channels(scores: Any, left: int) -> tuple[Any, Json]:
    """The ``left`` channels with the highest scores of each expert, in their order; ties go to the first.

    ``scores``: [E, width].
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    chosen, gone = order[:, :left].sort(dim=1).values, order[:, left:].sort(dim=1).values
    share = scores.gather(1, gone).sum(dim=1) / scores.sum(dim=1).clamp_min(1e-30)
    return chosen, {"removed": gone.tolist(), "removed_score_share": [round(s, 6) for s in share.tolist()]}


# ---------------------------------------------------------------------------------------- rewriting


def _changes(kind: str, kept: Kept) -> Callable[[str, Any], tuple[str, Any] | None]:
    """The change to each tensor."""
    place = {layer: {expert: i for i, expert in enumerate(chosen)} for layer, chosen in kept.items()}

    def inter(name: str, tensor: Any) -> tuple[str, Any] | None:
        expert, layer = expert_name(name), router_layer(name)
        if expert is not None:
            new = place[expert.layer].get(expert.expert)
            return None if new is None else (expert.numbered(new), tensor)
        if layer is not None and layer in kept:
            return name, tensor[kept[layer]].contiguous()
        return name, tensor

    def intra(name: str, tensor: Any) -> tuple[str, Any]:
        expert = expert_name(name)
        if expert is None:
            return name, tensor
        chosen = kept[expert.layer][expert.expert]
        return name, tensor.index_select(1 if expert.role == "down" else 0, chosen).contiguous()

    return inter if kind == "inter" else intra
