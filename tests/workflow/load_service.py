"""In the engine's environment: send loads to a service (cases on standard input), print what client and engine give."""

from __future__ import annotations

import json
import sys
from typing import Any

from ask_service import SETTINGS

from moebench.engines import failures, load_client
from moebench.engines.endpoint import EndpointEngine
from moebench.prompts import over_time


def send(case: dict[str, Any]) -> dict[str, Any]:
    """What the client says of its run, and the requests as the engine gives them."""
    model, settings, work = case["model"], SETTINGS | case["settings"], case["workload"]
    runtime = {"endpoint": settings, "hosted": True, "hardware": "Stub"}
    engine = EndpointEngine({"runtime": runtime, "config": {}, "model": model})
    seen: list[dict[str, Any]] = []
    keep = load_client.run
    load_client.run = lambda *arguments: seen.append(keep(*arguments)) or seen[-1]  # type: ignore[func-returns-value]
    try:
        engine.load()
        requests = None if over_time.drawn_by_client(work) else over_time.make(work, 64, 256, 1)
        load = engine.over_time(work, 1, 2, requests)
        summary = {k: v for k, v in seen[-1].items() if isinstance(v, (int, float))}
        return {"load": load, "summary": summary}
    except failures.Failure as failure:
        return {"status": failure.status, "reason": str(failure)}
    finally:
        load_client.run = keep
        engine.close()


if __name__ == "__main__":
    replies = sys.stdout
    sys.stdout = sys.stderr  # the client prints its own tables
    found = {name: send(case) for name, case in json.load(sys.stdin).items()}
    replies.write(json.dumps(found))
