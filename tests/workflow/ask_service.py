"""In the engine's environment: run a batch through a service once per case (standard input), print what came of it."""

from __future__ import annotations

import json
import sys
from typing import Any

from moebench.engines import failures
from moebench.engines.endpoint import EndpointEngine
from moebench.measure import metrics

SETTINGS = {"serve": False, "base_url": None, "base_url_env": None, "key_env": "SERVICE_KEY", "api": "completions",
            "prompt": "ids", "admits": ["ignore_eos", "min_tokens", "return_token_ids"], "tokens": "exact",
            "timeout_s": 30}  # fmt: skip


def ask(case: dict[str, Any]) -> dict[str, Any]:
    """A batch of 4 prompts of 16 tokens, 8 tokens wanted."""
    runtime = {"endpoint": SETTINGS | case["settings"], "hosted": True, "hardware": "Stub"}
    engine = EndpointEngine({"runtime": runtime, "config": {}, "model": case["model"]})
    try:
        facts = engine.load()
        run = engine.trace([[7] * 16] * 4, 8)
        measured = run["seen"].get("output_tokens", 8)
        found = {"run": run, "metrics": metrics.trace_metrics(run, 16, measured), "counters": engine.counters()}
        return found | {"facts": facts, "overlap": metrics.overlap(run)}
    except failures.Failure as failure:
        return {"status": failure.status, "reason": str(failure), "evidence": failure.evidence}
    finally:
        engine.close()


if __name__ == "__main__":
    print(json.dumps({name: ask(case) for name, case in json.load(sys.stdin).items()}))
