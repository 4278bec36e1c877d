"""Run by test_routing.py in the engine's environment: routers that are steered, and knobs of serving.

Usage: python routing.py PLAN OUT.  Loads every engine configuration of the plan in this process and runs its first
cell; writes greedy tokens, what was counted and what vLLM resolved, or why it does not load.  Where a budget is asked
for, also the tokens of a plain reference: transformers in float32, whose routers choose by a loop over tokens.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import AutoModelForCausalLM
from vllm.config.parallel import All2AllBackend, EPLBConfig
from vllm.config.speculative import SpeculativeConfig
from vllm.engine.arg_utils import EngineArgs

from moebench.engines import failures
from moebench.measure.worker import Session


def most(load_cap: str, tokens: int, top_k: int) -> int:
    """The cap of a step by its definition."""
    caps = [int(step.split(":")[1]) for step in load_cap.split() if tokens >= int(step.split(":")[0])]
    return min([*caps[-1:], top_k])


def reference(folder: str, prompts: list[list[int]], output_tokens: int, config: dict[str, Any]) -> list[list[int]]:
    """Greedy tokens of a model whose tokens use as few experts as the knobs say."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    normalize = getattr(model.config, "norm_topk_prob", True)

    def choose(router: Any, inputs: Any, given: Any) -> Any:
        logits = given[0]
        scores = torch.zeros(len(logits), router.top_k)
        chosen = torch.zeros(len(logits), router.top_k, dtype=torch.long)
        cap = most(config["load_cap"], len(logits), router.top_k) if config.get("load_cap") else router.top_k
        for token, probabilities in enumerate(logits.softmax(-1)):
            order = probabilities.argsort(descending=True)[:cap].tolist()
            total, used = sum(float(probabilities[e]) for e in order), 0.0
            kept = []
            for expert in order:
                if kept and used >= config.get("gate_share", 1.0) * total:
                    break
                kept.append(expert)
                used += float(probabilities[expert])
            for slot, expert in enumerate(kept):
                chosen[token, slot] = expert
                scores[token, slot] = float(probabilities[expert]) / (used if normalize else 1.0)
        return logits, scores, chosen

    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            module.register_forward_hook(choose)
    tokens = torch.tensor(prompts)
    with torch.inference_mode():
        step, cache = tokens, None
        for _ in range(output_tokens):
            out = model(input_ids=step, past_key_values=cache, use_cache=True)
            step, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            tokens = torch.cat([tokens, step], dim=1)
    return tokens[:, len(prompts[0]) :].tolist()


def one(session: Session, spec: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any]:
    """What an engine configuration gives."""
    try:
        facts = session.load({"name": "vllm", "engine": spec})["facts"]
    except Exception as error:
        status, reason, evidence = failures.classify(f"{type(error).__name__}: {error}", "load")
        return {"status": status, "reason": reason, "evidence": evidence}
    work, engine = cell["workload"], session.engine
    prompts = session.prompts(work, seed=5)
    sampling, inputs = engine._sampling(work["output_tokens"]), engine.inputs(prompts, ())
    engine.capture(True)
    outputs = engine.llm.generate(inputs, sampling, use_tqdm=False)
    counted = {n: layer["phases"] for n, layer in engine.captured().items()}
    engine.capture(False)
    reply = session.run({"workload": work, "protocol": cell["protocol"]})
    made = {
        "tokens": [list(output.outputs[0].token_ids) for output in outputs], "counted": counted,
        "serving": facts["serving"], **{k: reply[k] for k in ("status", "reason", "checks")},
    }  # fmt: skip
    if spec["config"].get("gate_share") or spec["config"].get("load_cap"):
        made["reference"] = reference(spec["model"]["path"], prompts, work["output_tokens"], spec["config"])
    return made


def main(plan_file: str, out: str) -> None:
    plan = json.loads(Path(plan_file).read_text())
    session, found = Session(), {}
    last = sorted(plan["engines"].items(), key=lambda item: item[1]["config"].get("speculation") is not None)
    for engine_id, spec in last:  # nothing loads after numba, see plan/jobs.py
        found[engine_id] = one(session, spec, plan["cells"][f"{engine_id}/{spec['cells'][0]}"])
    session.unload({})
    found["vllm"] = {
        "arguments": sorted({field.name for field in dataclasses.fields(EngineArgs)}),
        "balancing": sorted({field.name for field in dataclasses.fields(EPLBConfig)}),
        "all_to_all": list(get_args(All2AllBackend)),
        "speculation": list(SpeculativeConfig.__dataclass_fields__),
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
