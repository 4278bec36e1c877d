"""Run by test_driver.py in the engine's environment: tokens and routing under live top-k and after a reload.

Usage: python reload_top_k.py PLAN.  Loads every engine configuration of the plan in this process and prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from vllm import SamplingParams
from vllm.inputs import TokensPrompt

from moebench.engines.factory import make


def main(plan: str) -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to stderr
    found: dict[str, Any] = {}
    prompts = [TokensPrompt(prompt_token_ids=[(7 * i * i + 31 * j) % 10000 for i in range(1, 17)]) for j in range(4)]
    sampling = SamplingParams(temperature=0, max_tokens=8, min_tokens=8, ignore_eos=True, detokenize=False)
    for spec in json.loads(Path(plan).read_text())["engines"].values():
        engine: Any = make("vllm", spec)
        engine.load()
        fixed, eager = spec["config"]["top_k"], spec["config"]["eager"]
        for k in [fixed] if fixed else (4, 1, 2):
            if not fixed:
                engine.set_top_k(k)
            capturing = engine.capture(True)
            tokens = [list(o.outputs[0].token_ids) for o in engine.llm.generate(prompts, sampling, use_tqdm=False)]
            routed = {sum(layer["counts"]) / (4 * 23) for layer in engine.captured().values()} if capturing else None
            engine.capture(False)
            how = "live" if not fixed else "eager" if eager else "compiled"
            found[f"{how} {k}"] = [tokens, None if routed is None else list(routed)]
        try:
            engine.set_top_k(3)
        except NotImplementedError as error:
            found["refused"] = str(error)
        engine.close()
    with os.fdopen(out, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
