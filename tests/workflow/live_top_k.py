"""Run by test_live_top_k.py in the engine's environment: another top-k set in a compiled engine.

Usage: python live_top_k.py MODEL-FOLDER OUT [operator].  vLLM's CPU build calls a MoE layer as plain Python, which is
compiled in.  With ``operator`` it is called through its custom operator, as on CUDA (`MoERunner._select_forward`).
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from vllm import LLM, SamplingParams
from vllm.compilation.wrapper import reset_compile_wrapper
from vllm.config import set_current_vllm_config
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.inputs import TokensPrompt
from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner

PROMPTS = [[3 + i, 17, 99, 250 + i, 7, 8, 9, 10] for i in range(4)]


def through_the_operator(runner: MoERunner) -> Any:
    """What vLLM takes on CUDA."""
    shared = runner._shared_experts is not None
    return torch.ops.vllm.moe_forward_shared if shared else torch.ops.vllm.moe_forward


class Engine:
    """An engine in float32, loaded with ``top_k`` active experts."""

    def __init__(self, folder: str, eager: bool, top_k: int):
        self.llm = LLM(
            model=folder, skip_tokenizer_init=True, enforce_eager=eager, dtype="float32", max_model_len=128,
            max_num_seqs=4, max_num_batched_tokens=256, kv_cache_memory_bytes=64 << 20, enable_prefix_caching=False,
            hf_overrides={"num_experts_per_tok": top_k}, seed=0,
        )  # fmt: skip
        self.model = self.llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model()
        self.runners = [module for module in self.model.modules() if isinstance(module, MoERunner)]

    def run(self) -> dict[str, Any]:
        """Greedy tokens, and the numbers of experts per token that the routers chose."""
        chosen: set[int] = set()
        for runner in self.runners:
            runner.router.set_capture_fn(lambda ids: chosen.add(int(ids.shape[1])))
        sampling = SamplingParams(temperature=0, max_tokens=8, min_tokens=8, ignore_eos=True, detokenize=False)
        outputs = self.llm.generate([TokensPrompt(prompt_token_ids=p) for p in PROMPTS], sampling, use_tqdm=False)
        return {"tokens": [list(o.outputs[0].token_ids) for o in outputs], "chosen": sorted(chosen)}

    def set_top_k(self, top_k: int) -> None:
        for runner in self.runners:
            runner.router.top_k = top_k
            runner.moe_config.experts_per_token = top_k

    def compile_again(self) -> None:
        """Drop what is compiled, as vLLM does when experts move to other devices (`elastic_ep/elastic_execute.py`)."""
        torch.compiler.reset()
        with set_current_vllm_config(self.llm.llm_engine.vllm_config):
            reset_compile_wrapper(self.model)

    def close(self) -> None:
        self.llm.llm_engine.engine_core.shutdown(timeout=0.5)
        del self.llm, self.model, self.runners
        gc.collect()
        cleanup_dist_env_and_memory()


def main(folder: str, out: str, operator: str = "") -> None:
    if operator:
        MoERunner._select_forward = through_the_operator
    compiled = Engine(folder, eager=False, top_k=2)
    found = {"mode": str(compiled.llm.llm_engine.vllm_config.compilation_config.mode), "two": compiled.run()}
    compiled.set_top_k(1)
    found["set_to_one"] = compiled.run()
    if not operator:
        compiled.compile_again()
        found["compiled_again"] = compiled.run()
    compiled.close()
    eager = Engine(folder, eager=True, top_k=1)
    found["loaded_with_one"] = eager.run()
    Path(out).write_text(json.dumps(found))
    eager.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
