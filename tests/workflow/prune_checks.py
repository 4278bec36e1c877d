"""Prune small checkpoints and compare with the models they were made of, by ways of their own.

    python prune_checks.py PLAN.json check NAME [NAME ...]
    python prune_checks.py PLAN.json memory NAME LIMIT_MB

Run by test_prune.py in the engine's environment.  ``check`` makes derived models of the plan and prints, as JSON, what
comparisons gave, or why one could not be made; then it stores the checkpoint that the plan calls ``shard`` in files of
20 MB.  ``memory`` makes a model within an address space of so many MB more than the libraries take.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from moebench.errors import UserError
from moebench.models import calibration_text
from moebench.models.derive import derive
from moebench.storage import staged


def load(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def details(model: dict[str, Any]) -> dict[int, Any]:
    made = json.loads((Path(model["path"]) / "prune.json").read_text())["by_layer"]
    return {int(layer): found for layer, found in made.items()}


@torch.no_grad()
def whole(model: Any, tokens: list[list[int]]) -> dict[str, Any]:
    """The whole model on all sequences at once, each layer's routing looked at from outside."""
    seen: dict[int, list[Any]] = {}
    for index, layer in enumerate(model.model.layers):
        experts = getattr(layer.mlp, "experts", None)
        if experts is not None:
            experts.register_forward_pre_hook(lambda _, given, index=index: seen.__setitem__(index, given))
    logits = model(torch.tensor(tokens), use_cache=False).logits
    return {"logits": logits, "seen": seen}


@torch.no_grad()
def one_expert(block: Any, expert: int, x: torch.Tensor) -> torch.Tensor:
    width = block.experts.down_proj.shape[-1]
    gate, up = block.experts.gate_up_proj[expert][:width], block.experts.gate_up_proj[expert][width:]
    return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ block.experts.down_proj[expert].T


def saliency(block: Any, given: Any, expert: int) -> float:
    """REAP's score of an expert, token by token."""
    x, ids, weights = given
    values = [
        float(weights[t, list(ids[t]).index(expert)] * one_expert(block, expert, x[t]).norm())
        for t in range(len(x))
        if expert in ids[t].tolist()
    ]
    return sum(values) / len(values) if values else 0.0


def masked(model: Any, removed: dict[int, list[int]]) -> None:
    """Let the routers of a whole model choose among what stays: logits of the others at minus infinity.

    Softmax over all, the k largest, divided by their sum where the family does that: Mixtral and Qwen.
    """
    for index, gone in removed.items():
        router = model.model.layers[index].mlp.gate
        divided = getattr(router, "norm_topk_prob", True)

        def route(x: torch.Tensor, router: Any = router, gone: list[int] = gone, divided: bool = divided) -> Any:
            logits = x.reshape(-1, x.shape[-1]) @ router.weight.T
            logits[:, gone] = float("-inf")
            weights, ids = logits.softmax(-1).topk(router.top_k)
            return logits, weights / weights.sum(-1, keepdim=True) if divided else weights, ids

        router.forward = route


def zeroed(model: Any, removed: dict[int, list[list[int]]]) -> None:
    """Set channels of a whole model's experts to zero."""
    for index, by_expert in removed.items():
        experts = model.model.layers[index].mlp.experts
        width = experts.down_proj.shape[-1]
        for expert, gone in enumerate(by_expert):
            experts.gate_up_proj[expert, gone] = 0
            experts.gate_up_proj[expert, [width + channel for channel in gone]] = 0
            experts.down_proj[expert][:, gone] = 0


@torch.no_grad()
def check(model: dict[str, Any]) -> dict[str, Any]:
    """Compare a pruned model with its parent."""
    parent, settings = model["derived"]["parent"], model["derived"]["settings"]
    made, found = details(model), dict[str, Any]()
    rules = settings.get("calibration") or {"data": "text", "sequences": 4, "tokens": 24, "seed": 5}
    tokens = calibration_text.sequences(rules, Path(parent["path"]), parent["architecture"]["vocab_size"])
    original, pruned = load(parent["path"]), load(model["path"])
    before = whole(original, tokens)
    after = whole(pruned, tokens)["logits"]
    found["changed"] = largest(before["logits"], after)
    if "calibration" in settings:
        counts = {
            i: given[1].flatten().bincount(minlength=len(made[i]["counts"])) for i, given in before["seen"].items()
        }
        found["counts_equal"] = all(counts[i].tolist() == made[i]["counts"] for i in made)
        found["layers"] = sorted(made) == sorted(counts)
    if settings["by"] == "reap":
        blocks = {i: original.model.layers[i].mlp for i in made}
        pairs = [(saliency(blocks[i], before["seen"][i], e), made[i]["scores"][e]) for i in made for e in range(8)]
        found["scores"] = pairs
    if settings["by"] == "reconstruction":
        found["errors"] = reconstruction(original, before["seen"], made)
    if settings["kind"] == "inter":
        masked(original, {i: found["removed"] for i, found in made.items()})
    else:
        zeroed(original, {i: found["removed"] for i, found in made.items()})
    reference = original(torch.tensor(tokens), use_cache=False).logits
    return found | {"difference": largest(reference, after), "scale": float(after.abs().max())}


@torch.no_grad()
def reconstruction(model: Any, seen: dict[int, Any], made: dict[int, Any]) -> dict[int, list[Any]]:
    """Per layer: error of the subset kept, and the least error of any pair removed (Mixtral's routing)."""
    found = {}
    for index, given in seen.items():
        block, x = model.model.layers[index].mlp, given[0]
        outputs = torch.stack([one_expert(block, e, x) for e in range(8)])

        def result(gone: tuple[int, ...], block: Any = block, x: Any = x, outputs: Any = outputs) -> torch.Tensor:
            logits = x @ block.gate.weight.T
            logits[:, list(gone)] = float("-inf")
            weights, ids = logits.softmax(-1).topk(2)
            weights = weights / weights.sum(-1, keepdim=True)
            rows = torch.arange(len(x))
            return sum(outputs[ids[:, s], rows] * weights[:, s, None] for s in range(2))

        target = result(())
        pairs = [(a, b) for a in range(8) for b in range(a)]
        errors = {pair: float((result(pair) - target).square().sum()) for pair in pairs}
        found[index] = [errors[tuple(sorted(made[index]["removed"], reverse=True))], min(errors.values())]
    return found


def limit(megabytes: int) -> None:
    """Allow this process no more address space than it has and so much more."""
    own = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (own + megabytes * 2**20, own + megabytes * 2**20))


def memory(plan: dict[str, Any], name: str, megabytes: int) -> dict[str, Any]:
    """Make a model within a limit in which the whole parent cannot be loaded.  ``loads``: how a process that tries to
    hold the parent's tensors ends, without the limit and within it (0: it held them)."""
    from safetensors.torch import load_file

    parent = Path(plan["derived"][name]["derived"]["parent"]["path"])
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        AutoModel.from_config(AutoConfig.from_pretrained(parent))  # imports the family before the limit

    def load_all() -> int:
        child = os.fork()  # the attempt must leave nothing behind
        if child == 0:
            try:
                held = [load_file(file) for file in sorted(parent.glob("*.safetensors"))]
            except BaseException:  # a panic of the reader's is no Exception
                os._exit(1)
            os._exit(0 if held else 2)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    loads = [load_all()]
    limit(megabytes)
    loads.append(load_all())
    derive(plan, name, lambda text: print(text, file=sys.stderr))
    return {"loads": loads, "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def shard(folder: Path) -> None:
    """Store a staged checkpoint in files of 20 MB."""
    before = staged.read_manifest(folder)
    assert before is not None
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20MB")
    staged.write_manifest(folder, before["source"], before["revision"])


def make_and_check(plan: dict[str, Any], name: str) -> Any:
    try:
        assert derive(plan, name, print) and not derive(plan, name, print)
    except UserError as error:
        return str(error)
    return check(plan["derived"][name])


def main() -> None:
    file, verb, *rest = sys.argv[1:]
    plan = json.loads(Path(file).read_text())
    out = os.dup(1)
    os.dup2(2, 1)
    result: Any
    if verb == "memory":
        result = memory(plan, rest[0], int(rest[1]))
    else:
        result = {name: make_and_check(plan, name) for name in rest}
        shard(Path(plan["shard"]))
    with os.fdopen(out, "w") as stream:
        json.dump(result, stream)


if __name__ == "__main__":
    main()
