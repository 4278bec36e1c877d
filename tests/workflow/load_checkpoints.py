"""Load checkpoints in transformers or in vLLM and print, as JSON, what they generate and how they route.

    python load_checkpoints.py {transformers|vllm|count} PROMPTS.json FOLDER [FOLDER ...]

Run by test_checkpoints.py in the engine's environment.  Both engines load the weights in float32, so that the same
weights must give the same greedy tokens; ``PROMPTS.json`` is a list of lists of token ids.  MLA runs in bfloat16: with
AMX, vLLM's kernel knows no float32.  ``count`` takes config.json files and counts the parameters of their models.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

OUTPUT_TOKENS = 4


def with_transformers(folder: str, prompts: list[list[int]]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "The scheduler routes every token to a few of its experts: naïve, but it works. 数"
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=False
    )
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    tokens = []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([prompt])
            for _ in range(OUTPUT_TOKENS):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
            tokens.append(ids[0, len(prompt) :].tolist())
    return {
        "loading": {key: sorted(map(str, value)) for key, value in info.items() if value},
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "vocabulary": len(tokenizer),
        "round_trip": tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text,
        "chat": chat,
        "special": [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token],
    }


class Capture:
    """Mixed into vLLM's worker: keeps the expert ids of every token and layer."""

    def start_capture(self) -> None:
        from vllm.model_executor.layers.fused_moe.layer import MoERunner

        self.routed: dict[int, list[Any]] = {}
        for module in self.model_runner.get_model().modules():  # type: ignore[attr-defined]
            if isinstance(module, MoERunner):
                kept = self.routed.setdefault(module.layer_id, [])
                module.router.set_capture_fn(lambda ids, kept=kept: kept.append(ids.detach().clone()))

    def stop_capture(self) -> dict[int, list[list[int]]]:
        import torch

        return {layer: torch.cat(ids).tolist() for layer, ids in self.routed.items()}


def with_vllm(folder: str, prompts: list[list[int]]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.inputs import TokensPrompt

    llm = LLM(
        model=folder,
        dtype=os.environ.get("DT", "float32"),
        load_format="auto",
        enforce_eager=True,
        max_model_len=512,
        max_num_seqs=16,
        kv_cache_memory_bytes=64 << 20,
        enable_prefix_caching=False,
        worker_extension_cls="load_checkpoints.Capture",
    )
    sampling = SamplingParams(temperature=0, max_tokens=OUTPUT_TOKENS, min_tokens=OUTPUT_TOKENS, ignore_eos=True)
    llm.collective_rpc("start_capture")
    outputs = llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], sampling, use_tqdm=False)
    routed = llm.collective_rpc("stop_capture")[0]
    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()
    return {
        "tokens": [list(o.outputs[0].token_ids) for o in outputs],
        "text": outputs[0].outputs[0].text,
        "routed": routed,
    }


def main() -> None:
    engine, prompts_file, *folders = sys.argv[1:]
    prompts = json.loads(Path(prompts_file).read_text())
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to stderr
    load = with_transformers if engine == "transformers" else with_vllm
    found = {folder: load(folder, prompts) for folder in folders}
    os.write(out, json.dumps(found).encode())


if __name__ == "__main__":
    main()
