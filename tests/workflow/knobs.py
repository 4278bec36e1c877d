"""Run by test_knobs.py in the engine's environment: greedy tokens of one model under different engine knobs.

Usage: python knobs.py PLAN OUT.  Loads every engine configuration of the plan in this process, runs its first cell's
prompts, and writes tokens, counters and captured routing per engine configuration.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from moebench.measure.worker import Session


def main(plan_file: str, out: str) -> None:
    plan = json.loads(Path(plan_file).read_text())
    session, found = Session(), {}
    for engine_id, spec in plan["engines"].items():
        facts = session.load({"name": "vllm", "engine": spec})["facts"]
        cell = plan["cells"][f"{engine_id}/{spec['cells'][0]}"]
        engine = session.engine
        from vllm.inputs import TokensPrompt

        prompts = session.prompts(cell["workload"], seed=5)
        sampling = engine._sampling(cell["workload"]["output_tokens"])
        outputs = engine.llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], sampling, use_tqdm=False)
        reply = session.run({"workload": cell["workload"], "protocol": cell["protocol"]})
        found[engine_id] = {
            "tokens": [list(o.outputs[0].token_ids) for o in outputs],
            "facts": {k: facts[k] for k in ("load_s", "kv_cache_tokens")},
            "status": reply["status"], "reason": reply["reason"], "checks": reply["checks"],
            "kernels": sorted({type(m.quant_method.moe_kernel.fused_experts).__name__ for m in experts(engine)}),
        }  # fmt: skip
    session.unload({})
    Path(out).write_text(json.dumps(found))


def experts(engine):
    """The MoE layers' weight-holding modules of the loaded model."""
    model = engine.llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model()
    return [m for m in model.modules() if hasattr(getattr(m, "quant_method", None), "moe_kernel")]


if __name__ == "__main__":
    main(*sys.argv[1:])
