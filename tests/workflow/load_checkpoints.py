"""Load checkpoints in transformers or in vLLM and print, as JSON, what they generate and how they route.

    python load_checkpoints.py {transformers|vllm} PROMPTS.json FOLDER [FOLDER ...]
    python load_checkpoints.py count CONFIG.json [CONFIG.json ...]
    python load_checkpoints.py operations SIZES

Run by test_checkpoints.py in the engine's environment.  ``PROMPTS.json`` is a list of lists of token ids.  Weights are
loaded in float32, so that the same weights must give the same greedy tokens; only MLA and Gated DeltaNet run in
bfloat16 in vLLM, whose kernels for CPUs know no float32.  ``count`` counts the parameters of the models that config
files describe, ``operations`` those of vision towers on a tile: sizes are a JSON list of width, layers, heads, width of
the MLP, patch and tile.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

OUTPUT_TOKENS = 4
TEXT = "The scheduler routes every token to a few of its experts: naïve, but it works. 数\n\n    def f(x): pass"


def with_transformers(folder: str, prompts: list[list[int]]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "Hello"}]
    sees = "vision_config" in json.loads((Path(folder) / "config.json").read_text())
    kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model, loading = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    tokens = []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([prompt])
            for _ in range(OUTPUT_TOKENS):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
            tokens.append(ids[0, len(prompt) :].tolist())
    return {
        "loading": {key: sorted(map(str, value)) for key, value in loading.items() if value},
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "vocabulary": len(tokenizer),
        "ids": tokenizer(TEXT, add_special_tokens=False)["input_ids"],
        "round_trip": tokenizer.decode(tokenizer(TEXT, add_special_tokens=False)["input_ids"]),
        "chat": tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False),
        "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
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

    from moebench.engines import vllm_startup

    narrow = {"kv_lora_rank", "linear_num_key_heads"} & json.loads((Path(folder) / "config.json").read_text()).keys()
    with vllm_startup.quick_start():
        llm = LLM(
            model=folder,
            dtype="bfloat16" if narrow else "float32",
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
    with vllm_startup.one_collection():
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
    return {
        "tokens": [list(o.outputs[0].token_ids) for o in outputs],
        "text": outputs[0].outputs[0].text,
        "routed": routed,
    }


def count(file: str) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = json.loads(Path(file).read_text())
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


def operations(width: int, layers: int, heads: int, ffn: int, patch: int, tile: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import SiglipVisionConfig, SiglipVisionModel

    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "patch_size": patch,
             "intermediate_size": ffn, "image_size": tile}  # fmt: skip
    config = SiglipVisionConfig(**sizes, vision_use_head=False)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        tower, pixels = SiglipVisionModel(config), torch.empty(1, 3, tile // patch * patch, tile // patch * patch)
    with FlopCounterMode(display=False) as counted:
        tower(pixels)
    return int(counted.get_total_flops())


def main() -> None:
    mode, *rest = sys.argv[1:]
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to stderr
    found: Any
    if mode == "count":
        found = {file: count(file) for file in rest}
    elif mode == "operations":
        found = [operations(*sizes) for sizes in json.loads(rest[0])]
    else:
        prompts = json.loads(Path(rest[0]).read_text())
        load = with_transformers if mode == "transformers" else with_vllm
        found = {folder: load(folder, prompts) for folder in rest[1:]}
    with os.fdopen(out, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
