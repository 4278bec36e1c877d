"""In the engine's environment: greedy tokens of one model in three engines, and the life of a server.  Prints JSON.

python compare_engines.py MODEL-FOLDER LOG: transformers (each experts implementation), vLLM offline, `vllm serve`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from moebench.engines import vllm as vllm_engine
from moebench.engines.client import Client
from moebench.engines.server import Server, ServerFailed, flags
from moebench.engines.transformers import TransformersEngine

BATCH, LENGTH, OUTPUT = 4, 12, 6
PROMPTS = [[(37 * i + 101 * b) % 10240 for i in range(LENGTH)] for b in range(BATCH)]


def spec(folder: str, kernel: str = "fused") -> dict[str, Any]:
    """An engine configuration in float32, so that tokens can be equal."""
    config = {
        **{"experts": None, "moe_ffn_size": None, "dtype": "float32", "weights": "random_init", "quantization": "none"},
        **{"kv_cache_dtype": "auto", "draft_model": None, "tp": 1, "pp": 1, "dp": 1, "ep": False, "mla": True},
        **{"kernel_config": "tuned", "expert_kernel": kernel, "eager": True, "max_model_len": 256, "top_k": None},
        **{"max_num_seqs": 16, "max_num_batched_tokens": 2048, "kv_cache_mb": 64},
    }
    model = {"path": folder, "architecture": json.loads((Path(folder) / "architecture.json").read_text())}
    return {"config": config, "model": model, "draft": None, "memory_fraction": 0.9, "gpus": 1, "nodes": 1}


def in_transformers(folder: str) -> dict[str, Any]:
    """Tokens by implementation and top-k, and what was captured."""
    found: dict[str, Any] = {}
    for kernel in ("eager", "batched_mm", "grouped_mm"):
        engine = TransformersEngine(spec(folder, kernel))
        facts = engine.load()
        tokens = {}
        for top_k in (2, 1):
            engine.set_top_k(top_k)
            tokens[top_k] = engine.decode(PROMPTS, OUTPUT)[1]
        engine.set_top_k(2)
        chosen = logits_top_k(engine)
        engine.capture(True)
        run = engine.trace(PROMPTS, OUTPUT)
        counts = engine.captured()
        engine.capture(False)
        seconds = engine.timed(PROMPTS, OUTPUT)
        found[kernel] = {"tokens": tokens, "facts": facts, "counts": counts, "run": run, "chosen": chosen,
                         "timed_s": seconds}  # fmt: skip
        engine.close()
    return found


def logits_top_k(engine: TransformersEngine) -> dict[str, Any]:
    """Counts per layer in the prefill, from the router's logits on one side and from the capture on the other."""
    with torch.inference_mode():
        engine.capture(True)
        out = engine.model(input_ids=torch.tensor(PROMPTS), output_router_logits=True)
        captured = {layer: found["counts"] for layer, found in engine.captured().items()}
        engine.capture(False)
    by_logits = {
        layer: torch.bincount(logits.topk(2, dim=-1).indices.reshape(-1), minlength=logits.shape[-1]).tolist()
        for layer, logits in enumerate(out.router_logits)
    }
    return {"captured": captured, "by_logits": by_logits}


def in_vllm(folder: str) -> list[list[int]]:
    """Tokens of the offline engine."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    engine = vllm_engine.VllmEngine(spec(folder))
    engine.load()
    sampling = SamplingParams(temperature=0, max_tokens=OUTPUT, min_tokens=OUTPUT, ignore_eos=True, detokenize=False)
    outputs = engine.llm.generate([TokensPrompt(prompt_token_ids=p) for p in PROMPTS], sampling, use_tqdm=False)
    engine.close()
    return [list(output.outputs[0].token_ids) for output in outputs]


def in_server(folder: str, log: Path) -> dict[str, Any]:
    """Tokens of the server, who may ask it, and that nothing of it is left."""
    arguments = flags(vllm_engine.arguments(spec(folder)))
    bodies = [
        {"model": "tiny", "prompt": p, "max_tokens": OUTPUT, "min_tokens": OUTPUT, "ignore_eos": True, "temperature": 0,
         "stream": True, "return_token_ids": True, "stream_options": {"include_usage": True}} for p in PROMPTS
    ]  # fmt: skip
    with Server(arguments, "tiny", log=log, environment={"VLLM_CPU_OMP_THREADS_BIND": "nobind"}) as server:
        pid, root = server.pid, server.root
        client = Client(server.url, server.key, "KEY", 60, proxies=False)
        answers = client.batch("/completions", bodies)
        listed = client.models()
        client.close()
        stranger = Client(server.url, "another", "KEY", 60, proxies=False)
        try:
            refused = str(stranger.models())
        except Exception as error:  # its words are what is looked at
            refused = str(error)
        stranger.close()
        key = server.key
    gone = True
    try:
        os.kill(pid, 0)
        gone = False
    except ProcessLookupError:
        pass
    return {
        "tokens": [a.ids for a in answers], "usage": [a.usage for a in answers], "models": listed, "refused": refused,
        "key_in_log": key in log.read_text(), "gone": gone, "healthy": server.healthy(), "root": root,
    }  # fmt: skip


def dies(log: Path) -> dict[str, Any]:
    """A server that cannot start says why."""
    try:
        Server(["/nowhere/no-model", "--enforce-eager"], "none", log=log).start()
    except ServerFailed as error:
        return {"code": error.code, "log": error.log[-3000:]}
    return {}


if __name__ == "__main__":
    model, server_log = sys.argv[1], Path(sys.argv[2])
    result = {"transformers": in_transformers(model), "vllm": in_vllm(model), "server": in_server(model, server_log)}
    if "--dies" in sys.argv:
        result["dies"] = dies(server_log.with_suffix(".dies"))
    print(json.dumps(result))
